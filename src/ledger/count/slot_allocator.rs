//! Allocates a worker's slots: slots in use, free slots, and quarantined slots of sealed windows.
//!
//! Guarantees:
//! - A slot is reused only when its window is sealed and in the book, and nothing is in flight on the slot.
//! - A slot is reused only after the keeper has read the slot's last change and synced it to the disk.
//! - A slot of late ends is reused only after the slot that counted the admissions.
//! - One slot is always reserved for refusals.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::mpsc;

use crate::ledger::tally::file::SlotSegment;
use crate::ledger::tally::slot::{Slot, SlotKind, offset, pack_halves, write_text};
use crate::ledger::tally::stores::SlotRef;
use crate::model::{CommandKey, Department, Window};

/// A command to be counted: its department, name and window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesRef<'a> {
    pub(crate) department: &'a Department,
    pub(crate) command: &'a CommandKey,
    pub(crate) window: Window,
}

impl SeriesRef<'_> {
    /// Returns the key of the series, unique within this process.
    pub(crate) fn series_number(&self) -> u64 {
        pack_halves(self.department.number, self.command.number)
    }

    fn slot_key(&self, units_each: u64) -> SlotKey {
        SlotKey { window: self.window, units_each, admission: None }
    }
}

/// The series of commands without a name.
const UNNAMED_SERIES: u64 = 0;

/// The part of a series that a slot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotKey {
    pub(crate) window: Window,
    pub(crate) units_each: u64,
    /// The slot of admission, if the slot counts ends of commands of an earlier window.
    pub(crate) admission: Option<AdmissionSlot>,
}

/// The slot of an earlier window that counted the admission of commands which end late. After a loss of power, the
/// slots of late ends show which commands of that slot are still in flight. So slots of late ends live at least as long
/// as that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AdmissionSlot {
    slot_ref: SlotRef,
    window: Window,
    /// The slot's state word while the slot counts for that window.
    state: u64,
}

impl AdmissionSlot {
    pub(crate) fn new(slot_ref: SlotRef, window: Window) -> Self {
        Self { slot_ref, window, state: slot_ref.slot.get(offset::STATE) }
    }

    /// Returns whether the slot has been released.
    fn is_gone(&self) -> bool {
        self.slot_ref.slot.get(offset::STATE) != self.state
    }
}

/// A slot in use, and the part of its series that it counts.
#[derive(Clone, Copy, Debug)]
struct CountingSlot {
    slot_ref: SlotRef,
    key: SlotKey,
}

/// The slot that counts a series now. There is one per series, and most series have no other slot, so the type is kept
/// small.
#[derive(Clone, Copy, Debug)]
struct CurrentSlot {
    slot_ref: SlotRef,
    window: Window,
    units_each: u64,
}

impl CurrentSlot {
    fn part(&self) -> SlotKey {
        SlotKey { window: self.window, units_each: self.units_each, admission: None }
    }

    fn counting(self) -> CountingSlot {
        CountingSlot { slot_ref: self.slot_ref, key: self.part() }
    }
}

/// A series and the slots that count it.
#[derive(Debug)]
struct SeriesSlots {
    /// The position of the slot with the series' names.
    name_slot: u32,
    /// The units of the last admission; a refusal uses the same slot.
    units_each: u64,
    /// The slot that probably counts the next admission; never a slot of late ends.
    current: Option<CurrentSlot>,
    older: Vec<CountingSlot>,
}

/// A slot of a sealed window, waiting for its reuse.
#[derive(Debug)]
struct QuarantinedSlot {
    counting: CountingSlot,
    /// The number of folds at the first check that found nothing in flight on the slot.
    idle_since: Option<u64>,
}

/// All slots of one worker.
#[derive(Debug)]
pub(crate) struct SlotAllocator {
    series: HashMap<u64, SeriesSlots, foldhash::fast::RandomState>,
    /// Free slots in descending order: the last one is the first in the file. Slots in use thus lie close together, on
    /// few pages to sync. Scattered slots cost a quarter of all time in `loadtests year` (2026-11-25).
    free: Vec<SlotRef>,
    /// The slot reserved for refusals, used when no other slot is free.
    reserve: Option<SlotRef>,
    quarantined: Vec<QuarantinedSlot>,
    segment_receiver: mpsc::Receiver<SlotSegment>,
    /// The first slot of each segment, which is the worker's own, with its position.
    worker_slots: Vec<SlotRef>,
    owned_slots: u32,
    segment_slots: usize,
    reclaimed_before: Window,
    /// The number of folds at the last check of the quarantined slots.
    observed_folds: u64,
    newest_window: Window,
    /// Counting slots taken in the newest window, and in the window before.
    used_in_newest: u32,
    used_before: u32,
    /// Slots taken in the newest window for the names of new series.
    named_in_newest: u32,
    /// Whether a new segment has been requested from the keeper since the last one arrived.
    pub(crate) segment_requested: Cell<bool>,
}

