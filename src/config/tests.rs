//! Tests of the documentation's example, and of every kind of problem with its path.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use crate::identity::{ClientAuthMode, MissingSni};
use crate::model::{CallerId, Name};
use crate::policy::{CallerOrigin, PolicySnapshot, QueryPairs, RouteMatch, RouteRequest};

use super::test_fixtures::{EXAMPLE, compile_valid, config_text};
use super::*;

fn problems(text: &str) -> Vec<ConfigProblem> {
    compile_text(text, Path::new("/etc/tallygate"), &NameInterner::default())
        .err()
        .map(|found| found.0)
        .unwrap_or_default()
}

/// The example with one passage changed.
fn changed(from: &str, to: &str) -> Vec<ConfigProblem> {
    assert!(EXAMPLE.contains(from), "the example does not hold {from:?}");
    problems(&EXAMPLE.replacen(from, to, 1))
}

#[test]
fn example_compiles_to_the_described_snapshot() {
    let numbers = NameInterner::default();
    let read = compile_text(EXAMPLE, Path::new("/etc/tallygate"), &numbers).expect("no problems");
    let settings = &read.settings;
    assert_eq!(settings.gateway.as_str(), "tallygate");
    assert_eq!(
        settings.listeners[0].tls.as_ref().expect("TLS").certificates[0].certificate,
        Path::new("/etc/tallygate/pki/server.pem")
    );
    assert_eq!(settings.ledger_path, Path::new("/etc/tallygate/data/ledger.db"));
    assert_eq!(settings.sync_every, Duration::from_millis(50));
    assert_eq!(settings.workers, 2);
    let snapshot = &read.snapshot;
    assert_eq!(snapshot.version.len(), 12);
    let police = CallerId::Uri("spiffe://city.example/department/traffic-police".to_owned());
    let department = snapshot.department_of(&[police], None).expect("claimed");
    assert_eq!(department.department.name, "Traffic Police Bureau");
    let RouteMatch::Command { subsystem, command, .. } =
        route_of(snapshot, "gateway.city.example:8443", &Method::POST, "/cameras/v1/snapshots")
    else {
        panic!("not a command");
    };
    assert_eq!(command.header, "cameras/snapshot.submit");
    assert_eq!(command.body_max, 16 << 20);
    assert_eq!(subsystem.backend.as_ref().expect("servers").upstreams[0].address.to_string(), "127.0.0.1:9001");
    let grant = snapshot.find_grant(department, command).expect("granted");
    let origin = snapshot.grant_origin(&grant).expect("of this snapshot");
    assert_eq!((origin.index, origin.pattern), (0, "snapshot.*"));
}

