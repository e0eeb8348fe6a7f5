//! `tallygate ledger adjust`: adds a correction, and asks for confirmation if the correction looks like a mistake.
//!
//! Guarantees: two kinds of correction are added only after a confirmation on the terminal or with `--yes`:
//! - a correction larger than the usage that it corrects;
//! - a correction of a period that has not begun.
//!
//! Leaves to `ledger::book::adjustments`: the validity of a correction.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::clock::Clock;
use crate::ledger::{Adjustment, LedgerError, LedgerFiles, add_adjustment as add, check_adjustment};
use crate::model::Name;
use crate::report::ReportRange;
use crate::report::render::human_units::{grouped_signed, signed_digits};

use super::ledger_paths::existing_book;
use super::{BadUsage, OutputFormat, print_message};

/// Arguments of `tallygate ledger adjust`: the correction to add.
#[derive(Debug, Args)]
pub struct AdjustArgs {
    /// The ledger's book; the gateway may be running
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The department whose usage is corrected
    #[arg(long, value_parser = Name::parse)]
    department: Name,
    /// Only the usage of this subsystem
    #[arg(long, value_parser = Name::parse)]
    subsystem: Option<Name>,
    /// Only the usage of this command of the subsystem
    #[arg(long, value_parser = Name::parse)]
    command: Option<Name>,
    /// A month such as 2026-10, or a day such as 2026-10-05
    #[arg(long)]
    period: String,
    /// Units to add, or to subtract (--units=-5)
    #[arg(long, allow_hyphen_values = true)]
    units: i64,
    /// Why
    #[arg(long)]
    reason: String,
    /// The person responsible for it
    #[arg(long)]
    who: String,
    /// Adds it without confirmation, also if it exceeds the usage of its period or the period is in the future
    #[arg(long)]
    yes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// Adds the correction and prints its number.
pub fn adjust(args: &AdjustArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (path, adjustment) = (existing_book(&args.ledger)?, args.adjustment());
    as_usage_error(check_adjustment(path, &adjustment))?;
    let doubts = suspicions(path, &adjustment, clock)?;
    if !doubts.is_empty() && !args.yes {
        ask_confirmation(&doubts)?;
    }
    let number = as_usage_error(add(path, &adjustment, clock))?;
    match args.format {
        OutputFormat::Json => writeln!(out, "{}", serde_json::json!({ "number": number }))?,
        OutputFormat::Table => writeln!(out, "correction {number} is added and sealed")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Converts an invalid correction into a usage error, because it is not a fault of the ledger.
fn as_usage_error<T>(result: Result<T, LedgerError>) -> anyhow::Result<T> {
    match result {
        Err(LedgerError::Adjustment(why)) => Err(BadUsage(why.to_string()).into()),
        result => Ok(result?),
    }
}

impl AdjustArgs {
    fn adjustment(&self) -> Adjustment {
        Adjustment {
            department: self.department.clone(),
            subsystem: self.subsystem.clone(),
            command: self.command.clone(),
            period: self.period.clone(),
            units: self.units,
            reason: self.reason.clone(),
            who: self.who.clone(),
        }
    }
}

/// The reasons why the correction may be a mistake. Empty if its period is invalid, because the ledger itself rejects
/// that.
fn suspicions(path: &Path, adjustment: &Adjustment, clock: &Clock) -> Result<Vec<String>, LedgerError> {
    let files = LedgerFiles::open(path)?;
    let Ok(range) = ReportRange::from_period(&adjustment.period, files.calendar()) else { return Ok(Vec::new()) };
    let mut doubts = Vec::new();
    if range.from > clock.window() {
        doubts.push(format!("the period {} has not begun", adjustment.period));
    }
    let used = used_units(&files, adjustment, &range)?;
    if i128::from(adjustment.units.unsigned_abs()) > used.abs() {
        doubts.push(format!(
            "{} units exceed the {} units, earlier corrections included, of the period {}",
            signed_digits(i128::from(adjustment.units)),
            grouped_signed(used),
            adjustment.period
        ));
    }
    Ok(doubts)
}

/// The units that the correction applies to: the usage and the earlier corrections of the period.
fn used_units(files: &LedgerFiles, adjustment: &Adjustment, range: &ReportRange) -> Result<i128, LedgerError> {
    let matches = |department: &str, subsystem: Option<&str>, command: Option<&str>| {
        let is = |wanted: &Option<Name>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|name| found == Some(name.as_str()))
        };
        department == adjustment.department.as_str()
            && is(&adjustment.subsystem, subsystem)
            && is(&adjustment.command, command)
    };
    let rows = files.usage_total(range.windows())?;
    let rows = rows
        .iter()
        .filter(|row| matches(row.department.as_str(), Some(row.subsystem.as_str()), Some(row.command.as_str())));
    let used: i128 = rows.map(|row| i128::from(row.totals.units)).sum();
    let earlier = files.adjustments()?;
    let earlier = earlier.iter().map(|row| &row.adjustment).filter(|row| {
        let period = row.windows(files.calendar());
        period.is_some_and(|period| range.from <= period.start && period.end <= range.to)
            && matches(&row.department, row.subsystem.as_deref(), row.command.as_deref())
    });
    Ok(used + earlier.map(|row| i128::from(row.units)).sum::<i128>())
}

/// Asks for confirmation on a terminal. Without a terminal, only `--yes` confirms.
fn ask_confirmation(doubts: &[String]) -> Result<(), BadUsage> {
    let doubts = doubts.join("; ");
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(BadUsage(format!("nothing was added: {doubts}. To add it anyway, give --yes")));
    }
    print_message(&format!("{doubts}."));
    // A failed write is ignored.
    let _ = write!(io::stderr(), "Add the correction anyway? It cannot be removed, only corrected by another. [y/N] ");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(BadUsage("nothing was added".to_owned())),
    }
}
