//! The audit: what is sound has no findings, and whatever is tampered with is found where it is.

use super::*;
use crate::ledger::audit::{Check, ExportForm, NotedHead, Verdict, export, info, verify};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn verdict(path: &Path) -> Verdict {
    verify(path, None, &mut |_, _, _| ()).expect("a verdict")
}

fn assert_sound(path: &Path) -> Verdict {
    let verdict = verdict(path);
    assert!(verdict.ok, "{:#?}", verdict.findings);
    verdict
}

fn exported(path: &Path, form: ExportForm) -> Vec<String> {
    let mut bytes = Vec::new();
    export(path, form, &mut bytes, &mut |_, _, _| ()).expect("an export");
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}

/// What `docs/check_ledger.py` says of an export: its words, if it finds anything.
fn stranger(bench: &Bench) -> Result<String, String> {
    let export = bench.folder.path().join("export.txt");
    let lines = exported(&bench.path(), ExportForm::Text);
    std::fs::write(&export, lines.join("\n") + "\n").expect("the export");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check_ledger.py");
    let ended = std::process::Command::new("python3").arg(script).arg(export).output();
    let ended = ended.expect("python3; `make test` installs it (apt-get install python3)");
    let words = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    if ended.status.success() { Ok(words) } else { Err(words) }
}

fn noted(verdict: &Verdict) -> NotedHead {
    NotedHead::parse(&format!("{}:{}", verdict.head.number, verdict.head.hash)).expect("a head")
}

fn correction() -> Adjustment {
    Adjustment {
        department: Name::parse("department-1").expect("a name"),
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units: -5,
        reason: "a test of the new cameras".to_owned(),
        who: "finance office".to_owned(),
    }
}

/// Two commands with answers of different lengths, and a refusal.
fn count_some(bench: &Bench, meter: &Meter, bytes: u64) {
    for more in [0, 1] {
        let mut ticket = admit(meter, &bench.clock);
        ticket.add_response_bytes(bytes + more);
        ticket.settle(Finished::Ok);
    }
    refuse(meter, &bench.clock);
}

/// Three sealed hours, a correction between the second and the third, one hour that is open and a late end in it.
fn busy(bench: &Bench) -> (Ledger, Meter) {
    let (ledger, meter) = bench.open_one();
    let stream = admit(&meter, &bench.clock);
    for hour in 1..=3 {
        count_some(bench, &meter, 100 * hour);
        if hour == 3 {
            adjust(&bench.path(), &correction(), &bench.clock).expect("a correction");
        }
        bench.pass(HOUR, &ledger, &meter);
    }
    stream.settle(Finished::Aborted);
    count_some(bench, &meter, 7);
    bench.pass(Duration::ZERO, &ledger, &meter);
    (ledger, meter)
}

/// A closed ledger of [`busy`].
fn closed() -> Bench {
    let bench = Bench::new();
    let (ledger, meter) = busy(&bench);
    drop(meter);
    ledger.close().expect("closed");
    bench
}

fn edit(bench: &Bench, statement: &str) {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch("PRAGMA foreign_keys = OFF").expect("no questions");
    book.execute_batch(statement).expect(statement);
}

// ----- sound -----

#[test]
fn a_ledger_that_was_never_used_is_sound() {
    let bench = Bench::new();
    let (ledger, _meter) = bench.open_one();
    let verdict = assert_sound(&bench.path());
    assert_eq!((verdict.head.number, verdict.head.hash.as_str()), (0, canon::BEGINNING));
    ledger.close().expect("closed");
    assert_sound(&bench.path());
}

#[test]
fn a_sound_ledger_has_no_findings_live_closed_killed_or_copied() {
    let bench = Bench::new();
    let (ledger, meter) = busy(&bench);
    let held = admit(&meter, &bench.clock);
    let live = assert_sound(&bench.path());
    assert_eq!((live.head.number, live.checked.seals, live.checked.adjustments), (4, 4, 1));
    assert!(live.checked.slots > 0 && live.checked.balances > 3 && live.checked.days == 1, "{:?}", live.checked);
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["ledger.db", "ledger.db-wal", "ledger.tally"] {
        std::fs::copy(bench.folder.path().join(file), copy.path().join(file)).expect(file);
    }
    assert_eq!(assert_sound(&copy.path().join("ledger.db")).checked, live.checked);
    drop(ledger); // as a kill: nothing is folded or closed
    assert_sound(&bench.path());
    let (ledger, again) = bench.open_one();
    assert_sound(&bench.path());
    drop((held, meter, again));
    ledger.close().expect("closed");
    let verdict = assert_sound(&bench.path());
    assert_eq!(verdict.checked.epochs, 2);
    assert!(verify(&bench.path(), Some(&noted(&live)), &mut |_, _, _| ()).expect("a verdict").ok);
}

