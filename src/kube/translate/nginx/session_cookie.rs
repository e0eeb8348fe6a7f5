//! Sessions: `affinity`, `affinity-*` and `session-cookie-*`.
//!
//! Guarantees: the value of the cookie says nothing about endpoints.
//!
//! Leaves to others: the balancing itself (`policy`, `proxy`), and the secret of persistent sessions (`ingresses`).

use serde_json::{Map, Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::{is_host, parse_seconds};

/// `session-cookie-name` without the annotation.
const NAME: &str = "INGRESSCOOKIE";
/// The annotations that have no effect without `affinity: cookie`.
const PARTS: [&str; 11] = [
    "affinity-mode",
    "affinity-canary-behavior",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-domain",
    "session-cookie-max-age",
    "session-cookie-expires",
    "session-cookie-secure",
    "session-cookie-samesite",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
];

/// The value of `balance`; `None` without sessions.
pub(super) fn read_session(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    if reader.value("affinity") != Some("cookie") {
        reader.taken("affinity", "not cookie: there are no sessions, as in ingress-nginx");
        for name in PARTS {
            reader.taken(name, "has no effect without affinity: cookie");
        }
        return None;
    }
    let sentence = "a session stays at its endpoint while that is healthy; the path of the cookie is / without \
                    session-cookie-path";
    reader.taken("affinity", sentence);
    judge_modes(reader);
    let mut cookie = Map::new();
    if reader.value("affinity-mode") == Some("persistent") {
        cookie.insert("mode".to_owned(), json!("persistent"));
    }
    if reader.switch("session-cookie-change-on-failure") == Some(true) {
        cookie.insert("changeOnFailure".to_owned(), json!(true));
    }
    let is_name = |text: &str| http::HeaderName::from_bytes(text.as_bytes()).is_ok().then(|| text.to_owned());
    let name = reader.parsed("session-cookie-name", "the name of a cookie", is_name);
    reader.taken("session-cookie-name", "the name of the cookie");
    cookie.insert("name".to_owned(), json!(name.unwrap_or_else(|| NAME.to_owned())));
    let is_path = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        (text.starts_with('/') && is_plain).then(|| text.to_owned())
    };
    let path = reader.parsed("session-cookie-path", "a path", is_path);
    reader.taken("session-cookie-path", "the path of the cookie");
    let domain = reader.parsed("session-cookie-domain", "a host", |text| is_host(text).then(|| text.to_owned()));
    reader.taken("session-cookie-domain", "the domain of the cookie");
    cookie.extend(path.map(|path| ("path".to_owned(), json!(path))));
    cookie.extend(domain.map(|domain| ("domain".to_owned(), json!(domain))));
    cookie.extend(read_age(reader).map(|age| ("maxAge".to_owned(), json!(format!("{age}s")))));
    if let Some(secure) = reader.switch("session-cookie-secure") {
        cookie.insert("secure".to_owned(), json!(secure));
        reader.taken("session-cookie-secure", "whether the cookie is sent over TLS alone");
    }
    let same_site = reader.parsed("session-cookie-samesite", "one of None, Lax and Strict", |text| {
        ["None", "Lax", "Strict"].into_iter().find(|word| word.eq_ignore_ascii_case(text))
    });
    reader.taken("session-cookie-samesite", "SameSite of the cookie");
    cookie.extend(same_site.map(|word| ("sameSite".to_owned(), json!(word))));
    Some(json!({ "cookie": cookie }))
}

fn judge_modes(reader: &mut AnnotationReader<'_>) {
    match reader.value("affinity-mode") {
        Some("persistent") => {
            reader.taken("affinity-mode", "a session stays at its endpoint, also when others are added")
        }
        _ => reader.taken("affinity-mode", "balanced: an endpoint that is added takes over its share of sessions"),
    }
    match reader.value("affinity-canary-behavior") {
        Some("legacy") => reader.taken("affinity-canary-behavior", "the canary is chosen for each request"),
        _ => reader.differs("affinity-canary-behavior", "the canary is chosen for each request, as with legacy"),
    }
    match reader.switch("session-cookie-change-on-failure") {
        Some(true) => {
            let sentence =
                "a session whose endpoint fails moves to another one for good, with a new value of the cookie";
            reader.taken("session-cookie-change-on-failure", sentence);
        }
        _ => reader.taken("session-cookie-change-on-failure", "off: a session returns to its endpoint"),
    }
    match reader.switch("session-cookie-conditional-samesite-none") {
        Some(true) => {
            let sentence = "SameSite=None is sent to all browsers, also to old ones that do not understand it";
            reader.differs("session-cookie-conditional-samesite-none", sentence);
        }
        _ => reader.taken("session-cookie-conditional-samesite-none", "off"),
    }
}

/// The age in seconds. Browsers prefer it to the date of `session-cookie-expires`, which means the same.
fn read_age(reader: &mut AnnotationReader<'_>) -> Option<u64> {
    let age = reader.parsed("session-cookie-max-age", "whole seconds above 0", parse_seconds);
    let expires = reader.parsed("session-cookie-expires", "whole seconds above 0", parse_seconds);
    reader.taken("session-cookie-max-age", "the age of the cookie");
    reader.taken("session-cookie-expires", "the age of the cookie (Max-Age); session-cookie-max-age takes precedence");
    age.or(expires)
}
