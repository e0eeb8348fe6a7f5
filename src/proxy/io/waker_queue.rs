//! A FIFO queue of wakers for one event on one thread.
//!
//! Guarantees:
//! - A waiter has one place in the queue, however often it is polled, also after a release. Each operation costs the
//!   same however long the queue is.
//! - A release stays valid until its waiter is polled, and is used once, whatever has changed in between.
//! - A waiter that may be dropped while it waits removes itself. So the queue is never longer than the number of
//!   streams.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

/// A FIFO queue of wakers.
#[derive(Debug, Default)]
pub(crate) struct WakerQueue {
    next: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
    /// The numbers of released waiters.
    released: RefCell<BTreeSet<u64>>,
}

/// A waiter's place in the queue; empty while it does not wait.
#[derive(Debug, Default)]
pub(crate) struct WaiterId(Cell<Option<u64>>);

impl WakerQueue {
    /// Adds the waiter at the end of the queue, or renews the waker of its place.
    pub(crate) fn register(&self, waiter: &WaiterId, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        let number = waiter.0.get().unwrap_or_else(|| {
            self.next.set(self.next.get() + 1);
            self.next.get()
        });
        waiter.0.set(Some(number));
        wakers.entry(number).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    /// Removes the waiter from the queue.
    pub(crate) fn remove(&self, waiter: &WaiterId) {
        if let Some(number) = waiter.0.take() {
            self.wakers.borrow_mut().remove(&number);
            self.released.borrow_mut().remove(&number);
        }
    }

    /// Releases the first waiter of the queue.
    pub(crate) fn release_first(&self) {
        let first = self.wakers.borrow_mut().pop_first();
        if let Some((number, waker)) = first {
            self.released.borrow_mut().insert(number);
            waker.wake();
        }
    }

    /// Takes the release of this waiter; true only once per release.
    pub(crate) fn take_release(&self, waiter: &WaiterId) -> bool {
        waiter.0.get().is_some_and(|number| self.released.borrow_mut().remove(&number))
    }

    /// Whether a released waiter has not been polled yet.
    pub(crate) fn has_unused_release(&self) -> bool {
        !self.released.borrow().is_empty()
    }

    /// The number of waiters, with released ones that have not been polled yet.
    pub(crate) fn places(&self) -> usize {
        self.wakers.borrow().len() + self.released.borrow().len()
    }

    /// Whether no other waiter was there before this one.
    pub(crate) fn is_first(&self, waiter: &WaiterId) -> bool {
        let before = |other: Option<u64>| other.zip(waiter.0.get()).is_some_and(|(other, own)| other < own);
        !before(self.wakers.borrow().keys().next().copied()) && !before(self.released.borrow().first().copied())
    }

    /// Whether no waiter is in the queue; released waiters do not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// Wakes all waiters. Each checks its own condition.
    pub(crate) fn wake_all(&self) {
        self.released.borrow_mut().clear();
        let wakers = self.wakers.take();
        wakers.into_values().for_each(Waker::wake);
    }
}

/// Counts its wake-ups.
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

    /// The number of waiters, and the number of unused releases.
    impl WakerQueue {
        pub(crate) fn counts(&self) -> (usize, usize) {
            (self.wakers.borrow().len(), self.released.borrow().len())
        }
    }

    #[test]
    fn waiter_is_registered_once_and_removed_without_trace() {
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
    fn longest_waiter_is_released_once() {
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
