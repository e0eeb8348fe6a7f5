//! The command line.

pub mod check;
pub mod explain;

/// How a command shows its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}
