//! Backups of a ledger verify, whatever the state of the ledger.

use crate::ledger::audit::{BackupError, LedgerBackup, backup, ledger_info};

use super::audit::{assert_sound, busy, closed};
use super::*;

/// Returns a backup in its own folder.
fn copy_of(bench: &LedgerBench) -> (LedgerBench, LedgerBackup) {
    let copy = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    let made = backup(&bench.path(), copy.folder.path(), &mut |_, _, _| ()).expect("a copy");
    (copy, made)
}

fn files_of(bench: &LedgerBench) -> Vec<String> {
    let files = std::fs::read_dir(bench.folder.path()).expect("a folder").filter_map(Result::ok);
    let mut names: Vec<_> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn backup_of_a_live_ledger_is_one_sound_book_with_equal_totals() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    admit(&meter, &bench.clock).settle(Finished::Timeout); // in the tally only
    let (copy, made) = copy_of(&bench);
    assert_eq!(files_of(&copy), ["ledger.db"], "no tally, no log and no partial file");
    assert_eq!((made.is_kept, made.tally, made.head.number), (true, None, 5));
    assert_eq!(made.bytes, std::fs::metadata(copy.path()).expect("the copy").len());
    assert_eq!(copy.files(), bench.files());
    let verdict = assert_sound(&copy.path(), "a backup");
    assert!(verdict.notes.iter().any(|note| note.contains("there is no tally beside the book")), "{:?}", verdict.notes);
    assert_eq!(copy.number("SELECT sum(commands) FROM in_flight_hourly"), 1);

    let (restored, _) = copy.open_one();
    restored.close().expect("closed");
    let (before, after) = (brief(&bench.files()), brief(&copy.files()));
    assert_eq!(after.len(), before.len() + 1, "commands in flight are interrupted: {after:?}");
    assert!(after.contains(&("interrupted", 1, 3)), "{after:?}");
    assert_sound(&copy.path(), "restored and kept on");
    assert!(ledger_info(&copy.path()).expect("info").epochs[0].meaning.contains("its tally was missing"));
    drop((ledger, meter, unfinished));
}

#[test]
fn backup_of_a_killed_ledger_is_recovered_as_the_ledger() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    admit(&meter, &bench.clock).settle(Finished::Timeout);
    drop(ledger);
    let (copy, made) = copy_of(&bench);
    assert!(!made.is_kept && made.tally.is_some());
    assert_eq!(files_of(&copy), ["ledger.db", "ledger.tally"]);
    assert_eq!(copy.files(), bench.files());
    assert_sound(&copy.path(), "a backup");
    let (restored, _) = copy.open_one();
    restored.close().expect("closed");
    assert_eq!(copy.files(), bench.files());
    assert_sound(&copy.path(), "recovered");
    drop((meter, unfinished));
}

#[test]
fn backup_of_a_closed_ledger_has_its_chain() {
    let bench = closed();
    let (copy, made) = copy_of(&bench);
    assert_eq!(files_of(&copy), ["ledger.db"]);
    assert_eq!(copy.files(), bench.files());
    let (of_copy, of_bench) = (assert_sound(&copy.path(), "a backup"), assert_sound(&bench.path(), "closed"));
    assert_eq!((of_copy.head.number, &of_copy.head), (6, &of_bench.head));
    assert_eq!((made.head, of_copy.notes), (of_bench.head, vec![]));
}

#[test]
fn backup_overwrites_nothing_and_leaves_no_partial_files() {
    let bench = closed();
    let to = tempfile::tempdir().expect("a folder");
    let (book, tally) = (to.path().join("a.db"), to.path().join("b.tally"));
    std::fs::write(&book, "precious").expect("written");
    std::fs::write(&tally, "precious").expect("written");
    for target in [&book, &to.path().join("b.db")] {
        let error = backup(&bench.path(), target, &mut |_, _, _| ()).expect_err("nothing is overwritten");
        assert!(matches!(error, BackupError::Exists(_)), "{error}");
    }
    let nowhere = backup(&bench.path(), &to.path().join("none/c.db"), &mut |_, _, _| ()).expect_err("no folder");
    assert!(matches!(nowhere, BackupError::Ledger(_)), "{nowhere}");
    assert_eq!(std::fs::read_dir(to.path()).expect("a folder").count(), 2);
    assert_eq!(std::fs::read(&book).expect("read"), b"precious");
}

#[test]
fn backups_of_a_busy_ledger_are_sound() {
    let bench = LedgerBench::new();
    let (_ledger, meter) = bench.open_one();
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let copier = scope.spawn(|| {
            for number in 0..5 {
                let (copy, _) = copy_of(&bench);
                assert_sound(&copy.path(), &format!("copy {number}"));
            }
            done.store(true, order);
        });
        while !done.load(order) && !copier.is_finished() {
            let held = admit(&meter, &bench.clock);
            admit(&meter, &bench.clock).settle(Finished::Ok);
            refuse(&meter, &bench.clock);
            held.settle(Finished::Timeout);
            meter.tick();
        }
    });
}

/// A copy by `sqlite3 ledger.db ".backup copy.db"` has the book of the last fold, without log and tally.
#[test]
fn sqlite_backup_is_sound_and_notes_what_is_not_proven() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let copy = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute("VACUUM INTO ?1", [copy.path().to_str().expect("a name")]).expect("a copy");
    let verdict = assert_sound(&copy.path(), "a copy of the book alone");
    let note = verdict.notes.join("\n");
    assert!(
        note.contains("epoch 1") && note.contains("later counts of the tally are missing and not proven"),
        "{note}"
    );
    drop((ledger, meter, unfinished));
}
