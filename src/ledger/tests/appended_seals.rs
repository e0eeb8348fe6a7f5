//! Tamper detection: rows and seals that an attacker appends to a closed book.

use crate::ledger::audit::{AuditVerdict, NotedHead, SealsAfterHead, verify};
use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::seal::{SealContent, append_seal};

use super::audit::{HOUR, assert_sound, audit_report, busy, closed};
use super::*;

/// An epoch with one hour, written by an attacker who can compute all hashes.
struct AppendedSeals {
    started_at: &'static str,
    sealed_at: &'static str,
    /// Hours after the first hour of the book.
    hour: i32,
    commands: i64,
}

impl AppendedSeals {
    fn write(&self, bench: &LedgerBench) {
        let mut book = rusqlite::Connection::open(bench.path()).expect("a book");
        let transaction = book.transaction().expect("a transaction");
        let first: u32 = transaction.query_row("SELECT min(\"window\") FROM usage", [], |row| row.get(0)).expect("one");
        let window = Window(first.saturating_add_signed(self.hour));
        let (began, at) = (self.started_at, self.sealed_at.parse::<Timestamp>().expect("a time"));
        let epoch = format!(
            "INSERT INTO epoch SELECT 2, gateway, boot_id, 4711, '{began}', '{began}', '{}', 'clean' FROM epoch;
             INSERT INTO admission VALUES ({window}, 1, 2, {commands}, {units});
             INSERT INTO usage VALUES ({window}, 1, 1, 2, 0, {commands}, {units}, 0, 0, 0)",
            self.sealed_at,
            window = window.0,
            commands = self.commands,
            units = 3 * self.commands,
        );
        transaction.execute_batch(&epoch).expect(&epoch);
        let lines = crate::ledger::hash_chain::canonical_rows::hour_lines(&transaction, (2, window), 2).expect("lines");
        let covered = SealContent { kind: SealKind::Hour, epoch: Some(2), window: Some(window), lines };
        append_seal(&transaction, covered, at).expect("a seal");
        let mut growth =
            crate::ledger::book::day_sums::SumDelta::new(&transaction, CalendarOffset::default()).expect("sums");
        growth.add_hour(&transaction, (2, window)).expect("sums");
        growth.apply(&transaction).expect("sums");
        crate::ledger::book::epoch_end::seal_epoch(&transaction, 2, at).expect("a seal");
        transaction.commit().expect("written");
    }
}

fn checked(bench: &LedgerBench, noted: Option<&NotedHead>) -> AuditVerdict {
    verify(&bench.path(), noted, &mut |_, _, _| ()).expect("an audit")
}

fn found(verdict: &AuditVerdict) -> Vec<String> {
    verdict.findings.iter().map(|one| format!("{} at {}", one.check, one.place)).collect()
}

fn series_1(bench: &LedgerBench) {
    let known = bench.number("SELECT count(*) FROM series WHERE series = 1");
    assert!(known <= 1);
    if known == 0 {
        audit::edit(bench, "INSERT INTO series VALUES (1, 'department-2', 'cameras', 'command-1')");
    }
}

/// The book of `closed` has hours 0, 1, 2 and 3 sealed by seals 1, 2, 3 and 5. Hour 4 is open. Seal 6 covers the end of
/// the epoch.
#[test]
fn row_appended_for_a_past_hour_is_found() {
    let (before, after) = ("2026-11-24T03:05:00Z", "2026-11-25T03:05:00Z");
    let sealed = "2026-11-25T09:00:00Z";
    let append = |started_at: &'static str, sealed_at: &'static str, hour: i32| AppendedSeals {
        started_at,
        sealed_at,
        hour,
        commands: 5,
    };
    for (what, appended, plain, noted, is_set_back) in [
        ("an epoch that began later", append(after, sealed, 1), "link", "head", false),
        ("an hour before it was over", append(before, before, 1), "link", "head", false),
        ("a clock set back", append(before, sealed, 1), "", "head", true),
        ("the last hour again", append(before, sealed, 3), "", "head", true),
        ("the last hour, as if at once", append(before, "2026-11-24T07:10:00Z", 3), "", "head", true),
        ("a later hour", append(after, sealed, 26), "", "", false),
    ] {
        let bench = closed();
        series_1(&bench);
        let head = audit_report(&bench.path()).head;
        let head = NotedHead { number: head.number, hash: head.hash };
        appended.write(&bench);
        let hour = if appended.hour == 1 { "04" } else { "06" };
        let place = format!("seal 7 (epoch 2, hour 2026-11-24T{hour}:00:00Z)");
        let expected = |check: &str| if check.is_empty() { vec![] } else { vec![format!("{check} at {place}")] };
        let (without, with) = (checked(&bench, None), checked(&bench, Some(&head)));
        assert_eq!(found(&without), expected(plain), "{what}: {:#?}", without.findings);
        assert_eq!(found(&with), expected(noted), "{what}: {:#?}", with.findings);
        assert_eq!(without.after, None);
        assert_eq!(
            with.after,
            Some(SealsAfterHead { seals: 2, hours: 1, epochs: 1, ..SealsAfterHead::default() }),
            "{what}"
        );
        assert_eq!(without.notes.iter().any(|note| note.contains("had been set back")), is_set_back, "{what}");
        for (head, expected) in [(None, plain), (Some(&head), noted)] {
            let output = audit::independent_audit_from(&bench, head);
            assert_eq!(output.is_err(), !expected.is_empty(), "{what}: the independent audit reports {output:?}");
        }
    }
}

