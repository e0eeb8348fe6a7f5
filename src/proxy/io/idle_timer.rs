//! The end of patience with somebody who says nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// Ends a wait in silence. The timer is made only when there is something to wait for.
#[derive(Default)]
pub(crate) struct IdleTimer(Option<Pin<Box<Sleep>>>);

impl IdleTimer {
    /// Ready when nothing came for `timeout`.
    pub(crate) fn poll_elapsed(&mut self, context: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        sleep.as_mut().poll(context)
    }

    /// Something came.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }
}
