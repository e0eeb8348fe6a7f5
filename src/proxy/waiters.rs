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
pub(super) struct Waiters {
    next: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
    /// The places of those who may go on.
    let_through: RefCell<BTreeSet<u64>>,
}

/// A place among those who wait, taken or not.
#[derive(Debug, Default)]
pub(super) struct Place(Cell<Option<u64>>);

impl Waiters {
    /// Waits at this place, behind all others if it was left.
    pub(super) fn wait(&self, place: &Place, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        let number = place.0.get().unwrap_or_else(|| {
            self.next.set(self.next.get() + 1);
            self.next.get()
        });
        place.0.set(Some(number));
        wakers.entry(number).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    /// Waits no more.
    pub(super) fn leave(&self, place: &Place) {
        if let Some(number) = place.0.take() {
            self.wakers.borrow_mut().remove(&number);
            self.let_through.borrow_mut().remove(&number);
        }
    }

    /// Lets whoever has waited longest through.
    pub(super) fn let_first_through(&self) {
        let first = self.wakers.borrow_mut().pop_first();
        if let Some((number, waker)) = first {
            self.let_through.borrow_mut().insert(number);
            waker.wake();
        }
    }

    /// Whether this place is let through; it is not a second time.
    pub(super) fn is_let_through(&self, place: &Place) -> bool {
        place.0.get().is_some_and(|number| self.let_through.borrow_mut().remove(&number))
    }

    /// Whether somebody is let through who has not come round to it.
    pub(super) fn is_anybody_let_through(&self) -> bool {
        !self.let_through.borrow().is_empty()
    }

    /// Whether nobody waits who is not let through.
    pub(super) fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// Wakes all, to look for themselves.
    pub(super) fn wake_all(&self) {
        self.let_through.borrow_mut().clear();
        let wakers = self.wakers.take();
        wakers.into_values().for_each(Waker::wake);
    }
}

/// Counts how often it is woken.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Woken(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many wait, and how many are let through.
    impl Waiters {
        pub(in super::super) fn counts(&self) -> (usize, usize) {
            (self.wakers.borrow().len(), self.let_through.borrow().len())
        }
    }

    #[test]
    fn a_place_waits_once_and_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let (one, two) = (Place::default(), Place::default());
        for _ in 0..10_000 {
            waiters.wait(&one, Waker::noop());
            waiters.wait(&two, Waker::noop());
            waiters.wait(&one, Waker::noop());
            assert_eq!(waiters.counts(), (2, 0));
            waiters.leave(&one);
            waiters.leave(&two);
        }
        assert_eq!(waiters.counts(), (0, 0));
    }

    #[test]
    fn who_waited_longest_is_let_through_once() {
        let waiters = Waiters::default();
        let (one, two) = (Place::default(), Place::default());
        waiters.wait(&two, Waker::noop());
        waiters.wait(&one, Waker::noop());
        waiters.let_first_through();
        assert!(!waiters.is_let_through(&one) && waiters.is_let_through(&two) && !waiters.is_let_through(&two));
        waiters.let_first_through();
        waiters.let_first_through();
        assert_eq!(waiters.counts(), (0, 1));
        waiters.leave(&one);
        assert_eq!(waiters.counts(), (0, 0));
    }
}
