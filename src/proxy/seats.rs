//! So many of something at once on one thread, and no more.
//!
//! Guarantees: never more than [`Seats::new`] says; a seat is free again when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// See the module.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: Rc<Cell<usize>>,
}

/// One of them, taken.
#[derive(Debug)]
pub(super) struct Seat(Rc<Cell<usize>>);

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Rc::default() }
    }

    /// Takes one, if one is free.
    pub(super) fn take(&self) -> Option<Seat> {
        (self.taken.get() < self.max).then(|| {
            self.taken.set(self.taken.get() + 1);
            Seat(Rc::clone(&self.taken))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
