//! Explaining: exact usage, grouped and shown.
//!
//! Guarantees: sums are whole numbers and checked; ranges are half-open and made of whole windows; every format shows the
//! same rows. Pure: who reads the ledger and where the text goes is for `cli` and `admin`.

mod grouping;
pub mod render;
mod report_query;
mod report_range;
mod usage_report;

pub use self::grouping::{BadGroupKey, GroupKey, GroupKeys, ReportResolution};
pub use report_query::{LedgerFacts, ReportCoverage, ReportQuery, utc_seconds_text};
pub use report_range::{BadReportRange, ReportRange};
pub use usage_report::{ReportRow, SumOverflow, UsageReport};
