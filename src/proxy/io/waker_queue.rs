//! Who waits for one thing on one thread, in order of arrival.
//!
//! Guarantees: each place waits once, however often it asks, and costs the same however many wait. Who is let through may go on
//! once, whatever has changed before it comes round to. A place that is left is gone: whoever may be dropped while it waits
//! leaves it, so there are never more than there are streams.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WakerQueue {
    next: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
    /// The places of those who may go on.
    released: RefCell<BTreeSet<u64>>,
}

/// A place among those who wait, taken or not.
#[derive(Debug, Default)]
pub(crate) struct WaiterId(Cell<Option<u64>>);

impl WakerQueue {
    /// Waits at this place, behind all others if it was left.
    pub(crate) fn register(&self, waiter: &WaiterId, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        let number = waiter.0.get().unwrap_or_else(|| {
            self.next.set(self.next.get() + 1);
            self.next.get()
        });
        waiter.0.set(Some(number));
        wakers.entry(number).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    /// Waits no more.
    pub(crate) fn remove(&self, waiter: &WaiterId) {
        if let Some(number) = waiter.0.take() {
            self.wakers.borrow_mut().remove(&number);
            self.released.borrow_mut().remove(&number);
        }
    }

    /// Lets whoever has waited longest through.
    pub(crate) fn release_first(&self) {
        let first = self.wakers.borrow_mut().pop_first();
        if let Some((number, waker)) = first {
            self.released.borrow_mut().insert(number);
            waker.wake();
        }
    }

    /// Whether this place is let through; it is not a second time.
    pub(crate) fn take_release(&self, waiter: &WaiterId) -> bool {
        waiter.0.get().is_some_and(|number| self.released.borrow_mut().remove(&number))
    }

    /// Whether somebody is let through who has not come round to it.
    pub(crate) fn has_unused_release(&self) -> bool {
        !self.released.borrow().is_empty()
    }

    /// Whether nobody waits who is not let through.
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// Wakes all, to look for themselves.
    pub(crate) fn wake_all(&self) {
        self.released.borrow_mut().clear();
        let wakers = self.wakers.take();
        wakers.into_values().for_each(Waker::wake);
    }
}

/// Counts how often it is woken.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct WakeCounter(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl WakeCounter {
    pub(crate) fn times(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl std::task::Wake for WakeCounter {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many wait, and how many are let through.
    impl WakerQueue {
        pub(crate) fn counts(&self) -> (usize, usize) {
            (self.wakers.borrow().len(), self.released.borrow().len())
        }
    }

    #[test]
    fn a_place_waits_once_and_leaves_nothing_behind() {
        let waiters = WakerQueue::default();
        let (one, two) = (WaiterId::default(), WaiterId::default());
        for _ in 0..10_000 {
            waiters.register(&one, Waker::noop());
            waiters.register(&two, Waker::noop());
            waiters.register(&one, Waker::noop());
            assert_eq!(waiters.counts(), (2, 0));
            waiters.remove(&one);
            waiters.remove(&two);
        }
        assert_eq!(waiters.counts(), (0, 0));
    }

    #[test]
    fn who_waited_longest_is_let_through_once() {
        let waiters = WakerQueue::default();
        let (one, two) = (WaiterId::default(), WaiterId::default());
        waiters.register(&two, Waker::noop());
        waiters.register(&one, Waker::noop());
        waiters.release_first();
        assert!(!waiters.take_release(&one) && waiters.take_release(&two) && !waiters.take_release(&two));
        waiters.release_first();
        waiters.release_first();
        assert_eq!(waiters.counts(), (0, 1));
        waiters.remove(&one);
        assert_eq!(waiters.counts(), (0, 0));
    }
}
