//! Compiles `subsystems[].commands[].match`: the requests that are a command.

use http::header::HOST;
use http::{HeaderName, Method};

use crate::config::document::{FieldMatchDocument, MatchDocument, MatchListDocument};
use crate::policy::{
    AnchoredRegex, CommandMatch, HeaderCondition, PathMatch, QueryCondition, ValueCondition, is_reserved_header,
};

use super::doc_path::DocPath;
use super::scalars;

/// Compiles one match or a list. Matches with problems are left out.
pub(crate) fn compile_matches(written: &MatchListDocument, place: &DocPath<'_>) -> Vec<CommandMatch> {
    let written = match written {
        MatchListDocument::One(written) => return compile_match(written, place).into_iter().collect(),
        MatchListDocument::Any(written) => written,
    };
    if written.is_empty() {
        place.problem("an empty list matches nothing; write at least one match");
    }
    if written.len() > CommandMatch::MATCHES_MAX {
        place.problem(format!("has {} matches; at most {} are allowed", written.len(), CommandMatch::MATCHES_MAX));
    }
    let compiled = written.iter().enumerate().map(|(index, written)| compile_match(written, &place.item(index)));
    compiled.take(CommandMatch::MATCHES_MAX).flatten().collect()
}

fn compile_match(written: &MatchDocument, place: &DocPath<'_>) -> Option<CommandMatch> {
    let method =
        || written.method.as_deref().and_then(|text| place.key("method").value_or_problem(scalars::parse_method(text)));
    let headers = compile_headers(&written.headers, &place.key("headers"));
    let query = compile_query(&written.query, &place.key("query"));
    let (method, path) = match &written.grpc {
        Some(grpc) => {
            if written.method.is_some() {
                place.key("method").problem("a gRPC method is always POST; leave it out");
            }
            (
                Some(Method::POST),
                place.key("grpc").value_or_problem(scalars::parse_grpc_method(grpc)).map(PathMatch::Template),
            )
        }
        None => (method(), compile_path(written, place)),
    };
    refuse_two_paths(written, place);
    Some(CommandMatch { method, path: path?, headers, query })
}

fn compile_path(written: &MatchDocument, place: &DocPath<'_>) -> Option<PathMatch> {
    if let Some(path) = &written.path {
        return place.key("path").value_or_problem(scalars::parse_template(path)).map(PathMatch::Template);
    }
    if let Some(prefix) = &written.path_prefix {
        return place.key("pathPrefix").value_or_problem(scalars::parse_prefix(prefix)).map(PathMatch::Prefix);
    }
    if let Some(regex) = &written.path_regex {
        return place.key("pathRegex").value_or_problem(AnchoredRegex::parse(regex)).map(PathMatch::Regex);
    }
    place.key("path").missing("is missing; write a path, or grpc: package.Service/Method")
}

/// Rejects a second key that names the path.
fn refuse_two_paths(written: &MatchDocument, place: &DocPath<'_>) {
    let keys = [
        ("path", written.path.is_some()),
        ("pathPrefix", written.path_prefix.is_some()),
        ("pathRegex", written.path_regex.is_some()),
        ("grpc", written.grpc.is_some()),
    ];
    let mut keys = keys.into_iter().filter(|(_, is_written)| *is_written);
    if let (Some((first, _)), Some((second, _))) = (keys.next(), keys.next()) {
        place.key(second).problem(format!("stands beside a {first}; a match has one of the two"));
    }
}

fn compile_headers(written: &[FieldMatchDocument], place: &DocPath<'_>) -> Vec<HeaderCondition> {
    refuse_too_many(written, place);
    let mut conditions: Vec<HeaderCondition> = Vec::with_capacity(written.len());
    for (index, field) in written.iter().enumerate() {
        let place = place.item(index);
        let name = place.key("name").value_or_problem(parse_field_name(&field.name));
        let (Some(name), Some(value)) = (name, compile_value(field, &place)) else { continue };
        if conditions.iter().any(|known| known.name == name) {
            place.key("name").problem(format!("{name} is named twice; one condition holds all that its value must be"));
        }
        conditions.push(HeaderCondition { name, value });
    }
    conditions.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    conditions
}

fn compile_query(written: &[FieldMatchDocument], place: &DocPath<'_>) -> Vec<QueryCondition> {
    refuse_too_many(written, place);
    let mut conditions: Vec<QueryCondition> = Vec::with_capacity(written.len());
    for (index, parameter) in written.iter().enumerate() {
        let place = place.item(index);
        let Some(value) = compile_value(parameter, &place) else { continue };
        let name = parameter.name.clone();
        if name.is_empty() {
            place.key("name").problem("is empty; write the decoded name of a parameter");
        }
        if conditions.iter().any(|known| known.name == name) {
            place.key("name").problem(format!("{name:?} is named twice; the first parameter of a name decides"));
        }
        conditions.push(QueryCondition { name, value });
    }
    conditions.sort_by(|a, b| a.name.cmp(&b.name));
    conditions
}

fn refuse_too_many(written: &[FieldMatchDocument], place: &DocPath<'_>) {
    if written.len() > CommandMatch::CONDITIONS_MAX {
        place.problem(format!(
            "has {} conditions; at most {} are allowed",
            written.len(),
            CommandMatch::CONDITIONS_MAX
        ));
    }
}

fn compile_value(written: &FieldMatchDocument, place: &DocPath<'_>) -> Option<ValueCondition> {
    match (&written.value, &written.regex, written.present) {
        (Some(value), None, None) => Some(ValueCondition::Exact(value.clone())),
        (None, Some(regex), None) => {
            place.key("regex").value_or_problem(AnchoredRegex::parse(regex)).map(ValueCondition::Regex)
        }
        (None, None, Some(true)) => Some(ValueCondition::Present),
        (None, None, Some(false)) => {
            place.key("present").missing("absence cannot be matched; write true or leave it out")
        }
        _ => place.missing("needs exactly one of value, regex and present"),
    }
}

/// Parses the name of a field that callers may send and that the gateway does not replace.
fn parse_field_name(text: &str) -> Result<HeaderName, String> {
    // Requests with other characters in a name, such as `_`, are refused.
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| is_plain);
    let name = name.ok_or_else(|| format!("{text:?} is not a field; write letters, digits and hyphens"))?;
    match () {
        () if name == HOST => Err("the host is matched by hosts of the subsystem".to_owned()),
        () if is_reserved_header(&name) => {
            Err(format!("{text} cannot be matched: only the gateway may write it, and what a caller sends is dropped"))
        }
        () => Ok(name),
    }
}
