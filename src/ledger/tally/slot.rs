//! The byte layout of the tally, and the reuse of slots while other threads read them (seqlock-like read).
//!
//! The tally is an array of slots of 512 bytes. Each slot has 64 little-endian words of 64 bits. `docs/ledger.md` shows
//! the layout as a table.
//!
//! Guarantees:
//! - Every word of a counting slot except `STARTED` only grows while the slot keeps its generation. So the greater of
//!   two readings is the later one.
//! - One worker writes a slot; any thread may read it.
//! - A slot's first word is stored last when a new use begins. So a reader that sees the kind sees the other words.
//! - All sums use `wrapping_add`: 2^64 commands, bytes or nanoseconds do not happen in an epoch, and a counter must
//!   never end a worker.
//!
//! Leaves to `stores`: the order of stores. Leaves to `slot_copy`: the meaning of the words.

use crate::model::Finished;

use super::atomics::{Ordering, fence};
use super::slot_copy::SlotCopy;

pub(crate) use super::atomics::{Slot, WORDS};

const _: () = assert!(cfg!(target_endian = "little"), "the tally is a little-endian file that is mapped as it is");

/// Bytes in a slot.
pub(crate) const SLOT_BYTES: usize = WORDS * 8;

/// Positions of words. The words of a counting slot that change most often share its first two cache lines.
pub(crate) mod offset {
    use crate::model::Finished;

    /// Kind in the low half, generation in the high half.
    pub(crate) const STATE: usize = 0;
    /// Window in the low half, position of the series' slot in the high half.
    pub(crate) const WINDOW_AND_SERIES: usize = 1;
    pub(crate) const UNITS_EACH: usize = 2;
    pub(crate) const ADMITTED: usize = 3;
    /// The sum of the admission times of the commands now in flight, modulo 2^64.
    pub(crate) const STARTED: usize = 4;
    pub(crate) const REQUEST_BYTES: usize = 5;
    pub(crate) const RESPONSE_BYTES: usize = 6;
    /// Grows last at every change. A reader that sees the new value sees the whole change, so one cache line shows
    /// whether a slot has changed.
    pub(crate) const VERSION: usize = 7;
    /// Records of four words: commands, request bytes, response bytes, nanoseconds.
    pub(crate) const FINISHED: usize = 8;
    pub(crate) const REFUSED: usize = 40;
    /// Three words: commands, request bytes, response bytes.
    pub(crate) const LATE_IN: usize = 51;
    pub(crate) const LATE_OUT: usize = 54;
    /// 0, or the window of admission of the commands whose ends are counted here, in a later window.
    pub(crate) const ADMISSION_WINDOW: usize = 57;
    /// Five words, for the outcomes from `unreachable` on: the number of these commands that cost their units. Only the
    /// charged number always grows, in whatever order the words of a slot in use are read. So waived commands are not
    /// counted here.
    pub(crate) const CHARGED: usize = 58;

    /// Returns the position of the number of charged commands with this outcome; `None` for the outcomes of a
    /// subsystem's response.
    pub(crate) const fn charged(finished: Finished) -> Option<usize> {
        match finished.index().checked_sub(Finished::Unreachable.index()) {
            Some(number) => Some(CHARGED + number),
            None => None,
        }
    }

    // A series' slot: three names of eight words each.
    pub(crate) const NAMES: usize = 8;
    pub(crate) const NAME_WORDS: usize = 8;

    // A worker's slot, the first of each segment.
    pub(crate) const WORKER: usize = 1;
    pub(crate) const WORKER_RECEIVED: usize = 2;
    pub(crate) const WORKER_REFUSED: usize = 3;
    pub(crate) const WORKER_ADMITTED: usize = 4;
    pub(crate) const WORKER_FINISHED: usize = 5;
    /// Ends begun; greater than the number of finished commands only during an end.
    pub(crate) const WORKER_ENDING: usize = 6;
    /// The number of the segment's slots that have ever been in use, from the first slot. Readers can skip the others.
    pub(crate) const SLOTS_USED: usize = 40;
    /// The number of journal pairs that are being stored now; 0 if there is no transfer.
    pub(crate) const JOURNAL_LENGTH: usize = 8;
    /// Pairs: a position (word in the low half, position of the slot in the high half), and the new value.
    pub(crate) const JOURNAL: usize = 9;
}

/// The use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// Not in use.
    Free = 0,
    /// Holds the three names of a series.
    Series = 1,
    /// Counts one (window, series, units each), or late ends of one (window, series, units each, window of admission).
    Count = 2,
    /// Holds a worker's own counters; the first slot of each segment.
    Worker = 3,
}

impl SlotKind {
    pub(crate) fn from_state(state: u64) -> Self {
        match state & 0xffff_ffff {
            1 => Self::Series,
            2 => Self::Count,
            3 => Self::Worker,
            _ => Self::Free,
        }
    }
}

/// The version of a slot, from its first cache line: an unchanged version means an unchanged slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotVersion {
    pub(crate) state: u64,
    version: u64,
}

impl Slot {
    /// Loads one word (relaxed).
    pub(crate) fn get(&self, at: usize) -> u64 {
        self.load(at, Ordering::Relaxed)
    }

    /// Loads one word (acquire). Later loads see all stores made before the matching [`Slot::add_release`].
    pub(crate) fn get_acquire(&self, at: usize) -> u64 {
        self.load(at, Ordering::Acquire)
    }

    /// Stores a word. Only the slot's owner may call this.
    pub(crate) fn set(&self, at: usize, value: u64) {
        self.store(at, value, Ordering::Relaxed);
    }

