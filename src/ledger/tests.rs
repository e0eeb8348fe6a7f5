//! The room as a whole: meters, keeper, files.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::model::{CommandKey, Department, Finished, Refused, Window};

const START: &str = "2026-11-24T03:10:00Z";

/// A ledger in a folder of its own, on a clock that the test moves.
struct Bench {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Bench {
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

    /// Moves time and lets the keeper and the worker agree on what is sealed.
    fn pass(&self, by: Duration, ledger: &Ledger, meter: &Meter) {
        self.clock.advance(by);
        for _ in 0..4 {
            wait(ledger.reader().fold()).expect("a fold");
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
    LedgerFiles::open(path).expect("files").usage(ALWAYS).expect("rows")
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

/// Outcome names with commands and units.
fn brief(rows: &[UsageRow]) -> Vec<(&'static str, u64, u64)> {
    rows.iter().map(|row| (row.outcome.name(), row.totals.commands, row.totals.units)).collect()
}

#[test]
fn what_is_counted_is_seen_at_once_by_every_reader() {
    let bench = Bench::new();
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
    assert_eq!((series.admitted, series.units, series.in_flight()), (3, 9, 1));
    assert_eq!((series.request_bytes, series.response_bytes), (100, 7));
    assert_eq!(series.finished[Finished::Ok.index()].duration_ns, 5_000_000);
    let rows = wait(ledger.reader().usage(ALWAYS)).expect("rows");
    assert_eq!(brief(&rows), [("ok", 1, 3), ("aborted", 1, 3), ("forbidden", 1, 0)]);
    assert_eq!(bench.files(), rows, "the files say the same while the gateway lives");
    drop(open);
}

#[test]
fn the_view_for_finance_equals_the_totals() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    for _ in 0..10 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        refuse(&meter, &bench.clock);
    }
    wait(ledger.reader().fold()).expect("a fold");
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly WHERE outcome = 'ok'"), 10);
    assert_eq!(bench.number("SELECT sum(units) FROM usage_hourly"), 30);
    let hours = "SELECT count(*) FROM usage_hourly WHERE window_start = '2026-11-24T03:00:00Z' AND department = \
                 'department-1' AND subsystem = 'cameras' AND command = 'command-1'";
    assert_eq!(bench.number(hours), 2);
}

#[test]
fn a_crash_loses_nothing_and_shows_what_was_in_flight_as_interrupted() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let mut in_flight = admit(&meter, &bench.clock);
    in_flight.add_response_bytes(1000);
    bench.clock.advance(Duration::from_secs(2));
    wait(ledger.reader().fold()).expect("a fold, which notes the time");
    refuse(&meter, &bench.clock); // never folded, never synced
    drop(ledger); // the keeper stops where it stands
    let dead = bench.files();
    assert_eq!(brief(&dead), [("ok", 1, 3), ("interrupted", 1, 3), ("forbidden", 1, 0)]);
    assert_eq!(dead[1].totals.response_bytes, 1000);
    assert_eq!(dead[1].totals.duration_ns, 2_000_000_000);

    let (ledger, meter_after) = bench.open_one();
    assert_eq!(wait(ledger.reader().usage(ALWAYS)).expect("rows"), dead, "recovered as the files said");
    assert_eq!(bench.files(), dead);
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'process died'"), 1);
    admit(&meter_after, &bench.clock).settle(Finished::Ok);
    let totals = wait(ledger.reader().totals()).expect("totals");
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.admitted, series.in_flight(), series.response_bytes), (3, 0, 1000), "counters go on");
    drop(in_flight);
}

#[test]
fn recovery_of_an_epoch_that_is_in_the_book_already_adds_nothing() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let tally = bench.path().with_extension(TALLY);
    let kept = std::fs::read(&tally).expect("the tally");
    drop(ledger);
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    std::fs::write(&tally, kept).expect("as if the process had died before it removed the tally");
    let (ledger, _) = bench.open_one();
    assert_eq!(brief(&wait(ledger.reader().usage(ALWAYS)).expect("rows")), [("ok", 1, 3)]);
}

#[test]
fn a_copy_of_a_live_ledger_can_be_read_and_kept() {
    let bench = Bench::new();
    let (_ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::ServerError);
    let open = admit(&meter, &bench.clock);
    let copy = Bench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    for extension in ["db", "db-wal", TALLY] {
        let name = bench.path().with_extension(extension);
        std::fs::copy(name, copy.path().with_extension(extension)).expect("a copy");
    }
    assert_eq!(brief(&copy.files()), [("server_error", 1, 3), ("interrupted", 1, 3)]);
    let (ledger, _) = copy.open_one();
    assert_eq!(wait(ledger.reader().usage(ALWAYS)).expect("rows"), copy.files());
    drop(open);
}

