//! From text to the document: YAML, the JSON Schema, syntax errors and their lines.
//!
//! Guarantees: time and memory are proportional to the size of the text.
//!
//! Leaves to `compile`: the meaning of the document.

pub(crate) mod json;
pub(crate) mod json_schema;
mod line_locator;
pub(crate) mod problem;
pub(crate) mod source_files;
mod syntax_errors;
pub(crate) mod yaml;
