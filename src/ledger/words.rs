//! A copy of a slot, and what its words mean.
//!
//! Guarantees: pure arithmetic on a copy; no word is read twice, so what is said of a copy fits together.

use super::slot::{Kind, SLOT_BYTES, WORDS, word};
use crate::model::{Finished, Name, Refused, Window};

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

/// Where commands were admitted: position of the series' slot, window, units each. One worker has one slot for it.
pub(super) type Origin = (u32, Window, u64);

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

    /// The window of admission of all that ends here, where that is an earlier one.
    pub(super) fn of(&self) -> Option<Window> {
        Some(low(self.0[word::OF])).filter(|of| *of > 0).map(Window)
    }

    /// Where what ends here was admitted.
    pub(super) fn origin(&self) -> Origin {
        (self.series(), self.of().unwrap_or(self.window()), self.units_each())
    }

    /// Hours between the window of admission and this one of all that ends here; 0 = it was admitted here.
    pub(super) fn late(&self) -> u32 {
        self.of().map_or(0, |of| self.window().0.saturating_sub(of.0))
    }

    /// Tallies of format 1 had no slots for late ends: what came and what went lay in slots of their own windows. Told as
    /// what came less what went, in flight is the same without a look at other slots.
    pub(super) fn of_format_1(mut self) -> Self {
        if self.kind() == Kind::Count {
            for word in 0..3 {
                let went = std::mem::take(&mut self.0[word::LATE_OUT + word]);
                self.0[word::LATE_IN + word] = self.0[word::LATE_IN + word].wrapping_sub(went);
            }
        }
        self
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

    /// How many of the commands that ended so cost their units.
    pub(super) fn charged(&self, finished: Finished) -> u64 {
        self.0[word::charged(finished).unwrap_or(word::FINISHED + finished.index() * 4)]
    }

    /// Tallies of formats 1 and 2 knew no command that costs nothing.
    pub(super) fn of_format_2(mut self) -> Self {
        if self.kind() == Kind::Count {
            for (finished, at) in Finished::ALL.into_iter().filter_map(|one| Some((one, word::charged(one)?))) {
                self.0[at] = self.finished(finished).commands;
            }
        }
        self
    }

    pub(super) fn refused(&self, refused: Refused) -> u64 {
        self.0[word::REFUSED + refused.index()]
    }

    /// Commands admitted here and not ended anywhere, with the bytes and the time they have used by the moment `now_ns`.
    pub(super) fn in_flight(&self, now_ns: u64) -> Record {
        let rest = self.begun_but(self.moved(word::LATE_OUT));
        Record { duration_ns: self.elapsed(rest.commands, now_ns), ..rest }
    }

    /// As [`Words::in_flight`], of a slot whose process is dead, by the ends themselves: `late` is what ended in slots of later
    /// windows. A disk that lost its power may hold those and not this slot's note of them, or the note alone; what is
    /// not in a slot of ends has not ended. Commands whose moment of admission is lost with that have no time.
    pub(super) fn unended(&self, late: Moved, now_ns: u64) -> Record {
        let rest = self.begun_but(late);
        let timed = self.begun_but(self.moved(word::LATE_OUT)).commands.min(rest.commands);
        Record { duration_ns: self.elapsed(timed, now_ns), ..rest }
    }

    /// What was admitted here or came, has not ended here, and is not among these.
    fn begun_but(&self, went: Moved) -> Record {
        let (came, ended) = (self.moved(word::LATE_IN), self.ended());
        let open = |begun: usize, came: u64, ended: u64, went: u64| {
            self.0[begun].wrapping_add(came).saturating_sub(ended.wrapping_add(went))
        };
        Record {
            commands: open(word::ADMITTED, came.commands, ended.commands, went.commands),
            request_bytes: open(word::REQUEST_BYTES, came.request_bytes, ended.request_bytes, went.request_bytes),
            response_bytes: open(word::RESPONSE_BYTES, came.response_bytes, ended.response_bytes, went.response_bytes),
            duration_ns: 0,
        }
    }

    /// The time that so many commands in flight have used. The last sync may lie a little before the last admission; then
    /// none has passed.
    fn elapsed(&self, commands: u64, now_ns: u64) -> u64 {
        let elapsed = now_ns.wrapping_mul(commands).wrapping_sub(self.0[word::STARTED]);
        if elapsed > u64::MAX / 2 { 0 } else { elapsed }
    }

    fn moved(&self, at: usize) -> Moved {
        Moved { commands: self.0[at], request_bytes: self.0[at + 1], response_bytes: self.0[at + 2] }
    }

    /// All that ended here.
    pub(super) fn ended(&self) -> Record {
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

fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::slot::pair;

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
    fn what_a_dead_process_has_not_ended_is_told_by_the_ends_and_not_by_the_note_of_them() {
        let admitted = [(word::ADMITTED, 3), (word::FINISHED, 1), (word::STARTED, 100 + 140), (word::REQUEST_BYTES, 9)];
        let noted = [(word::ADMITTED, 3), (word::FINISHED, 1), (word::STARTED, 140), (word::LATE_OUT, 1)];
        let late = Moved { commands: 1, request_bytes: 4, response_bytes: 0 };
        for (what, set, late, expected) in [
            ("neither", &admitted, Moved::default(), (2, 9, 160)),
            ("the end without its note", &admitted, late, (1, 5, 0)),
            ("the note without its end", &noted, Moved::default(), (2, 0, 60)),
            ("both", &noted, late, (1, 0, 60)),
        ] {
            let rest = words(set).unended(late, 200);
            assert_eq!((rest.commands, rest.request_bytes, rest.duration_ns), expected, "{what}");
        }
    }

    #[test]
    fn a_slot_of_format_1_has_in_flight_what_it_had() {
        let slot = words(&[
            (word::STATE, Kind::Count as u64),
            (word::ADMITTED, 5),
            (word::LATE_IN, 2),
            (word::FINISHED, 3),
            (word::LATE_OUT, 1),
        ]);
        for slot in [slot, slot.of_format_1()] {
            assert_eq!(slot.in_flight(0).commands, 3);
        }
        assert_eq!(slot.of_format_1().unended(Moved::default(), 0).commands, 3);
    }

    #[test]
    fn late_is_the_distance_to_the_window_of_admission() {
        for (of, late) in [(0, 0), (997, 3), (1000, 0)] {
            assert_eq!(words(&[(word::WHERE, pair(1000, 7)), (word::OF, of)]).late(), late, "of {of}");
        }
    }
}