#[test]
fn every_problem_is_reported_with_its_path() {
    let other = "\n  - id: parking\n    hosts: [gateway.city.example]\n    path: /cameras/\n    \
                 upstreams: [{ url: \"http://127.0.0.1:9002\" }]\n    otherCommands: allow\ngrants:";
    let crowded = format!("retries: {{ on: [{}] }}", ["503"; 33].join(", "));
    let cases: &[(&str, &str, &str, &str)] = &[
        ("rate: 2000/s", "rate: 2000/x", "departments[0].limits.rate", "is not a rate; write N/s, N/m or N/h"),
        ("burst: 4000", "burst: 0", "departments[0].limits.burst", "0 would refuse everything"),
        ("burst: 4000", "burst: 4294967296", "departments[0].limits.burst", "too many"),
        ("rate: 2000/s, burst: 4000", "burst: 4000", "departments[0].limits.burst", "requires a rate"),
        ("rate: 2000/s, burst: 4000", "rate: 1/h, burst: 9000", "departments[0].limits.burst", "more than a year"),
        ("concurrent: 500", "concurrent: 0", "departments[0].limits.concurrent", "0 would"),
        ("rate: 20000/s", "rate: 0/s", "limits.total.rate", "a rate of 0 refuses"),
        ("rate: 500/s", "rate: fast", "subsystems[0].commands[0].limits.rate", "not a rate"),
        ("warn: [80, 90]", "warn: [90, 80]", "departments[0].quota.warn[1]", "sort them"),
        ("warn: [80, 90]", "warn: [101]", "departments[0].quota.warn[0]", "between 1 and 100"),
        ("units: 50000000", "units: 0", "departments[0].quota.units", "0 would"),
        ("per: month", "per: week", "departments[0].quota.per", "day, month"),
        ("units: 50000000, ", "", "departments[0].quota", "write units or commands"),
        ("units: 50000000", "units: 5, commands: 5", "departments[0].quota", "two entries of quotas"),
        ("units: 50000000", "commands: 0", "departments[0].quota.commands", "0 would"),
        (
            "quota: { per: month, units: 50000000, warn: [80, 90], exceeded: refuse }",
            "quotas: [{ per: day, units: 1 }, { per: day, commands: 1 }, { per: day, units: 2 }]",
            "departments[0].quotas[2]",
            "another quota counts units per day, too",
        ),
        (
            "quota: { per: month",
            "quotas: [{ per: day, units: 1 }]\n    quota: { per: month",
            "departments[0].quota",
            "stands beside quotas",
        ),
        ("exceeded: refuse", "exceeded: warn", "departments[0].quota.exceeded", "refuse, allow"),
        ("id: traffic-police", "id: unknown", "departments[0].id", "is reserved for Tallygate"),
        ("id: traffic-police", "id: traffic police", "departments[0].id", "not ' '"),
        ("uri: spiffe:", "dns: spiffe:", "departments[0].callers[0].dns", "not a host"),
        ("- uri: spiffe:", "- dns: a\n        uri: spiffe:", "departments[0].callers[0]", "exactly one"),
        ("department: traffic-police", "department: traffic-polce", "grants[0].department", "there is no department"),
        ("subsystem: cameras", "subsystem: signals", "grants[0].subsystem", "there is no subsystem"),
        ("\"snapshot.*\"", "\"signal.*\"", "grants[0].commands[0]", "matches no command of cameras"),
        ("\"snapshot.*\"", "\"snapshot.[\"", "grants[0].commands[0]", "not a pattern"),
        ("[\"snapshot.*\"]", "[]", "grants[0].commands", "grants nothing"),
        ("path: /cameras", "path: cameras", "subsystems[0].path", "does not start with '/'"),
        ("path: /v1/snapshots }", "path: v1 }", "subsystems[0].commands[0].match.path", "does not start with '/'"),
        ("method: GET", "method: get", "subsystems[0].commands[1].match.method", "in capitals"),
        ("id: snapshot.read", "id: snapshot.submit", "subsystems[0].commands[1].id", "two commands"),
        ("id: snapshot.read", "id: other", "subsystems[0].commands[1].id", "is reserved for Tallygate"),
        (
            "GET, path: \"/v1/snapshots/{id}\"",
            "POST, path: /v1/snapshots",
            "subsystems[0].commands[1].match",
            "commands[0]",
        ),
        ("path: /v1/snapshots }", "pathPrefix: v1 }", "subsystems[0].commands[0].match.pathPrefix", "start with '/'"),
        ("path: /v1/snapshots }", "pathRegex: \"(\" }", "subsystems[0].commands[0].match.pathRegex", "not a regular"),
        ("path: /v1/snapshots }", "}", "subsystems[0].commands[0].match.path", "is missing"),
        (
            "path: /v1/snapshots }",
            "path: /a, pathPrefix: /b }",
            "subsystems[0].commands[0].match.pathPrefix",
            "beside a path",
        ),
        (
            "match: { method: POST, path: /v1/snapshots }",
            "match: []",
            "subsystems[0].commands[0].match",
            "at least one match",
        ),
        (
            "match: { method: POST, path: /v1/snapshots }",
            "match: [{ path: /a }, { method: get, path: /b }]",
            "subsystems[0].commands[0].match[1].method",
            "in capitals",
        ),
        (
            "match: { method: POST, path: /v1/snapshots }",
            "match: [{ path: /a, header: [] }]",
            "subsystems[0].commands[0].match[0].header",
            "did you mean \"headers\"?",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, headers: [{ name: Host, value: a }] }",
            "subsystems[0].commands[0].match.headers[0].name",
            "hosts of the subsystem",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, headers: [{ name: X-Forwarded-For, present: true }] }",
            "subsystems[0].commands[0].match.headers[0].name",
            "only the gateway may write it",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, headers: [{ name: a_b, present: true }] }",
            "subsystems[0].commands[0].match.headers[0].name",
            "letters, digits and hyphens",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, headers: [{ name: a, value: x }, { name: A, value: y }] }",
            "subsystems[0].commands[0].match.headers[1].name",
            "named twice",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, headers: [{ name: a, value: x, present: true }] }",
            "subsystems[0].commands[0].match.headers[0]",
            "exactly one of value, regex and present",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, query: [{ name: a, present: false }] }",
            "subsystems[0].commands[0].match.query[0].present",
            "absence",
        ),
        (
            "path: /v1/snapshots }",
            "path: /a, query: [{ name: a, regex: \"[\" }] }",
            "subsystems[0].commands[0].match.query[0].regex",
            "not a regular",
        ),
        ("max: 16MiB", "max: 16MB", "subsystems[0].commands[0].body.max", "not a size"),
        ("max: 16MiB", "max: 0B", "subsystems[0].commands[0].body.max", "0 would"),
        ("http://127.0.0.1:9001", "https://127.0.0.1:9001", "subsystems[0].tls", "is missing"),
        ("http://127.0.0.1:9001", "127.0.0.1", "subsystems[0].upstreams[0].url", "http://host:port"),
        ("[{ url: \"http://127.0.0.1:9001\" }]", "[]", "subsystems[0].upstreams", "at least one"),
        ("balance: leastRequest", "balance: random", "subsystems[0].balance", "leastRequest, roundRobin"),
        (
            "balance: leastRequest",
            "balance: { hash: caller }",
            "subsystems[0].balance.hash",
            "write one of: department",
        ),
        (
            "balance: leastRequest",
            "balance: { hash: { header: a b } }",
            "subsystems[0].balance.hash.header",
            "the name of a header",
        ),
        (
            "balance: leastRequest",
            "balance: { cookie: { name: c, mode: sticky } }",
            "subsystems[0].balance.cookie.mode",
            "balanced, persistent",
        ),
        (
            "balance: leastRequest",
            "balance: { cookie: { name: c, mode: persistent } }",
            "subsystems[0].balance.cookie.secret",
            "needs it",
        ),
        (
            "balance: leastRequest",
            "balance: { cookie: { name: c, mode: persistent, secret: fifteen-letters } }",
            "subsystems[0].balance.cookie.secret",
            "at least 16",
        ),
        (
            "balance: leastRequest",
            "balance: { cookie: { name: c, secret: sixteen--letters } }",
            "subsystems[0].balance.cookie.secret",
            "no effect without",
        ),
        ("balance: leastRequest", "retries: { attempts: 11 }", "subsystems[0].retries.attempts", "between 1 and 10"),
        ("balance: leastRequest", "retries: { on: [503, 399] }", "subsystems[0].retries.on[1]", "between 400 and 599"),
        ("balance: leastRequest", "retries: { on: [600] }", "subsystems[0].retries.on[0]", "between 400 and 599"),
        ("balance: leastRequest", "retries: { on: [reset] }", "subsystems[0].retries.on[0]", "connect-failure"),
        ("balance: leastRequest", "retries: { backoff: 11s }", "subsystems[0].retries.backoff", "longer than 10 s"),
        ("balance: leastRequest", crowded.as_str(), "subsystems[0].retries.on", "at most 32"),
        (
            "balance: leastRequest",
            "retries: { budgetPercent: 0 }",
            "subsystems[0].retries.budgetPercent",
            "between 1 and 100",
        ),
        ("balance: leastRequest", "slowStart: 0s", "subsystems[0].slowStart", "0 would expire immediately"),
        (
            "balance: leastRequest",
            "queue: { length: 100001 }",
            "subsystems[0].queue.length",
            "above the maximum of 100000",
        ),
        (
            "balance: leastRequest",
            "queue: { timeout: 0s }",
            "subsystems[0].queue.timeout",
            "0 would expire immediately",
        ),
        (
            "9001\" }",
            "9001\", maxRequests: 1 }",
            "subsystems[0].upstreams[0].maxRequests",
            "cannot be divided among 2 workers",
        ),
        ("9001\" }", "9001\", weight: 1001 }", "subsystems[0].upstreams[0].weight", "between 0 and 1000"),
        ("9001\" }", "9001\", weight: 0 }", "subsystems[0].upstreams", "all weights are 0"),
        (
            "balance: leastRequest",
            "healthCheck: { path: health }",
            "subsystems[0].healthCheck.path",
            "such as /healthz",
        ),
        (
            "balance: leastRequest",
            "healthCheck: { path: /, interval: 1ms }",
            "subsystems[0].healthCheck.interval",
            "at least 100ms",
        ),
        ("balance: leastRequest", "healthCheck: { path: /, fall: 0 }", "subsystems[0].healthCheck.fall", "between 1"),
        (
            "balance: leastRequest",
            "healthCheck: { path: /, status: 2xx }",
            "subsystems[0].healthCheck.status",
            "such as 200..399",
        ),
        ("connect: 2s", "connect: 2", "subsystems[0].timeouts.connect", "not a duration"),
        ("connect: 2s", "connect: 0s", "subsystems[0].timeouts.connect", "0 would expire immediately"),
        ("connect: 2s", "request: 2", "subsystems[0].timeouts.request", "not a duration"),
        ("connect: 2s", "attempt: 2", "subsystems[0].timeouts.attempt", "not a duration"),
        (
            "units: 1\n",
            "units: 1\n        timeouts: { attempt: soon }\n",
            "subsystems[0].commands[0].timeouts.attempt",
            "not a duration",
        ),
        ("otherCommands: refuse", "otherCommands: yes", "subsystems[0].otherCommands", "refuse, allow"),
        (
            "units: 1\n",
            "units: 1\n        bandwidthLimit: { rate: 10 }\n",
            "subsystems[0].commands[0].bandwidthLimit.rate",
            "not a size",
        ),
        (
            "units: 1\n",
            "units: 1\n        bandwidthLimit: { rate: 1B, after: 18446744073709551615KiB }\n",
            "subsystems[0].commands[0].bandwidthLimit.after",
            "too large",
        ),
        ("[gateway.city.example]", "[\"a.*.example\"]", "subsystems[0].hosts[0]", "wildcards"),
        ("[gateway.city.example]", "[\"*\"]", "subsystems[0].hosts[0]", "wildcards"),
        ("[gateway.city.example]", "[\"*.\"]", "subsystems[0].hosts[0]", "*.name for one label"),
        ("[gateway.city.example]", "[\"*.a\", \"*.A\"]", "subsystems[0].hosts[1]", "named twice"),
        ("[gateway.city.example]", "[]", "subsystems[0].hosts", "omit it"),
        (
            "\ngrants:",
            other,
            "subsystems[1].path",
            "the same path on the host gateway.city.example already belongs to cameras; see also subsystems[0]",
        ),
        ("\"+08:00\"", "\"+05:30\"", "calendar.offset", "whole hours"),
        ("workers: 2", "workers: 0", "workers", "between 1 and 1024"),
        ("workers: 2", "capacity: { connections: 0 }", "capacity.connections", "at least 1"),
        ("workers: 2", "capacity: { connectionCommands: 0 }", "capacity.connectionCommands", "at least 1"),
        ("workers: 2", "capacity: { headBytes: 1KiB }", "capacity.headBytes", "between 8KiB and 1MiB"),
        ("syncEvery: 50ms", "syncEvery: 5m", "ledger.syncEvery", "more than a minute"),
        ("durability: process", "durability: none", "ledger.durability", "process, machine"),
        ("address: 127.0.0.1:8443", "address: 8443", "listeners[0].address", "IP:port"),
        ("mode: required", "mode: never", "listeners[0].tls.clientAuth.mode", "required, optional"),
        ("mode: required", "mode: never", "listeners[0].tls.clientAuth.mode", "allowInsecureFallback"),
        ("[pki/ca.pem]", "[]", "listeners[0].tls.clientAuth.authorities", "at least one"),
        ("key: pki/server.key", "", "listeners[0].tls.key", "is missing"),
        (
            "key: pki/server.key",
            "certificates: [{ certificate: a, key: b }]",
            "listeners[0].tls.certificate",
            "cannot stand beside certificates",
        ),
        ("127.0.0.1:9090", "127.0.0.1:8443", "admin.address", "listeners[0]"),
        (
            "uri: spiffe:",
            "dns: \"*.city.example\" #",
            "departments[0].callers[0].dns",
            "does not identify a single caller",
        ),
        ("/v1/snapshots/{id}", "/v1/../{id}", "subsystems[0].commands[1].match.path", "dot segment"),
        (
            "body: { max: 16MiB }",
            "headers: { request: { set: { Host: a } } }",
            "subsystems[0].commands[0].headers.request.set.Host",
            "the host that was authorised",
        ),
        (
            "body: { max: 16MiB }",
            "headers: { response: { remove: [X-Request-Id] } }",
            "subsystems[0].commands[0].headers.response.remove[0]",
            "which only the gateway does",
        ),
        (
            "body: { max: 16MiB }",
            "headers: { request: { set: { X-A: \"1\\n\" } } }",
            "subsystems[0].commands[0].headers.request.set.X-A",
            "printable ASCII",
        ),
        (
            "body: { max: 16MiB }",
            "headers: { request: { set: { X-A: b }, remove: [x-a] } }",
            "subsystems[0].commands[0].headers.request.remove[0]",
            "named twice",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { path: \"/v2/{id}\" }",
            "subsystems[0].commands[0].rewrite.path",
            "{id} is not captured",
        ),
        (
            "{ method: GET, path: \"/v1/snapshots/{id}\" }",
            "[{ path: \"/a/{id}\" }, { path: \"/{id}\" }]\n        rewrite: { path: \"/v2/{id}\" }",
            "subsystems[0].commands[1].rewrite.path",
            "at different places",
        ),
        (
            "path: /v1/snapshots }",
            "pathPrefix: /a }\n        redirect: { location: \"/v2/{id}\" }",
            "subsystems[0].commands[0].redirect.location",
            "only match.path captures",
        ),
        ("body: { max: 16MiB }", "rewrite: { path: /a/../b }", "subsystems[0].commands[0].rewrite.path", "dot segment"),
        (
            "body: { max: 16MiB }",
            "rewrite: { prefix: internal }",
            "subsystems[0].commands[0].rewrite.prefix",
            "does not start",
        ),
        ("body: { max: 16MiB }", "rewrite: {}", "subsystems[0].commands[0].rewrite", "only one of them"),
        (
            "body: { max: 16MiB }",
            "redirect: { location: ftp://a/b }",
            "subsystems[0].commands[0].redirect.location",
            "is not a location",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { location: \"/a/{id}\" }",
            "subsystems[0].commands[0].redirect.location",
            "{id} is not captured",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { location: /a, status: 304 }",
            "subsystems[0].commands[0].redirect.status",
            "301, 302, 303, 307 or 308",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { location: /a }\n        rewrite: { path: /b }",
            "subsystems[0].commands[0].redirect",
            "cannot be combined with rewrite",
        ),
        (
            "body: { max: 16MiB }",
            "cors: { origins: [\"*\"], credentials: true }",
            "subsystems[0].commands[0].cors.origins",
            "cannot be combined with credentials",
        ),
        (
            "body: { max: 16MiB }",
            "cors: { origins: [\"https://a/\"] }",
            "subsystems[0].commands[0].cors.origins[0]",
            "is not an origin",
        ),
        ("body: { max: 16MiB }", "cors: { origins: [] }", "subsystems[0].commands[0].cors.origins", "at least one"),
        (
            "body: { max: 16MiB }",
            "cors: { origins: [\"https://a\"], exposeHeaders: [\"*\"], credentials: true }",
            "subsystems[0].commands[0].cors.exposeHeaders",
            "wildcard with credentials",
        ),
        (
            "body: { max: 16MiB }",
            "cors: { origins: [\"https://a\"], maxAge: soon }",
            "subsystems[0].commands[0].cors.maxAge",
            "not a duration",
        ),
        (
            "otherCommands: refuse",
            "cors: { origins: [\"*\", \"https://a\"] }",
            "subsystems[0].cors.origins",
            "every origin",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab }",
            "subsystems[0].commands[0].mirror.subsystem",
            "no subsystem \"lab\"",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: cameras }",
            "subsystems[0].commands[0].mirror.subsystem",
            "command's own",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, percent: 0 }",
            "subsystems[0].commands[0].mirror.percent",
            "between 1 and 100",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { path: /a, prefix: /b }",
            "subsystems[0].commands[0].rewrite",
            "only one of them",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { host: \"cameras.internal:80\" }",
            "subsystems[0].commands[0].rewrite.host",
            "is not a host",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { host: \"*.internal\" }",
            "subsystems[0].commands[0].rewrite.host",
            "wildcards",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { host: \"a b\" }",
            "subsystems[0].commands[0].rewrite.host",
            "is not a host",
        ),
        (
            "body: { max: 16MiB }",
            "rewrite: { host: \"{id}\" }",
            "subsystems[0].commands[0].rewrite.host",
            "is not a host",
        ),
        (
            "body: { max: 16MiB }",
            "headers: { request: { set: { Host: a } } }",
            "subsystems[0].commands[0].headers.request.set.Host",
            "rewrite.host",
        ),
        ("body: { max: 16MiB }", "redirect: {}", "subsystems[0].commands[0].redirect", "needs a location"),
        (
            "body: { max: 16MiB }",
            "redirect: { location: /a, host: b }",
            "subsystems[0].commands[0].redirect",
            "only one of the two",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { path: /a, prefix: /b }",
            "subsystems[0].commands[0].redirect",
            "only one of them",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { scheme: ftp }",
            "subsystems[0].commands[0].redirect.scheme",
            "http, https",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { host: \"a:80\" }",
            "subsystems[0].commands[0].redirect.host",
            "is not a host",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { host: \"a\\r\\nX-A: b\" }",
            "subsystems[0].commands[0].redirect.host",
            "is not a host",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { port: 0 }",
            "subsystems[0].commands[0].redirect.port",
            "between 1 and 65535",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { port: 65536 }",
            "subsystems[0].commands[0].redirect.port",
            "between 1 and 65535",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { path: \"/a/{id}\" }",
            "subsystems[0].commands[0].redirect.path",
            "{id} is not captured",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { path: \"/a?b\" }",
            "subsystems[0].commands[0].redirect.path",
            "not allowed in the path",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { prefix: \"//a\" }",
            "subsystems[0].commands[0].redirect.prefix",
            "empty segment",
        ),
        (
            "body: { max: 16MiB }",
            "redirect: { scheme: https, status: 200 }",
            "subsystems[0].commands[0].redirect.status",
            "301, 302",
        ),
        ("body: { max: 16MiB }", "mirror: []", "subsystems[0].commands[0].mirror", "at least one mirror and at most 4"),
        (
            "body: { max: 16MiB }",
            "mirror: [{ subsystem: lab }, { subsystem: lab }, { subsystem: lab }, { subsystem: lab }, { subsystem: lab }]",
            "subsystems[0].commands[0].mirror",
            "at least one mirror and at most 4",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: [{ subsystem: lab }, { subsystem: cameras }]",
            "subsystems[0].commands[0].mirror[1].subsystem",
            "command's own",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: [{ subsystem: lab }]",
            "subsystems[0].commands[0].mirror[0].subsystem",
            "no subsystem",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, percent: 1, fraction: { numerator: 1 } }",
            "subsystems[0].commands[0].mirror",
            "only one of them",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, fraction: { numerator: 0 } }",
            "subsystems[0].commands[0].mirror.fraction",
            "between 1 and the denominator",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, fraction: { numerator: 101 } }",
            "subsystems[0].commands[0].mirror.fraction",
            "between 1 and the denominator",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, fraction: { numerator: 1, denominator: 0 } }",
            "subsystems[0].commands[0].mirror.fraction",
            "between 1 and the denominator",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, fraction: { numerator: 1, denominator: 1000001 } }",
            "subsystems[0].commands[0].mirror.fraction",
            "between 1 and the denominator",
        ),
        (
            "body: { max: 16MiB }",
            "mirror: { subsystem: lab, fraction: { numerator: 4294967297 } }",
            "subsystems[0].commands[0].mirror.fraction",
            "between 1 and the denominator",
        ),
        ("units: 50000000, warn: [80, 90]", "units: 0, warn: [90, 80]", "departments[0].quota.warn[1]", "sort them"),
    ];
    for (from, to, path, text_part) in cases {
        let found = changed(from, to);
        let is_reported = found.iter().any(|problem| problem.path == *path && problem.to_string().contains(text_part));
        assert!(is_reported, "{to:?} is not reported at {path} as {text_part:?}: {found:#?}");
    }
}

