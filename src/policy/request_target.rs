//! The target of a command that differs from the requested one: the rewrite of what is forwarded, and the redirect.
//!
//! Guarantees:
//! - A target consists of the configuration's own text and of bytes of the validated request, which are not decoded.
//! - The query is kept.
//! - Bytes of the path never get into the host of a redirect.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::{HeaderValue, StatusCode};

use super::path_template::PathFilling;
use super::request_conditions::{CommandMatch, PathMatch};

/// The rewrite of a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRewrite {
    /// The forwarded host, if it differs from the requested one: `Host`, or `:authority`.
    pub host: Option<HeaderValue>,
    /// The rewrite of the path, if the forwarded path differs.
    pub path: Option<PathRewrite>,
}

/// The rewrite of a path. The query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// A prefix that replaces the subsystem's prefix: empty, or starting with `/` and without a trailing slash.
    Prefix(String),
    /// A path that replaces the whole path.
    Path(PathFilling),
    /// A prefix that replaces the matched one (`match.pathPrefix`).
    Matched(PrefixReplacement),
}

/// The replacement of a matched prefix (Gateway API, `ReplacePrefixMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixReplacement {
    /// The prefixes of the matches, the longest first: empty, or starting with `/` and without a trailing slash.
    prefixes: Vec<String>,
    /// The new prefix: empty, or starting with `/` and without a trailing slash.
    replacement: String,
}

/// The target of a redirect. The query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTarget {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The location that callers are redirected to.
    pub location: RedirectLocation,
}

/// The location of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectLocation {
    /// A location as a whole.
    Whole {
        /// Scheme and authority; empty for a path on the host that was called.
        base: String,
        /// The path.
        path: PathFilling,
    },
    /// The URL of the request, of which some parts are replaced.
    Parts(Box<ReplacedParts>),
}

/// The parts of a URL that a redirect replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplacedParts {
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// The host, without a port.
    pub host: Option<String>,
    /// The port. If only the scheme is replaced, it is the well-known port of that scheme.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathRewrite>,
}

/// The URL of a request, as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestUrl<'a> {
    /// The scheme of the connection.
    pub scheme: &'a str,
    /// The requested host, with its port if the caller named one.
    pub authority: &'a str,
    /// The port at which callers reach the listener (`publicPort`), if it is known. It takes the place of the port that
    /// the caller named.
    pub public_port: Option<u16>,
    /// The whole path and the query.
    pub target: &'a str,
    /// Path and query below the subsystem's prefix; the first '/' may be missing.
    pub below: &'a str,
}

impl PathRewrite {
    /// The rewritten path and query, from the path and query below the subsystem's prefix.
    pub(crate) fn rewritten_path(&self, below: &str) -> String {
        let (path, query) = split_query(below);
        let rewritten = match self {
            Self::Prefix(prefix) => [prefix, path, query].concat(),
            Self::Path(filling) => [&filling.fill(path), query].concat(),
            Self::Matched(replacement) => [&replacement.replaced(path), query].concat(),
        };
        if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") }
    }
}

impl PrefixReplacement {
    /// The replacement of the prefixes of these matches.
    ///
    /// # Errors
    /// If a match has no prefix.
    pub fn new(matches: &[CommandMatch], replacement: String) -> Result<Self, String> {
        let prefix = |matched: &CommandMatch| match &matched.path {
            PathMatch::Prefix(prefix) => Ok(prefix.clone()),
            _ => Err("each match of the command needs a pathPrefix, which it replaces".to_owned()),
        };
        let mut prefixes = matches.iter().map(prefix).collect::<Result<Vec<_>, _>>()?;
        prefixes.sort_by_key(|prefix| Reverse(prefix.len()));
        Ok(Self { prefixes, replacement })
    }