#[test]
fn a_death_of_the_machine_is_told_from_a_death_of_the_process() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    drop(ledger);
    let tally = bench.path().with_extension(TALLY);
    let mut bytes = std::fs::read(&tally).expect("the tally");
    bytes[16 * 8 + 1] ^= 1; // the first character of the boot id
    std::fs::write(&tally, bytes).expect("written");
    let (_ledger, _) = bench.open_one();
    let ended = "SELECT count(*) FROM epoch WHERE ending = 'machine died' AND last_sync_at LIKE '2026-11-24T03:1%'";
    assert_eq!(bench.number(ended), 1);
    assert_eq!(brief(&bench.files()), [("ok", 1, 3)]);
}

#[test]
fn a_clean_end_removes_the_tally_and_counters_go_on() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    ledger.close().expect("closed");
    assert!(!bench.path().with_extension(TALLY).exists());
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'clean'"), 1);
    let (ledger, _) = bench.open_one();
    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.series.iter().map(|one| one.admitted).sum::<u64>(), 1);
}

#[test]
fn what_is_in_flight_at_a_clean_end_is_interrupted() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    let open = admit(&meter, &bench.clock);
    ledger.close().expect("closed");
    assert_eq!(brief(&bench.files()), [("interrupted", 1, 3)]);
    drop(open);
}

#[test]
fn a_second_gateway_is_refused_and_told_who_holds_the_ledger() {
    let bench = Bench::new();
    let (_ledger, _meter) = bench.open_one();
    let second = Ledger::open(bench.settings(1), bench.clock.clone(), Box::new(|_| ()));
    let said = second.expect_err("refused").to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
}

#[test]
fn a_tally_that_is_not_ours_is_set_aside_and_not_overwritten() {
    for content in [b"something else".to_vec(), foreign_tally()] {
        let bench = Bench::new();
        std::fs::write(bench.path().with_extension(TALLY), &content).expect("written");
        let (_ledger, _meter) = bench.open_one();
        let files = std::fs::read_dir(bench.folder.path()).expect("a folder");
        let aside = files.filter_map(Result::ok).find(|file| file.file_name().to_string_lossy().contains("aside"));
        assert_eq!(std::fs::read(aside.expect("a file set aside").path()).expect("its bytes"), content);
    }
}

fn foreign_tally() -> Vec<u8> {
    let bench = Bench::new();
    let gateway = Name::parse("another").expect("a name");
    let settings = LedgerSettings { gateway, ..bench.settings(1) };
    let (ledger, _) = Ledger::open(settings, bench.clock.clone(), Box::new(|_| ())).expect("a ledger");
    drop(ledger);
    std::fs::read(bench.path().with_extension(TALLY)).expect("its tally")
}

#[test]
fn a_newer_book_and_a_file_that_is_no_book_are_refused() {
    let bench = Bench::new();
    drop(bench.open_one());
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.pragma_update(None, "user_version", 99).expect("written");
    assert!(matches!(LedgerFiles::open(&bench.path()), Err(LedgerError::Newer { found: 99, .. })));
    let other = bench.folder.path().join("text.db");
    std::fs::write(&other, "not a database, though long enough to be one".repeat(100)).expect("written");
    assert!(matches!(LedgerFiles::open(&other), Err(LedgerError::NotABook(_))));
    assert!(LedgerFiles::open(&bench.folder.path().join("none.db")).is_err());
}

#[test]
fn an_hour_is_sealed_when_it_is_over_and_every_worker_has_left_it() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.clock.advance(Duration::from_secs(50 * 60 + 59));
    wait(ledger.reader().fold()).expect("a fold");
    meter.tick();
    wait(ledger.reader().fold()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 0, "over for less than a minute");
    bench.clock.advance(Duration::from_secs(1));
    wait(ledger.reader().fold()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 0, "the worker has not left it");
    meter.tick();
    wait(ledger.reader().fold()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 1);
    assert_eq!(brief(&bench.files()), [("ok", 1, 3)]);
}

