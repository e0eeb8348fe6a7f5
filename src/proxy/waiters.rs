//! Who waits for one thing on one thread, in order of arrival.
//!
//! Guarantees: each place waits once, however often it asks, and costs the same however many wait. A place that is left is
//! gone: whoever may be dropped while it waits leaves it, so there are never more than there are streams.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

/// A place among those who wait, taken or not.
#[derive(Debug, Default)]
pub(super) struct Place(Cell<Option<u64>>);

impl Place {
    /// The number it was given last.
    pub(super) fn number(&self) -> Option<u64> {
        self.0.get()
    }
}

impl Waiters {
    /// Waits at this place, behind all others if it does not wait already.
    pub(super) fn wait(&self, place: &Place, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        if let Some(known) = place.0.get().and_then(|number| wakers.get_mut(&number)) {
            return known.clone_from(waker);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        place.0.set(Some(number));
        wakers.insert(number, waker.clone());
    }

    /// Waits no more.
    pub(super) fn leave(&self, place: &Place) {
        if let Some(number) = place.0.take() {
            self.wakers.borrow_mut().remove(&number);
        }
    }

    /// Wakes whoever has waited longest; the number of its place.
    pub(super) fn wake_first(&self) -> Option<u64> {
        let (number, waker) = self.wakers.borrow_mut().pop_first()?;
        waker.wake();
        Some(number)
    }

    /// Wakes all.
    pub(super) fn wake_all(&self) {
        let wakers = self.wakers.take();
        wakers.into_values().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_waits_once_and_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let (one, two) = (Place::default(), Place::default());
        for _ in 0..10_000 {
            waiters.wait(&one, Waker::noop());
            waiters.wait(&two, Waker::noop());
            waiters.wait(&one, Waker::noop());
            assert_eq!(waiters.wakers.borrow().len(), 2);
            waiters.leave(&one);
            waiters.leave(&two);
        }
        assert!(waiters.wakers.borrow().is_empty());
        waiters.wait(&two, Waker::noop());
        waiters.wait(&one, Waker::noop());
        assert_eq!(
            (waiters.wake_first(), waiters.wake_first(), waiters.wake_first()),
            (two.number(), one.number(), None)
        );
    }
}
