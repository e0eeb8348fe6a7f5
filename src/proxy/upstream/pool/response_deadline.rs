//! The response timeout: how long the gateway waits for the head of a response (`ResponseDeadline`).
//!
//! Guarantees:
//! - The response timeout restarts with each progress of the request body.
//! - The end of the command and the end of an attempt are never extended.
//!
//! Leaves to others: the effect of a timeout on the health of a server (`pool`), and the body of the response
//! (`exchange`).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::proxy::io::tick_timer::TickTimers;
use crate::proxy::message::interim_response::InterimResponse;
use crate::proxy::message::upload_progress::UploadProgress;
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::transport::protocol::{ResponseHead, UpstreamExchange};

/// The deadline of a response: `last_progress + response_timeout`, and at the latest the end of the attempt and
/// `not_after`.
pub(crate) struct ResponseDeadline<'a> {
    pub(crate) timers: &'a TickTimers,
    pub(crate) response_timeout: Duration,
    /// The timeout of each attempt, if there is one.
    pub(crate) attempt_timeout: Option<Duration>,
    /// The end of the current attempt.
    pub(crate) attempt_end: Cell<Option<Instant>>,
    /// The end of the command: by the caller's own deadline, or by the request timeout.
    pub(crate) not_after: Option<Instant>,
    pub(crate) progress: &'a UploadProgress,
    /// Takes interim responses as they arrive, if the caller gets them.
    pub(crate) on_interim: Option<&'a dyn Fn(InterimResponse)>,
}

/// Which timeout ended the wait for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiredTimeout {
    /// The response timeout, or the end of the command.
    Response,
    /// The attempt timeout. Another attempt may have a response in time.
    Attempt,
}

impl ResponseDeadline<'_> {
    /// Begins the time of an attempt.
    pub(crate) fn begin_attempt(&self) {
        self.attempt_end.set(self.attempt_timeout.map(|timeout| Instant::now() + timeout));
    }

    /// Whether the server was silent for a timeout of the configuration. The end of a command is no measure of the
    /// health of a server: its caller sets it, or has used up the time.
    pub(crate) fn is_response_timeout_over(&self) -> bool {
        let timeout = self.attempt_timeout.map_or(self.response_timeout, |attempt| attempt.min(self.response_timeout));
        self.progress.last_progress.get() + timeout <= Instant::now()
    }

    /// The result of a wait that the end of the command cuts off. `None` if it was cut off.
    pub(crate) async fn until_end<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let waiting = pin!(waiting);
        match self.not_after {
            Some(end) => timeout_at(end, waiting).await.ok(),
            None => Some(waiting.await),
        }
    }

    /// Waits for the head of the response while the request body makes progress, and `response_timeout` longer.
    pub(crate) async fn wait_head(
        &self,
        exchange: &mut UpstreamExchange,
    ) -> Result<Result<ResponseHead, ConnectionError>, ExpiredTimeout> {
        loop {
            let patient = self.progress.last_progress.get() + self.response_timeout;
            let deadline = [self.not_after, self.attempt_end.get()].into_iter().flatten().fold(patient, Instant::min);
            let mut timer = self.timers.timer_at(deadline);
            let responded = poll_fn(|context| {
                let polled = exchange.poll_head(context);
                let interim = exchange.interim();
                if let Some(take) = self.on_interim.filter(|_| interim.is_waiting()) {
                    interim.take().into_iter().for_each(take);
                }
                match polled {
                    Poll::Ready(head) => Poll::Ready(Some(head)),
                    Poll::Pending => timer.poll_elapsed(context).map(|()| None),
                }
            });
            if let Some(response) = responded.await {
                return Ok(response);
            }
            if self.not_after.is_some_and(|not_after| not_after <= deadline) {
                return Err(ExpiredTimeout::Response);
            }
            if self.attempt_end.get().is_some_and(|end| end <= deadline) {
                return Err(ExpiredTimeout::Attempt);
            }
            if self.progress.waits_for_caller.get() {
                // The caller is slow, not the subsystem; `bodyIdle` bounds that wait.
                self.progress.last_progress.set(Instant::now());
            } else if self.progress.last_progress.get() + self.response_timeout <= deadline {
                return Err(ExpiredTimeout::Response);
            }
        }
    }
}
