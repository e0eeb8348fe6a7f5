//! From slots to rows: pure arithmetic, no file, no clock.
//!
//! Guarantees: a slot's words are added as the difference to what was last seen of it, so seeing it twice adds nothing;
//! rows hold whole sums, so writing them twice changes nothing. Rows of sealed windows never change again. Commands in
//! flight are in no row until [`Fold::interrupt`] ends them; [`Fold::in_flight`] tells them apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::balance::Counted;
use super::series_sums::{PackedSums, SeriesSums};
use super::slot::{Kind, word};
use super::sparse::{NUMBERS, SparseRow};
use super::totals::{OutcomeTotals, SeriesTotals, UsageRow, UseSums};
use super::words::{Moved, Origin, Record, Words};
use crate::model::{Finished, Name, Outcome, Refused, Window};

/// Who and what, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeriesNames {
    pub(super) department: Name,
    pub(super) subsystem: Name,
    pub(super) command: Name,
}

/// A series' number in the book: its position in [`Fold::series`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeriesId(pub(super) u32);

/// What a row is about: ends and refusals of one window and series, of commands admitted `late` hours before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub(super) window: Window,
    pub(super) series: SeriesId,
    /// 0 but for what ended after its own hour was sealed.
    pub(super) late: u32,
}

impl RowKey {
    /// The least key of a window.
    fn first_of(window: Window) -> Self {
        Self { window, series: SeriesId(0), late: 0 }
    }
}

/// Commands of one window and series that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flying {
    pub(super) units: u64,
    /// Their number, and their bytes and time so far.
    pub(super) record: Record,
}

/// Commands and units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) commands: u64,
    pub(super) units: u64,
}

impl Charge {
    fn add(&mut self, commands: u64, units: u64) {
        self.commands = self.commands.saturating_add(commands);
        self.units = self.units.saturating_add(units);
    }
}

/// The sums of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) admitted: u64,
    /// Units of the admitted.
    pub(super) units: u64,
    /// Commands that ended, and the units they would all have cost.
    pub(super) ended: Charge,
    /// Of these the ones that cost their units, and these units. Kept apart, since both only grow: their difference, what was
    /// waived, may shrink between two looks at a worker that is counting.
    pub(super) charged: Charge,
    pub(super) finished: [OutcomeTotals; Finished::ALL.len()],
    pub(super) refused: [u64; Refused::ALL.len()],
}

/// A [`Row`] that waits: most of its numbers are 0.
#[derive(Clone, Debug, Default)]
struct PackedRow(SparseRow);

/// Rows that may still change, of one epoch.
#[derive(Clone, Debug)]
pub(super) struct OpenRows {
    pub(super) epoch: u32,
    /// The first window that is not sealed; the book alone tells those before it.
    pub(super) floor: Window,
    pub(super) rows: Vec<UsageRow>,
}

/// [`OpenRows`], summed up by department.
#[derive(Clone, Debug)]
pub(super) struct OpenUse {
    pub(super) epoch: u32,
    /// See [`OpenRows::floor`].
    pub(super) floor: Window,
    pub(super) sums: BTreeMap<(Window, Name), UseSums>,
}

/// What has been seen of one epoch's tally, and what it sums up to.
#[derive(Debug, Default)]
pub(super) struct Fold {
    series: Vec<SeriesNames>,
    /// By the numbers of department, subsystem and command in `names`.
    numbers: HashMap<[u32; 3], SeriesId, foldhash::fast::RandomState>,
    /// Each name once, and its number: a department stands in as many series as it has commands.
    names: HashMap<Name, u32>,
    /// The series whose names stand in the slot at a position. Such a slot keeps them as long as its tally lives.
    named: HashMap<u32, SeriesId, foldhash::fast::RandomState>,
    saved_series: usize,
    sums: Vec<PackedSums>,
    /// Slots as they were seen last, by position.
    seen: Vec<SparseRow>,
    floor: Window,
    rows: BTreeMap<RowKey, PackedRow>,
    changed: BTreeSet<RowKey>,
    /// What the slots seen so far have counted, to be held against what the workers say.
    counted: Counted,
    /// Slots on which commands are in flight, by position.
    flying: BTreeMap<usize, SeriesId>,
}

