//! The hash chain: seals, the canonical text that seals cover, and the rows that make up this text.
//!
//! Guarantees:
//! - The text that a seal covers can be built from the book alone.
//! - Each seal covers the hash of the seal before it.
//!
//! Leaves to `book`: the time of sealing, and the sums.

pub(crate) mod canonical;
pub(crate) mod canonical_rows;
pub(crate) mod seal;
