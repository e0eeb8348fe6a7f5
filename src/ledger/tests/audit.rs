//! The audit of sound ledgers: it has no findings, whatever happened to the gateway.

use crate::ledger::audit::{AuditVerdict, NotedHead, export, ledger_info, verify};

use super::*;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SERIES: &str = "department-1/cameras/command-1";

pub(crate) fn audit_report(path: &Path) -> AuditVerdict {
    verify(path, None, &mut |_, _, _| ()).expect("an audit")
}

pub(crate) fn correction(units: i64) -> Adjustment {
    Adjustment {
        department: department(1).id,
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units,
        reason: "a test".to_owned(),
        who: "finance".to_owned(),
    }
}

/// Returns a ledger with three sealed hours from 03:00 on, an adjustment, a fourth hour with a late end, and an open
/// hour with one command in flight. Seals 1, 2, 3 and 5 cover hours; seal 4 covers the adjustment.
pub(crate) fn busy(bench: &LedgerBench) -> (Ledger, Meter, Ticket) {
    let (ledger, meter) = bench.open_one();
    let stream = admit(&meter, &bench.clock);
    for number in 1..=3 {
        for _ in 0..number {
            admit(&meter, &bench.clock).settle(Finished::Ok);
            refuse(&meter, &bench.clock);
        }
        bench.pass(HOUR, &ledger, &meter);
    }
    stream.settle(Finished::Aborted);
    add_adjustment(&bench.path(), &correction(-5), &bench.clock).expect("a correction");
    bench.pass(HOUR, &ledger, &meter);
    let unfinished = admit(&meter, &bench.clock);
    wait(ledger.reader().fold_now()).expect("a fold");
    (ledger, meter, unfinished)
}

/// Returns [`busy`] after a clean close: seal 6 covers the end of the epoch.
pub(crate) fn closed() -> LedgerBench {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    drop((unfinished, meter));
    ledger.close().expect("closed");
    bench
}

pub(crate) fn edit(bench: &LedgerBench, statements: &str) {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).expect(statements);
}

pub(crate) fn assert_sound(path: &Path, what: &str) -> AuditVerdict {
    let verdict = audit_report(path);
    assert!(verdict.ok, "{what}: {:#?}", verdict.findings);
    verdict
}

/// Returns all findings with their places.
pub(crate) fn found(bench: &LedgerBench) -> Vec<String> {
    audit_report(&bench.path()).findings.iter().map(|one| format!("{} at {}", one.check, one.place)).collect()
}

pub(crate) fn open_compacting(bench: &LedgerBench) -> (Ledger, Meter) {
    let settings = LedgerSettings { compact_after: Some(48 * HOUR), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    (ledger, seeds.remove(0).into_meter())
}

pub(crate) fn old_book(bench: &LedgerBench, text: &str) {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(text).expect("a book of an old format");
}

/// Changes the boot id, as if the machine had restarted since.
pub(crate) fn another_boot(bench: &LedgerBench) {
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    let mut bytes = std::fs::read(&tally).expect("the tally");
    bytes[16 * 8 + 1] ^= 1; // the first character of the boot id
    std::fs::write(&tally, bytes).expect("written");
    let boot = "UPDATE epoch SET boot_id = char(unicode(boot_id) ^ 1) || substr(boot_id, 2) WHERE ending IS NULL";
    edit(bench, &boot.replace("unicode(boot_id) ^ 1", "unicode(boot_id) + 1 - 2 * (unicode(boot_id) & 1)"));
}

#[test]
fn sound_ledger_has_no_findings_live_killed_copied_or_closed() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    let live = assert_sound(&bench.path(), "live");
    assert_eq!((live.checked.seals, live.checked.adjustments, live.head.number), (5, 1, 5));
    let info = ledger_info(&bench.path()).expect("info");
    assert_eq!((info.is_kept, info.tally.map(|tally| tally.in_flight)), (true, Some(1)));
    assert_eq!((info.windows.sealed, info.windows.unsealed, info.adjustments.len()), (4, 1, 1));
    let copy = tempfile::tempdir().expect("a folder");
    for extension in ["db", "db-wal", "tally"] {
        let to = copy.path().join("ledger").with_extension(extension);
        std::fs::copy(bench.path().with_extension(extension), to).expect("a copy");
    }
    assert_sound(&copy.path().join("ledger.db"), "a copy");
    drop(ledger); // like a crash: the epoch has no clean end
    assert_sound(&bench.path(), "killed");
    drop((unfinished, meter));
    let (ledger, _) = bench.open_one();
    assert_sound(&bench.path(), "recovered");
    ledger.close().expect("closed");
    let closed = assert_sound(&bench.path(), "closed");
    assert!(closed.notes.is_empty(), "{:?}", closed.notes);
    let endings: Vec<_> = ledger_info(&bench.path()).expect("info").epochs.into_iter().map(|one| one.meaning).collect();
    assert_eq!(endings, ["the process died; counts exact", "closed; counts exact"]);
}