    /// The path with the longest of the prefixes replaced. `path` may lack its first '/'.
    fn replaced(&self, path: &str) -> String {
        let rest = self.prefixes.iter().find_map(|prefix| {
            path.strip_prefix(prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        [&self.replacement, rest.unwrap_or(path)].concat()
    }
}

impl RedirectTarget {
    /// The value of `Location` for a request.
    pub fn location(&self, request: RequestUrl<'_>) -> Option<HeaderValue> {
        let value = |request| HeaderValue::from_str(&self.location.text(request)).ok();
        // A query may hold bytes that a field value cannot: the location is then built without the query.
        value(request).or_else(|| value(request.without_query()))
    }
}

impl RedirectLocation {
    fn text(&self, request: RequestUrl<'_>) -> String {
        match self {
            Self::Whole { base, path } => {
                let (below, query) = split_query(request.below);
                [base, &path.fill(below), query].concat()
            }
            Self::Parts(parts) => parts.replaced_url(request),
        }
    }
}

impl ReplacedParts {
    /// The URL of a request with these parts in place of its own.
    fn replaced_url(&self, request: RequestUrl<'_>) -> String {
        let (requested_host, requested_port) = split_port(request.authority);
        let scheme = self.scheme.unwrap_or(request.scheme);
        let host = self.host.as_deref().unwrap_or(requested_host);
        // The requested port belongs to the requested scheme (Gateway API, HTTPRequestRedirectFilter).
        let port = self.port.or(request.public_port.or(requested_port).filter(|_| self.scheme.is_none()));
        let port = port.filter(|port| *port != well_known_port(scheme)).map(|port| format!(":{port}"));
        let path = self
            .path
            .as_ref()
            .map_or(Cow::Borrowed(request.target), |path| Cow::Owned(path.rewritten_path(request.below)));
        [scheme, "://", host, &port.unwrap_or_default(), &path].concat()
    }
}

impl RequestUrl<'_> {
    fn without_query(self) -> Self {
        Self { target: split_query(self.target).0, below: split_query(self.below).0, ..self }
    }
}

/// Splits a path and query. The query begins with its `?`, and is empty if there is none.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// Splits a validated authority into its host and its port.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    let split = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    split.map_or((authority, None), |(host, port)| (host, Some(port)))
}

/// The port of URLs of a scheme that name none.
fn well_known_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path_template::PathTemplate;

    fn path(text: &str) -> PathTemplate {
        PathTemplate::parse(text).expect("a template")
    }

    /// The location of a redirect for `GET {scheme}://{authority}/cameras{below}`.
    fn location(to: RedirectLocation, (scheme, authority): (&str, &str), below: &str) -> String {
        let target = format!("/cameras{below}");
        let request = RequestUrl { scheme, authority, target: &target, public_port: None, below };
        let location = RedirectTarget { status: StatusCode::FOUND, location: to }.location(request).expect("a value");
        location.to_str().expect("text").to_owned()
    }

