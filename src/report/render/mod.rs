//! The renderers of a usage report: table, CSV and JSON.

mod csv;
pub mod fitted_table;
pub mod human_units;
mod json;
mod table;

pub use csv::render_csv;
pub use fitted_table::TableTarget;
pub use json::render_json;
pub use table::render_table;
