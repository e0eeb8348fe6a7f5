//! The same usage in the forms that people and programs read.

mod csv;
pub mod fit;
pub mod human;
mod json;
mod table;

pub use csv::csv;
pub use fit::Look;
pub use json::json;
pub use table::table;
