//! DER (X.690): a reader of elements, and signed bytes.
//!
//! Guarantees: reads at most its input, never panics.

pub(crate) mod der_reader;
pub(crate) mod signed_bytes;
