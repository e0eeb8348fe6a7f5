//! A worker's slots: which one counts what, which are free, which rest until their window is done with.
//!
//! Guarantees: a slot goes from one use to the next only when its window is sealed and in the book, nothing is in flight
//! on it, and the keeper has seen its last change and carried it to the disk; a slot of late ends only after the slot of
//! their admissions. One slot is always kept for refusals.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::mpsc;

use super::counting::Place;
use super::slot::{Kind, Slot, pair, set_text, word};
use super::tally::Segment;
use crate::model::{CommandKey, Department, Window};

/// A command to be counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    pub(super) department: &'a Department,
    pub(super) command: &'a CommandKey,
    pub(super) window: Window,
}

impl Sought<'_> {
    /// The key of the series within this process.
    pub(super) fn series(&self) -> u64 {
        pair(self.department.number, self.command.number)
    }

    fn part(&self, units_each: u64) -> Part {
        Part { window: self.window, units_each, of: None }
    }
}

/// The series of what has no name.
const UNKNOWN: u64 = 0;

/// What of its series a slot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) window: Window,
    pub(super) units_each: u64,
    /// Where they were admitted, if the slot counts ends of commands of an earlier window.
    pub(super) of: Option<Origin>,
}

/// The slot of an earlier window in which commands were admitted that end late. What is in flight there is told by the slots
/// of late ends after a loss of power, so these stay as long as that one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    place: Place,
    window: Window,
    /// Its state as long as it counts for that window.
    state: u64,
}

impl Origin {
    pub(super) fn new(place: Place, window: Window) -> Self {
        Self { place, window, state: place.slot.get(word::STATE) }
    }

    /// Whether the slot has been given back.
    fn is_gone(&self) -> bool {
        self.place.slot.get(word::STATE) != self.state
    }
}

/// A slot that counts.
#[derive(Clone, Copy, Debug)]
struct Counting {
    place: Place,
    part: Part,
}

/// The slot that counts a series now. Most series have no other, so it is kept small: there is one for each.
#[derive(Clone, Copy, Debug)]
struct Present {
    place: Place,
    window: Window,
    units_each: u64,
}

impl Present {
    fn part(&self) -> Part {
        Part { window: self.window, units_each: self.units_each, of: None }
    }

    fn counting(self) -> Counting {
        Counting { place: self.place, part: self.part() }
    }
}

/// A series and the slots that count it.
#[derive(Debug)]
struct Series {
    /// Position of the slot with its names.
    names: u32,
    /// Units of the last admission; a refusal shares that slot.
    units_each: u64,
    /// Where the next admission is likely to be counted; never a slot of late ends.
    present: Option<Present>,
    others: Vec<Counting>,
}

/// A slot of a sealed window.
#[derive(Debug)]
struct Resting {
    counting: Counting,
    /// The number of folds when nothing was in flight on it any more.
    idle_since: Option<u64>,
}

/// All slots of one worker.
#[derive(Debug)]
pub(super) struct Shelf {
    series: HashMap<u64, Series, foldhash::fast::RandomState>,
    /// The last is the first in the file: what is in use lies close together, on few pages for a sync to carry. Scattered
    /// slots cost a quarter of all time in `loadtests year` (2026-11-25).
    free: Vec<Place>,
    /// Kept for refusals when nothing else is free.
    reserve: Option<Place>,
    resting: Vec<Resting>,
    arriving: mpsc::Receiver<Segment>,
    /// The position of each segment's first slot, the worker's own, and that slot.
    segments: Vec<Place>,
    owned: u32,
    segment_slots: usize,
    tidied: Window,
    /// The number of folds at the last look at what rests.
    looked: u64,
    newest: Window,
    used_in_newest: u32,
    used_before: u32,
    /// Whether the keeper has been asked for more since the last arrival.
    pub(super) asked: Cell<bool>,
}

impl Shelf {
    pub(super) fn new(first: Segment, arriving: mpsc::Receiver<Segment>) -> Self {
        let mut shelf = Self {
            series: HashMap::default(),
            free: Vec::new(),
            reserve: None,
            resting: Vec::new(),
            arriving,
            segments: Vec::new(),
            owned: 0,
            segment_slots: first.slots.len(),
            tidied: Window(0),
            looked: 0,
            newest: Window(0),
            used_in_newest: 0,
            used_before: 0,
            asked: Cell::new(false),
        };
        shelf.add(&first);
        let (department, command) = (Department::unknown(), CommandKey::unknown());
        shelf.name(&Sought { department: &department, command: &command, window: Window(0) });
        shelf
    }

