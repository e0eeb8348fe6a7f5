//! A semaphore for one thread: bounds how many of something exist at once.
//!
//! Guarantees:
//! - At most `max` permits exist ([`LocalSemaphore::new`]).
//! - A permit is released when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// A semaphore for one thread.
#[derive(Debug)]
pub(crate) struct LocalSemaphore {
    max: usize,
    taken: Rc<Cell<usize>>,
}

/// A permit of a [`LocalSemaphore`].
#[derive(Debug)]
pub(crate) struct LocalPermit(Rc<Cell<usize>>);

impl LocalSemaphore {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Rc::default() }
    }

    /// Acquires a permit, if one is free.
    pub(crate) fn try_acquire(&self) -> Option<LocalPermit> {
        (self.taken.get() < self.max).then(|| {
            self.taken.set(self.taken.get() + 1);
            LocalPermit(Rc::clone(&self.taken))
        })
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
