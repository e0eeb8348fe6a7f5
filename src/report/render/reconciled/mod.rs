//! The renderers of a reconciliation. None of them computes anything but sums.

mod csv;
mod json;
mod table;

pub use self::csv::render_reconciliation_csv;
pub use self::json::render_reconciliation_json;
pub use self::table::{explanation, render_reconciliation_table};
