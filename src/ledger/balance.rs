//! The law of conservation: received = refused + admitted, and every slot says what its worker says.
//!
//! Guarantees: compares sums that were kept apart all the way, the workers' own words and their slots, at every fold; while
//! workers go on counting, only what no moment can explain is an imbalance. A worker stores into a slot first and into
//! its own words after that, so it has at most one command in hand between the two.

use super::slot::{Slot, word};
use super::words::Words;
use crate::model::{Finished, Refused};

/// Commands counted in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) received: u64,
    pub(super) refused: u64,
    pub(super) admitted: u64,
    pub(super) finished: u64,
}

impl Counted {
    /// What the workers say, by their own slots.
    pub(super) fn by_workers<'a>(own: impl Iterator<Item = &'a Slot>) -> Self {
        own.fold(Self::default(), |sum, slot| Self {
            received: sum.received.wrapping_add(slot.get_first(word::WORKER_RECEIVED)),
            refused: sum.refused.wrapping_add(slot.get_first(word::WORKER_REFUSED)),
            admitted: sum.admitted.wrapping_add(slot.get_first(word::WORKER_ADMITTED)),
            finished: sum.finished.wrapping_add(slot.get_first(word::WORKER_FINISHED)),
        })
    }

    /// Adds what a counting slot has grown between two looks at it.
    pub(super) fn add_slot(&mut self, before: &Words, now: &Words) {
        let grown = |one: u64, other: u64| other.wrapping_sub(one);
        self.admitted = self.admitted.wrapping_add(grown(before.0[word::ADMITTED], now.0[word::ADMITTED]));
        for finished in Finished::ALL {
            let more = grown(before.finished(finished).commands, now.finished(finished).commands);
            self.finished = self.finished.wrapping_add(more);
        }
        for refused in Refused::ALL {
            self.refused = self.refused.wrapping_add(grown(before.refused(refused), now.refused(refused)));
        }
    }
}

/// By how much slots and workers contradict each other; `before` and `after` is what the workers said on both sides of
/// reading the slots.
pub(super) fn imbalance(before: &Counted, slots: &Counted, after: &Counted, workers: u64) -> i64 {
    let apart = |low: u64, value: u64, high: u64| low.saturating_sub(value) + value.saturating_sub(high);
    let same = |of: fn(&Counted) -> u64| apart(of(before), of(slots), of(after).saturating_add(workers));
    let decided = |counted: &Counted| counted.refused.wrapping_add(counted.admitted);
    let undecided = before.received.saturating_sub(decided(after).saturating_add(workers));
    let unreceived = decided(before).saturating_sub(after.received);
    let sum = undecided + unreceived + same(|one| one.refused) + same(|one| one.admitted) + same(|one| one.finished);
    i64::try_from(sum).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(received: u64, refused: u64, admitted: u64, finished: u64) -> Counted {
        Counted { received, refused, admitted, finished }
    }

    #[test]
    fn what_a_moment_can_explain_is_balanced_and_nothing_else() {
        let still = counted(10, 2, 8, 7);
        for (what, before, slots, after, expected) in [
            ("at rest", still, counted(0, 2, 8, 7), still, 0),
            ("one in hand in the slots", still, counted(0, 2, 9, 7), still, 0),
            ("two in hand of one worker", still, counted(0, 2, 10, 7), still, 1),
            ("a slot lost three ends", still, counted(0, 2, 8, 4), still, 3),
            ("a slot lost a refusal", still, counted(0, 1, 8, 7), still, 1),
            ("counted meanwhile", still, counted(0, 3, 9, 9), counted(13, 3, 10, 9), 0),
            ("decided and never received", counted(8, 2, 8, 7), counted(0, 2, 8, 7), counted(8, 2, 8, 7), 2),
            ("received and never decided", counted(15, 2, 8, 7), counted(0, 2, 8, 7), counted(15, 2, 8, 7), 4),
        ] {
            assert_eq!(imbalance(&before, &slots, &after, 1), expected, "{what}");
        }
    }
}