impl SeriesNames {
    /// Reads the names out of a series' slot.
    pub(super) fn of(words: &Words) -> Option<Self> {
        let holds_names = words.kind() == Kind::Series;
        let name = |number| words.name(number);
        holds_names.then(|| Some(Self { department: name(0)?, subsystem: name(1)?, command: name(2)? })).flatten()
    }
}

impl PackedRow {
    fn add(&mut self, growth: &Row) {
        let mut row = self.unpack();
        row.add(growth);
        self.0.store(&row.numbers());
    }

    fn unpack(&self) -> Row {
        Row::of_numbers(&self.0.load())
    }
}

/// Numbers of an outcome in a row.
const OUTCOME_NUMBERS: usize = 5;
/// Where a row's numbers of outcomes begin, behind those of admissions; and its refusals, behind those of outcomes.
const FINISHED: usize = 6;
const REFUSED: usize = FINISHED + Finished::ALL.len() * OUTCOME_NUMBERS;
const _: () = assert!(REFUSED + Refused::ALL.len() <= NUMBERS, "a row fits");

impl Row {
    fn numbers(&self) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        let Self { admitted, units, ended, charged, .. } = self;
        let beginning = [*admitted, *units, ended.commands, ended.units, charged.commands, charged.units];
        numbers[..FINISHED].copy_from_slice(&beginning);
        for (totals, place) in self.finished.iter().zip(numbers[FINISHED..].as_chunks_mut::<OUTCOME_NUMBERS>().0) {
            let OutcomeTotals { commands, units, request_bytes, response_bytes, duration_ns } = *totals;
            *place = [commands, units, request_bytes, response_bytes, duration_ns];
        }
        numbers[REFUSED..REFUSED + Refused::ALL.len()].copy_from_slice(&self.refused);
        numbers
    }

    fn of_numbers(numbers: &[u64; NUMBERS]) -> Self {
        let charge = |at: usize| Charge { commands: numbers[at], units: numbers[at + 1] };
        let (ended, charged) = (charge(2), charge(4));
        let mut row = Self { admitted: numbers[0], units: numbers[1], ended, charged, ..Self::default() };
        for (totals, place) in row.finished.iter_mut().zip(numbers[FINISHED..].as_chunks::<OUTCOME_NUMBERS>().0) {
            let [commands, units, request_bytes, response_bytes, duration_ns] = *place;
            *totals = OutcomeTotals { commands, units, request_bytes, response_bytes, duration_ns };
        }
        row.refused.copy_from_slice(&numbers[REFUSED..REFUSED + Refused::ALL.len()]);
        row
    }

    /// What a slot counted between two looks at it.
    fn growth(before: &Words, now: &Words) -> Self {
        let (mut growth, units_each) = (Self::default(), now.units_each());
        growth.admitted = now.0[word::ADMITTED].saturating_sub(before.0[word::ADMITTED]);
        growth.units = growth.admitted.saturating_mul(units_each);
        for finished in Finished::ALL {
            let record = difference(before.finished(finished), now.finished(finished));
            let charged = now.charged(finished).saturating_sub(before.charged(finished));
            growth.add_record(finished, record, (charged, units_each));
        }
        for refused in Refused::ALL {
            growth.refused[refused.index()] = now.refused(refused).saturating_sub(before.refused(refused));
        }
        growth
    }

    /// Adds another row's sums.
    fn add(&mut self, more: &Self) {
        self.admitted = self.admitted.saturating_add(more.admitted);
        self.units = self.units.saturating_add(more.units);
        self.ended.add(more.ended.commands, more.ended.units);
        self.charged.add(more.charged.commands, more.charged.units);
        self.finished.iter_mut().zip(&more.finished).for_each(|(sum, more)| sum.add(more));
        self.refused.iter_mut().zip(&more.refused).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
    }

    /// Adds commands that ended so, `charged` of which cost `units_each`.
    fn add_record(&mut self, finished: Finished, record: Record, (charged, units_each): (u64, u64)) {
        let units = charged.saturating_mul(units_each);
        let Record { commands, request_bytes, response_bytes, duration_ns } = record;
        let totals = OutcomeTotals { commands, units, request_bytes, response_bytes, duration_ns };
        self.finished[finished.index()].add(&totals);
        self.ended.add(commands, commands.saturating_mul(units_each));
        self.charged.add(charged, units);
    }

    /// Commands that cost no units, and the units they would have cost.
    pub(super) fn waived(&self) -> Charge {
        Charge {
            commands: self.ended.commands.saturating_sub(self.charged.commands),
            units: self.ended.units.saturating_sub(self.charged.units),
        }
    }

    /// The outcomes that have commands, with their sums.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (Outcome, OutcomeTotals)> + '_ {
        let finished = Finished::ALL.into_iter().map(|one| (Outcome::Finished(one), self.finished[one.index()]));
        let refused = Refused::ALL.into_iter().map(|one| {
            let commands = self.refused[one.index()];
            (Outcome::Refused(one), OutcomeTotals { commands, ..OutcomeTotals::default() })
        });
        finished.chain(refused).filter(|(_, totals)| *totals != OutcomeTotals::default())
    }

    /// Adds what was admitted.
    pub(super) fn add_admitted(&mut self, totals: &OutcomeTotals) {
        self.admitted = self.admitted.saturating_add(totals.commands);
        self.units = self.units.saturating_add(totals.units);
    }

    /// Adds the sums of one outcome, as the book has them.
    pub(super) fn add_outcome(&mut self, outcome: Outcome, totals: &OutcomeTotals) {
        match outcome {
            Outcome::Finished(finished) => {
                self.finished[finished.index()].add(totals);
                self.ended.add(totals.commands, totals.units);
                self.charged.add(totals.commands, totals.units);
            }
            Outcome::Refused(refused) => {
                let sum = &mut self.refused[refused.index()];
                *sum = sum.saturating_add(totals.commands);
            }
        }
    }
}

