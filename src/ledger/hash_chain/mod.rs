//! The hash chain: seals, the canonical text they cover, and the rows that this text is made of.
//!
//! Guarantees: a seal covers text that can be built from the book alone; each seal covers the hash of the seal
//! before it. Leaves to `book`: when to seal and what the sums are.

pub(crate) mod canonical;
pub(crate) mod canonical_rows;
pub(crate) mod seal;
