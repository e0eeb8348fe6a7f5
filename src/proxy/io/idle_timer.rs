//! An idle timer: ends a wait in which nothing arrives for some time.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// An idle timer (idle timeout). The timer is created at the first poll that has to wait.
#[derive(Default)]
pub(crate) struct IdleTimer(Option<Pin<Box<Sleep>>>);

impl IdleTimer {
    /// Ready when nothing has arrived for `timeout`.
    pub(crate) fn poll_elapsed(&mut self, context: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        sleep.as_mut().poll(context)
    }

    /// Restarts the timer, because something has arrived.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }
}
