//! Whether a connection is at work: how many of its commands are open, and since when none is.
//!
//! Guarantees: a command counts from the moment it is taken up until its answer is whole, or dropped. Time is the worker's
//! tick, which costs nothing to read.

use std::cell::Cell;
use std::rc::Rc;

use hyper::rt::Timer as _;
use tokio::time::Instant;

use super::alarms::CoarseTimer;

/// The pulse of one connection.
pub(super) struct Pulse {
    clock: CoarseTimer,
    open: Cell<usize>,
    rests_since: Cell<Instant>,
}

/// One open command.
pub(super) struct Beat(Rc<Pulse>);

impl Pulse {
    pub(super) fn new(clock: CoarseTimer) -> Self {
        let rests_since = Cell::new(clock.now().into());
        Self { clock, open: Cell::new(0), rests_since }
    }

    /// Now, to the tick.
    pub(super) fn now(&self) -> Instant {
        self.clock.now().into()
    }

    /// A command is taken up.
    pub(super) fn beat(self: &Rc<Self>) -> Beat {
        self.open.set(self.open.get() + 1);
        Beat(Rc::clone(self))
    }

    /// Since when no command is open; now, if one is.
    pub(super) fn rests_since(&self) -> Instant {
        if self.open.get() > 0 { self.now() } else { self.rests_since.get() }
    }
}

impl Beat {
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
