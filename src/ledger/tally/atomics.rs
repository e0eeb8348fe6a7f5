//! The memory that the threads of the ledger share: the only module that imports atomic words and fences.
//!
//! One module, because the loom models under `models/` explore every order in which the threads may see these words.
//! The models compile `slot.rs`, `slot_copy.rs`, `stores.rs`, `conservation.rs` and `seal_protocol.rs` unchanged, and
//! replace this module by instrumented memory.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Words in a slot.
pub(crate) const WORDS: usize = 64;

/// A slot as it lies in the mapped file.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Slot([AtomicU64; WORDS]);

impl Slot {
    /// Returns an empty slot outside any file.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    #[inline]
    pub(crate) fn load(&self, at: usize, ordering: Ordering) -> u64 {
        self.0[at].load(ordering)
    }

    #[inline]
    pub(crate) fn store(&self, at: usize, value: u64, ordering: Ordering) {
        self.0[at].store(value, ordering);
    }
}
