//! The law of conservation: received = refused + admitted, and admitted = finished + in flight.
//!
//! The slots of a worker must also agree with the worker's own counters.
//!
//! Guarantees:
//! - At every fold, the check compares two sums that are counted separately: the workers' own counters and their slots.
//! - While a worker counts, only a difference that no order of its stores can explain is an imbalance.
//! - While a worker is at rest, every difference is an imbalance.
//!
//! A worker first increments its own counter of beginnings (received, ending), then a slot, then its own counter of
//! completions (refused, admitted, finished). So at every moment: completions <= slots <= beginnings.

use crate::model::{Finished, Refused};

use super::slot::{Slot, offset};
use super::slot_copy::SlotCopy;

/// The workers' own counters, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerTotals {
    received: u64,
    refused: u64,
    admitted: u64,
    /// Ends that have begun.
    ends_begun: u64,
    finished: u64,
}

/// The sums of an epoch's slots, as of their last copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotTotals {
    refused: u64,
    admitted: u64,
    finished: u64,
    /// Commands that are no longer in flight in the slot of their admission.
    no_longer_in_flight: u64,
}

impl WorkerTotals {
    /// Reads the workers' own slots. Completions are read before beginnings, so no read finds more completions than
    /// beginnings.
    pub(crate) fn from_worker_slots<'a>(own: impl Iterator<Item = &'a Slot>) -> Self {
        own.fold(Self::default(), |sum, slot| {
            let refused = sum.refused.wrapping_add(slot.get_acquire(offset::WORKER_REFUSED));
            let admitted = sum.admitted.wrapping_add(slot.get_acquire(offset::WORKER_ADMITTED));
            let finished = sum.finished.wrapping_add(slot.get_acquire(offset::WORKER_FINISHED));
            let ending = sum.ends_begun.wrapping_add(slot.get_acquire(offset::WORKER_ENDING));
            let received = sum.received.wrapping_add(slot.get_acquire(offset::WORKER_RECEIVED));
            Self { received, refused, admitted, ends_begun: ending, finished }
        })
    }
}

impl SlotTotals {
    /// Adds the growth of a counting slot between two copies.
    pub(crate) fn add_slot(&mut self, before: &SlotCopy, now: &SlotCopy) {
        let (old, new) = (Self::from_copy(before), Self::from_copy(now));
        let grown = |sum: u64, of: fn(&Self) -> u64| sum.wrapping_add(of(&new)).wrapping_sub(of(&old));
        *self = Self {
            refused: grown(self.refused, |one| one.refused),
            admitted: grown(self.admitted, |one| one.admitted),
            finished: grown(self.finished, |one| one.finished),
            no_longer_in_flight: grown(self.no_longer_in_flight, |one| one.no_longer_in_flight),
        };
    }

    fn from_copy(copy: &SlotCopy) -> Self {
        let sum = |commands: &mut dyn Iterator<Item = u64>| commands.fold(0, u64::wrapping_add);
        let finished = sum(&mut Finished::ALL.into_iter().map(|one| copy.finished(one).commands));
        let refused = sum(&mut Refused::ALL.into_iter().map(|one| copy.refused(one)));
        let ends_its_own = copy.0[offset::ADMISSION_WINDOW] == 0;
        let no_longer_in_flight = if ends_its_own { finished.wrapping_add(copy.0[offset::LATE_OUT]) } else { 0 };
        Self { refused, admitted: copy.0[offset::ADMITTED], finished, no_longer_in_flight }
    }
}

/// Returns the difference between slots and workers. `before` and `after` are the workers' counters read before and
/// after the slots.
pub(crate) fn imbalance(before: &WorkerTotals, slots: &SlotTotals, after: &WorkerTotals) -> i64 {
    let apart = |least: u64, value: u64, most: u64| least.saturating_sub(value).max(value.saturating_sub(most));
    let sum = apart(before.refused, slots.refused, after.received.saturating_sub(after.admitted))
        .saturating_add(apart(before.admitted, slots.admitted, after.received.saturating_sub(after.refused)))
        .saturating_add(apart(before.finished, slots.finished, after.ends_begun))
        .saturating_add(apart(before.finished, slots.no_longer_in_flight, after.ends_begun));
    i64::try_from(sum).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals([received, refused, admitted, ending, finished]: [u64; 5]) -> WorkerTotals {
        WorkerTotals { received, refused, admitted, ends_begun: ending, finished }
    }

    #[test]
    fn only_differences_of_commands_in_progress_are_balanced() {
        let still = [10, 2, 8, 7, 7];
        for (what, before, slots, after, expected) in [
            ("at rest", still, [2, 8, 7, 7], still, 0),
            ("a slot has one admission more", still, [2, 9, 7, 7], still, 1),
            ("a slot has one end more", still, [2, 8, 8, 7], still, 1),
            ("an end that is in flight elsewhere", still, [2, 8, 7, 6], still, 1),
            ("a slot lost three ends", still, [2, 8, 4, 4], still, 6),
            ("a slot lost a refusal", still, [1, 8, 7, 7], still, 1),
            ("an admission in hand", [11, 2, 8, 7, 7], [2, 9, 7, 7], [11, 2, 8, 7, 7], 0),
            ("an admission in hand, not yet in a slot", [11, 2, 8, 7, 7], [2, 8, 7, 7], [11, 2, 8, 7, 7], 0),
            ("an end in hand", [10, 2, 8, 8, 7], [2, 8, 8, 8], [10, 2, 8, 8, 7], 0),
            ("counted meanwhile", still, [3, 9, 9, 8], [13, 3, 10, 9, 9], 0),
            ("more than was received, by both counts", still, [3, 9, 9, 9], [11, 3, 9, 9, 9], 2),
        ] {
            let [refused, admitted, finished, gone] = slots;
            let slots = SlotTotals { refused, admitted, finished, no_longer_in_flight: gone };
            assert_eq!(imbalance(&totals(before), &slots, &totals(after)), expected, "{what}");
        }
    }
}
