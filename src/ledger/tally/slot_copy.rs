//! A copy of a slot, and the meaning of its words.
//!
//! Guarantees: pure arithmetic on a copy. No word is read twice, so all values computed from a copy are consistent.

use crate::ledger::values::measures::Measures;
use crate::model::{Finished, Name, Refused, Window};

use super::slot::{SLOT_BYTES, SlotKind, WORDS, offset};

/// A copy of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotCopy(pub(crate) [u64; WORDS]);

/// The key of a slot of admission: position of the series' slot, window, units each. A worker has one slot per key.
pub(crate) type AdmissionKey = (u32, Window, u64);

impl SlotCopy {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// Reads a slot from the bytes of a file.
    pub(crate) fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Self {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    pub(crate) fn kind(&self) -> SlotKind {
        SlotKind::from_state(self.0[offset::STATE])
    }

    pub(crate) fn state(&self) -> u64 {
        self.0[offset::STATE]
    }

    pub(crate) fn window(&self) -> Window {
        Window(low_half(self.0[offset::WINDOW_AND_SERIES]))
    }

    /// Returns the window of admission of the commands that end here, if it is an earlier window.
    pub(crate) fn admission_window(&self) -> Option<Window> {
        Some(low_half(self.0[offset::ADMISSION_WINDOW])).filter(|of| *of > 0).map(Window)
    }

    /// Returns the key of the slot that counted the admission of the commands that end here.
    pub(crate) fn admission_key(&self) -> AdmissionKey {
        (self.series_position(), self.admission_window().unwrap_or(self.window()), self.units_each())
    }

    /// Returns the hours between the window of admission and this slot's window; 0 = admitted in this window.
    pub(crate) fn hours_late(&self) -> u32 {
        self.admission_window().map_or(0, |of| self.window().0.saturating_sub(of.0))
    }

    /// Converts a slot of format 1, which had no slots for late ends: transfers in and out were counted in slots of
    /// their own windows. The conversion replaces both by their difference, so commands in flight can be computed
    /// without other slots.
    pub(crate) fn upgrade_from_format_1(mut self) -> Self {
        if self.kind() == SlotKind::Count {
            for word in 0..3 {
                let moved_out = std::mem::take(&mut self.0[offset::LATE_OUT + word]);
                self.0[offset::LATE_IN + word] = self.0[offset::LATE_IN + word].wrapping_sub(moved_out);
            }
        }
        self
    }

    /// Returns the position of the slot that holds the names.
    pub(crate) fn series_position(&self) -> u32 {
        high_half(self.0[offset::WINDOW_AND_SERIES])
    }

    pub(crate) fn units_each(&self) -> u64 {
        self.0[offset::UNITS_EACH]
    }

    /// Returns the sums of the commands that ended here with this outcome, and the units of those that cost units.
    pub(crate) fn finished(&self, finished: Finished) -> Measures {
        let at = offset::FINISHED + finished.index() * 4;
        Measures {
            commands: self.0[at],
            units: self.units_of(self.charged(finished)),
            request_bytes: self.0[at + 1],
            response_bytes: self.0[at + 2],
            duration_ns: self.0[at + 3],
        }
    }

    /// Returns the number of commands with this outcome that cost their units.
    pub(crate) fn charged(&self, finished: Finished) -> u64 {
        self.0[offset::charged(finished).unwrap_or(offset::FINISHED + finished.index() * 4)]
    }

    /// Converts a slot of format 1 or 2, which had no commands without cost.
    pub(crate) fn upgrade_from_format_2(mut self) -> Self {
        if self.kind() == SlotKind::Count {
            for (finished, at) in Finished::ALL.into_iter().filter_map(|one| Some((one, offset::charged(one)?))) {
                self.0[at] = self.finished(finished).commands;
            }
        }
        self
    }

    pub(crate) fn refused(&self, refused: Refused) -> u64 {
        self.0[offset::REFUSED + refused.index()]
    }

    /// Returns the commands admitted here that have not ended in any slot. The result includes their units and bytes,
    /// and the time that they have used by the moment `now_ns`.
    pub(crate) fn in_flight(&self, now_ns: u64) -> Measures {
        let rest = self.open_measures(self.transferred(offset::LATE_OUT));
        Measures { duration_ns: self.elapsed_ns(rest.commands, now_ns), ..rest }
    }

    /// Like [`SlotCopy::in_flight`] for a slot of a dead process, computed from the ends themselves: `late` is the sum
    /// of the ends in slots of later windows. After a power failure the disk may hold those ends without this slot's
    /// record of them (`LATE_OUT`), or only the record. A command without an end in any slot has not ended. Commands
    /// whose admission time is lost have no duration.
    pub(crate) fn unended(&self, late: Measures, now_ns: u64) -> Measures {
        let rest = self.open_measures(late);
        let timed = self.open_measures(self.transferred(offset::LATE_OUT)).commands.min(rest.commands);
        Measures { duration_ns: self.elapsed_ns(timed, now_ns), ..rest }
    }

    /// Returns commands admitted here or transferred in, minus those that ended here, minus `moved_out`. They have no
    /// time.
    fn open_measures(&self, moved_out: Measures) -> Measures {
        let begun = Measures {
            commands: self.0[offset::ADMITTED],
            request_bytes: self.0[offset::REQUEST_BYTES],
            response_bytes: self.0[offset::RESPONSE_BYTES],
            ..Measures::default()
        };
        let begun = begun.zip(self.transferred(offset::LATE_IN), u64::wrapping_add);
        let open = begun.zip(self.ended().zip(moved_out, u64::wrapping_add), u64::saturating_sub);
        Measures { units: self.units_of(open.commands), duration_ns: 0, ..open }
    }

    /// Returns the units that `commands` commands of this slot cost.
    fn units_of(&self, commands: u64) -> u64 {
        commands.saturating_mul(self.units_each())
    }

    /// Returns the time that `commands` commands in flight have used. 0 if the last sync lies a little before the last
    /// admission.
    fn elapsed_ns(&self, commands: u64, now_ns: u64) -> u64 {
        let elapsed = now_ns.wrapping_mul(commands).wrapping_sub(self.0[offset::STARTED]);
        if elapsed > u64::MAX / 2 { 0 } else { elapsed }
    }

    /// Returns the commands, and their bytes, whose end was counted in another slot than their admission.
    fn transferred(&self, at: usize) -> Measures {
        Measures {
            commands: self.0[at],
            request_bytes: self.0[at + 1],
            response_bytes: self.0[at + 2],
            ..Measures::default()
        }
    }

    /// Returns the sums of all commands that ended here.
    pub(crate) fn ended(&self) -> Measures {
        let ended = Finished::ALL.into_iter().map(|finished| self.finished(finished));
        ended.fold(Measures::default(), |sum, one| sum.zip(one, u64::wrapping_add))
    }

    /// Returns one of the names of a series' slot; `None` if the text is not a valid name.
    pub(crate) fn series_name(&self, number: usize) -> Option<Name> {
        self.read_text(offset::NAMES + number * offset::NAME_WORDS, offset::NAME_WORDS)
            .and_then(|text| Name::parse(&text).ok())
    }

    /// Reads a text with a length prefix.
    pub(crate) fn read_text(&self, at: usize, words: usize) -> Option<String> {
        let bytes: Vec<u8> = self.0[at..at + words].iter().flat_map(|word| word.to_le_bytes()).collect();
        let (length, rest) = bytes.split_first()?;
        String::from_utf8(rest.get(..usize::from(*length))?.to_vec()).ok()
    }
}

fn low_half(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

fn high_half(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::slot::pack_halves;
    use super::*;

    fn words(set: &[(usize, u64)]) -> SlotCopy {
        let mut words = SlotCopy::EMPTY;
        set.iter().for_each(|(at, value)| words.0[*at] = *value);
        words
    }

    #[test]
    fn in_flight_is_started_plus_moved_in_minus_ended_minus_moved_out() {
        let started = 100_u64 + 140;
        for (what, set, expected) in [
            ("nothing", vec![], (0, 0, 0)),
            (
                "two admitted",
                vec![(offset::ADMITTED, 2), (offset::STARTED, started), (offset::REQUEST_BYTES, 9)],
                (2, 9, 160),
            ),
            ("one ended", vec![(offset::ADMITTED, 1), (offset::FINISHED, 1)], (0, 0, 0)),
            ("ended elsewhere", vec![(offset::ADMITTED, 1), (offset::LATE_OUT, 1)], (0, 0, 0)),
            ("came and ended here", vec![(offset::LATE_IN, 1), (offset::FINISHED + 4, 1)], (0, 0, 0)),
            ("admitted after the last sync", vec![(offset::ADMITTED, 1), (offset::STARTED, 250)], (1, 0, 0)),
        ] {
            let rest = words(&set).in_flight(200);
            assert_eq!((rest.commands, rest.request_bytes, rest.duration_ns), expected, "{what}");
        }
    }

    #[test]
    fn unended_commands_of_a_dead_process_are_computed_from_ends_and_not_from_their_note() {
        let admitted =
            [(offset::ADMITTED, 3), (offset::FINISHED, 1), (offset::STARTED, 100 + 140), (offset::REQUEST_BYTES, 9)];
        let noted = [(offset::ADMITTED, 3), (offset::FINISHED, 1), (offset::STARTED, 140), (offset::LATE_OUT, 1)];
        let late = Measures { commands: 1, request_bytes: 4, ..Measures::default() };
        for (what, set, late, expected) in [
            ("neither", &admitted, Measures::default(), (2, 9, 160)),
            ("the end without its note", &admitted, late, (1, 5, 0)),
            ("the note without its end", &noted, Measures::default(), (2, 0, 60)),
            ("both", &noted, late, (1, 0, 60)),
        ] {
            let rest = words(set).unended(late, 200);
            assert_eq!((rest.commands, rest.request_bytes, rest.duration_ns), expected, "{what}");
        }
    }

    #[test]
    fn format_1_slot_keeps_its_in_flight_count() {
        let slot = words(&[
            (offset::STATE, SlotKind::Count as u64),
            (offset::ADMITTED, 5),
            (offset::LATE_IN, 2),
            (offset::FINISHED, 3),
            (offset::LATE_OUT, 1),
        ]);
        for slot in [slot, slot.upgrade_from_format_1()] {
            assert_eq!(slot.in_flight(0).commands, 3);
        }
        assert_eq!(slot.upgrade_from_format_1().unended(Measures::default(), 0).commands, 3);
    }

    #[test]
    fn late_offset_is_the_distance_to_the_window_of_admission() {
        for (of, late) in [(0, 0), (997, 3), (1000, 0)] {
            assert_eq!(
                words(&[(offset::WINDOW_AND_SERIES, pack_halves(1000, 7)), (offset::ADMISSION_WINDOW, of)])
                    .hours_late(),
                late,
                "of {of}"
            );
        }
    }
}
