//! `loadtests year`: counts a city's year of commands through meter, windows and ledger, as fast as possible.
//!
//! Guarantees:
//! - The real [`Ledger`] runs, with its keeper, its syncs, its folds and a seal for every hour.
//! - Only the calendar is simulated, so that a year passes in minutes.
//! - At the end every sum of the book must be equal to the plan, exactly, or the run fails.
//! - There are no sockets. `compare` measures the cost of a command outside counting.

mod plan;
mod result;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tallygate::clock::Clock;
use tallygate::ledger::audit::ledger_info;
use tallygate::ledger::{Ledger, LedgerFiles, LedgerSettings, Meter, MeterSeed};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, Name, Refused, Window};

use crate::machine::{Machine, today};
use plan::{Counts, Plan, Series};
use result::{Sizes, Year};

/// The first hour, in the city's time zone.
const NEW_YEAR: &str = "2025-12-31T16:00:00Z";

/// The longest wait of a worker for a slot; after it the run fails.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// Commands between two ticks of a worker's meter: far more frequent than the 100 ms of the gateway.
const TICK_EVERY: u64 = 100_000;

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Commands in the year
    #[arg(long, default_value_t = 3_560_000_000)]
    pub commands: u64,
    /// Hours in the year
    #[arg(long, default_value_t = 8_760)]
    pub hours: u32,
    /// Departments
    #[arg(long, default_value_t = 40)]
    pub departments: u32,
    /// Commands that each department calls
    #[arg(long, default_value_t = 10)]
    pub each: u32,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    pub workers: u32,
    /// Path of the ledger, which is not removed [default: a folder that is removed after the run]
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// File of the result; a table is written beside it [default: loadtests/results/DATE-year.json]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Counts the year, compares the book with the plan, prints and stores the result.
pub fn year(options: &Options) -> Result<()> {
    let machine = Machine::here()?;
    let series = (options.departments, options.each);
    let plan = Arc::new(Plan::new(options.commands, options.hours, series, u64::from(options.workers))?);
    let folder = tempfile::tempdir()?;
    let path = options.ledger.clone().unwrap_or_else(|| folder.path().join("ledger.db"));
    ensure!(!path.exists(), "{} is there already; a year begins with a new ledger", path.display());
    let counted = count(&plan, &path)?;
    let (rows, read) = check(&plan, &path)?;
    let year = Year {
        date: today()?,
        command_line: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        machine,
        commands: plan.commands,
        hours: plan.hours,
        series: plan.series.len(),
        workers: plan.workers,
        elapsed: counted.elapsed,
        refused: counted.refused,
        rows,
        read,
        sizes: Sizes::of(&path, counted.tally_bytes)?,
    };
    println!("{}", year.table());
    year.keep(options.out.as_deref())
}

/// Figures of the run itself.
struct Counted {
    elapsed: Duration,
    /// Commands that were refused because there was no slot. Each is counted as refused, and repeated.
    refused: u64,
    tally_bytes: u64,
}

/// The state that the threads share.
struct Shared {
    plan: Arc<Plan>,
    /// All workers and the calendar pass this barrier at the end of each hour, twice.
    hour: Barrier,
    refused: AtomicU64,
}

fn count(plan: &Arc<Plan>, path: &Path) -> Result<Counted> {
    let clock = Clock::manual(NEW_YEAR.parse().context("the first hour")?);
    let settings = LedgerSettings {
        path: path.to_owned(),
        gateway: Name::parse("year")?,
        sync_every: Duration::from_millis(50),
        workers: usize::try_from(plan.workers)?,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let begin = Instant::now();
    let failed = Box::new(|error| eprintln!("the keeper gave up: {error}"));
    let (ledger, seeds) = Ledger::open(settings, clock.clone(), failed)?;
    let shared =
        Arc::new(Shared { plan: Arc::clone(plan), hour: Barrier::new(seeds.len() + 1), refused: AtomicU64::new(0) });
    let workers: Vec<_> = seeds.into_iter().zip(0..).map(|(seed, number)| worker(seed, number, &shared)).collect();
    let tally_bytes = turn_hours(&shared, &clock, &path.with_extension("tally"));
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a worker panicked"))??;
    }
    ledger.close()?;
    Ok(Counted { elapsed: begin.elapsed(), refused: shared.refused.load(Ordering::Relaxed), tally_bytes })
}

