//! Header rules: which fields cross the gateway. Hop-by-hop fields and a caller's claims of identity do not.
//!
//! Guarantees: pure; a head without such fields is not modified.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, TE};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use crate::policy::is_hop_by_hop;
use crate::policy::is_reserved_header;

use super::grammar::is_trailer_allowed;
use super::header_list::list_items;

/// The fields about the client certificate of a connection, under the names that ingress-nginx gives them.
pub(crate) const CLIENT_VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
pub(crate) const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
pub(crate) const CLIENT_ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
pub(crate) const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

/// Whether a field makes a statement about the client certificate of the connection. Servers that pass fields on as
/// variables do not distinguish `-` and `_`.
pub(crate) fn is_client_certificate_field(name: &HeaderName) -> bool {
    let text = name.as_str();
    let is = |field: HeaderName| {
        let field = field.as_str();
        let alike = |(one, other): (u8, u8)| one == other || (one == b'_' && other == b'-');
        text.len() == field.len() && text.bytes().zip(field.bytes()).all(alike)
    };
    text.starts_with("ssl") && [CLIENT_VERIFY, CLIENT_SUBJECT, CLIENT_ISSUER, CLIENT_CERTIFICATE].into_iter().any(is)
}

/// Passes the fields of a caller's request that may be forwarded to `put`. The code that writes the head adds `Host`
/// and the framing.
///
/// Returns whether the caller used a name that only the gateway may write. Otherwise the writer of the head needs no
/// lookup of such a name (100 instructions each).
pub(crate) fn sanitize_request(headers: &HeaderMap, mut put: impl FnMut(&HeaderName, &[u8])) -> bool {
    let nominated: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(connection_options).collect();
    let stays =
        |name: &HeaderName| is_hop_by_hop(name) || *name == CONTENT_LENGTH || *name == HOST || nominated.contains(name);
    let (mut has_cookie, mut has_te, mut has_reserved) = (false, false, false);
    for (name, value) in headers {
        let is_reserved = is_reserved_header(name);
        has_reserved |= is_reserved;
        has_cookie |= *name == COOKIE;
        has_te |= *name == TE;
        if *name != COOKIE && !is_reserved && !stays(name) {
            put(name, value.as_bytes());
        }
    }
    if has_cookie && let Some(cookie) = joined_cookie(headers).filter(|_| !stays(&COOKIE)) {
        put(&COOKIE, &cookie);
    }
    if has_te && headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        put(&TE, b"trailers");
    }
    has_reserved
}

/// Removes the hop-by-hop fields from the head of a subsystem's response.
pub(crate) fn sanitize_response(headers: &mut HeaderMap) {
    remove_headers(headers, is_hop_by_hop);
}

/// Marks the values of `Date` as sensitive. `Date` changes every second: h2 would keep each value in the compression
/// table of the caller's connection, and walk through all of them for each response (57 instructions per value).
pub(crate) fn keep_date_unindexed(name: &HeaderName, value: &mut HeaderValue) {
    value.set_sensitive(*name == DATE);
}

/// Removes the fields that trailers of a response may not hold: fields for framing, routing or authentication (RFC 9110
/// section 6.5.1). The same fields are forbidden in a caller's trailers.
pub(crate) fn sanitize_response_trailers(trailers: &mut HeaderMap) {
    remove_headers(trailers, |name| is_hop_by_hop(name) || !is_trailer_allowed(name));
}

/// Removes the fields that a caller's trailers may not hold. hyper rejects framing fields there already. A Cookie and
/// the fields about a client certificate are removed too.
pub(crate) fn sanitize_request_trailers(trailers: &mut HeaderMap) {
    remove_headers(trailers, |name| {
        is_hop_by_hop(name) || is_reserved_header(name) || is_client_certificate_field(name) || *name == COOKIE
    });
}

/// The whole Cookie. HTTP/2 may split it into several fields; HTTP/1.1 has only the joined form (RFC 9113 section
/// 8.2.3).
fn joined_cookie(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let first = crumbs.next()?;
    let rest: Vec<&[u8]> = crumbs.collect();
    Some(match rest.is_empty() {
        true => Cow::Borrowed(first),
        false => Cow::Owned([&[first], &rest[..]].concat().join(b"; ".as_slice())),
    })
}

