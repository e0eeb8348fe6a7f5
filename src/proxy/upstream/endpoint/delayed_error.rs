//! Delays the error of a response body by one poll.
//!
//! Guarantees: the caller gets the data before the error, because hyper flushes whenever a body is pending.
//!
//! Leaves to others: the body itself (`h1`, `h2`).

use std::task::{Context, Poll};

use super::error::ConnectionError;

/// An error that the next poll returns.
#[derive(Debug, Default)]
pub(crate) struct DelayedError(Option<ConnectionError>);

impl DelayedError {
    /// The error of the previous poll.
    pub(crate) fn take(&mut self) -> Option<ConnectionError> {
        self.0.take()
    }

    /// Whether an error waits for the next poll.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.is_some()
    }

    /// Replaces an error by `Pending`, and wakes the task so that it polls again.
    pub(crate) fn delay<T>(
        &mut self,
        polled: Poll<Option<Result<T, ConnectionError>>>,
        context: &Context<'_>,
    ) -> Poll<Option<Result<T, ConnectionError>>> {
        match polled {
            Poll::Ready(Some(Err(error))) => {
                self.0 = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }
}
