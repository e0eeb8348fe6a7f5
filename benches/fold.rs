//! The keeper's cost of a fold: 1,000 changed series among 30,000 unchanged slots.
//!
//! This is the worst case: no two of the 1,000 share a page of the tally. The figure in memory is the fold's own work;
//! the figure on disk includes both syncs.

use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tallygate::clock::Clock;
use tallygate::ledger::{Ledger, LedgerReader, LedgerSettings, Meter};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name};

const SERIES: u32 = 30_000;
const CHANGED: u32 = 1_000;
/// Commands of one department.
const COMMANDS: u32 = 50;

struct Bench {
    clock: Clock,
    ledger: Ledger,
    meter: Meter,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl Bench {
    fn new(folder: tempfile::TempDir) -> Self {
        let clock = Clock::manual("2026-11-24T03:10:00Z".parse().expect("a time"));
        let settings = LedgerSettings {
            path: folder.path().join("ledger.db"),
            gateway: name("bench"),
            sync_every: Duration::from_millis(50),
            workers: 1,
            calendar: CalendarOffset::default(),
            compact_after: None,
            ready: Readiness::default(),
        };
        let opened = Ledger::open(settings, clock.clone(), Box::new(|error| panic!("{error}")));
        let (ledger, mut seeds) = opened.expect("a ledger");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { clock, ledger, meter: seeds.remove(0).into_meter(), runtime, _folder: folder }
    }

    /// Counts one command of series `number`. The keeper provides slots as long as none are free.
    fn count(&self, number: u32) {
        let department = name(&format!("department-{}", number / COMMANDS));
        let department = Department { number: 1 + number / COMMANDS, id: department, name: String::new() };
        let command = name(&format!("command-{}", number % COMMANDS));
        let command = CommandKey { number: 1 + number % COMMANDS, subsystem: name("cameras"), command };
        self.meter.received();
        loop {
            match self.meter.open(&department, &command, 1, self.clock.window()) {
                Ok(ticket) => {
                    ticket.settle(Finished::Ok);
                    return;
                }
                Err(_) => self.question(LedgerReader::totals),
            }
        }
    }

    fn question<T, E: std::fmt::Debug>(&self, ask: impl AsyncFnOnce(&LedgerReader) -> Result<T, E>) {
        self.runtime.block_on(ask(&self.ledger.reader())).expect("an answer");
        self.meter.tick();
    }
}

fn benches(criterion: &mut Criterion) {
    on(criterion, "on the disk", tempfile::tempdir().expect("a folder"));
    if let Ok(folder) = tempfile::tempdir_in("/dev/shm") {
        on(criterion, "in memory", folder);
    }
}

fn on(criterion: &mut Criterion, medium: &str, folder: tempfile::TempDir) {
    let bench = Bench::new(folder);
    (0..SERIES).for_each(|number| bench.count(number));
    bench.question(LedgerReader::fold_now);
    let change = || (0..CHANGED).for_each(|number| bench.count(number * (SERIES / CHANGED)));
    for (what, ask) in [("nothing changed", false), ("1,000 series changed", true)] {
        let prepare = || {
            if ask {
                change()
            }
        };
        criterion.bench_function(&format!("totals of 30,000 series, {what}, {medium}"), |bencher| {
            bencher.iter_batched(prepare, |()| bench.question(LedgerReader::totals), BatchSize::PerIteration);
        });
        criterion.bench_function(&format!("fold into the book, {what}, {medium}"), |bencher| {
            bencher.iter_batched(prepare, |()| bench.question(LedgerReader::fold_now), BatchSize::PerIteration);
        });
    }
}

criterion_group! { name = fold; config = Criterion::default().sample_size(50); targets = benches }
criterion_main!(fold);
