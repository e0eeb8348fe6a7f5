//! Connection errors: why a connection to a server cannot be used any longer (`ConnectionError`).
//!
//! Guarantees: the kind of an error says whether the server, the network or the request's own body failed.
//!
//! Leaves to others: whether the request is sent again (`resend`, `retry_budget`), and the outcome of the command
//! (`exchange`).

use std::io;

use crate::proxy::message::message_body::MessageBodyError;

/// Why a connection cannot be used any longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The server closed the connection before the end of its response.
    #[error("the connection was closed early")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The response violates RFC 9112.
    #[error("invalid response: {0}")]
    InvalidResponse(&'static str),
    /// The HTTP/2 stream or its session failed.
    #[error("{0}")]
    Http2(::h2::Error),
    /// The request's own body broke off.
    #[error("the request was aborted: {0}")]
    RequestBody(io::Error),
}

impl From<MessageBodyError> for ConnectionError {
    fn from(error: MessageBodyError) -> Self {
        match error {
            // An error of a caller: responses do not use hyper.
            MessageBodyError::Hyper(error) => Self::Io(io::Error::other(error)),
            MessageBodyError::Stream(error) => Self::Http2(error),
            MessageBodyError::Truncated => Self::Io(io::Error::other("the stream was reset before its end")),
            MessageBodyError::TooLong => Self::InvalidResponse("the body is longer than its Content-Length"),
        }
    }
}

impl ConnectionError {
    /// Whether the request broke off, not the connection.
    /// Whether the server violated HTTP, as opposed to breaking off.
    pub(crate) fn is_request_error(&self) -> bool {
        matches!(self, Self::RequestBody(_))
    }

    pub(crate) fn is_protocol_error(&self) -> bool {
        match self {
            Self::InvalidResponse(_) => true,
            Self::Http2(error) => crate::proxy::upstream::h2::is_protocol_violation(error),
            Self::Closed | Self::Io(_) | Self::RequestBody(_) => false,
        }
    }
}

/// Whether h2 found that the server violated RFC 9113.
pub(crate) fn is_protocol_violation(error: &h2::Error) -> bool {
    error.is_library()
}

/// Whether the server shut down gracefully, with GOAWAY and NO_ERROR (RFC 9113 section 6.8).
pub(crate) fn is_graceful_goaway(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}
