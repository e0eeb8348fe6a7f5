//! How many at once: places that are taken and given back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The places taken; shared by all plans that have limited them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<AtomicU32>);

impl Places {
    /// Takes a place if fewer than `cap` are taken. Whoever took one gives it back.
    #[must_use]
    pub(super) fn take(&self, cap: NonZeroU32) -> bool {
        let free = |taken| (taken < cap.get()).then(|| taken + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok()
    }

    /// Whether none is taken.
    pub(super) fn are_free(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Gives a place back.
    pub(super) fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