fn difference(before: Record, now: Record) -> Record {
    Record {
        commands: now.commands.saturating_sub(before.commands),
        request_bytes: now.request_bytes.saturating_sub(before.request_bytes),
        response_bytes: now.response_bytes.saturating_sub(before.response_bytes),
        duration_ns: now.duration_ns.saturating_sub(before.duration_ns),
    }
}

fn add_records(one: Record, other: Record) -> Record {
    Record {
        commands: one.commands.saturating_add(other.commands),
        request_bytes: one.request_bytes.saturating_add(other.request_bytes),
        response_bytes: one.response_bytes.saturating_add(other.response_bytes),
        duration_ns: one.duration_ns.saturating_add(other.duration_ns),
    }
}

impl Fold {
    /// Starts from the series the book knows, each with its sums over all epochs; windows before `floor` are sealed.
    pub(super) fn new(known: Vec<(SeriesNames, Row)>, floor: Window) -> Self {
        let mut fold = Self { floor, ..Self::default() };
        for (names, row) in known {
            let SeriesId(number) = fold.number_of(names);
            fold.sums[number as usize].store(&SeriesSums::of_book(&row));
        }
        fold.saved_series = fold.series.len();
        fold
    }

    /// Takes in a slot as it is now; whether that could be done. `names_at` reads the slot that holds a series' names.
    pub(super) fn absorb(
        &mut self,
        position: usize,
        now: &Words,
        names_at: impl Fn(u32) -> Option<SeriesNames>,
    ) -> bool {
        if self.seen.len() <= position {
            self.seen.resize(position + 1, SparseRow::default());
        }
        if now.kind() != Kind::Count {
            self.seen[position] = SparseRow::default();
            return true;
        }
        if self.seen[position].holds(&now.0) {
            return true;
        }
        let Some(series) = self.number_at(now.series(), names_at) else { return false }; // looked at again next time
        let mut before = Words(self.seen[position].load());
        self.seen[position].store(&now.0);
        if before.state() != now.state() {
            before = Words::EMPTY; // the slot's last use has nothing to do with this one
        }
        match now.in_flight(0).commands {
            0 => self.flying.remove(&position),
            _ => self.flying.insert(position, series),
        };
        self.counted.add_slot(&before, now);
        self.add(series, &before, now);
        true
    }

    /// What all slots together have counted, as far as they have been seen.
    pub(super) fn counted(&self) -> &Counted {
        &self.counted
    }

    /// What has not ended by the moment `now_ns`, by window of admission and series.
    pub(super) fn in_flight(&self, now_ns: u64) -> BTreeMap<(Window, SeriesId), Flying> {
        let mut sums: BTreeMap<_, Flying> = BTreeMap::new();
        for (words, series) in self.flying.iter().filter_map(|(at, series)| Some((self.seen.get(*at)?, series))) {
            let words = Words(words.load());
            let record = words.in_flight(now_ns);
            let sum = sums.entry((words.window(), *series)).or_default();
            sum.units = sum.units.saturating_add(record.commands.saturating_mul(words.units_each()));
            sum.record = add_records(sum.record, record);
        }
        sums
    }

