//! What is wrong with a request as HTTP, and the status that says so.
//!
//! Every fault is counted as `malformed`; the status only tells the caller more exactly what to mend.

use http::StatusCode;

/// What is wrong with a request, in words for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedRequest {
    /// The status of the answer: 400, or one that says it more exactly.
    pub status: StatusCode,
    /// What is wrong, and where it can help, what would be right.
    pub detail: &'static str,
}

impl MalformedRequest {
    /// 400: not HTTP as this house accepts it.
    pub const fn bad_request(detail: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail }
    }

    /// 408: it did not come in time (RFC 9110 section 15.5.9).
    pub const fn request_timeout(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, detail }
    }

    /// Whether it is lateness.
    pub(crate) fn is_timeout(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// 414: the target is longer than is read (RFC 9110 section 15.5.15).
    pub const fn uri_too_long(detail: &'static str) -> Self {
        Self { status: StatusCode::URI_TOO_LONG, detail }
    }

    /// 417: an expectation nobody here can meet (RFC 9110 section 15.5.18).
    pub const fn expectation_failed(detail: &'static str) -> Self {
        Self { status: StatusCode::EXPECTATION_FAILED, detail }
    }

    /// 431: more of a head than is read (RFC 6585 section 5).
    pub const fn headers_too_large(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail }
    }

    /// 501: a method or a transfer coding that nobody here speaks (RFC 9110 section 15.6.2).
    pub const fn not_implemented(detail: &'static str) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, detail }
    }

    /// 505: another version of HTTP (RFC 9110 section 15.6.6).
    pub const fn version_not_supported(detail: &'static str) -> Self {
        Self { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail }
    }
}
