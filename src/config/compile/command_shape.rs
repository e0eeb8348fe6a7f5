//! Compiles `headers`, `rewrite`, `redirect`, `cors`, `mirror`, `compress` and `bandwidthLimit`: the transformations of
//! a command's requests and responses.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::config::document::{
    CommandDocument, HeaderEditsDocument, MatchListDocument, MirrorDocument, MirrorsDocument, RedirectDocument,
    RewriteDocument, SubsystemDocument,
};
use crate::policy::{
    CommandMatch, CommandShape, FieldEdits, MirrorFraction, MirrorTarget, PathFilling, PathRewrite, PathTemplate,
    PrefixReplacement, RedirectLocation, RedirectTarget, ReplacedParts, RequestRewrite,
};

use super::command_backends::find_backend;
use super::command_context::{CommandContext, CommonShape};
use super::doc_path::DocPath;
use super::limits::compile_bandwidth;
use super::{cors, scalars};

const REDIRECT_STATUSES: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// The denominator of percentages, and the default one of fractions.
const PERCENT: u64 = 100;

/// Compiles the settings of a subsystem for all its commands.
pub(crate) fn compile_common(written: &SubsystemDocument, place: &DocPath<'_>) -> CommonShape {
    let mut common = CommonShape::default();
    common.add_headers(written.headers.as_ref(), &place.key("headers"));
    common.compress = written.compress.unwrap_or(false);
    common.bandwidth =
        written.bandwidth_limit.as_ref().and_then(|written| compile_bandwidth(written, &place.key("bandwidthLimit")));
    common.cors = written.cors.as_ref().map(|written| cors::compile_cors(written, &place.key("cors")));
    common
}

/// Compiles the shape of a command whose requests are `matches`. Of `shared`, only the current subsystem and the ids of
/// all subsystems are used.
pub(crate) fn compile_shape(
    written: &CommandDocument,
    matches: &[CommandMatch],
    context: &CommandContext<'_>,
    place: &DocPath<'_>,
) -> Option<Box<CommandShape>> {
    let mut own = context.common.clone();
    own.add_headers(written.headers.as_ref(), &place.key("headers"));
    if let Some(written) = &written.cors {
        own.cors = Some(cors::compile_cors(written, &place.key("cors")));
    }
    own.compress = written.compress.unwrap_or(own.compress);
    if let Some(written) = &written.bandwidth_limit {
        own.bandwidth = compile_bandwidth(written, &place.key("bandwidthLimit"));
    }
    let rewrite = written.rewrite.as_ref().and_then(|written| compile_rewrite(written, matches, &place.key("rewrite")));
    let redirect =
        written.redirect.as_ref().and_then(|written| compile_redirect(written, matches, &place.key("redirect")));
    if written.redirect.is_some() {
        refuse_beside_redirect(written, place);
    }
    let mirrors = written.mirror.as_ref().map(|written| compile_mirrors(written, context, &place.key("mirror")));
    if written.mirror.is_some() && written.upgrade.is_some() {
        place.key("mirror").problem("cannot be combined with upgrade: a tunnel cannot be mirrored");
    }
    own.shape(rewrite, redirect, mirrors.unwrap_or_default())
}

