//! Checks the tally: it must be readable, belong to this book, and balance for every worker.
//!
//! While a gateway counts, the tally changes during the read. Words only grow, so a sum at the moment between two reads
//! lies between its values in both reads. Only a difference that no moment can explain is a finding.

use std::collections::BTreeMap;

use crate::ledger::tally::file::TallyImage;
use crate::ledger::tally::slot::{SlotKind, offset};
use crate::ledger::tally::slot_copy::SlotCopy;
use crate::ledger::values::measures::Measures;
use crate::model::{Finished, Window};

use super::findings::{AuditCheck, AuditReport};
use super::hour_reader::HourRows;
use super::ledger_snapshot::{LedgerSnapshot, TallyReadings, TallyState};
use super::name_table::NameTable;
use super::open_epoch::{OpenEpoch, fold_from};

/// The largest difference by a command in progress: a worker can be between two of its stores.
const UNSETTLED_MAX: i128 = 1;

/// Describes the tally beside the book. If the tally is in use, checks the workers' balances.
pub(crate) fn check_tally(snapshot: &LedgerSnapshot, report: &mut AuditReport) {
    match &snapshot.tally {
        TallyState::Missing => {}
        TallyState::Folded => {
            report.add_note("the tally beside the book belongs to an epoch that has ended; its counts are in the book")
        }
        TallyState::Foreign(why) => {
            report.add_finding(
                AuditCheck::Tally,
                "the tally beside the book",
                format!("it cannot be read as the tally of this book: {why}"),
            );
        }
        TallyState::Open(readings) => check_worker_balances(readings, snapshot.is_kept, report),
    }
}

/// The sums of one worker. `begun` is admitted + transferred in, `over` is ended + transferred out, over all its slots.
/// In flight = `begun` - `over`.
#[derive(Clone, Copy, Debug, Default)]
struct WorkerBalance {
    received: i128,
    refused: i128,
    admitted: i128,
    finished: i128,
    begun: i128,
    over: i128,
}

fn check_worker_balances(readings: &TallyReadings, is_kept: bool, report: &mut AuditReport) {
    report.checked.slots = readings.newer.slots.len() as u64;
    let (older, newer) = (worker_balances(&readings.older), worker_balances(&readings.newer));
    for (number, newer) in &newer {
        let older = older.get(number).copied().unwrap_or_default();
        let place = format!("epoch {}, worker {number}", readings.newer.header.epoch);
        let decided = [older.refused + older.admitted, newer.refused + newer.admitted];
        if !ranges_overlap([older.received, newer.received], decided) {
            let WorkerBalance { received, refused, admitted, .. } = newer;
            let what = format!("it received {received} commands, refused {refused} and admitted {admitted}");
            report.add_finding(AuditCheck::Balance, &place, what);
        }
        // Compares the commands in flight by the worker's own counters and by its slots. Both sides are rearranged to
        // sums that only grow.
        if !ranges_overlap(
            [older.admitted + older.over, newer.admitted + newer.over],
            [older.finished + older.begun, newer.finished + newer.begun],
        ) {
            let (copy, slots) = (newer.admitted - newer.finished, newer.begun - newer.over);
            let what = format!("{copy} commands are in flight according to its sums, {slots} according to its slots");
            match readings.is_copy {
                true => report.add_note(format!("{place}: {what}; this tally was copied while it was written")),
                false => report.add_finding(AuditCheck::Balance, &place, what),
            }
        }
    }
    if is_kept && !readings.is_unchanged() {
        report.add_note(
            "the gateway was counting while its tally was read, so its open hours were compared with that tolerance",
        );
    }
}

fn ranges_overlap([low, high]: [i128; 2], [other_low, other_high]: [i128; 2]) -> bool {
    low <= other_high + UNSETTLED_MAX && other_low <= high + UNSETTLED_MAX
}

/// Each segment begins with its worker's own slot.
fn worker_balances(image: &TallyImage) -> BTreeMap<u64, WorkerBalance> {
    let mut workers: BTreeMap<u64, WorkerBalance> = BTreeMap::new();
    let mut number = 0;
    for copy in image.slots.iter().skip(1) {
        match copy.kind() {
            SlotKind::Worker => {
                number = copy.0[offset::WORKER];
                add_worker_slot(workers.entry(number).or_default(), copy);
            }
            SlotKind::Count => add_counting_slot(workers.entry(number).or_default(), copy),
            SlotKind::Free | SlotKind::Series => {}
        }
    }
    workers
}

fn add_worker_slot(worker: &mut WorkerBalance, copy: &SlotCopy) {
    worker.received += i128::from(copy.0[offset::WORKER_RECEIVED]);
    worker.refused += i128::from(copy.0[offset::WORKER_REFUSED]);
    worker.admitted += i128::from(copy.0[offset::WORKER_ADMITTED]);
    worker.finished += i128::from(copy.0[offset::WORKER_FINISHED]);
}

