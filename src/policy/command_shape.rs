//! The transformation of a command by the gateway: header edits, path rewrite, redirect, CORS, mirroring, compression.
//!
//! Guarantees:
//! - The shape is compiled once per configuration. A command without a shape stores none and costs no lookup.
//! - The forwarded request consists only of the configuration's own text and of the bytes that were authorised.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::cors::CorsPolicy;
use super::header_names::why_protected;
use super::path_template::PathFilling;

/// The transformations of a command's request and response.
#[derive(Debug)]
pub struct CommandShape {
    /// Edits of the request headers, towards the subsystem (upstream).
    pub request: FieldEdits,
    /// Edits of the response headers, towards the caller (downstream).
    pub response: FieldEdits,
    /// The path rewrite, if the forwarded path differs.
    pub rewrite: Option<PathRewrite>,
    /// The redirect target, if callers are redirected; then nothing is forwarded.
    pub redirect: Option<RedirectTarget>,
    /// The CORS policy of the command.
    pub cors: Option<Arc<CorsPolicy>>,
    /// The target of request mirroring (shadowing).
    pub mirror: Option<MirrorTarget>,
    /// Whether responses are compressed, for callers that accept it.
    pub compress: bool,
}

/// The target of mirrored requests. The responses to them are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorTarget {
    /// The subsystem's index.
    pub subsystem: usize,
    /// The percentage of requests that are copied, on average: 1 to 100.
    pub percent: u8,
}

/// The target of a redirect. The query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTarget {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Scheme and authority; empty for a path on the host that was called.
    pub base: String,
    /// The path of the target.
    pub path: PathFilling,
}

/// Header fields to set, to add, and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// The rewrite of the forwarded path. The query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// A prefix that replaces the subsystem's prefix: empty, or starting with `/` and without a trailing slash.
    Prefix(String),
    /// A path that replaces the whole path.
    Path(PathFilling),
}

impl FieldEdits {
    /// The most fields of one kind that one place of a configuration may name.
    pub const MAX: usize = 32;

    /// Whether there are no edits.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Sets a field. Replaces an earlier edit of the field.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.discard(&name);
        self.set.push((name, value));
    }

    /// Removes a field. Replaces an earlier edit of the field.
    pub fn remove(&mut self, name: HeaderName) {
        self.discard(&name);
        self.remove.push(name);
    }

    /// Adds a value to a field. The value follows those of the message, or the one that is set.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.add.push((name, value));
    }

    fn discard(&mut self, name: &HeaderName) {
        self.set.retain(|(set, _)| set != name);
        self.add.retain(|(added, _)| added != name);
        self.remove.retain(|removed| removed != name);
    }

    /// The fields to write, in this order: those that are set, then those that are added.
    pub fn new_fields(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.set.iter().chain(&self.add)
    }

    /// Whether the original value of a field is dropped: the field is removed, or set to another value.
    pub fn overrides(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }

    /// Applies the edits to the headers of a message.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    /// Reads the name of a field that a configuration may set or remove.
    ///
    /// # Errors
    /// The reason for a refusal: the text is no field name, or the gateway controls this field itself.
    pub fn parse_name(text: &str) -> Result<HeaderName, String> {
        // As in requests: some servers treat `_` as `-`, so the field would pass for another one.
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| plain);
        let name = name.ok_or_else(|| format!("{text:?} is not a field name; write letters, digits and hyphens"))?;
        match why_protected(&name) {
            Some(why) => Err(format!("{text} cannot be set or removed: it {why}")),
            None => Ok(name),
        }
    }
}

impl PathRewrite {
    /// The forwarded path and query, from the path and query below the subsystem's prefix.
    pub(crate) fn rewritten_path(&self, below: &str) -> String {
        let (path, query) = below.split_at(below.find('?').unwrap_or(below.len()));
        let rewritten = match self {
            Self::Prefix(prefix) => [prefix, path, query].concat(),
            Self::Path(filling) => [&filling.fill(path), query].concat(),
        };
        if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") }
    }
}