    /// The slot in use for a command, if it is the present one of its series.
    #[inline]
    pub(super) fn find(&self, sought: &Sought<'_>, units_each: u64) -> Option<Place> {
        let present = self.series.get(&sought.series())?.present.as_ref()?;
        (present.window == sought.window && present.units_each == units_each).then_some(present.place)
    }

    /// A slot for a command, a new one if need be; nothing if none is free.
    pub(super) fn take(&mut self, sought: &Sought<'_>, units_each: u64) -> Option<Place> {
        self.take_arrivals();
        self.name(sought)?;
        self.take_again(sought.series(), sought.part(units_each))
    }

    /// A slot for a series that has its name already.
    pub(super) fn take_again(&mut self, series: u64, part: Part) -> Option<Place> {
        if let Some(place) = self.series.get(&series)?.place_of(part) {
            return Some(place);
        }
        let place = self.free.pop()?;
        self.count_use(part.window);
        self.begin(place, series, part);
        Some(place)
    }

    /// A slot to count a refusal in: the command's own, or the one of what has no name.
    pub(super) fn refusing(&mut self, sought: &Sought<'_>, sealing: Window) -> Option<&'static Slot> {
        let series = self.series.get(&sought.series());
        let units_each = series.map_or(1, |series| series.units_each);
        let place = series.and_then(|series| series.place_of(sought.part(units_each)));
        let place = place.or_else(|| self.take(sought, units_each));
        place.map(|place| place.slot).or_else(|| self.refusing_unnamed(sought.window, sealing))
    }

    fn refusing_unnamed(&mut self, window: Window, sealing: Window) -> Option<&'static Slot> {
        let unknown = self.series.get(&UNKNOWN)?;
        let present = unknown.present.filter(|present| present.window >= sealing);
        if let Some(present) = present {
            return Some(present.place.slot); // perhaps an hour early: better than not at all
        }
        let place = self.reserve.take()?;
        self.begin(place, UNKNOWN, Part { window, units_each: 1, of: None });
        Some(place.slot)
    }

    /// Whether a refusal is sure to find a slot that is not of a window before `window`.
    pub(super) fn can_refuse_from(&self, window: Window) -> bool {
        let present = self.series.get(&UNKNOWN).and_then(|unknown| unknown.present);
        self.reserve.is_some() || present.is_some_and(|present| present.window >= window)
    }

    /// Takes what the keeper has made.
    pub(super) fn take_arrivals(&mut self) {
        while let Ok(segment) = self.arriving.try_recv() {
            self.add(&segment);
            self.asked.set(false);
        }
    }

    /// Gives slots of windows before `sealed` back when they are done with. What rests is looked at once in each fold.
    pub(super) fn tidy(&mut self, sealed: Window, folds: u64) {
        if sealed > self.tidied {
            self.tidied = sealed;
            let done = self.series.values_mut().flat_map(|series| series.leave(sealed));
            self.resting.extend(done.map(|counting| Resting { counting, idle_since: None }));
        }
        if folds > self.looked {
            self.looked = folds;
            let rested: Vec<_> = self.resting.extract_if(.., |slot| slot.has_rested(folds)).collect();
            for Resting { counting, .. } in &rested {
                counting.place.slot.end();
            }
            self.free_again(rested.into_iter().map(|slot| slot.counting.place));
            self.resting.iter_mut().for_each(|slot| slot.look(folds));
        }
        self.fill_reserve();
    }

    fn free_again(&mut self, places: impl Iterator<Item = Place>) {
        self.free.extend(places);
        self.free.sort_by_key(|place| Reverse(place.position));
    }

    /// Slots that are in use or kept.
    pub(super) fn occupied(&self) -> u32 {
        self.owned.saturating_sub(count(self.free.len()))
    }

    /// Slots that an hour needs, by this one and the last.
    pub(super) fn in_window(&self) -> u32 {
        self.used_in_newest.max(self.used_before)
    }