#[test]
fn retries_name_statuses_and_connection_failures() {
    let read = |retries: &str| {
        let text = EXAMPLE.replace("balance: leastRequest", &format!("retries: {retries}"));
        compile_valid(&text).snapshot.backends[0].retries.clone().expect("retries")
    };
    let policy = read("{ attempts: 10, on: [429, connect-failure, 500, 599], backoff: 50ms }");
    assert_eq!((policy.attempts, policy.on, policy.on_connect_failure), (10, vec![429, 500, 599], true));
    assert_eq!(policy.backoff, Some(Duration::from_millis(50)));
    let policy = read("{ backoff: 0s }");
    assert_eq!((policy.attempts, policy.budget_percent, policy.on), (1, 20, vec![]));
    assert_eq!((policy.on_connect_failure, policy.backoff), (false, None));
}

#[test]
fn command_overrides_each_timeout_of_its_subsystem() {
    let timeouts = |common: &str, own: &str| {
        let text = EXAMPLE.replace("connect: 2s", &format!("connect: 2s{common}"));
        let text = text.replacen("units: 1\n", &format!("units: 1\n{own}"), 1);
        let subsystem = compile_valid(&text).snapshot.subsystems[0].clone();
        [0, 1].map(|command: usize| {
            let timeouts = subsystem.commands[command].timeouts;
            (timeouts.request.map(|time| time.as_secs()), timeouts.attempt.map(|time| time.as_secs()))
        })
    };
    let common = ", request: 9s, attempt: 3s";
    assert_eq!(timeouts("", ""), [(None, None); 2]);
    assert_eq!(timeouts(", request: 0s", ""), [(None, None); 2]);
    assert_eq!(timeouts(common, ""), [(Some(9), Some(3)); 2]);
    let own = "        timeouts: { request: 0s, attempt: 4s }\n";
    assert_eq!(timeouts(common, own), [(None, Some(4)), (Some(9), Some(3))]);
    assert_eq!(timeouts(common, "        timeouts: { request: 1s }\n")[0], (Some(1), Some(3)));
}