/// Rejects forwarding options beside `redirect`, because a redirected command is not forwarded.
fn refuse_beside_redirect(written: &CommandDocument, place: &DocPath<'_>) {
    let beside = [
        ("rewrite", written.rewrite.is_some()),
        ("upgrade", written.upgrade.is_some()),
        ("mirror", written.mirror.is_some()),
        ("backends", written.backends.is_some()),
        ("timeouts", written.timeouts.is_some()),
        ("match.grpc", written.r#match.as_ref().is_some_and(matches_grpc)),
    ];
    for (key, _) in beside.into_iter().filter(|(_, is_written)| *is_written) {
        place.key("redirect").problem(format!("cannot be combined with {key}: this command is not forwarded"));
    }
}

fn matches_grpc(written: &MatchListDocument) -> bool {
    match written {
        MatchListDocument::One(written) => written.grpc.is_some(),
        MatchListDocument::Any(written) => written.iter().any(|written| written.grpc.is_some()),
    }
}

pub(crate) fn add_edits(edits: &mut FieldEdits, written: Option<&HeaderEditsDocument>, place: &DocPath<'_>) {
    let Some(HeaderEditsDocument { set, add, remove }) = written else { return };
    if [set.len(), add.len(), remove.len()].into_iter().any(|count| count > FieldEdits::MAX) {
        place.problem(format!("at most {} fields can be set, as many added, and as many removed", FieldEdits::MAX));
    }
    let mut named = Vec::new();
    for (name, value) in set {
        let place = place.key("set").key(name);
        let Some((field, value)) = parse_field(name, value, &place) else { continue };
        if named.contains(&field) {
            place.problem(format!("{field} is set twice"));
        }
        named.push(field.clone());
        edits.set(field, value);
    }
    for (index, name) in remove.iter().enumerate() {
        let place = place.key("remove").item(index);
        let Some(field) = place.value_or_problem(FieldEdits::parse_name(name)) else { continue };
        if named.contains(&field) {
            place.problem_with_hint(format!("{field} is named twice here"), "a field that is set need not be removed");
        }
        named.push(field.clone());
        edits.remove(field);
    }
    for (name, value) in add {
        if let Some((field, value)) = parse_field(name, value, &place.key("add").key(name)) {
            edits.add(field, value);
        }
    }
}

fn parse_field(name: &str, value: &str, place: &DocPath<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = place.value_or_problem(FieldEdits::parse_name(name));
    let value = place.value_or_problem(parse_field_value(value));
    name.zip(value)
}

fn parse_field_value(text: &str) -> Result<HeaderValue, String> {
    let plain = text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let value = plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| format!("{text:?} is not a value; write printable ASCII without spaces around it"))
}

fn compile_rewrite(written: &RewriteDocument, matches: &[CommandMatch], place: &DocPath<'_>) -> Option<RequestRewrite> {
    let RewriteDocument { host, path, prefix, replace_prefix_match } = written;
    if host.is_none() && path.is_none() && prefix.is_none() && replace_prefix_match.is_none() {
        return place.missing("needs a host, or one of path, prefix and replacePrefixMatch, and only one of them");
    }
    let host = host.as_deref().and_then(|host| {
        let place = place.key("host");
        let host = place.value_or_problem(scalars::parse_host(host))?;
        place.value_or_problem(HeaderValue::try_from(host))
    });
    let written = [path, prefix, replace_prefix_match].map(Option::as_deref);
    Some(RequestRewrite { host, path: compile_path(written, matches, place) })
}

/// Compiles the keys `path`, `prefix` and `replacePrefixMatch` of `place`, of which at most one may be written.
fn compile_path(written: [Option<&str>; 3], matches: &[CommandMatch], place: &DocPath<'_>) -> Option<PathRewrite> {
    match written {
        [None, None, None] => None,
        [Some(path), None, None] => {
            let place = place.key("path");
            let path = place.value_or_problem(scalars::parse_template(path))?;
            place.value_or_problem(fill_path(&path, matches)?).map(PathRewrite::Path)
        }
        [None, Some(prefix), None] => {
            place.key("prefix").value_or_problem(scalars::parse_prefix(prefix)).map(PathRewrite::Prefix)
        }
        [None, None, Some(replacement)] => {
            let place = place.key("replacePrefixMatch");
            let replacement = place.value_or_problem(scalars::parse_prefix(replacement))?;
            place.value_or_problem(PrefixReplacement::new(matches, replacement)).map(PathRewrite::Matched)
        }
        _ => place.missing("has more than one of path, prefix and replacePrefixMatch; write only one of them"),
    }
}

fn compile_redirect(
    written: &RedirectDocument,
    matches: &[CommandMatch],
    place: &DocPath<'_>,
) -> Option<RedirectTarget> {
    let status = written.status.unwrap_or(308);
    let status = REDIRECT_STATUSES.into_iter().find(|known| u64::from(known.as_u16()) == status);
    if status.is_none() {
        place.key("status").problem("is not a redirect; write 301, 302, 303, 307 or 308");
    }
    let RedirectDocument { location, scheme, host, port, path, prefix, replace_prefix_match, .. } = written;
    let has_parts =
        [scheme, host, path, prefix, replace_prefix_match].iter().any(|part| part.is_some()) || port.is_some();
    let location = match (location, has_parts) {
        (Some(location), false) => compile_location(location, matches, &place.key("location")),
        (None, true) => Some(RedirectLocation::Parts(Box::new(compile_parts(written, matches, place)))),
        // The same URL with another status, such as 303 after a POST.
        (None, false) if written.status.is_some() => Some(RedirectLocation::Parts(Box::default())),
        (Some(_), true) => place.missing("has a location and parts of a URL; write only one of the two"),
        (None, false) => place.missing(
            "needs a location, or at least one of status, scheme, host, port, path, prefix and replacePrefixMatch",
        ),
    };
    Some(RedirectTarget { status: status?, location: location? })
}

