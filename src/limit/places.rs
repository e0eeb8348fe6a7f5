//! How many at once: places that are taken and given back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The places of one department, or of one department on one command.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<AtomicU32>);

/// A taken place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Taken(Places);

impl Places {
    /// Takes one of `cap` places, if one is free.
    pub(super) fn take(&self, cap: NonZeroU32) -> Option<Taken> {
        let free = |taken| (taken < cap.get()).then(|| taken + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Taken(self.clone()))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
