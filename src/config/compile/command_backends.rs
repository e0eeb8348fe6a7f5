//! Compiles `backends` of commands and subsystems: where requests are forwarded to, by weight.

use std::ops::RangeInclusive;

use http::StatusCode;

use crate::config::document::{BackendShareDocument, HeadersDocument};
use crate::policy::{BackendShare, CommandBackends, CommandShape, ShareEdits, ShareTarget, WeightedBackends};

use super::backends::CompiledBackends;
use super::command_context::CommandContext;
use super::command_shape::add_edits;
use super::doc_path::DocPath;

/// The statuses of a share whose backend does not exist: they blame no caller.
const SHARE_STATUSES: RangeInclusive<u16> = 500..=599;

/// Compiles the backends of a command that is forwarded: those that it names, or those of its subsystem, or the servers
/// of its subsystem.
pub(crate) fn compile_command_backends(
    written: Option<&[BackendShareDocument]>,
    shape: Option<&CommandShape>,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> CommandBackends {
    let named = written.map(|written| compile_shares(written, context.backends, place));
    let Some(shares) = named.or_else(|| context.default_shares.clone()) else {
        context.lacks_servers |= context.own_backend.is_none();
        return context.own_backend.map_or(CommandBackends::None, CommandBackends::One);
    };
    if let [BackendShare { target: ShareTarget::Backend(only), weight: 1.., edits: None }] = shares[..] {
        return CommandBackends::One(only);
    }
    let shares = shares.into_iter().map(|share| with_edits_of_command(share, shape)).collect();
    CommandBackends::Weighted(Box::new(WeightedBackends::new(shares)))
}

/// Compiles the shares, with their own edits alone.
pub(crate) fn compile_shares(
    written: &[BackendShareDocument],
    backends: &CompiledBackends<'_>,
    place: &DocPath<'_>,
) -> Vec<BackendShare> {
    if written.is_empty() {
        place.problem("an empty list names no backend; write at least one, or { status: 500 }");
    }
    if written.len() > WeightedBackends::MAX {
        place.problem(format!("has {} backends; at most {} are allowed", written.len(), WeightedBackends::MAX));
    }
    let each = written.iter().take(WeightedBackends::MAX).enumerate();
    each.filter_map(|(index, written)| compile_share(written, backends, &place.item(index))).collect()
}

fn compile_share(
    written: &BackendShareDocument,
    backends: &CompiledBackends<'_>,
    place: &DocPath<'_>,
) -> Option<BackendShare> {
    let weight = compile_weight(written.weight, &place.key("weight"));
    let edits = written.headers.as_ref().and_then(|headers| compile_edits(headers, &place.key("headers")));
    let target = match (&written.backend, written.status) {
        (Some(id), None) => find_backend(id, backends, &place.key("backend")).map(ShareTarget::Backend),
        (None, Some(status)) => place.key("status").value_or_problem(parse_status(status)).map(ShareTarget::Status),
        (Some(_), Some(_)) => place.missing("has both a backend and a status; write only one of them"),
        (None, None) => place.missing("has neither a backend nor a status; write one of them"),
    };
    if written.status.is_some() && written.headers.is_some() {
        place.key("headers").problem("cannot be combined with status: nothing is forwarded");
    }
    Some(BackendShare { target: target?, weight, edits })
}

/// The number of the backend with this id.
pub(crate) fn find_backend(id: &str, backends: &CompiledBackends<'_>, place: &DocPath<'_>) -> Option<u32> {
    match backends.find(id) {
        Some(backend) => Some(backend.number),
        None => place.missing(format!("there is no backend {id:?}, and no subsystem of this id with upstreams")),
    }
}

fn parse_status(written: u64) -> Result<StatusCode, String> {
    let read = u16::try_from(written).ok().filter(|status| SHARE_STATUSES.contains(status));
    let read = read.and_then(|status| StatusCode::from_u16(status).ok());
    read.ok_or_else(|| format!("{written} is not a status between 500 and 599"))
}

fn compile_weight(written: Option<u64>, place: &DocPath<'_>) -> u32 {
    let Some(written) = written else { return 1 };
    let read = u32::try_from(written).ok().filter(|weight| *weight <= BackendShare::WEIGHT_MAX);
    let read = read.ok_or_else(|| format!("{written} is not a weight between 0 and {}", BackendShare::WEIGHT_MAX));
    place.value_or_problem(read).unwrap_or(1)
}

fn compile_edits(written: &HeadersDocument, place: &DocPath<'_>) -> Option<Box<ShareEdits>> {
    let mut edits = ShareEdits::default();
    add_edits(&mut edits.request, written.request.as_ref(), &place.key("request"));
    add_edits(&mut edits.response, written.response.as_ref(), &place.key("response"));
    (edits != ShareEdits::default()).then(|| Box::new(edits))
}

/// The share with the edits of the command below its own.
fn with_edits_of_command(share: BackendShare, shape: Option<&CommandShape>) -> BackendShare {
    let edits = share.edits.map(|own| {
        let mut both = shape.map_or_else(ShareEdits::default, |shape| ShareEdits {
            request: shape.request.clone(),
            response: shape.response.clone(),
        });
        both.request.extend(&own.request);
        both.response.extend(&own.response);
        Box::new(both)
    });
    BackendShare { edits, ..share }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::{HeaderMap, HeaderName};

    use crate::config::compile_text;
    use crate::config::test_fixtures::{compile_valid, config_text};
    use crate::model::NameInterner;
    use crate::policy::{CommandBackends, ShareTarget};

    const SERVER: &str = "[{ url: \"http://127.0.0.1:1\" }]";

    /// A configuration with the subsystems `own` (with a server and this command) and `routes` (with these keys), and
    /// the backends `a`, `b` (HTTP/2) and `none` (without servers).
    fn text(command: &str, routes: &str, backends: &str) -> String {
        config_text(&format!(
            "departments: [{{ id: d, callers: [{{ dns: d.example }}] }}]
subsystems:
  - {{ id: own, path: /own, upstreams: {SERVER}, commands: [{{ id: c, match: {{ path: /c }}{command} }}] }}
  - {{ id: routes, path: /routes, commands: [{{ id: c, match: {{ path: /c }} }}]{routes} }}
backends:
  - {{ id: a, upstreams: {SERVER} }}
  - {{ id: b, upstreams: [{{ url: \"http://127.0.0.1:2\" }}], protocol: http2, timeouts: {{ connect: 1s }} }}
  - {{ id: none, upstreams: [] }}{backends}
grants: []
"
        ))
    }

    const TO_A: &str = ", backends: [{ backend: a }]";

    #[test]
    fn problems_name_their_place() {
        let many = format!(", backends: [{}]", vec!["{ backend: a }"; 17].join(", "));
        let servers: Vec<_> = (1..=1025).map(|port| format!("{{ url: \"http://127.0.0.1:{port}\" }}")).collect();
        let crowd = format!("\n  - {{ id: crowd, upstreams: [{}] }}", servers.join(", "));
        let own = "subsystems[0].commands[0].backends";
        for (command, routes, backends, place, message) in [
            (", backends: []", TO_A, "", own, "status: 500"),
            (many.as_str(), TO_A, "", own, "at most 16"),
            (", backends: [{}]", TO_A, "", "subsystems[0].commands[0].backends[0]", "neither a backend nor a status"),
            (
                ", backends: [{ backend: a, status: 500 }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[0]",
                "both a backend and a status",
            ),
            (
                ", backends: [{ backend: a }, { backend: routes }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[1].backend",
                "there is no backend \"routes\"",
            ),
            (
                ", backends: [{ status: 499 }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[0].status",
                "between 500 and 599",
            ),
            (
                ", backends: [{ status: 500, headers: { response: { set: { x-a: \"1\" } } } }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[0].headers",
                "nothing is forwarded",
            ),
            (
                ", backends: [{ backend: a, weight: 1000001 }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[0].weight",
                "between 0 and 1000000",
            ),
            (
                ", backends: [{ backend: a, headers: { request: { set: { host: x } } } }]",
                TO_A,
                "",
                "subsystems[0].commands[0].backends[0].headers.request.set.host",
                "cannot be set",
            ),
            (
                ", upgrade: websocket, backends: [{ backend: a }, { backend: b }]",
                TO_A,
                "",
                "subsystems[0].commands[0].upgrade",
                "HTTP/2",
            ),
            (
                ", redirect: { location: /x }, backends: [{ backend: a }]",
                TO_A,
                "",
                "subsystems[0].commands[0].redirect",
                "cannot be combined with backends",
            ),
            ("", "", "", "subsystems[1].upstreams", "at least one upstream"),
            ("", ", backends: [{ backend: x }]", "", "subsystems[1].backends[0].backend", "there is no backend"),
            ("", ", backends: [{ backend: a }], balance: roundRobin", "", "subsystems[1].balance", "no effect"),
            (
                "",
                ", backends: [{ backend: a }], timeouts: { connect: 1s, request: 1s }",
                "",
                "subsystems[1].timeouts.connect",
                "no effect",
            ),
            (", mirror: { subsystem: routes }", TO_A, "", "subsystems[0].commands[0].mirror.subsystem", "no upstreams"),
            (", mirror: { backend: own }", TO_A, "", "subsystems[0].commands[0].mirror.backend", "own subsystem"),
            (", mirror: { percent: 1 }", TO_A, "", "subsystems[0].commands[0].mirror", "neither a subsystem nor"),
            ("", TO_A, "\n  - { id: own, upstreams: [] }", "backends[3].id", "the id of a subsystem"),
            ("", TO_A, "\n  - { id: a, upstreams: [] }", "backends[3].id", "the id of two backends"),
            ("", TO_A, "\n  - { id: x }", "backends[3].upstreams", "is missing"),
            ("", TO_A, "\n  - { id: x, upstreams: [{ url: x }] }", "backends[3].upstreams[0].url", "http://host:port"),
            ("", TO_A, "\n  - { id: x, upstreams: [], prtocol: http2 }", "backends[3].prtocol", "unknown key"),
            (
                "",
                TO_A,
                "\n  - { id: x, upstreams: [], timeouts: { idle: 0s } }",
                "backends[3].timeouts.idle",
                "0 would",
            ),
            ("", TO_A, crowd.as_str(), "backends[3].upstreams", "at most 1024"),
            (
                "",
                TO_A,
                "\n  - { id: x, endpoints: { service: a, port: http, secure: false } }",
                "backends[3].endpoints",
                "only for documents that a controller has made",
            ),
        ] {
            let problems = compile_text(&text(command, routes, backends), Path::new("/"), &NameInterner::default());
            let problems = problems.expect_err(message).0;
            let found = problems.iter().any(|problem| problem.path == place && problem.to_string().contains(message));
            assert!(found && problems.len() == 1, "{place}: {message}: {problems:?}");
        }
    }

    /// The backends of the command of `own`, as text.
    fn compiled(command: &str) -> String {
        let snapshot = compile_valid(&text(command, TO_A, "")).snapshot;
        let id = |number: u32| snapshot.backend(number).expect("a backend").id.to_string();
        match &snapshot.subsystems[0].commands[0].backends {
            CommandBackends::None => "none".to_owned(),
            CommandBackends::One(number) => id(*number),
            CommandBackends::Weighted(weighted) => {
                let shares = weighted.shares.iter().map(|share| match share.target {
                    ShareTarget::Backend(number) => format!("{}={}", id(number), share.weight),
                    ShareTarget::Status(status) => format!("{}={}", status.as_u16(), share.weight),
                });
                shares.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn backends_are_named_or_those_of_the_subsystem() {
        for (command, backends) in [
            ("", "own"),
            (", backends: [{ backend: own, weight: 7 }]", "own"),
            (", backends: [{ backend: b }]", "b"),
            (", backends: [{ backend: a, weight: 0 }]", "a=0"),
            (", backends: [{ backend: a, weight: 90 }, { backend: own, weight: 10 }]", "a=90 own=10"),
            (", backends: [{ backend: none }, { status: 500, weight: 3 }]", "none=1 500=3"),
            (", redirect: { location: /x }", "none"),
        ] {
            assert_eq!(compiled(command), backends, "{command}");
        }
        let default = compile_valid(&text("", TO_A, "")).snapshot;
        let CommandBackends::One(number) = default.subsystems[1].commands[0].backends else { panic!("one backend") };
        assert_eq!(number, default.backends[1].number, "the subsystem's default");
        assert!(default.subsystems[1].backend.is_none() && default.subsystems[0].backend.is_some());
        let ids: Vec<_> = default.backends.iter().map(|backend| (backend.id.as_str(), backend.is_own)).collect();
        assert_eq!(ids, [("own", true), ("a", false), ("b", false), ("none", false)]);
    }

    #[test]
    fn backends_that_no_command_names_are_unused() {
        for (command, unused) in [
            ("", vec!["b", "none"]),
            (", mirror: { backend: b }", vec!["none"]),
            (", backends: [{ backend: none }, { backend: b, weight: 0 }]", vec![]),
        ] {
            let snapshot = compile_valid(&text(command, TO_A, "")).snapshot;
            let ids: Vec<_> = snapshot.unused_backends().map(|backend| backend.id.as_str()).collect();
            assert_eq!(ids, unused, "{command}");
        }
    }

    #[test]
    fn edits_of_a_share_follow_those_of_the_command() {
        let command = ", headers: { request: { set: { x-a: command, x-b: command } } }, backends: [\
             { backend: a, headers: { request: { set: { x-a: share }, add: { x-b: share } } } }, { backend: b }]";
        let snapshot = compile_valid(&text(command, TO_A, "")).snapshot;
        let CommandBackends::Weighted(weighted) = &snapshot.subsystems[0].commands[0].backends else {
            panic!("two backends")
        };
        let mut headers = HeaderMap::new();
        weighted.shares[0].edits.as_ref().expect("edits").request.apply(&mut headers);
        let values = |name| headers.get_all(HeaderName::from_static(name)).iter().collect::<Vec<_>>();
        assert_eq!(values("x-a"), ["share"]);
        assert_eq!(values("x-b"), ["command", "share"]);
        assert_eq!(weighted.shares[1].edits, None);
    }
}
