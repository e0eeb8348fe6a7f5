//! A timer for deadlines that move and for idle times (`DeadlineTimer`).
//!
//! Guarantees:
//! - The wait ends at the current deadline, not before.
//! - The runtime's timer is created at the first poll that has to wait.
//! - Moving the deadline to a later time costs nothing: the runtime's timer is reset only if it fires too early.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may be absent, and may move between polls.
#[derive(Debug, Default)]
pub(crate) struct DeadlineTimer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl DeadlineTimer {
    /// A timer with this deadline. Without one it never ends a wait.
    pub(crate) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, sleep: None }
    }

    /// Whether there is a deadline.
    pub(crate) fn is_set(&self) -> bool {
        self.deadline.is_some()
    }

    /// Removes the deadline: of an idle time because something has arrived, of another wait because it is over.
    pub(crate) fn clear(&mut self) {
        self.deadline = None;
    }

    /// Ready at the deadline.
    pub(crate) fn poll_elapsed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Ready at `deadline`, which takes the place of the previous one.
    pub(crate) fn poll_at(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.deadline = Some(deadline);
        self.poll_elapsed(context)
    }

    /// Ready when the timer has not been cleared for `timeout`. The time begins at the first poll after a clear.
    pub(crate) fn poll_idle(&mut self, context: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        self.deadline.get_or_insert_with(|| Instant::now() + timeout);
        self.poll_elapsed(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn an_idle_time_begins_again_after_a_clear() {
        let mut timer = DeadlineTimer::default();
        let mut context = Context::from_waker(Waker::noop());
        poll_fn(|context| timer.poll_idle(context, Duration::ZERO)).await;
        assert!(timer.poll_idle(&mut context, TIMEOUT).is_ready(), "the time has not begun again");
        timer.clear();
        let begun = Instant::now();
        assert!(timer.poll_idle(&mut context, TIMEOUT).is_pending());
        poll_fn(|context| timer.poll_idle(context, TIMEOUT)).await;
        assert!(begun.elapsed() >= TIMEOUT);
    }

    #[tokio::test]
    async fn a_deadline_moves_both_ways_and_may_be_absent() {
        let (begun, mut timer) = (Instant::now(), DeadlineTimer::new(None));
        let mut context = Context::from_waker(Waker::noop());
        assert!(timer.poll_elapsed(&mut context).is_pending() && !timer.is_set());
        assert!(timer.poll_at(&mut context, begun + 1000 * TIMEOUT).is_pending() && timer.is_set());
        poll_fn(|context| timer.poll_at(context, begun + TIMEOUT)).await;
        assert!((TIMEOUT..1000 * TIMEOUT).contains(&begun.elapsed()), "earlier");
        poll_fn(|context| timer.poll_at(context, begun + 2 * TIMEOUT)).await;
        assert!(begun.elapsed() >= 2 * TIMEOUT, "later");
        timer.clear();
        assert!(timer.poll_elapsed(&mut context).is_pending());
    }
}
