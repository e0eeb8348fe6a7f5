//! One interim response, its forwarded fields, and the limit on the bytes that wait.
//!
//! Guarantees: pure.
//!
//! Leaves to others: how a head is written (`http1_queue`, `headers_frame`).

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::proxy::message::field_line::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::proxy::message::request_id::REQUEST_ID;

/// The most bytes of interim responses that wait to be written on one connection. Interim responses beyond that are
/// dropped.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// An interim response of a subsystem.
pub(crate) struct InterimResponse {
    pub(crate) status: StatusCode,
    /// The fields, without hop-by-hop fields.
    pub(crate) headers: HeaderMap,
}

impl InterimResponse {
    /// Whether callers get it. Not 100, which the gateway requests itself, and not 101, which is final.
    pub(crate) fn is_forwarded(status: StatusCode) -> bool {
        status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
    }

    /// The forwarded fields, without those that `is_removed` selects and those that only the gateway may write.
    pub(crate) fn forwarded_headers(
        &self,
        is_removed: impl Fn(&HeaderName) -> bool,
    ) -> impl Iterator<Item = (&str, &[u8])> {
        let stays = move |name: &HeaderName| !is_gateway_header(name) && !is_removed(name);
        let fields = self.headers.iter().filter(move |(name, _)| stays(name));
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// Whether only the gateway writes this field, and only in a final response.
fn is_gateway_header(name: &HeaderName) -> bool {
    [&CONTENT_LENGTH, &REQUEST_ID, &RATE_LIMIT, &RATE_LIMIT_POLICY].contains(&name)
}
