//! Counting, and the views of its readers.

use super::*;

#[test]
fn counts_are_visible_to_every_reader_at_once() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let mut ticket = admit(&meter, &bench.clock);
    ticket.add_request_bytes(100);
    ticket.add_response_bytes(7);
    bench.clock.advance(Duration::from_millis(5));
    ticket.settle(Finished::Ok);
    drop(admit(&meter, &bench.clock));
    refuse(&meter, &bench.clock);
    let open = admit(&meter, &bench.clock);
    meter.tick();

    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.imbalance, 0);
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.admitted, series.units, series.in_flight()), (3, 6, 1), "units of ended commands");
    assert_eq!((series.request_bytes, series.response_bytes), (100, 7));
    assert_eq!(series.finished[Finished::Ok.index()], 1);
    let rows = wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows");
    assert_eq!(rows[0].totals.duration_ns, 5_000_000);
    assert_eq!(brief(&rows), [("ok", 1, 3), ("aborted", 1, 3), ("forbidden", 1, 0)]);
    assert_eq!(bench.files(), rows, "the files have equal content while the gateway runs");
    drop(open);
}

#[test]
fn finance_view_equals_the_totals() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for _ in 0..10 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        refuse(&meter, &bench.clock);
    }
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly WHERE outcome = 'ok'"), 10);
    assert_eq!(bench.number("SELECT sum(units) FROM usage_hourly"), 30);
    let hours = "SELECT count(*) FROM usage_hourly WHERE window_start = '2026-11-24T03:00:00Z' AND department = \
                 'department-1' AND subsystem = 'cameras' AND command = 'command-1'";
    assert_eq!(bench.number(hours), 2);
}

#[test]
fn units_changed_by_a_reload_apply_from_then_on() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    for units in [3, 5, 3] {
        meter.received();
        let ticket = meter.open(&department(1), &command(1), units, bench.clock.window()).expect("a slot");
        ticket.settle(Finished::Ok);
    }
    assert_eq!(brief(&bench.files()), [("ok", 3, 11)]);
}

#[test]
fn two_workers_count_a_million_commands_each_exactly() {
    const EACH: u64 = 1_000_000;
    let bench = LedgerBench::new();
    let (ledger, seeds) = bench.open(2);
    let clock = &bench.clock;
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || {
                let meter = seed.into_meter();
                for number in 0..EACH {
                    count_one(&meter, clock, number);
                }
                meter.tick();
            });
        }
        for _ in 0..20 {
            let totals = wait(ledger.reader().totals()).expect("totals");
            assert!(totals.series.iter().all(|one| one.in_flight() <= 2));
            wait(ledger.reader().fold_now()).expect("a fold");
        }
    });
    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.imbalance, 0);
    assert_eq!(totals.series.iter().map(|one| one.admitted).sum::<u64>(), 2 * EACH / 4 * 3);
    assert_eq!(totals.series.iter().map(|one| one.refused.iter().sum::<u64>()).sum::<u64>(), 2 * EACH / 4);
    assert_eq!(totals.series.iter().map(|one| one.request_bytes).sum::<u64>(), 2 * EACH / 4 * 3 * 10);
    assert_eq!(bench.files().iter().map(|row| row.totals.commands).sum::<u64>(), 2 * EACH);
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly"), 2_000_000);
}

fn count_one(meter: &Meter, clock: &Clock, number: u64) {
    let (department, command) = (department_of(number), command_of(number));
    meter.received();
    if number.is_multiple_of(4) {
        return meter.refuse(&department, &command, Refused::RateLimited, clock.window());
    }
    let mut ticket = meter.open(&department, &command, 2, clock.window()).expect("a slot");
    ticket.add_request_bytes(10);
    match number % 4 {
        1 => _ = ticket.settle(Finished::Ok),
        2 => _ = ticket.settle(Finished::Timeout),
        _ => drop(ticket),
    }
}

fn department_of(number: u64) -> Department {
    department(1 + (number % 5) as u32)
}

fn command_of(number: u64) -> CommandKey {
    command(1 + (number % 7) as u32)
}

