//! `tallygate report`: reports usage from the ledger's files, with or without a running gateway.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::clock::Clock;
use crate::ledger::LedgerFiles;
use crate::ledger::audit::completeness;
use crate::model::{CalendarOffset, Name, Window};
use crate::report::render::TableTarget;
use crate::report::{
    GroupKeys, LedgerFacts, ReportCoverage, ReportQuery, ReportRange, ReportResolution, UsageReport, render,
    utc_seconds_text,
};

use super::check::plural;
use super::{BadUsage, TableFormat, print_message};

/// Arguments of `tallygate report`.
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

/// Arguments of `tallygate report usage`.
#[derive(Debug, Args)]
struct UsageArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The first day or month, in the ledger's calendar, or a whole hour such as 2026-10-01T08:00:00+08:00 [default:
    /// the beginning of this month]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The end of the range, exclusive: a day, a month or a whole hour [default: the end of this month]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// One whole month, 2026-10, or day, 2026-10-05, instead of --from and --to
    #[arg(long, value_name = "PERIOD", conflicts_with_all = ["from", "to"])]
    period: Option<String>,
    /// Only of this department; may be given several times
    #[arg(long = "department", value_name = "ID", value_parser = Name::parse)]
    departments: Vec<Name>,
    /// What to group by, of department, subsystem, command, outcome, blame, month, day, hour
    #[arg(long, value_name = "KEYS", default_value = "department,subsystem,command,outcome")]
    by: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
}

/// Prints a report.
pub fn report(args: &ReportArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        ReportCommand::Usage(args) => report_usage(args, clock, out),
    }
}

fn report_usage(args: &UsageArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let by = GroupKeys::parse(&args.by).map_err(|error| BadUsage(format!("--by: {error}")))?;
    let renderer = usage_renderer(args.format);
    let files = LedgerFiles::open(super::ledger::existing_book(&args.ledger)?)?;
    let range = parse_range(args, files.calendar(), clock.window())?;
    let facts = read_facts(&files, (&range, by.resolution()), (&args.ledger, clock))?;
    let usage =
        UsageReport::from_facts(ReportQuery { range, group_by: by, departments: args.departments.clone() }, facts)?;
    if usage.partial_adjustments > 0 {
        let corrections = plural(usage.partial_adjustments, "correction");
        print_message(&format!("note: {corrections} of a period that is only partly in this range: not shown"));
    }
    out.write_all(renderer(&usage)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn parse_range(args: &UsageArgs, calendar: CalendarOffset, now: Window) -> Result<ReportRange, BadUsage> {
    let range = match &args.period {
        Some(period) => ReportRange::from_period(period, calendar),
        None => ReportRange::parse(args.from.as_deref(), args.to.as_deref(), calendar, now),
    };
    range.map_err(|error| BadUsage(error.to_string()))
}

/// Reads the ledger's rows of a range, at the resolution that the report needs.
fn read_facts(
    files: &LedgerFiles,
    (range, grain): (&ReportRange, ReportResolution),
    (path, clock): (&Path, &Clock),
) -> anyhow::Result<LedgerFacts> {
    let rows = match grain {
        ReportResolution::Whole => files.usage_total(range.windows()),
        ReportResolution::Day => files.usage_by_day(range.windows()),
        ReportResolution::Hour => files.usage_by_hour(range.windows()),
    }?;
    let now = clock.wall();
    let completeness = completeness(path, &range.windows(), now)?;
    Ok(LedgerFacts {
        rows,
        calendar: files.calendar(),
        adjustments: files.adjustments()?,
        names: files.department_names()?,
        coverage: ReportCoverage { made_at: utc_seconds_text(now), completeness },
    })
}

fn usage_renderer(format: TableFormat) -> fn(&UsageReport) -> anyhow::Result<String> {
    match format {
        TableFormat::Table => |usage| Ok(render::render_table(usage, TableTarget::from_stdout())),
        TableFormat::Csv => |usage| Ok(render::render_csv(usage)?),
        TableFormat::Json => |usage| Ok(render::render_json(usage)?),
    }
}
