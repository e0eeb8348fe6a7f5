//! Compiles `cors`: the pages whose scripts may read responses in a browser.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri};

use crate::config::document::CorsDocument;
use crate::policy::{AllowedNames, AllowedOrigins, CorsPolicy, OriginPattern};

use super::doc_path::DocPath;
use super::scalars;

pub(crate) fn compile_cors(written: &CorsDocument, place: &DocPath<'_>) -> Arc<CorsPolicy> {
    let credentials = written.credentials.unwrap_or(false);
    let list = |names: &Option<Vec<String>>, key, read| {
        let place = place.key(key);
        compile_names(names.as_deref()?, read, &place)
    };
    let max_age =
        written.max_age.as_deref().and_then(|text| place.key("maxAge").value_or_problem(scalars::parse_duration(text)));
    Arc::new(CorsPolicy {
        origins: compile_origins(written, credentials, &place.key("origins")),
        methods: list(&written.methods, "methods", |text| scalars::parse_method(text).map(|method| method.to_string())),
        headers: list(&written.headers, "headers", parse_field_name),
        expose: compile_exposed(written, credentials, &place.key("exposeHeaders")),
        max_age: max_age.map(|age| HeaderValue::from(age.as_secs())),
        credentials,
    })
}

fn compile_origins(document: &CorsDocument, credentials: bool, place: &DocPath<'_>) -> AllowedOrigins {
    let written = &document.origins;
    if written.is_empty() {
        place.problem("at least one origin is required, or \"*\" for all");
    }
    limit_names(written, place);
    if written.iter().any(|text| text == "*") {
        if credentials && !document.may_trust_all {
            let hint = "name the origins, or leave credentials out";
            place.problem_with_hint("\"*\" cannot be combined with credentials: browsers reject it", hint);
        }
        if written.len() > 1 {
            place.problem("\"*\" means every origin; leave the others out");
        }
        return AllowedOrigins::Any;
    }
    let read = |(index, text): (usize, &String)| place.item(index).value_or_problem(parse_origin(text));
    AllowedOrigins::Listed(written.iter().enumerate().filter_map(read).collect())
}

/// Parses an origin in the form that browsers send: scheme, host in lower case, and a port if it differs from the
/// scheme's default.
///
/// `*.` at the beginning of the host stands for subdomains of any depth.
fn parse_origin(text: &str) -> Result<OriginPattern, String> {
    let bad = || format!("{text:?} is not an origin; write it as browsers do, such as https://console.city.example");
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let (scheme, usual_port) = match scheme {
        "http" => ("http://", 80),
        "https" => ("https://", 443),
        _ => return Err(bad()),
    };
    let parent = authority.strip_prefix("*.");
    let authority = parent.unwrap_or(authority);
    let plain = format!("{scheme}{authority}");
    let uri: Uri = plain.parse().map_err(|_| bad())?;
    let is_plain = uri.authority().is_some_and(|read| read.as_str() == authority && !authority.contains(['@', '*']));
    if !is_plain || authority != authority.to_ascii_lowercase() || authority.ends_with(':') {
        return Err(bad());
    }
    if uri.port_u16() == Some(usual_port) {
        return Err(format!("{text:?}: browsers omit the default port {usual_port} of {scheme}; omit it here, too"));
    }
    if let Some(parent) = parent {
        return Ok(OriginPattern::Subdomains { scheme, suffix: format!(".{parent}") });
    }
    HeaderValue::from_str(text).map(OriginPattern::Exact).map_err(|_| bad())
}

fn parse_field_name(text: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not the name of a field"))?;
    Ok(name.to_string())
}

type FieldParser = fn(&str) -> Result<String, String>;

/// A list of methods or fields; `*` means all.
fn compile_names(names: &[String], read: FieldParser, place: &DocPath<'_>) -> Option<AllowedNames> {
    if names.is_empty() {
        return place.missing("an empty list names nothing; leave it out");
    }
    limit_names(names, place);
    if names.iter().any(|name| name == "*") {
        if names.len() > 1 {
            place.problem("\"*\" means all; leave the others out");
        }
        return Some(AllowedNames::Any);
    }
    let each = |(index, text): (usize, &String)| place.item(index).value_or_problem(read(text));
    let names: Vec<String> = names.iter().enumerate().filter_map(each).collect();
    HeaderValue::from_str(&names.join(", ")).ok().map(AllowedNames::Listed)
}

/// The value of `Access-Control-Expose-Headers`. A response to a request with credentials cannot expose all fields:
/// nothing in the request names them.
fn compile_exposed(written: &CorsDocument, credentials: bool, place: &DocPath<'_>) -> Option<HeaderValue> {
    match compile_names(written.expose_headers.as_deref()?, parse_field_name, place)? {
        AllowedNames::Listed(names) => Some(names),
        AllowedNames::Any if credentials => {
            place.missing("browsers do not treat \"*\" as a wildcard with credentials; list the fields")
        }
        AllowedNames::Any => Some(HeaderValue::from_static("*")),
    }
}

fn limit_names(names: &[String], place: &DocPath<'_>) {
    if names.len() > CorsPolicy::NAMES_MAX {
        place.problem(format!("at most {} can be named", CorsPolicy::NAMES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_the_spelling_of_browsers() {
        for (text, fits) in [
            ("https://console.city.example", true),
            ("http://127.0.0.1:3000", true),
            ("https://[::1]:8443", true),
            ("https://console.city.example/", false),
            ("https://Console.city.example", false),
            ("https://console.city.example:443", false),
            ("http://a:80", false),
            ("https://u@a", false),
            ("https://a:", false),
            ("console.city.example", false),
            ("null", false),
            ("https://*.city.example/x", false),
            ("https://*.city.example", true),
            ("http://*.city.example:3000", true),
            ("https://*", false),
            ("https://a.*.example", false),
            ("https://*.*.example", false),
            ("https://*.", false),
        ] {
            assert_eq!(parse_origin(text).is_ok(), fits, "{text}");
        }
    }
}