    /// Adds to a word. Only the slot's owner may call this: a load and a store, no locked instruction.
    pub(crate) fn add(&self, at: usize, by: u64) {
        self.set(at, self.get(at).wrapping_add(by));
    }

    /// Adds to a word after all earlier stores. A reader that sees the sum (by [`Slot::copy`]) sees those stores.
    pub(crate) fn add_release(&self, at: usize, by: u64) {
        self.store(at, self.get(at).wrapping_add(by), Ordering::Release);
    }

    /// Stores a word after all earlier stores.
    pub(crate) fn set_release(&self, at: usize, value: u64) {
        self.store(at, value, Ordering::Release);
    }

    /// Clears the slot and begins a new use, under a new generation.
    pub(crate) fn begin_use(&self, kind: SlotKind, fill: impl FnOnce(&Self)) {
        let generation = self.end_use();
        for at in 1..WORDS {
            self.set(at, 0);
        }
        fill(self);
        self.store(offset::STATE, kind as u64 | generation << 32, Ordering::Release);
    }

    /// Ends the use of the slot. Returns the next generation.
    pub(crate) fn end_use(&self) -> u64 {
        let generation = ((self.get(offset::STATE) >> 32) + 1) & 0xffff_ffff;
        self.set(offset::STATE, generation << 32);
        fence(Ordering::Release); // no reader sees a word of the next use under the old generation
        generation
    }

    /// Returns the version, to compare before the whole slot is read. A later [`Slot::copy`] sees every change that
    /// this version includes.
    pub(crate) fn version(&self) -> SlotVersion {
        let state = self.load(offset::STATE, Ordering::Acquire);
        SlotVersion { state, version: self.load(offset::VERSION, Ordering::Acquire) }
    }

    /// Returns a copy, or `None` while the use of the slot changes. Ends are read before admissions, so a copy never
    /// shows more ends than admissions.
    pub(crate) fn copy(&self) -> Option<SlotCopy> {
        let mut copy = [0; WORDS];
        let state = self.load(offset::STATE, Ordering::Acquire);
        for record in 0..Finished::ALL.len() {
            let at = offset::FINISHED + record * 4;
            copy[at] = self.load(at, Ordering::Acquire);
        }
        copy[offset::LATE_OUT] = self.load(offset::LATE_OUT, Ordering::Acquire);
        for (at, value) in copy.iter_mut().enumerate().filter(|(at, _)| !is_load_acquire(*at)) {
            *value = self.get(at);
        }
        fence(Ordering::Acquire);
        copy[offset::STATE] = self.get(offset::STATE);
        (copy[offset::STATE] == state).then_some(SlotCopy(copy))
    }
}

fn is_load_acquire(at: usize) -> bool {
    let records = offset::FINISHED..offset::FINISHED + Finished::ALL.len() * 4;
    at == offset::LATE_OUT || records.contains(&at) && (at - offset::FINISHED).is_multiple_of(4)
}

/// Writes a text as its length in one byte and its bytes. The text is cut at the end of the space.
pub(crate) fn write_text(slot: &Slot, at: usize, words: usize, text: &str) {
    let room = words * 8 - 1;
    let text = &text.as_bytes()[..text.len().min(room)];
    let mut bytes = vec![0_u8; words * 8];
    bytes[0] = u8::try_from(text.len()).unwrap_or(u8::MAX);
    bytes[1..=text.len()].copy_from_slice(text);
    for (word, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
        slot.set(at + word, u64::from_le_bytes(*bytes));
    }
}

/// Packs two halves into a word.
pub(crate) fn pack_halves(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Name, Refused};

    #[test]
    fn records_are_disjoint_and_within_the_slot() {
        assert_eq!(offset::FINISHED + Finished::ALL.len() * 4, offset::REFUSED);
        assert_eq!(offset::REFUSED + Refused::ALL.len(), offset::LATE_IN);
        const {
            assert!(
                offset::LATE_IN + 3 == offset::LATE_OUT
                    && offset::LATE_OUT + 3 == offset::ADMISSION_WINDOW
                    && offset::ADMISSION_WINDOW < offset::CHARGED
            )
        };
        const { assert!(offset::CHARGED + 5 <= WORDS, "all of a slot") };
        const { assert!(Finished::Unreachable.index() + 5 == Finished::ALL.len(), "a word each") };
        const { assert!(offset::VERSION < 8, "a glance is one cache line") };
        assert_eq!(size_of::<Slot>(), SLOT_BYTES);
        const { assert!(Name::MAX_BYTES < offset::NAME_WORDS * 8) };
    }

    #[test]
    fn reused_slot_has_no_old_counts() {
        let slot = Slot::empty();
        slot.begin_use(SlotKind::Count, |slot| slot.set(offset::UNITS_EACH, 3));
        slot.add(offset::ADMITTED, 2);
        let old = slot.copy().expect("a slot at rest");
        slot.begin_use(SlotKind::Series, |slot| write_text(slot, offset::NAMES, offset::NAME_WORDS, "traffic-police"));
        let new = slot.copy().expect("a slot at rest");
        assert_eq!((old.kind(), old.units_each(), new.kind()), (SlotKind::Count, 3, SlotKind::Series));
        assert_ne!(old.state() >> 32, new.state() >> 32, "another generation");
        assert_eq!(new.0[offset::ADMITTED], 0);
        assert_eq!(new.series_name(0).as_ref().map(Name::as_str), Some("traffic-police"));
        assert_eq!(new.series_name(1), None, "an empty text is no name");
    }
}