#[test]
fn a_ledger_is_sound_at_every_moment_of_a_busy_worker() {
    let bench = Bench::new();
    let (ledger, meter) = bench.open_one();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            for _ in 0..30 {
                assert_sound(&bench.path());
                exported(&bench.path(), ExportForm::Text);
            }
            stop.store(true, order);
        });
        while !stop.load(order) && !auditor.is_finished() {
            count_some(&bench, &meter, 1);
            meter.tick();
        }
    });
    wait(ledger.reader().fold()).expect("a fold");
    assert_sound(&bench.path());
}

#[test]
fn a_migrated_ledger_is_sound() {
    let bench = Bench::new();
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch(include_str!("../../../tests/data/book-1.sql")).expect("the book of format 1");
    drop(book);
    let (ledger, meter) = bench.open_one();
    count_some(&bench, &meter, 1);
    bench.pass(HOUR, &ledger, &meter);
    let verdict = assert_sound(&bench.path());
    assert!(verdict.checked.seals >= 4, "{verdict:?}");
    stranger(&bench).expect("a stranger finds the same");
    edit(&bench, "UPDATE usage SET response_bytes = response_bytes + 1 WHERE epoch = 1");
    assert_found(&bench, Check::Content, "seal 1 (epoch 1");
    assert!(stranger(&bench).expect_err("so does a stranger").contains("seal 1: its hash is"));
}

/// Thirty hours that are kept as days, and one that is open.
fn rolled_up() -> (Bench, Ledger, Meter) {
    let bench = Bench::new();
    let settings = LedgerSettings { compact_after: Some(2 * DAY), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    for hour in 0..30 {
        count_some(&bench, &meter, hour);
        bench.pass(HOUR, &ledger, &meter);
    }
    bench.pass(10 * DAY, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold()).expect("a fold");
    }
    count_some(&bench, &meter, 1);
    (bench, ledger, meter)
}

#[test]
fn a_ledger_whose_hours_became_days_is_sound_and_an_edited_day_is_found() {
    let (bench, _ledger, _meter) = rolled_up();
    let verdict = assert_sound(&bench.path());
    assert_eq!((verdict.checked.rolled, verdict.checked.seals), (30, 32));
    assert!(info(&bench.path()).expect("info").rolled_before.is_some());
    let words = stranger(&bench).expect("a stranger finds the same");
    assert!(words.contains("department-1\t62\t186\t62\t186\t31\t0\t"), "days and hours add up: {words}");
    let first = "(SELECT min(day) FROM day_sum)";
    edit(&bench, &format!("UPDATE day_sum SET commands = commands + 1, units = units + 3 WHERE day = {first}"));
    assert_found(&bench, Check::Content, "(day 2026-11-24)");
    assert_found(&bench, Check::Sums, "all days (ever_sum)");
    assert!(stranger(&bench).expect_err("so does a stranger").contains("seal 31: not the rows it covers"));
}

#[test]
fn hours_that_were_hidden_behind_the_horizon_are_found() {
    let bench = closed();
    edit(
        &bench,
        "UPDATE meta SET rolled_before = (SELECT max(\"window\") FROM usage);
         DELETE FROM usage WHERE \"window\" < (SELECT rolled_before FROM meta);
         DELETE FROM admission WHERE \"window\" < (SELECT rolled_before FROM meta)",
    );
    assert_found(&bench, Check::Sums, "day 2026-11-24");
    assert!(stranger(&bench).expect_err("so does a stranger").contains("no day covers the seals 1, 2, 4"));
}

// ----- tampered with -----

#[track_caller]
fn assert_found(bench: &Bench, check: Check, place: &str) {
    let verdict = verdict(&bench.path());
    assert!(!verdict.ok, "nothing was found");
    let found = verdict.findings.iter().any(|finding| finding.check == check && finding.place.contains(place));
    assert!(found, "no {check} at {place}: {:#?}", verdict.findings);
}