#[test]
fn book_created_and_never_used_is_sound() {
    let bench = LedgerBench::new();
    let other = Name::parse("gateway-0").expect("a name");
    drop(BookWriter::open(&bench.path(), &other, CalendarOffset::default()).expect("a book"));
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "the book is the gateway's that counted in it first");
}

#[test]
fn ledger_is_sound_at_every_moment_of_a_busy_worker() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            for _ in 0..30 {
                assert_sound(&bench.path(), "busy");
                assert_balanced(&exported(&bench.path()));
            }
            done.store(true, order);
        });
        while !done.load(order) && !auditor.is_finished() {
            let held = admit(&meter, &bench.clock);
            admit(&meter, &bench.clock).settle(Finished::Ok);
            refuse(&meter, &bench.clock);
            held.settle(Finished::Timeout);
            meter.tick();
        }
    });
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_sound(&bench.path(), "at rest");
}

fn exported(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut keep = |part: crate::ledger::audit::ExportPart| {
        lines.extend(part.lines);
        Ok(())
    };
    export(path, &mut keep).expect("an export");
    lines
}

fn assert_balanced(lines: &[String]) {
    let [mut admitted, mut over] = [0; 2];
    for line in lines {
        let fields: Vec<_> = line.split('\t').collect();
        let number = |at: usize| fields[at].parse::<i64>().expect("a number");
        match fields[0] {
            "admission" => admitted += number(4),
            "usage" if fields[4] != "forbidden" => over += number(6),
            "flying" => over += number(5),
            _ => {}
        }
    }
    assert_eq!(admitted, over, "{lines:#?}");
}

#[test]
fn missing_tally_is_reported_and_the_book_balances_as_of_its_last_fold() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    let copy = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    for extension in ["db", "db-wal"] {
        std::fs::copy(bench.path().with_extension(extension), copy.path().with_extension(extension)).expect("a copy");
    }
    let verdict = assert_sound(&copy.path(), "as of its last fold");
    assert!(verdict.notes.iter().any(|note| note.starts_with("epoch 1 has not ended and there is no tally beside")));
    assert_balanced(&exported(&copy.path()));
    let (ledger_2, _) = copy.open_one();
    assert_sound(&copy.path(), "the next start ends the epoch as the last fold saw it");
    ledger_2.close().expect("closed");
    assert_balanced(&exported(&copy.path()));
    drop((ledger, unfinished, meter));
}