impl RedirectTarget {
    /// The value of `Location` for a path and query below the subsystem's prefix.
    pub fn location(&self, below: &str) -> Option<HeaderValue> {
        let (path, query) = below.split_at(below.find('?').unwrap_or(below.len()));
        HeaderValue::from_str(&[&self.base, &self.path.fill(path), query].concat()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path_template::PathTemplate;

    fn path(text: &str) -> PathTemplate {
        PathTemplate::parse(text).expect("a template")
    }

    #[test]
    fn rewritten_path_is_made_of_the_authorised_bytes() {
        for (matched, to, below, expected) in [
            ("/v1/{id}", "/v2/cameras/{id}", "/v1/7", "/v2/cameras/7"),
            ("/v1/{id}", "/v2/{id}/of/{id}", "/v1/%E4%BA%A4?x=/..", "/v2/%E4%BA%A4/of/%E4%BA%A4?x=/.."),
            ("/{a}/{b}", "/{b}/{a}", "/1/2?q", "/2/1?q"),
            ("/files/{*rest}", "/store/{*rest}", "/files/a/b/", "/store/a/b/"),
            ("/{*rest}", "/v2/{*rest}", "/a?b?c", "/v2/a?b?c"),
            ("/v1/now", "/", "/v1/now?x", "/?x"),
            ("/", "/v2", "?x", "/v2?x"),
        ] {
            let rewrite = PathRewrite::Path(path(to).filled_by(&path(matched)).expect("captured"));
            assert_eq!(rewrite.rewritten_path(below), expected, "{matched} to {to}");
        }
    }

    #[test]
    fn redirect_keeps_the_query() {
        let path = path("/new/{id}").filled_by(&path("/v1/{id}")).expect("captured");
        let redirect = RedirectTarget { status: StatusCode::FOUND, base: "https://there.example".to_owned(), path };
        let location = redirect.location("/v1/a%20b?x=/../y").expect("a value");
        assert_eq!(location, "https://there.example/new/a%20b?x=/../y");
    }

    #[test]
    fn rewrite_parameter_must_be_captured_by_the_path() {
        for to in ["/v2/{day}", "/v2/{*id}", "/v2/{rest}"] {
            assert!(path(to).filled_by(&path("/v1/{id}/{*rest}")).is_err(), "{to}");
        }
    }

    #[test]
    fn prefix_rewrite_replaces_the_subsystem_path() {
        for (prefix, below, expected) in [
            ("/internal", "/v1/7?x=1", "/internal/v1/7?x=1"),
            ("/internal", "", "/internal"),
            ("/internal", "?x", "/internal?x"),
            ("", "?x", "/?x"),
            ("", "/v1", "/v1"),
        ] {
            assert_eq!(PathRewrite::Prefix(prefix.to_owned()).rewritten_path(below), expected);
        }
    }

    #[test]
    fn reserved_fields_cannot_be_edited() {
        for kept in [
            "Host",
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "TE",
            "Trailer",
            "Expect",
            "X-Tallygate-Department",
            "X-Forwarded-For",
            "Forwarded",
            "X-Request-Id",
            "traceparent",
            "Client-Cert",
            "RateLimit",
            "grpc-status",
            "x_tallygate_department",
            "a b",
            "",
        ] {
            assert!(FieldEdits::parse_name(kept).is_err(), "{kept}");
        }
        for free in ["X-Api-Key", "Server", "Strict-Transport-Security", "Cookie", "Vary"] {
            assert!(FieldEdits::parse_name(free).is_ok(), "{free}");
        }
    }

    #[test]
    fn last_field_edit_wins() {
        let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        let mut edits = FieldEdits::default();
        edits.remove(name.clone());
        edits.set(name.clone(), value.clone());
        assert_eq!((&edits.set[..], edits.remove.len()), (&[(name.clone(), value)][..], 0));
        edits.remove(name.clone());
        assert!(edits.set.is_empty() && edits.overrides(&name));
    }

    #[test]
    fn added_values_follow_the_values_of_the_message() {
        let name = |text| HeaderName::from_static(text);
        let value = |text| HeaderValue::from_static(text);
        let mut edits = FieldEdits::default();
        edits.add(name("x-a"), value("2"));
        edits.set(name("x-b"), value("1"));
        edits.add(name("x-b"), value("2"));
        edits.add(name("x-c"), value("1"));
        edits.remove(name("x-c"));
        let mut headers = HeaderMap::new();
        headers.insert(name("x-a"), value("1"));
        headers.insert(name("x-b"), value("0"));
        headers.insert(name("x-c"), value("0"));
        edits.apply(&mut headers);
        let values = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            (values("x-a"), values("x-b"), values("x-c")),
            (vec![value("1"), value("2")], vec![value("1"), value("2")], vec![])
        );
        assert!(edits.overrides(&name("x-b")) && !edits.overrides(&name("x-a")));
    }
}
