//! The response timeout: how long the gateway waits for the head of a response (`ResponseDeadline`).
//!
//! Guarantees:
//! - The response timeout restarts with each progress of the request body.
//! - A caller's own deadline is never extended.
//!
//! Leaves to others: the effect of a timeout on the health of a server (`pool`), and the body of the response
//! (`exchange`).

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::io::tick_timer::TickTimers;
use crate::proxy::message::interim_response::InterimResponse;
use crate::proxy::message::upload_progress::UploadProgress;
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::transport::protocol::{ResponseHead, UpstreamExchange};

/// The deadline of a response: `last_progress + response_timeout`, and at the latest `not_after`.
pub(crate) struct ResponseDeadline<'a> {
    pub(crate) timers: &'a TickTimers,
    pub(crate) response_timeout: Duration,
    /// The caller's own deadline, if it set one.
    pub(crate) not_after: Option<Instant>,
    pub(crate) progress: &'a UploadProgress,
    /// Takes interim responses as they arrive, if the caller gets them.
    pub(crate) on_interim: Option<&'a dyn Fn(InterimResponse)>,
}

impl ResponseDeadline<'_> {
    /// Whether the response timeout of the configuration has passed. A deadline that a caller sets is no measure of
    /// the health of a server.
    pub(crate) fn is_response_timeout_over(&self) -> bool {
        self.progress.last_progress.get() + self.response_timeout <= Instant::now()
    }

    /// Waits for the head of the response while the request body makes progress, and `response_timeout` longer. `None`
    /// on a timeout.
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
                return Some(response);
            }
            if self.not_after.is_some_and(|not_after| not_after <= deadline) {
                return None;
            }
            if self.progress.waits_for_caller.get() {
                // The caller is slow, not the subsystem; `bodyIdle` bounds that wait.
                self.progress.last_progress.set(Instant::now());
            } else if self.progress.last_progress.get() + self.response_timeout <= deadline {
                return None;
            }
        }
    }
}
