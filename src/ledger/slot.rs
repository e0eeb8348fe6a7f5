//! The byte layout of the tally: an array of slots of 512 bytes, each 64 little-endian words of 64 bits.
//!
//! Guarantees: every word of a counting slot only grows while the slot keeps its generation, so the greater of two
//! readings is the later one. One worker writes a slot; everybody may read it. A slot's first word is stored last when
//! the slot comes into use, so who sees its kind sees the rest. `docs/ledger.md` shows the layout as a table.
//!
//! All sums use `wrapping_add`: 2^64 commands, bytes or nanoseconds do not happen in an epoch, and a counter must never
//! be what ends a worker.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::model::{Finished, Name, Refused, Window};

const _: () = assert!(cfg!(target_endian = "little"), "the tally is a little-endian file that is mapped as it is");

/// Words in a slot.
pub(super) const WORDS: usize = 64;
/// Bytes in a slot.
pub(super) const SLOT_BYTES: usize = WORDS * 8;

/// Positions of words. Those of a counting slot's everyday life share its first two cache lines.
pub(super) mod word {
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
    /// Records of four words: commands, request bytes, response bytes, nanoseconds.
    pub(in crate::ledger) const FINISHED: usize = 8;
    pub(in crate::ledger) const REFUSED: usize = 40;
    /// Three words: commands, request bytes, response bytes.
    pub(in crate::ledger) const LATE_IN: usize = 51;
    pub(in crate::ledger) const LATE_OUT: usize = 54;
    /// 0, or the window of admission of the commands whose ends are counted here, in a later window.
    pub(in crate::ledger) const OF: usize = 57;

    // A series' slot: three names of eight words each.
    pub(in crate::ledger) const NAMES: usize = 8;
    pub(in crate::ledger) const NAME_WORDS: usize = 8;

    // A worker's slot, the first of each segment.
    pub(in crate::ledger) const WORKER: usize = 1;
    pub(in crate::ledger) const WORKER_RECEIVED: usize = 2;
    pub(in crate::ledger) const WORKER_REFUSED: usize = 3;
    pub(in crate::ledger) const WORKER_ADMITTED: usize = 4;
    pub(in crate::ledger) const WORKER_FINISHED: usize = 5;
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing yet, or nothing any more.
    Free = 0,
    /// Holds the three names of a series.
    Series = 1,
    /// Counts one (window, series, units each).
    Count = 2,
    /// Counts what a worker saw; the first slot of each segment.
    Worker = 3,
}

impl Kind {
    fn of(state: u64) -> Self {
        match state & 0xffff_ffff {
            1 => Self::Series,
            2 => Self::Count,
            3 => Self::Worker,
            _ => Self::Free,
        }
    }
}

/// A slot as it lies in the mapped file.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Slot([AtomicU64; WORDS]);

impl Slot {
    /// One word, as it is now.
    pub(super) fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    /// Sets a word. Only the slot's owner may.
    pub(super) fn set(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Relaxed);
    }

    /// Adds to a word. Only the slot's owner may: a load and a store, no locked instruction.
    pub(super) fn add(&self, at: usize, by: u64) {
        self.set(at, self.get(at).wrapping_add(by));
    }

    /// Adds to a word after all earlier stores: who reads the sum (by [`Slot::words`]) sees what it stands for.
    pub(super) fn add_last(&self, at: usize, by: u64) {
        self.0[at].store(self.get(at).wrapping_add(by), Ordering::Release);
    }

    /// Empties the slot and gives it to a new use, under a new generation.
    pub(super) fn begin(&self, kind: Kind, fill: impl FnOnce(&Self)) {
        let generation = self.end();
        for at in 1..WORDS {
            self.set(at, 0);
        }
        fill(self);
        self.0[word::STATE].store(kind as u64 | generation << 32, Ordering::Release);
    }

    /// Takes the slot out of use; returns the generation that comes next.
    pub(super) fn end(&self) -> u64 {
        let generation = ((self.get(word::STATE) >> 32) + 1) & 0xffff_ffff;
        self.set(word::STATE, generation << 32);
        fence(Ordering::Release); // nobody sees a word of the next use under the old generation
        generation
    }

    /// A copy, or nothing while the slot is changing hands. What has ended is read before what was admitted, so a copy
    /// never shows more ends than beginnings.
    pub(super) fn words(&self) -> Option<Words> {
        let mut copy = [0; WORDS];
        let state = self.0[word::STATE].load(Ordering::Acquire);
        for record in 0..Finished::ALL.len() {
            let at = word::FINISHED + record * 4;
            copy[at] = self.0[at].load(Ordering::Acquire);
        }
        copy[word::LATE_OUT] = self.0[word::LATE_OUT].load(Ordering::Acquire);
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

/// A copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words(pub(super) [u64; WORDS]);

/// The sums of one outcome in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) commands: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) duration_ns: u64,
}