    fn add(&mut self, series: SeriesId, before: &Words, now: &Words) {
        let growth = Row::growth(before, now);
        let grown = |at: usize| now.0[at].saturating_sub(before.0[at]);
        let bytes = (grown(word::REQUEST_BYTES), grown(word::RESPONSE_BYTES));
        self.add_to_series(series, &growth, bytes);
        if now.window() < self.floor {
            return; // a sealed window's slot, which only its last streams still move
        }
        self.add_to_row(RowKey { window: now.window(), series, late: now.late() }, &growth);
    }

    fn add_to_series(&mut self, series: SeriesId, growth: &Row, (request_bytes, response_bytes): (u64, u64)) {
        let packed = &mut self.sums[series.0 as usize];
        let mut sums = packed.load();
        sums.add(growth);
        sums.add_bytes(request_bytes, response_bytes);
        packed.store(&sums);
    }

    /// A row that does not grow is there, and is not written again.
    fn add_to_row(&mut self, key: RowKey, growth: &Row) {
        let row = self.rows.entry(key).or_default();
        if *growth != Row::default() {
            row.add(growth);
            self.changed.insert(key);
        }
    }

    /// Ends what is in flight: it becomes `interrupted` in the window of its admission, or in `instead` if that is
    /// sealed. To be called once, at the end of an epoch: then the ends alone say what has ended, whatever pages of the
    /// tally a disk has kept ([`Words::unended`]).
    pub(super) fn interrupt(&mut self, instead: Window, now_ns: u64, names_at: impl Fn(u32) -> Option<SeriesNames>) {
        let seen = std::mem::take(&mut self.seen);
        self.flying.clear();
        let seen = || seen.iter().map(|words| Words(words.load()));
        let late = late_ends(seen());
        for words in seen().filter(|words| words.kind() == Kind::Count && words.of().is_none()) {
            let rest = words.unended(late.get(&words.origin()).copied().unwrap_or_default(), now_ns);
            if rest.commands == 0 {
                continue;
            }
            let Some(series) = self.number_at(words.series(), &names_at) else { continue };
            let window = if words.window() < self.floor { instead } else { words.window() };
            let key = RowKey { window, series, late: window.0.saturating_sub(words.window().0) };
            let mut growth = Row::default();
            growth.add_record(Finished::Interrupted, rest, (rest.commands, words.units_each()));
            self.add_to_row(key, &growth);
            self.add_to_series(series, &growth, (0, 0));
        }
    }

    /// The series the book does not know yet.
    pub(super) fn new_series(&self) -> impl Iterator<Item = (SeriesId, &SeriesNames)> {
        let numbered = self.series.iter().enumerate().skip(self.saved_series);
        numbered.map(|(number, names)| (SeriesId(u32::try_from(number).unwrap_or(u32::MAX)), names))
    }

