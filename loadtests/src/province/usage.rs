//! Creates a ledger in which every department has called once, before the gateway starts.
//!
//! `/metrics` and the quotas then have the size of a province under load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tallygate::clock::Clock;
use tallygate::ledger::{Ledger, LedgerSettings, Meter, MeterSeed};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name};

use super::plan::Plan;

/// The longest wait for a slot for one more series.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts one command for each department.
pub fn count_all(plan: Plan, book: &Path) -> Result<()> {
    let clock = Clock::system();
    let settings = LedgerSettings {
        path: book.to_owned(),
        gateway: Name::parse("tallygate")?,
        sync_every: Duration::from_millis(50),
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let failed = Box::new(|error| eprintln!("the keeper gave up: {error}"));
    let (ledger, seeds) = Ledger::open(settings, clock.clone(), failed).context("making the province's ledger")?;
    for seed in seeds {
        let clock = clock.clone();
        let counting = std::thread::spawn(move || count(plan, seed, &clock));
        counting.join().map_err(|_| anyhow!("the counting thread panicked"))??;
    }
    Ok(ledger.close()?)
}

fn count(plan: Plan, seed: MeterSeed, clock: &Clock) -> Result<()> {
    let meter = seed.into_meter();
    for position in 0..plan.departments {
        let number = u32::try_from(position + 1)?;
        let id = Name::parse(&Plan::department(position))?;
        let department = Department { number, name: id.to_string(), id };
        let subsystem = Name::parse(&plan.subsystem_of(position))?;
        let command = CommandKey { number, subsystem, command: Name::parse("object.command-1")? };
        one(&meter, &department, &command, clock)?;
        meter.tick();
    }
    Ok(())
}

fn one(meter: &Meter, department: &Department, command: &CommandKey, clock: &Clock) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let window = clock.window();
        meter.received();
        match meter.open(department, command, 1, window) {
            Ok(ticket) => {
                ticket.settle(Finished::Ok);
                return Ok(());
            }
            Err(refused) => meter.refuse(department, command, refused, window),
        }
        std::thread::sleep(Duration::from_millis(1));
        meter.tick();
    }
    bail!("no slot for {} within {PATIENCE:?}", department.id)
}