impl SlotAllocator {
    pub(crate) fn new(first: SlotSegment, arriving: mpsc::Receiver<SlotSegment>) -> Self {
        let mut allocator = Self {
            series: HashMap::default(),
            free: Vec::new(),
            reserve: None,
            quarantined: Vec::new(),
            segment_receiver: arriving,
            worker_slots: Vec::new(),
            owned_slots: 0,
            segment_slots: first.slots.len(),
            reclaimed_before: Window(0),
            observed_folds: 0,
            newest_window: Window(0),
            used_in_newest: 0,
            used_before: 0,
            named_in_newest: 0,
            segment_requested: Cell::new(false),
        };
        allocator.add_segment(&first);
        let (department, command) = (Department::unknown(), CommandKey::unknown());
        allocator.write_names(&SeriesRef { department: &department, command: &command, window: Window(0) });
        allocator
    }

    /// Returns the slot in use for a command, if it is the current slot of the series.
    #[inline]
    pub(crate) fn find_current(&self, wanted: &SeriesRef<'_>, units_each: u64) -> Option<SlotRef> {
        let present = self.series.get(&wanted.series_number())?.current.as_ref()?;
        (present.window == wanted.window && present.units_each == units_each).then_some(present.slot_ref)
    }

    /// Returns a slot for a command, a new one if necessary; `None` if no slot is free.
    pub(crate) fn allocate(&mut self, wanted: &SeriesRef<'_>, units_each: u64) -> Option<SlotRef> {
        self.receive_segments();
        self.write_names(wanted)?;
        self.allocate_for_series(wanted.series_number(), wanted.slot_key(units_each))
    }

    /// Returns a slot for a series whose names are already written.
    pub(crate) fn allocate_for_series(&mut self, series: u64, slot_key: SlotKey) -> Option<SlotRef> {
        if let Some(slot_ref) = self.series.get(&series)?.slot_for(slot_key) {
            return Some(slot_ref);
        }
        let slot_ref = self.free.pop()?;
        self.enter_window(slot_key.window);
        self.used_in_newest += 1;
        self.begin_slot(slot_ref, series, slot_key);
        Some(slot_ref)
    }

    /// Returns a slot to count a refusal: the command's own, or the slot of commands without a name.
    pub(crate) fn slot_for_refusal(&mut self, wanted: &SeriesRef<'_>, sealing: Window) -> Option<&'static Slot> {
        let series = self.series.get(&wanted.series_number());
        let units_each = series.map_or(1, |series| series.units_each);
        let slot_ref = series.and_then(|series| series.slot_for(wanted.slot_key(units_each)));
        let slot_ref = slot_ref.or_else(|| self.allocate(wanted, units_each));
        slot_ref.map(|slot_ref| slot_ref.slot).or_else(|| self.unnamed_slot_for_refusal(wanted.window, sealing))
    }

    fn unnamed_slot_for_refusal(&mut self, window: Window, sealing: Window) -> Option<&'static Slot> {
        let unknown = self.series.get(&UNNAMED_SERIES)?;
        let present = unknown.current.filter(|present| present.window >= sealing);
        if let Some(present) = present {
            return Some(present.slot_ref.slot); // possibly an hour early: better than no count
        }
        let slot_ref = self.reserve.take()?;
        self.begin_slot(slot_ref, UNNAMED_SERIES, SlotKey { window, units_each: 1, admission: None });
        Some(slot_ref.slot)
    }

    /// Returns whether a refusal is sure to find a slot of `window` or of a later window.
    pub(crate) fn can_refuse_from(&self, window: Window) -> bool {
        let present = self.series.get(&UNNAMED_SERIES).and_then(|unknown| unknown.current);
        self.reserve.is_some() || present.is_some_and(|present| present.window >= window)
    }