    /// The rows that changed since the last [`Fold::saved`].
    pub(super) fn changed_rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        self.changed.iter().filter_map(|key| self.rows.get(key).map(|row| (*key, row.unpack())))
    }

    /// All rows of windows before `window` that the book has not sealed.
    pub(super) fn rows_before(&self, window: Window) -> impl Iterator<Item = (RowKey, Row)> {
        self.rows.range(..RowKey::first_of(window)).map(|(key, row)| (*key, row.unpack()))
    }

    /// Every series, in the order of its number.
    pub(super) fn all_series(&self) -> impl Iterator<Item = (SeriesId, &SeriesNames)> {
        (0..).map(SeriesId).zip(&self.series)
    }

    /// Everything is in the book, and windows before `sealed` are sealed there.
    pub(super) fn saved(&mut self, sealed: Window) {
        self.saved_series = self.series.len();
        self.changed.clear();
        self.floor = self.floor.max(sealed);
        self.rows = self.rows.split_off(&RowKey::first_of(self.floor));
    }

    /// The rows of windows that are not sealed.
    pub(super) fn open_rows(&self, epoch: u32) -> OpenRows {
        OpenRows { epoch, floor: self.floor, rows: self.usage(Window(0)..Window(u32::MAX)) }
    }

    /// The rows of windows that are not sealed, summed up by department: a hundredth of the memory.
    pub(super) fn open_use(&self, epoch: u32) -> OpenUse {
        let mut sums: BTreeMap<_, UseSums> = BTreeMap::new();
        for (key, row) in &self.rows {
            let Some(names) = self.names(key.series) else { continue };
            let sum = sums.entry((key.window, names.department.clone())).or_default();
            row.unpack().outcomes().for_each(|(_, totals)| sum.add(totals.commands, totals.units));
        }
        OpenUse { epoch, floor: self.floor, sums }
    }

    /// The rows of unsealed windows in a range.
    pub(super) fn usage(&self, windows: Range<Window>) -> Vec<UsageRow> {
        let keys = RowKey::first_of(windows.start)..RowKey::first_of(windows.end);
        let mut usage = Vec::new();
        for (key, row) in self.rows.range(keys) {
            let Some(names) = self.names(key.series) else { continue };
            usage.extend(row.unpack().outcomes().map(|one| usage_row(key.window, names, one)));
        }
        usage
    }

    /// The sums of every series since the ledger began.
    pub(super) fn totals(&self) -> Vec<SeriesTotals> {
        self.series.iter().zip(&self.sums).map(|(names, sums)| sums.load().named(names)).collect()
    }

    /// The names of a series.
    pub(super) fn names(&self, series: SeriesId) -> Option<&SeriesNames> {
        self.series.get(series.0 as usize)
    }

    fn number_at(&mut self, position: u32, names_at: impl Fn(u32) -> Option<SeriesNames>) -> Option<SeriesId> {
        if let Some(series) = self.named.get(&position) {
            return Some(*series);
        }
        let series = self.number_of(names_at(position)?);
        self.named.insert(position, series);
        Some(series)
    }

    fn number_of(&mut self, names: SeriesNames) -> SeriesId {
        let SeriesNames { department, subsystem, command } = names;
        let [department, subsystem, command] = [department, subsystem, command].map(|name| self.interned(name));
        let key = [department.1, subsystem.1, command.1];
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = SeriesId(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        self.numbers.insert(key, number);
        self.series.push(SeriesNames { department: department.0, subsystem: subsystem.0, command: command.0 });
        self.sums.push(PackedSums::default());
        number
    }

    /// The one copy of a name, and its number.
    fn interned(&mut self, name: Name) -> (Name, u32) {
        if let Some((known, number)) = self.names.get_key_value(&name) {
            return (known.clone(), *number);
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.insert(name.clone(), number);
        (name, number)
    }
}

/// What ended late, by the slot in which it was admitted.
pub(super) fn late_ends(slots: impl Iterator<Item = Words>) -> HashMap<Origin, Moved> {
    let mut ends: HashMap<_, Moved> = HashMap::new();
    for words in slots.filter(|words| words.kind() == Kind::Count && words.of().is_some()) {
        let (ended, sum) = (words.ended(), ends.entry(words.origin()).or_default());
        *sum = Moved {
            commands: sum.commands.saturating_add(ended.commands),
            request_bytes: sum.request_bytes.saturating_add(ended.request_bytes),
            response_bytes: sum.response_bytes.saturating_add(ended.response_bytes),
        };
    }
    ends
}

fn usage_row(window: Window, names: &SeriesNames, (outcome, totals): (Outcome, OutcomeTotals)) -> UsageRow {
    UsageRow {
        window,
        department: names.department.clone(),
        subsystem: names.subsystem.clone(),
        command: names.command.clone(),
        outcome,
        totals,
    }
}

/// Adds up rows of the same window, series and outcome; the result is in that order.
pub(super) fn sum_rows(rows: impl IntoIterator<Item = UsageRow>) -> Vec<UsageRow> {
    let mut sums: BTreeMap<(Window, SeriesNames, Outcome), OutcomeTotals> = BTreeMap::new();
    for row in rows {
        let names = SeriesNames { department: row.department, subsystem: row.subsystem, command: row.command };
        sums.entry((row.window, names, row.outcome)).or_default().add(&row.totals);
    }
    sums.into_iter().map(|((window, names, outcome), totals)| usage_row(window, &names, (outcome, totals))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::slot::pair;

    const NOON: Window = Window(1000);

    fn names(_: u32) -> Option<SeriesNames> {
        let name = |text| Name::parse(text).expect("a name");
        Some(SeriesNames { department: name("police"), subsystem: name("cameras"), command: name("read") })
    }

    fn slot(generation: u64, window: Window, set: &[(usize, u64)]) -> Words {
        let mut words = Words::EMPTY;
        words.0[word::STATE] = Kind::Count as u64 | generation << 32;
        words.0[word::WHERE] = pair(window.0, 7);
        words.0[word::UNITS_EACH] = 3;
        set.iter().for_each(|(at, value)| words.0[*at] = *value);
        words
    }

    #[test]
    fn a_row_that_was_packed_says_the_same() {
        let numbers = std::array::from_fn(|at| if at < REFUSED + Refused::ALL.len() { at as u64 + 1 } else { 0 });
        let row = Row::of_numbers(&numbers);
        assert_eq!(row.numbers(), numbers);
        assert_eq!((row.admitted, row.units, row.finished[0].commands, row.refused[0]), (1, 2, 7, 47));
        let mut packed = PackedRow::default();
        packed.add(&Row::default());
        assert_eq!(packed.unpack(), Row::default());
        packed.add(&row);
        assert_eq!(packed.unpack(), row);
    }

    fn all(fold: &Fold) -> Vec<(Window, &'static str, u64, u64)> {
        let rows = fold.usage(Window(0)..Window(u32::MAX));
        rows.iter().map(|row| (row.window, row.outcome.name(), row.totals.commands, row.totals.units)).collect()
    }

    #[test]
    fn a_slot_seen_twice_counts_once_and_one_that_grew_counts_what_it_grew() {
        let mut fold = Fold::default();
        for count in [2, 2, 5] {
            fold.absorb(9, &slot(1, NOON, &[(word::ADMITTED, count), (word::FINISHED, count)]), names);
        }
        assert_eq!(all(&fold), [(NOON, "ok", 5, 15)]);
        assert_eq!((fold.totals()[0].admitted, fold.totals()[0].units), (5, 15));
    }

    #[test]
    fn a_slot_in_its_second_use_counts_from_nothing() {
        let mut fold = Fold::default();
        fold.absorb(9, &slot(1, NOON, &[(word::REFUSED, 5)]), names);
        fold.absorb(9, &slot(2, NOON.next(), &[(word::REFUSED, 2)]), names);
        assert_eq!(all(&fold), [(NOON, "malformed", 5, 0), (NOON.next(), "malformed", 2, 0)]);
    }

    #[test]
    fn slots_of_two_workers_make_one_row() {
        let mut fold = Fold::default();
        fold.absorb(9, &slot(1, NOON, &[(word::FINISHED, 5)]), names);
        fold.absorb(99, &slot(1, NOON, &[(word::FINISHED, 2)]), names);
        assert_eq!(all(&fold), [(NOON, "ok", 7, 21)]);
    }

    #[test]
    fn only_changed_rows_are_written_and_sealed_ones_never_again() {
        let mut fold = Fold::default();
        fold.absorb(9, &slot(1, NOON, &[(word::FINISHED, 5)]), names);
        assert_eq!((fold.new_series().count(), fold.changed_rows().count()), (1, 1));
        fold.saved(Window(0));
        assert_eq!((fold.new_series().count(), fold.changed_rows().count()), (0, 0));
        fold.saved(NOON.next());
        fold.absorb(9, &slot(1, NOON, &[(word::FINISHED, 5), (word::RESPONSE_BYTES, 4), (word::LATE_OUT, 1)]), names);
        assert_eq!((fold.changed_rows().count(), all(&fold).len()), (0, 0));
        assert_eq!(fold.totals()[0].response_bytes, 4, "bytes of a stream still count");
    }

    #[test]
    fn what_was_in_flight_is_interrupted_in_its_own_window_unless_that_is_sealed() {
        let evening = Window(NOON.0 + 6);
        for (floor, expected) in [(Window(0), NOON), (NOON.next(), evening)] {
            let mut fold = Fold::new(Vec::new(), floor);
            fold.absorb(9, &slot(1, NOON, &[(word::ADMITTED, 5), (word::FINISHED + 4, 3)]), names);
            fold.interrupt(evening, 0, names);
            assert!(all(&fold).contains(&(expected, "interrupted", 2, 6)), "{:?}", all(&fold));
            assert_eq!(fold.totals()[0].in_flight(), 0);
        }
    }
}
