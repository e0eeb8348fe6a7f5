//! Compiles subsystems with `tlsMode`: their command is a TLS connection, and not an HTTP request.
//!
//! Guarantees:
//! - Such a subsystem has one command, without conditions: its server names are the hosts of the subsystem.
//! - Keys about HTTP are problems: they would have no effect.
//! - The owner of passed-through connections is named, or is the department of the listener's callers without a
//!   certificate. It is never guessed.

use std::sync::Arc;

use crate::config::document::{CommandDocument, SubsystemDocument};
use crate::config::settings::gateway_settings::ListenerSettings;
use crate::model::Name;
use crate::policy::{
    Command, CommandBackends, CommandTimeouts, ConnectionMode, DepartmentPolicy, DownstreamProtocol, ListenerScope,
    UpstreamProtocol,
};

use super::command_backends::compile_command_backends;
use super::command_context::CommandContext;
use super::commands::{command_key, compile_units, subsystem_number};
use super::departments::header_value;
use super::doc_path::DocPath;
use super::{limits, scalars, settings};

const TLS_MODE_KEYWORDS: [(&str, ConnectionMode); 2] =
    [("passthrough", ConnectionMode::Passthrough), ("terminate", ConnectionMode::Terminate)];

/// Compiles `tlsMode`.
pub(crate) fn compile_tls_mode(written: &SubsystemDocument, place: &DocPath<'_>) -> Option<ConnectionMode> {
    let word = written.tls_mode.as_deref()?;
    place.key("tlsMode").value_or_problem(scalars::parse_keyword(word, &TLS_MODE_KEYWORDS))
}

/// Compiles `department`: the owner of the connections of a subsystem that passes them through.
pub(crate) fn compile_owner(
    written: &SubsystemDocument,
    mode: Option<ConnectionMode>,
    departments: &[Arc<DepartmentPolicy>],
    place: &DocPath<'_>,
) -> Option<Arc<DepartmentPolicy>> {
    let id = written.department.as_deref()?;
    let place = place.key("department");
    if mode != Some(ConnectionMode::Passthrough) {
        place.problem_with_hint(
            "stands only beside tlsMode: passthrough",
            "elsewhere the department of a caller follows from its certificate or its listener",
        );
    }
    let known = departments.iter().find(|known| known.department.id.as_str() == id);
    known.map(Arc::clone).or_else(|| place.missing(format!("there is no department {id:?}")))
}

