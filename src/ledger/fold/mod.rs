//! Converts slots to rows of the book: pure arithmetic without a file or a clock.
//!
//! Guarantees:
//! - A slot's words are added as the difference to the last copy of the slot, so reading a slot twice adds nothing.
//! - Rows hold whole sums, so writing a row twice changes nothing (idempotent).
//! - Rows of sealed windows never change again.
//! - Commands in flight are in no row until [`TallyFold::interrupt`] ends them. [`TallyFold::in_flight`] lists them
//!   separately.

mod series_sums;
mod sparse_row;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use crate::model::{Finished, Name, Outcome, Refused, Window};

use self::series_sums::{PackedSums, SeriesSums};
use self::sparse_row::{ROW_NUMBERS, SparseRow};
use super::tally::conservation::SlotTotals;
use super::tally::slot::{SlotKind, offset};
use super::tally::slot_copy::{AdmissionKey, SlotCopy};
use super::values::measures::{Measures, SeriesTotals, UsageRow, UsageSums};

/// The names of a series: department, subsystem and command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesNames {
    pub(crate) department: Name,
    pub(crate) subsystem: Name,
    pub(crate) command: Name,
}

/// A series' number in the book: its position in [`TallyFold::series`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesId(pub(crate) u32);

/// The key of a row: ends and refusals of one window and series, of commands admitted `late` hours earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FoldRowKey {
    pub(crate) window: Window,
    pub(crate) series: SeriesId,
    /// 0, unless the command ended after its own hour was sealed.
    pub(crate) late: u32,
}

impl FoldRowKey {
    /// Returns the smallest key of a window.
    fn lowest_of(window: Window) -> Self {
        Self { window, series: SeriesId(0), late: 0 }
    }
}

/// The sums of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldRow {
    /// Admitted commands and their units.
    pub(crate) admitted: UsageSums,
    /// Commands that ended, and the units that all of them would have cost.
    pub(crate) ended: UsageSums,
    /// The charged part of `ended`: commands that cost their units, and those units. Charged units are counted because
    /// they only grow. Waived units are the difference, and a difference can shrink between two copies of a slot in
    /// use.
    pub(crate) charged: UsageSums,
    pub(crate) finished: [Measures; Finished::ALL.len()],
    pub(crate) refused: [u64; Refused::ALL.len()],
}

/// A [`FoldRow`] in compact form for storage: most of its numbers are 0.
#[derive(Clone, Debug, Default)]
struct PackedRow(SparseRow);

/// The unsealed rows of one epoch, which may still change.
#[derive(Clone, Debug)]
pub(crate) struct OpenRows {
    pub(crate) epoch: u32,
    /// The first unsealed window. Rows of earlier windows are only in the book.
    pub(crate) floor: Window,
    pub(crate) rows: Vec<UsageRow>,
}

/// [`OpenRows`], summed by department.
#[derive(Clone, Debug)]
pub(crate) struct OpenUsage {
    pub(crate) epoch: u32,
    /// The first unsealed window, as in [`OpenRows::floor`].
    pub(crate) floor: Window,
    pub(crate) sums: BTreeMap<(Window, Name), UsageSums>,
}

/// The accumulated state of one epoch's tally: the last copy of each slot, and the sums.
#[derive(Debug, Default)]
pub(crate) struct TallyFold {
    series: Vec<SeriesNames>,
    /// Keys are the numbers of department, subsystem and command in `names`.
    series_by_names: HashMap<[u32; 3], SeriesId, foldhash::fast::RandomState>,
    /// Each name once, with its number. A department's name occurs in one series per command.
    name_numbers: HashMap<Name, u32>,
    /// The series whose names are in the slot at a position. Such a slot keeps its names for the life of the tally.
    series_by_slot: HashMap<u32, SeriesId, foldhash::fast::RandomState>,
    saved_series: usize,
    sums: Vec<PackedSums>,
    /// The last copy of each slot, by position.
    seen_copies: Vec<SparseRow>,
    floor: Window,
    rows: BTreeMap<FoldRowKey, PackedRow>,
    changed: BTreeSet<FoldRowKey>,
    /// The sums of all slots read so far, for the comparison with the workers' own counters.
    slot_totals: SlotTotals,
    /// Slots with commands in flight, by position.
    in_flight_slots: BTreeMap<usize, SeriesId>,
}

