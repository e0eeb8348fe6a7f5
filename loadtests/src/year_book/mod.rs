//! `loadtests year-book`: measures the size of a year's book and the time of a monthly report of it.
//!
//! Guarantees:
//! - The ledger itself creates the file, its tables and its views. Rows are inserted in bulk, so that a year takes
//!   minutes.
//! - Every series is used in every hour.
//! - The report must be equal to the sums of its month's rows, exactly, or the run fails.
//!
//! Not created: the seals of hours, 300 bytes an hour.

mod fill;
mod result;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use tallygate::clock::Clock;
use tallygate::ledger::{Ledger, LedgerFiles, LedgerSettings};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, Name};
use tallygate::report::{GroupKeys, ReportRange, ReportResolution, UsageReport, render};

use crate::machine::{Machine, today};
use fill::Year;
use result::{Book, Reports};

/// The first hour, in the city's time zone.
const NEW_YEAR: &str = "2025-12-31T16:00:00Z";
/// The last month of that year, as the range of a report.
const LAST_MONTH: [&str; 2] = ["2026-12-01", "2027-01-01"];
/// Number of repetitions of each report.
const ROUNDS: usize = 5;
/// Upper bound of the size of a year's book.
const MOST_BYTES: u64 = 10_000_000_000;
const MOST_TIME: Duration = Duration::from_secs(2);

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Departments
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub departments: u32,
    /// Commands that each department calls, all of them in every hour
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub each: u32,
    /// Number of last days whose hours are kept, as in `ledger.compactAfter`; 365 for all
    #[arg(long, default_value_t = 92, value_parser = clap::value_parser!(u32).range(31..=365))]
    pub kept_days: u32,
    /// Path of the book, which is not removed [default: a folder that is removed after the run]
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// File of the result, as Markdown [default: loadtests/results/DATE-year-book.md]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Builds and measures the year, prints and stores the result; returns an error if the year is too large, too slow or
/// wrong.
pub fn year_book(options: &Options) -> Result<()> {
    let machine = Machine::here()?;
    let folder = tempfile::tempdir()?;
    let path = options.ledger.clone().unwrap_or_else(|| folder.path().join("ledger.db"));
    ensure!(!path.exists(), "{} is there already; a year begins with a new book", path.display());
    let begin = Instant::now();
    make(&path)?;
    let year = Year::new(options.departments, options.each, options.kept_days)?;
    let rows = year.fill(&path)?;
    let built = begin.elapsed();
    let reports = Reports {
        whole: report(&path, "department,subsystem,command,outcome")?,
        days: report(&path, "department,day")?,
    };
    let expected = year.commands_of_month(&path, LAST_MONTH)?;
    ensure!(
        reports.whole.commands == expected,
        "the report says {} commands, the rows {expected}",
        reports.whole.commands
    );
    ensure!(reports.days.commands == expected, "the report by day says {}, the rows {expected}", reports.days.commands);
    let book = Book { options: options.clone(), rows, bytes: std::fs::metadata(&path)?.len(), built, reports };
    println!("{}", book.table());
    book.keep(&machine, &today()?, options.out.as_deref())?;
    ensure!(book.bytes < MOST_BYTES, "the book is larger than {MOST_BYTES} bytes");
    let slowest = book.reports.whole.median.max(book.reports.days.median);
    ensure!(slowest < MOST_TIME, "a monthly report takes {slowest:?}, more than {MOST_TIME:?}");
    Ok(())
}

/// Creates an empty book, as a gateway does.
fn make(path: &Path) -> Result<()> {
    let settings = LedgerSettings {
        path: path.to_owned(),
        gateway: Name::parse("year-book")?,
        sync_every: Duration::from_secs(1),
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let clock = Clock::manual(NEW_YEAR.parse().context("the first hour")?);
    let failed = Box::new(|error| eprintln!("the keeper gave up: {error}"));
    let (ledger, _) = Ledger::open(settings, clock, failed)?;
    Ok(ledger.close()?)
}

/// A report of the last month, as `tallygate report usage --format csv` makes it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    first: Duration,
    median: Duration,
    lines: usize,
    commands: u64,
}

fn report(path: &Path, by: &str) -> Result<Report> {
    let mut times = Vec::new();
    let (mut lines, mut commands) = (0, 0);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let files = LedgerFiles::open(path)?;
        let by = GroupKeys::parse(by)?;
        let [from, to] = LAST_MONTH.map(Some);
        let range = ReportRange::parse(from, to, files.calendar(), Clock::system().window())?;
        let rows = match by.resolution() {
            ReportResolution::Whole => files.usage_total(range.windows())?,
            ReportResolution::Day => files.usage_by_day(range.windows())?,
            ReportResolution::Hour => files.usage_by_hour(range.windows())?,
        };
        let usage = UsageReport::group(&rows, range, files.calendar(), by)?;
        let text = render::render_csv(&usage)?;
        times.push(begin.elapsed());
        (lines, commands) = (text.lines().count() - 1, usage.total.commands);
    }
    let first = times[0];
    times.sort();
    Ok(Report { first, median: times[ROUNDS / 2], lines, commands })
}

fn open(path: &Path) -> Result<Connection> {
    Connection::open(path).with_context(|| format!("opening the book {}", path.display()))
}
