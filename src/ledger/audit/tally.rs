//! The tally: readable, this book's, and balanced for every worker.
//!
//! While a gateway counts, its words move under the reader's eyes. They only grow, so a sum that holds at the moment between
//! two readings lies between its values in both; only what cannot be so at any moment is a finding.

use std::collections::BTreeMap;

use super::finding::{Check, Report};
use super::hours::Hour;
use super::names::Names;
use super::open::{OpenEpoch, fold_of};
use super::snapshot::{Readings, Snapshot, TallyState};
use crate::ledger::slot::{Kind, word};
use crate::ledger::tally::TallyImage;
use crate::ledger::words::Words;
use crate::model::{Finished, Window};

/// What one worker may be in the middle of: a command between two of its words.
const IN_HAND: i128 = 1;

/// Says what lies beside the book, and checks the workers' balances if it is a tally that counts.
pub(super) fn check(snapshot: &Snapshot, report: &mut Report) {
    match &snapshot.tally {
        TallyState::Missing => {}
        TallyState::Folded => {
            report.note("the tally beside the book is of an epoch that has ended; all of it is in the book")
        }
        TallyState::Foreign(why) => {
            report.find(Check::Tally, "the tally beside the book", format!("it cannot be read as this book's: {why}"));
        }
        TallyState::Open(readings) => check_workers(readings, snapshot.is_kept, report),
    }
}

/// Sums of one worker. `in_flight` is admitted + come - ended - gone of all its slots.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    received: i128,
    refused: i128,
    admitted: i128,
    finished: i128,
    begun: i128,
    over: i128,
}

fn check_workers(readings: &Readings, is_kept: bool, report: &mut Report) {
    report.checked.slots = readings.newer.slots.len() as u64;
    let (older, newer) = (workers(&readings.older), workers(&readings.newer));
    for (number, newer) in &newer {
        let older = older.get(number).copied().unwrap_or_default();
        let place = format!("epoch {}, worker {number}", readings.newer.header.epoch);
        let decided = [older.refused + older.admitted, newer.refused + newer.admitted];
        if !meet([older.received, newer.received], decided) {
            let Worker { received, refused, admitted, .. } = newer;
            let what = format!("it received {received} commands, refused {refused} and admitted {admitted}");
            report.find(Check::Balance, &place, what);
        }
        // In flight by the worker's words and by its slots; both sides are brought to sums that only grow.
        if !meet(
            [older.admitted + older.over, newer.admitted + newer.over],
            [older.finished + older.begun, newer.finished + newer.begun],
        ) {
            let (words, slots) = (newer.admitted - newer.finished, newer.begun - newer.over);
            let what = format!("{words} commands are in flight by its sums, {slots} by its slots");
            match readings.is_copy {
                true => report.note(format!("{place}: {what}; this tally is a copy that was made while it counted")),
                false => report.find(Check::Balance, &place, what),
            }
        }
    }
    if is_kept && !readings.is_still() {
        report.note("the gateway counted while its tally was read, so its open hours were compared within what moved");
    }
}

fn meet([low, high]: [i128; 2], [other_low, other_high]: [i128; 2]) -> bool {
    low <= other_high + IN_HAND && other_low <= high + IN_HAND
}

/// Each segment begins with its worker's own slot.
fn workers(image: &TallyImage) -> BTreeMap<u64, Worker> {
    let mut workers: BTreeMap<u64, Worker> = BTreeMap::new();
    let mut number = 0;
    for words in image.slots.iter().skip(1) {
        match words.kind() {
            Kind::Worker => {
                number = words.0[word::WORKER];
                add_own(workers.entry(number).or_default(), words);
            }
            Kind::Count => add_slot(workers.entry(number).or_default(), words),
            Kind::Free | Kind::Series => {}
        }
    }
    workers
}

fn add_own(worker: &mut Worker, words: &Words) {
    worker.received += i128::from(words.0[word::WORKER_RECEIVED]);
    worker.refused += i128::from(words.0[word::WORKER_REFUSED]);
    worker.admitted += i128::from(words.0[word::WORKER_ADMITTED]);
    worker.finished += i128::from(words.0[word::WORKER_FINISHED]);
}