#[test]
fn whatever_is_tampered_with_is_found_and_located() {
    const FIRST: &str = "(SELECT min(\"window\") FROM seal)";
    for (what, statement, check, place) in [
        (
            "an edited value",
            format!("UPDATE usage SET response_bytes = 1 WHERE outcome = 1 AND \"window\" = {FIRST}"),
            Check::Content,
            "seal 1 (epoch 1, hour 2026-11-24T03:00:00Z)",
        ),
        (
            "fewer commands",
            format!("UPDATE usage SET commands = commands - 1 WHERE outcome = 1 AND \"window\" = {FIRST} + 1"),
            Check::Balance,
            "epoch 1, hour 2026-11-24T04:00:00Z, department-1/cameras/command-1",
        ),
        (
            "a deleted row",
            format!("DELETE FROM usage WHERE outcome > 100 AND \"window\" = {FIRST} + 1"),
            Check::Content,
            "seal 2 (epoch 1, hour 2026-11-24T04:00:00Z)",
        ),
        (
            "a deleted hour",
            format!("DELETE FROM usage WHERE \"window\" = {FIRST}; DELETE FROM admission WHERE \"window\" = {FIRST}"),
            Check::Rows,
            "epoch 1, hour 2026-11-24T03:00:00Z",
        ),
        (
            "an added row",
            format!("INSERT INTO usage SELECT \"window\", series, 2, epoch, 0, 1, 3, 0, 0, 0 FROM usage
                     WHERE outcome = 1 AND \"window\" = {FIRST}"),
            Check::Content,
            "seal 1 (",
        ),
        (
            "swapped hours",
            format!("CREATE TABLE kept AS SELECT * FROM usage WHERE outcome = 1 AND \"window\" < {FIRST} + 2;
                     DELETE FROM usage WHERE outcome = 1 AND \"window\" < {FIRST} + 2;
                     INSERT INTO usage SELECT 2 * (SELECT min(\"window\") FROM kept) + 1 - \"window\", series, outcome, epoch,
                         late, commands, units, request_bytes, response_bytes, duration_ns FROM kept;
                     DROP TABLE kept"),
            Check::Content,
            "seal 2 (",
        ),
        ("a deleted seal", "DELETE FROM seal WHERE number = 2".to_owned(), Check::Link, "seal 3 ("),
        ("a truncated tail", "DELETE FROM seal WHERE number = 4".to_owned(), Check::Head, "seal 3"),
        (
            "reordered seals",
            "UPDATE seal SET number = -1 WHERE number = 1; UPDATE seal SET number = 1 WHERE number = 2;
             UPDATE seal SET number = 2 WHERE number = -1".to_owned(),
            Check::Link,
            "seal 1 (",
        ),
        ("an edited seal", "UPDATE seal SET sealed_at = 'now' WHERE number = 3".to_owned(), Check::Hash, "seal 3 ("),
        (
            "a changed day_sum",
            "UPDATE day_sum SET units = units - 3 WHERE outcome = 1".to_owned(),
            Check::Sums,
            "day 2026-11-24, department-1/cameras/command-1, ok",
        ),
        (
            "a changed ever_sum",
            "UPDATE ever_sum SET commands = commands + 1 WHERE outcome = 0".to_owned(),
            Check::Sums,
            "all days (ever_sum), department-1/cameras/command-1, admitted",
        ),
        (
            "a deleted ever_sum",
            "DELETE FROM ever_sum WHERE outcome = 1".to_owned(),
            Check::Sums,
            "all days (ever_sum), department-1/cameras/command-1, ok",
        ),
        (
            "an edited adjustment",
            "UPDATE adjustment SET units = -50".to_owned(),
            Check::Adjustments,
            "seal 3 (adjustment)",
        ),
        ("a deleted adjustment", "DELETE FROM adjustment".to_owned(), Check::Adjustments, "seal 3 (adjustment)"),
        (
            "an adjustment without a seal",
            "INSERT INTO adjustment SELECT 2, department, subsystem, command, period, 7, reason, who, made_at
             FROM adjustment".to_owned(),
            Check::Adjustments,
            "adjustment 2",
        ),
        ("a renumbered epoch", "UPDATE epoch SET epoch = 2".to_owned(), Check::Epochs, "epoch 2"),
        ("an epoch that ended at no time", "UPDATE epoch SET ended_at = NULL".to_owned(), Check::Epochs, "epoch 1"),
        ("an epoch without an end", "UPDATE epoch SET ended_at = NULL, ending = NULL".to_owned(), Check::Tally, "epoch 1"),
        ("a renamed department", "UPDATE series SET department = 'friend'".to_owned(), Check::Content, "seal 1 ("),
        ("a hidden hour", "DELETE FROM unsealed".to_owned(), Check::Rows, "epoch 1, hour 2026-11-24T06:00:00Z"),
        ("hidden rows", format!("UPDATE meta SET rolled_before = {FIRST} + 1"), Check::Sums, "day 2026-11-24"),
    ] {
        let bench = closed();
        assert_sound(&bench.path());
        edit(&bench, &statement);
        let verdict = verdict(&bench.path());
        let found = verdict.findings.iter().any(|finding| finding.check == check && finding.place.contains(place));
        assert!(found, "{what}: no {check} at {place}: {:#?}", verdict.findings);
    }
}

/// Who edits the book and makes all its hashes and sums again is found by a head that was noted elsewhere.
#[test]
fn a_chain_that_was_made_again_is_not_the_one_that_was_noted() {
    let (bench, other) = (closed(), closed());
    let head = noted(&assert_sound(&bench.path()));
    let with_head = |path: &Path| verify(path, Some(&head), &mut |_, _, _| ()).expect("a verdict");
    assert!(with_head(&bench.path()).ok);
    edit(&other, "UPDATE seal SET hash = 'another' WHERE number = 4; UPDATE meta SET head_hash = 'another'");
    let found = with_head(&other.path()).findings;
    assert!(found.iter().any(|one| one.check == Check::Head && one.what.contains("another chain")), "{found:?}");
    edit(&other, "DELETE FROM seal WHERE number = 4");
    let found = with_head(&other.path()).findings;
    assert!(found.iter().any(|one| one.check == Check::Head && one.what.contains("cut off")), "{found:?}");
}

#[test]
fn a_live_book_that_has_more_than_its_tally_is_found() {
    let bench = Bench::new();
    let (_ledger, _meter) = busy(&bench);
    edit(&bench, "UPDATE usage SET commands = commands + 1 WHERE \"window\" = (SELECT max(\"window\") FROM usage)");
    assert_found(&bench, Check::Tally, "epoch 1, hour 2026-11-24T06:00:00Z");
}

#[test]
fn a_tally_that_is_missing_or_foreign_is_found() {
    let bench = Bench::new();
    let (ledger, meter) = busy(&bench);
    drop(ledger);
    drop(meter);
    let tally = bench.path().with_extension(TALLY);
    let bytes = std::fs::read(&tally).expect("a tally");
    std::fs::write(&tally, &bytes[512..]).expect("another");
    assert_found(&bench, Check::Tally, "the tally beside the book");
    std::fs::remove_file(&tally).expect("removed");
    assert_found(&bench, Check::Tally, "epoch 1");
    let balanced = verdict(&bench.path()).findings.iter().all(|finding| finding.check != Check::Balance);
    assert!(balanced, "the book is as its last fold left it");
}

// ----- what is told and written out -----

#[test]
fn info_tells_epochs_hours_and_what_the_tally_holds() {
    let bench = Bench::new();
    let (ledger, meter) = busy(&bench);
    let held = admit(&meter, &bench.clock);
    let said = info(&bench.path()).expect("info");
    assert_eq!(said.kept_by, Some(std::process::id()));
    assert_eq!(said.epochs[0].state, format!("running, process {}", std::process::id()));
    assert_eq!((said.windows.sealed, said.windows.unsealed), (3, 1));
    assert_eq!(said.windows.first.as_deref(), Some("2026-11-24T03:00:00Z"));
    assert_eq!(said.windows.last.as_deref(), Some("2026-11-24T06:00:00Z"));
    assert_eq!((said.in_flight.commands, said.in_flight.units), (1, 3));
    assert_eq!((said.adjustments.count, said.adjustments.units), (1, -5));
    let live = said.live.expect("a tally");
    assert_eq!((live.received, live.refused, live.finished, live.in_flight), (14, 4, 9, 1));
    assert!(said.sizes.book > 0 && said.sizes.tally > 0 && said.slots.is_some_and(|slots| slots.free > 0));
    drop(ledger);
    let said = info(&bench.path()).expect("info");
    assert_eq!((said.kept_by, said.epochs[0].state.starts_with("dead")), (None, true));
    drop(bench.open_one());
    let said = info(&bench.path()).expect("info");
    assert_eq!(said.epochs[0].state, "process died (counts exact)");
    drop((held, meter));
}

#[test]
fn an_export_has_what_the_reports_have() {
    let bench = Bench::new();
    let (ledger, meter) = busy(&bench);
    let held = admit(&meter, &bench.clock);
    let commands = |lines: &[String]| -> u64 {
        let numbers = |line: &String| line.split('\t').nth(6).and_then(|number| number.parse::<u64>().ok());
        lines.iter().filter(|line| line.starts_with("usage\t")).filter_map(numbers).sum()
    };
    let reported = || bench.files().iter().map(|row| row.totals.commands).sum::<u64>();
    let live = exported(&bench.path(), ExportForm::Text);
    assert_eq!((commands(&live), reported()), (13, 13));
    assert_eq!(live.iter().filter(|line| line.starts_with("in_flight\t")).count(), 1);
    assert!(live.iter().any(|line| line.starts_with("usage\tdepartment-1\tcameras\tcommand-1\taborted\t3\t1\t3\t")));
    let named = exported(&bench.path(), ExportForm::JsonLines);
    assert_eq!(named.len(), live.len());
    for line in &named {
        let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(object["record"].is_string(), "{line}");
    }
    drop(ledger);
    let dead = exported(&bench.path(), ExportForm::Text);
    assert_eq!((commands(&dead), reported()), (14, 14), "what was in flight is interrupted");
    assert!(dead.iter().all(|line| !line.starts_with("in_flight\t")));
    drop((held, meter));
}
