//! So many of something at once on one thread, and no more.
//!
//! Guarantees: never more than [`LocalSemaphore::new`] says; a seat is free again when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// See the module.
#[derive(Debug)]
pub(crate) struct LocalSemaphore {
    max: usize,
    taken: Rc<Cell<usize>>,
}

/// One of them, taken.
#[derive(Debug)]
pub(crate) struct LocalPermit(Rc<Cell<usize>>);

impl LocalSemaphore {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Rc::default() }
    }

    /// Takes one, if one is free.
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
