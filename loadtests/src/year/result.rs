//! The figures of a year, as printed and stored.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::Machine;

/// A year that was counted and verified.
#[derive(Clone, Debug, Serialize)]
pub struct Year {
    pub date: String,
    pub command_line: String,
    pub machine: Machine,
    pub commands: u64,
    pub hours: u32,
    pub series: usize,
    pub workers: u64,
    /// Time from opening the ledger to closing it.
    pub elapsed: Duration,
    pub refused: u64,
    pub rows: usize,
    /// Time for reading the whole year back, hour by hour.
    pub read: Duration,
    pub sizes: Sizes,
}

/// Sizes of files, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sizes {
    pub book: u64,
    /// The largest size of the tally.
    pub tally: u64,
}

impl Sizes {
    pub fn of(book: &Path, tally: u64) -> Result<Self> {
        let file = std::fs::metadata(book).with_context(|| format!("looking at {}", book.display()))?;
        Ok(Self { book: file.len(), tally })
    }
}

impl Year {
    /// Time of one worker thread per command, in picoseconds.
    fn picoseconds(&self) -> u128 {
        self.elapsed.as_nanos() * 1000 * u128::from(self.workers) / u128::from(self.commands.max(1))
    }

    /// The result as a Markdown table.
    pub fn table(&self) -> String {
        let picoseconds = self.picoseconds();
        let rows = [
            ("commands, all found in the book, exactly", self.commands.to_string()),
            ("hours", self.hours.to_string()),
            ("series (department and command)", self.series.to_string()),
            ("threads that counted", self.workers.to_string()),
            ("from opening to closing the ledger", format!("{:.1?}", self.elapsed)),
            ("of a thread, a command", format!("{}.{} ns", picoseconds / 1000, picoseconds % 1000 / 100)),
            ("refused for want of a slot, and tried again", self.refused.to_string()),
            ("rows read back (hour, series, outcome)", self.rows.to_string()),
            ("reading them", format!("{:.1?}", self.read)),
            ("book", mebibytes(self.sizes.book)),
            ("tally, at its greatest", mebibytes(self.sizes.tally)),
        ];
        let mut table = String::from("| a year through meter, windows and ledger | |\n|---|---|\n");
        for (what, value) in rows {
            let _ = writeln!(table, "| {what} | {value} |"); // writing to a String cannot fail
        }
        table
    }

    /// Writes JSON and Markdown side by side.
    pub fn keep(&self, out: Option<&Path>) -> Result<()> {
        let default = || PathBuf::from(format!("loadtests/results/{}-year.json", self.date));
        let json = out.map_or_else(default, Path::to_owned);
        let machine = &self.machine;
        let text = format!(
            "# A city's year, counted\n\n`loadtests {}`, {}, on {} ({} cores, Linux {}, load before the run {}).\n\n{}",
            self.command_line,
            self.date,
            machine.cpu,
            machine.cores,
            machine.kernel,
            machine.load_before,
            self.table()
        );
        for (file, text) in [(&json, serde_json::to_string_pretty(self)? + "\n"), (&json.with_extension("md"), text)] {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
            eprintln!("kept in {}", file.display());
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
