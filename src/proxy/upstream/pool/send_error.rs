//! Why a command has no response (`SendError`), and the text about it for the caller.
//!
//! Guarantees: text for callers names no address and no cause.
//!
//! Leaves to others: the outcome of the command (`exchange`).

use std::io;

use crate::proxy::message::upload_progress::RequestBodyError;
use crate::proxy::upstream::endpoint::error::ConnectionError;

/// Why a command has no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection; nothing was sent.
    #[error("no connection to the subsystem: {0}")]
    Unreachable(String),
    /// All healthy servers had their maximum of requests in flight until the end of the wait; nothing was sent.
    #[error("all servers of the subsystem have reached their limit of requests in flight")]
    Busy,
    /// Each attempt was sent, and each server reported that it had processed nothing of it.
    #[error("the subsystem rejected the request without processing it: {0}")]
    Refused(String),
    /// The attempt failed after something was sent.
    #[error("the subsystem failed: {0}")]
    Failed(#[from] ConnectionError),
    /// No response in time.
    #[error("the subsystem did not respond in time")]
    Timeout,
    /// No response within the timeout of one attempt.
    #[error("the subsystem did not respond within the timeout of one attempt")]
    AttemptTimeout,
}

impl SendError {
    /// The failure of the request body, if that is the cause.
    pub(crate) fn request_body_error(&self) -> Option<RequestBodyError> {
        matches!(self, Self::Failed(ConnectionError::RequestBody(_))).then_some(RequestBodyError::Aborted)
    }

    /// Whether a server has failed after something was sent to it.
    pub(crate) fn is_server_failure(&self) -> bool {
        let is_failure = matches!(self, Self::Failed(_) | Self::Timeout | Self::AttemptTimeout);
        is_failure && self.request_body_error().is_none()
    }

    /// The same error after an earlier attempt that may have been processed.
    pub(crate) fn after_ambiguous_attempt(self) -> Self {
        match self {
            Self::Unreachable(reason) | Self::Refused(reason) => ConnectionError::Io(io::Error::other(reason)).into(),
            other => other,
        }
    }

    /// The text for the caller. It names no address and no cause; those go to the log.
    pub(crate) fn public_detail(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "cannot connect to the subsystem; nothing was sent to it",
            Self::Busy => "the subsystem has reached its limit of commands in flight; nothing was sent to it",
            Self::Refused(_) => "the subsystem rejected the command without processing it",
            Self::Failed(error) if error.is_protocol_error() => "the subsystem's response is not valid HTTP",
            Self::Failed(_) => "the subsystem closed the connection before it responded",
            Self::Timeout | Self::AttemptTimeout => "the subsystem did not respond in time",
        }
    }
}
