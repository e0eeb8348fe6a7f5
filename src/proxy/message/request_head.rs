//! The head of a request: authority, path and names, validated before any other step relies on them.
//!
//! Guarantees:
//!
//! - The authority is single and plain.
//! - The path is absolute and in canonical form. The validated text is the text that is authorised and forwarded.
//! - Over HTTP/1.1 [`super::grammar`] has scanned every byte of the head before. Over HTTP/2 the same functions have
//!   checked the head that h2 decoded.
//! - An extended CONNECT is represented as the GET that it stands for.
//!
//! Leaves to others: framing (Content-Length, Transfer-Encoding), which the scanner or h2 checks and `upstream`
//! writes afresh.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use crate::model::Name;
use crate::policy::{QueryPairs, RouteRequest};

use super::grammar::malformed::MalformedRequest;
use super::grammar::{HeadLimits, check_head, check_names, is_plain_host};
use super::header_rules::connection_names_reserved;

/// The longest path and query, in bytes. nginx has the same limit.
const TARGET_MAX: usize = 8 * 1024;

/// A validated head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method, unchanged.
    pub method: &'a Method,
    /// The host without its port.
    pub host: &'a str,
    /// The path, unchanged.
    pub path: &'a str,
    authority: HeadAuthority<'a>,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

/// The place of the authority in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadAuthority<'a> {
    /// The request target.
    Target(&'a str),
    /// The field `Host`.
    Host(&'a HeaderValue),
}

impl<'a> RequestHead<'a> {
    /// Validates the head of a request.
    ///
    /// # Errors
    /// The fault, if the head is malformed or if HTTP implementations could read it differently.
    pub fn parse<B>(request: &'a Request<B>) -> Result<Self, MalformedRequest> {
        let method = request.method();
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            return Err(MalformedRequest::not_implemented("CONNECT and TRACE are not supported"));
        }
        let path = request.uri().path();
        check_path(path)?;
        if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > TARGET_MAX) {
            return Err(MalformedRequest::uri_too_long("the request target is longer than 8192 bytes"));
        }
        check_names(request.headers())?;
        let authority = head_authority(request)?;
        let host = host_without_port(authority.text()?)?;
        Ok(Self { method, host, path, authority, query: request.uri().query(), headers: request.headers() })
    }

    /// Validates the head of a request that is to be forwarded. The grammar of HTTP/2 is checked here; over HTTP/1.1
    /// the scanner checked it before hyper parsed it.
    ///
    /// # Errors
    /// As [`RequestHead::parse`].
    pub(crate) fn parse_received<B>(request: &'a Request<B>, limits: HeadLimits) -> Result<Self, MalformedRequest> {
        if request.version() == Version::HTTP_2 {
            check_head(request, limits)?;
        }
        let head = Self::parse(request)?;
        match connection_names_reserved(request.headers()) {
            true => Err(MalformedRequest::bad_request("Connection names a field that is reserved for the gateway")),
            false => Ok(head),
        }
    }

    /// The value of `Host` to forward.
    pub(crate) fn host_header(&self) -> HeaderValue {
        match self.authority {
            HeadAuthority::Target(text) => HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("")),
            HeadAuthority::Host(value) => value.clone(),
        }
    }

    /// The parts of the request that decide its route, on the listener that received it.
    pub(crate) fn route_request(self, listener: &'a Name) -> RouteRequest<'a> {
        let Self { method, host, path, query, headers, .. } = self;
        RouteRequest { listener, host, method, path, query: QueryPairs::new(query), headers }
    }
}

impl<'a> HeadAuthority<'a> {
    fn text(self) -> Result<&'a str, MalformedRequest> {
        match self {
            Self::Target(text) => Ok(text),
            Self::Host(value) => header_text(value),
        }
    }
}

