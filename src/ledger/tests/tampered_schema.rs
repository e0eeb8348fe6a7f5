//! Tamper detection: another program writes into the book. Planted schema objects have no effect and are found; changed
//! objects are restored.

use crate::ledger::audit::{ExportError, export};

use super::audit::{HOUR, SERIES, assert_sound, audit_report, closed, edit, found};
use super::*;

/// From attack s4 on the ledger: every later fold was to count only a fifth.
const TRIGGERS: &str = "
    CREATE TRIGGER t1 AFTER INSERT ON usage BEGIN
        UPDATE usage SET units = new.units / 5 WHERE \"window\" = new.\"window\" AND series = new.series
            AND outcome = new.outcome AND epoch = new.epoch AND late = new.late; END;
    CREATE TRIGGER t2 AFTER INSERT ON admission BEGIN
        UPDATE admission SET units = new.units / 5 WHERE \"window\" = new.\"window\" AND series = new.series
            AND epoch = new.epoch; END";

const HALF_A_VIEW: &str = "
    CREATE TABLE kept AS SELECT replace(sql, 'sum(usage.units)', 'sum(usage.units) / 2') AS sql FROM sqlite_schema
        WHERE name = 'usage_hourly';
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = (SELECT sql FROM kept) WHERE name = 'usage_hourly';
    PRAGMA writable_schema = RESET;
    DROP TABLE kept";

fn refused(bench: &LedgerBench) -> String {
    let opened = Ledger::open(bench.settings(1), bench.clock.clone(), Box::new(|error| panic!("{error}")));
    opened.expect_err("an altered book").to_string()
}

#[test]
fn altered_schema_is_refused_at_start_and_by_reports_and_found_by_verify() {
    for (edits, place) in [
        (HALF_A_VIEW, "view usage_hourly"),
        (TRIGGERS, "trigger t1"),
        ("CREATE INDEX mine ON usage (units)", "index mine"),
        ("UPDATE outcome SET blame = 'none' WHERE code = 4", "outcome 4"),
        ("DELETE FROM outcome WHERE code = 111", "outcome 111"),
    ] {
        let bench = closed();
        edit(&bench, edits);
        assert!(found(&bench).contains(&format!("schema at {place}")), "{:?}", found(&bench));
        let exported = export(&bench.path(), &mut |_| Ok(()));
        assert!(matches!(exported, Err(ExportError::Ledger(LedgerError::Altered { .. }))), "{exported:?}");
        let corrected = add_adjustment(&bench.path(), &audit::correction(-5), &bench.clock).map(drop);
        let read = LedgerFiles::open(&bench.path()).map(drop);
        for error in [corrected, read].map(|done| done.expect_err("an altered book").to_string()).into_iter() {
            assert!(error.contains(place) && error.contains("verify"), "{error}");
        }
        assert!(refused(&bench).contains(place), "{}", refused(&bench));
    }
}

#[test]
fn table_replaced_by_a_view_is_found_although_other_checks_cannot_run() {
    let bench = closed();
    edit(&bench, "ALTER TABLE day_sum RENAME TO hidden; CREATE VIEW day_sum AS SELECT * FROM hidden");
    let verdict = audit_report(&bench.path());
    assert!(!verdict.ok && verdict.notes.iter().any(|note| note.contains("could not be checked")), "{verdict:?}");
    let places: Vec<_> = verdict.findings.iter().map(|one| one.place.as_str()).collect();
    assert!(places.contains(&"table day_sum") && places.contains(&"view day_sum"), "{places:?}");
}

#[test]
fn triggers_added_to_a_live_ledger_change_no_counts() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    edit(&bench, TRIGGERS);
    for _ in 0..8 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
    }
    bench.pass(HOUR, &ledger, &meter);
    assert_eq!(bench.number("SELECT sum(units) FROM usage"), 24);
    assert_eq!(bench.number("SELECT sum(units) FROM admission"), 24);
    assert_eq!(found(&bench), ["schema at trigger t1", "schema at trigger t2"]);
    edit(&bench, "DROP TRIGGER t1; DROP TRIGGER t2");
    assert_sound(&bench.path(), "without them");
}

