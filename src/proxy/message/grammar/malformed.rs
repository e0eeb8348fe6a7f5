//! Malformed requests: the fault, and the status that describes it.
//!
//! Every fault is counted as `malformed`. The status only describes the fault more exactly to the caller.

use http::StatusCode;

/// A fault in a request, with a text for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedRequest {
    /// The status of the response: 400, or a more exact one.
    pub status: StatusCode,
    /// A description of the fault, with the correct form where that helps.
    pub detail: &'static str,
}

impl MalformedRequest {
    /// 400: not HTTP as the gateway accepts it.
    pub const fn bad_request(detail: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail }
    }

    /// 408: the request did not arrive in time (RFC 9110 section 15.5.9).
    pub const fn request_timeout(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, detail }
    }

    /// Whether the fault is a timeout.
    pub(crate) fn is_timeout(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// 414: the target is longer than the limit (RFC 9110 section 15.5.15).
    pub const fn uri_too_long(detail: &'static str) -> Self {
        Self { status: StatusCode::URI_TOO_LONG, detail }
    }

    /// 417: the gateway cannot meet the expectation (RFC 9110 section 15.5.18).
    pub const fn expectation_failed(detail: &'static str) -> Self {
        Self { status: StatusCode::EXPECTATION_FAILED, detail }
    }

    /// 431: the head is larger than the limit (RFC 6585 section 5).
    pub const fn headers_too_large(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail }
    }

    /// 501: the gateway does not implement the method or the transfer coding (RFC 9110 section 15.6.2).
    pub const fn not_implemented(detail: &'static str) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, detail }
    }

    /// 505: another version of HTTP (RFC 9110 section 15.6.6).
    pub const fn version_not_supported(detail: &'static str) -> Self {
        Self { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail }
    }
}