fn head_authority<B>(request: &Request<B>) -> Result<HeadAuthority<'_>, MalformedRequest> {
    let target = request.uri().authority();
    let mut hosts = request.headers().get_all(HOST).iter();
    match (target, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err(MalformedRequest::bad_request("more than one Host")),
        (None, None, None) => Err(MalformedRequest::bad_request("no Host")),
        (Some(target), None, None) => Ok(HeadAuthority::Target(target.as_str())),
        (None, Some(host), None) => Ok(HeadAuthority::Host(host)),
        (Some(target), Some(host), None) if header_text(host)?.eq_ignore_ascii_case(target.as_str()) => {
            Ok(HeadAuthority::Target(target.as_str()))
        }
        (Some(_), Some(_), None) => {
            Err(MalformedRequest::bad_request("Host and the request target name different authorities"))
        }
    }
}

fn header_text(value: &HeaderValue) -> Result<&str, MalformedRequest> {
    value.to_str().map_err(|_| MalformedRequest::bad_request("Host is not plain text"))
}

/// RFC 3986 section 3.2: `host [":" port]`. User information is never accepted (RFC 9110 section 4.2.4).
fn host_without_port(authority: &str) -> Result<&str, MalformedRequest> {
    if !authority.is_empty() && is_plain_host(authority.as_bytes()) {
        return Ok(authority); // most authorities; no parser needed
    }
    if authority.is_empty() || authority.contains('@') || authority.parse::<Authority>().is_err() {
        return Err(MalformedRequest::bad_request("Host is not a host and an optional port"));
    }
    let host_ends = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_ends);
    match port.strip_prefix(':') {
        _ if host.is_empty() => Err(MalformedRequest::bad_request("Host is not a host and an optional port")),
        None if port.is_empty() => Ok(host),
        Some(port) if port.parse::<u16>().is_ok() => Ok(host),
        _ => Err(MalformedRequest::bad_request("the port in Host is not a number up to 65535")),
    }
}

/// Accepts only the canonical form of a path. Any path that a subsystem might read as another path than the
/// authorised one is refused.
fn check_path(path: &str) -> Result<(), MalformedRequest> {
    if !path.starts_with('/') {
        return Err(MalformedRequest::bad_request("the path does not start with '/'"));
    }
    if may_be_odd(path.as_bytes()) { check_segments(path) } else { Ok(()) }
}