#[test]
fn all_problems_are_reported_together() {
    let text =
        EXAMPLE.replace("rate: 2000/s", "rate: 2000/x").replace("\"+08:00\"", "\"8\"").replace("workers", "worker");
    let paths: Vec<_> = problems(&text).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["worker", "calendar.offset", "departments[0].limits.rate"]);
}

#[test]
fn tunnel_requires_an_http1_subsystem() {
    let text = EXAMPLE.replace("body: { max: 16MiB }", "upgrade: websocket");
    assert_eq!(problems(&text), []);
    let found = problems(&text.replace("balance: leastRequest", "protocol: http2"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].path, "subsystems[0].commands[0].upgrade");
    assert!(found[0].message.contains("subsystem with HTTP/2"), "{found:#?}");
}

#[test]
fn misspelt_keys_are_reported_with_a_hint() {
    let found = changed("burst: 4000", "brust: 4000");
    assert_eq!(found[0].to_string(), "departments[0].limits.brust: unknown key (did you mean \"burst\"?)");
    let found = changed("otherCommands: refuse", "others: refuse");
    assert_eq!(found[0].path, "subsystems[0].others");
    assert!(found[0].hint.as_ref().is_some_and(|hint| hint.contains("otherCommands")), "{found:?}");
    for (mirror, key) in
        [("{ subsystem: lab, persent: 1 }", "persent"), ("[{ subsystem: lab, persent: 1 }]", "[0].persent")]
    {
        let found = changed("body: { max: 16MiB }", &format!("mirror: {mirror}"));
        let dot = if key.starts_with('[') { "" } else { "." };
        let expected = format!("subsystems[0].commands[0].mirror{dot}{key}: unknown key (did you mean \"percent\"?)");
        assert!(found.iter().any(|problem| problem.to_string() == expected), "{expected}: {found:?}");
    }
}

