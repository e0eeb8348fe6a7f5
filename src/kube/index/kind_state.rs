//! What the index counts for each kind: relists, and objects that were left out.
//!
//! Guarantees:
//! - A relist that begins again before its end counts as one.
//!
//! Leaves to others:
//! - the objects: `fact_store`, `endpoints`.

/// The largest number of objects of one kind. A fact needs 0.5 to 2 KiB, so a kind needs at most 100 MiB.
pub const OBJECTS_MAX: usize = 50_000;

/// The relists of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KindState {
    /// The number of the relist that began last. Objects carry the number of the relist that showed them last.
    pub(super) relist: u64,
    is_relisting: bool,
    pub(super) is_synced: bool,
    pub(super) left_out: u64,
}

impl KindState {
    pub(super) fn begin(&mut self) {
        self.relist += 1;
        self.is_relisting = true;
    }

    /// Ends a relist. Returns whether one had begun.
    pub(super) fn end(&mut self) -> bool {
        let ended = std::mem::take(&mut self.is_relisting);
        self.is_synced |= ended;
        ended
    }

    pub(super) fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }
}
