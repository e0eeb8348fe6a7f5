//! Waived units: commands of which no part reached a subsystem are counted and free.

use crate::model::Outcome;

use super::audit::{HOUR, assert_sound, audit_report, independent_audit, open_compacting};
use super::*;

/// Ends commands of 3 units with every outcome, once charged and once waived.
fn end_in_every_way(meter: &Meter, clock: &Clock) {
    for finished in Finished::ALL {
        admit(meter, clock).settle(finished);
        let mut unsent = admit(meter, clock);
        unsent.waive();
        unsent.settle(finished);
    }
}

fn is_answered(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Finished(Finished::Ok | Finished::ClientError | Finished::ServerError))
}

/// Expects every outcome twice. A response of a subsystem is charged both times, every other outcome once.
fn charged(rows: &[UsageRow], times: u64) {
    assert_eq!(rows.len(), Finished::ALL.len(), "{rows:?}");
    for row in rows {
        let units = if is_answered(row.outcome) { 6 } else { 3 };
        assert_eq!((row.totals.commands, row.totals.units), (2 * times, units * times), "{}", row.outcome);
    }
}

const WAIVED: &str = "SELECT 1000 * sum(commands) + sum(units) FROM waived";

#[test]
fn unsent_command_costs_no_units_in_every_report() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    end_in_every_way(&meter, &bench.clock);
    let totals = wait(ledger.reader().totals()).expect("totals");
    let series = totals.series.iter().find(|one| one.department.as_str() == "department-1").expect("the series");
    assert_eq!((series.admitted, series.units, totals.imbalance), (16, 33, 0));
    charged(&bench.files(), 1);
    charged(&wait(ledger.reader().usage_by_hour(ALWAYS)).expect("rows"), 1);
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(bench.number("SELECT sum(units) FROM usage_hourly"), 33);
    assert_eq!(bench.number(WAIVED), 5015, "five commands with all their 15 units");
    assert_eq!(bench.number("SELECT sum(units) FROM admission"), 48, "admitted counts are unchanged");
    assert_sound(&bench.path(), "live");
    bench.pass(HOUR, &ledger, &meter);
    assert_sound(&bench.path(), "sealed");
    drop(ledger);
    assert_sound(&bench.path(), "killed");
    let output = independent_audit(&bench).expect("the independent audit agrees");
    assert!(output.contains("department-1\twaived\t5\t15"), "{output}");
    drop(meter);
    let (ledger, meter) = bench.open_one();
    charged(&bench.files(), 1);
    let totals = wait(ledger.reader().totals()).expect("totals");
    assert_eq!(totals.series.iter().map(|one| one.units).sum::<u64>(), 33, "a counter continues at its value");
    drop(meter);
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "closed");
}

#[test]
fn units_waived_after_their_hour_was_sealed_are_waived_in_the_present_hour() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let tickets: Vec<_> = (0..4).map(|_| admit(&meter, &bench.clock)).collect();
    bench.pass(HOUR, &ledger, &meter);
    for (number, mut ticket) in tickets.into_iter().enumerate() {
        if number > 0 {
            ticket.waive();
        }
        ticket.settle(if number == 3 { Finished::Ok } else { Finished::Timeout });
    }
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(brief(&bench.files()), [("ok", 1, 3), ("timeout", 3, 3)]);
    assert_eq!(bench.number("SELECT 1000 * late + units FROM waived"), 1006);
    assert_sound(&bench.path(), "live");
    bench.pass(HOUR, &ledger, &meter);
    assert_sound(&bench.path(), "sealed");
    drop((ledger, meter));
    let (ledger, _) = bench.open_one();
    assert_eq!(brief(&bench.files()), [("ok", 1, 3), ("timeout", 3, 3)]);
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "closed");
}

#[test]
fn days_in_place_of_hours_balance_with_waived_units() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    for _ in 0..3 {
        end_in_every_way(&meter, &bench.clock);
        bench.pass(24 * HOUR, &ledger, &meter);
    }
    let by_day = |ledger: &Ledger| wait(ledger.reader().usage_total(ALWAYS)).expect("rows");
    charged(&by_day(&ledger), 3);
    bench.pass(240 * HOUR, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(bench.number("SELECT count(*) FROM waived"), 0, "the hours are compacted");
    assert_eq!(bench.number("SELECT sum(units) FROM day_sum WHERE outcome = 100"), 45);
    charged(&by_day(&ledger), 3);
    drop(meter);
    ledger.close().expect("closed");
    assert_sound(&bench.path(), "days");
    let output = independent_audit(&bench).expect("the independent audit agrees");
    assert!(output.contains("department-1\twaived\t15\t45"), "{output}");
    let edits = "UPDATE day_sum SET units = units + 3 WHERE outcome = 100 AND day = (SELECT min(day) FROM day_sum);
                 UPDATE ever_sum SET units = units + 3 WHERE outcome = 100";
    audit::edit(&bench, edits);
    let findings = audit_report(&bench.path()).findings;
    assert!(findings.iter().any(|one| one.check == crate::ledger::audit::AuditCheck::Balance), "{findings:?}");
}

/// A tally of the version before: word 58 and the words after it were free.
#[test]
fn format_2_tally_charges_all_ended_commands() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    for finished in Finished::ALL {
        admit(&meter, &bench.clock).settle(finished);
    }
    drop(ledger);
    let tally = bench.path().with_extension(TALLY_EXTENSION);
    let mut bytes = std::fs::read(&tally).expect("the tally");
    bytes[8] = 2; // the format
    for slot in bytes.chunks_mut(512).skip(1).filter(|slot| slot[0] == 2) {
        slot[58 * 8..63 * 8].fill(0);
    }
    std::fs::write(&tally, bytes).expect("written");
    drop(meter);
    let (_ledger, _meter) = bench.open_one();
    assert_eq!(bench.files().iter().map(|row| row.totals.units).sum::<u64>(), 24);
    assert_sound(&bench.path(), "recovered");
}