fn add_slot(worker: &mut Worker, words: &Words) {
    let ended: i128 = Finished::ALL.into_iter().map(|one| i128::from(words.finished(one).commands)).sum();
    worker.begun += i128::from(words.0[word::ADMITTED]) + i128::from(words.0[word::LATE_IN]);
    worker.over += ended + i128::from(words.0[word::LATE_OUT]);
}

/// What the tally says of hours, to be held against the book's rows. Hours that are still counted into came from the tally, so the
/// book never has more of them. Hours that are sealed are in the book whole, so it never has less than the slots that still
/// show them.
#[derive(Debug)]
pub(super) struct TallyRows {
    epoch: u32,
    floor: Window,
    /// Commands and units, by hour, series, outcome and how late; outcome 0 is what was admitted.
    rows: BTreeMap<RowPlace, [i128; 2]>,
}

/// Hour, series, outcome, hours since the admission.
type RowPlace = (Window, i64, i64, i64);

const ADMITTED: i64 = 0;

impl TallyRows {
    pub(super) fn of(open: &OpenEpoch, readings: &Readings, names: &mut Names) -> Self {
        let mut rows = BTreeMap::new();
        let fold = fold_of(&readings.newer, Window(0));
        for (key, row) in fold.changed_rows() {
            let Some(series) = fold.names(key.series).map(|series| names.number(series)) else { continue };
            let admitted = [row.admitted, row.units].map(i128::from);
            add(&mut rows, (key.window, series, ADMITTED, 0), admitted);
            for (outcome, totals) in row.outcomes() {
                let place = (key.window, series, i64::from(outcome.code()), i64::from(key.late));
                add(&mut rows, place, [totals.commands, totals.units].map(i128::from));
            }
        }
        Self { epoch: open.epoch, floor: open.floor, rows }
    }

    /// Compares an hour of the book.
    pub(super) fn check(&self, hour: &Hour, (names, report): (&Names, &mut Report)) {
        let mut held = self.held(hour);
        let window = hour.window;
        for (place, _) in self.rows.range((window, i64::MIN, 0, 0)..(window.next(), i64::MIN, 0, 0)) {
            held.entry(*place).or_default(); // what the book should have, and has not
        }
        for (place, held) in held {
            let counted = self.rows.get(&place).copied().unwrap_or_default();
            let is_wrong = |number: usize| match window < self.floor {
                true => held[number] < counted[number],
                false => held[number] > counted[number],
            };
            if let Some(number) = (0..2).find(|number| is_wrong(*number)) {
                let what = self.said(place, (["commands", "units"][number], held[number], counted[number]), names);
                let (_, series, _, _) = place;
                let place = format!("epoch {}, hour {window}, {}", self.epoch, names.series(series));
                report.find(Check::Tally, place, what);
            }
        }
    }

    fn said(&self, place: RowPlace, (of, held, counted): (&str, i128, i128), names: &Names) -> String {
        let (window, _, outcome, _) = place;
        let outcome = names.outcome(outcome);
        match window < self.floor {
            true => format!("{held} {of} {outcome} were sealed, the tally they came from still shows {counted}"),
            false => format!("{held} {of} {outcome} in the book, {counted} in the tally it came from"),
        }
    }

    fn held(&self, hour: &Hour) -> BTreeMap<RowPlace, [i128; 2]> {
        let mut held = BTreeMap::new();
        for row in hour.admissions.iter().filter(|row| row.epoch == self.epoch) {
            add(&mut held, (hour.window, row.series, ADMITTED, 0), row.numbers.map(i128::from));
        }
        for row in hour.ends.iter().filter(|row| row.epoch == self.epoch) {
            let [commands, units, ..] = row.numbers;
            add(&mut held, (hour.window, row.series, row.outcome, row.late), [commands, units].map(i128::from));
        }
        held
    }
}

fn add(rows: &mut BTreeMap<RowPlace, [i128; 2]>, place: RowPlace, more: [i128; 2]) {
    let sum = rows.entry(place).or_default();
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_moved_meet_where_their_values_overlap() {
        for (one, other, expected) in [
            ([5, 5], [5, 5], true),
            ([5, 5], [6, 6], true), // one command is in hand
            ([5, 5], [7, 7], false),
            ([5, 9], [8, 20], true),
            ([5, 9], [20, 30], false),
        ] {
            assert_eq!((meet(one, other), meet(other, one)), (expected, expected), "{one:?} {other:?}");
        }
    }
}
