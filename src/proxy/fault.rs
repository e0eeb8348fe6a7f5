//! What is wrong with a request as HTTP, and the status that says so.
//!
//! Every fault is counted as `malformed`; the status only tells the caller more exactly what to mend.

use http::StatusCode;

/// What is wrong with a request, in words for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status of the answer: 400, or one that says it more exactly.
    pub status: StatusCode,
    /// What is wrong, and where it can help, what would be right.
    pub detail: &'static str,
}

impl Fault {
    /// 400: not HTTP as this house accepts it.
    pub const fn bad(detail: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail }
    }

    /// 408: it did not come in time (RFC 9110 section 15.5.9).
    pub const fn late(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, detail }
    }

    /// Whether it is lateness.
    pub(super) fn is_late(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// 414: the target is longer than is read (RFC 9110 section 15.5.15).
    pub const fn long_target(detail: &'static str) -> Self {
        Self { status: StatusCode::URI_TOO_LONG, detail }
    }

    /// 417: an expectation nobody here can meet (RFC 9110 section 15.5.18).
    pub const fn expectation(detail: &'static str) -> Self {
        Self { status: StatusCode::EXPECTATION_FAILED, detail }
    }

    /// 431: more of a head than is read (RFC 6585 section 5).
    pub const fn large_head(detail: &'static str) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail }
    }

    /// 501: a method or a transfer coding that nobody here speaks (RFC 9110 section 15.6.2).
    pub const fn not_spoken(detail: &'static str) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, detail }
    }

    /// 505: another version of HTTP (RFC 9110 section 15.6.6).
    pub const fn version(detail: &'static str) -> Self {
        Self { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail }
    }
}
