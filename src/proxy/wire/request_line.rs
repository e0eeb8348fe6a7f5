//! The first line of a head: method, target, version (RFC 9112 section 3).

use http::Uri;

use crate::proxy::fault::Fault;

use super::text::{is_method, is_target};

/// The longest method; the longest registered one has 17 bytes.
const METHOD_MAX: usize = 24;
/// The longest target, in bytes; nginx has the same.
const TARGET_MAX: usize = 8 * 1024;
/// A line without an end is not waited for when it is longer.
const LINE_MAX: usize = METHOD_MAX + TARGET_MAX + " HTTP/1.1 \r\n".len();

const ODD_METHOD: Fault = Fault::bad("the method is not a word of at most 24 capital letters and hyphens");
const TARGET_TOO_LONG: Fault = Fault::long_target("the request target is longer than 8192 bytes");

/// What the first line says that the framing depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestLine {
    /// HTTP/1.1, not 1.0.
    pub(super) is_11: bool,
    pub(super) is_trace: bool,
}

/// Reads a whole line.
pub(super) fn read(line: &[u8]) -> Result<RequestLine, Fault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::bad("the first line is not a method, a target and a version with one blank between them"));
    };
    check_method(method)?;
    let is_11 = is_11(version)?;
    if method == b"CONNECT" {
        return Err(Fault::not_spoken("CONNECT is not served here"));
    }
    check_target(target)?;
    Ok(RequestLine { is_11, is_trace: method == b"TRACE" })
}

/// Whether a line is worth waiting for whose end has not come.
pub(super) fn may_go_on(begun: &[u8]) -> Result<(), Fault> {
    match begun.get(..=METHOD_MAX) {
        Some(first) if !first.contains(&b' ') => Err(ODD_METHOD),
        _ if begun.len() > LINE_MAX => Err(TARGET_TOO_LONG),
        _ => Ok(()),
    }
}

/// Whether a method is one: the rule of both protocols.
pub(super) fn check_method(method: &[u8]) -> Result<(), Fault> {
    match (1..=METHOD_MAX).contains(&method.len()) && is_method(method) {
        true => Ok(()),
        false => Err(ODD_METHOD),
    }
}

fn is_11(version: &[u8]) -> Result<bool, Fault> {
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Fault::version("the version is not HTTP/1.1 or HTTP/1.0; HTTP/2 is agreed on in the TLS handshake"))
        }
        _ => Err(Fault::bad("the first line does not end with a version of HTTP")),
    }
}

/// Whether a scheme is one of the web.
pub(super) fn is_of_the_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

/// Origin form, or absolute form with a scheme of the web (RFC 9112 section 3.2).
pub(super) fn check_target(target: &[u8]) -> Result<(), Fault> {
    if target.len() > TARGET_MAX {
        return Err(TARGET_TOO_LONG);
    }
    if !is_target(target) {
        return Err(Fault::bad("the request target holds a character that must be escaped"));
    }
    match target {
        [b'/', ..] => Ok(()),
        b"*" => Err(Fault::bad("the asterisk form is not served here: every command has a path")),
        _ if is_absolute(target) => Ok(()),
        _ => Err(Fault::bad("the request target is neither a path nor an http or https URL")),
    }
}

/// Rare enough to be read twice.
fn is_absolute(target: &[u8]) -> bool {
    Uri::try_from(target).is_ok_and(|uri| {
        uri.scheme_str().is_some_and(is_of_the_web)
            && uri.authority().is_some_and(|authority| !authority.as_str().is_empty())
    })
}
