//! Whether a connection is at work: how many of its commands are open, since when none is, whether its caller takes what it
//! is given, and whether it has carried as many as it may.
//!
//! Guarantees: a command counts from the moment it is taken up until its answer is whole, or dropped. Time is the worker's
//! tick, which costs nothing to read.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Timer as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::alarms::CoarseTimer;
use super::waiters::{Place, Waiters};

/// The pulse of one connection.
pub(super) struct Pulse {
    clock: CoarseTimer,
    open: Cell<usize>,
    rests_since: Cell<Instant>,
    /// Commands that it may still take up; any number, if there is none.
    left: Cell<Option<usize>>,
    /// Who waits for the last one.
    last: Notify,
    /// Whether the caller's side has not taken yet what was written last.
    stalled: Cell<bool>,
    /// Who waits for it to.
    waiting: Waiters,
}

/// One open command.
pub(super) struct Beat {
    pulse: Rc<Pulse>,
    place: Place,
}

impl Pulse {
    /// For a connection that carries so many commands, or any number.
    pub(super) fn new(clock: CoarseTimer, commands_max: Option<usize>) -> Self {
        let rests_since = Cell::new(clock.now().into());
        Self {
            clock,
            open: Cell::new(0),
            rests_since,
            left: Cell::new(commands_max),
            last: Notify::new(),
            stalled: Cell::default(),
            waiting: Waiters::default(),
        }
    }

    /// Now, to the tick.
    pub(super) fn now(&self) -> Instant {
        self.clock.now().into()
    }

    /// A command is taken up.
    pub(super) fn beat(self: &Rc<Self>) -> Beat {
        self.left.set(self.left.get().map(|left| left.saturating_sub(1)));
        if self.is_spent() {
            self.last.notify_waiters();
        }
        self.second_beat()
    }

    /// A command that is taken up already goes on in another way.
    pub(super) fn second_beat(self: &Rc<Self>) -> Beat {
        self.open.set(self.open.get() + 1);
        Beat { pulse: Rc::clone(self), place: Place::default() }
    }

    /// Whether it has taken up as many commands as it may.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == Some(0)
    }

    /// Waits until it is.
    pub(super) async fn spent(&self) {
        let last = self.last.notified(); // made before the look, so that nothing is missed in between
        if !self.is_spent() {
            last.await;
        }
    }

    /// Notes how a flush went, or any write of a connection with one answer at a time: whether the caller's side takes no more
    /// for now. Who waited for it goes on.
    pub(super) fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.stalled.set(polled.is_pending());
        if polled.is_ready() {
            self.waiting.wake_all();
        }
        polled
    }

    /// Notes how a write went that others follow, a flush at last: the first of those who wait goes on. If all did each time,
    /// many would hand over more than is written.
    pub(super) fn wrote_some<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.stalled.set(polled.is_pending());
        if polled.is_ready() {
            self.waiting.let_first_through();
        }
        polled
    }

    /// Whether the caller's side takes nothing more for now.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Since when no command is open; now, if one is.
    pub(super) fn rests_since(&self) -> Instant {
        if self.open.get() > 0 { self.now() } else { self.rests_since.get() }
    }
}

impl Beat {
    /// Ready when the caller has taken what was written: until then nothing more is asked of a subsystem.
    pub(super) fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        if self.pulse.waiting.is_let_through(&self.place) || !self.pulse.stalled.get() {
            self.pulse.waiting.leave(&self.place);
            return Poll::Ready(());
        }
        self.pulse.waiting.wait(&self.place, context.waker());
        Poll::Pending
    }

    /// Now, to the tick.
    pub(super) fn now(&self) -> Instant {
        self.pulse.now()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.pulse.waiting.leave(&self.place);
        self.pulse.open.set(self.pulse.open.get().saturating_sub(1));
        self.pulse.rests_since.set(self.pulse.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::super::alarms::Alarms;
    use super::super::waiters::Woken;
    use super::*;

    #[test]
    fn a_write_lets_one_go_on_and_a_flush_all() {
        let pulse = Rc::new(Pulse::new(Alarms::new().coarse(), None));
        let all: Vec<(Beat, Arc<Woken>)> = std::iter::repeat_with(|| (pulse.beat(), Arc::default())).take(4).collect();
        let taken = |(beat, woken): &(Beat, Arc<Woken>)| {
            beat.poll_taken(&Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready()
        };
        let woken = || all.iter().map(|(_, woken)| woken.times()).collect::<Vec<_>>();
        assert!(taken(&all[0]), "nothing was written");
        assert!(pulse.wrote_some(Poll::<()>::Pending).is_pending());
        assert!(!all.iter().any(taken));
        assert!(pulse.wrote_some(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 0, 0, 0]);
        assert!(pulse.wrote_some(Poll::<()>::Pending).is_pending());
        assert!(!taken(&all[1]), "it was another's turn");
        assert!(taken(&all[0]), "it was let through");
        assert!(!taken(&all[0]), "behind the others now");
        assert!(pulse.wrote_some(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 1, 0, 0]);
        assert!(pulse.wrote(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [2, 1, 1, 1]);
    }

    #[test]
    fn who_is_gone_is_not_let_through_in_anothers_place() {
        let pulse = Rc::new(Pulse::new(Alarms::new().coarse(), None));
        let woken = Arc::new(Woken::default());
        let _ = pulse.wrote_some(Poll::<()>::Pending);
        for _ in 0..1000 {
            assert!(pulse.beat().poll_taken(&Context::from_waker(Waker::noop())).is_pending());
        }
        let last = pulse.beat();
        assert!(last.poll_taken(&Context::from_waker(&Waker::from(Arc::clone(&woken)))).is_pending());
        let _ = pulse.wrote_some(Poll::Ready(()));
        assert_eq!(woken.times(), 1, "the first of those who are still there");
        drop(last);
        assert_eq!(pulse.waiting.counts(), (0, 0));
    }
}