impl SeriesNames {
    /// Reads the names from a copy of a series' slot.
    pub(crate) fn from_copy(copy: &SlotCopy) -> Option<Self> {
        let holds_names = copy.kind() == SlotKind::Series;
        let name = |number| copy.series_name(number);
        holds_names.then(|| Some(Self { department: name(0)?, subsystem: name(1)?, command: name(2)? })).flatten()
    }
}

impl PackedRow {
    fn add_growth(&mut self, growth: &FoldRow) {
        let mut row = self.unpack();
        row.add_growth(growth);
        self.0.store(&row.as_numbers());
    }

    fn unpack(&self) -> FoldRow {
        FoldRow::from_numbers(&self.0.load())
    }
}

/// Numbers per outcome in a row.
const NUMBERS_PER_OUTCOME: usize = 5;
/// The offset of the outcomes' numbers, which follow those of admissions. The refusals follow the outcomes.
const FINISHED_AT: usize = 6;
const REFUSED_AT: usize = FINISHED_AT + Finished::ALL.len() * NUMBERS_PER_OUTCOME;
const _: () = assert!(REFUSED_AT + Refused::ALL.len() <= ROW_NUMBERS, "a row fits");

impl FoldRow {
    fn as_numbers(&self) -> [u64; ROW_NUMBERS] {
        let mut numbers = [0; ROW_NUMBERS];
        let Self { admitted, ended, charged, .. } = self;
        let beginning =
            [admitted.commands, admitted.units, ended.commands, ended.units, charged.commands, charged.units];
        numbers[..FINISHED_AT].copy_from_slice(&beginning);
        for (totals, place) in self.finished.iter().zip(numbers[FINISHED_AT..].as_chunks_mut::<NUMBERS_PER_OUTCOME>().0)
        {
            *place = totals.as_array();
        }
        numbers[REFUSED_AT..REFUSED_AT + Refused::ALL.len()].copy_from_slice(&self.refused);
        numbers
    }

    fn from_numbers(numbers: &[u64; ROW_NUMBERS]) -> Self {
        let [admitted, ended, charged] =
            [0, 2, 4].map(|at| UsageSums { commands: numbers[at], units: numbers[at + 1] });
        let mut row = Self { admitted, ended, charged, ..Self::default() };
        for (totals, place) in row.finished.iter_mut().zip(numbers[FINISHED_AT..].as_chunks::<NUMBERS_PER_OUTCOME>().0)
        {
            *totals = Measures::from(*place);
        }
        row.refused.copy_from_slice(&numbers[REFUSED_AT..REFUSED_AT + Refused::ALL.len()]);
        row
    }

    /// Returns the growth of a slot between two copies.
    fn growth(before: &SlotCopy, now: &SlotCopy) -> Self {
        let (mut growth, units_each) = (Self::default(), now.units_each());
        let admitted = now.0[offset::ADMITTED].saturating_sub(before.0[offset::ADMITTED]);
        growth.admitted = UsageSums { commands: admitted, units: admitted.saturating_mul(units_each) };
        for finished in Finished::ALL {
            let totals = now.finished(finished).zip(before.finished(finished), u64::saturating_sub);
            let charged = now.charged(finished).saturating_sub(before.charged(finished));
            growth.add_ended(finished, &totals, (charged, units_each));
        }
        for refused in Refused::ALL {
            growth.refused[refused.index()] = now.refused(refused).saturating_sub(before.refused(refused));
        }
        growth
    }

    /// Adds another row's sums.
    fn add_growth(&mut self, more: &Self) {
        self.admitted.add(more.admitted);
        self.ended.add(more.ended);
        self.charged.add(more.charged);
        self.finished.iter_mut().zip(&more.finished).for_each(|(sum, more)| sum.add(more));
        self.refused.iter_mut().zip(&more.refused).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    /// Adds commands that ended with `finished`; `charged` of them cost `units_each`, which are the units of `totals`.
    fn add_ended(&mut self, finished: Finished, totals: &Measures, (charged, units_each): (u64, u64)) {
        let commands = totals.commands;
        self.finished[finished.index()].add(totals);
        self.ended.add(UsageSums { commands, units: commands.saturating_mul(units_each) });
        self.charged.add(UsageSums { commands: charged, units: totals.units });
    }

    /// Returns the commands that cost no units, and the units that they would have cost.
    pub(crate) fn waived(&self) -> UsageSums {
        self.ended.without(self.charged)
    }

    /// Returns the outcomes that have commands, with their sums.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, Measures)> + '_ {
        let finished = Finished::ALL.into_iter().map(|one| (Outcome::Finished(one), self.finished[one.index()]));
        let refused = Refused::ALL.into_iter().map(|one| {
            let commands = self.refused[one.index()];
            (Outcome::Refused(one), Measures { commands, ..Measures::default() })
        });
        finished.chain(refused).filter(|(_, totals)| *totals != Measures::default())
    }

