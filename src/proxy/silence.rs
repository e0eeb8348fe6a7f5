//! The end of patience with somebody who says nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// Ends a wait in silence. The timer is made only when there is something to wait for.
#[derive(Default)]
pub(super) struct Silence(Option<Pin<Box<Sleep>>>);

impl Silence {
    /// Ready when nothing came for `patience`.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, patience: Duration) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        sleep.as_mut().poll(context)
    }

    /// Something came.
    pub(super) fn broken(&mut self) {
        self.0 = None;
    }
}
