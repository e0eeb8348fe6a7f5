//! The concurrency limit: a counter of commands in flight that threads share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of permits in use. Shared by all configurations that have limited the same key.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtomicSemaphore(Arc<AtomicU32>);

impl AtomicSemaphore {
    /// Acquires a permit if fewer than `cap` are in use. The caller must release the permit.
    #[must_use]
    pub(crate) fn try_acquire(&self, cap: NonZeroU32) -> bool {
        let free = |taken_units| (taken_units < cap.get()).then(|| taken_units + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok()
    }

    /// Whether no permit is in use.
    pub(crate) fn is_unused(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Releases a permit.
    pub(crate) fn release(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
