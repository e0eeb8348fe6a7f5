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
        _ if framing.contains(name) => Some("says where a message ends, which the gateway itself does"),
        _ if is_hop_by_hop(name) => Some("belongs to one connection and never crosses the gateway"),
        _ if *name == HOST => Some("is the host that was authorised"),
        _ if is_reserved_header(name) => Some("tells who calls and which request it is, which the gateway itself does"),
        "ratelimit" | "ratelimit-policy" => Some("tells a department its limits, which the gateway itself does"),
        name if name.starts_with("grpc-") => Some("is a word of gRPC, which outcomes and deadlines are read from"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_known_by_name() {
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