    /// Adds the sums of admitted commands.
    pub(crate) fn add_admitted(&mut self, totals: &Measures) {
        self.admitted.add(totals.usage());
    }

    /// Adds the sums of one outcome, as stored in the book.
    pub(crate) fn add_outcome(&mut self, outcome: Outcome, totals: &Measures) {
        match outcome {
            Outcome::Finished(finished) => {
                self.finished[finished.index()].add(totals);
                self.ended.add(totals.usage());
                self.charged.add(totals.usage());
            }
            Outcome::Refused(refused) => {
                let sum = &mut self.refused[refused.index()];
                *sum = sum.saturating_add(totals.commands);
            }
        }
    }
}

impl TallyFold {
    /// Starts from the book's series, each with its sums over all epochs. Windows before `floor` are sealed.
    pub(crate) fn new(known: Vec<(SeriesNames, FoldRow)>, floor: Window) -> Self {
        let mut fold = Self { floor, ..Self::default() };
        for (names, row) in known {
            let SeriesId(number) = fold.series_of(names);
            fold.sums[number as usize].store(&SeriesSums::from_book(&row));
        }
        fold.saved_series = fold.series.len();
        fold
    }

    /// Adds the growth of a slot since its last copy. Returns whether the slot could be processed. `names_at` reads the
    /// slot that holds a series' names.
    pub(crate) fn absorb(
        &mut self,
        position: usize,
        now: &SlotCopy,
        names_at: impl Fn(u32) -> Option<SeriesNames>,
    ) -> bool {
        if self.seen_copies.len() <= position {
            self.seen_copies.resize(position + 1, SparseRow::default());
        }
        if now.kind() != SlotKind::Count {
            self.seen_copies[position] = SparseRow::default();
            return true;
        }
        if self.seen_copies[position].holds(&now.0) {
            return true;
        }
        // The next fold reads the slot again.
        let Some(series) = self.series_at(now.series_position(), names_at) else { return false };
        let mut before = SlotCopy(self.seen_copies[position].load());
        self.seen_copies[position].store(&now.0);
        if before.state() != now.state() {
            before = SlotCopy::EMPTY; // the slot has a new use; its earlier content is unrelated
        }
        match now.in_flight(0).commands {
            0 => self.in_flight_slots.remove(&position),
            _ => self.in_flight_slots.insert(position, series),
        };
        self.slot_totals.add_slot(&before, now);
        self.add_copy(series, &before, now);
        true
    }

    /// Returns the sums of all slots, as of their last copies.
    pub(crate) fn slot_totals(&self) -> &SlotTotals {
        &self.slot_totals
    }

    /// Returns the commands in flight at the moment `now_ns`, by window of admission and series.
    pub(crate) fn in_flight(&self, now_ns: u64) -> BTreeMap<(Window, SeriesId), Measures> {
        let mut sums: BTreeMap<_, Measures> = BTreeMap::new();
        for (copy, series) in
            self.in_flight_slots.iter().filter_map(|(at, series)| Some((self.seen_copies.get(*at)?, series)))
        {
            let copy = SlotCopy(copy.load());
            sums.entry((copy.window(), *series)).or_default().add(&copy.in_flight(now_ns));
        }
        sums
    }

    fn add_copy(&mut self, series: SeriesId, before: &SlotCopy, now: &SlotCopy) {
        let growth = FoldRow::growth(before, now);
        let grown = |at: usize| now.0[at].saturating_sub(before.0[at]);
        let bytes = (grown(offset::REQUEST_BYTES), grown(offset::RESPONSE_BYTES));
        self.add_to_series(series, &growth, bytes);
        if now.window() < self.floor {
            return; // the slot of a sealed window: only its last streams still change it
        }
        self.add_to_row(FoldRowKey { window: now.window(), series, late: now.hours_late() }, &growth);
    }

