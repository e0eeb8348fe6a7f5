//! A wait whose end moves away every time something happens, which is nearly always.
//!
//! Guarantees: it ends at its deadline, not before; a deadline that moves away costs nothing, because the timer is only
//! set anew when it has rung too early.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module. The timer is made when somebody waits for the first time.
#[derive(Debug, Default)]
pub(crate) struct MovableDeadline(Option<Pin<Box<Sleep>>>);

impl MovableDeadline {
    /// Ready at the deadline, as it is now.
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
