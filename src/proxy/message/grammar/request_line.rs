//! The request line: method, target, version (RFC 9112 section 3).

use http::Uri;

use super::malformed::MalformedRequest;
use super::text::{is_method, is_target};

/// The longest method, in bytes. The longest registered method has 17.
const METHOD_MAX: usize = 24;
/// The longest target, in bytes. nginx has the same limit.
const TARGET_MAX: usize = 8 * 1024;
/// The longest incomplete request line. A longer one is refused at once.
const LINE_MAX: usize = METHOD_MAX + TARGET_MAX + " HTTP/1.1 \r\n".len();

const INVALID_METHOD: MalformedRequest =
    MalformedRequest::bad_request("the method is not a token of at most 24 capital letters and hyphens");
const TARGET_TOO_LONG: MalformedRequest =
    MalformedRequest::uri_too_long("the request target is longer than 8192 bytes");

/// The facts in the request line that framing depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestLine {
    /// Whether the version is HTTP/1.1, not 1.0.
    pub(crate) is_http_11: bool,
    pub(crate) is_trace: bool,
}

/// Parses a complete request line.
pub(crate) fn parse_request_line(line: &[u8]) -> Result<RequestLine, MalformedRequest> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MalformedRequest::bad_request(
            "the request line is not a method, a target and a version separated by single spaces",
        ));
    };
    check_method(method)?;
    let is_11 = is_http_11(version)?;
    if method == b"CONNECT" {
        return Err(MalformedRequest::not_implemented("CONNECT is not supported"));
    }
    check_target(target)?;
    Ok(RequestLine { is_http_11: is_11, is_trace: method == b"TRACE" })
}

/// Checks whether an incomplete line can still become a valid request line.
pub(crate) fn check_partial_line(begun: &[u8]) -> Result<(), MalformedRequest> {
    match begun.get(..=METHOD_MAX) {
        Some(first) if !first.contains(&b' ') => Err(INVALID_METHOD),
        _ if begun.len() > LINE_MAX => Err(TARGET_TOO_LONG),
        _ => Ok(()),
    }
}

/// Checks a method: one rule for both protocols.
pub(crate) fn check_method(method: &[u8]) -> Result<(), MalformedRequest> {
    match (1..=METHOD_MAX).contains(&method.len()) && is_method(method) {
        true => Ok(()),
        false => Err(INVALID_METHOD),
    }
}

fn is_http_11(version: &[u8]) -> Result<bool, MalformedRequest> {
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(MalformedRequest::version_not_supported(
            "the version is not HTTP/1.1 or HTTP/1.0; HTTP/2 is negotiated in the TLS handshake",
        )),
        _ => Err(MalformedRequest::bad_request("the request line does not end with an HTTP version")),
    }
}

/// Whether a scheme is `http` or `https`.
pub(crate) fn is_http_scheme(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

/// Checks a target: origin form, or absolute form with the scheme `http` or `https` (RFC 9112 section 3.2).
pub(crate) fn check_target(target: &[u8]) -> Result<(), MalformedRequest> {
    if target.len() > TARGET_MAX {
        return Err(TARGET_TOO_LONG);
    }
    if !is_target(target) {
        return Err(MalformedRequest::bad_request(
            "the request target contains a character that must be percent-encoded",
        ));
    }
    match target {
        [b'/', ..] => Ok(()),
        b"*" => Err(MalformedRequest::bad_request("the asterisk form is not supported: every command has a path")),
        _ if is_absolute(target) => Ok(()),
        _ => Err(MalformedRequest::bad_request("the request target is neither a path nor an http or https URL")),
    }
}

/// Whether a target is in absolute form. The form is rare, so it may cost a second pass.
fn is_absolute(target: &[u8]) -> bool {
    Uri::try_from(target).is_ok_and(|uri| {
        uri.scheme_str().is_some_and(is_http_scheme)
            && uri.authority().is_some_and(|authority| !authority.as_str().is_empty())
    })
}