/// The calendar: the hour ends when every worker has finished it. Returns the largest size of the tally.
fn turn_hours(shared: &Shared, clock: &Clock, tally: &Path) -> u64 {
    let bar = progress(u64::from(shared.plan.hours));
    let mut greatest = 0;
    for hour in 0..shared.plan.hours {
        shared.hour.wait();
        greatest = greatest.max(std::fs::metadata(tally).map_or(0, |file| file.len()));
        clock.advance(Duration::from_secs(3600));
        shared.hour.wait();
        bar.set_position(u64::from(hour) + 1);
    }
    bar.finish_and_clear();
    greatest
}

fn progress(hours: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} hour {pos} of {len}, {elapsed} gone, {eta} to go");
    let bar = ProgressBar::new(hours);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn worker(seed: MeterSeed, number: u64, shared: &Arc<Shared>) -> JoinHandle<Result<()>> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let meter = seed.into_meter();
        let first = Window::of_unix_seconds(NEW_YEAR.parse::<jiff::Timestamp>()?.as_second());
        let mut done = Ok(());
        for hour in 0..shared.plan.hours {
            if done.is_ok() {
                let commands = shared.plan.of_worker(shared.plan.of_hour(hour), number);
                done = count_hour(&shared, &meter, commands, Window(first.0 + hour));
            }
            meter.tick();
            shared.hour.wait(); // on success and failure: the other threads wait here
            shared.hour.wait();
        }
        done
    })
}

fn count_hour(shared: &Shared, meter: &Meter, commands: u64, window: Window) -> Result<()> {
    for n in 0..commands {
        let (series, finished) = shared.plan.nth(n);
        let series = &shared.plan.series[series];
        meter.received();
        match meter.open(&series.department, &series.command, 1, window) {
            Ok(ticket) => drop(ticket.settle(finished)),
            Err(refused) => {
                meter.refuse(&series.department, &series.command, refused, window);
                let again = again(shared, meter, series, window)?;
                again.settle(finished);
            }
        }
        if n % TICK_EVERY == 0 {
            meter.tick();
        }
    }
    Ok(())
}

/// Repeats the command until the keeper has provided a slot, as callers would. Every refusal is counted on both sides.
fn again(shared: &Shared, meter: &Meter, series: &Series, window: Window) -> Result<tallygate::ledger::Ticket> {
    let begin = Instant::now();
    while begin.elapsed() < SLOT_PATIENCE {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
        meter.tick();
        meter.received();
        match meter.open(&series.department, &series.command, 1, window) {
            Ok(ticket) => return Ok(ticket),
            Err(refused) => meter.refuse(&series.department, &series.command, refused, window),
        }
    }
    bail!("no slot for {} within {SLOT_PATIENCE:?}", series.department.id)
}

/// The largest number of hours without a seal at the end: those that were over when the last folds began.
const UNSEALED_MAX: u64 = 1_000;

/// Reads the year back and compares it with the plan: every series and outcome, and every hour.
fn check(plan: &Plan, path: &Path) -> Result<(usize, Duration)> {
    let unsealed = ledger_info(path)?.windows.unsealed;
    ensure!(unsealed <= UNSEALED_MAX, "{unsealed} hours have no seal: the keeper did not keep up");
    let begin = Instant::now();
    let rows = LedgerFiles::open(path)?.usage_by_hour(Window(0)..Window(u32::MAX))?;
    let read = begin.elapsed();
    let mut counts = Counts::new();
    let mut hours = std::collections::BTreeMap::<Window, u64>::new();
    let unavailable = Refused::LedgerUnavailable.name();
    for row in rows.iter().filter(|row| row.outcome.name() != unavailable) {
        let key = (row.department.to_string(), row.command.to_string(), row.outcome.name());
        *counts.entry(key).or_default() += row.totals.commands;
        *hours.entry(row.window).or_default() += row.totals.commands;
    }
    ensure!(counts == plan.expected(), "the book does not hold what was counted");
    let planned = (0..plan.hours).map(|hour| plan.of_hour(hour));
    ensure!(hours.into_values().eq(planned), "an hour of the book does not hold what was counted in it");
    Ok((rows.len(), read))
}