/// Compiles the command of a subsystem whose commands are connections.
pub(crate) fn compile_connection_command(
    written: &SubsystemDocument,
    subsystem: &Name,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> Vec<Arc<Command>> {
    refuse_http_keys_of_subsystem(written, place);
    let place = place.key("commands");
    let [only] = &written.commands[..] else {
        place.problem("a subsystem with tlsMode has exactly one command: the connection");
        return Vec::new();
    };
    let place = place.item(0);
    refuse_http_keys_of_command(only, &place);
    let id = place.key("id").parse_name(&only.id);
    let named = only.backends.as_deref();
    let backends = compile_command_backends(named, None, context, &place.key("backends"));
    check_protocol(&backends, (context, true), &place.key("backends"));
    let header = header_value(&format!("{subsystem}/{id}"));
    let key = command_key(subsystem, id, context.name_interner);
    let address_limits = limits::compile_address_limits(
        only.address_limits.as_ref(),
        (&key, context.name_interner),
        &place.key("addressLimits"),
    );
    vec![Arc::new(Command {
        header,
        key,
        address_limits,
        sources: limits::compile_sources(only.sources.as_ref(), &place.key("sources")),
        is_refused: false,
        subsystem: subsystem_number(subsystem, context.name_interner),
        matches: Vec::new(),
        units: compile_units(only.units, &place.key("units")),
        limits: limits::compile_limits(only.limits.as_ref(), &place.key("limits")),
        body_max: u64::MAX,
        upgrade: None,
        durability: settings::compile_durability(only.durability.as_deref(), context.durability, &place),
        timeouts: CommandTimeouts::default(),
        shape: None,
        backends,
    })]
}

/// Checks that backends have the protocol `tcp` where their commands are connections, and only there.
pub(crate) fn check_protocol(
    backends: &CommandBackends,
    (context, is_connection): (&CommandContext<'_>, bool),
    place: &DocPath<'_>,
) {
    let all = backends.numbers().filter_map(|number| context.backends.with_number(number));
    let is_tcp = |protocol| protocol == UpstreamProtocol::Tcp;
    for odd in all.filter(|backend| is_tcp(backend.protocol) != is_connection) {
        match is_connection {
            true => place.problem_with_hint(
                format!("the servers of {} expect HTTP, and this command is a TLS connection", odd.id),
                "write protocol: tcp there",
            ),
            false => place.problem_with_hint(
                format!("the servers of {} expect the bytes of TLS connections (protocol: tcp)", odd.id),
                "name them in a subsystem with tlsMode, or write another protocol",
            ),
        }
    }
}

fn refuse_http_keys_of_subsystem(written: &SubsystemDocument, place: &DocPath<'_>) {
    let timeouts = written.timeouts.as_ref();
    refuse_keys(
        [
            ("path", written.path.is_some()),
            ("keepPath", written.keep_path.is_some()),
            ("headers", written.headers.is_some()),
            ("cors", written.cors.is_some()),
            ("compress", written.compress.is_some()),
            ("bandwidthLimit", written.bandwidth_limit.is_some()),
            ("otherCommands", written.other_commands.is_some()),
            ("timeouts.request", timeouts.is_some_and(|timeouts| timeouts.request.is_some())),
            ("timeouts.attempt", timeouts.is_some_and(|timeouts| timeouts.attempt.is_some())),
        ],
        place,
    );
}

fn refuse_http_keys_of_command(written: &CommandDocument, place: &DocPath<'_>) {
    refuse_keys(
        [
            ("match", written.r#match.is_some()),
            ("body", written.body.is_some()),
            ("upgrade", written.upgrade.is_some()),
            ("headers", written.headers.is_some()),
            ("rewrite", written.rewrite.is_some()),
            ("redirect", written.redirect.is_some()),
            ("cors", written.cors.is_some()),
            ("mirror", written.mirror.is_some()),
            ("compress", written.compress.is_some()),
            ("bandwidthLimit", written.bandwidth_limit.is_some()),
            ("timeouts", written.timeouts.is_some()),
            ("refuse", written.refuse.is_some()),
        ],
        place,
    );
}

fn refuse_keys<const N: usize>(keys: [(&str, bool); N], place: &DocPath<'_>) {
    for (key, _) in keys.into_iter().filter(|(_, is_written)| *is_written) {
        place
            .key(key)
            .problem_with_hint("is about HTTP, and with tlsMode the command is a TLS connection", "remove it");
    }
}

/// Checks that the listeners that a subsystem with `tlsMode` names can have its connections.
pub(crate) fn check_listeners(
    mode: Option<ConnectionMode>,
    bound: &[ListenerScope],
    listeners: &[ListenerSettings],
    place: &DocPath<'_>,
) {
    for (index, bound) in bound.iter().enumerate() {
        let Some(listener) = listeners.iter().find(|listener| listener.name == bound.listener) else { continue };
        let place = place.item(index);
        match (mode, listener.protocol) {
            (Some(_), DownstreamProtocol::Http) => {
                place.problem(format!("the listener {} has no TLS, so no connection names a server", listener.name));
            }
            (Some(ConnectionMode::Terminate), _) if listener.tls.is_none() => {
                place.problem_with_hint(
                    format!("the listener {} has no certificate to end TLS with", listener.name),
                    "give it tls, or write tlsMode: passthrough",
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::compile_text;
    use crate::config::test_fixtures::compile_valid;
    use crate::model::{Name, NameInterner};
    use crate::policy::{ConnectionMatch, ConnectionMode};

    /// The listeners `a` (https), `b` (http), `c` (tls without certificates) and `d` (https, with a virtual host
    /// without HTTP).
    const LISTENERS: &str = "
  - { name: a, address: \"127.0.0.1:1\", tls: { certificate: c, key: k } }
  - { name: b, address: \"127.0.0.1:2\", protocol: http }
  - { name: c, address: \"127.0.0.1:3\", protocol: tls }
  - { name: d, address: \"127.0.0.1:4\", tls: { certificate: c, key: k },
      virtualHosts: [{ name: web, host: web.example }, { name: raw, host: \"**.raw.example\", protocol: tls }] }";

    fn text(subsystems: &str) -> String {
        format!(
            "ledger: {{ path: l.db }}
listeners:{LISTENERS}
departments:
  - {{ id: police, callers: [{{ dns: police }}] }}
  - {{ id: harbour, callers: [{{ listener: c }}] }}
backends:
  - {{ id: web, upstreams: [{{ url: \"http://127.0.0.1:1\" }}] }}
  - {{ id: raw, protocol: tcp, upstreams: [{{ url: \"tcp://127.0.0.1:1\" }}] }}
subsystems: [{subsystems}]
"
        )
    }

    /// A subsystem with connections, with further keys.
    fn connections(id: &str, mode: &str, keys: &str) -> String {
        format!("{{ id: {id}, tlsMode: {mode}, commands: [{{ id: connect, backends: [{{ backend: raw }}] }}]{keys} }}")
    }

    #[test]
    fn server_name_chooses_as_a_host_does() {
        let requests = "{ id: pages, hosts: [web.example, \"**.web.example\"], upstreams: [{ url: \"http://127.0.0.1:1\" }], \
                        otherCommands: allow }";
        let subsystems = [
            connections("exact", "passthrough", ", hosts: [a.example, deep.web.example], department: police"),
            connections("below", "terminate", ", hosts: [\"*.example\"], listeners: [a, d]"),
            connections("through", "passthrough", ", hosts: [\"**.example\"], listeners: [d/raw]"),
            connections("rest", "passthrough", ", listeners: [c]"),
            requests.to_owned(),
        ];
        let snapshot = compile_valid(&text(&subsystems.join(", "))).snapshot;
        for (listener, name, expected) in [
            ("a", Some("a.example"), "exact passthrough"),
            ("a", Some("A.Example"), "exact passthrough"),
            ("a", Some("b.example"), "below terminate"),
            ("a", Some("web.example"), "http"),
            ("a", Some("x.web.example"), "http"),
            ("a", Some("deep.web.example"), "exact passthrough"),
            ("a", Some("x.y.example"), "http"),
            ("a", None, "http"),
            ("b", Some("a.example"), "http"), // no TLS
            ("c", Some("a.example"), "exact passthrough"),
            ("c", Some("web.example"), "rest passthrough"),
            ("c", Some("other.test"), "rest passthrough"),
            ("c", None, "none"),
            ("d", Some("x.raw.example"), "through passthrough"),
            ("d", Some("a.example"), "exact passthrough"),
            ("d", Some("raw.test"), "http"),
            ("d", Some("web.example"), "http"),
        ] {
            let found = match snapshot.find_connection(&Name::parse(listener).expect("a name"), name) {
                ConnectionMatch::Command { mode: ConnectionMode::Passthrough, subsystem, .. } => {
                    format!("{} passthrough", subsystem.id)
                }
                ConnectionMatch::Command { mode: ConnectionMode::Terminate, subsystem, .. } => {
                    format!("{} terminate", subsystem.id)
                }
                ConnectionMatch::Http => "http".to_owned(),
                ConnectionMatch::None => "none".to_owned(),
            };
            assert_eq!(found, expected, "{listener} {name:?}");
        }
    }

    #[test]
    fn owner_of_a_passed_connection_is_named_or_that_of_the_listener() {
        let subsystems = [
            connections("owned", "passthrough", ", hosts: [owned.example], department: police"),
            connections("rest", "passthrough", ", hosts: [rest.example]"),
        ];
        let snapshot = compile_valid(&text(&subsystems.join(", "))).snapshot;
        for (listener, name, expected) in [
            ("a", "owned.example", Some("police")),
            ("c", "owned.example", Some("police")),
            ("a", "rest.example", None),
            ("c", "rest.example", Some("harbour")),
        ] {
            let found = snapshot.passthrough_department(&Name::parse(listener).expect("a name"), Some(name));
            let found = found.ok().map(|policy| policy.department.id.as_str());
            assert_eq!(found, expected, "{listener} {name}");
        }
    }

    #[test]
    fn problems_name_their_place() {
        let subsystem = |keys: &str| connections("s", "passthrough", keys);
        let own = |keys: &str| format!("{{ id: s, tlsMode: passthrough, commands: [{{ id: c }}]{keys} }}");
        let command = |keys: &str| format!("{{ id: s, tlsMode: terminate, commands: [{{ id: c{keys} }}] }}");
        let twice = [
            connections("s", "passthrough", ", hosts: [a.example]"),
            connections("t", "terminate", ", hosts: [a.example]"),
        ];
        let both = format!(
            "{}, {{ id: t, hosts: [a.example], upstreams: [{{ url: \"http://127.0.0.1:1\" }}], otherCommands: allow }}",
            connections("s", "passthrough", ", hosts: [a.example]")
        );
        for (subsystems, place, message) in [
            (connections("s", "through", ""), "[0].tlsMode", "passthrough"),
            (subsystem(", path: /x"), "[0].path", "is about HTTP"),
            (subsystem(", otherCommands: allow"), "[0].otherCommands", "is about HTTP"),
            (subsystem(", bandwidthLimit: { rate: 1KiB }"), "[0].bandwidthLimit", "is about HTTP"),
            (subsystem(", timeouts: { request: 1s }"), "[0].timeouts.request", "is about HTTP"),
            (subsystem(", department: nobody"), "[0].department", "no department"),
            (connections("s", "terminate", ", department: police"), "[0].department", "only beside"),
            (subsystem(", listeners: [b]"), "[0].listeners[0]", "has no TLS"),
            (connections("s", "terminate", ", listeners: [c]"), "[0].listeners[0]", "no certificate to end TLS"),
            ("{ id: s, tlsMode: terminate, commands: [] }".to_owned(), "[0].commands", "exactly one command"),
            (command(", match: { path: / }, backends: [{ backend: raw }]"), "[0].commands[0].match", "is about HTTP"),
            (command(", upgrade: websocket, backends: [{ backend: raw }]"), "[0].commands[0].upgrade", "is about HTTP"),
            (command(", backends: [{ backend: web }]"), "[0].commands[0].backends", "expect HTTP"),
            (own(""), "[0].upstreams", "at least one upstream"),
            (own(", upstreams: [{ url: \"http://127.0.0.1:1\" }]"), "[0].upstreams[0].url", "tcp://host:port"),
            (own(", upstreams: [{ url: \"tls://127.0.0.1:1\" }]"), "[0].tls", "is missing"),
            (
                own(", upstreams: [{ url: \"tcp://127.0.0.1:1\" }], healthCheck: { path: / }"),
                "[0].healthCheck",
                "has no effect with protocol tcp",
            ),
            (
                "{ id: s, commands: [{ id: c, match: { path: /c }, backends: [{ backend: raw }] }] }".to_owned(),
                "[0].commands[0].backends",
                "expect the bytes of TLS connections",
            ),
            (
                "{ id: s, upstreams: [{ url: \"http://127.0.0.1:1\" }], commands: [{ id: c }] }".to_owned(),
                "[0].commands[0].match",
                "is missing",
            ),
            (twice.join(", "), "[1].hosts", "the server name a.example already belongs to s"),
            (both, "[1].hosts", "the server name a.example already belongs to s"),
        ] {
            let read = compile_text(&text(&subsystems), Path::new("/"), &NameInterner::default());
            let problems = read.expect_err(&subsystems).0;
            let place = format!("subsystems{place}");
            let found = problems.iter().any(|problem| problem.path == place && problem.to_string().contains(message));
            assert!(found, "{subsystems}: {place}: {message}: {problems:?}");
        }
    }

    #[test]
    fn listener_has_tls_for_all_its_virtual_hosts_or_for_none() {
        for (listener, place) in [
            (
                "protocol: http, virtualHosts: [{ name: v, host: v.example, protocol: tls }]",
                ".virtualHosts[0].protocol",
            ),
            (
                "tls: { certificate: c, key: k }, virtualHosts: [{ name: v, host: v.example, protocol: http }]",
                ".virtualHosts[0].protocol",
            ),
            ("protocol: tls, virtualHosts: [{ name: v, host: v.example, protocol: https }]", ".tls"),
            ("protocol: udp", ".protocol"),
        ] {
            let text = format!(
                "ledger: {{ path: l.db }}
listeners: [{{ name: a, address: \"127.0.0.1:1\", {listener} }}]
departments: [{{ id: d, callers: [{{ dns: d.example }}] }}]
"
            );
            let problems = compile_text(&text, Path::new("/"), &NameInterner::default()).expect_err(listener).0;
            let place = format!("listeners[0]{place}");
            assert!(problems.iter().any(|problem| problem.path == place), "{listener}: {problems:?}");
        }
    }
}
