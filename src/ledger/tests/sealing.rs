//! Sealing of hours, late ends, and reused slots.

use sha2::Digest;

use super::*;

#[test]
fn hour_is_sealed_once_it_is_over_and_every_worker_has_left_it() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.clock.advance(Duration::from_secs(50 * 60 + 59));
    wait(ledger.reader().fold_now()).expect("a fold");
    meter.tick();
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 0, "the hour ended less than a minute ago");
    bench.clock.advance(Duration::from_secs(1));
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 0, "the worker has not left the hour");
    meter.tick();
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 1);
    assert_eq!(brief(&bench.files()), [("ok", 1, 3)]);
}

#[test]
fn hour_left_by_every_worker_is_sealed_even_if_later_hours_have_passed() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for hours in 0..3 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.clock.advance(Duration::from_secs(3600));
        wait(ledger.reader().fold_now()).expect("a fold");
        assert_eq!(bench.number("SELECT count(*) FROM seal"), hours, "all but the hour that was just requested");
        meter.tick();
    }
}

#[test]
fn late_ends_count_in_the_present_hour_and_never_in_a_sealed_one() {
    let bench = LedgerBench::new();
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
    assert_eq!(bench.number("SELECT late FROM usage"), 2, "the late end refers to the hour of its admission");
    let totals = wait(ledger.reader().totals()).expect("totals");
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.in_flight(), series.response_bytes, totals.imbalance), (0, 15, 0));
    drop(ledger);
    assert_eq!(bench.files(), rows, "no command is interrupted");
}

#[test]
fn crashed_stream_of_a_sealed_hour_is_interrupted_in_the_last_live_hour() {
    let bench = LedgerBench::new();
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
    assert_eq!(bench.number("SELECT late FROM usage"), 2, "the late end refers to the hour of its admission");
    drop(stream);
}

#[test]
fn slots_are_reused_once_their_hour_is_sealed() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for hour in 0..5 {
        for number in 1..=1500 {
            meter.received();
            let ticket = meter.open(&department(1), &command(number), 1, bench.clock.window());
            ticket.unwrap_or_else(|_| panic!("a slot in hour {hour}")).settle(Finished::Ok);
            if number % 500 == 0 {
                wait(ledger.reader().fold_now()).expect("a fold");
                meter.tick();
            }
        }
        bench.pass(Duration::from_secs(3600 + 120), &ledger, &meter);
    }
    let length = std::fs::metadata(bench.path().with_extension(TALLY_EXTENSION)).expect("the tally").len();
    assert!(length < 5 << 20, "{length} bytes are more than three hours of slots");
    let rows = bench.files();
    assert_eq!(rows.len(), 5 * 1500);
    assert!(rows.iter().all(|row| row.totals.commands == 1));
}

#[test]
fn clock_stepped_back_moves_no_counts_back() {
    let bench = LedgerBench::new();
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
fn every_seal_is_reproducible_from_the_book_and_an_edit_is_found() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for _ in 0..3 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        refuse(&meter, &bench.clock);
        bench.pass(Duration::from_secs(3600), &ledger, &meter);
    }
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let chain = stored_chain(&book);
    assert_eq!(chain.len(), 3);
    assert_eq!(computed_chain(&book), chain);
    book.execute("UPDATE usage SET commands = 2 WHERE outcome = 1 AND epoch = 1", []).expect("an edit");
    assert_ne!(computed_chain(&book), chain);
}

#[test]
fn truncated_chain_is_found_even_after_new_seals() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let count_an_hour = || {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(Duration::from_secs(3600), &ledger, &meter);
    };
    count_an_hour();
    count_an_hour();
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let cut: String =
        book.query_row("DELETE FROM seal WHERE number = 2 RETURNING hash", [], |row| row.get(0)).expect("a seal");
    count_an_hour();
    assert_eq!(texts(&book, "SELECT number || ' ' || previous FROM seal WHERE number > 1"), [format!("3 {cut}")]);
}

fn stored_chain(book: &rusqlite::Connection) -> Vec<String> {
    let mut query = book.prepare("SELECT hash FROM seal ORDER BY number").expect("seals");
    let rows = query.query_map([], |row| row.get(0)).expect("seals");
    rows.map(|row| row.expect("a hash")).collect()
}

/// Computes the hash chain by `docs/ledger.md`, independently of the code.
fn computed_chain(book: &rusqlite::Connection) -> Vec<String> {
    let seals =
        texts(book, "SELECT concat_ws(char(10), number, epoch, \"window\", sealed_at) FROM seal ORDER BY number");
    let mut previous = "0".repeat(64);
    let digest = |text: String| sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let compute = |seal: &String| {
        let [number, epoch, window, sealed_at] = seal.split('\n').collect::<Vec<_>>().try_into().expect("four fields");
        let hour = Window(window.parse().expect("a window"));
        let place = format!("WHERE epoch = {epoch} AND \"window\" = {window}");
        let mut lines = texts(book, &format!("{ADMISSIONS} {place}"));
        lines.extend(texts(book, &format!("{USAGES} {place}")));
        lines.sort();
        let (count, content) = (lines.len(), digest(lines.join("\n") + "\n"));
        previous = digest(format!(
            "tallygate seal 2\n{number}\nhour\n{epoch}\n{hour}\n{count}\n{content}\n{previous}\n{sealed_at}\n"
        ));
        previous.clone()
    };
    seals.iter().map(compute).collect()
}

const ADMISSIONS: &str = "SELECT 'admission' || char(9) || department || char(9) || subsystem || char(9) || command
    || char(9) || admitted || char(9) || units FROM admission JOIN series USING (series)";
const USAGES: &str =
    "SELECT 'usage' || char(9) || department || char(9) || subsystem || char(9) || command || char(9) ||
    outcome.name || char(9) || late || char(9) || commands || char(9) || units || char(9) || request_bytes || char(9) || response_bytes
    || char(9) || duration_ns FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome";

fn texts(book: &rusqlite::Connection, query: &str) -> Vec<String> {
    let mut query = book.prepare(query).expect("a query");
    let rows = query.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a text")).collect()
}
