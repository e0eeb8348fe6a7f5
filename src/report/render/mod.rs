//! The same usage in the forms that people and programs read.

mod csv;
mod json;
mod table;

pub use csv::csv;
pub use json::json;
pub use table::{Look, table};