fn add_counting_slot(worker: &mut WorkerBalance, copy: &SlotCopy) {
    let ended: i128 = Finished::ALL.into_iter().map(|one| i128::from(copy.finished(one).commands)).sum();
    worker.begun += i128::from(copy.0[offset::ADMITTED]) + i128::from(copy.0[offset::LATE_IN]);
    worker.over += ended + i128::from(copy.0[offset::LATE_OUT]);
}

/// The tally's counts per hour, for the comparison with the book's rows. The book's rows of open hours came from the
/// tally, so they are never greater. Sealed hours are complete in the book, so they are never less than the slots that
/// still hold them.
#[derive(Debug)]
pub(crate) struct TallyRows {
    epoch: u32,
    floor: Window,
    /// Commands and units, by hour, series, outcome and hours late; outcome 0 holds the admitted commands.
    rows: BTreeMap<TallyRowKey, [i128; 2]>,
}

/// Hour, series, outcome, hours since the admission.
type TallyRowKey = (Window, i64, i64, i64);

const ADMITTED_ROW: i64 = 0;

impl TallyRows {
    pub(crate) fn from_readings(open: &OpenEpoch, readings: &TallyReadings, names: &mut NameTable) -> Self {
        let mut rows = BTreeMap::new();
        let fold = fold_from(&readings.newer, Window(0));
        for (key, row) in fold.changed_rows() {
            let Some(series) = fold.series_names(key.series).map(|series| names.series_number(series)) else {
                continue;
            };
            let admitted = [row.admitted.commands, row.admitted.units].map(i128::from);
            add_pair(&mut rows, (key.window, series, ADMITTED_ROW, 0), admitted);
            for (outcome, totals) in row.outcomes() {
                let place = (key.window, series, i64::from(outcome.code()), i64::from(key.late));
                add_pair(&mut rows, place, [totals.commands, totals.units].map(i128::from));
            }
        }
        Self { epoch: open.epoch, floor: open.first_unsealed, rows }
    }

    /// Compares an hour of the book.
    pub(crate) fn check_hour(&self, hour: &HourRows, (names, report): (&NameTable, &mut AuditReport)) {
        let mut held = self.book_rows(hour);
        let window = hour.window;
        for (place, _) in self.rows.range((window, i64::MIN, 0, 0)..(window.next(), i64::MIN, 0, 0)) {
            held.entry(*place).or_default(); // rows that the book should have and does not have
        }
        for (place, held) in held {
            let counted = self.rows.get(&place).copied().unwrap_or_default();
            let is_wrong = |number: usize| match window < self.floor {
                true => held[number] < counted[number],
                false => held[number] > counted[number],
            };
            if let Some(number) = (0..2).find(|number| is_wrong(*number)) {
                let what =
                    self.describe_row(place, (["commands", "units"][number], held[number], counted[number]), names);
                let (_, series, _, _) = place;
                let place = format!("epoch {}, hour {window}, {}", self.epoch, names.series_text(series));
                report.add_finding(AuditCheck::Tally, place, what);
            }
        }
    }

    fn describe_row(&self, place: TallyRowKey, (of, held, counted): (&str, i128, i128), names: &NameTable) -> String {
        let (window, _, outcome, _) = place;
        let outcome = names.outcome_text(outcome);
        match window < self.floor {
            true => format!("{held} {of} {outcome} were sealed, but their tally has {counted}"),
            false => format!("{held} {of} {outcome} in the book, {counted} in its tally"),
        }
    }

    fn book_rows(&self, hour: &HourRows) -> BTreeMap<TallyRowKey, [i128; 2]> {
        let mut held = BTreeMap::new();
        for row in hour.admissions.iter().filter(|row| row.epoch == self.epoch) {
            add_pair(&mut held, (hour.window, row.series, ADMITTED_ROW, 0), row.numbers.map(i128::from));
        }
        for row in hour.ends.iter().filter(|row| row.epoch == self.epoch) {
            let Measures { commands, units, .. } = row.numbers;
            add_pair(&mut held, (hour.window, row.series, row.outcome, row.late), [commands, units].map(i128::from));
        }
        held
    }
}

fn add_pair(rows: &mut BTreeMap<TallyRowKey, [i128; 2]>, place: TallyRowKey, more: [i128; 2]) {
    let sum = rows.entry(place).or_default();
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_sums_agree_if_their_ranges_overlap() {
        for (one, other, expected) in [
            ([5, 5], [5, 5], true),
            ([5, 5], [6, 6], true), // one command is in progress
            ([5, 5], [7, 7], false),
            ([5, 9], [8, 20], true),
            ([5, 9], [20, 30], false),
        ] {
            assert_eq!(
                (ranges_overlap(one, other), ranges_overlap(other, one)),
                (expected, expected),
                "{one:?} {other:?}"
            );
        }
    }
}
