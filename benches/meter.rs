//! A worker's cost of counting: the path of one command through the meter.
//!
//! - With a manual clock the figure is counting alone: the stores and the search for the slot. The target of open and
//!   settle is 25 ns.
//! - With the system clock the figure is the cost in the gateway. The decision takes one reading for limits and
//!   admission alike (`clock::FrozenTime`), which it needs without a ledger too. The end of the command takes a second
//!   reading.
//! - The cost of one reading of the clock is measured separately.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tallygate::clock::{Clock, FrozenTime};
use tallygate::ledger::{Ledger, LedgerSettings, Meter};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Refused, Window};

/// Number of series that alternate, so that the meter's table and slots are not all in the first-level cache.
const SERIES: u32 = 64;

struct Counted {
    department: Department,
    command: CommandKey,
}

fn series() -> Vec<Counted> {
    let name = |text: &str| Name::parse(text).expect("a name");
    (1..=SERIES)
        .map(|number| Counted {
            department: Department { number, id: name(&format!("department-{number}")), name: String::new() },
            command: CommandKey { number, subsystem: name("cameras"), command: name("snapshot.read") },
        })
        .collect()
}

fn with_meter(clock: &Clock, measure: impl FnOnce(&Meter)) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = LedgerSettings {
        path: folder.path().join("ledger.db"),
        gateway: Name::parse("bench").expect("a name"),
        sync_every: Duration::from_millis(50),
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let opened = Ledger::open(settings, clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    measure(&meter);
    drop(meter);
    ledger.close().expect("closed");
}

fn open_and_settle(meter: &Meter, one: &Counted, window: Window) {
    meter.received();
    let ticket = meter.open(&one.department, &one.command, 1, window).expect("a slot");
    ticket.settle(Finished::Ok);
}

/// As in `proxy::exchange`: time is frozen during the decision, and the end reads the clock again.
fn decide_and_settle(meter: &Meter, one: &Counted, window: Window) {
    let still = FrozenTime::freeze();
    meter.received();
    let ticket = meter.open(&one.department, &one.command, 1, window).expect("a slot");
    drop(still);
    ticket.settle(Finished::Ok);
}

fn benches(criterion: &mut Criterion) {
    let series = series();
    let standing = Clock::manual("2026-11-24T03:10:00Z".parse().expect("a time"));
    let window = standing.window();
    let mut next = series.iter().cycle();
    with_meter(&standing, |meter| {
        criterion.bench_function("open and settle, standing clock", |bencher| {
            bencher.iter(|| next.next().map(|one| open_and_settle(meter, one, window)));
        });
        criterion.bench_function("refuse, standing clock", |bencher| {
            let refuse = |one: &Counted| meter.refuse(&one.department, &one.command, Refused::Forbidden, window);
            bencher.iter(|| next.next().map(refuse));
        });
    });
    let clock = Clock::system();
    let window = clock.window();
    with_meter(&clock, |meter| {
        criterion.bench_function("decision's moment, open and settle, machine's clock", |bencher| {
            bencher.iter(|| next.next().map(|one| decide_and_settle(meter, one, window)));
        });
    });
    criterion.bench_function("one reading of the machine's clock", |bencher| bencher.iter(|| clock.monotonic()));
}

criterion_group!(meter, benches);
criterion_main!(meter);
