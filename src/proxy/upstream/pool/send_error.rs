//! Why a command has no response (`SendError`), and what its caller may know of that.
//!
//! Guarantees: text for callers names no address and no cause.
//! Leaves to others: the outcome of the command (`exchange`).

use std::io;

use crate::proxy::message::upload_progress::RequestBodyError;
use crate::proxy::upstream::endpoint::error::ConnectionError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection; nothing was sent.
    #[error("no connection to the subsystem: {0}")]
    Unreachable(String),
    /// All servers that are well carry as many as they may, and none gave a place up in time; nothing was sent.
    #[error("all servers of the subsystem carry as many requests as they may")]
    Busy,
    /// It was sent, and its server said each time that it had processed nothing of it.
    #[error("the subsystem refused the request before it processed anything of it: {0}")]
    Refused(String),
    /// It broke after something was sent.
    #[error("the subsystem broke off: {0}")]
    Failed(#[from] ConnectionError),
    /// It did not answer in time.
    #[error("the subsystem did not answer in time")]
    Timeout,
}

impl SendError {
    /// What the request itself broke of, if it did.
    pub(crate) fn request_body_error(&self) -> Option<RequestBodyError> {
        matches!(self, Self::Failed(ConnectionError::RequestBody(_))).then_some(RequestBodyError::Aborted)
    }

    /// The same after another attempt that may have been processed.
    pub(crate) fn after_ambiguous_attempt(self) -> Self {
        match self {
            Self::Unreachable(reason) | Self::Refused(reason) => ConnectionError::Io(io::Error::other(reason)).into(),
            other => other,
        }
    }

    /// What the caller is told: no address and no cause, which are the log's.
    pub(crate) fn public_detail(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "no connection to the subsystem could be made; nothing was sent to it",
            Self::Busy => "the subsystem carries as many commands as it may; nothing was sent to it",
            Self::Refused(_) => "the subsystem refused the command; nothing of it was processed",
            Self::Failed(broken) if broken.is_protocol_error() => "the subsystem's answer is not valid HTTP",
            Self::Failed(_) => "the subsystem broke off before it had answered",
            Self::Timeout => "the subsystem did not answer in time",
        }
    }
}
