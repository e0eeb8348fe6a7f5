//! The wait queue of one subsystem: commands of one worker that wait for a server with room, in order of arrival.
//!
//! Guarantees:
//! - Only the first command in the queue may take a permit, so that no command overtakes another.
//! - The first command is woken whenever a permit is returned.
//! - A command that leaves the queue, for any reason, wakes its successor.
//!
//! Leaves to [`crate::proxy::upstream::SubsystemServers`]: which server has room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::telemetry::QueueStats;

/// The wait queue of one subsystem. It outlives configurations.
pub(crate) struct WaitQueue {
    positions: RefCell<VecDeque<Rc<Notify>>>,
    pub(crate) stats: Arc<QueueStats>,
}

/// A position in the queue.
pub(crate) struct QueuePosition {
    queue: Rc<WaitQueue>,
    woken: Rc<Notify>,
}

/// The number of one worker's requests in flight at one server, and the queue to wake when that number drops.
pub(crate) struct ServerInFlight {
    in_flight: Cell<usize>,
    pub(crate) queue: Rc<WaitQueue>,
}

impl WaitQueue {
    pub(crate) fn new(stats: Arc<QueueStats>) -> Self {
        Self { positions: RefCell::default(), stats }
    }

    /// Whether the queue is empty. Only then may a new command skip it.
    pub(crate) fn is_empty(&self) -> bool {
        self.positions.borrow().is_empty()
    }

    /// Joins the queue; `None` if the queue has reached its maximum length.
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

    /// Wakes the first command, because a server may have room.
    pub(crate) fn wake_first(&self) {
        if let Some(first) = self.positions.borrow().front() {
            first.notify_one();
        }
    }
}

impl QueuePosition {
    /// Waits for a wake-up, after which a server may have room.
    pub(crate) async fn wait_until_woken(&self) {
        self.woken.notified().await;
    }

    /// Whether this command may take a permit.
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
    fn only_the_first_waiter_proceeds_and_a_cancelled_one_promotes_the_next() {
        let queue = Rc::new(WaitQueue::new(Arc::default()));
        let (one, two) = (queue.join(3).expect("room"), queue.join(3).expect("room"));
        let three = queue.join(3).expect("room");
        assert!(queue.join(3).is_none(), "three commands wait already");
        assert_eq!((one.is_first(), two.is_first(), queue.stats.waiting.get()), (true, false, 3));
        drop(two);
        assert!(!three.is_first());
        drop(one);
        assert!(three.is_first());
        drop(three);
        assert!(queue.is_empty() && queue.stats.waiting.get() == 0);
    }
}
