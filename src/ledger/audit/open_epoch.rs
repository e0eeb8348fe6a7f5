//! The open epoch: counts of its tally that are not in the book yet.

use std::collections::HashMap;

use crate::ledger::fold::{SeriesNames, TallyFold, late_end_totals};
use crate::ledger::keeper::recovery::fold_image;
use crate::ledger::tally::file::TallyImage;
use crate::ledger::tally::slot::SlotKind;
use crate::ledger::tally::slot_copy::SlotCopy;
use crate::ledger::values::measures::{Measures, UsageSums};
use crate::model::{Outcome, Window};

use super::ledger_snapshot::TallyReadings;
use super::name_table::NameTable;

/// Hour of admission, series, and commands with their units.
pub(crate) type OpenCount = (Window, i64, [i64; 2]);

/// The counts of the tally, prepared for the reconciliation.
#[derive(Debug)]
pub(crate) struct OpenEpoch {
    pub(crate) epoch: u32,
    /// Hours before this window are sealed: their rows come from the book.
    pub(crate) first_unsealed: Window,
    /// Whether nothing was counted while the tally was read.
    pub(crate) is_unchanged: bool,
    pub(crate) admitted: Vec<OpenCount>,
    /// Ended commands by the hour of admission, not the hour of the end.
    pub(crate) ended: Vec<OpenCount>,
    /// Empty unless [`OpenEpoch::is_unchanged`].
    pub(crate) in_flight: Vec<OpenCount>,
}

/// Commands admitted and not ended, of one hour of admission and series.
#[derive(Clone, Debug)]
pub(crate) struct InFlightSeries {
    pub(crate) window: Window,
    pub(crate) names: SeriesNames,
    pub(crate) measures: Measures,
}

impl OpenEpoch {
    /// Reads the counts. If the gateway counted during the read, takes ends from the older read and admissions from the
    /// newer one. So no end can lack its admission.
    pub(crate) fn from_readings(readings: &TallyReadings, names: &mut NameTable) -> Self {
        let is_still = readings.is_unchanged();
        let (admitted, _) = open_counts(&readings.newer, readings.first_unsealed, names);
        let (_, ended) = open_counts(&readings.older, readings.first_unsealed, names);
        let in_flight = if is_still { series_in_flight(&readings.newer) } else { Vec::new() };
        let in_flight = in_flight
            .into_iter()
            .map(|one| (one.window, names.series_number(&one.names), one.measures.usage().to_stored()));
        let in_flight = in_flight.collect();
        Self {
            epoch: readings.newer.header.epoch,
            first_unsealed: readings.first_unsealed,
            is_unchanged: is_still,
            admitted,
            ended,
            in_flight,
        }
    }
}

/// Returns the admitted and the ended commands of unsealed hours.
fn open_counts(image: &TallyImage, floor: Window, names: &mut NameTable) -> (Vec<OpenCount>, Vec<OpenCount>) {
    let (mut admitted, mut ended) = (Vec::new(), Vec::new());
    let fold = fold_from(image, floor);
    for (key, row) in fold.changed_rows() {
        let Some(series) = fold.series_names(key.series).map(|series| names.series_number(series)) else { continue };
        admitted.push((key.window, series, row.admitted.to_stored()));
        for (_, totals) in row.outcomes().filter(|(outcome, _)| matches!(outcome, Outcome::Finished(_))) {
            let window = Window(key.window.0.saturating_sub(key.late));
            ended.push((window, series, totals.usage().to_stored()));
        }
        let waived = UsageSums { commands: 0, ..row.waived() };
        ended.push((Window(key.window.0.saturating_sub(key.late)), series, waived.to_stored()));
    }
    (admitted, ended)
}

/// Returns the rows of the hours from `floor` on.
pub(crate) fn fold_from(image: &TallyImage, floor: Window) -> TallyFold {
    fold_image(Vec::new(), image, floor)
}

/// Returns the commands in flight, in the order of hours and series.
pub(crate) fn series_in_flight(image: &TallyImage) -> Vec<InFlightSeries> {
    let mut sums: HashMap<(Window, SeriesNames), InFlightSeries> = HashMap::new();
    let late = late_end_totals(image.slots.iter().copied());
    let admitting = |copy: &&SlotCopy| copy.kind() == SlotKind::Count && copy.admission_window().is_none();
    for copy in image.slots.iter().skip(1).filter(admitting) {
        let late = late.get(&copy.admission_key()).copied().unwrap_or_default();
        let rest = copy.unended(late, image.header.synced_ns);
        let names = image.slot(copy.series_position()).and_then(SeriesNames::from_copy);
        let Some(names) = names.filter(|_| rest.commands > 0) else { continue };
        let key = (copy.window(), names.clone());
        let empty = InFlightSeries { window: copy.window(), names, measures: Measures::default() };
        sums.entry(key).or_insert(empty).measures.add(&rest);
    }
    let mut sums: Vec<_> = sums.into_values().collect();
    sums.sort_by(|one, other| (one.window, &one.names).cmp(&(other.window, &other.names)));
    sums
}
