//! Plain values of the ledger: measures, totals and errors.
//!
//! Guarantees: this module uses no file, no clock and no thread. Every other module of the ledger may import it.

pub(crate) mod error;
pub(crate) mod measures;