/// Commands whose end was counted in another slot than their beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) commands: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Words {
    pub(super) const EMPTY: Self = Self([0; WORDS]);

    /// Reads a slot from the bytes of a file.
    pub(super) fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Self {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.0[word::STATE])
    }

    pub(super) fn state(&self) -> u64 {
        self.0[word::STATE]
    }

    pub(super) fn window(&self) -> Window {
        Window(low(self.0[word::WHERE]))
    }

    /// Hours between the admission of the commands that end here and this window.
    pub(super) fn late(&self) -> u32 {
        match low(self.0[word::OF]) {
            0 => 0,
            of => self.window().0.saturating_sub(of),
        }
    }

    /// The position of the slot that holds the names.
    pub(super) fn series(&self) -> u32 {
        high(self.0[word::WHERE])
    }

    pub(super) fn units_each(&self) -> u64 {
        self.0[word::UNITS_EACH]
    }

    pub(super) fn finished(&self, finished: Finished) -> Record {
        let at = word::FINISHED + finished.index() * 4;
        Record {
            commands: self.0[at],
            request_bytes: self.0[at + 1],
            response_bytes: self.0[at + 2],
            duration_ns: self.0[at + 3],
        }
    }

    pub(super) fn refused(&self, refused: Refused) -> u64 {
        self.0[word::REFUSED + refused.index()]
    }

    /// Commands admitted here and not ended anywhere, with the bytes and the time they have used by the moment `now_ns`.
    pub(super) fn in_flight(&self, now_ns: u64) -> Record {
        let (came, went, ended) = (self.moved(word::LATE_IN), self.moved(word::LATE_OUT), self.ended());
        let open = |begun: usize, came: u64, ended: u64, went: u64| {
            self.0[begun].wrapping_add(came).saturating_sub(ended.wrapping_add(went))
        };
        let commands = open(word::ADMITTED, came.commands, ended.commands, went.commands);
        let elapsed = now_ns.wrapping_mul(commands).wrapping_sub(self.0[word::STARTED]);
        Record {
            commands,
            request_bytes: open(word::REQUEST_BYTES, came.request_bytes, ended.request_bytes, went.request_bytes),
            response_bytes: open(word::RESPONSE_BYTES, came.response_bytes, ended.response_bytes, went.response_bytes),
            // The last sync may lie a little before the last admission; then no time has passed.
            duration_ns: if elapsed > u64::MAX / 2 { 0 } else { elapsed },
        }
    }

    fn moved(&self, at: usize) -> Moved {
        Moved { commands: self.0[at], request_bytes: self.0[at + 1], response_bytes: self.0[at + 2] }
    }

    fn ended(&self) -> Record {
        Finished::ALL.into_iter().map(|finished| self.finished(finished)).fold(Record::default(), |sum, one| Record {
            commands: sum.commands.wrapping_add(one.commands),
            request_bytes: sum.request_bytes.wrapping_add(one.request_bytes),
            response_bytes: sum.response_bytes.wrapping_add(one.response_bytes),
            duration_ns: sum.duration_ns.wrapping_add(one.duration_ns),
        })
    }

    /// One of the names of a series' slot; nothing if it is not a name.
    pub(super) fn name(&self, number: usize) -> Option<Name> {
        self.text(word::NAMES + number * word::NAME_WORDS, word::NAME_WORDS).and_then(|text| Name::parse(&text).ok())
    }

    /// A text that begins with its length.
    pub(super) fn text(&self, at: usize, words: usize) -> Option<String> {
        let bytes: Vec<u8> = self.0[at..at + words].iter().flat_map(|word| word.to_le_bytes()).collect();
        let (length, rest) = bytes.split_first()?;
        String::from_utf8(rest.get(..usize::from(*length))?.to_vec()).ok()
    }
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

fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(set: &[(usize, u64)]) -> Words {
        let mut words = Words::EMPTY;
        set.iter().for_each(|(at, value)| words.0[*at] = *value);
        words
    }

    #[test]
    fn what_is_in_flight_is_what_began_or_came_and_neither_ended_nor_went() {
        let started = 100_u64 + 140;
        for (what, set, expected) in [
            ("nothing", vec![], (0, 0, 0)),
            (
                "two admitted",
                vec![(word::ADMITTED, 2), (word::STARTED, started), (word::REQUEST_BYTES, 9)],
                (2, 9, 160),
            ),
            ("one ended", vec![(word::ADMITTED, 1), (word::FINISHED, 1)], (0, 0, 0)),
            ("ended elsewhere", vec![(word::ADMITTED, 1), (word::LATE_OUT, 1)], (0, 0, 0)),
            ("came and ended here", vec![(word::LATE_IN, 1), (word::FINISHED + 4, 1)], (0, 0, 0)),
            ("admitted after the last sync", vec![(word::ADMITTED, 1), (word::STARTED, 250)], (1, 0, 0)),
        ] {
            let rest = words(&set).in_flight(200);
            assert_eq!((rest.commands, rest.request_bytes, rest.duration_ns), expected, "{what}");
        }
    }

    #[test]
    fn records_do_not_overlap_and_end_within_the_slot() {
        assert_eq!(word::FINISHED + Finished::ALL.len() * 4, word::REFUSED);
        assert_eq!(word::REFUSED + Refused::ALL.len(), word::LATE_IN);
        const { assert!(word::LATE_IN + 3 == word::LATE_OUT && word::LATE_OUT + 3 <= word::OF && word::OF < WORDS) };
        assert_eq!(size_of::<Slot>(), SLOT_BYTES);
        const { assert!(Name::MAX_BYTES < word::NAME_WORDS * 8) };
    }

    #[test]
    fn a_slot_in_a_new_use_forgets_the_old_one() {
        let slot = Slot(std::array::from_fn(|_| AtomicU64::new(0)));
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
