//! An older copy of the tally beside a newer book: no count decreases.

use super::audit::{HOUR, assert_sound};
use super::*;

fn tally(bench: &LedgerBench) -> PathBuf {
    bench.path().with_extension(TALLY_EXTENSION)
}

fn ending(bench: &LedgerBench) -> String {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.query_row("SELECT ending FROM epoch WHERE epoch = 1", [], |row| row.get(0)).expect("an ending")
}

fn count(bench: &LedgerBench, meter: &Meter, (commands, finished): (u32, Finished)) {
    for _ in 0..commands {
        admit(meter, &bench.clock).settle(finished);
    }
}

/// The kept tally has three commands and a stream. The book also has seven more commands, the end of the stream, and
/// another stream.
fn with_an_older_tally(bench: &LedgerBench, sealed_between: bool) {
    let (ledger, meter) = bench.open_one();
    let stream = admit(&meter, &bench.clock);
    count(bench, &meter, (3, Finished::Ok));
    refuse(&meter, &bench.clock);
    wait(ledger.reader().fold_now()).expect("a fold");
    let older = std::fs::read(tally(bench)).expect("the tally");
    if sealed_between {
        bench.pass(HOUR, &ledger, &meter);
    }
    count(bench, &meter, (7, Finished::Ok));
    stream.settle(Finished::ClientError);
    let mut unfinished = admit(&meter, &bench.clock);
    unfinished.add_response_bytes(5);
    wait(ledger.reader().fold_now()).expect("a fold");
    drop(ledger); // like a crash
    drop((unfinished, meter)); // they still count into the mapped file
    std::fs::write(tally(bench), older).expect("the older tally");
}

#[test]
fn older_tally_lowers_no_count_of_the_book() {
    for sealed_between in [false, true] {
        let bench = LedgerBench::new();
        with_an_older_tally(&bench, sealed_between);
        let before = brief(&bench.files());
        assert_eq!(before.iter().filter(|row| row.0 == "ok").map(|row| row.1).sum::<u64>(), 10, "{before:?}");
        let (ledger, _) = bench.open_one();
        let rows = bench.files();
        let sum = |name: &str| {
            let of_it = rows.iter().filter(|row| row.outcome.name() == name);
            of_it.fold((0, 0, 0), |sum, row| {
                (sum.0 + row.totals.commands, sum.1 + row.totals.units, sum.2 + row.totals.response_bytes)
            })
        };
        assert_eq!((sum("ok"), sum("client_error"), sum("forbidden").0), ((10, 30, 0), (1, 3, 0), 1), "{rows:?}");
        assert_eq!(sum("interrupted"), (1, 3, 5), "what was in flight at the last fold: {rows:?}");
        assert_eq!(ending(&bench), "tally missing");
        assert_sound(&bench.path(), "recovered");
        let aside = std::fs::read_dir(bench.folder.path()).expect("a folder").flatten();
        assert_eq!(aside.filter(|file| file.file_name().to_string_lossy().contains("aside")).count(), 1);
        ledger.close().expect("closed");
        assert_sound(&bench.path(), "closed");
    }
}

#[test]
fn tally_with_halved_counts_keeps_the_larger_ones() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count(&bench, &meter, (8, Finished::Ok));
    wait(ledger.reader().fold_now()).expect("a fold");
    count(&bench, &meter, (4, Finished::ServerError));
    drop((ledger, meter));
    let mut bytes = std::fs::read(tally(&bench)).expect("the tally");
    for slot in bytes.chunks_mut(512).skip(1).filter(|slot| slot[0] == 2) {
        slot[8 * 8] = 4; // 8 commands have ended with `ok`
    }
    std::fs::write(tally(&bench), bytes).expect("written");
    let (_ledger, _meter) = bench.open_one();
    assert_eq!(brief(&bench.files()), [("ok", 8, 24), ("server_error", 4, 12)]);
    assert_eq!(ending(&bench), "tally missing");
    assert_sound(&bench.path(), "recovered");
}

#[test]
fn original_tally_is_not_treated_as_older() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = audit::busy(&bench);
    drop(ledger);
    drop((unfinished, meter));
    drop(bench.open_one());
    assert_eq!(ending(&bench), "process died");
}
