//! The renderers of a usage report and of a reconciliation: table, CSV and JSON.

mod csv;
pub mod fitted_table;
pub mod human_units;
mod json;
mod reconciled;
mod table;

pub use csv::render_csv;
pub use fitted_table::TableTarget;
pub use json::render_json;
pub use reconciled::{explanation, render_reconciliation_csv, render_reconciliation_json, render_reconciliation_table};
pub use table::render_table;
