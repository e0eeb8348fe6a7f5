//! The epoch that has not ended: what its tally holds beyond the book.

use std::collections::HashMap;

use super::names::Names;
use super::snapshot::Readings;
use crate::ledger::book::stored;
use crate::ledger::fold::{Fold, SeriesNames, late_ends};
use crate::ledger::recover::fold_image;
use crate::ledger::slot::Kind;
use crate::ledger::tally::TallyImage;
use crate::ledger::words::{Record, Words};
use crate::model::{Outcome, Window};

/// Hour of admission, series, and commands with their units.
pub(super) type Count = (Window, i64, [i64; 2]);

/// What the tally tells, ready to be balanced.
#[derive(Debug)]
pub(super) struct OpenEpoch {
    pub(super) epoch: u32,
    /// Hours before it are sealed: the book tells them.
    pub(super) floor: Window,
    /// Whether nothing was counted while the tally was read.
    pub(super) is_still: bool,
    pub(super) admitted: Vec<Count>,
    /// By the hour of admission, not of the end.
    pub(super) ended: Vec<Count>,
    /// Empty unless [`OpenEpoch::is_still`].
    pub(super) in_flight: Vec<Count>,
}

/// What is admitted and has not ended, of one hour of admission and series.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) window: Window,
    pub(super) names: SeriesNames,
    pub(super) units: u64,
    pub(super) record: Record,
}

impl OpenEpoch {
    /// If the gateway counted meanwhile, takes the ends of the older reading and the admissions of the newer one, so that no
    /// end can lack its admission.
    pub(super) fn of(readings: &Readings, names: &mut Names) -> Self {
        let is_still = readings.is_still();
        let (admitted, _) = counts(&readings.newer, readings.floor, names);
        let (_, ended) = counts(&readings.older, readings.floor, names);
        let in_flight = if is_still { in_flight(&readings.newer) } else { Vec::new() };
        let in_flight = in_flight
            .into_iter()
            .map(|one| (one.window, names.number(&one.names), [stored(one.record.commands), stored(one.units)]));
        let in_flight = in_flight.collect();
        Self { epoch: readings.newer.header.epoch, floor: readings.floor, is_still, admitted, ended, in_flight }
    }
}

/// What was admitted and what ended, of the hours that are not sealed.
fn counts(image: &TallyImage, floor: Window, names: &mut Names) -> (Vec<Count>, Vec<Count>) {
    let (mut admitted, mut ended) = (Vec::new(), Vec::new());
    let fold = fold_of(image, floor);
    for (key, row) in fold.changed_rows() {
        let Some(series) = fold.names(key.series).map(|series| names.number(series)) else { continue };
        admitted.push((key.window, series, [stored(row.admitted), stored(row.units)]));
        for (_, totals) in row.outcomes().filter(|(outcome, _)| matches!(outcome, Outcome::Finished(_))) {
            let window = Window(key.window.0.saturating_sub(key.late));
            ended.push((window, series, [stored(totals.commands), stored(totals.units)]));
        }
        ended.push((Window(key.window.0.saturating_sub(key.late)), series, [0, stored(row.waived().units)]));
    }
    (admitted, ended)
}

/// The rows of the hours from `floor` on.
pub(super) fn fold_of(image: &TallyImage, floor: Window) -> Fold {
    fold_image(Vec::new(), image, floor)
}

/// What is in flight, in the order of hours and series.
pub(super) fn in_flight(image: &TallyImage) -> Vec<InFlight> {
    let mut sums: HashMap<(Window, SeriesNames), InFlight> = HashMap::new();
    let late = late_ends(image.slots.iter().copied());
    let admitting = |words: &&Words| words.kind() == Kind::Count && words.of().is_none();
    for words in image.slots.iter().skip(1).filter(admitting) {
        let late = late.get(&words.origin()).copied().unwrap_or_default();
        let record = words.unended(late, image.header.synced_ns);
        let names = image.slot(words.series()).and_then(SeriesNames::of);
        let Some(names) = names.filter(|_| record.commands > 0) else { continue };
        let key = (words.window(), names.clone());
        let empty = InFlight { window: words.window(), names, units: 0, record: Record::default() };
        add(sums.entry(key).or_insert(empty), words, &record);
    }
    let mut sums: Vec<_> = sums.into_values().collect();
    sums.sort_by(|one, other| (one.window, &one.names).cmp(&(other.window, &other.names)));
    sums
}

fn add(sum: &mut InFlight, words: &Words, more: &Record) {
    sum.units = sum.units.saturating_add(more.commands.saturating_mul(words.units_each()));
    sum.record = Record {
        commands: sum.record.commands.saturating_add(more.commands),
        request_bytes: sum.record.request_bytes.saturating_add(more.request_bytes),
        response_bytes: sum.record.response_bytes.saturating_add(more.response_bytes),
        duration_ns: sum.record.duration_ns.saturating_add(more.duration_ns),
    };
}
