//! Tamper detection: the audit of an edited ledger reports every edit with its place.

use crate::ledger::audit::{AuditCheck, NotedHead, verify};

use super::audit::{
    BOOK_1, HOUR, SERIES, another_boot, assert_sound, audit_report, busy, closed, edit, found, old_book,
    open_compacting,
};
use super::*;

#[test]
fn every_edit_of_the_book_is_found_at_its_position() {
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
        ("a truncated tail", "DELETE FROM seal WHERE number > 4", vec![at("head", "seal 4".to_owned()), at("epochs", "epoch 1".to_owned()), at("rows", hour(6)), day("aborted")]),
        (
            "reordered seals",
            "UPDATE seal SET number = -2 WHERE number = 2; UPDATE seal SET number = 2 WHERE number = 3;
             UPDATE seal SET number = 3 WHERE number = -2",
            vec![
                at("link", seal(2, 5)),
                at("hash", seal(2, 5)),
                at("link", seal(3, 4)), // it follows another seal
                at("link", seal(3, 4)), // its hour is an earlier hour
                at("hash", seal(3, 4)),
                at("link", "seal 4 (adjustment)".to_owned()),
            ],
        ),
        ("an edited seal", "UPDATE seal SET sealed_at = 'now' WHERE number = 3", vec![at("hash", seal(3, 5))]),
        ("a seal of another form", "UPDATE seal SET format = 127 WHERE number = 3", vec![at("hash", seal(3, 5))]),
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
        ("another gateway", "UPDATE meta SET gateway = 'gateway-2'", vec![at("epochs", "meta".to_owned())]),
        ("a renumbered epoch", "UPDATE epoch SET epoch = 2", [
                "seal 6 (end of epoch 1)".to_owned(),
                "epoch 2".to_owned(), // the expected number is 1
                "epoch 2".to_owned(), // no seal covers its end
                hour(3),
                hour(4),
                hour(5),
                hour(6),
                hour(7),
            ]
            .map(|place| at("epochs", place))
            .to_vec()),
        ("a hidden hour", "DELETE FROM unsealed", vec![at("rows", hour(7))]),
        (
            "a hidden beginning",
            "UPDATE meta SET rolled_before = FIRST + 1",
            vec![
                day("admitted"),
                day("ok"),
                day("aborted"),
                day("forbidden"),
                at("sums", "day 2026-11-24".to_owned()), // compacted without a seal
                at("balance", format!("days before 2026-11-24T04:00:00Z, {SERIES}")),
            ],
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
        assert_eq!(found(&bench), expected, "{what}: {:#?}", audit_report(&bench.path()).findings);
    }
}

#[test]
fn live_book_with_more_than_its_tally_is_found() {
    let bench = LedgerBench::new();
    let (_ledger, _meter, _flying) = busy(&bench);
    edit(
        &bench,
        "UPDATE admission SET admitted = admitted + 1 WHERE \"window\" = (SELECT max(\"window\") FROM admission)",
    );
    assert_eq!(found(&bench), [format!("tally at epoch 1, hour 2026-11-24T07:00:00Z, {SERIES}")]);
}

#[test]
fn crash_relabelled_as_a_clean_end_is_found() {
    let bench = LedgerBench::new();
    let (ledger, meter, unfinished) = busy(&bench);
    drop(ledger);
    another_boot(&bench);
    drop((unfinished, meter));
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "as it was");
    assert_eq!(bench.number("SELECT number FROM seal WHERE kind = 'epoch' AND epoch = 1"), 6);
    edit(&bench, "UPDATE epoch SET ending = 'clean' WHERE ending = 'machine died'");
    assert_eq!(found(&bench), ["epochs at seal 6 (end of epoch 1)"]);
}

#[test]
fn noted_head_detects_a_recomputed_chain() {
    let bench = LedgerBench::new();
    let (ledger, _meter, _flying) = busy(&bench);
    let head = audit_report(&bench.path()).head;
    let noted = NotedHead::parse(&format!("{}:{}", head.number, head.hash)).expect("a head");
    bench.pass(HOUR, &ledger, &_meter);
    assert!(verify(&bench.path(), Some(&noted), &mut |_, _, _| ()).expect("an audit").ok, "the chain has continued");
    let other = NotedHead { hash: "0".repeat(64), ..noted.clone() };
    let beyond = NotedHead { number: 99, ..noted };
    for (wrong, place) in [(other, "seal 5"), (beyond, "seal 99")] {
        let verdict = verify(&bench.path(), Some(&wrong), &mut |_, _, _| ()).expect("an audit");
        let found: Vec<_> = verdict.findings.iter().map(|one| (one.check, one.place.as_str())).collect();
        assert_eq!(found, [(AuditCheck::Head, place)], "{wrong:?}");
    }
}

#[test]
fn epoch_with_gaps_excuses_no_imbalance_of_other_epochs() {
    let bench = LedgerBench::new();
    old_book(&bench, BOOK_1);
    let (ledger, meter, unfinished) = busy(&bench);
    drop(ledger);
    another_boot(&bench);
    drop((unfinished, meter));
    let (ledger, _) = bench.open_one();
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "as it was");
    let balances = || found(&bench).into_iter().filter(|one| one.starts_with("balance")).collect::<Vec<_>>();
    edit(&bench, "UPDATE usage SET commands = commands - 1 WHERE epoch = 2 AND outcome = 1");
    assert_eq!(balances(), [""; 0]);
    assert!(audit_report(&bench.path()).notes.iter().any(|note| note.starts_with("epoch 2 ended `machine died`")));
    edit(&bench, "UPDATE usage SET commands = commands - 1 WHERE epoch = 1 AND outcome = 1");
    assert_eq!(balances(), ["balance at epoch 1, police/cameras/read"]);
}

#[test]
fn imbalance_of_days_is_found_where_no_epoch_with_gaps_explains_it() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    for _ in 0..3 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(24 * HOUR, &ledger, &meter);
    }
    drop(ledger);
    another_boot(&bench);
    drop(meter);
    let (ledger, meter) = open_compacting(&bench);
    bench.pass(240 * HOUR, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "three days");
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