#[test]
fn wrong_types_are_reported_with_their_path_in_plain_words() {
    for (from, to, expected) in [
        ("units: 50000000", "units: many", "departments[0].quota.units: a whole number was expected"),
        ("burst: 4000", "burst: 99999999999999999999", "departments[0].limits.burst: a whole number"),
        ("warn: [80, 90]", "warn: 80", "departments[0].quota.warn: a list was expected"),
        ("ledger:\n  path", "ledger: x\nno:\n  path", "ledger: a mapping (keys with values) was expected"),
        ("address: 127.0.0.1:9090", "address: [::1]:9090", "admin.address: a scalar value was expected"),
        ("  address: 127.0.0.1:9090", "  {}", "admin.address: is missing"),
        ("body: { max: 16MiB }", "mirror: {}", "subsystems[0].commands[0].mirror: has neither a subsystem nor"),
        (
            "body: { max: 16MiB }",
            "mirror: [{ subsystem: lab, percent: half }]",
            "subsystems[0].commands[0].mirror[0].percent: a whole number was expected",
        ),
    ] {
        let found = changed(from, to);
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|text| text.starts_with(expected)), "{expected}: {texts:#?}");
    }
}

#[test]
fn non_documents_are_reported_in_plain_words() {
    for (text, expected) in [
        ("", "the file ends where a mapping was expected"),
        ("# nothing\n", "the file ends where a mapping was expected"),
        ("- a\n", "a mapping (keys with values) was expected, at line 1, column 1"),
        ("workers: 1\nworkers: 2\n", "duplicate key workers; keep one of them"),
        ("ledger: { path: a.db }\n---\nworkers: 2\n", "a second document begins here"),
    ] {
        let found = problems(text);
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:#?}");
    }
}

#[test]
fn syntax_errors_are_reported_with_line_and_column() {
    let found = problems("gateway: a\nledger: { path: \"a.db }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "ledger");
    assert!(found[0].message.contains("line 2, column "), "{found:?}");
}

#[test]
fn files_are_checked_even_if_there_are_other_problems() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.yaml");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    let text = EXAMPLE.replace("rate: 2000/s", "rate: fast").replace("mode: required", "mod: required");
    std::fs::write(&path, text.replace("data/ledger.db", "data")).expect("a file");
    let found = load_configuration(&path, &NameInterner::default(), &Clock::system()).expect_err("wrong").0;
    let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    for expected in
        ["departments[0].limits.rate", "listeners[0].tls.clientAuth.mod", "listeners[0].tls.key", "ledger.path"]
    {
        assert!(paths.contains(&expected), "{expected}: {found:#?}");
    }
    std::fs::write(&path, EXAMPLE.replace("[pki/ca.pem]", "[]")).expect("a file");
    let found = load_configuration(&path, &NameInterner::default(), &Clock::system()).expect_err("wrong").0;
    assert_eq!(found.len(), 1, "files with a substitute are not read from the disk: {found:#?}");
}