    #[test]
    fn rewritten_path_is_made_of_the_authorised_bytes() {
        for (matched, to, below, expected) in [
            ("/v1/{id}", "/v2/cameras/{id}", "/v1/7", "/v2/cameras/7"),
            ("/v1/{id}", "/v2/{id}/of/{id}", "/v1/%E4%BA%A4?x=/..", "/v2/%E4%BA%A4/of/%E4%BA%A4?x=/.."),
            ("/{a}/{b}", "/{b}/{a}", "/1/2?q", "/2/1?q"),
            ("/files/{*rest}", "/store/{*rest}", "/files/a/b/", "/store/a/b/"),
            ("/{*rest}", "/v2/{*rest}", "/a?b?c", "/v2/a?b?c"),
            ("/{*rest}", "/full", "/a/b?c", "/full?c"),
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
        let there = RedirectLocation::Whole { base: "https://there.example".to_owned(), path };
        let location = location(there, ("https", "here.example"), "/v1/a%20b?x=/../y");
        assert_eq!(location, "https://there.example/new/a%20b?x=/../y");
    }

    #[test]
    fn query_that_is_no_field_value_is_left_out() {
        for (path, expected) in [(None, "https://here.example/cameras/v1"), (Some("/a"), "https://here.example/a/v1")] {
            let path = path.map(|prefix| PathRewrite::Prefix(prefix.to_owned()));
            let parts = ReplacedParts { path, ..ReplacedParts::default() };
            let to = RedirectLocation::Parts(Box::new(parts));
            assert_eq!(location(to, ("https", "here.example"), "/v1?\u{e9}\r\nX: y"), expected);
        }
    }

    #[test]
    fn port_follows_the_scheme_unless_it_is_replaced() {
        for (scheme, port, request, expected) in [
            (None, None, ("http", "a"), "http://a/"),
            (None, None, ("http", "a:80"), "http://a/"),
            (None, None, ("http", "a:8080"), "http://a:8080/"),
            (None, None, ("https", "a:443"), "https://a/"),
            (None, None, ("https", "a:80"), "https://a:80/"),
            (None, None, ("https", "a:8443"), "https://a:8443/"),
            (None, None, ("https", "[::1]"), "https://[::1]/"),
            (None, None, ("https", "[::1]:8443"), "https://[::1]:8443/"),
            (None, Some(80), ("http", "a:8080"), "http://a/"),
            (None, Some(443), ("http", "a"), "http://a:443/"),
            (None, Some(443), ("https", "a:8443"), "https://a/"),
            (None, Some(8443), ("https", "a"), "https://a:8443/"),
            (Some("https"), None, ("http", "a:8080"), "https://a/"),
            (Some("https"), None, ("https", "a:8443"), "https://a/"),
            (Some("http"), None, ("https", "a:8443"), "http://a/"),
            (Some("https"), Some(443), ("http", "a"), "https://a/"),
            (Some("https"), Some(80), ("http", "a"), "https://a:80/"),
            (Some("http"), Some(80), ("https", "a:8443"), "http://a/"),
            (Some("http"), Some(8080), ("https", "a:8443"), "http://a:8080/"),
        ] {
            let parts = ReplacedParts { scheme, port, path: Some(prefix("/")), ..ReplacedParts::default() };
            let found = location(RedirectLocation::Parts(Box::new(parts)), request, "");
            assert_eq!(found, expected, "{scheme:?} {port:?} for {request:?}");
        }
    }

    fn prefix(text: &str) -> PathRewrite {
        PathRewrite::Prefix(text.trim_end_matches('/').to_owned())
    }

    #[test]
    fn parts_that_are_not_replaced_stay() {
        let full = |to| PathRewrite::Path(path(to).filled_by(&path("/v1/{id}")).expect("captured"));
        for (host, path, expected) in [
            (None, None, "https://here.example:8443/cameras/v1/7%20?x=/../y"),
            (Some("there.example"), None, "https://there.example:8443/cameras/v1/7%20?x=/../y"),
            (None, Some(full("/new/{id}")), "https://here.example:8443/new/7%20?x=/../y"),
            (Some("[::1]"), Some(full("/all")), "https://[::1]:8443/all?x=/../y"),
            (None, Some(prefix("/new")), "https://here.example:8443/new/v1/7%20?x=/../y"),
            (None, Some(prefix("/")), "https://here.example:8443/v1/7%20?x=/../y"),
        ] {
            let parts = ReplacedParts { host: host.map(str::to_owned), path, ..ReplacedParts::default() };
            let to = RedirectLocation::Parts(Box::new(parts));
            assert_eq!(location(to, ("https", "here.example:8443"), "/v1/7%20?x=/../y"), expected);
        }
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
    fn matched_prefix_is_replaced_by_whole_segments() {
        for (prefixes, replacement, below, expected) in [
            (&["/foo"][..], "/xyz", "/foo/bar", "/xyz/bar"),
            (&["/foo"], "/xyz", "/foo", "/xyz"),
            (&["/foo"], "/xyz", "/foo/", "/xyz/"),
            (&["/foo"], "", "/foo/bar?q=/foo", "/bar?q=/foo"),
            (&["/foo"], "", "/foo", "/"),
            (&[""], "/xyz", "/foo", "/xyz/foo"),
            (&["/a", "/a/b"], "/n", "/a/b/c", "/n/c"),
            (&["/a", "/a/b"], "/n", "/a/bc", "/n/bc"),
        ] {
            let matched = |prefix: &&str| CommandMatch {
                method: None,
                path: PathMatch::Prefix((*prefix).to_owned()),
                headers: Vec::new(),
                query: Vec::new(),
            };
            let matches: Vec<_> = prefixes.iter().map(matched).collect();
            let replacement = PrefixReplacement::new(&matches, replacement.to_owned()).expect("prefixes");
            assert_eq!(PathRewrite::Matched(replacement).rewritten_path(below), expected, "{prefixes:?} {below}");
        }
    }

    #[test]
    fn redirect_keeps_the_public_port_of_the_listener() {
        let parts = |scheme, port| ReplacedParts { scheme, port, host: Some("new.example".to_owned()), path: None };
        for (parts, public_port, expected) in [
            (parts(None, None), Some(8080), "http://new.example:8080/a"),
            (parts(None, None), Some(80), "http://new.example/a"),
            (parts(None, None), None, "http://new.example:1234/a"),
            (parts(None, Some(90)), Some(8080), "http://new.example:90/a"),
            (parts(Some("https"), None), Some(8080), "https://new.example/a"),
        ] {
            let (authority, target, below) = ("old.example:1234", "/a", "/a");
            let request = RequestUrl { scheme: "http", authority, public_port, target, below };
            assert_eq!(parts.replaced_url(request), expected);
        }
    }
}
