//! The activity of one connection: its open commands, since when it is idle, whether its caller reads (backpressure),
//! and whether it has reached its maximum number of commands.
//!
//! Guarantees:
//! - A command is open from its receipt until its response is complete or dropped.
//! - The time is that of the worker's tick, which costs nothing to read.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Timer as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::tick_timer::CoarseTimer;
use super::waker_queue::{WaiterId, WakerQueue};

/// The activity of one connection.
pub(crate) struct ConnectionActivity {
    clock: CoarseTimer,
    active_requests: Cell<usize>,
    idle_since: Cell<Instant>,
    /// The commands that the connection may still receive; `None` for no limit.
    requests_left: Cell<Option<usize>>,
    /// Notifies waiters of the last command.
    limit_reached: Notify,
    /// Whether the last write is stalled because the caller does not read.
    write_stalled: Cell<bool>,
    /// The streams that wait for the stalled write.
    blocked_streams: WakerQueue,
}

/// One open command.
pub(crate) struct ActiveRequest {
    activity: Rc<ConnectionActivity>,
    waiter: WaiterId,
}

impl ConnectionActivity {
    /// The activity of a connection with a maximum number of commands, or with none.
    pub(crate) fn new(clock: CoarseTimer, commands_max: Option<usize>) -> Self {
        let rests_since = Cell::new(clock.now().into());
        Self {
            clock,
            active_requests: Cell::new(0),
            idle_since: rests_since,
            requests_left: Cell::new(commands_max),
            limit_reached: Notify::new(),
            write_stalled: Cell::default(),
            blocked_streams: WakerQueue::default(),
        }
    }

    /// The current time, to the tick.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now().into()
    }

    /// A command begins.
    pub(crate) fn begin_request(self: &Rc<Self>) -> ActiveRequest {
        self.requests_left.set(self.requests_left.get().map(|left| left.saturating_sub(1)));
        if self.is_request_limit_reached() {
            self.limit_reached.notify_waiters();
        }
        self.attach_stream()
    }

    /// Takes no more commands after those that have begun: the gateway will stop.
    pub(crate) fn end_with_this_request(&self) {
        self.requests_left.set(Some(0));
        self.limit_reached.notify_waiters();
    }

    /// A command that has begun continues in another form, such as a tunnel.
    pub(crate) fn attach_stream(self: &Rc<Self>) -> ActiveRequest {
        self.active_requests.set(self.active_requests.get() + 1);
        ActiveRequest { activity: Rc::clone(self), waiter: WaiterId::default() }
    }

    /// Whether the connection has reached its maximum number of commands.
    pub(crate) fn is_request_limit_reached(&self) -> bool {
        self.requests_left.get() == Some(0)
    }

    /// Waits until the connection has reached its maximum number of commands.
    pub(crate) async fn request_limit_reached(&self) {
        // Created before the check, so that no notification is lost in between.
        let last = self.limit_reached.notified();
        if !self.is_request_limit_reached() {
            last.await;
        }
    }

    /// Notes the result of a flush, or of any write on a connection with one response at a time. A stalled write begins
    /// backpressure; a completed one wakes all blocked streams.
    pub(crate) fn note_flush<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.write_stalled.set(polled.is_pending());
        if polled.is_ready() {
            self.blocked_streams.wake_all();
        }
        polled
    }

    /// Notes the result of a write that is followed by more writes and a flush. A completed write releases only the
    /// first blocked stream. If it woke all of them, they would pass on more than is written.
    pub(crate) fn note_partial_write<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.write_stalled.set(polled.is_pending());
        if polled.is_ready() {
            self.blocked_streams.release_first();
        }
        polled
    }

    /// Whether the write side is stalled because the caller does not read.
    pub(crate) fn is_write_stalled(&self) -> bool {
        self.write_stalled.get()
    }

    /// Since when no command is open. The current time if a command is open.
    pub(crate) fn idle_since(&self) -> Instant {
        if self.active_requests.get() > 0 { self.now() } else { self.idle_since.get() }
    }
}

impl ActiveRequest {
    /// Ready when the caller has read what was written. Until then nothing more is read from a subsystem
    /// (backpressure).
    pub(crate) fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        if self.activity.blocked_streams.take_release(&self.waiter) || !self.activity.write_stalled.get() {
            self.activity.blocked_streams.remove(&self.waiter);
            return Poll::Ready(());
        }
        self.activity.blocked_streams.register(&self.waiter, context.waker());
        Poll::Pending
    }

    /// The current time, to the tick.
    pub(crate) fn now(&self) -> Instant {
        self.activity.now()
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.activity.blocked_streams.remove(&self.waiter);
        self.activity.active_requests.set(self.activity.active_requests.get().saturating_sub(1));
        self.activity.idle_since.set(self.activity.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::super::tick_timer::TickTimers;
    use super::super::waker_queue::WakeCounter;
    use super::*;

    #[test]
    fn partial_write_releases_one_waiter_and_flush_releases_all() {
        let activity = Rc::new(ConnectionActivity::new(TickTimers::new().coarse_timer(), None));
        let all: Vec<(ActiveRequest, Arc<WakeCounter>)> =
            std::iter::repeat_with(|| (activity.begin_request(), Arc::default())).take(4).collect();
        let taken = |(beat, woken): &(ActiveRequest, Arc<WakeCounter>)| {
            beat.poll_writable(&Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready()
        };
        let woken = || all.iter().map(|(_, woken)| woken.times()).collect::<Vec<_>>();
        assert!(taken(&all[0]), "nothing was written");
        assert!(activity.note_partial_write(Poll::<()>::Pending).is_pending());
        assert!(!all.iter().any(taken));
        assert!(activity.note_partial_write(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 0, 0, 0]);
        assert!(activity.note_partial_write(Poll::<()>::Pending).is_pending());
        assert!(!taken(&all[1]), "another request was first");
        assert!(taken(&all[0]), "it was released");
        assert!(!taken(&all[0]), "it is last in the queue");
        assert!(activity.note_partial_write(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [1, 1, 0, 0]);
        assert!(activity.note_flush(Poll::Ready(())).is_ready());
        assert_eq!(woken(), [2, 1, 1, 1]);
    }

    #[test]
    fn dropped_waiter_does_not_consume_a_release() {
        let activity = Rc::new(ConnectionActivity::new(TickTimers::new().coarse_timer(), None));
        let woken = Arc::new(WakeCounter::default());
        let _ = activity.note_partial_write(Poll::<()>::Pending);
        for _ in 0..1000 {
            assert!(activity.begin_request().poll_writable(&Context::from_waker(Waker::noop())).is_pending());
        }
        let last = activity.begin_request();
        assert!(last.poll_writable(&Context::from_waker(&Waker::from(Arc::clone(&woken)))).is_pending());
        let _ = activity.note_partial_write(Poll::Ready(()));
        assert_eq!(woken.times(), 1, "the first remaining waiter");
        drop(last);
        assert_eq!(activity.blocked_streams.counts(), (0, 0));
    }
}
