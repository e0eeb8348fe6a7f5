//! `tallygate report`: reports usage from the files of one or several ledgers, with or without running gateways, or
//! from the hours that a Prometheus has.
//!
//! Guarantees:
//! - One ledger is read after the other, so memory holds the rows of one.
//! - A report is of all ledgers that were named, or there is none.
//!
//! Leaves to `forecast`: `tallygate report forecast`. Leaves to `ledger_paths`: finding the ledgers. Leaves to
//! `distinct_ledgers`: which may be added. Leaves to `scraped`: a Prometheus.

mod forecast;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::ledger::audit::ledger_coverage;
use crate::ledger::{LedgerError, LedgerFiles};
use crate::model::{CalendarOffset, Name, Window};
use crate::report::render::TableTarget;
use crate::report::{
    GroupKeys, LedgerPart, LedgerSum, MeasureColumns, ReportQuery, ReportRange, ReportResolution, UsageReport, listed,
    render, utc_seconds_text,
};

use self::forecast::{ForecastArgs, report_forecast};
use super::check::plural;
use super::ledger_paths::LedgerPaths;
use super::scraped::reconcile::{self, ReconcileArgs};
use super::scraped::scraped_usage::{self, ScrapedUsageArgs};
use super::{BadUsage, TableFormat, distinct_ledgers, print_message};

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
    /// Compares ledgers with a Prometheus by department and day, and names the causes of differences; exit code 1 if
    /// anything stays unexplained
    Reconcile(ReconcileArgs),
    /// What departments will have used at the end of the month, and when they will meet their quotas
    Forecast(ForecastArgs),
}

/// Arguments of `tallygate report usage`.
#[derive(Debug, Args)]
struct UsageArgs {
    /// The ledger's book (the tally is found beside it), or a quoted pattern such as 'ledgers/*/ledger.db'; several
    /// ledgers, each of another gateway, are added up
    #[arg(long = "ledger", value_name = "DB", num_args = 1..)]
    #[arg(required_unless_present = "prometheus")]
    #[arg(conflicts_with_all = ["prometheus", "prometheus_token", "matchers", "calendar", "sum_by"])]
    ledgers: Vec<PathBuf>,
    #[command(flatten)]
    scraped: ScrapedUsageArgs,
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
    /// What to group by, of department, namespace, subsystem, command, outcome, blame, month, day, hour [default:
    /// department,subsystem,command,outcome; with --prometheus department,subsystem]
    #[arg(long, value_name = "KEYS")]
    by: Option<String>,
    /// Only these measures, of commands, units, request_bytes, response_bytes, duration_ns, and neither names nor
    /// corrections: a report that is the same from a ledger and from a Prometheus [default: all; with --prometheus
    /// commands,units]
    #[arg(long, value_name = "MEASURES")]
    measures: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
}

/// Prints a report.
pub fn report(args: &ReportArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        ReportCommand::Usage(args) => report_usage(args, clock, out),
        ReportCommand::Reconcile(args) => reconcile::reconcile(args, clock, out),
        ReportCommand::Forecast(args) => report_forecast(args, clock, out),
    }
}

