//! Whether a connection is at work: how many of its commands are open, since when none is, whether its caller takes what it
//! is given, and whether it has carried as many as it may.
//!
//! Guarantees: a command counts from the moment it is taken up until its answer is whole, or dropped. Time is the worker's
//! tick, which costs nothing to read.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::rt::Timer as _;
use tokio::time::Instant;

use super::alarms::CoarseTimer;

/// The pulse of one connection.
pub(super) struct Pulse {
    clock: CoarseTimer,
    open: Cell<usize>,
    rests_since: Cell<Instant>,
    /// Commands that it may still take up; any number, if there is none.
    left: Cell<Option<usize>>,
    /// Who waits for the last one.
    last: RefCell<Option<Waker>>,
    /// Whether the caller's side has not taken yet what was written last.
    stalled: Cell<bool>,
    /// Who waits for it to; at most as many as there are streams.
    waiting: RefCell<VecDeque<Waker>>,
    /// How many of them may go on although it has stalled again meanwhile.
    let_through: Cell<usize>,
}

/// One open command.
pub(super) struct Beat(Rc<Pulse>);

impl Pulse {
    /// For a connection that carries so many commands, or any number.
    pub(super) fn new(clock: CoarseTimer, commands_max: Option<usize>) -> Self {
        let rests_since = Cell::new(clock.now().into());
        Self {
            clock,
            open: Cell::new(0),
            rests_since,
            left: Cell::new(commands_max),
            last: RefCell::default(),
            stalled: Cell::default(),
            waiting: RefCell::default(),
            let_through: Cell::default(),
        }
    }

    /// Now, to the tick.
    pub(super) fn now(&self) -> Instant {
        self.clock.now().into()
    }

    /// A command is taken up.
    pub(super) fn beat(self: &Rc<Self>) -> Beat {
        self.open.set(self.open.get() + 1);
        self.left.set(self.left.get().map(|left| left.saturating_sub(1)));
        if self.is_spent() {
            self.last.take().into_iter().for_each(Waker::wake);
        }
        Beat(Rc::clone(self))
    }

    /// Whether it has taken up as many commands as it may.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == Some(0)
    }

    /// Waits until it is.
    pub(super) async fn spent(&self) {
        poll_fn(|context| match self.is_spent() {
            true => Poll::Ready(()),
            false => {
                let mut last = self.last.borrow_mut();
                if last.as_ref().is_none_or(|known| !known.will_wake(context.waker())) {
                    *last = Some(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await;
    }

    /// Notes how a flush went, or any write of a connection with one answer at a time: whether the caller's side takes no more
    /// for now. Who waited for it goes on.
    pub(super) fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.stalled.set(polled.is_pending());
        if polled.is_ready() && !self.waiting.borrow().is_empty() {
            self.let_through.set(0);
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
        polled
    }

    /// Notes how a write went that others follow, a flush at last: the first of those who wait goes on. If all did each time,
    /// many would hand over more than is written.
    pub(super) fn wrote_some<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.stalled.set(polled.is_pending());
        if polled.is_ready()
            && let Some(first) = self.waiting.borrow_mut().pop_front()
        {
            self.let_through.set(self.let_through.get() + 1);
            first.wake();
        }
        polled
    }

    /// Since when no command is open; now, if one is.
    pub(super) fn rests_since(&self) -> Instant {
        if self.open.get() > 0 { self.now() } else { self.rests_since.get() }
    }
}

impl Beat {
    /// Ready when the caller has taken what was written: until then nothing more is asked of a subsystem.
    pub(super) fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        let let_through = self.0.let_through.get();
        if let_through > 0 || !self.0.stalled.get() {
            self.0.let_through.set(let_through.saturating_sub(1));
            return Poll::Ready(());
        }
        let mut waiting = self.0.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(context.waker())) {
            waiting.push_back(context.waker().clone());
        }
        Poll::Pending
    }

    /// Now, to the tick.
    pub(super) fn now(&self) -> Instant {
        self.0.now()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.rests_since.set(self.0.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::super::alarms::Alarms;
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_write_lets_one_go_on_and_a_flush_all() {
        let pulse = Rc::new(Pulse::new(Alarms::new().coarse(), None));
        let beat = pulse.beat();
        let all: Vec<Arc<Woken>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let taken =
            |woken: &Arc<Woken>| beat.poll_taken(&Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready();
        let woken = || all.iter().map(|woken| woken.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert!(taken(&all[0]), "nothing was written");
        assert!(pulse.wrote_some(Poll::<()>::Pending).is_pending());
        assert!(!all.iter().any(taken));
        assert!(pulse.wrote_some(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 0, 0, 0]);
        assert!(pulse.wrote_some(Poll::<()>::Pending).is_pending());
        assert!(taken(&all[0]), "it was let through");
        assert!(!taken(&all[0]), "behind the others now");
        assert!(pulse.wrote_some(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 1, 0, 0]);
        assert!(pulse.wrote(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [2, 1, 1, 1]);
    }
}
