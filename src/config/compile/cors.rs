//! Compiles `cors`: the pages whose scripts may read responses in a browser.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri};

use crate::config::document::CorsDocument;
use crate::policy::{AllowedOrigins, CorsPolicy};

use super::doc_path::DocPath;
use super::scalars;

pub(crate) fn compile_cors(written: &CorsDocument, place: &DocPath<'_>) -> Arc<CorsPolicy> {
    let credentials = written.credentials.unwrap_or(false);
    let list = |names: &Option<Vec<String>>, key, read| {
        let place = place.key(key);
        joined_names(names.as_deref()?, (read, credentials), &place)
    };
    let max_age =
        written.max_age.as_deref().and_then(|text| place.key("maxAge").value_or_problem(scalars::parse_duration(text)));
    Arc::new(CorsPolicy {
        origins: compile_origins(&written.origins, credentials, &place.key("origins")),
        methods: list(&written.methods, "methods", |text| scalars::parse_method(text).map(|method| method.to_string())),
        headers: list(&written.headers, "headers", parse_field_name),
        expose: list(&written.expose_headers, "exposeHeaders", parse_field_name),
        max_age: max_age.map(|age| HeaderValue::from(age.as_secs())),
        credentials,
    })
}

fn compile_origins(written: &[String], credentials: bool, place: &DocPath<'_>) -> AllowedOrigins {
    if written.is_empty() {
        place.problem("at least one origin is required, or \"*\" for all");
    }
    limit_names(written, place);
    if written.iter().any(|text| text == "*") {
        if credentials {
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
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let bad = || format!("{text:?} is not an origin; write it as browsers do, such as https://console.city.example");
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let usual_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(bad()),
    };
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let plain = uri.authority().is_some_and(|read| read.as_str() == authority && !authority.contains('@'));
    if !plain || authority != authority.to_ascii_lowercase() || authority.ends_with(':') {
        return Err(bad());
    }
    if uri.port_u16() == Some(usual_port) {
        return Err(format!("{text:?}: browsers omit the default port {usual_port} of {scheme}; omit it here, too"));
    }
    HeaderValue::from_str(text).map_err(|_| bad())
}

fn parse_field_name(text: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not the name of a field"))?;
    Ok(name.to_string())
}

type FieldParser = fn(&str) -> Result<String, String>;

fn joined_names(
    names: &[String],
    (read, credentials): (FieldParser, bool),
    place: &DocPath<'_>,
) -> Option<HeaderValue> {
    if names.is_empty() {
        return place.missing("an empty list names nothing; leave it out");
    }
    limit_names(names, place);
    let each = |(index, text): (usize, &String)| match text.as_str() {
        "*" if credentials => {
            place.item(index).missing("browsers do not treat \"*\" as a wildcard with credentials; list the names")
        }
        "*" => Some("*".to_owned()),
        text => place.item(index).value_or_problem(read(text)),
    };
    let names: Vec<String> = names.iter().enumerate().filter_map(each).collect();
    HeaderValue::from_str(&names.join(", ")).ok()
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
        ] {
            assert_eq!(parse_origin(text).is_ok(), fits, "{text}");
        }
    }
}
