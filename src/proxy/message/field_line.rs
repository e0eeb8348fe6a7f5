//! HTTP/1.1 field lines (`put_header`), and field names that several modules write.
//!
//! Guarantees: pure.
//! Leaves to others: which fields may be written (`header_rules`).

use http::HeaderName;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Appends a field line.
pub(crate) fn put_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}
