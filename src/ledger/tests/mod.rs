//! Tests of the ledger as a whole: meters, keeper, files.
//!
//! - Counting and sealing: `counting`, `sealing`, `sealed_hours`, `end_transfers`, `waived_units`, `adjustments`, `compaction`.
//! - Crash safety: `crash_points`, `crash_recovery`, `process_kill`, `power_loss`, `older_tally`, `faulty_disk`.
//! - Audit and tamper detection (hash chain): `audit`, `tampered_rows`, `tampered_schema`, `appended_seals`.
//! - Files: `files_and_locks`, `backup`, `migration`. Identity and reach: `coverage`.
//! - Random histories against a model: `simulation`.

mod adjustments;
mod appended_seals;
mod audit;
mod backup;
mod compaction;
mod counting;
mod coverage;
mod crash_points;
mod crash_recovery;
mod end_transfers;
mod faulty_disk;
mod files_and_locks;
mod migration;
mod older_tally;
mod power_loss;
mod process_kill;
mod sealed_hours;
mod sealing;
mod simulation;
mod tampered_rows;
mod tampered_schema;
mod waived_units;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{CommandKey, Department, Finished, Refused, Window};

use super::*;

const START: &str = "2026-11-24T03:10:00Z";

/// A ledger in its own folder, on a clock that the test moves.
struct LedgerBench {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl LedgerBench {
    fn new() -> Self {
        let clock = Clock::manual(START.parse::<Timestamp>().expect("a time"));
        Self { folder: tempfile::tempdir().expect("a folder"), clock }
    }

    fn settings(&self, workers: usize) -> LedgerSettings {
        LedgerSettings {
            path: self.path(),
            gateway: Name::parse("gateway-1").expect("a name"),
            sync_every: Duration::from_millis(50),
            workers,
            calendar: CalendarOffset::default(),
            compact_after: None,
            ready: Readiness::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    fn open(&self, workers: usize) -> (Ledger, Vec<MeterSeed>) {
        Ledger::open(self.settings(workers), self.clock.clone(), Box::new(|error| panic!("{error}"))).expect("a ledger")
    }

    fn open_one(&self) -> (Ledger, Meter) {
        let (ledger, mut seeds) = self.open(1);
        (ledger, seeds.remove(0).into_meter())
    }

    fn files(&self) -> Vec<UsageRow> {
        usage_of_files(&self.path())
    }

    /// Moves the clock, and lets the keeper and the worker agree on the sealed hours.
    fn pass(&self, by: Duration, ledger: &Ledger, meter: &Meter) {
        self.clock.advance(by);
        for _ in 0..4 {
            wait(ledger.reader().fold_now()).expect("a fold");
            meter.tick();
        }
    }

    fn number(&self, query: &str) -> i64 {
        let book = rusqlite::Connection::open(self.path()).expect("a book");
        book.query_row(query, [], |row| row.get(0)).expect(query)
    }
}

const ALWAYS: std::ops::Range<Window> = Window(0)..Window(u32::MAX);

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn usage_of_files(path: &Path) -> Vec<UsageRow> {
    LedgerFiles::open(path).expect("files").usage_by_hour(ALWAYS).expect("rows")
}

fn department(number: u32) -> Department {
    let id = Name::parse(&format!("department-{number}")).expect("a name");
    Department { number, id, name: "A department".to_owned() }
}

fn command(number: u32) -> CommandKey {
    let name = |text: String| Name::parse(&text).expect("a name");
    CommandKey { number, subsystem: name("cameras".to_owned()), command: name(format!("command-{number}")) }
}

fn admit(meter: &Meter, clock: &Clock) -> Ticket {
    meter.received();
    meter.open(&department(1), &command(1), 3, clock.window()).expect("a slot")
}

fn refuse(meter: &Meter, clock: &Clock) {
    meter.received();
    meter.refuse(&department(1), &command(1), Refused::Forbidden, clock.window());
}

/// Returns outcome names with commands and units.
fn brief(rows: &[UsageRow]) -> Vec<(&'static str, u64, u64)> {
    rows.iter().map(|row| (row.outcome.name(), row.totals.commands, row.totals.units)).collect()
}
