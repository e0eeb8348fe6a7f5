//! Crash recovery: ends of epochs, and the state that the next start and other readers find.

use super::*;

#[test]
fn crash_loses_no_counts_and_interrupts_commands_in_flight() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let mut in_flight = admit(&meter, &bench.clock);
    in_flight.add_response_bytes(1000);
    bench.clock.advance(Duration::from_secs(2));
    wait(ledger.reader().fold_now()).expect("a fold, which notes the time");
    refuse(&meter, &bench.clock); // never folded, never synced
    drop(ledger); // the keeper stops at once
    let dead = bench.files();
    assert_eq!(brief(&dead), [("ok", 1, 3), ("interrupted", 1, 3), ("forbidden", 1, 0)]);
    assert_eq!(dead[1].totals.response_bytes, 1000);
    assert_eq!(dead[1].totals.duration_ns, 2_000_000_000);

    let (ledger, meter_after) = bench.open_one();
    assert_eq!(wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows"), dead, "recovery agrees with the files");
    assert_eq!(bench.files(), dead);
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'process died'"), 1);
    admit(&meter_after, &bench.clock).settle(Finished::Ok);
    let totals = wait(ledger.reader().totals()).expect("totals");
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.admitted, series.in_flight(), series.response_bytes), (3, 0, 1000), "counters continue");
    drop(in_flight);
}

#[test]
fn recovery_of_an_epoch_already_in_the_book_adds_nothing() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    let kept = std::fs::read(&tally).expect("the tally");
    drop(ledger);
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    std::fs::write(&tally, kept).expect("as if the process had died before it removed the tally");
    let (ledger, _) = bench.open_one();
    assert_eq!(brief(&wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows")), [("ok", 1, 3)]);
}

#[test]
fn copy_of_a_live_ledger_can_be_read_and_opened() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::ServerError);
    let open = admit(&meter, &bench.clock);
    let copy = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    for extension in ["db", "db-wal", TALLY_EXTENSION] {
        let name = bench.path().with_extension(extension);
        std::fs::copy(name, copy.path().with_extension(extension)).expect("a copy");
    }
    assert_eq!(brief(&copy.files()), [("server_error", 1, 3), ("interrupted", 1, 3)]);
    let (ledger, _) = copy.open_one();
    assert_eq!(wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows"), copy.files());
    drop(open);
}

#[test]
fn machine_death_is_distinguished_from_process_death() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    drop(ledger);
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    let mut bytes = std::fs::read(&tally).expect("the tally");
    bytes[16 * 8 + 1] ^= 1; // the first character of the boot id
    std::fs::write(&tally, bytes).expect("written");
    let (_ledger, _) = bench.open_one();
    let ended = "SELECT count(*) FROM epoch WHERE ending = 'machine died' AND last_sync_at LIKE '2026-11-24T03:1%'";
    assert_eq!(bench.number(ended), 1);
    assert_eq!(brief(&bench.files()), [("ok", 1, 3)]);
}

#[test]
fn epoch_without_its_tally_ends_at_its_last_fold() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let mut old = admit(&meter, &bench.clock);
    old.add_response_bytes(7);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, &meter);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let young = admit(&meter, &bench.clock);
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT sum(commands) FROM in_flight_hourly"), 2);
    drop(ledger);
    std::fs::remove_file(bench.path().with_extension(TALLY_EXTENSION)).expect("the tally is lost");
    let (_ledger, _) = bench.open_one();
    let rows = bench.files();
    assert_eq!(brief(&rows), [("ok", 1, 3), ("interrupted", 2, 6)]);
    assert_eq!((rows[1].window, rows[1].totals.response_bytes), (bench.clock.window(), 7));
    assert_eq!(bench.number("SELECT sum(admitted) FROM admission"), 3);
    assert_eq!(bench.number("SELECT count(*) FROM usage WHERE outcome = 8 AND late IN (0, 2)"), 2);
    assert_eq!(bench.number("SELECT count(*) FROM in_flight"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'tally missing'"), 1);
    drop((old, young));
}

#[test]
fn clean_end_removes_the_tally_and_counters_continue() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    ledger.close().expect("closed");
    assert!(!bench.path().with_extension(TALLY_EXTENSION).exists());
    assert_eq!(bench.number("SELECT count(*) FROM epoch WHERE ending = 'clean'"), 1);
    let (ledger, _) = bench.open_one();
    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.series.iter().map(|one| one.admitted).sum::<u64>(), 1);
}