/// Each change is made after a fold, so that no row of the hour is folded again before the seal.
const CHANGES: [&str; 9] = [
    "UPDATE usage SET commands = commands - 1, units = units - 3 WHERE outcome = 1",
    "UPDATE usage SET units = 0 WHERE outcome = 1; UPDATE admission SET units = 3",
    "UPDATE usage SET request_bytes = 7",
    "DELETE FROM usage WHERE outcome > 100",
    "INSERT INTO usage SELECT \"window\", series, 2, epoch, 0, 5, 15, 0, 0, 0 FROM usage WHERE outcome = 1",
    "DELETE FROM admission; DELETE FROM usage; DELETE FROM unsealed",
    "DELETE FROM waived",
    "UPDATE series SET department = 'somebody-else' WHERE department = 'department-1'",
    "UPDATE outcome SET name = 'x' WHERE code = 1; UPDATE outcome SET name = 'ok' WHERE code = 2;
     UPDATE outcome SET name = 'client_error' WHERE code = 1",
];

fn counted(bench: &LedgerBench) -> (Ledger, Meter) {
    let (ledger, meter) = bench.open_one();
    for _ in 0..4 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        refuse(&meter, &bench.clock);
    }
    let mut unsent = admit(&meter, &bench.clock);
    unsent.waive();
    unsent.settle(Finished::Timeout);
    wait(ledger.reader().fold_now()).expect("a fold");
    (ledger, meter)
}

#[test]
fn rows_changed_in_an_open_hour_are_sealed_from_the_tally() {
    for change in CHANGES {
        let bench = LedgerBench::new();
        let (ledger, meter) = counted(&bench);
        let before = bench.files();
        edit(&bench, change);
        bench.pass(HOUR, &ledger, &meter);
        assert_eq!(bench.files(), before, "{change}");
        let mended = wait(ledger.reader().totals()).expect("totals").mended;
        assert!(mended > 0, "no repair was counted after {change}");
        drop((meter, ledger));
        assert_sound(&bench.path(), change);
    }
}

#[test]
fn rows_changed_before_the_end_are_restored_from_the_tally() {
    for change in CHANGES {
        let bench = LedgerBench::new();
        let (ledger, meter) = counted(&bench);
        let before = bench.files();
        edit(&bench, change);
        drop(meter);
        ledger.close().expect("closed");
        assert_eq!(bench.files(), before, "{change}");
        assert_sound(&bench.path(), change);
    }
}

#[test]
fn unchanged_rows_are_not_repaired() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = audit::busy(&bench);
    bench.pass(HOUR, &ledger, &meter);
    assert_eq!(wait(ledger.reader().totals()).expect("totals").mended, 0);
    drop(unfinished);
}

#[test]
fn sealed_hour_with_less_than_its_tally_is_found() {
    let bench = LedgerBench::new();
    let (_ledger, _meter, _flying) = audit::busy(&bench);
    edit(
        &bench,
        "UPDATE usage SET units = 0 WHERE \"window\" = (SELECT max(\"window\") FROM seal WHERE kind = 'hour')",
    );
    let findings = audit_report(&bench.path()).findings;
    let place = format!("epoch 1, hour 2026-11-24T06:00:00Z, {SERIES}");
    let mut of_hour = findings.iter().filter(|one| one.place == place);
    assert!(of_hour.any(|one| one.what.contains("their tally has 3")), "{findings:#?}");
}

#[test]
fn department_names_and_their_changes_are_in_the_book() {
    let bench = LedgerBench::new();
    let (ledger, _meter) = bench.open_one();
    let note = |names: [&str; 2]| {
        let named = [1, 2].map(|number| department(number).id).into_iter().zip(names.map(str::to_owned));
        ledger.reader().update_department_names(named.collect());
        wait(ledger.reader().fold_now()).expect("a fold");
        wait(ledger.reader().department_names()).expect("names").into_values().collect::<Vec<_>>()
    };
    assert_eq!(note(["Police", "Fire"]), ["Police", "Fire"]);
    assert_eq!(note(["Police", "Fire"]), ["Police", "Fire"]);
    assert_eq!(bench.number("SELECT count(*) FROM department_name"), 2, "a known name is not written again");
    bench.clock.advance(HOUR);
    assert_eq!(note(["Police", "Fire and Rescue"]), ["Police", "Fire and Rescue"]);
    assert_eq!(note(["Police", "Fire"]), ["Police", "Fire"], "a name that is used again");
    let kept = LedgerFiles::open(&bench.path()).expect("files").department_names().expect("names");
    assert_eq!(kept.get("department-2").map(String::as_str), Some("Fire"));
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "with names");
}