#[test]
fn certificates_of_a_list_have_the_default_client_authentication_or_their_own() {
    let tls = "tls:
      certificates:
        - { certificate: a.pem, key: memory:ns/a/tls.key, serverNames: [\"**.a.example\"] }
        - { certificate: b.pem, key: b.key, clientAuth: { mode: optional, authorities: [\"memory:ns/b/ca.crt\"] } }
      clientAuth: { authorities: [ca.pem] }
      missingServerName: refuse
";
    let text = format!(
        "ledger: {{ path: l.db }}\nlisteners:\n  - name: a\n    address: \"127.0.0.1:1\"\n    {tls}departments: [{{ id: d, callers: \
         [{{ dns: d }}, {{ listener: a }}] }}]\nsubsystems: []\n"
    );
    let read = compile_text(&text, Path::new("/etc"), &NameInterner::default()).expect("no problems");
    let files = read.settings.listeners[0].tls.as_ref().expect("TLS");
    let [first, second] = &files.certificates[..] else { panic!("{files:?}") };
    assert_eq!(
        (first.certificate.as_path(), first.key.as_path()),
        (Path::new("/etc/a.pem"), Path::new("memory:ns/a/tls.key"))
    );
    let auths = [first, second].map(|files| files.client_auth.as_ref().expect("client authentication"));
    assert_eq!(auths.map(|auth| auth.mode), [ClientAuthMode::Required, ClientAuthMode::Optional]);
    assert_eq!(auths[0].authorities, [Path::new("/etc/ca.pem")]);
    assert_eq!(auths[1].authorities, [Path::new("memory:ns/b/ca.crt")]);
    assert_eq!(files.missing_sni, MissingSni::Refuse);
    let strict = text.replace("mode: optional", "mode: required");
    let found = problems(&strict);
    assert_eq!(found[0].path, "departments[0].callers[1].listener", "every certificate requires one: {found:?}");
}

#[test]
fn length_of_a_list_of_certificates_is_bounded() {
    for (count, is_valid) in [(0, false), (1, true), (1_024, true), (1_025, false)] {
        let listed = vec!["{ certificate: c, key: k }"; count].join(", ");
        let text = EXAMPLE.replace("certificate: pki/server.pem", &format!("certificates: [{listed}]"));
        let text = text.replace("      key: pki/server.key\n", "");
        let read = compile_text(&text, Path::new("/"), &NameInterner::default());
        assert_eq!(read.is_ok(), is_valid, "{count}: {:?}", read.err());
    }
}

#[test]
fn two_departments_cannot_claim_one_identity() {
    let twin = "departments:\n  - id: twin\n    callers: [{ uri: spiffe://city.example/department/traffic-police }]\n";
    let found = changed("departments:\n  - id", &format!("{twin}  - id"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "departments[1].callers[0]");
    assert!(found[0].message.contains("already claimed by department twin"), "{found:?}");
}

#[test]
fn an_identity_counts_in_the_realms_of_its_department_alone() {
    let department = |id: &str, realms: &str| format!("{{ id: {id}, callers: [{{ dns: {id} }}], realms: [{realms}] }}");
    let listener = "{ listener: a, unclaimed: true }";
    let text = config_text(&format!(
        "departments: [{}, {}, {{ id: open, callers: [{listener}] }}]\n\
         subsystems: [{{ id: s, upstreams: [{{ url: \"http://127.0.0.1:1\" }}], commands: [{{ id: c, match: {{ path: / }} }}] }}]\n",
        department("plain", ""),
        department("bound", "tower, city"),
    ));
    let snapshot = compile_valid(&text).snapshot;
    let name = |text: &str| Name::parse(text).expect("a name");
    let (listener, realms) = (name("a"), [name("city"), name("tower"), name("other")]);
    for (identity, realm, refuses_unclaimed, expected) in [
        ("plain", None, false, "plain"),
        ("bound", None, false, "open"),
        ("bound", None, true, "none"),
        ("bound", Some(&realms[0]), true, "bound"),
        ("bound", Some(&realms[1]), false, "bound"),
        ("bound", Some(&realms[2]), false, "open"),
        ("bound", Some(&realms[2]), true, "none"),
        ("plain", Some(&realms[0]), true, "none"),
    ] {
        let origin = CallerOrigin { listener: &listener, realm, refuses_unclaimed };
        let identities = [CallerId::Dns(identity.to_owned())];
        let department = snapshot.certified_department(origin, &identities);
        let found = department.map_or("none", |policy| policy.department.id.as_str());
        assert_eq!(found, expected, "{identity} {realm:?} {refuses_unclaimed}");
        let is_claimed = snapshot.claimed_identity(&identities, realm).is_some();
        assert_eq!(is_claimed, found == identity, "{identity} {realm:?}");
    }
}

#[test]
fn problems_of_realms_have_their_paths() {
    let with = |auth: &str, realms: &str| {
        problems(&format!(
            "ledger: {{ path: l.db }}\n\
             listeners: [{{ name: a, address: \"127.0.0.1:1\", tls: {{ certificate: c, key: k, clientAuth: {{ authorities: [x], {auth} }} }} }}]\n\
             departments: [{{ id: d, callers: [{{ dns: d }}], realms: [{realms}] }}]\n"
        ))
    };
    for (auth, realms, path) in [
        ("realm: city, unclaimed: refuse", "city", None),
        ("realm: \"?\"", "city", Some("listeners[0].tls.clientAuth.realm")),
        ("unclaimed: maybe", "city", Some("listeners[0].tls.clientAuth.unclaimed")),
        ("realm: city", "city, city", Some("departments[0].realms[1]")),
        ("realm: city", "\"?\"", Some("departments[0].realms[0]")),
    ] {
        let paths: Vec<String> = with(auth, realms).into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths.first().map(String::as_str), path, "{auth} {realms}");
    }
}

#[test]
fn a_refused_command_hides_less_specific_ones() {
    let server = "upstreams: [{ url: \"http://127.0.0.1:1\" }]";
    let command = |id: &str, path: &str, more: &str| format!("{{ id: {id}, match: {{ pathPrefix: {path} }}{more} }}");
    let commands = [command("all", "/", ""), command("closed", "/a", ", refuse: true"), command("open", "/a/b", "")];
    let text = config_text(&format!(
        "departments: [{{ id: d, callers: [{{ dns: d }}] }}]\nsubsystems: [{{ id: s, {server}, commands: [{}] }}]\n",
        commands.join(", ")
    ));
    let snapshot = compile_valid(&text).snapshot;
    for (path, expected) in [("/x", "s/all"), ("/a", "s/-"), ("/a/x", "s/-"), ("/a/b/c", "s/open")] {
        assert_eq!(command_of(&snapshot, "a.example", &Method::GET, path), expected, "{path}");
    }
}

#[test]
fn required_keys_cannot_be_omitted() {
    let paths: Vec<_> = problems("ledger: { path: a.db }\n").into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["listeners", "departments"]);
}

/// Every key that is read once, at start: its place in `STARTED`, another value, and the reported path.
const READ_ONCE: [(&str, &str, &str, &str); 17] = [
    ("gateway", "/gateway", "\"other-gateway\"", "gateway"),
    ("ledger.path", "/ledger/path", "\"other.db\"", "ledger.path"),
    ("ledger.syncEvery", "/ledger/syncEvery", "\"60ms\"", "ledger.syncEvery"),
    ("ledger.compactAfter", "/ledger/compactAfter", "\"never\"", "ledger.compactAfter"),
    ("calendar.offset", "/calendar", "{\"offset\": \"+00:00\"}", "calendar.offset"),
    ("workers", "/workers", "3", "workers"),
    ("shutdown.delay", "/shutdown", "{\"delay\": \"1s\"}", "shutdown.delay"),
    ("shutdown.quiet", "/shutdown", "{\"quiet\": \"1s\"}", "shutdown.quiet"),
    ("shutdown.grace", "/shutdown", "{\"grace\": \"1s\"}", "shutdown.grace"),
    ("capacity", "/capacity", "{\"connections\": 9}", "capacity.connections"),
    ("capacity", "/capacity", "{\"series\": 9}", "capacity.series"),
    ("tracing.endpoint", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.endpoint"),
    ("tracing.sample", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.sample"),
    ("tracing.parentBased", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.parentBased"),
    ("tracing.serviceName", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.serviceName"),
    ("tracing.timeout", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.timeout"),
    ("tracing.queue", "/tracing", "{\"endpoint\": \"http://c\"}", "tracing.queue"),
];

const STARTED: &str = r#"{
    "gateway": "one", "workers": 2,
    "listeners": [{ "name": "departments", "address": "127.0.0.1:8443", "tls": { "certificate": "c", "key": "k" } }],
    "ledger": { "path": "a.db" },
    "departments": [{ "id": "police", "callers": [{ "dns": "police.example" }] }]
}"#;

/// The settings of `STARTED` with one value set, at a place whose parent exists.
fn settings_with(pointer: &str, value: &str) -> GatewaySettings {
    let mut document: serde_json::Value = serde_json::from_str(STARTED).expect("JSON");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    document.pointer_mut(parent).expect("a place")[key] = serde_json::from_str(value).expect("JSON");
    let read = compile_text(&document.to_string(), Path::new("/"), &NameInterner::default());
    read.unwrap_or_else(|problems| panic!("{pointer}: {problems}")).settings
}

fn started() -> GatewaySettings {
    settings_with("/gateway", "\"one\"")
}

#[test]
fn every_start_only_key_is_reported_with_both_values() {
    for (key, pointer, value, path) in READ_ONCE {
        let pending = started().needs_restart(&settings_with(pointer, value));
        let setting = pending.iter().find(|setting| setting.path == path);
        let setting = setting.unwrap_or_else(|| panic!("{key}: {pending:?}"));
        assert_ne!(setting.live, setting.file, "{key}");
    }
    let changed = started().needs_restart(&settings_with("/workers", "3"));
    let (live, file) = (Some("2".to_owned()), Some("3".to_owned()));
    assert_eq!(changed, [PendingSetting { path: "workers".to_owned(), live, file }]);
    assert_eq!(started().needs_restart(&started()), []);
}

#[test]
fn listeners_the_admin_listener_and_the_access_log_need_no_restart() {
    for (pointer, value) in [
        ("/listeners/0/name", "\"front\""),
        ("/listeners/0/address", "\"127.0.0.1:8444\""),
        ("/listeners", r#"[{ "name": "departments", "address": "127.0.0.1:8443", "protocol": "http" }]"#),
        ("/listeners/0/connections", "7"),
        ("/listeners/0/proxyProtocol", "[\"10.0.0.0/8\"]"),
        ("/listeners/0/forwardedFor", "[\"10.0.0.1\"]"),
        ("/admin", "{\"address\": \"127.0.0.1:9999\", \"hosts\": [\"a.example\"]}"),
        ("/accessLog", "{\"output\": \"a\", \"queue\": {\"lines\": 9}}"),
    ] {
        let changed = settings_with(pointer, value);
        assert_ne!(started(), changed, "{pointer}");
        assert_eq!(started().needs_restart(&changed), [], "{pointer}");
    }
}

#[test]
fn manual_marks_exactly_the_start_only_keys() {
    let manual = include_str!("../../docs/configuration.md");
    let rows = manual.lines().filter(|line| line.starts_with('|') && line.ends_with(" * |"));
    let mut marked: Vec<String> = rows.flat_map(|row| keys_of_row(row.split('|').nth(1).expect("a cell"))).collect();
    marked.extend(manual.contains("\n`capacity` *,").then(|| "capacity".to_owned()));
    let mut expected: Vec<&str> = READ_ONCE.iter().map(|(key, ..)| *key).collect();
    marked.sort();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(marked, expected);
}

/// "`shutdown.delay`, `.grace`" names two keys.
fn keys_of_row(cell: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for written in cell.split('`').skip(1).step_by(2) {
        let parent = keys.last().and_then(|last| last.rsplit_once('.')).map(|(parent, _)| parent.to_owned());
        keys.push(match (written.strip_prefix('.'), parent) {
            (Some(last), Some(parent)) => format!("{parent}.{last}"),
            _ => written.to_owned(),
        });
    }
    keys
}

#[test]
fn every_capacity_key_requires_a_restart() {
    let keys =
        super::parse::json_schema::known_keys(&super::parse::json_schema::json_schema(), &["capacity".to_owned()]);
    assert!(keys.len() >= 18, "{keys:?}");
    for key in keys {
        let with = |value: &str| {
            let mut document: serde_json::Value = serde_json::from_str(STARTED).expect("JSON");
            document["capacity"] = serde_json::json!({ &key: serde_json::from_str::<serde_json::Value>(value).ok()? });
            compile_text(&document.to_string(), Path::new("/"), &NameInterner::default()).ok().map(|read| read.settings)
        };
        let changed = ["7", "\"7s\"", "\"9KiB\""].into_iter().find_map(with).expect("a value of its kind");
        let pending = started().needs_restart(&changed);
        let paths: Vec<_> = pending.iter().map(|setting| setting.path.as_str()).collect();
        assert_eq!(paths, [format!("capacity.{key}")]);
    }
}

#[test]
fn default_workers_are_bounded_by_cores_and_max_requests() {
    let without = EXAMPLE.replace("workers: 2", "");
    let workers = |text: &str| compile_valid(text).settings.workers;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(workers(&without), cores);
    for max in [1, 2, 1_000_000] {
        let text = without.replace("9001\" }", &format!("9001\", maxRequests: {max} }}"));
        assert_eq!(workers(&text), max.min(cores), "with {max} requests on {cores} cores");
    }
}

/// A document with these subsystems and grants, and defaults for all else.
fn city(subsystems: &str, grants: &str) -> String {
    config_text(&format!(
        "departments: [{{ id: police, callers: [{{ dns: police }}] }}, {{ id: health, callers: [{{ dns: health }}] }}]
subsystems:
{subsystems}
grants: {grants}
"
    ))
}

fn snapshot_of(text: &str) -> Arc<PolicySnapshot> {
    compile_valid(text).snapshot
}

/// The route of a request without fields and query.
fn route_of<'a>(snapshot: &'a PolicySnapshot, host: &str, method: &Method, path: &str) -> RouteMatch<'a> {
    let (listener, headers) = (Name::unknown(), HeaderMap::new());
    let query = QueryPairs::default();
    snapshot.find_route(&RouteRequest { listener: &listener, host, method, path, query, headers: &headers })
}

/// The command of a request, as `subsystem/command`.
fn command_of(snapshot: &PolicySnapshot, host: &str, method: &Method, path: &str) -> String {
    match route_of(snapshot, host, method, path) {
        RouteMatch::Command { command, .. } => command.header.to_str().expect("ASCII").to_owned(),
        RouteMatch::NoCommand { subsystem } => format!("{}/-", subsystem.id),
        RouteMatch::NoSubsystem => "-".to_owned(),
    }
}

#[test]
fn most_specific_route_wins() {
    let upstreams = "upstreams: [{ url: \"http://127.0.0.1:1\" }]";
    let snapshot = snapshot_of(&city(
        &format!(
            "  - {{ id: root, {upstreams}, otherCommands: allow }}
  - {{ id: city, hosts: [City.Example], path: /v1, {upstreams}, commands: [{{ id: all, match: {{ path: \"/{{*rest}}\" }} }}] }}
  - id: cameras
    path: /v1/cameras
    {upstreams}
    commands:
      - {{ id: list, match: {{ method: GET, path: / }} }}
      - {{ id: get, match: {{ method: GET, path: \"/{{id}}\" }} }}
      - {{ id: any, match: {{ path: \"/{{name}}\" }} }}
      - {{ id: stats, match: {{ path: /stats }} }}
      - {{ id: part, match: {{ method: GET, path: \"/{{camera}}/part/{{*rest}}\" }} }}"
        ),
        "[]",
    ));
    for (host, method, path, expected) in [
        ("other.example", Method::GET, "/v1/cameras", "cameras/list"),
        ("other.example", Method::GET, "/v1/cameras/", "cameras/list"),
        ("other.example", Method::HEAD, "/v1/cameras", "cameras/-"),
        ("other.example", Method::GET, "/v1/cameras/7", "cameras/get"),
        ("other.example", Method::PUT, "/v1/cameras/7", "cameras/any"),
        ("other.example", Method::GET, "/v1/cameras/stats", "cameras/stats"),
        ("other.example", Method::GET, "/v1/cameras/7/part/a/b", "cameras/part"),
        ("other.example", Method::GET, "/v1/cameras/7/parts", "cameras/-"),
        ("other.example", Method::GET, "/v1/camerasx", "root/other"),
        ("CITY.example.:8443", Method::GET, "/v1/cameras/7", "city/all"),
        ("city.example", Method::GET, "/v2", "root/other"),
    ] {
        assert_eq!(command_of(&snapshot, host, &method, path), expected, "{host} {method} {path}");
    }
}

#[test]
fn paths_outside_every_subsystem_match_no_command() {
    let snapshot = snapshot_of(EXAMPLE);
    for (host, path) in [("elsewhere.example", "/cameras/v1/snapshots"), ("gateway.city.example", "/camera")] {
        assert_eq!(command_of(&snapshot, host, &Method::POST, path), "-", "{host}{path}");
    }
}

#[test]
fn parameter_and_wildcard_in_one_segment_are_a_problem() {
    let subsystem = "  - id: cameras
    upstreams: [{ url: \"http://127.0.0.1:1\" }]
    commands:
      - { id: one, match: { path: \"/{id}\" } }
      - { id: rest, match: { path: \"/{*rest}\" } }";
    let found = problems(&city(subsystem, "[]"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "subsystems[0].commands[1].match");
}

#[test]
fn commands_without_a_matching_rule_are_not_granted() {
    let subsystem = "  - id: cameras
    upstreams: [{ url: \"http://127.0.0.1:1\" }]
    otherCommands: allow
    commands:
      - { id: snapshot.read, match: { path: /r } }
      - { id: snapshot.submit, match: { path: /s } }";
    let grants = "[{ department: police, subsystem: cameras, commands: [\"snapshot.s*\"] },
  { department: police, subsystem: cameras, commands: [other, \"snapshot.*\"] }]";
    let snapshot = snapshot_of(&city(subsystem, grants));
    let cameras = &snapshot.subsystems[0];
    let rule = |department: usize, command| {
        let grant = snapshot.find_grant(&snapshot.departments[department], command)?;
        let origin = snapshot.grant_origin(&grant)?;
        Some((origin.index, origin.pattern.to_owned()))
    };
    let other = cameras.other.as_ref().expect("allowed");
    assert_eq!(rule(0, &cameras.commands[0]), Some((1, "snapshot.*".to_owned())));
    assert_eq!(rule(0, &cameras.commands[1]), Some((0, "snapshot.s*".to_owned())));
    assert_eq!(rule(0, other), Some((1, "other".to_owned())));
    assert_eq!(rule(1, &cameras.commands[0]), None);
    assert_eq!(rule(1, other), None);
}

#[test]
fn published_configurations_are_valid() {
    let manual = include_str!("../../README.md");
    let (_, rest) = manual.split_once("```yaml\n").expect("the README shows a configuration");
    let (shown, _) = rest.split_once("```").expect("the end of the example");
    for (name, text) in
        [("README.md", shown), ("the unit's sample", include_str!("../../deploy/systemd/tallygate.yaml"))]
    {
        if let Err(problems) = compile_text(text, Path::new("/etc/tallygate"), &NameInterner::default()) {
            panic!("{name}:\n{problems}");
        }
    }
}