fn compile_location(text: &str, matches: &[CommandMatch], place: &DocPath<'_>) -> Option<RedirectLocation> {
    let (base, path) = place.value_or_problem(split_location(text))?;
    let path = place.value_or_problem(scalars::parse_template(path))?;
    let path = place.value_or_problem(fill_path(&path, matches)?)?;
    Some(RedirectLocation::Whole { base: base.to_owned(), path })
}

/// A path with the parameters that each match captures; `None` if no match could be compiled.
fn fill_path(path: &PathTemplate, matches: &[CommandMatch]) -> Option<Result<PathFilling, String>> {
    (!matches.is_empty()).then(|| CommandMatch::fill_from_each(matches, path))
}

fn compile_parts(written: &RedirectDocument, matches: &[CommandMatch], place: &DocPath<'_>) -> ReplacedParts {
    let RedirectDocument { scheme, host, port, path, prefix, replace_prefix_match, .. } = written;
    let port = port.map(|port| u16::try_from(port).ok().filter(|port| *port != 0));
    if port == Some(None) {
        place.key("port").problem("is not a port; write a whole number between 1 and 65535");
    }
    let parse_scheme = |scheme: &str| scalars::parse_keyword(scheme, &[("http", "http"), ("https", "https")]);
    ReplacedParts {
        scheme: scheme.as_deref().and_then(|scheme| place.key("scheme").value_or_problem(parse_scheme(scheme))),
        host: host.as_deref().and_then(|host| place.key("host").value_or_problem(scalars::parse_host(host))),
        port: port.flatten(),
        path: compile_path([path, prefix, replace_prefix_match].map(Option::as_deref), matches, place),
    }
}

fn compile_mirrors(written: &MirrorsDocument, context: &CommandContext<'_>, place: &DocPath<'_>) -> Vec<MirrorTarget> {
    let several = match written {
        MirrorsDocument::One(written) => return compile_mirror(written, context, place).into_iter().collect(),
        MirrorsDocument::Several(several) => several,
    };
    if !(1..=MirrorTarget::MAX).contains(&several.len()) {
        place.problem(format!("write at least one mirror and at most {}", MirrorTarget::MAX));
    }
    let each = several.iter().enumerate();
    each.filter_map(|(index, written)| compile_mirror(written, context, &place.item(index))).collect()
}

fn compile_mirror(written: &MirrorDocument, context: &CommandContext<'_>, place: &DocPath<'_>) -> Option<MirrorTarget> {
    let fraction = compile_fraction(written, place);
    let backend = match (&written.subsystem, &written.backend) {
        (Some(id), None) => find_mirror_subsystem(id, context, &place.key("subsystem")),
        (None, Some(id)) => find_backend(id, context.backends, &place.key("backend")),
        (Some(_), Some(_)) => place.missing("has both a subsystem and a backend; write only one of them"),
        (None, None) => place.missing("has neither a subsystem nor a backend; write one of them"),
    };
    if backend.is_some() && backend == context.own_backend {
        let key = if written.subsystem.is_some() { "subsystem" } else { "backend" };
        place.key(key).problem("is the command's own subsystem; name another one");
    }
    Some(MirrorTarget { backend: backend?, fraction: fraction? })
}

fn find_mirror_subsystem(id: &str, context: &CommandContext<'_>, place: &DocPath<'_>) -> Option<u32> {
    // A subsystem with servers has a backend of its own: the backend that is found is enough to depend on.
    let is_subsystem = context.subsystems.iter().any(|subsystem| subsystem.id == id);
    match (is_subsystem, context.backends.find(id)) {
        (true, Some(backend)) => Some(backend.number),
        (true, None) => place.missing(format!("the subsystem {id:?} has no upstreams")),
        (false, _) => place.missing(format!("there is no subsystem {id:?}")),
    }
}

