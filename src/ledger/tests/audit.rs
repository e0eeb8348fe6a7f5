//! The audit: a sound ledger has no findings, whatever happened to its gateway; every edit is found, and where.

use super::*;
use crate::ledger::audit::{Check, NotedHead, Verdict, export, info, verify};

const HOUR: Duration = Duration::from_secs(3600);

fn audited(path: &Path) -> Verdict {
    verify(path, None, &mut |_, _, _| ()).expect("an audit")
}

/// Three sealed hours, a late end among them, a correction, an open hour with one command in flight.
fn busy(bench: &Bench) -> (Ledger, Meter, Ticket) {
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
    let correction = Adjustment {
        department: department(1).id,
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units: -5,
        reason: "a test".to_owned(),
        who: "finance".to_owned(),
    };
    adjust(&bench.path(), &correction, &bench.clock).expect("a correction");
    bench.pass(HOUR, &ledger, &meter);
    let flying = admit(&meter, &bench.clock);
    wait(ledger.reader().fold()).expect("a fold");
    (ledger, meter, flying)
}

fn sound(path: &Path, what: &str) -> Verdict {
    let verdict = audited(path);
    assert!(verdict.ok, "{what}: {:#?}", verdict.findings);
    verdict
}

#[test]
fn a_sound_ledger_has_no_findings_live_killed_copied_or_closed() {
    let bench = Bench::new();
    let (ledger, meter, flying) = busy(&bench);
    let live = sound(&bench.path(), "live");
    assert_eq!((live.checked.seals, live.checked.adjustments, live.head.number), (5, 1, 5));
    let told = info(&bench.path()).expect("info");
    assert_eq!((told.is_kept, told.tally.map(|tally| tally.in_flight)), (true, Some(1)));
    assert_eq!((told.windows.sealed, told.windows.unsealed, told.adjustments.len()), (4, 1, 1));
    let copy = tempfile::tempdir().expect("a folder");
    for extension in ["db", "db-wal", "tally"] {
        let to = copy.path().join("ledger").with_extension(extension);
        std::fs::copy(bench.path().with_extension(extension), to).expect("a copy");
    }
    sound(&copy.path().join("ledger.db"), "a copy");
    drop(ledger); // like a kill: nothing is closed
    sound(&bench.path(), "killed");
    drop((flying, meter));
    let (ledger, _) = bench.open_one();
    sound(&bench.path(), "recovered");
    ledger.close().expect("closed");
    let closed = sound(&bench.path(), "closed");
    assert!(closed.notes.is_empty(), "{:?}", closed.notes);
    let endings: Vec<_> = info(&bench.path()).expect("info").epochs.into_iter().map(|one| one.meaning).collect();
    assert_eq!(endings, ["the process died; counts exact", "closed; counts exact"]);
}

