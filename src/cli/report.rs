//! `tallygate report`: what was used, from the ledger's files, whether the gateway runs or not.

use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::clock::Clock;
use crate::ledger::LedgerFiles;
use crate::report::{By, Range, Usage, render};

use super::check::counted;
use super::{BadUsage, Format, tell};

/// What to explain.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(subcommand)]
    command: ReportCommand,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// Exact usage of a range of time
    Usage(UsageArgs),
}

/// Which usage, and how to show it.
#[derive(Debug, Args)]
struct UsageArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The first day, in the ledger's calendar, or a whole hour such as 2026-10-01T08:00:00+08:00 [default: the beginning
    /// of this month]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The first day that is not part of it, or a whole hour [default: the end of this month]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// What to group by, of department, subsystem, command, outcome, day
    #[arg(long, value_name = "KEYS", default_value = "department,subsystem,command,outcome")]
    by: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints a report.
pub fn report(args: &ReportArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        ReportCommand::Usage(args) => usage(args, clock, out),
    }
}

fn usage(args: &UsageArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let by = By::parse(&args.by).map_err(|error| BadUsage(format!("--by: {error}")))?;
    let renderer = renderer(args.format)?;
    let files = open(&args.ledger)?;
    let calendar = files.calendar();
    let range = Range::parse(args.from.as_deref(), args.to.as_deref(), calendar, clock.window())
        .map_err(|error| BadUsage(error.to_string()))?;
    let rows = match by.knows_no_time() {
        true => files.usage_in_whole(range.windows()),
        false => files.usage_by_day(range.windows()),
    }?;
    let usage = Usage::group(&rows, range, calendar, by)?.with_adjustments(files.adjustments()?);
    if usage.cut_adjustments > 0 {
        let corrections = counted(usage.cut_adjustments, "correction");
        tell(&format!("note: {corrections} of a period that is only in part in this range: not shown"));
    }
    out.write_all(renderer(&usage)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn open(book: &Path) -> anyhow::Result<LedgerFiles> {
    Ok(LedgerFiles::open(super::ledger::existing(book)?)?)
}

fn renderer(format: Format) -> Result<fn(&Usage) -> anyhow::Result<String>, BadUsage> {
    match format {
        Format::Table => Ok(|usage| Ok(render::table(usage, look()))),
        Format::Csv => Ok(|usage| Ok(render::csv(usage)?)),
        Format::Json => Ok(|usage| Ok(render::json(usage)?)),
        Format::Xlsx => {
            Err(BadUsage("--format xlsx is not in this release; csv opens in every spreadsheet".to_owned()))
        }
        Format::Parquet => Err(BadUsage("--format parquet is not in this release; use csv or json".to_owned())),
    }
}

fn look() -> render::Look {
    if stdout().is_terminal() { render::Look::Terminal } else { render::Look::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_later_releases_are_refused_in_words() {
        for (format, word) in [(Format::Xlsx, "csv opens"), (Format::Parquet, "use csv or json")] {
            let said = renderer(format).expect_err("not yet").to_string();
            assert!(said.contains(word), "{said}");
        }
        assert!(renderer(Format::Table).is_ok());
    }
}
