//! Where the commands of one worker wait for a place at a subsystem's servers, in order of arrival.
//!
//! Guarantees: only the first in the line may take a place, so that nobody overtakes; it is woken whenever a place was given
//! back; who leaves the line, in whatever way, lets the next one come first. Leaves to [`crate::proxy::upstream::SubsystemServers`] who has room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::telemetry::QueueStats;

/// The line before one subsystem; it outlives configurations.
pub(crate) struct WaitQueue {
    positions: RefCell<VecDeque<Rc<Notify>>>,
    pub(crate) stats: Arc<QueueStats>,
}

/// A place in the line.
pub(crate) struct QueuePosition {
    queue: Rc<WaitQueue>,
    woken: Rc<Notify>,
}

/// What one worker has in flight at one server, and who waits for it to become less.
pub(crate) struct ServerInFlight {
    in_flight: Cell<usize>,
    pub(crate) queue: Rc<WaitQueue>,
}

impl WaitQueue {
    pub(crate) fn new(stats: Arc<QueueStats>) -> Self {
        Self { positions: RefCell::default(), stats }
    }

    /// Whether nobody waits, so that who comes now overtakes nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.positions.borrow().is_empty()
    }

    /// Joins the line, unless as many wait as may.
    pub(crate) fn join(self: &Rc<Self>, length: usize) -> Option<QueuePosition> {
        let mut waiting = self.positions.borrow_mut();
        if waiting.len() >= length {
            return None;
        }
        let woken = Rc::new(Notify::new());
        waiting.push_back(Rc::clone(&woken));
        self.stats.waiting.increment();
        Some(QueuePosition { queue: Rc::clone(self), woken })
    }

    /// There may be a place: the first one should look.
    pub(crate) fn wake_first(&self) {
        if let Some(first) = self.positions.borrow().front() {
            first.notify_one();
        }
    }
}

impl QueuePosition {
    /// Waits until there may be a place.
    pub(crate) async fn wait_until_woken(&self) {
        self.woken.notified().await;
    }

    /// Whether it may take a place.
    pub(crate) fn is_first(&self) -> bool {
        self.queue.positions.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.woken))
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        self.queue.positions.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.woken));
        self.queue.stats.waiting.decrement();
        self.queue.wake_first();
    }
}

impl ServerInFlight {
    pub(crate) fn new(queue: Rc<WaitQueue>) -> Self {
        Self { in_flight: Cell::new(0), queue }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(crate) fn begin_request(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(crate) fn end_request(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.queue.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_may_go_and_who_leaves_lets_the_next_be_first() {
        let queue = Rc::new(WaitQueue::new(Arc::default()));
        let (one, two) = (queue.join(3).expect("room"), queue.join(3).expect("room"));
        let three = queue.join(3).expect("room");
        assert!(queue.join(3).is_none(), "three wait already");
        assert_eq!((one.is_first(), two.is_first(), queue.stats.waiting.get()), (true, false, 3));
        drop(two);
        assert!(!three.is_first());
        drop(one);
        assert!(three.is_first());
        drop(three);
        assert!(queue.is_empty() && queue.stats.waiting.get() == 0);
    }
}
