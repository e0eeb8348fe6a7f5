//! Whether a connection is at work: how many of its commands are open, since when none is, whether its caller takes what it
//! is given, and whether it has carried as many as it may.
//!
//! Guarantees: a command counts from the moment it is taken up until its answer is whole, or dropped. Time is the worker's
//! tick, which costs nothing to read.

use std::cell::{Cell, RefCell};
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
    /// Who waits for the caller to take what was written last; [`Waker::noop`] until somebody does.
    stalled: RefCell<Option<Waker>>,
}

/// One open command.
pub(super) struct Beat(Rc<Pulse>);

impl Pulse {
    /// For a connection that carries so many commands, or any number.
    pub(super) fn new(clock: CoarseTimer, commands_max: Option<usize>) -> Self {
        let rests_since = Cell::new(clock.now().into());
        let left = Cell::new(commands_max);
        Self { clock, open: Cell::new(0), rests_since, left, last: RefCell::default(), stalled: RefCell::default() }
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

    /// Notes how a write went: whether the caller's side takes no more for now.
    pub(super) fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        let mut stalled = self.stalled.borrow_mut();
        match &polled {
            Poll::Pending => drop(stalled.get_or_insert_with(|| Waker::noop().clone())),
            Poll::Ready(_) => stalled.take().into_iter().for_each(Waker::wake),
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
        match &mut *self.0.stalled.borrow_mut() {
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
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
