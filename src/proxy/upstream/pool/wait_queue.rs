//! The wait queue of one subsystem: commands of one worker that wait for a server with room, in order of arrival.
//!
//! Guarantees:
//! - Only the first command in the queue may take a permit, so that no command overtakes another.
//! - The first command is woken whenever a permit is returned.
//! - A command that leaves the queue, for any reason, wakes its successor.
//!
//! Leaves to [`crate::proxy::upstream::BackendServers`]: which server has room.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::proxy::io::waker_queue::{WaiterId, WakerQueue};
use crate::telemetry::QueueStats;

/// The wait queue of one subsystem. It outlives configurations.
pub(crate) struct WaitQueue {
    positions: WakerQueue,
    pub(crate) stats: Arc<QueueStats>,
}

/// A position in the queue.
pub(crate) struct QueuePosition {
    queue: Rc<WaitQueue>,
    waiter: WaiterId,
}

/// The number of one worker's requests in flight at one server, and the queue to wake when that number drops.
pub(crate) struct ServerInFlight {
    in_flight: Cell<usize>,
    pub(crate) queue: Rc<WaitQueue>,
}

impl WaitQueue {
    pub(crate) fn new(stats: Arc<QueueStats>) -> Self {
        Self { positions: WakerQueue::default(), stats }
    }

    /// Whether the queue is empty. Only then may a new command skip it.
    pub(crate) fn is_empty(&self) -> bool {
        self.positions.places() == 0
    }

    /// Joins the queue; `None` if the queue has reached its maximum length.
    pub(crate) fn join(self: &Rc<Self>, length: usize) -> Option<QueuePosition> {
        if self.positions.places() >= length {
            return None;
        }
        let position = QueuePosition { queue: Rc::clone(self), waiter: WaiterId::default() };
        self.positions.register(&position.waiter, Waker::noop()); // the first poll registers its own waker
        self.stats.waiting.increment();
        Some(position)
    }

    /// Wakes the first command, because a server may have room. A command that was woken and not polled yet is still
    /// the first.
    pub(crate) fn wake_first(&self) {
        if !self.positions.has_unused_release() {
            self.positions.release_first();
        }
    }
}

impl QueuePosition {
    /// Waits for a wake-up, after which a server may have room. A command that waits again keeps its position.
    pub(crate) async fn wait_until_woken(&self) {
        poll_fn(|context| {
            if self.queue.positions.take_release(&self.waiter) {
                return Poll::Ready(());
            }
            self.queue.positions.register(&self.waiter, context.waker());
            Poll::Pending
        })
        .await;
    }

    /// Whether this command may take a permit.
    pub(crate) fn is_first(&self) -> bool {
        self.queue.positions.is_first(&self.waiter)
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        self.queue.positions.remove(&self.waiter);
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
    use std::pin::pin;
    use std::task::Context;

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

    #[tokio::test]
    async fn a_woken_command_that_waits_again_is_still_the_first() {
        let queue = Rc::new(WaitQueue::new(Arc::default()));
        let (one, two) = (queue.join(2).expect("room"), queue.join(2).expect("room"));
        queue.wake_first();
        queue.wake_first(); // the second is not woken for it
        one.wait_until_woken().await;
        {
            let mut again = pin!(one.wait_until_woken());
            assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(pin!(two.wait_until_woken()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(one.is_first() && !two.is_first());
            queue.wake_first();
            again.await;
        }
        drop(one);
        assert!(two.is_first());
        two.wait_until_woken().await;
    }
}