#[test]
fn commands_in_flight_at_a_clean_end_are_interrupted() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let open = admit(&meter, &bench.clock);
    ledger.close().expect("closed");
    assert_eq!(brief(&bench.files()), [("interrupted", 1, 3)]);
    drop(open);
}

#[test]
fn second_gateway_is_refused_with_the_holder_of_the_ledger() {
    let bench = LedgerBench::new();
    let (_ledger, _meter) = bench.open_one();
    let second = Ledger::open(bench.settings(1), bench.clock.clone(), Box::new(|_| ()));
    let error = second.expect_err("refused").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn foreign_tally_is_set_aside_and_not_overwritten() {
    for content in [b"something else".to_vec(), foreign_tally()] {
        let bench = LedgerBench::new();
        std::fs::write(bench.path().with_extension(TALLY_EXTENSION), &content).expect("written");
        let (_ledger, _meter) = bench.open_one();
        let files = std::fs::read_dir(bench.folder.path()).expect("a folder");
        let aside = files.filter_map(Result::ok).find(|file| file.file_name().to_string_lossy().contains("aside"));
        assert_eq!(std::fs::read(aside.expect("a file set aside").path()).expect("its bytes"), content);
    }
}

fn foreign_tally() -> Vec<u8> {
    let bench = LedgerBench::new();
    let gateway = Name::parse("another").expect("a name");
    let settings = LedgerSettings { gateway, ..bench.settings(1) };
    let (ledger, _) = Ledger::open(settings, bench.clock.clone(), Box::new(|_| ())).expect("a ledger");
    drop(ledger);
    std::fs::read(bench.path().with_extension(TALLY_EXTENSION)).expect("its tally")
}

#[test]
fn newer_book_and_non_database_are_refused() {
    let bench = LedgerBench::new();
    drop(bench.open_one());
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.pragma_update(None, "user_version", 99).expect("written");
    assert!(matches!(LedgerFiles::open(&bench.path()), Err(LedgerError::NewerFormat { found: 99, .. })));
    let other = bench.folder.path().join("text.db");
    std::fs::write(&other, "not a database, though long enough to be one".repeat(100)).expect("written");
    assert!(matches!(LedgerFiles::open(&other), Err(LedgerError::NotABook(_))));
    let missing = LedgerFiles::open(&bench.folder.path().join("none.db")).expect_err("nothing is there").to_string();
    assert!(missing.contains("unable to open"), "{missing}");
    let foreign = LedgerBench::new();
    let book = rusqlite::Connection::open(foreign.path()).expect("somebody's database");
    book.execute_batch("CREATE TABLE theirs (a)").expect("a table");
    let opened = Ledger::open(foreign.settings(1), foreign.clock.clone(), Box::new(|_| ()));
    assert!(matches!(opened, Err(LedgerError::NotABook(_))));
}

#[test]
fn ticket_dropped_in_a_panic_is_aborted() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let mut ticket = admit(&meter, &bench.clock);
    let handler = std::panic::AssertUnwindSafe(move || {
        ticket.add_response_bytes(7);
        panic!("a defect, made on purpose");
    });
    assert!(std::panic::catch_unwind(handler).is_err());
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let rows = wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows");
    assert_eq!(brief(&rows), [("ok", 1, 3), ("aborted", 1, 3)]);
    assert_eq!(rows[1].totals.response_bytes, 7);
    drop(ledger);
    assert_eq!(bench.files(), rows);
}
