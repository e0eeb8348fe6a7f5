//! The grammar of HTTP/2 heads and trailers: the rules of HTTP/1.1, applied to the output of h2.
//!
//! Guarantees: pure. A head or trailer section that the scanner refuses over HTTP/1.1 is refused here by the same
//! functions.
//!
//! The differences are those of RFC 9113:
//!
//! - A value with white space at its start or end is malformed (section 8.2.1). HTTP/1.1 has optional white space
//!   there.
//! - The size of a head is the size of its fields before compression (section 6.5.2).
//!
//! Leaves to others:
//!
//! - h2 resets streams with missing or repeated pseudo-fields, or with connection fields of HTTP/1.1.
//! - `message::request_head` checks names, authority and path.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use super::h1_scanner::{HEAD_TOO_LARGE, HeadLimits, TOO_MANY_FIELDS, TRAILER_TOO_LARGE};
use super::head_framing::{HeadFraming, NEVER_IN_TRAILERS, check_trailer_name};
use super::malformed::MalformedRequest;
use super::request_line::{RequestLine, check_method, check_target, is_http_scheme};
use super::text::{is_name, trim_blanks};

/// The bytes that each field adds to the size of a head, beside its name and its value (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Checks the head of a request. An extended CONNECT is checked as the GET that it stands for.
///
/// # Errors
/// The first fault that is found.
pub(crate) fn check_head<B>(request: &Request<B>, limits: HeadLimits) -> Result<(), MalformedRequest> {
    let method = request.method();
    check_method(method.as_str().as_bytes())?;
    if *method == Method::CONNECT {
        return Err(MalformedRequest::not_implemented("CONNECT is not supported"));
    }
    check_uri(request)?;
    if request.headers().len() > limits.fields {
        return Err(TOO_MANY_FIELDS);
    }
    let mut framing = HeadFraming::new(RequestLine { is_http_11: true, is_trace: *method == Method::TRACE });
    let mut size = size_of_pseudo_fields(request);
    for (name, value) in request.headers() {
        let name = name.as_str();
        size += header_size(name, value.len());
        check_value(value)?;
        framing.read_header(name.as_bytes(), value.as_bytes())?;
    }
    if size > limits.bytes { Err(HEAD_TOO_LARGE) } else { framing.body_length().map(drop) }
}

/// Checks the trailers of a request, of either protocol.
///
/// # Errors
/// The first fault that is found.
pub(crate) fn check_trailers(trailers: &HeaderMap, limits: HeadLimits) -> Result<(), MalformedRequest> {
    if trailers.len() > limits.fields {
        return Err(TOO_MANY_FIELDS);
    }
    check_names(trailers)?;
    let mut size = 0;
    for (name, value) in trailers {
        size += header_size(name.as_str(), value.len());
        check_value(value)?;
        check_trailer_name(name.as_str().as_bytes())?;
    }
    if size > limits.bytes { Err(TRAILER_TOO_LARGE) } else { Ok(()) }
}

/// Checks that field names consist of letters, digits and hyphens. Some implementations map other bytes to these, above
/// all `_` to `-`.
///
/// # Errors
/// A name with another byte.
pub(crate) fn check_names(fields: &HeaderMap) -> Result<(), MalformedRequest> {
    match fields.keys().all(|name| is_name(name.as_str().as_bytes())) {
        true => Ok(()),
        false => Err(MalformedRequest::bad_request(
            "a field name contains a character other than letters, digits and hyphens",
        )),
    }
}

/// Whether a trailer of a response may have this name (RFC 9110 section 6.5.1).
pub(crate) fn is_trailer_allowed(name: &HeaderName) -> bool {
    !NEVER_IN_TRAILERS.contains(&name.as_str())
}

/// Checks `:scheme` and `:path`. h2 drops a scheme without `:authority`; nothing reads it.
fn check_uri<B>(request: &Request<B>) -> Result<(), MalformedRequest> {
    let uri = request.uri();
    if uri.scheme_str().is_some_and(|scheme| !is_http_scheme(scheme)) {
        return Err(MalformedRequest::bad_request("the scheme is neither http nor https"));
    }
    uri.path_and_query().map_or(Ok(()), |target| check_target(target.as_str().as_bytes()))
}

fn check_value(value: &HeaderValue) -> Result<(), MalformedRequest> {
    match trim_blanks(value.as_bytes()).len() == value.len() {
        true => Ok(()),
        false => Err(MalformedRequest::bad_request("a field value begins or ends with whitespace")),
    }
}

