//! The tally: a memory-mapped file of slots, its layout, the order of stores, and the handshake between keeper and
//! workers.
//!
//! Guarantees: what a worker has stored survives the end of the process; a reader never sees a half-written slot as
//! a whole one. Leaves to `count`: which slot counts what; to `fold`: what slots add up to.

mod atomics;
pub(crate) mod conservation;
pub(crate) mod disk;
pub(crate) mod file;
mod mmap;
pub(crate) mod seal_protocol;
pub(crate) mod slot;
pub(crate) mod slot_copy;
pub(crate) mod stores;
