//! Tests of routing as tables: the cases of the Gateway API's conformance tests (v1.6.3), and those of our own rules.

use std::path::Path;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config;
use crate::model::{Name, NameInterner};
use crate::policy::{PolicySnapshot, QueryPairs, RouteMatch, RouteRequest};

const UPSTREAMS: &str = "upstreams: [{ url: \"http://127.0.0.1:1\" }]";

/// A request: the target as `[METHOD] [listener|][host]/path[?query]`, and its fields as `name: value`.
struct TestRequest<'t>(&'t str, &'t [&'t str]);

/// The listeners: `a` and `c` without virtual hosts, `b` with two.
const LISTENERS: &str = "[
    { name: a, address: \"127.0.0.1:1\", tls: { certificate: c, key: k } },
    { name: b, address: \"127.0.0.1:2\", protocol: http, virtualHosts: [
        { name: wide, host: \"**.example.com\" }, { name: narrow, host: a.example.com } ] },
    { name: c, address: \"127.0.0.1:3\", protocol: http }]";

fn document(subsystems: &str) -> String {
    format!(
        "ledger: {{ path: l.db }}
listeners: {LISTENERS}
departments: [{{ id: police, callers: [{{ dns: police }}] }}]
subsystems: [{subsystems}]
"
    )
}

fn snapshot(subsystems: &str) -> std::sync::Arc<PolicySnapshot> {
    let read = config::compile_text(&document(subsystems), Path::new("/"), &NameInterner::default());
    read.unwrap_or_else(|problems| panic!("{problems}")).snapshot
}

/// A subsystem at `/` with commands that are written `id: match`.
fn subsystem(id: &str, keys: &str, commands: &[(&str, &str)]) -> String {
    let commands = commands.iter().map(|(id, matched)| format!("{{ id: {id}, match: {matched} }}"));
    format!("{{ id: {id}, {keys} {UPSTREAMS}, commands: [{}] }}", commands.collect::<Vec<_>>().join(", "))
}

/// The problems of a configuration, as `path: message` with the second place.
fn problems(subsystems: &str) -> Vec<String> {
    let read = config::compile_text(&document(subsystems), Path::new("/"), &NameInterner::default());
    read.err().map(|found| found.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// Calls `ask` with the parts of a request.
fn with_request<T>(request: &TestRequest<'_>, ask: impl FnOnce(&RouteRequest<'_>) -> T) -> T {
    let TestRequest(target, fields) = request;
    let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
    let (listener, target) = target.split_once('|').unwrap_or(("a", target));
    let listener = Name::parse(listener).expect("a name");
    let (host, target) = target.split_at(target.find('/').expect("a path"));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for field in *fields {
        let (name, value) = field.split_once(": ").expect("a field");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let host = if host.is_empty() { "any.example" } else { host };
    let query = QueryPairs::new(query);
    ask(&RouteRequest { listener: &listener, host, method: &method, path, query, headers: &headers })
}

/// The command of a request; `-` without a command, with the methods at its path.
fn route(snapshot: &PolicySnapshot, request: &TestRequest<'_>) -> String {
    with_request(request, |request| match snapshot.find_route(request) {
        RouteMatch::Command { command, .. } => command.key.command.to_string(),
        RouteMatch::NoCommand { .. } => ["-", &snapshot.methods_at(request).join(",")].concat(),
        RouteMatch::NoSubsystem => "none".to_owned(),
    })
}

#[track_caller]
fn check(snapshot: &PolicySnapshot, cases: &[(&str, &[&str], &str)]) {
    for (target, fields, expected) in cases {
        assert_eq!(route(snapshot, &TestRequest(target, fields)), *expected, "{target} {fields:?}");
    }
}

#[test]
fn httproute_matching() {
    let one = "[{ pathPrefix: / }, { pathPrefix: /, headers: [{ name: version, value: one }] }]";
    let two = "[{ pathPrefix: /v2 }, { pathPrefix: /, headers: [{ name: version, value: two }] }]";
    let snapshot = snapshot(&subsystem("s", "", &[("v1", one), ("v2", two)]));
    check(
        &snapshot,
        &[
            ("/", &[], "v1"),
            ("/example", &[], "v1"),
            ("/", &["Version: one"], "v1"),
            ("/v2", &[], "v2"),
            ("/v2/example", &[], "v2"),
            ("/", &["Version: two"], "v2"),
            ("/v2/", &[], "v2"),
            ("/v2example", &[], "v1"),
            ("/foo/v2/example", &[], "v1"),
        ],
    );
}

#[test]
fn httproute_matching_across_routes() {
    let one = "[{ pathPrefix: / }, { pathPrefix: /, headers: [{ name: version, value: one }] }]";
    let two = "[{ pathPrefix: /v2 }, { pathPrefix: /, headers: [{ name: version, value: two }] }]";
    let first = subsystem("a", "hosts: [example.com, example.net], otherCommands: next,", &[("v1", one)]);
    let second = subsystem("b", "hosts: [example.com], otherCommands: next,", &[("v2", two)]);
    check(
        &snapshot(&format!("{first}, {second}")),
        &[
            ("example.com/", &[], "v1"),
            ("example.com/example", &[], "v1"),
            ("example.net/example", &[], "v1"),
            ("example.com/example", &["Version: one"], "v1"),
            ("example.com/v2", &[], "v2"),
            ("example.net/v2", &[], "v1"),
            ("example.com/v2/example", &[], "v2"),
            ("example.com/", &["Version: two"], "v2"),
            ("example.org/", &[], "none"),
        ],
    );
}

#[test]
fn httproute_header_matching() {
    let field = |name: &str, value: &str| format!("{{ pathPrefix: /, headers: [{{ name: {name}, value: {value} }}] }}");
    let both = "{ pathPrefix: /, headers: [{ name: version, value: two }, { name: color, value: orange }] }";
    let snapshot = snapshot(&subsystem(
        "s",
        "",
        &[
            ("a1", &field("version", "one")),
            ("b2", &field("version", "two")),
            ("c1", both),
            ("d1", &format!("[{}, {}]", field("color", "blue"), field("color", "green"))),
            ("e2", &format!("[{}, {}]", field("color", "red"), field("color", "yellow"))),
        ],
    ));
    check(
        &snapshot,
        &[
            ("/", &["Version: one"], "a1"),
            ("/", &["Version: two"], "b2"),
            ("/", &["Version: two", "Color: orange"], "c1"),
            ("/", &["Version: two", "Color: blue"], "b2"),
            ("/", &["Color: orange"], "-"),
            ("/", &["Some-Other-Header: one"], "-"),
            ("/", &["Color: blue"], "d1"),
            ("/", &["Color: green"], "d1"),
            ("/", &["Color: red"], "e2"),
            ("/", &["Color: yellow"], "e2"),
            ("/", &["Color: purple"], "-"),
        ],
    );
}

#[test]
fn httproute_query_param_matching() {
    let whale = "query: [{ name: animal, value: whale }]";
    let parameter = |name: &str, value: &str| format!("query: [{{ name: {name}, value: {value} }}]");
    let version = |value: &str| format!("headers: [{{ name: version, value: {value} }}]");
    let commands = [
        ("a1", format!("{{ pathPrefix: /, {whale} }}")),
        ("b2", format!("{{ pathPrefix: /, {} }}", parameter("animal", "dolphin"))),
        (
            "c3",
            format!(
                "[{{ pathPrefix: /, query: [{{ name: animal, value: dolphin }}, {{ name: color, value: blue }}] }}, \
                 {{ pathPrefix: /, {} }}]",
                parameter("ANIMAL", "Whale")
            ),
        ),
        ("d1", format!("{{ pathPrefix: /path1, {whale} }}")),
        ("e2", format!("{{ pathPrefix: /, {}, {whale} }}", version("one"))),
        ("f3", format!("{{ pathPrefix: /path2, {}, {whale} }}", version("two"))),
        (
            "g1",
            format!(
                "[{{ pathPrefix: /path3, {} }}, {{ pathPrefix: /path4, {}, {} }}]",
                parameter("animal", "shark"),
                version("three"),
                parameter("animal", "kraken")
            ),
        ),
        ("h1", "{ pathPrefix: /path5 }".to_owned()),
        ("i2", format!("{{ pathPrefix: /, {} }}", parameter("animal", "hydra"))),
        ("j3", format!("{{ pathPrefix: /, {} }}", version("four"))),
    ];
    let commands: Vec<_> = commands.iter().map(|(id, matched)| (*id, matched.as_str())).collect();
    check(
        &snapshot(&subsystem("s", "", &commands)),
        &[
            ("/?animal=whale", &[], "a1"),
            ("/?animal=dolphin", &[], "b2"),
            ("/?animal=dolphin&color=blue", &[], "c3"),
            ("/?ANIMAL=Whale", &[], "c3"),
            ("/?animal=whale&otherparam=irrelevant", &[], "a1"),
            ("/?animal=dolphin&color=yellow", &[], "b2"),
            ("/?color=blue", &[], "-"),
            ("/?animal=dog", &[], "-"),
            ("/?animal=whaledolphin", &[], "-"),
            ("/", &[], "-"),
            ("/path1?animal=whale", &[], "d1"),
            ("/?animal=whale", &["version: one"], "e2"),
            ("/path2?animal=whale", &["version: two"], "f3"),
            ("/path3?animal=shark", &[], "g1"),
            ("/path4?animal=kraken", &["version: three"], "g1"),
            ("/?animal=shark", &[], "-"),
            ("/path4?animal=kraken", &[], "-"),
            ("/path5?animal=hydra", &[], "h1"),
            ("/?animal=hydra", &["version: four"], "j3"),
        ],
    );
}

/// With `next`, a request of another method is nobody's: 404, as the Gateway API has it. With `refuse` it is a 405.
#[test]
fn httproute_method_matching() {
    let version = |value: &str| format!("headers: [{{ name: version, value: {value} }}]");
    let commands = [
        ("a1", "{ pathPrefix: /, method: POST }".to_owned()),
        ("b2", "{ pathPrefix: /, method: GET }".to_owned()),
        ("c1", "{ pathPrefix: /path1, method: GET }".to_owned()),
        ("d2", format!("{{ pathPrefix: /, method: PUT, {} }}", version("one"))),
        ("e3", format!("{{ pathPrefix: /path2, method: POST, {} }}", version("two"))),
        (
            "f1",
            format!(
                "[{{ pathPrefix: /path3, method: PATCH }}, {{ pathPrefix: /path4, method: DELETE, {} }}]",
                version("three")
            ),
        ),
        ("g1", "{ pathPrefix: /path5 }".to_owned()),
        ("h2", "{ pathPrefix: /, method: PATCH }".to_owned()),
        ("i3", format!("{{ pathPrefix: /, {} }}", version("four"))),
    ];
    let commands: Vec<_> = commands.iter().map(|(id, matched)| (*id, matched.as_str())).collect();
    let cases: &[(&str, &[&str], &str)] = &[
        ("POST /", &[], "a1"),
        ("GET /", &[], "b2"),
        ("GET /path1", &[], "c1"),
        ("PUT /", &["version: one"], "d2"),
        ("POST /path2", &["version: two"], "e3"),
        ("PATCH /path3", &[], "f1"),
        ("DELETE /path4", &["version: three"], "f1"),
        ("PATCH /path5", &[], "g1"),
        ("PATCH /", &["version: four"], "h2"),
    ];
    let passing = snapshot(&subsystem("s", "otherCommands: next,", &commands));
    check(&passing, cases);
    check(&passing, &[("HEAD /", &[], "none"), ("PUT /", &[], "none"), ("DELETE /path4", &[], "none")]);
    let refusing = snapshot(&subsystem("s", "", &commands));
    check(&refusing, cases);
    check(
        &refusing,
        &[
            ("HEAD /", &[], "-GET,PATCH,POST"),
            ("PUT /", &[], "-GET,PATCH,POST"),
            ("DELETE /", &["version: one"], "-GET,PATCH,POST,PUT"),
            ("DELETE /path3", &[], "-GET,PATCH,POST"),
        ],
    );
}

#[test]
fn httproute_exact_path_matching() {
    let commands = [("one", "{ path: /one }"), ("two", "{ path: /two }")];
    let conditional = [commands[0], commands[1], ("far", "{ pathPrefix: /far/away }")];
    for commands in [&commands[..], &conditional] {
        check(
            &snapshot(&subsystem("s", "", commands)),
            &[
                ("/one", &[], "one"),
                ("/two", &[], "two"),
                ("/", &[], "-"),
                ("/one/example", &[], "-"),
                ("/two/", &[], "-"),
                ("/Two", &[], "-"),
            ],
        );
    }
}

/// The listeners' part of the test, which hosts of a route count, is the controller's.
#[test]
fn httproute_hostname_intersection() {
    let route = |id: &str, hosts: &str, path: &str| {
        let matched = format!("{{ pathPrefix: {path} }}");
        subsystem(id, &format!("hosts: [{hosts}], otherCommands: next,"), &[(id, &matched)])
    };
    let subsystems = [
        route("s1", "very.specific.com", "/s1"),
        route("s2", "foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io", "/s2"),
        route("s3", "\"**.specific.com\"", "/s3"),
        route("s4", "\"**.anotherwildcard.io\"", "/s4"),
        route("all", "first.com, sub.first.com, second.com, sub.second.com", "/"),
    ];
    check(
        &snapshot(&subsystems.join(", ")),
        &[
            ("very.specific.com/s1", &[], "s1"),
            ("very.specific.com:1234/s1", &[], "s1"),
            ("non.matching.com/s1", &[], "none"),
            ("foo.nonmatchingwildcard.io/s1", &[], "none"),
            ("foo.wildcard.io/s1", &[], "none"),
            ("very.specific.com/non-matching-prefix", &[], "none"),
            ("foo.wildcard.io/s2", &[], "s2"),
            ("bar.wildcard.io/s2", &[], "s2"),
            ("foo.bar.wildcard.io/s2", &[], "s2"),
            ("wildcard.io/s2", &[], "none"),
            ("very.specific.com/s2", &[], "none"),
            ("very.specific.com/s3", &[], "s3"),
            ("non.matching.com/s3", &[], "none"),
            ("foo.wildcard.io/s3", &[], "none"),
            ("foo.anotherwildcard.io/s4", &[], "s4"),
            ("bar.anotherwildcard.io/s4", &[], "s4"),
            ("foo.bar.anotherwildcard.io/s4", &[], "s4"),
            ("anotherwildcard.io/s4", &[], "none"),
            ("foo.anotherwildcard.io/non-matching-prefix", &[], "none"),
            ("first.com/", &[], "all"),
            ("sub.second.com/", &[], "all"),
            ("third.com/", &[], "none"),
            ("sub.third.com/", &[], "none"),
        ],
    );
}

#[test]
fn a_host_that_has_the_prefix_keeps_the_request_unless_it_passes_on() {
    let at = |id: &str, keys: &str, path: &str| subsystem(id, keys, &[(id, &format!("{{ path: {path} }}"))]);
    let subsystems = |exact: &str| {
        [
            at("exact", &format!("hosts: [a.city.example], otherCommands: {exact},"), "/x"),
            at("one", "hosts: [\"*.city.example\"], path: /p,", "/y"),
            at("deep", "hosts: [\"**.city.example\"], otherCommands: allow,", "/z"),
            at("any", "", "/z"),
        ]
        .join(", ")
    };
    let cases: &[(&str, &[&str], &str)] = &[
        ("a.city.example/x", &[], "exact"),
        ("b.city.example/p/y", &[], "one"),
        ("b.city.example/p/z", &[], "-"),
        ("b.city.example/z", &[], "deep"),
        ("a.b.city.example/p/y", &[], "other"),
        ("city.example/z", &[], "any"),
    ];
    let refusing = snapshot(&subsystems("refuse"));
    check(&refusing, cases);
    check(&refusing, &[("a.city.example/z", &[], "-"), ("a.city.example/p/y", &[], "-")]);
    let passing = snapshot(&subsystems("next"));
    check(&passing, cases);
    check(&passing, &[("a.city.example/z", &[], "deep"), ("a.city.example/p/y", &[], "one")]);
}

#[test]
fn the_order_is_that_of_the_gateway_api() {
    let snapshot = snapshot(&subsystem(
        "s",
        "path: /api,",
        &[
            ("regex", "{ pathRegex: \"/a/.*\" }"),
            ("regex-get", "{ method: GET, pathRegex: \"/a/.*|/b\" }"),
            ("root", "{ pathPrefix: / }"),
            ("short", "{ pathPrefix: /a }"),
            ("long", "{ pathPrefix: /a/b/, headers: [{ name: x, present: true }] }"),
            ("rest", "{ method: PUT, path: \"/a/{*rest}\" }"),
            ("one", "{ method: GET, path: \"/a/{id}\", query: [{ name: q, regex: \"[0-9]+\" }] }"),
            ("literal", "{ path: \"/{x}/b/c\", headers: [{ name: y, value: z }] }"),
            ("exact", "{ path: /a/exact, headers: [{ name: y, value: z }] }"),
            ("exact-get", "{ method: GET, path: /a/exact }"),
            ("exact-two", "{ path: /a/exact, headers: [{ name: y, value: z }], query: [{ name: q, present: true }] }"),
        ],
    ));
    check(
        &snapshot,
        &[
            ("/api", &[], "root"),
            ("/api/a", &[], "short"),
            ("/api/ab", &[], "root"),
            ("/api/a/b", &[], "short"),
            ("/api/a/b", &["x: 1"], "long"),
            ("/api/a/b/", &["x: 1"], "long"),
            ("/api/a/b/c", &["x: 1"], "long"),
            ("/api/a/b/c", &["x: 1", "y: z"], "literal"),
            ("PUT /api/a/b/c", &["x: 1"], "rest"),
            ("PUT /api/a/b/c", &["y: z"], "rest"), // /a is literal before {x}
            ("/api/a/b?q=7", &["x: 1"], "one"),
            ("/api/a/b?q=x", &["x: 1"], "long"),
            ("PUT /api/a/b?q=7", &[], "rest"),
            ("PUT /api/a/b?q=x", &[], "rest"),
            ("/api/a/exact", &["y: z"], "exact-get"),
            ("POST /api/a/exact", &["y: z"], "exact"),
            ("POST /api/a/exact?q", &["y: z"], "exact-two"),
            ("POST /api/a/exact?q", &[], "short"),
            ("/api/b", &[], "root"),
        ],
    );
}

#[test]
fn regular_expressions_come_last_and_in_the_order_of_their_conditions() {
    let snapshot = snapshot(&subsystem(
        "s",
        "",
        &[
            ("any", "{ pathRegex: \"/v[0-9]/.*\" }"),
            ("field", "{ pathRegex: \"/v1/.*\", headers: [{ name: x, regex: \"a|b\" }] }"),
            ("get", "{ method: GET, pathRegex: \"/v1/a\" }"),
        ],
    ));
    check(
        &snapshot,
        &[
            ("/v1/a", &["x: a"], "get"),
            ("/v1/b", &["x: b"], "field"),
            ("/v1/b", &["x: ab"], "any"),
            ("/x/v1/b", &[], "-"),
            ("POST /v1/a", &[], "any"),
        ],
    );
}

#[test]
fn templates_alone_and_among_others_are_the_same() {
    let commands = [
        ("list", "{ method: GET, path: / }"),
        ("get", "{ method: GET, path: \"/{id}\" }"),
        ("any", "{ path: \"/{name}\" }"),
        ("stats", "{ path: /stats }"),
        ("slash", "{ path: \"/{id}/\" }"),
        ("part", "{ method: GET, path: \"/{camera}/part/{*rest}\" }"),
        ("both", "[{ method: PUT, path: /put/it }, { method: POST, path: /post/it }]"),
    ];
    let among = [&commands[..], &[("far", "{ pathPrefix: /far/away }")]].concat();
    for commands in [&commands[..], &among] {
        check(
            &snapshot(&subsystem("s", "path: /cameras,", commands)),
            &[
                ("/cameras", &[], "list"),
                ("/cameras/", &[], "list"),
                ("HEAD /cameras", &[], "-GET"),
                ("/cameras/7", &[], "get"),
                ("PUT /cameras/7", &[], "any"),
                ("/cameras/stats", &[], "stats"),
                ("/cameras/stats/", &[], "slash"),
                ("/cameras/7/part/a/b", &[], "part"),
                ("/cameras/7/part/", &[], "-"),
                ("/cameras/7/parts", &[], "-"),
                ("/cameras/put/it", &[], "-PUT"),
                ("PUT /cameras/put/it", &[], "both"),
                ("POST /cameras/post/it", &[], "both"),
            ],
        );
    }
}

#[test]
fn equal_matches_are_a_problem_with_both_places() {
    let commands = [
        (
            "a",
            "[{ path: \"/a/{x}\" }, { pathPrefix: /p, headers: [{ name: A, value: \"1\" }, { name: b, present: true }] }]",
        ),
        ("b", "{ path: \"/a/{y}\" }"),
        ("c", "{ pathPrefix: /p/, headers: [{ name: B, present: true }, { name: a, value: \"1\" }] }"),
        ("d", "[{ pathRegex: \"/r\" }, { pathRegex: \"/r\" }]"),
        ("e", "{ pathPrefix: /p, headers: [{ name: a, value: \"2\" }, { name: b, present: true }] }"),
    ];
    let found = problems(&subsystem("s", "", &commands));
    let places = [
        ("commands[1].match: commands[0] already matches", "commands[0].match[0]"),
        ("commands[2].match: commands[0] already matches", "commands[0].match[1]"),
        ("commands[3].match[1]: match[0] already matches", "commands[3].match[0]"),
    ];
    assert_eq!(found.len(), places.len(), "{found:#?}");
    for ((place, with), found) in places.iter().zip(&found) {
        assert!(found.contains(place) && found.contains(with), "{found}");
    }
}

#[test]
fn subsystems_share_a_prefix_only_if_both_pass_on() {
    let of = |id: &str, other: &str, path: &str| {
        subsystem(id, &format!("otherCommands: {other},"), &[("c", &format!("{{ path: {path} }}"))])
    };
    for (one, two, count) in [("next", "next", 0), ("next", "refuse", 1), ("refuse", "next", 1), ("allow", "next", 1)] {
        let found = problems(&[of("s", one, "/a"), of("t", two, "/b")].join(", "));
        assert_eq!(found.len(), count, "{one} {two}: {found:?}");
    }
    let found = problems(&[of("s", "next", "/a"), of("t", "next", "/a")].join(", "));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("c of s already matches the same requests"), "{found:?}");
}

#[test]
fn the_manual_shows_a_configuration_that_is_right() {
    let manual = include_str!("../../../docs/configuration.md");
    let (_, section) = manual.split_once("## Which command a request is").expect("a section");
    let (_, shown) = section.split_once("```yaml\nsubsystems:\n").expect("a configuration");
    let (shown, _) = shown.split_once("```").expect("its end");
    let text = document("").replace("subsystems: []", &format!("subsystems:\n{shown}"));
    let read = config::compile_text(&text, Path::new("/"), &NameInterner::default());
    let snapshot = read.unwrap_or_else(|problems| panic!("{problems}")).snapshot;
    check(
        &snapshot,
        &[
            ("shop.city.example/v2/items/7", &[], "item.read"),
            ("shop.city.example/v2/items/7", &["Version: canary"], "item.read.canary"),
            ("x.shop.city.example/v2/items?version=next", &[], "item.read.canary"),
            ("shop.city.example/reports/2026-11", &[], "report.read"),
            ("shop.city.example/reports/2026-11-01", &[], "-"),
            ("x.y.shop.city.example/v2/items", &[], "none"),
        ],
    );
}

/// A linear scan of this many would take about a thousand times as long as one hash.
#[test]
fn thousands_of_prefixes_are_found_by_hash() {
    let commands: Vec<_> =
        (0..5000).map(|at| (format!("c{at}"), format!("{{ pathPrefix: /team/app{at}/api }}"))).collect();
    let commands: Vec<_> = commands.iter().map(|(id, matched)| (id.as_str(), matched.as_str())).collect();
    let few = snapshot(&subsystem("s", "", &commands[4990..]));
    let many = snapshot(&subsystem("s", "", &commands));
    let time = |snapshot: &PolicySnapshot| {
        let request = TestRequest("/team/app4999/api/v1/things/7?x=1", &["version: one"]);
        let timed = |request: &RouteRequest<'_>| {
            let started = Instant::now();
            let found = (0..1000).filter(|_| matches!(snapshot.find_route(request), RouteMatch::Command { .. }));
            assert_eq!(found.count(), 1000);
            started.elapsed()
        };
        // The shortest of many: other processes take their time as well.
        with_request(&request, |request| (0..50).map(|_| timed(request)).min())
    };
    let (few, many) = (time(&few), time(&many));
    assert!(many < few.map(|few| few * 50), "{few:?} with 10, {many:?} with 5000");
}

#[test]
fn listeners_and_virtual_hosts_decide_which_subsystems_are_visible() {
    let at = |id: &str, listeners: &str| {
        let keys = format!("listeners: {listeners}, otherCommands: next,");
        subsystem(id, &keys, &[(id, &format!("{{ path: /{id} }}"))])
    };
    let all = subsystem("all", "otherCommands: next,", &[("all", "{ path: /all }")]);
    let parts = [all, at("whole", "[b]"), at("wide", "[b/wide]"), at("narrow", "[b/narrow, c]")];
    check(
        &snapshot(&parts.join(", ")),
        &[
            ("a|/all", &[], "all"),
            ("a|/whole", &[], "none"),
            ("b|x.example.com/all", &[], "all"),
            ("b|x.example.com/whole", &[], "whole"),
            ("b|x.y.example.com/wide", &[], "wide"),
            ("b|x.example.com/narrow", &[], "none"),
            ("b|a.example.com/narrow", &[], "narrow"),
            ("b|A.example.com:80/narrow", &[], "narrow"),
            ("b|a.example.com/wide", &[], "none"), // isolated: the most specific virtual host alone counts
            ("b|other.net/whole", &[], "whole"),
            ("b|other.net/wide", &[], "none"),
            ("c|a.example.com/narrow", &[], "narrow"),
            ("c|a.example.com/whole", &[], "none"),
        ],
    );
}

#[test]
fn one_host_and_path_may_belong_to_different_subsystems_on_different_listeners() {
    let at = |id: &str, listener: &str| subsystem(id, &format!("listeners: [{listener}],"), &[(id, "{ path: /v }")]);
    check(
        &snapshot(&format!("{}, {}, {}", at("one", "a"), at("two", "b/wide"), at("three", "b/narrow"))),
        &[
            ("a|/v", &[], "one"),
            ("b|x.example.com/v", &[], "two"),
            ("b|a.example.com/v", &[], "three"),
            ("c|/v", &[], "none"),
        ],
    );
    assert_eq!(problems(&format!("{}, {}", at("one", "b"), at("two", "b/wide"))).len(), 1, "both are visible there");
}

#[test]
fn bad_listener_bindings_are_problems() {
    for (listeners, expected) in [
        ("[]", "subsystems[0].listeners: an empty list names no listener"),
        ("[x]", "subsystems[0].listeners[0]: there is no listener \"x\""),
        ("[b/x]", "subsystems[0].listeners[0]: the listener b has no virtual host \"x\""),
        ("[b, b]", "subsystems[0].listeners[1]: b is named twice"),
    ] {
        let found = problems(&subsystem("s", &format!("listeners: {listeners},"), &[("c", "{ path: / }")]));
        assert!(found.len() == 1 && found[0].contains(expected), "{listeners}: {found:?}");
    }
}