/// Removes the fields that `is_removed` selects, and those that `Connection` names. Most heads hold neither and are
/// only read.
fn remove_headers(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let mut removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name)).cloned().collect();
    if removed.contains(&CONNECTION) {
        removed.extend(headers.get_all(CONNECTION).iter().flat_map(connection_options));
    }
    for name in removed {
        headers.remove(name);
    }
}

/// Whether `Connection` names a field that only the gateway may write. No legitimate caller does that.
pub(crate) fn connection_names_reserved(headers: &HeaderMap) -> bool {
    let mut names = headers.get_all(CONNECTION).iter().flat_map(list_items);
    names.any(|name| HeaderName::from_bytes(name).is_ok_and(|name| is_reserved_header(&name)))
}

/// Removes the fields that a value of `Connection` names.
pub(crate) fn remove_connection_options(headers: &mut HeaderMap, connection: &HeaderValue) {
    for name in connection_options(connection) {
        headers.remove(name);
    }
}

/// The fields that a value of `Connection` names, without `Host`, which must not be removed that way.
fn connection_options(connection: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    list_items(connection).filter_map(|name| HeaderName::from_bytes(name).ok()).filter(|name| *name != HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_are_not_forwarded() {
        let mut given = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "h"),
            ("accept", "*/*"),
        ]);
        sanitize_response(&mut given);
        let mut left: Vec<_> = given.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn reserved_name_in_connection_is_found() {
        for (list, found) in [
            ("X-Tallygate-Department", true),
            ("close, x-forwarded-for", true),
            ("close,,\tTraceparent ,x", true),
            ("close, keep-alive, x-plain", false),
            ("", false),
        ] {
            assert_eq!(connection_names_reserved(&headers(&[("connection", list)])), found, "{list}");
        }
        assert!(connection_names_reserved(&headers(&[("connection", "close"), ("connection", "forwarded")])));
    }

    #[test]
    fn forwarded_head_has_the_callers_fields_and_one_cookie() {
        let given = headers(&[
            ("host", "h"),
            ("cookie", "a=1"),
            ("accept", "*/*"),
            ("accept", "text/*"),
            ("connection", "x-secret, Host"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("x-forwarded-for", "10.0.0.1"),
            ("te", "trailers, deflate"),
            ("te", "Trailers"),
            ("cookie", "b=2"),
        ]);
        let mut put = Vec::new();
        let has_reserved =
            sanitize_request(&given, |name, value| put.push(format!("{name}={}", String::from_utf8_lossy(value))));
        assert!(has_reserved, "x-forwarded-for");
        assert_eq!(put, ["accept=*/*", "accept=text/*", "cookie=a=1; b=2", "te=trailers"]);
    }

    #[test]
    fn cookie_named_in_connection_is_not_forwarded() {
        let given = headers(&[("cookie", "a=1"), ("connection", "cookie")]);
        assert!(!sanitize_request(&given, |name, _| panic!("{name}")));
    }

    #[test]
    fn framing_and_routing_fields_are_removed_from_response_trailers() {
        let mut given = headers(&[
            ("grpc-status", "0"),
            ("content-length", "9"),
            ("transfer-encoding", "chunked"),
            ("content-type", "text/html"),
            ("keep-alive", "timeout=5"),
            ("host", "h"),
            ("x-checksum", "1"),
        ]);
        sanitize_response_trailers(&mut given);
        let mut left: Vec<_> = given.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn fields_about_client_certificates_are_found_in_every_spelling() {
        for (name, is_found) in [
            ("ssl-client-verify", true),
            ("ssl_client_verify", true),
            ("ssl-client_subject-dn", true),
            ("ssl-client-issuer-dn", true),
            ("ssl-client-cert", true),
            ("ssl-client-certificate", false),
            ("ssl-client", false),
            ("x-ssl-client-verify", false),
        ] {
            assert_eq!(is_client_certificate_field(&HeaderName::from_static(name)), is_found, "{name}");
        }
    }

    #[test]
    fn reserved_fields_are_removed_from_request_trailers() {
        let mut given = headers(&[
            ("x-tallygate-department", "mayor"),
            ("ssl-client-verify", "SUCCESS"),
            ("x-checksum", "1"),
            ("cookie", "a=1"),
        ]);
        sanitize_request_trailers(&mut given);
        assert_eq!(given.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
    }
}