fn size_of_pseudo_fields<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| header_size(":authority", authority.as_str().len()));
    let scheme = uri.scheme_str().map_or(0, |scheme| header_size(":scheme", scheme.len()));
    let path = uri.path_and_query().map_or(0, |target| header_size(":path", target.as_str().len()));
    header_size(":method", request.method().as_str().len()) + authority + scheme + path
}

fn header_size(name: &str, value: usize) -> usize {
    name.len() + value + FIELD_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 8 };

    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let fields = fields.iter();
        let request = Request::builder().method(method).uri(uri);
        fields.fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
    }

    fn status(request: &Request<()>) -> Option<u16> {
        check_head(request, LIMITS).err().map(|fault| fault.status.as_u16())
    }

    #[test]
    fn http2_head_has_the_rules_of_an_http1_head() {
        let long = "A".repeat(25);
        for (method, uri, fields, expected) in [
            ("GET", "https://h/a?b=c|d[]", &[("accept", "*/*"), ("content-length", "0")][..], None),
            ("POST", "https://h/", &[("content-length", "5"), ("expect", "100-Continue")], None),
            ("M-SEARCH", "http://h/", &[("te", "trailers")], None),
            ("get", "https://h/", &[], Some(400)),
            (&long, "https://h/", &[], Some(400)),
            ("CONNECT", "h:443", &[], Some(501)),
            ("TRACE", "https://h/", &[], Some(501)),
            ("TRACE", "https://h/", &[("content-length", "1")], Some(400)),
            ("GET", "ftp://h/", &[], Some(400)),
            ("GET", "https://h/?a={b}", &[], Some(400)),
            ("GET", "https://h/?a=\u{e9}", &[], Some(400)),
            ("GET", "*", &[], Some(400)),
            ("GET", "https://h/", &[("expect", "200-ok")], Some(417)),
            ("GET", "https://h/", &[("expect", "100-continue"), ("expect", "100-continue")], Some(417)),
            ("POST", "https://h/", &[("content-length", "1"), ("content-length", "1")], Some(400)),
            ("POST", "https://h/", &[("content-length", "01")], Some(400)),
            ("GET", "https://h/", &[("x", " a")], Some(400)),
            ("GET", "https://h/", &[("x", "a\t")], Some(400)),
        ] {
            assert_eq!(status(&request(method, uri, fields)), expected, "{method} {uri} {fields:?}");
        }
    }

    #[test]
    fn names_are_letters_digits_and_hyphens() {
        for (name, is_one) in [("x-Sum-2", true), ("x_y", false), ("x.y", false), ("x!y", false)] {
            assert_eq!(check_names(request("GET", "/", &[(name, "1")]).headers()).is_ok(), is_one, "{name}");
        }
    }

    #[test]
    fn size_of_a_head_is_the_sum_of_its_fields() {
        let fixed = header_size(":method", 3)
            + header_size(":scheme", 5)
            + header_size(":authority", 1)
            + header_size(":path", 1);
        let filled = |length: usize| "b".repeat(length - fixed - header_size("x", 0));
        for (length, expected) in [(LIMITS.bytes, None), (LIMITS.bytes + 1, Some(431))] {
            assert_eq!(status(&request("GET", "https://h/", &[("x", &filled(length))])), expected, "{length}");
        }
        assert_eq!(status(&request("GET", "https://h/", &[("x", ""); 8])), None);
        assert_eq!(status(&request("GET", "https://h/", &[("x", ""); 9])), Some(431));
        let target = format!("https://h/{}", "a".repeat(8192));
        assert_eq!(status(&request("GET", &target, &[])), Some(414));
    }

    #[test]
    fn http2_trailer_has_the_rules_of_an_http1_trailer() {
        let status = |name: &str, value: &str| {
            let trailers = request("GET", "/", &[(name, value)]).headers().clone();
            check_trailers(&trailers, LIMITS).err().map(|fault| fault.status.as_u16())
        };
        let large = "a".repeat(1024);
        for (name, value, expected) in [
            ("x-checksum", "42", None),
            ("grpc-status", "0", None),
            ("x_tallygate_department", "fire", Some(400)),
            ("x.y", "1", Some(400)),
            ("x!y", "1", Some(400)),
            ("x-sum", "1 ", Some(400)),
            ("x-large", &large, Some(431)),
        ] {
            assert_eq!(status(name, value), expected, "{name}");
        }
        for name in NEVER_IN_TRAILERS {
            assert_eq!(status(name, "1"), Some(400), "{name}");
        }
    }
}
