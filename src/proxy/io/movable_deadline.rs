//! A deadline that moves to a later time with every event, as that of a timeout does.
//!
//! Guarantees:
//! - The wait ends at the current deadline, not before.
//! - Moving the deadline to a later time costs nothing: the timer is reset only if it fires too early.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may move between polls. The timer is created at the first poll.
#[derive(Debug, Default)]
pub(crate) struct MovableDeadline(Option<Pin<Box<Sleep>>>);

impl MovableDeadline {
    /// Ready at `deadline`, which may differ from the deadline of the previous poll.
    pub(crate) fn poll_elapsed(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