fn compile_fraction(written: &MirrorDocument, place: &DocPath<'_>) -> Option<MirrorFraction> {
    let (key, numerator, denominator) = match (written.percent, &written.fraction) {
        (percent, None) => ("percent", percent.unwrap_or(PERCENT), PERCENT),
        (None, Some(fraction)) => ("fraction", fraction.numerator, fraction.denominator.unwrap_or(PERCENT)),
        (Some(_), Some(_)) => return place.missing("has both a percent and a fraction; write only one of them"),
    };
    let terms = u32::try_from(numerator).ok().zip(u32::try_from(denominator).ok());
    let fraction = terms.and_then(|(numerator, denominator)| MirrorFraction::new(numerator, denominator));
    if fraction.is_none() {
        place.key(key).problem(match key {
            "percent" => "write a whole number between 1 and 100".to_owned(),
            _ => format!(
                "write a numerator between 1 and the denominator, which is at most {}",
                MirrorFraction::DENOMINATOR_MAX
            ),
        });
    }
    fraction
}

/// Splits a location into its scheme with authority, which contains no path parameters, and its path.
fn split_location(text: &str) -> Result<(&str, &str), String> {
    if text.starts_with('/') {
        return Ok(("", text));
    }
    let bad = || format!("{text:?} is not a location; write https://host/path, http://host/path or /path");
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(bad)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let plain = authority.parse::<Authority>().is_ok() && !authority.contains(['@', '{', '}']);
    if plain { Ok((&text[..text.len() - rest.len() + authority.len()], path)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;

    use super::*;
    use crate::config::test_fixtures::{compile_valid, config_text};
    use crate::model::BandwidthLimit;
    use crate::policy::{Command, PolicySnapshot};

    /// A command with one setting.
    fn command(setting: &str) -> Arc<Command> {
        Arc::clone(&snapshot(setting).subsystems[0].commands[0])
    }

    /// A configuration whose first command has one setting.
    fn snapshot(setting: &str) -> Arc<PolicySnapshot> {
        let subsystem = |id: &str, command: &str| {
            format!(
                "{{ id: {id}, path: /{id}, upstreams: [{{ url: \"http://127.0.0.1:1\" }}], commands: [{command}] }}"
            )
        };
        let command = format!("{{ id: c, match: {{ path: \"/v1/{{id}}\" }}, {setting} }}");
        let others = ["lab", "trial"].map(|id| subsystem(id, "{ id: c, match: { path: /c } }")).join(", ");
        let text = config_text(&format!(
            "departments: [{{ id: a, callers: [{{ dns: a.example }}] }}]\n\
             subsystems: [{}, {others}]\n\
             grants: []\n",
            subsystem("cameras", &command)
        ));
        compile_valid(&text).snapshot
    }

    #[test]
    fn mirrors_are_one_mapping_or_a_list() {
        for (written, mirrors) in [
            ("{ subsystem: lab }", &[("lab", 100, 100)][..]),
            ("{ subsystem: trial, percent: 30 }", &[("trial", 30, 100)]),
            ("{ backend: lab }", &[("lab", 100, 100)]),
            ("{ subsystem: lab, fraction: { numerator: 30 } }", &[("lab", 30, 100)]),
            ("[{ subsystem: lab }]", &[("lab", 100, 100)]),
            (
                "[{ subsystem: lab, fraction: { numerator: 1, denominator: 1000000 } }, { subsystem: trial, percent: 1 }]",
                &[("lab", 1, 1_000_000), ("trial", 1, 100)],
            ),
        ] {
            let snapshot = snapshot(&format!("mirror: {written}"));
            let target = |&(backend, numerator, denominator): &(&str, u32, u32)| {
                (backend.to_owned(), MirrorFraction::new(numerator, denominator).expect("a fraction"))
            };
            let named = |target: &MirrorTarget| {
                (snapshot.backend(target.backend).expect("a backend").id.to_string(), target.fraction)
            };
            let expected: Vec<_> = mirrors.iter().map(target).collect();
            let found: Vec<_> = snapshot.subsystems[0].commands[0].mirrors().iter().map(named).collect();
            assert_eq!(found, expected, "{written}");
        }
    }

    #[test]
    fn bandwidth_limit_of_a_command_replaces_that_of_its_subsystem() {
        let limit = |rate, after| NonZeroU64::new(rate).map(|rate| BandwidthLimit { rate, after });
        let common = "bandwidthLimit: { rate: 2KiB, after: 1MiB }, ";
        for (common, written, expected) in [
            ("", "units: 1", None),
            ("", "bandwidthLimit: { rate: 512KiB }", limit(524_288, 0)),
            ("", "bandwidthLimit: { rate: 1B, after: 3B }", limit(1, 3)),
            ("", "bandwidthLimit: { rate: 0B, after: 3B }", None),
            (common, "units: 1", limit(2048, 1_048_576)),
            (common, "bandwidthLimit: { rate: 1KiB }", limit(1024, 0)),
            (common, "bandwidthLimit: { rate: 0B }", None),
        ] {
            let text = config_text(&format!(
                "departments: [{{ id: a, callers: [{{ dns: a.example }}] }}]\n\
                 subsystems: [{{ id: cameras, {common}upstreams: [{{ url: \"http://127.0.0.1:1\" }}], \
                 commands: [{{ id: c, match: {{ path: /c }}, {written} }}] }}]\n\
                 grants: []\n"
            ));
            let command = Arc::clone(&compile_valid(&text).snapshot.subsystems[0].commands[0]);
            assert_eq!(command.shape.as_ref().and_then(|shape| shape.bandwidth), expected, "{common}{written}");
        }
    }

    #[test]
    fn rewrite_has_a_host_or_a_path_or_both() {
        let prefix = || Some(PathRewrite::Prefix("/a".to_owned()));
        for (written, host, path) in [
            ("{ host: Cameras.Internal. }", Some("cameras.internal"), None),
            ("{ prefix: /a/ }", None, prefix()),
            ("{ host: \"[::1]\", prefix: /a }", Some("[::1]"), prefix()),
        ] {
            let host = host.map(HeaderValue::from_static);
            let command = command(&format!("rewrite: {written}"));
            let rewrite = command.shape.as_ref().and_then(|shape| shape.rewrite.as_ref());
            assert_eq!(rewrite, Some(&RequestRewrite { host, path }), "{written}");
        }
    }

    #[test]
    fn redirect_parts_are_each_optional() {
        let template = |text| PathTemplate::parse(text).expect("a template");
        let filled = template("/b/{id}").filled_by(&template("/v1/{id}")).ok().map(PathRewrite::Path);
        let prefix = Some(PathRewrite::Prefix("/a".to_owned()));
        let none = ReplacedParts::default;
        for (written, status, parts) in [
            ("{ scheme: https }", StatusCode::PERMANENT_REDIRECT, ReplacedParts { scheme: Some("https"), ..none() }),
            ("{ host: A, status: 302 }", StatusCode::FOUND, ReplacedParts { host: Some("a".to_owned()), ..none() }),
            ("{ port: 8443 }", StatusCode::PERMANENT_REDIRECT, ReplacedParts { port: Some(8443), ..none() }),
            ("{ prefix: /a }", StatusCode::PERMANENT_REDIRECT, ReplacedParts { path: prefix, ..none() }),
            ("{ path: \"/b/{id}\" }", StatusCode::PERMANENT_REDIRECT, ReplacedParts { path: filled, ..none() }),
        ] {
            let location = RedirectLocation::Parts(Box::new(parts));
            let command = command(&format!("redirect: {written}"));
            assert_eq!(command.redirect(), Some(&RedirectTarget { status, location }), "{written}");
        }
    }

    #[test]
    fn location_is_a_url_or_a_path() {
        for (text, parts) in [
            ("https://there.example/a/{id}", Some(("https://there.example", "/a/{id}"))),
            ("http://there.example:8080", Some(("http://there.example:8080", "/"))),
            ("/cameras/v2/{id}", Some(("", "/cameras/v2/{id}"))),
            ("https://{id}/a", None),
            ("https://u@there.example/", None),
            ("javascript:alert(1)", None),
            ("there.example/a", None),
            ("https:///a", None),
        ] {
            assert_eq!(split_location(text).ok(), parts, "{text}");
        }
    }
}
