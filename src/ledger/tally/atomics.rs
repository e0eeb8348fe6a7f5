//! The memory that the threads of the ledger share: the one door to atomic words and fences.
//!
//! A door, because the models under `models/` look at every order in which the threads may see these words: they take
//! `slot.rs`, `counting.rs`, `balance.rs` and `signals.rs` as they are and put memory that can be asked behind this name.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Words in a slot.
pub(crate) const WORDS: usize = 64;

/// A slot as it lies in the mapped file.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Slot([AtomicU64; WORDS]);

impl Slot {
    /// An empty slot outside any file.
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