#[test]
fn every_edit_of_the_book_is_found() {
    let edits = [
        ("a value", "UPDATE usage SET commands = commands + 1 WHERE rowid_is_first", vec![Check::Content]),
        (
            "a refusal less",
            "UPDATE usage SET commands = commands - 1 WHERE outcome > 100 AND \"window\" = FIRST",
            vec![Check::Content],
        ),
        ("a row gone", "DELETE FROM usage WHERE \"window\" = FIRST AND outcome = 1", vec![Check::Content]),
        (
            "an hour gone",
            "DELETE FROM usage WHERE \"window\" = FIRST; DELETE FROM admission WHERE \"window\" = FIRST",
            vec![Check::Content],
        ),
        (
            "hours exchanged",
            "UPDATE usage SET \"window\" = -1 WHERE \"window\" = FIRST; UPDATE usage SET \"window\" = FIRST WHERE \"window\" = FIRST + 1; UPDATE usage SET \"window\" = FIRST + 1 WHERE \"window\" = -1",
            vec![Check::Content],
        ),
        ("a seal gone", "DELETE FROM seal WHERE number = 2", vec![Check::Link, Check::Rows]),
        ("the tail gone", "DELETE FROM seal WHERE number = (SELECT max(number) FROM seal)", vec![Check::Head]),
        (
            "seals reordered",
            "UPDATE seal SET number = -2 WHERE number = 2; UPDATE seal SET number = 2 WHERE number = 3; UPDATE seal SET number = 3 WHERE number = -2",
            vec![Check::Link],
        ),
        ("a day", "UPDATE day_sum SET commands = commands + 1 WHERE outcome = 1", vec![Check::Sums]),
        ("a total", "UPDATE ever_sum SET units = units + 1 WHERE outcome = 1", vec![Check::Sums]),
        ("a correction", "UPDATE adjustment SET units = -6", vec![Check::Adjustments]),
        ("a correction gone", "DELETE FROM adjustment", vec![Check::Adjustments]),
        ("an epoch", "UPDATE epoch SET epoch = 7", vec![Check::Epochs]),
        (
            "a name",
            "UPDATE series SET department = 'somebody-else' WHERE department = 'department-1'",
            vec![Check::Content],
        ),
        ("a hash", "UPDATE seal SET hash = replace(hash, 'a', 'b') WHERE number = 1", vec![Check::Hash, Check::Link]),
    ];
    for (what, edit, expected) in edits {
        let bench = Bench::new();
        let (ledger, meter, flying) = busy(&bench);
        drop((flying, meter));
        ledger.close().expect("closed");
        let book = rusqlite::Connection::open(bench.path()).expect("a book");
        let first: i64 = book.query_row("SELECT min(\"window\") FROM usage", [], |row| row.get(0)).expect("a row");
        let edit =
            edit.replace("rowid_is_first", "outcome = 1 AND \"window\" = FIRST").replace("FIRST", &first.to_string());
        book.execute_batch(&format!("PRAGMA foreign_keys = OFF; {edit}")).expect(what);
        let verdict = audited(&bench.path());
        let found: Vec<_> = verdict.findings.iter().map(|finding| finding.check).collect();
        assert!(!verdict.ok && expected.iter().all(|check| found.contains(check)), "{what}: {:#?}", verdict.findings);
        assert!(verdict.findings.iter().all(|finding| !finding.place.is_empty()), "{what} is located");
    }
}

#[test]
fn a_head_that_was_noted_elsewhere_betrays_a_chain_that_was_made_anew() {
    let bench = Bench::new();
    let (ledger, _meter, _flying) = busy(&bench);
    let head = audited(&bench.path()).head;
    let noted = NotedHead::parse(&format!("{}:{}", head.number, head.hash)).expect("a head");
    bench.pass(HOUR, &ledger, &_meter);
    assert!(verify(&bench.path(), Some(&noted), &mut |_, _, _| ()).expect("an audit").ok, "the chain went on");
    let other = NotedHead { hash: "0".repeat(64), ..noted.clone() };
    let beyond = NotedHead { number: 99, ..noted };
    for wrong in [other, beyond] {
        let verdict = verify(&bench.path(), Some(&wrong), &mut |_, _, _| ()).expect("an audit");
        assert_eq!(verdict.findings.iter().map(|one| one.check).collect::<Vec<_>>(), [Check::Head], "{wrong:?}");
    }
}

#[test]
fn a_ledger_that_was_migrated_or_forgot_its_hours_is_sound() {
    let bench = Bench::new();
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(include_str!("../../../tests/data/book-1.sql")).expect("the book of format 1");
    drop(book);
    let settings = LedgerSettings { compact_after: Some(48 * HOUR), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    sound(&bench.path(), "migrated");
    for _ in 0..30 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(HOUR, &ledger, &meter);
    }
    bench.pass(240 * HOUR, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold()).expect("a fold");
    }
    assert!(sound(&bench.path(), "forgetful").checked.rolled > 0);
}

#[test]
fn an_export_holds_every_line_that_is_sealed_and_every_row_that_is_not() {
    let bench = Bench::new();
    let (_ledger, _meter, _flying) = busy(&bench);
    let mut parts = Vec::new();
    export(&bench.path(), &mut |part| {
        parts.push(part);
        Ok(())
    })
    .expect("an export");
    let words: Vec<&str> = parts.iter().map(|part| part.heading[0].as_str()).collect();
    assert_eq!(words, ["tallygate export 1", "seal", "seal", "seal", "seal", "seal", "open", "flying", "end"]);
    for part in parts.iter().filter(|part| part.heading[0] == "seal") {
        assert_eq!(canon::content(&part.lines), part.heading[7], "{:?}", part.heading);
    }
    assert_eq!(parts[7].lines.len(), 1, "one command is in flight");
}
