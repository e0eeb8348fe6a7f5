//! How long the gateway waits for the head of a response (`ResponseDeadline`).
//!
//! Guarantees: the response timeout starts anew with each progress of the request body; a caller's own deadline is
//! never extended.
//! Leaves to others: what a timeout means for the health of a server (`pool`), and the body of the response
//! (`exchange`).

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::io::tick_timer::TickTimers;
use crate::proxy::message::interim_response::InterimResponse;
use crate::proxy::message::upload_progress::UploadProgress;
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::transport::protocol::ResponseHead;
use crate::proxy::upstream::transport::protocol::UpstreamExchange;

/// How long to wait for an answer: `response_timeout` beyond the last progress of the request body.
pub(crate) struct ResponseDeadline<'a> {
    pub(crate) timers: &'a TickTimers,
    pub(crate) response_timeout: Duration,
    /// In any case until then.
    pub(crate) not_after: Option<Instant>,
    pub(crate) progress: &'a UploadProgress,
    /// Takes interim answers as they come, if the caller gets them.
    pub(crate) on_interim: Option<&'a dyn Fn(InterimResponse)>,
}

impl ResponseDeadline<'_> {
    /// Whether the subsystem has had the time that its configuration gives it. A deadline that a caller sets is no measure of
    /// a server's health.
    pub(crate) fn is_response_timeout_over(&self) -> bool {
        self.progress.last_progress.get() + self.response_timeout <= Instant::now()
    }

    /// Waits as long as the request body makes progress, and `response_timeout` beyond; `None` when patience has ended.
    pub(crate) async fn wait_head(
        &self,
        exchange: &mut UpstreamExchange,
    ) -> Option<Result<ResponseHead, ConnectionError>> {
        loop {
            let patient = self.progress.last_progress.get() + self.response_timeout;
            let deadline = self.not_after.map_or(patient, |not_after| not_after.min(patient));
            let mut timer = self.timers.timer_at(deadline);
            let responded = poll_fn(|context| {
                let polled = exchange.poll_head(context);
                if let Some(take) = self.on_interim.filter(|_| exchange.has_interim()) {
                    exchange.take_interim().into_iter().for_each(take);
                }
                match polled {
                    Poll::Ready(head) => Poll::Ready(Some(head)),
                    Poll::Pending => timer.poll_elapsed(context).map(|()| None),
                }
            });
            if let Some(response) = responded.await {
                return Some(response);
            }
            if self.not_after.is_some_and(|not_after| not_after <= deadline) {
                return None;
            }
            if self.progress.waits_for_caller.get() {
                self.progress.last_progress.set(Instant::now()); // the caller is late, not the subsystem; `bodyIdle` ends that wait
            } else if self.progress.last_progress.get() + self.response_timeout <= deadline {
                return None;
            }
        }
    }
}
