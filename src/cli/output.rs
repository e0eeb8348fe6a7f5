//! Output formats, and printing to stdout and stderr.
//!
//! Guarantees: a result is written to stdout, a message for people to stderr.

use std::io::{self, Write};

use clap::ValueEnum;

use super::exit_code::PrintError;

/// The output format of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The output format of a table of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people
    #[default]
    Table,
    /// For spreadsheets
    Csv,
    /// For programs
    Json,
}

/// Writes the whole result at once, so that a write error is distinct from an error in computing the result.
pub(crate) fn print_output(answer: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(answer).and_then(|()| out.flush());
    Ok(printed.map_err(PrintError)?)
}

/// Prints a message for people to stderr.
pub(crate) fn print_message(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // stderr is closed: the error cannot be reported
}