    /// Whether the keeper should make more at once.
    pub(super) fn is_short(&self) -> bool {
        self.free.len() < self.segment_slots / 4
    }

    fn add(&mut self, segment: &Segment) {
        let mut places = (segment.first..).zip(segment.slots).map(|(position, slot)| Place { position, slot });
        self.segments.extend(places.next()); // the first is the worker's own
        self.free_again(places);
        self.owned += count(segment.slots.len());
        self.fill_reserve();
    }

    /// Notes in the segment's first slot how far the segment has been used. The keeper looks no further, so that pages
    /// which nobody has used stay out of memory.
    fn note_use(&self, position: u32) {
        let segment = self.segments.iter().rev().find(|own| own.position <= position);
        let Some(Place { position: first, slot: own }) = segment else { return };
        let used = u64::from(position - first + 1);
        own.set(word::USED, own.get(word::USED).max(used));
    }

    fn fill_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.free.pop();
        }
    }

    /// Writes the names of a series that is new, if there is room for its first count too.
    fn name(&mut self, sought: &Sought<'_>) -> Option<()> {
        if self.series.contains_key(&sought.series()) {
            return Some(());
        }
        if self.free.len() < 2 {
            return None;
        }
        let Place { position: names, slot } = self.free.pop()?;
        self.note_use(names);
        let texts = [&sought.department.id, &sought.command.subsystem, &sought.command.command];
        slot.begin(Kind::Series, |slot| {
            for (number, name) in texts.into_iter().enumerate() {
                set_text(slot, word::NAMES + number * word::NAME_WORDS, word::NAME_WORDS, name.as_str());
            }
        });
        let series = Series { names, units_each: 1, present: None, others: Vec::new() };
        self.series.insert(sought.series(), series);
        Some(())
    }

    fn begin(&mut self, place: Place, key: u64, part: Part) {
        self.note_use(place.position);
        let Some(series) = self.series.get_mut(&key) else { return };
        place.slot.begin(Kind::Count, |slot| {
            slot.set(word::WHERE, pair(part.window.0, series.names));
            slot.set(word::UNITS_EACH, part.units_each);
            slot.set(word::OF, part.of.map_or(0, |of| u64::from(of.window.0)));
        });
        if part.of.is_some() {
            return series.others.push(Counting { place, part });
        }
        let present = Present { place, window: part.window, units_each: part.units_each };
        series.others.extend(series.present.replace(present).map(Present::counting));
        series.units_each = part.units_each;
    }

    fn count_use(&mut self, window: Window) {
        if window > self.newest {
            self.newest = window;
            self.used_before = std::mem::take(&mut self.used_in_newest);
        }
        self.used_in_newest += 1;
    }
}

#[cfg(test)]
impl Shelf {
    /// Whether a new series, or a new window of one, may find no slot.
    pub(super) fn is_tight(&self) -> bool {
        self.free.len() < 2
    }

    /// The window of the slot that counts what has no name.
    pub(super) fn unnamed(&self) -> Option<Window> {
        self.series.get(&UNKNOWN)?.present.map(|present| present.window)
    }
}

impl Series {
    fn place_of(&self, part: Part) -> Option<Place> {
        let mut all = self.present.map(Present::counting).into_iter().chain(self.others.iter().copied());
        all.find(|one| one.part == part).map(|one| one.place)
    }

    /// Lets go of the slots of windows before `sealed`.
    fn leave(&mut self, sealed: Window) -> Vec<Counting> {
        let present = self.present.take_if(|present| present.window < sealed).map(Present::counting);
        let (left, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.others).into_iter().partition(|one| one.part.window < sealed);
        self.others = kept;
        left.into_iter().chain(present).collect()
    }
}

impl Resting {
    /// Two folds on, one of them has begun after the last change and has brought it into the book.
    fn has_rested(&self, folds: u64) -> bool {
        self.idle_since.is_some_and(|since| folds >= since + 2)
    }

    fn look(&mut self, folds: u64) {
        let Counting { place, part } = self.counting;
        let idle = || place.slot.words().is_some_and(|words| words.in_flight(0).commands == 0);
        if self.idle_since.is_none() && part.of.is_none_or(|of| of.is_gone()) && idle() {
            self.idle_since = Some(folds);
        }
    }
}

fn count(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}