fn report_usage(args: &UsageArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let by = args.by.as_deref().map(GroupKeys::parse).transpose();
    let by = by.map_err(|error| BadUsage(format!("--by: {error}")))?;
    let measures = args.measures.as_deref().map(MeasureColumns::parse).transpose();
    let measures = measures.map_err(|error| BadUsage(format!("--measures: {error}")))?;
    let renderer = usage_renderer(args.format);
    if let Some(source) = scraped_usage::prepare(&args.scraped, (by.as_ref(), measures), clock)? {
        let range = parse_range(args, source.calendar(), clock.window())?;
        let usage = source.report(range, &args.departments, clock.window())?;
        out.write_all(renderer(&usage)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let LedgerPaths { books, skipped } = LedgerPaths::find(&args.ledgers)?;
    for path in &skipped {
        print_message(&format!("note: {} is not a ledger: left out", path.display()));
    }
    let calendar = distinct_ledgers::check(&books)?;
    let range = parse_range(args, calendar, clock.window())?;
    let query = ReportQuery { range, group_by: by.unwrap_or_default(), departments: args.departments.clone() };
    let usage = add_up(&books, query, (calendar, clock))?;
    print_notes(&usage);
    let usage = match measures {
        Some(measures) => limited(usage, measures),
        None => usage,
    };
    out.write_all(renderer(&usage)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The report with these measures only. What a report of measures does not show is printed on stderr.
fn limited(usage: UsageReport, measures: MeasureColumns) -> UsageReport {
    if !usage.adjustments.is_empty() {
        let corrections = plural(usage.adjustments.len(), "correction");
        print_message(&format!("note: {corrections} in this range: not shown with --measures"));
    }
    let Some(completeness) = usage.coverage.as_ref().map(|coverage| coverage.completeness.clone()) else {
        return usage;
    };
    if !completeness.open_because.is_empty() {
        print_message(&format!("note: open: {}", completeness.open_because.join("; ")));
    }
    usage.limited_to(measures, completeness.state)
}

/// Prints on stderr what the report leaves out, in every format of the report.
fn print_notes(usage: &UsageReport) {
    if usage.partial_adjustments > 0 {
        let corrections = plural(usage.partial_adjustments, "correction");
        print_message(&format!("note: {corrections} of a period that is only partly in this range: not shown"));
    }
    let with_gaps: Vec<_> = usage.ledgers.iter().filter(|ledger| ledger.has_gaps()).collect();
    if usage.ledgers.len() > 1 && !with_gaps.is_empty() {
        let paths: Vec<_> = with_gaps.iter().map(|ledger| ledger.path.as_str()).collect();
        let (some, all) = (paths.len(), usage.ledgers.len());
        print_message(&format!("note: counted only a part of the range, {some} of {all} ledgers: {}", listed(&paths)));
    }
}

fn parse_range(args: &UsageArgs, calendar: CalendarOffset, now: Window) -> Result<ReportRange, BadUsage> {
    let range = match &args.period {
        Some(period) => ReportRange::from_period(period, calendar),
        None => ReportRange::parse(args.from.as_deref(), args.to.as_deref(), calendar, now),
    };
    range.map_err(|error| BadUsage(error.to_string()))
}

/// Reads one ledger after the other and adds them up. A ledger that cannot be read is an error: a sum without it would
/// be wrong.
fn add_up(
    books: &[PathBuf],
    query: ReportQuery,
    (calendar, clock): (CalendarOffset, &Clock),
) -> anyhow::Result<UsageReport> {
    let (range, resolution) = (query.range.clone(), query.group_by.resolution());
    let now = clock.wall();
    let mut sum = LedgerSum::new(query, calendar);
    for book in books {
        let part =
            read_part(book, (&range, resolution), now).map_err(|error| distinct_ledgers::in_sum(error, book, books))?;
        sum.add(part).with_context(|| format!("while {} was added", book.display()))?;
    }
    Ok(sum.finish(utc_seconds_text(now)))
}

/// Reads the part of one ledger. The coverage is read first: what is complete then has all its rows afterwards.
fn read_part(
    book: &Path,
    (range, resolution): (&ReportRange, ReportResolution),
    now: Timestamp,
) -> Result<LedgerPart, LedgerError> {
    let files = LedgerFiles::open(book)?;
    let coverage = ledger_coverage(book, &range.windows(), now)?;
    let rows = match resolution {
        ReportResolution::Whole => files.usage_total(range.windows()),
        ReportResolution::Day => files.usage_by_day(range.windows()),
        ReportResolution::Hour => files.usage_by_hour(range.windows()),
    }?;
    let (adjustments, names) = (files.adjustments()?, files.dated_department_names()?);
    Ok(LedgerPart { path: book.display().to_string(), rows, adjustments, names, coverage })
}

fn usage_renderer(format: TableFormat) -> fn(&UsageReport) -> anyhow::Result<String> {
    match format {
        TableFormat::Table => |usage| Ok(render::render_table(usage, TableTarget::from_stdout())),
        TableFormat::Csv => |usage| Ok(render::render_csv(usage)?),
        TableFormat::Json => |usage| Ok(render::render_json(usage)?),
    }
}
