//! The figures of a year's book, as printed and stored.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::fill::Rows;
use super::{Options, Report};
use crate::machine::Machine;

/// Reports of the last month.
#[derive(Clone, Copy, Debug)]
pub struct Reports {
    /// By department, subsystem, command and outcome.
    pub whole: Report,
    /// By department and day.
    pub days: Report,
}

/// A year's book.
#[derive(Clone, Debug)]
pub struct Book {
    pub options: Options,
    pub rows: Rows,
    pub bytes: u64,
    pub built: Duration,
    pub reports: Reports,
}

impl Book {
    /// As Markdown.
    pub fn table(&self) -> String {
        let Options { departments, each, kept_days, .. } = self.options;
        let Rows { admission, usage, days } = self.rows;
        let Reports { whole, days: by_day } = self.reports;
        let took =
            |report: &Report| format!("{:.3?} (first {:.3?}), {} lines", report.median, report.first, report.lines);
        let rows = [
            ("departments x commands, each used in every hour", format!("{departments} x {each}")),
            ("days of which hours are kept, of 365", kept_days.to_string()),
            ("rows of `admission` / `usage` / `day_sum`", format!("{admission} / {usage} / {days}")),
            ("book", format!("{}.{:02} GB", self.bytes / 1_000_000_000, self.bytes % 1_000_000_000 / 10_000_000)),
            ("report of a month by department, subsystem, command, outcome; median", took(&whole)),
            ("report of a month by department and day; median", took(&by_day)),
            ("commands in that month, by report and by rows alike", whole.commands.to_string()),
            ("building it", format!("{:.0?}", self.built)),
        ];
        let mut table = String::from("| a year's book | |\n|---|---|\n");
        for (what, value) in rows {
            let _ = writeln!(table, "| {what} | {value} |"); // writing to a String cannot fail
        }
        table
    }

    pub fn keep(&self, machine: &Machine, date: &str, out: Option<&Path>) -> Result<()> {
        let default = || PathBuf::from(format!("loadtests/results/{date}-year-book.md"));
        let file = out.map_or_else(default, Path::to_owned);
        let command_line = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let (Machine { cpu, cores, kernel, load_before }, version) = (machine, env!("CARGO_PKG_VERSION"));
        let text = format!(
            "# A year's book, {date}\n\n`loadtests {command_line}`\n\n* machine: {cpu}, {cores} cores, Linux {kernel}, load \
             before the run {load_before}\n* Tallygate {version}, SQLite {}\n\n{}",
            rusqlite::version(),
            self.table()
        );
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        eprintln!("kept in {}", file.display());
        Ok(())
    }
}
