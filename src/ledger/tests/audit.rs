//! The audit: a sound ledger has no findings, whatever happened to its gateway; every edit is found, and where it is.

use super::*;
use crate::ledger::audit::{Check, NotedHead, Verdict, export, info, verify};

const HOUR: Duration = Duration::from_secs(3600);
const SERIES: &str = "department-1/cameras/command-1";

fn audited(path: &Path) -> Verdict {
    verify(path, None, &mut |_, _, _| ()).expect("an audit")
}

fn correction(units: i64) -> Adjustment {
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

/// Three sealed hours from 03:00 on, a correction, a fourth hour with a late end, an open hour with one command in flight.
/// Seals 1, 2, 3 and 5 are of hours, 4 is of the correction.
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
    adjust(&bench.path(), &correction(-5), &bench.clock).expect("a correction");
    bench.pass(HOUR, &ledger, &meter);
    let flying = admit(&meter, &bench.clock);
    wait(ledger.reader().fold()).expect("a fold");
    (ledger, meter, flying)
}

/// [`busy`], closed: seal 6 is of the epoch's end.
fn closed() -> Bench {
    let bench = Bench::new();
    let (ledger, meter, flying) = busy(&bench);
    drop((flying, meter));
    ledger.close().expect("closed");
    bench
}

fn edit(bench: &Bench, statements: &str) {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).expect(statements);
}

fn sound(path: &Path, what: &str) -> Verdict {
    let verdict = audited(path);
    assert!(verdict.ok, "{what}: {:#?}", verdict.findings);
    verdict
}

/// All that is found, with its place.
fn found(bench: &Bench) -> Vec<String> {
    audited(&bench.path()).findings.iter().map(|one| format!("{} at {}", one.check, one.place)).collect()
}

