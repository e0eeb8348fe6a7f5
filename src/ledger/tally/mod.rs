//! The tally: a memory-mapped file of slots, its layout, the order of stores, and the keeper-worker handshake.
//!
//! Guarantees:
//! - Values that a worker has stored survive the end of the process.
//! - A reader never takes a half-written slot for a complete one (seqlock-like read).
//!
//! Leaves to `count`: which slot counts which series. Leaves to `fold`: the sums of the slots.

mod atomics;
pub(crate) mod conservation;
pub(crate) mod disk;
pub(crate) mod file;
mod mmap;
pub(crate) mod seal_protocol;
pub(crate) mod slot;
pub(crate) mod slot_copy;
pub(crate) mod stores;