    /// Receives segments that the keeper has added.
    pub(crate) fn receive_segments(&mut self) {
        while let Ok(segment) = self.segment_receiver.try_recv() {
            self.add_segment(&segment);
            self.segment_requested.set(false);
        }
    }

    /// Reclaims slots of windows before `sealed` that are no longer needed. Quarantined slots are checked once per
    /// fold.
    pub(crate) fn reclaim(&mut self, sealed: Window, folds: u64) {
        if sealed > self.reclaimed_before {
            self.reclaimed_before = sealed;
            let done = self.series.values_mut().flat_map(|series| series.release_before(sealed));
            self.quarantined.extend(done.map(|counting| QuarantinedSlot { counting, idle_since: None }));
        }
        if folds > self.observed_folds {
            self.observed_folds = folds;
            let rested: Vec<_> = self.quarantined.extract_if(.., |slot| slot.is_reusable(folds)).collect();
            for QuarantinedSlot { counting, .. } in &rested {
                counting.slot_ref.slot.end_use();
            }
            self.return_to_free(rested.into_iter().map(|slot| slot.counting.slot_ref));
            self.quarantined.iter_mut().for_each(|slot| slot.observe(folds));
        }
        self.fill_reserve();
    }

    fn return_to_free(&mut self, places: impl Iterator<Item = SlotRef>) {
        self.free.extend(places);
        self.free.sort_by_key(|slot_ref| Reverse(slot_ref.position));
    }

    /// Returns the number of slots in use or reserved.
    pub(crate) fn occupied_slots(&self) -> u32 {
        self.owned_slots.saturating_sub(slot_count(self.free.len()))
    }

    /// Returns the number of slots that should be free: what the last hour needed, or what this hour has taken, names
    /// of new series included. So the number of series can double while the keeper is busy with a fold.
    pub(crate) fn slots_per_window(&self) -> u32 {
        self.taken_in_newest().max(self.used_before)
    }

    /// Returns whether the keeper should add segments at once: less than a quarter of a segment is free, or less than a
    /// quarter of what this hour has taken.
    pub(crate) fn needs_segment(&self) -> bool {
        slot_count(self.free.len()) < slot_count(self.segment_slots).max(self.taken_in_newest()) / 4
    }

    fn taken_in_newest(&self) -> u32 {
        self.used_in_newest + self.named_in_newest
    }

    fn add_segment(&mut self, segment: &SlotSegment) {
        let mut places =
            (segment.first_position..).zip(segment.slots).map(|(position, slot)| SlotRef { position, slot });
        self.worker_slots.extend(places.next()); // the first slot is the worker's own
        self.return_to_free(places);
        self.owned_slots += slot_count(segment.slots.len());
        self.fill_reserve();
    }

    /// Records in the segment's first slot how far the segment has been used. The keeper reads no further, so pages
    /// that were never used stay out of memory.
    fn mark_used(&self, position: u32) {
        let segment = self.worker_slots.iter().rev().find(|own| own.position <= position);
        let Some(SlotRef { position: first, slot: own }) = segment else { return };
        let used = u64::from(position - first + 1);
        own.set(offset::SLOTS_USED, own.get(offset::SLOTS_USED).max(used));
    }

    fn fill_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.free.pop();
        }
    }

    /// Writes the names of a new series, if there is also room for its first count.
    fn write_names(&mut self, wanted: &SeriesRef<'_>) -> Option<()> {
        if self.series.contains_key(&wanted.series_number()) {
            return Some(());
        }
        if self.free.len() < 2 {
            return None;
        }
        let SlotRef { position: names, slot } = self.free.pop()?;
        self.mark_used(names);
        self.enter_window(wanted.window);
        self.named_in_newest += 1;
        let texts = [&wanted.department.id, &wanted.command.subsystem, &wanted.command.command];
        slot.begin_use(SlotKind::Series, |slot| {
            for (number, name) in texts.into_iter().enumerate() {
                write_text(slot, offset::NAMES + number * offset::NAME_WORDS, offset::NAME_WORDS, name.as_str());
            }
        });
        let series = SeriesSlots { name_slot: names, units_each: 1, current: None, older: Vec::new() };
        self.series.insert(wanted.series_number(), series);
        Some(())
    }

    fn begin_slot(&mut self, slot_ref: SlotRef, key: u64, slot_key: SlotKey) {
        self.mark_used(slot_ref.position);
        let Some(series) = self.series.get_mut(&key) else { return };
        slot_ref.slot.begin_use(SlotKind::Count, |slot| {
            slot.set(offset::WINDOW_AND_SERIES, pack_halves(slot_key.window.0, series.name_slot));
            slot.set(offset::UNITS_EACH, slot_key.units_each);
            slot.set(offset::ADMISSION_WINDOW, slot_key.admission.map_or(0, |of| u64::from(of.window.0)));
        });
        if slot_key.admission.is_some() {
            return series.older.push(CountingSlot { slot_ref, key: slot_key });
        }
        let present = CurrentSlot { slot_ref, window: slot_key.window, units_each: slot_key.units_each };
        series.older.extend(series.current.replace(present).map(CurrentSlot::counting));
        series.units_each = slot_key.units_each;
    }

    fn enter_window(&mut self, window: Window) {
        if window > self.newest_window {
            self.newest_window = window;
            self.used_before = std::mem::take(&mut self.used_in_newest);
            self.named_in_newest = 0;
        }
    }
}

