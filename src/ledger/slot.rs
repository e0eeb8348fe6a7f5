//! The byte layout of the tally: an array of slots of 512 bytes, each 64 little-endian words of 64 bits; and how a slot
//! goes from one use to the next while others read it.
//!
//! Guarantees: every word of a counting slot only grows while the slot keeps its generation (but `STARTED`), so the
//! greater of two readings is the later one. One worker writes a slot; everybody may read it. A slot's first word is
//! stored last when the slot comes into use, so who sees its kind sees the rest. `docs/ledger.md` shows the layout as a
//! table. Leaves to `counting` what is stored when, to `words` what it means.
//!
//! All sums use `wrapping_add`: 2^64 commands, bytes or nanoseconds do not happen in an epoch, and a counter must never
//! be what ends a worker.

use super::atomics::{Ordering, fence};
use super::words::Words;
use crate::model::Finished;

pub(super) use super::atomics::{Slot, WORDS};

const _: () = assert!(cfg!(target_endian = "little"), "the tally is a little-endian file that is mapped as it is");

/// Bytes in a slot.
pub(super) const SLOT_BYTES: usize = WORDS * 8;

/// Positions of words. Those of a counting slot's everyday life share its first two cache lines.
pub(super) mod word {
    use crate::model::Finished;

    /// Kind in the low half, generation in the high half.
    pub(in crate::ledger) const STATE: usize = 0;
    /// Window in the low half, position of the series' slot in the high half.
    pub(in crate::ledger) const WHERE: usize = 1;
    pub(in crate::ledger) const UNITS_EACH: usize = 2;
    pub(in crate::ledger) const ADMITTED: usize = 3;
    /// Sum of the moments at which the commands now in flight were admitted, modulo 2^64.
    pub(in crate::ledger) const STARTED: usize = 4;
    pub(in crate::ledger) const REQUEST_BYTES: usize = 5;
    pub(in crate::ledger) const RESPONSE_BYTES: usize = 6;
    /// Grows last at every change: who has seen this one has seen what there was, by a look at one cache line.
    pub(in crate::ledger) const VERSION: usize = 7;
    /// Records of four words: commands, request bytes, response bytes, nanoseconds.
    pub(in crate::ledger) const FINISHED: usize = 8;
    pub(in crate::ledger) const REFUSED: usize = 40;
    /// Three words: commands, request bytes, response bytes.
    pub(in crate::ledger) const LATE_IN: usize = 51;
    pub(in crate::ledger) const LATE_OUT: usize = 54;
    /// 0, or the window of admission of the commands whose ends are counted here, in a later window.
    pub(in crate::ledger) const OF: usize = 57;
    /// Five words, for the outcomes from `unreachable` on: how many of these commands cost their units. Not what was waived:
    /// what was charged only grows, however the words of a slot at work are read.
    pub(in crate::ledger) const CHARGED: usize = 58;

    /// Where the commands that ended so and cost their units are counted apart; nothing for what a subsystem answered.
    pub(in crate::ledger) const fn charged(finished: Finished) -> Option<usize> {
        match finished.index().checked_sub(Finished::Unreachable.index()) {
            Some(number) => Some(CHARGED + number),
            None => None,
        }
    }

    // A series' slot: three names of eight words each.
    pub(in crate::ledger) const NAMES: usize = 8;
    pub(in crate::ledger) const NAME_WORDS: usize = 8;

    // A worker's slot, the first of each segment.
    pub(in crate::ledger) const WORKER: usize = 1;
    pub(in crate::ledger) const WORKER_RECEIVED: usize = 2;
    pub(in crate::ledger) const WORKER_REFUSED: usize = 3;
    pub(in crate::ledger) const WORKER_ADMITTED: usize = 4;
    pub(in crate::ledger) const WORKER_FINISHED: usize = 5;
    /// Ends begun; more than finished only in the middle of one.
    pub(in crate::ledger) const WORKER_ENDING: usize = 6;
    /// How many slots of the segment, from its first, have ever been in use: nobody need look at the others.
    pub(in crate::ledger) const USED: usize = 40;
    /// How many of the pairs that follow are being stored at this moment.
    pub(in crate::ledger) const MOVES: usize = 8;
    /// Pairs: a place (word in the low half, position of the slot in the high half), and what it will hold.
    pub(in crate::ledger) const MOVE: usize = 9;
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing yet, or nothing any more.
    Free = 0,
    /// Holds the three names of a series.
    Series = 1,
    /// Counts one (window, series, units each), or late ends of one (window, series, units each, window of admission).
    Count = 2,
    /// Counts what a worker saw; the first slot of each segment.
    Worker = 3,
}

impl Kind {
    pub(super) fn of(state: u64) -> Self {
        match state & 0xffff_ffff {
            1 => Self::Series,
            2 => Self::Count,
            3 => Self::Worker,
            _ => Self::Free,
        }
    }
}

/// What a slot's first cache line says about the rest: as long as it is the same, nothing has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Glance {
    pub(super) state: u64,
    version: u64,
}

impl Slot {
    /// One word, as it is now.
    pub(super) fn get(&self, at: usize) -> u64 {
        self.load(at, Ordering::Relaxed)
    }

    /// One word; what was stored before it by [`Slot::add_last`] is seen from now on.
    pub(super) fn get_first(&self, at: usize) -> u64 {
        self.load(at, Ordering::Acquire)
    }

