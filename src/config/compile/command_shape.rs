//! Compiles `headers`, `rewrite`, `redirect`, `cors`, `mirror` and `compress`: the transformations of a command's
//! requests and responses.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::config::document::{
    CommandDocument, HeaderEditsDocument, MatchListDocument, MirrorDocument, RedirectDocument, RewriteDocument,
    SubsystemDocument,
};
use crate::policy::{
    CommandMatch, CommandShape, FieldEdits, MirrorTarget, PathFilling, PathRewrite, PathTemplate, RedirectTarget,
};

use super::command_context::{CommandContext, CommonShape};
use super::doc_path::DocPath;
use super::{cors, scalars};

const REDIRECT_STATUSES: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// Compiles the settings of a subsystem for all its commands.
pub(crate) fn compile_common(written: &SubsystemDocument, place: &DocPath<'_>) -> CommonShape {
    let mut common = CommonShape::default();
    common.add_headers(written.headers.as_ref(), &place.key("headers"));
    common.compress = written.compress.unwrap_or(false);
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
    let rewrite = written.rewrite.as_ref().and_then(|written| compile_rewrite(written, matches, &place.key("rewrite")));
    let redirect =
        written.redirect.as_ref().and_then(|written| compile_redirect(written, matches, &place.key("redirect")));
    if written.redirect.is_some() {
        refuse_beside_redirect(written, place);
    }
    let mirror = written.mirror.as_ref().and_then(|written| compile_mirror(written, context, &place.key("mirror")));
    if written.mirror.is_some() && written.upgrade.is_some() {
        place.key("mirror").problem("cannot be combined with upgrade: a tunnel cannot be mirrored");
    }
    own.shape(rewrite, redirect, mirror)
}

/// Rejects forwarding options beside `redirect`, because a redirected command is not forwarded.
fn refuse_beside_redirect(written: &CommandDocument, place: &DocPath<'_>) {
    let beside = [
        ("rewrite", written.rewrite.is_some()),
        ("upgrade", written.upgrade.is_some()),
        ("mirror", written.mirror.is_some()),
        ("match.grpc", matches_grpc(&written.r#match)),
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

fn compile_rewrite(written: &RewriteDocument, matches: &[CommandMatch], place: &DocPath<'_>) -> Option<PathRewrite> {
    match (&written.path, &written.prefix) {
        (Some(path), None) => {
            let place = place.key("path");
            let path = place.value_or_problem(scalars::parse_template(path))?;
            place.value_or_problem(fill_path(&path, matches)?).map(PathRewrite::Path)
        }
        (None, Some(prefix)) => {
            place.key("prefix").value_or_problem(scalars::parse_prefix(prefix)).map(PathRewrite::Prefix)
        }
        _ => place.missing("needs a path or a prefix, and only one of them"),
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
    let place = place.key("location");
    let (base, path) = place.value_or_problem(split_location(&written.location))?;
    let path = place.value_or_problem(scalars::parse_template(path))?;
    Some(RedirectTarget {
        status: status?,
        base: base.to_owned(),
        path: place.value_or_problem(fill_path(&path, matches)?)?,
    })
}

/// A path with the parameters that each match captures; `None` if no match could be compiled.
fn fill_path(path: &PathTemplate, matches: &[CommandMatch]) -> Option<Result<PathFilling, String>> {
    (!matches.is_empty()).then(|| CommandMatch::fill_from_each(matches, path))
}

fn compile_mirror(written: &MirrorDocument, context: &CommandContext<'_>, place: &DocPath<'_>) -> Option<MirrorTarget> {
    let percent = u8::try_from(written.percent.unwrap_or(100)).ok().filter(|percent| (1..=100).contains(percent));
    if percent.is_none() {
        place.key("percent").problem("write a whole number between 1 and 100");
    }
    let place = place.key("subsystem");
    let subsystem = context.subsystem_ids.iter().position(|id| *id == written.subsystem);
    match subsystem {
        None => place.problem(format!("there is no subsystem {:?}", written.subsystem)),
        Some(index) if index == context.subsystem_index => {
            place.problem("is the command's own subsystem; name another one")
        }
        Some(_) => {}
    }
    Some(MirrorTarget { subsystem: subsystem?, percent: percent? })
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
    use super::*;

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