#[cfg(test)]
impl SlotAllocator {
    /// Returns whether a new series, or a new window of a series, may find no slot.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.free.len() < 2
    }

    /// Returns the window of the slot that counts commands without a name.
    pub(crate) fn unnamed_window(&self) -> Option<Window> {
        self.series.get(&UNNAMED_SERIES)?.current.map(|present| present.window)
    }
}

impl SeriesSlots {
    fn slot_for(&self, slot_key: SlotKey) -> Option<SlotRef> {
        let mut all = self.current.map(CurrentSlot::counting).into_iter().chain(self.older.iter().copied());
        all.find(|one| one.key == slot_key).map(|one| one.slot_ref)
    }

    /// Removes and returns the slots of windows before `sealed`.
    fn release_before(&mut self, sealed: Window) -> Vec<CountingSlot> {
        let present = self.current.take_if(|present| present.window < sealed).map(CurrentSlot::counting);
        let (left, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.older).into_iter().partition(|one| one.key.window < sealed);
        self.older = kept;
        left.into_iter().chain(present).collect()
    }
}

impl QuarantinedSlot {
    /// Returns whether the slot can be reused. After two more folds, one of them began after the last change and has
    /// written it into the book.
    fn is_reusable(&self, folds: u64) -> bool {
        self.idle_since.is_some_and(|since| folds >= since + 2)
    }

    fn observe(&mut self, folds: u64) {
        let CountingSlot { slot_ref, key: slot_key } = self.counting;
        let idle = || slot_ref.slot.copy().is_some_and(|copy| copy.in_flight(0).commands == 0);
        if self.idle_since.is_none() && slot_key.admission.is_none_or(|of| of.is_gone()) && idle() {
            self.idle_since = Some(folds);
        }
    }
}

fn slot_count(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    fn segment(first_position: u32, slots: usize) -> SlotSegment {
        let slots: Vec<_> = (0..slots).map(|_| Slot::empty()).collect();
        SlotSegment { first_position, slots: Box::leak(slots.into()) }
    }

    fn count(allocator: &mut SlotAllocator, series: std::ops::RangeInclusive<u32>, window: Window) {
        let name = |text: &str| Name::parse(text).expect("a name");
        let command = CommandKey { number: 1, subsystem: name("cameras"), command: name("read") };
        for number in series {
            let department = Department { number, id: name(&format!("d-{number}")), name: String::new() };
            let wanted = SeriesRef { department: &department, command: &command, window };
            allocator.allocate(&wanted, 1).expect("a slot");
        }
    }

    #[test]
    fn an_hour_of_new_series_needs_two_slots_for_each_and_the_next_hour_one() {
        let (segments, arriving) = mpsc::channel();
        let mut allocator = SlotAllocator::new(segment(8, 256), arriving);
        count(&mut allocator, 1..=40, Window(7));
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (80, false));
        count(&mut allocator, 1..=40, Window(8));
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (40, false));
        count(&mut allocator, 41..=60, Window(8));
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (80, false));
        count(&mut allocator, 61..=75, Window(8)); // 63 are free, a quarter of a segment is 64
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (110, true));
        segments.send(segment(264, 256)).expect("an allocator");
        count(&mut allocator, 76..=175, Window(8));
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (310, false));
        count(&mut allocator, 176..=192, Window(8)); // 84 are free, a quarter of what the hour has taken is 86
        assert_eq!((allocator.slots_per_window(), allocator.needs_segment()), (344, true));
    }
}