/// Only the end of the epoch is sealed yet.
#[test]
fn row_appended_for_an_hour_before_an_epoch_end_is_found() {
    for (sealed_at, plain) in [("2026-11-24T02:05:00Z", 1), ("2026-11-24T09:00:00Z", 0)] {
        let bench = LedgerBench::new();
        let (ledger, meter) = bench.open_one();
        admit(&meter, &bench.clock).settle(Finished::Ok);
        drop(meter);
        ledger.close().expect("closed");
        let head = audit_report(&bench.path()).head;
        let head = NotedHead { number: head.number, hash: head.hash };
        series_1(&bench);
        AppendedSeals { started_at: "2026-11-24T02:00:00Z", sealed_at, hour: -1, commands: 1000 }.write(&bench);
        let (without, with) = (checked(&bench, None), checked(&bench, Some(&head)));
        assert_eq!(without.findings.len(), plain, "{:#?}", without.findings);
        assert_eq!(found(&with), ["head at seal 2 (epoch 2, hour 2026-11-24T02:00:00Z)"], "{:#?}", with.findings);
        assert_eq!(audit::independent_audit_from(&bench, None).is_err(), plain > 0);
        assert!(audit::independent_audit_from(&bench, Some(&head)).is_err());
    }
}

#[test]
fn negative_number_is_found_in_every_column() {
    let bench = closed();
    series_1(&bench);
    let appended = AppendedSeals {
        started_at: "2026-11-25T03:05:00Z",
        sealed_at: "2026-11-25T09:00:00Z",
        hour: 26,
        commands: -1000,
    };
    appended.write(&bench);
    let output = audit::independent_audit_from(&bench, None).expect_err("the independent audit finds it");
    assert!(output.contains("a count is negative"), "{output}");
    let places: Vec<_> = found(&checked(&bench, None)).into_iter().filter(|one| one.starts_with("negative")).collect();
    let hour = "hour 2026-11-25T05:00:00Z";
    assert_eq!(places.iter().filter(|place| place.contains("series 1")).count(), places.len(), "{places:?}");
    for table in ["admission, window 2026-11-25T05:00:00Z", "usage, window 2026-11-25T05:00:00Z", "day_sum", "ever_sum"]
    {
        assert!(places.iter().any(|place| place.contains(table)), "{table} of {hour}: {places:?}");
    }
}

#[test]
fn rows_after_a_noted_head_are_counted() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    let head = audit_report(&bench.path()).head;
    let head = NotedHead { number: head.number, hash: head.hash };
    assert_eq!(checked(&bench, Some(&head)).after, Some(SealsAfterHead::default()));
    add_adjustment(&bench.path(), &audit::correction(7), &bench.clock).expect("a correction");
    bench.pass(HOUR, &ledger, &meter);
    drop((unfinished, meter));
    ledger.close().expect("closed");
    let verdict = checked(&bench, Some(&head));
    assert!(verdict.ok, "{:?}", verdict.findings);
    let after = SealsAfterHead { seals: 3, hours: 1, epochs: 1, corrections: 1, ..SealsAfterHead::default() };
    assert_eq!(verdict.after, Some(after));
}

#[test]
fn clock_set_back_between_two_epochs_keeps_the_ledger_sound() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for _ in 0..4 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(HOUR, &ledger, &meter);
    }
    drop(meter);
    ledger.close().expect("closed");
    bench.clock.step_wall("2026-11-24T04:20:00Z".parse().expect("a time"));
    let (ledger, meter) = bench.open_one();
    for _ in 0..6 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(HOUR, &ledger, &meter);
    }
    drop(meter);
    ledger.close().expect("closed");
    let verdict = assert_sound(&bench.path(), "set back");
    assert!(verdict.notes.iter().any(|note| note.contains("3 of its hours")), "{:?}", verdict.notes);
}

#[test]
fn epoch_counts_into_no_hour_that_ended_before_it_began() {
    let bench = LedgerBench::new();
    bench.clock.step_wall("2026-11-24T05:30:00Z".parse().expect("a time"));
    let (ledger, meter) = bench.open_one();
    bench.clock.step_wall("2026-11-24T03:30:00Z".parse().expect("a time"));
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let windows: Vec<_> = bench.files().iter().map(|row| row.window.to_string()).collect();
    assert_eq!(windows, ["2026-11-24T05:00:00Z"]);
    drop((ledger, meter));
}