    fn add_to_series(&mut self, series: SeriesId, growth: &FoldRow, (request_bytes, response_bytes): (u64, u64)) {
        let packed = &mut self.sums[series.0 as usize];
        let mut sums = packed.load();
        sums.add_growth(growth);
        sums.add_bytes(request_bytes, response_bytes);
        packed.store(&sums);
    }

    /// Adds growth to a row and marks the row as changed. Without growth the row only comes into being and is not
    /// marked.
    fn add_to_row(&mut self, key: FoldRowKey, growth: &FoldRow) {
        let row = self.rows.entry(key).or_default();
        if *growth != FoldRow::default() {
            row.add_growth(growth);
            self.changed.insert(key);
        }
    }

    /// Ends the commands in flight: they become `interrupted` in the window of their admission, or in `fallback` if
    /// that window is sealed. Must be called once, at the end of an epoch. From then on only the records of ends count,
    /// whichever pages of the tally the disk has kept ([`SlotCopy::unended`]).
    pub(crate) fn interrupt(&mut self, fallback: Window, now_ns: u64, names_at: impl Fn(u32) -> Option<SeriesNames>) {
        let seen = std::mem::take(&mut self.seen_copies);
        self.in_flight_slots.clear();
        let seen = || seen.iter().map(|copy| SlotCopy(copy.load()));
        let late = late_end_totals(seen());
        for copy in seen().filter(|copy| copy.kind() == SlotKind::Count && copy.admission_window().is_none()) {
            let rest = copy.unended(late.get(&copy.admission_key()).copied().unwrap_or_default(), now_ns);
            if rest.commands == 0 {
                continue;
            }
            let Some(series) = self.series_at(copy.series_position(), &names_at) else { continue };
            let window = if copy.window() < self.floor { fallback } else { copy.window() };
            let key = FoldRowKey { window, series, late: window.0.saturating_sub(copy.window().0) };
            let mut growth = FoldRow::default();
            growth.add_ended(Finished::Interrupted, &rest, (rest.commands, copy.units_each()));
            self.add_to_row(key, &growth);
            self.add_to_series(series, &growth, (0, 0));
        }
    }

    /// Returns the series that are not in the book yet.
    pub(crate) fn new_series(&self) -> impl Iterator<Item = (SeriesId, &SeriesNames)> {
        let numbered = self.series.iter().enumerate().skip(self.saved_series);
        numbered.map(|(number, names)| (SeriesId(u32::try_from(number).unwrap_or(u32::MAX)), names))
    }

    /// Returns the rows that changed since the last [`TallyFold::mark_saved`].
    pub(crate) fn changed_rows(&self) -> impl Iterator<Item = (FoldRowKey, FoldRow)> {
        self.changed.iter().filter_map(|key| self.rows.get(key).map(|row| (*key, row.unpack())))
    }

    /// Returns all unsealed rows of windows before `window`.
    pub(crate) fn rows_before(&self, window: Window) -> impl Iterator<Item = (FoldRowKey, FoldRow)> {
        self.rows.range(..FoldRowKey::lowest_of(window)).map(|(key, row)| (*key, row.unpack()))
    }

    /// Returns all series, ordered by number.
    pub(crate) fn all_series(&self) -> impl Iterator<Item = (SeriesId, &SeriesNames)> {
        (0..).map(SeriesId).zip(&self.series)
    }

    /// Records that all changed rows are in the book, and that windows before `sealed` are sealed.
    pub(crate) fn mark_saved(&mut self, sealed: Window) {
        self.saved_series = self.series.len();
        self.changed.clear();
        self.floor = self.floor.max(sealed);
        self.rows = self.rows.split_off(&FoldRowKey::lowest_of(self.floor));
    }

    /// Returns the rows of unsealed windows.
    pub(crate) fn open_rows(&self, epoch: u32) -> OpenRows {
        OpenRows { epoch, floor: self.floor, rows: self.usage(Window(0)..Window(u32::MAX)) }
    }

    /// Returns the rows of unsealed windows, summed by department: about 1/100 of the memory of the rows.
    pub(crate) fn open_usage(&self, epoch: u32) -> OpenUsage {
        let mut sums: BTreeMap<_, UsageSums> = BTreeMap::new();
        for (key, row) in &self.rows {
            let Some(names) = self.series_names(key.series) else { continue };
            let sum = sums.entry((key.window, names.department.clone())).or_default();
            row.unpack().outcomes().for_each(|(_, totals)| sum.add(totals.usage()));
        }
        OpenUsage { epoch, floor: self.floor, sums }
    }