/// Lists every finding of every edit, with its place.
#[test]
fn migrated_and_compacted_ledgers_are_sound() {
    for (text, seals) in [(BOOK_1, 4), (BOOK_2, 11)] {
        let bench = LedgerBench::new();
        old_book(&bench, text);
        let (ledger, meter) = open_compacting(&bench);
        assert_eq!(assert_sound(&bench.path(), "migrated").head.number, seals);
        independent_audit(&bench).expect("the independent audit agrees");
        for _ in 0..30 {
            admit(&meter, &bench.clock).settle(Finished::Ok);
            bench.pass(HOUR, &ledger, &meter);
        }
        bench.pass(240 * HOUR, &ledger, &meter);
        for _ in 0..8 {
            wait(ledger.reader().fold_now()).expect("a fold");
        }
        assert!(assert_sound(&bench.path(), "forgetful").checked.rolled > 0);
        independent_audit(&bench).expect("the independent audit agrees");
        edit(
            &bench,
            "UPDATE day_sum SET commands = commands + 1 WHERE outcome = 1 AND day = (SELECT min(day) FROM day_sum)",
        );
        let message = independent_audit(&bench).expect_err("a day was edited");
        assert!(message.contains("(day ") && message.contains("its rows are not those that were sealed"), "{message}");
    }
}

/// Runs `docs/check_ledger.py` on an export. Returns its output, or an error if it has findings.
pub(crate) fn independent_audit(bench: &LedgerBench) -> Result<String, String> {
    independent_audit_from(bench, None)
}

/// Like [`independent_audit`], with a noted head of the hash chain.
pub(crate) fn independent_audit_from(bench: &LedgerBench, head: Option<&NotedHead>) -> Result<String, String> {
    let file = bench.folder.path().join("export.txt");
    let mut text = String::new();
    let mut keep = |part: crate::ledger::audit::ExportPart| {
        for line in std::iter::once(part.heading.join("\t")).chain(part.lines) {
            text += &(line + "\n");
        }
        Ok(())
    };
    export(&bench.path(), &mut keep).expect("an export");
    std::fs::write(&file, text).expect("written");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check_ledger.py");
    let head = head.map(|head| format!("--head={}:{}", head.number, head.hash));
    let ended = std::process::Command::new("python3").arg(program).args(head).arg(file).output();
    let ended = ended.expect("python3; `make test` installs it (apt-get install python3)");
    let printed = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    if ended.status.success() { Ok(printed) } else { Err(printed) }
}

pub(crate) const BOOK_1: &str = include_str!("../../../tests/data/book-1.sql");
pub(crate) const BOOK_2: &str = include_str!("../../../tests/data/book-2.sql");

/// An epoch that lost counts excuses only the counts that it lacks.
#[test]
fn export_has_every_sealed_line_and_every_unsealed_row() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    let parts = || {
        let mut parts = Vec::new();
        let mut keep = |part| {
            parts.push(part);
            Ok(())
        };
        export(&bench.path(), &mut keep).expect("an export");
        parts
    };
    let live = parts();
    let words: Vec<&str> = live.iter().map(|part| part.heading[0].as_str()).collect();
    assert_eq!(
        words,
        ["tallygate export 1", "epochs", "seal", "seal", "seal", "seal", "seal", "open", "flying", "end"]
    );
    for part in live.iter().filter(|part| part.heading[0] == "seal") {
        assert_eq!(
            crate::ledger::hash_chain::canonical::content_hash(&part.lines),
            part.heading[7],
            "{:?}",
            part.heading
        );
    }
    assert_eq!((live[1].lines.len(), live[8].lines.len()), (1, 1), "one epoch; one command is in flight");
    drop(ledger); // like a crash
    let dead = parts();
    let open = dead.iter().find(|part| part.heading[0] == "open").expect("an hour");
    let interrupted = format!("usage\t{}\tinterrupted\t0\t1\t3\t", SERIES.replace('/', "\t"));
    assert!(open.lines.iter().any(|line| line.starts_with(&interrupted)), "equal to the reports: {:?}", open.lines);
    assert!(dead.iter().all(|part| part.heading[0] != "flying" || part.lines.is_empty()));
    drop((unfinished, meter));
    drop(bench.open_one());
    let recovered = parts();
    let end = recovered.iter().find(|part| part.heading.get(3).is_some_and(|kind| kind == "epoch")).expect("the end");
    assert!(end.lines[0].ends_with("\tprocess died") && end.lines[0] == recovered[1].lines[0], "{:?}", end.lines);
}