#[test]
fn late_ends_count_in_the_present_hour_and_never_in_a_sealed_one() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    let mut stream = admit(&meter, &bench.clock);
    stream.add_response_bytes(10);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, &meter);
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 1);
    stream.add_response_bytes(5);
    stream.settle(Finished::Ok);
    bench.pass(Duration::ZERO, &ledger, &meter);
    let rows = bench.files();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].window, bench.clock.window());
    assert_eq!((rows[0].totals.commands, rows[0].totals.units, rows[0].totals.response_bytes), (1, 3, 15));
    let totals = wait(ledger.reader().totals()).expect("totals");
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.in_flight(), series.response_bytes, totals.imbalance), (0, 15, 0));
    drop(ledger);
    assert_eq!(bench.files(), rows, "nothing is interrupted");
}

#[test]
fn a_stream_of_a_sealed_hour_that_a_crash_ends_is_interrupted_in_the_last_hour_alive() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    let stream = admit(&meter, &bench.clock);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, &meter);
    let alive = bench.clock.window();
    drop(ledger);
    bench.clock.advance(Duration::from_secs(24 * 3600));
    let dead = bench.files();
    assert_eq!((brief(&dead), dead[0].window), (vec![("interrupted", 1, 3)], alive));
    let (_ledger, _) = bench.open_one();
    assert_eq!(bench.files(), dead);
    drop(stream);
}

#[test]
fn slots_are_used_again_when_their_hour_is_done_with() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    for hour in 0..5 {
        for number in 1..=1500 {
            meter.received();
            let ticket = meter.open(&department(1), &command(number), 1, bench.clock.window());
            ticket.unwrap_or_else(|_| panic!("a slot in hour {hour}")).settle(Finished::Ok);
            if number % 500 == 0 {
                wait(ledger.reader().fold()).expect("a fold");
                meter.tick();
            }
        }
        bench.pass(Duration::from_secs(3600 + 120), &ledger, &meter);
    }
    let length = std::fs::metadata(bench.path().with_extension(TALLY)).expect("the tally").len();
    assert!(length < 5 << 20, "{length} bytes are more than three hours of slots");
    let rows = bench.files();
    assert_eq!(rows.len(), 5 * 1500);
    assert!(rows.iter().all(|row| row.totals.commands == 1));
}

#[test]
fn units_changed_by_a_reload_count_from_then_on() {
    let bench = Bench::new();
    let (_ledger, meter) = bench.open_one();
    for units in [3, 5, 3] {
        meter.received();
        let ticket = meter.open(&department(1), &command(1), units, bench.clock.window()).expect("a slot");
        ticket.settle(Finished::Ok);
    }
    assert_eq!(brief(&bench.files()), [("ok", 3, 11)]);
}

#[test]
fn a_clock_that_steps_back_moves_nothing_back() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, &meter);
    let before = bench.clock.window();
    bench.clock.step_wall(START.parse().expect("a time"));
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(Duration::ZERO, &ledger, &meter);
    let windows: Vec<Window> = bench.files().iter().map(|row| row.window).collect();
    assert_eq!(windows, [Window(before.0 - 2), before]);
}

#[test]
fn two_workers_count_a_million_commands_each_exactly() {
    const EACH: u64 = 1_000_000;
    let bench = Bench::new();
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
            wait(ledger.reader().fold()).expect("a fold");
        }
    });
    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.imbalance, 0);
    assert_eq!(totals.series.iter().map(|one| one.admitted).sum::<u64>(), 2 * EACH / 4 * 3);
    assert_eq!(totals.series.iter().map(|one| one.refused.iter().sum::<u64>()).sum::<u64>(), 2 * EACH / 4);
    assert_eq!(totals.series.iter().map(|one| one.request_bytes).sum::<u64>(), 2 * EACH / 4 * 3 * 10);
    assert_eq!(bench.files().iter().map(|row| row.totals.commands).sum::<u64>(), 2 * EACH);
    wait(ledger.reader().fold()).expect("a fold");
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
        1 => ticket.settle(Finished::Ok),
        2 => ticket.settle(Finished::Timeout),
        _ => drop(ticket),
    }
}

fn department_of(number: u64) -> Department {
    department(1 + (number % 5) as u32)
}

fn command_of(number: u64) -> CommandKey {
    command(1 + (number % 7) as u32)
}

#[test]
fn an_answer_can_wait_until_its_admission_is_on_the_disk() {
    let bench = Bench::new();
    let settings = LedgerSettings { sync_every: Duration::from_secs(3600), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    let syncs = || wait(ledger.reader().totals()).expect("totals").times.syncs;
    let before = syncs();
    for _ in 0..3 {
        let ticket = admit(&meter, &bench.clock);
        wait(ticket.durable());
    }
    assert!(syncs() >= before + 3, "each was covered by a sync begun after it");
}