    /// Returns the rows of unsealed windows in a range.
    pub(crate) fn usage(&self, windows: Range<Window>) -> Vec<UsageRow> {
        let keys = FoldRowKey::lowest_of(windows.start)..FoldRowKey::lowest_of(windows.end);
        let mut usage = Vec::new();
        for (key, row) in self.rows.range(keys) {
            let Some(names) = self.series_names(key.series) else { continue };
            usage.extend(row.unpack().outcomes().map(|one| usage_row(key.window, names, one)));
        }
        usage
    }

    /// Returns the sums of every series since the ledger began.
    pub(crate) fn totals(&self) -> Vec<SeriesTotals> {
        self.series.iter().zip(&self.sums).map(|(names, sums)| sums.load().with_names(names)).collect()
    }

    /// Returns the names of a series.
    pub(crate) fn series_names(&self, series: SeriesId) -> Option<&SeriesNames> {
        self.series.get(series.0 as usize)
    }

    fn series_at(&mut self, position: u32, names_at: impl Fn(u32) -> Option<SeriesNames>) -> Option<SeriesId> {
        if let Some(series) = self.series_by_slot.get(&position) {
            return Some(*series);
        }
        let series = self.series_of(names_at(position)?);
        self.series_by_slot.insert(position, series);
        Some(series)
    }

