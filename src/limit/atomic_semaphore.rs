//! How many at once: places that are taken and given back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The places taken; shared by all plans that have limited them.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtomicSemaphore(Arc<AtomicU32>);

impl AtomicSemaphore {
    /// Takes a place if fewer than `cap` are taken. Whoever took one gives it back.
    #[must_use]
    pub(crate) fn try_acquire(&self, cap: NonZeroU32) -> bool {
        let free = |taken_units| (taken_units < cap.get()).then(|| taken_units + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok()
    }

    /// Whether none is taken.
    pub(crate) fn is_unused(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Gives a place back.
    pub(crate) fn release(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
