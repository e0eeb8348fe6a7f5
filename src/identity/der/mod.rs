//! DER (X.690): a reader of encoded elements, and signed data with its signature.
//!
//! Guarantees:
//! - The reader reads at most its input.
//! - The reader never panics.

pub(crate) mod der_reader;
pub(crate) mod signed_bytes;
