//! Header field names with a meaning to the gateway itself: for its traffic, and for the fields that a configuration
//! may not change.
//!
//! Guarantees: the functions are pure, and each list exists only here.

use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

/// Whether a field is hop-by-hop: it belongs to one connection, never to the message (RFC 9110 section 7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    let standard = [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];
    standard.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Whether only the gateway may set the field: the gateway's own names, and the forwarding fields that proxies set
/// about clients.
pub fn is_reserved_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.as_bytes().first() {
        Some(b'x') => {
            name.starts_with("x-tallygate-")
                || name.starts_with("x-forwarded-")
                || matches!(name, "x-real-ip" | "x-request-id")
        }
        Some(b'c') => name.starts_with("client-cert"),
        Some(b'f') => name == "forwarded",
        Some(b't') => name == "traceparent",
        _ => false,
    }
}

/// The reason why a configuration may not set or remove a field; `None` if it may.
pub(crate) fn why_protected(name: &HeaderName) -> Option<&'static str> {
    let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER, EXPECT];
    match name.as_str() {
        _ if framing.contains(name) => Some("frames the message, which only the gateway does"),
        _ if is_hop_by_hop(name) => Some("is hop-by-hop and is never forwarded"),
        _ if *name == HOST => Some("is the host that was authorised; rewrite.host forwards another one"),
        _ if is_reserved_header(name) => Some("identifies the caller or the request, which only the gateway does"),
        "ratelimit" | "ratelimit-policy" => Some("reports the limits of a department, which only the gateway does"),
        name if name.starts_with("grpc-") => Some("is a gRPC header, from which outcomes and deadlines are read"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_headers_are_recognised_by_name() {
        for claim in [
            "x-tallygate-department",
            "x-tallygate-anything",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "forwarded",
            "client-cert",
            "client-cert-chain",
            "x-real-ip",
            "x-request-id",
            "traceparent",
        ] {
            assert!(is_reserved_header(&HeaderName::from_static(claim)), "{claim}");
        }
        for plain in ["accept", "content-type", "x-department", "tracestate"] {
            assert!(!is_reserved_header(&HeaderName::from_static(plain)), "{plain}");
        }
    }
}