    /// Sets a word. Only the slot's owner may.
    pub(super) fn set(&self, at: usize, value: u64) {
        self.store(at, value, Ordering::Relaxed);
    }

    /// Adds to a word. Only the slot's owner may: a load and a store, no locked instruction.
    pub(super) fn add(&self, at: usize, by: u64) {
        self.set(at, self.get(at).wrapping_add(by));
    }

    /// Adds to a word after all earlier stores: who reads the sum (by [`Slot::words`]) sees what it stands for.
    pub(super) fn add_last(&self, at: usize, by: u64) {
        self.store(at, self.get(at).wrapping_add(by), Ordering::Release);
    }

    /// Sets a word after all earlier stores.
    pub(super) fn set_last(&self, at: usize, value: u64) {
        self.store(at, value, Ordering::Release);
    }

    /// Empties the slot and gives it to a new use, under a new generation.
    pub(super) fn begin(&self, kind: Kind, fill: impl FnOnce(&Self)) {
        let generation = self.end();
        for at in 1..WORDS {
            self.set(at, 0);
        }
        fill(self);
        self.store(word::STATE, kind as u64 | generation << 32, Ordering::Release);
    }

    /// Takes the slot out of use; returns the generation that comes next.
    pub(super) fn end(&self) -> u64 {
        let generation = ((self.get(word::STATE) >> 32) + 1) & 0xffff_ffff;
        self.set(word::STATE, generation << 32);
        fence(Ordering::Release); // nobody sees a word of the next use under the old generation
        generation
    }

    /// What to compare before the whole slot is read. A later [`Slot::words`] sees every change that this has seen.
    pub(super) fn glance(&self) -> Glance {
        let state = self.load(word::STATE, Ordering::Acquire);
        Glance { state, version: self.load(word::VERSION, Ordering::Acquire) }
    }

    /// A copy, or nothing while the slot is changing hands. What has ended is read before what was admitted, so a copy
    /// never shows more ends than beginnings.
    pub(super) fn words(&self) -> Option<Words> {
        let mut copy = [0; WORDS];
        let state = self.load(word::STATE, Ordering::Acquire);
        for record in 0..Finished::ALL.len() {
            let at = word::FINISHED + record * 4;
            copy[at] = self.load(at, Ordering::Acquire);
        }
        copy[word::LATE_OUT] = self.load(word::LATE_OUT, Ordering::Acquire);
        for (at, value) in copy.iter_mut().enumerate().filter(|(at, _)| !is_read_first(*at)) {
            *value = self.get(at);
        }
        fence(Ordering::Acquire);
        copy[word::STATE] = self.get(word::STATE);
        (copy[word::STATE] == state).then_some(Words(copy))
    }
}

fn is_read_first(at: usize) -> bool {
    let records = word::FINISHED..word::FINISHED + Finished::ALL.len() * 4;
    at == word::LATE_OUT || records.contains(&at) && (at - word::FINISHED).is_multiple_of(4)
}

/// Writes a text as its length in one byte and its bytes; cut where the space ends.
pub(super) fn set_text(slot: &Slot, at: usize, words: usize, text: &str) {
    let room = words * 8 - 1;
    let text = &text.as_bytes()[..text.len().min(room)];
    let mut bytes = vec![0_u8; words * 8];
    bytes[0] = u8::try_from(text.len()).unwrap_or(u8::MAX);
    bytes[1..=text.len()].copy_from_slice(text);
    for (word, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
        slot.set(at + word, u64::from_le_bytes(*bytes));
    }
}

/// Two halves of a word.
pub(super) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Name, Refused};

    #[test]
    fn records_do_not_overlap_and_end_within_the_slot() {
        assert_eq!(word::FINISHED + Finished::ALL.len() * 4, word::REFUSED);
        assert_eq!(word::REFUSED + Refused::ALL.len(), word::LATE_IN);
        const { assert!(word::LATE_IN + 3 == word::LATE_OUT && word::LATE_OUT + 3 == word::OF && word::OF < word::CHARGED) };
        const { assert!(word::CHARGED + 5 <= WORDS, "all of a slot") };
        const { assert!(Finished::Unreachable.index() + 5 == Finished::ALL.len(), "a word each") };
        const { assert!(word::VERSION < 8, "a glance is one cache line") };
        assert_eq!(size_of::<Slot>(), SLOT_BYTES);
        const { assert!(Name::MAX_BYTES < word::NAME_WORDS * 8) };
    }

    #[test]
    fn a_slot_in_a_new_use_forgets_the_old_one() {
        let slot = Slot::empty();
        slot.begin(Kind::Count, |slot| slot.set(word::UNITS_EACH, 3));
        slot.add(word::ADMITTED, 2);
        let old = slot.words().expect("a slot at rest");
        slot.begin(Kind::Series, |slot| set_text(slot, word::NAMES, word::NAME_WORDS, "traffic-police"));
        let new = slot.words().expect("a slot at rest");
        assert_eq!((old.kind(), old.units_each(), new.kind()), (Kind::Count, 3, Kind::Series));
        assert_ne!(old.state() >> 32, new.state() >> 32, "another generation");
        assert_eq!(new.0[word::ADMITTED], 0);
        assert_eq!(new.name(0).as_ref().map(Name::as_str), Some("traffic-police"));
        assert_eq!(new.name(1), None, "an empty text is no name");
    }
}
