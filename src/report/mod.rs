//! Explaining: exact usage, grouped and shown.
//!
//! Guarantees: sums are whole numbers and checked; ranges are half-open and made of whole windows; every format shows the
//! same rows. Pure: who reads the ledger and where the text goes is for `cli` and `admin`.

mod query;
mod range;
pub mod render;
mod usage;

pub use query::{Coverage, LedgerFacts, UsageQuery, whole_seconds};
pub use range::{BadRange, Range};
pub use usage::{BadKey, By, Key, ReportGrain, Row, TooLarge, Usage};