fn forgetful(bench: &Bench) -> (Ledger, Meter) {
    let settings = LedgerSettings { compact_after: Some(48 * HOUR), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    (ledger, seeds.remove(0).into_meter())
}

fn old_book(bench: &Bench, text: &str) {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(text).expect("a book of an old format");
}

/// As if the machine had been started anew since.
fn another_boot(bench: &Bench) {
    let tally = bench.path().with_extension(TALLY);
    let mut bytes = std::fs::read(&tally).expect("the tally");
    bytes[16 * 8 + 1] ^= 1; // the first character of the boot id
    std::fs::write(&tally, bytes).expect("written");
    let boot = "UPDATE epoch SET boot_id = char(unicode(boot_id) ^ 1) || substr(boot_id, 2) WHERE ending IS NULL";
    edit(bench, &boot.replace("unicode(boot_id) ^ 1", "unicode(boot_id) + 1 - 2 * (unicode(boot_id) & 1)"));
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
fn a_ledger_is_sound_at_every_moment_of_a_busy_worker() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            for _ in 0..30 {
                sound(&bench.path(), "busy");
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
    wait(ledger.reader().fold()).expect("a fold");
    sound(&bench.path(), "at rest");
}

fn exported(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut keep = |part: crate::ledger::audit::Part| {
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
fn a_book_whose_tally_is_gone_is_told_and_balances_as_of_its_last_fold() {
    let bench = Bench::new();
    let (ledger, meter, flying) = busy(&bench);
    let copy = Bench { folder: tempfile::tempdir().expect("a folder"), clock: bench.clock.clone() };
    for extension in ["db", "db-wal"] {
        std::fs::copy(bench.path().with_extension(extension), copy.path().with_extension(extension)).expect("a copy");
    }
    assert_eq!(found(&copy), ["tally at epoch 1"]);
    assert_balanced(&exported(&copy.path()));
    let (ledger_2, _) = copy.open_one();
    sound(&copy.path(), "the next start ends the epoch as the last fold saw it");
    ledger_2.close().expect("closed");
    assert_balanced(&exported(&copy.path()));
    drop((ledger, flying, meter));
}

/// Every finding of every edit, and where.
#[test]
fn every_edit_of_the_book_is_found_where_it_is() {
    let hour = |hour: u32| format!("epoch 1, hour 2026-11-24T{hour:02}:00:00Z");
    let seal = |seal: u32, of: u32| format!("seal {seal} (epoch 1, hour 2026-11-24T{of:02}:00:00Z)");
    let day = |outcome: &str| format!("sums at day 2026-11-24, {SERIES}, {outcome}");
    let ever = |outcome: &str| format!("sums at all days (ever_sum), {SERIES}, {outcome}");
    let at = |check: &str, place: String| format!("{check} at {place}");
    let edits: Vec<(&str, &str, Vec<String>)> = vec![
        (
            "a value",
            "UPDATE usage SET response_bytes = 1 WHERE outcome = 1 AND \"window\" = FIRST",
            vec![at("content", seal(1, 3)), day("ok")],
        ),
        (
            "fewer commands",
            "UPDATE usage SET commands = commands - 1 WHERE outcome = 1 AND \"window\" = FIRST + 1",
            vec![at("content", seal(2, 4)), day("ok"), at("balance", format!("{}, {SERIES}", hour(4)))],
        ),
        (
            "a deleted row",
            "DELETE FROM usage WHERE outcome > 100 AND \"window\" = FIRST + 1",
            vec![at("content", seal(2, 4)), day("forbidden")],
        ),
        (
            "an added row",
            "INSERT INTO usage SELECT \"window\", series, 102, epoch, 0, 1, 0, 0, 0, 0 FROM usage
             WHERE outcome = 1 AND \"window\" = FIRST",
            vec![at("content", seal(1, 3)), day("unauthenticated")],
        ),
        (
            "a deleted hour",
            "DELETE FROM usage WHERE \"window\" = FIRST + 1; DELETE FROM admission WHERE \"window\" = FIRST + 1",
            vec![at("content", seal(2, 4)), day("admitted"), day("ok"), day("forbidden"), at("rows", hour(4))],
        ),
        (
            "swapped hours",
            "CREATE TABLE kept AS SELECT * FROM usage WHERE \"window\" IN (FIRST + 1, FIRST + 2);
             DELETE FROM usage WHERE \"window\" IN (FIRST + 1, FIRST + 2);
             INSERT INTO usage SELECT 2 * FIRST + 3 - \"window\", series, outcome, epoch, late, commands, units, request_bytes,
                 response_bytes, duration_ns FROM kept;
             DROP TABLE kept",
            vec![
                at("content", seal(2, 4)),
                at("content", seal(3, 5)),
                at("balance", format!("{}, {SERIES}", hour(4))),
                at("balance", format!("{}, {SERIES}", hour(5))),
            ],
        ),
        (
            "a deleted seal",
            "DELETE FROM seal WHERE number = 2",
            vec![at("link", seal(3, 5)), at("link", seal(3, 5)), at("rows", hour(4)), day("admitted"), day("ok"), day("forbidden")],
        ),
        ("a truncated tail", "DELETE FROM seal WHERE number > 4", vec![at("head", "seal 4".to_owned())]),
        (
            "reordered seals",
            "UPDATE seal SET number = -2 WHERE number = 2; UPDATE seal SET number = 2 WHERE number = 3;
             UPDATE seal SET number = 3 WHERE number = -2",
            vec![],
        ),
        ("an edited seal", "UPDATE seal SET sealed_at = 'now' WHERE number = 3", vec![at("hash", seal(3, 5))]),
        (
            "a made-up hash",
            "UPDATE seal SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE number = 1",
            vec![at("hash", seal(1, 3)), at("link", seal(2, 4))],
        ),
        ("a day", "UPDATE day_sum SET units = units - 3 WHERE outcome = 1", vec![day("ok"), ever("ok")]),
        ("a total", "UPDATE ever_sum SET commands = commands + 1 WHERE outcome = 0", vec![ever("admitted")]),
        ("a deleted total", "DELETE FROM ever_sum WHERE outcome = 1", vec![ever("ok")]),
        ("a correction", "UPDATE adjustment SET units = -50", vec![at("adjustments", "seal 4 (adjustment)".to_owned())]),
        ("a deleted correction", "DELETE FROM adjustment", vec![at("adjustments", "seal 4 (adjustment)".to_owned())]),
        (
            "a correction without a seal",
            "INSERT INTO adjustment SELECT 2, department, subsystem, command, period, 7, reason, who, made_at FROM adjustment",
            vec![at("adjustments", "adjustment 2".to_owned())],
        ),
        (
            "another ending",
            "UPDATE epoch SET ending = 'process died'",
            vec![at("epochs", "seal 6 (end of epoch 1)".to_owned())],
        ),
        (
            "an end without a moment",
            "UPDATE epoch SET ended_at = NULL",
            vec![at("epochs", "seal 6 (end of epoch 1)".to_owned()), at("epochs", "epoch 1".to_owned())],
        ),
        (
            "an epoch without an end",
            "UPDATE epoch SET ended_at = NULL, ending = NULL",
            vec![at("epochs", "seal 6 (end of epoch 1)".to_owned()), at("tally", "epoch 1".to_owned())],
        ),
        (
            "an end without a seal",
            "DELETE FROM seal WHERE number = 6; UPDATE meta SET (head_number, head_hash) = (SELECT number, hash FROM seal WHERE number = 5)",
            vec![at("epochs", "epoch 1".to_owned())],
        ),
        ("a renumbered epoch", "UPDATE epoch SET epoch = 2", vec![]),
        ("a hidden hour", "DELETE FROM unsealed", vec![at("rows", hour(7))]),
        (
            "a hidden beginning",
            "UPDATE meta SET rolled_before = FIRST + 1",
            vec![],
        ),
        (
            "a name",
            "UPDATE series SET department = 'somebody-else' WHERE department = 'department-1'",
            [(1, 3), (2, 4), (3, 5), (5, 6)].map(|(number, of)| at("content", seal(number, of))).to_vec(),
        ),
    ];
    for (what, statements, expected) in edits {
        let bench = closed();
        let first = bench.number("SELECT min(\"window\") FROM usage").to_string();
        edit(&bench, &statements.replace("FIRST", &first));
        assert_eq!(found(&bench), expected, "{what}: {:#?}", audited(&bench.path()).findings);
    }
}

#[test]
fn a_live_book_that_has_more_than_its_tally_is_found() {
    let bench = Bench::new();
    let (_ledger, _meter, _flying) = busy(&bench);
    edit(
        &bench,
        "UPDATE admission SET admitted = admitted + 1 WHERE \"window\" = (SELECT max(\"window\") FROM admission)",
    );
    assert_eq!(found(&bench), [format!("tally at epoch 1, hour 2026-11-24T07:00:00Z, {SERIES}")]);
}

#[test]
fn a_crash_that_was_made_a_clean_end_is_found() {
    let bench = Bench::new();
    let (ledger, meter, flying) = busy(&bench);
    drop(ledger);
    another_boot(&bench);
    drop((flying, meter));
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    sound(&bench.path(), "as it was");
    assert_eq!(bench.number("SELECT number FROM seal WHERE kind = 'epoch' AND epoch = 1"), 6);
    edit(&bench, "UPDATE epoch SET ending = 'clean' WHERE ending = 'machine died'");
    assert_eq!(found(&bench), ["epochs at seal 6 (end of epoch 1)"]);
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
    for (wrong, place) in [(other, "seal 5"), (beyond, "seal 99")] {
        let verdict = verify(&bench.path(), Some(&wrong), &mut |_, _, _| ()).expect("an audit");
        let found: Vec<_> = verdict.findings.iter().map(|one| (one.check, one.place.as_str())).collect();
        assert_eq!(found, [(Check::Head, place)], "{wrong:?}");
    }
}

#[test]
fn a_ledger_that_was_migrated_or_forgot_its_hours_is_sound() {
    for (text, seals) in [(BOOK_1, 4), (BOOK_2, 11)] {
        let bench = Bench::new();
        old_book(&bench, text);
        let (ledger, meter) = forgetful(&bench);
        assert_eq!(sound(&bench.path(), "migrated").head.number, seals);
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
}

const BOOK_1: &str = include_str!("../../../tests/data/book-1.sql");
const BOOK_2: &str = include_str!("../../../tests/data/book-2.sql");

/// An epoch that lost counts excuses what is missing of it, and nothing else.
#[test]
fn an_epoch_with_gaps_excuses_no_imbalance_of_other_epochs() {
    let bench = Bench::new();
    old_book(&bench, BOOK_1);
    let (ledger, meter, flying) = busy(&bench);
    drop(ledger);
    another_boot(&bench);
    drop((flying, meter));
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    sound(&bench.path(), "as it was");
    let balances = || found(&bench).into_iter().filter(|one| one.starts_with("balance")).collect::<Vec<_>>();
    edit(&bench, "UPDATE usage SET commands = commands - 1 WHERE epoch = 2 AND outcome = 1");
    assert_eq!(balances(), [""; 0]);
    assert!(audited(&bench.path()).notes.iter().any(|note| note.starts_with("epoch 2 ended `machine died`")));
    edit(&bench, "UPDATE usage SET commands = commands - 1 WHERE epoch = 1 AND outcome = 1");
    assert_eq!(balances(), ["balance at epoch 1, police/cameras/read"]);
}

#[test]
fn an_imbalance_of_days_is_found_where_no_epoch_with_gaps_explains_it() {
    let bench = Bench::new();
    let (ledger, meter) = forgetful(&bench);
    for _ in 0..3 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(24 * HOUR, &ledger, &meter);
    }
    drop(ledger);
    another_boot(&bench);
    drop(meter);
    let (ledger, meter) = forgetful(&bench);
    bench.pass(240 * HOUR, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold()).expect("a fold");
    }
    ledger.close().expect("closed");
    sound(&bench.path(), "three days");
    let more = |day: u32| {
        format!(
            "UPDATE day_sum SET commands = commands + 1 WHERE outcome = 1 AND day = (SELECT min(day) FROM day_sum) + {}",
            day * 24
        )
    };
    let balances = || found(&bench).into_iter().filter(|one| one.starts_with("balance")).collect::<Vec<_>>();
    edit(&bench, &more(1));
    assert_eq!(balances(), [""; 0], "epoch 1 lost counts");
    edit(&bench, "UPDATE epoch SET ending = 'clean' WHERE epoch = 1");
    assert_eq!(balances(), [format!("balance at day 2026-11-25, {SERIES}")]);
}

#[test]
fn an_export_holds_every_line_that_is_sealed_and_every_row_that_is_not() {
    let bench = Bench::new();
    let (ledger, meter, flying) = busy(&bench);
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
        assert_eq!(canon::content(&part.lines), part.heading[7], "{:?}", part.heading);
    }
    assert_eq!((live[1].lines.len(), live[8].lines.len()), (1, 1), "one epoch; one command is in flight");
    drop(ledger); // like a kill
    let dead = parts();
    let open = dead.iter().find(|part| part.heading[0] == "open").expect("an hour");
    let interrupted = format!("usage\t{}\tinterrupted\t0\t1\t3\t", SERIES.replace('/', "\t"));
    assert!(open.lines.iter().any(|line| line.starts_with(&interrupted)), "as in reports: {:?}", open.lines);
    assert!(dead.iter().all(|part| part.heading[0] != "flying" || part.lines.is_empty()));
    drop((flying, meter));
    drop(bench.open_one());
    let recovered = parts();
    let end = recovered.iter().find(|part| part.heading.get(3).is_some_and(|kind| kind == "epoch")).expect("its end");
    assert!(end.lines[0].ends_with("\tprocess died") && end.lines[0] == recovered[1].lines[0], "{:?}", end.lines);
}