/// The keeper grows the tally before each fold; during the fold it grows nothing.
#[test]
fn as_many_new_series_as_there_are_find_slots_while_the_keeper_is_busy() {
    let bench = LedgerBench::new();
    let parts = build_parts(Box::new(SystemDisk), 16, &bench.settings(1), &bench.clock).expect("a ledger");
    let (mut keeper, mut seeds) = (parts.keeper, parts.seeds);
    let meter = seeds.remove(0).into_meter();
    let count = |number| {
        meter.received();
        meter.open(&department(number), &command(1), 3, bench.clock.window()).map(|ticket| ticket.settle(Finished::Ok))
    };
    for number in 1..=300 {
        count(number).expect("a slot");
        keeper.run_due_work().expect("more slots");
    }
    for number in 301..=600 {
        assert!(count(number).is_ok(), "series {number} has no slot");
    }
}

#[test]
fn response_can_wait_until_its_admission_is_synced() {
    let bench = LedgerBench::new();
    let settings = LedgerSettings { sync_every: Duration::from_secs(3600), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    let syncs = || wait(ledger.reader().totals()).expect("totals").times.syncs;
    let before = syncs();
    for _ in 0..3 {
        let ticket = admit(&meter, &bench.clock);
        wait(futures_util::future::select(Box::pin(ticket.wait_until_durable()), Box::pin(meter.run_sync_notifier())));
    }
    assert!(syncs() >= before + 3, "each admission was covered by a later sync");
}

#[test]
fn in_flight_commands_are_in_the_book_with_bytes_and_duration() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let mut stream = admit(&meter, &bench.clock);
    stream.add_request_bytes(7);
    for seconds in [1, 2] {
        stream.add_response_bytes(10);
        bench.clock.advance(Duration::from_secs(1));
        wait(ledger.reader().fold_now()).expect("a fold");
        assert_eq!(bench.number("SELECT sum(commands) FROM in_flight_hourly"), 1);
        assert_eq!(bench.number("SELECT sum(units) FROM in_flight_hourly"), 3);
        assert_eq!(bench.number("SELECT sum(request_bytes) FROM in_flight_hourly"), 7);
        assert_eq!(bench.number("SELECT sum(response_bytes) FROM in_flight_hourly"), 10 * seconds);
        assert_eq!(bench.number("SELECT sum(duration_ns) FROM in_flight_hourly"), seconds * 1_000_000_000);
    }
    stream.settle(Finished::Ok);
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM in_flight"), 0);
}

#[test]
fn slot_that_contradicts_its_worker_is_an_imbalance() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for _ in 0..5 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        refuse(&meter, &bench.clock);
    }
    let imbalance = || wait(ledger.reader().totals()).expect("totals").imbalance;
    assert_eq!(imbalance(), 0);
    write_into_tally(&bench, |words| {
        words[crate::ledger::tally::slot::offset::REFUSED + Refused::Forbidden.index()] -= 3;
        words[crate::ledger::tally::slot::offset::VERSION] += 1;
    });
    assert_ne!(imbalance(), 0, "three refusals are gone from the slot");
}

/// Changes the counting slot in the file, as a stray writer would.
fn write_into_tally(bench: &LedgerBench, change: impl FnOnce(&mut [u64])) {
    use std::os::unix::fs::FileExt;
    let path = bench.path().with_extension(TALLY_EXTENSION);
    let bytes = std::fs::read(&path).expect("the tally");
    let image = crate::ledger::tally::file::TallyImage::parse(&bytes).expect("a tally");
    let counts = |words: &crate::ledger::tally::slot_copy::SlotCopy| {
        words.kind() == crate::ledger::tally::slot::SlotKind::Count && words.refused(Refused::Forbidden) > 0
    };
    let position = image.slots.iter().position(counts).expect("a slot that counts");
    let mut words = image.slots[position].0;
    change(&mut words);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = std::fs::File::options().write(true).open(path).expect("the tally");
    file.write_all_at(&bytes, (position * crate::ledger::tally::slot::SLOT_BYTES) as u64).expect("written");
}
