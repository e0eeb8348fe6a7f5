//! Plain values of the ledger: measures, totals and errors.
//!
//! Guarantees: no file, no clock, no thread. Every other room of the ledger may import this one.

pub(crate) mod error;
pub(crate) mod measures;