/// Whether a path needs a closer look: it holds a byte other than plain ones, or a segment that is empty or begins
/// with a dot. Eight bytes at a time: byte by byte, it was 360 instructions of each command.
fn may_be_odd(path: &[u8]) -> bool {
    let (words, rest) = path.as_chunks::<8>();
    let mut last = [b'a'; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut after_slash = 0; // the mark of the first byte of a word whose predecessor ends with a slash
    words.iter().chain([&last]).any(|word| {
        let word = u64::from_le_bytes(*word);
        let slashes = mark_bytes(word, b'/');
        let segments = (slashes << 8 | after_slash) & (slashes | mark_bytes(word, b'.'));
        after_slash = slashes >> 56;
        let specials = [b'\\', b'%', b';', 0x7f].map(|byte| mark_bytes(word, byte));
        let blanks = mark_below(word, b'!') | (word & (ONES * 0x80));
        (specials.into_iter().fold(blanks, |marks, special| marks | special) | segments) != 0
    })
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte that is smaller; maybe also of a byte after such a one.
fn mark_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & (ONES * 0x80)
}

/// The highest bit of each byte that is this one; maybe also of the byte after it.
fn mark_bytes(word: u64, byte: u8) -> u64 {
    mark_below(word ^ (ONES * u64::from(byte)), 1)
}

fn check_segments(path: &str) -> Result<(), MalformedRequest> {
    if path.contains("//") {
        return Err(MalformedRequest::bad_request("the path contains '//'"));
    }
    if path.bytes().any(|byte| matches!(byte, b'\\' | b';' | 0..=32 | 127..)) {
        return Err(MalformedRequest::bad_request(
            "the path contains a backslash, a semicolon, a space or a control character",
        ));
    }
    if path.contains('%') {
        check_escapes(path)?;
    }
    match path.split('/').any(|segment| matches!(segment, "." | "..")) {
        true => Err(MalformedRequest::bad_request("the path contains a dot segment")),
        false => Ok(()),
    }
}

fn check_escapes(path: &str) -> Result<(), MalformedRequest> {
    for (position, _) in path.match_indices('%') {
        let escape =
            path.get(position + 1..position + 3).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = escape
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .ok_or(MalformedRequest::bad_request("the path contains an invalid percent-encoding"))?;
        if matches!(byte, b'/' | b'\\' | b'%' | b';' | 0..=31 | 127) || is_unreserved(byte) {
            return Err(MalformedRequest::bad_request(
                "the path contains a percent-encoded separator, percent sign, control or unreserved character",
            ));
        }
    }
    Ok(())
}

/// RFC 3986 section 2.3: the escaped form of these bytes is another spelling of the same path.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, hosts: &[&str]) -> Result<(String, String), MalformedRequest> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let request = request.body(()).map_err(|_| MalformedRequest::bad_request("not a request"))?;
        RequestHead::parse(&request).map(|head| (head.host.to_owned(), head.path.to_owned()))
    }

    #[test]
    fn ordinary_heads_are_accepted() {
        for (uri, host, expected_host, path) in [
            ("/a/b?x=//..", "city.example", "city.example", "/a/b"),
            ("/a", "city.example:8443", "city.example", "/a"),
            ("/a", "[::1]:8443", "[::1]", "/a"),
            ("/a%20b/%E4%BA%A4", "City.Example", "City.Example", "/a%20b/%E4%BA%A4"),
            ("/a.b/.well-known/x..y", "h", "h", "/a.b/.well-known/x..y"),
            ("https://h/a", "h", "h", "/a"),
        ] {
            assert_eq!(read(uri, &[host]), Ok((expected_host.to_owned(), path.to_owned())), "{uri}");
        }
    }

    #[test]
    fn invalid_paths_are_refused() {
        for path in [
            "//a",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/..",
            "/a/..",
            "/a/..;x/b",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a%2fb",
            "/a%5cb",
            "/a%00b",
            "/a%0ab",
            "/a%",
            "/a%zz",
            "/a%252fb",
            "/a%3b/b",
            "/a;x=1/b",
            "/%61dmin",
            "/a%2Db",
            "/a\\b",
        ] {
            assert!(read(path, &["h"]).is_err(), "{path}");
        }
    }

    #[test]
    fn full_check_is_triggered_by_every_special_byte() {
        for at in 1..20 {
            for (first, second) in
                (0..=u8::MAX).flat_map(|first| [b'a', b'/', b'.', b']', 0].map(|second| (first, second)))
            {
                let mut path = b"/abcdefghijklmnopqrstuvw".to_vec();
                path[at..at + 2].copy_from_slice(&[first, second]);
                let has_special = path.iter().any(|byte| matches!(byte, b'\\' | b'%' | b';' | 0..=32 | 127..));
                let has_pair = path.windows(2).any(|pair| matches!(pair, [b'/', b'/' | b'.']));
                assert_eq!(may_be_odd(&path), has_special || has_pair, "{}", path.escape_ascii());
            }
        }
    }

    #[test]
    fn invalid_hosts_are_refused() {
        for hosts in [&[][..], &["a", "a"], &[""], &["user@h"], &["h:99999"], &["h:"], &["h/x"], &[":80"], &["a b"]] {
            assert!(read("/", hosts).is_err(), "{hosts:?}");
        }
        assert!(read("https://a/", &["b"]).is_err());
    }

    #[test]
    fn invalid_names_and_methods_are_refused() {
        let request = Request::builder().uri("/").header(HOST, "h").header("x_tallygate_department", "me").body(());
        assert!(RequestHead::parse(&request.expect("a request")).is_err());
        for method in [Method::CONNECT, Method::TRACE] {
            let request = Request::builder().method(method).uri("/").header(HOST, "h").body(()).expect("a request");
            assert!(RequestHead::parse(&request).is_err());
        }
    }
}