    fn series_of(&mut self, names: SeriesNames) -> SeriesId {
        let SeriesNames { department, subsystem, command } = names;
        let [department, subsystem, command] = [department, subsystem, command].map(|name| self.intern(name));
        let key = [department.1, subsystem.1, command.1];
        if let Some(number) = self.series_by_names.get(&key) {
            return *number;
        }
        let number = SeriesId(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        self.series_by_names.insert(key, number);
        self.series.push(SeriesNames { department: department.0, subsystem: subsystem.0, command: command.0 });
        self.sums.push(PackedSums::default());
        number
    }

    /// Returns the shared copy of a name, and its number.
    fn intern(&mut self, name: Name) -> (Name, u32) {
        if let Some((known, number)) = self.name_numbers.get_key_value(&name) {
            return (known.clone(), *number);
        }
        let number = u32::try_from(self.name_numbers.len()).unwrap_or(u32::MAX);
        self.name_numbers.insert(name.clone(), number);
        (name, number)
    }
}

/// Sums late ends by the slot in which the commands were admitted.
pub(crate) fn late_end_totals(slots: impl Iterator<Item = SlotCopy>) -> HashMap<AdmissionKey, Measures> {
    let mut ends: HashMap<_, Measures> = HashMap::new();
    for copy in slots.filter(|copy| copy.kind() == SlotKind::Count && copy.admission_window().is_some()) {
        ends.entry(copy.admission_key()).or_default().add(&copy.ended());
    }
    ends
}

fn usage_row(window: Window, names: &SeriesNames, (outcome, totals): (Outcome, Measures)) -> UsageRow {
    UsageRow {
        window,
        department: names.department.clone(),
        subsystem: names.subsystem.clone(),
        command: names.command.clone(),
        outcome,
        totals,
    }
}

/// Sums rows with the same window, series and outcome. The result is sorted by these three.
pub(crate) fn sum_rows(rows: impl IntoIterator<Item = UsageRow>) -> Vec<UsageRow> {
    let mut sums: BTreeMap<(Window, SeriesNames, Outcome), Measures> = BTreeMap::new();
    for row in rows {
        let names = SeriesNames { department: row.department, subsystem: row.subsystem, command: row.command };
        sums.entry((row.window, names, row.outcome)).or_default().add(&row.totals);
    }
    sums.into_iter().map(|((window, names, outcome), totals)| usage_row(window, &names, (outcome, totals))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tally::slot::pack_halves;

    const NOON: Window = Window(1000);

    fn names(_: u32) -> Option<SeriesNames> {
        let name = |text| Name::parse(text).expect("a name");
        Some(SeriesNames { department: name("police"), subsystem: name("cameras"), command: name("read") })
    }

    fn slot(generation: u64, window: Window, set: &[(usize, u64)]) -> SlotCopy {
        let mut copy = SlotCopy::EMPTY;
        copy.0[offset::STATE] = SlotKind::Count as u64 | generation << 32;
        copy.0[offset::WINDOW_AND_SERIES] = pack_halves(window.0, 7);
        copy.0[offset::UNITS_EACH] = 3;
        set.iter().for_each(|(at, value)| copy.0[*at] = *value);
        copy
    }

    #[test]
    fn packed_row_is_unpacked_unchanged() {
        let numbers = std::array::from_fn(|at| if at < REFUSED_AT + Refused::ALL.len() { at as u64 + 1 } else { 0 });
        let row = FoldRow::from_numbers(&numbers);
        assert_eq!(row.as_numbers(), numbers);
        assert_eq!(
            (row.admitted.commands, row.admitted.units, row.finished[0].commands, row.refused[0]),
            (1, 2, 7, 47)
        );
        let mut packed = PackedRow::default();
        packed.add_growth(&FoldRow::default());
        assert_eq!(packed.unpack(), FoldRow::default());
        packed.add_growth(&row);
        assert_eq!(packed.unpack(), row);
    }

    fn all(fold: &TallyFold) -> Vec<(Window, &'static str, u64, u64)> {
        let rows = fold.usage(Window(0)..Window(u32::MAX));
        rows.iter().map(|row| (row.window, row.outcome.name(), row.totals.commands, row.totals.units)).collect()
    }

    #[test]
    fn slot_folded_twice_counts_once_and_then_its_growth() {
        let mut fold = TallyFold::default();
        for count in [2, 2, 5] {
            fold.absorb(9, &slot(1, NOON, &[(offset::ADMITTED, count), (offset::FINISHED, count)]), names);
        }
        assert_eq!(all(&fold), [(NOON, "ok", 5, 15)]);
        assert_eq!((fold.totals()[0].admitted, fold.totals()[0].units), (5, 15));
    }

    #[test]
    fn reused_slot_counts_from_zero() {
        let mut fold = TallyFold::default();
        fold.absorb(9, &slot(1, NOON, &[(offset::REFUSED, 5)]), names);
        fold.absorb(9, &slot(2, NOON.next(), &[(offset::REFUSED, 2)]), names);
        assert_eq!(all(&fold), [(NOON, "malformed", 5, 0), (NOON.next(), "malformed", 2, 0)]);
    }

    #[test]
    fn slots_of_two_workers_are_folded_into_one_row() {
        let mut fold = TallyFold::default();
        fold.absorb(9, &slot(1, NOON, &[(offset::FINISHED, 5)]), names);
        fold.absorb(99, &slot(1, NOON, &[(offset::FINISHED, 2)]), names);
        assert_eq!(all(&fold), [(NOON, "ok", 7, 21)]);
    }

    #[test]
    fn only_changed_rows_are_written_and_sealed_rows_never() {
        let mut fold = TallyFold::default();
        fold.absorb(9, &slot(1, NOON, &[(offset::FINISHED, 5)]), names);
        assert_eq!((fold.new_series().count(), fold.changed_rows().count()), (1, 1));
        fold.mark_saved(Window(0));
        assert_eq!((fold.new_series().count(), fold.changed_rows().count()), (0, 0));
        fold.mark_saved(NOON.next());
        fold.absorb(
            9,
            &slot(1, NOON, &[(offset::FINISHED, 5), (offset::RESPONSE_BYTES, 4), (offset::LATE_OUT, 1)]),
            names,
        );
        assert_eq!((fold.changed_rows().count(), all(&fold).len()), (0, 0));
        assert_eq!(fold.totals()[0].response_bytes, 4, "bytes of an open stream are counted");
    }

    #[test]
    fn in_flight_commands_are_interrupted_in_their_window_unless_it_is_sealed() {
        let evening = Window(NOON.0 + 6);
        for (floor, expected) in [(Window(0), NOON), (NOON.next(), evening)] {
            let mut fold = TallyFold::new(Vec::new(), floor);
            fold.absorb(9, &slot(1, NOON, &[(offset::ADMITTED, 5), (offset::FINISHED + 4, 3)]), names);
            fold.interrupt(evening, 0, names);
            assert!(all(&fold).contains(&(expected, "interrupted", 2, 6)), "{:?}", all(&fold));
            assert_eq!(fold.totals()[0].in_flight(), 0);
        }
    }
}
