//! The stores of a worker into its slots when a command begins, moves bytes, ends or is refused, in their order.
//!
//! Guarantees:
//! - The number of commands is stored after the other values of the same event, and `VERSION` after both. So a reader
//!   that sees the number sees the values.
//! - The end of a command of a sealed window changes two slots. The whole change is first written to a journal in the
//!   worker's own slot. If the process dies during the change, recovery completes it.

use crate::model::{Finished, Refused};

use super::slot::{Slot, offset, pack_halves};
use super::slot_copy::SlotCopy;

/// A slot and its position in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotRef {
    pub(crate) position: u32,
    pub(crate) slot: &'static Slot,
}

impl PartialEq for SlotRef {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for SlotRef {}

/// The end of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandEnd {
    pub(crate) finished: Finished,
    /// Whether the command costs its units. A command with a response of the subsystem always does.
    pub(crate) charged: bool,
    /// The moment of admission.
    pub(crate) opened_ns: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ns: u64,
}

/// Counts an admission: in the slot first, then in the worker's own slot. A difference between the two is an admission
/// in progress, and never an imbalance (`conservation`).
pub(crate) fn count_admission(own: &Slot, slot: &Slot, opened_ns: u64) {
    slot.add_admission(opened_ns);
    own.add_release(offset::WORKER_ADMITTED, 1);
}

/// Counts a refusal, in the order of [`count_admission`].
pub(crate) fn count_refusal(own: &Slot, slot: &Slot, refused: Refused) {
    slot.add_refusal(refused);
    own.add_release(offset::WORKER_REFUSED, 1);
}

/// Counts an end: announced in the worker's own slot, then in the order of [`count_admission`].
pub(crate) fn count_end(own: &Slot, slot: &Slot, end: &CommandEnd) {
    own.add(offset::WORKER_ENDING, 1);
    slot.add_end(end);
    own.add_release(offset::WORKER_FINISHED, 1);
}

impl Slot {
    /// Counts a command as received, in the worker's own slot.
    pub(crate) fn count_received(&self) {
        self.add(offset::WORKER_RECEIVED, 1);
    }

    /// Counts an admission at a moment of the epoch's monotonic clock.
    pub(crate) fn add_admission(&self, opened_ns: u64) {
        self.add(offset::STARTED, opened_ns);
        self.add_release(offset::ADMITTED, 1);
        self.bump_version();
    }

    pub(crate) fn add_refusal(&self, refused: Refused) {
        self.add_release(offset::REFUSED + refused.index(), 1);
        self.bump_version();
    }

    /// Counts bytes of a command in flight, at `REQUEST_BYTES` or `RESPONSE_BYTES`.
    pub(crate) fn add_bytes(&self, at: usize, bytes: u64) {
        self.add(at, bytes);
        self.bump_version();
    }

    /// Counts the end of a command that was admitted here. The number of commands is the last store of its record:
    /// after a crash in between, the command is still in flight.
    pub(crate) fn add_end(&self, end: &CommandEnd) {
        let at = offset::FINISHED + end.finished.index() * 4;
        self.add(at + 1, end.request_bytes);
        self.add(at + 2, end.response_bytes);
        self.add(at + 3, end.duration_ns);
        if let Some(charged) = offset::charged(end.finished) {
            self.add(charged, u64::from(end.charged));
        }
        self.add_release(at, 1);
        self.add(offset::STARTED, end.opened_ns.wrapping_neg());
        self.bump_version();
    }

    fn bump_version(&self) {
        self.add_release(offset::VERSION, 1);
    }
}

/// One store of a transfer.
#[derive(Clone, Copy, Debug)]
struct PendingStore {
    place: SlotRef,
    at: usize,
    value: u64,
}

/// The end of a command of a sealed window: the command ends in `to`, and is no longer in flight in `from`.
#[derive(Debug)]
pub(crate) struct EndTransfer([PendingStore; EndTransfer::STORES]);

impl EndTransfer {
    const STORES: usize = 13;

    /// Computes the stores. `own` is the worker's own slot, which also counts the end.
    pub(crate) fn new(end: &CommandEnd, from: SlotRef, to: SlotRef, own: SlotRef) -> Self {
        let bytes = [1, end.request_bytes, end.response_bytes];
        let record = [1, end.request_bytes, end.response_bytes, end.duration_ns];
        let more = |slot_ref: SlotRef, at: usize, by: u64| PendingStore {
            place: slot_ref,
            at,
            value: slot_ref.slot.get(at).wrapping_add(by),
        };
        let finished = offset::FINISHED + end.finished.index() * 4;
        // Outcomes of a subsystem's response have no such word: then 0 is added to the word of another outcome.
        let charged = offset::charged(end.finished).map_or((offset::CHARGED, 0), |at| (at, u64::from(end.charged)));
        Self(std::array::from_fn(|number| match number {
            0..3 => more(to, offset::LATE_IN + number, bytes[number]),
            3..7 => more(to, finished + number - 3, record[number - 3]),
            7..10 => more(from, offset::LATE_OUT + number - 7, bytes[number - 7]),
            10 => more(from, offset::STARTED, end.opened_ns.wrapping_neg()),
            11 => more(to, charged.0, charged.1),
            _ => more(own, offset::WORKER_FINISHED, 1),
        }))
    }

    /// Writes the pending stores to the journal in the worker's own slot.
    pub(crate) fn write_journal(&self, own: &Slot) {
        for (number, store) in self.0.iter().enumerate() {
            own.set(offset::JOURNAL + 2 * number, pack_halves(store.at as u32, store.place.position));
            own.set(offset::JOURNAL + 2 * number + 1, store.value);
        }
        own.set_release(offset::JOURNAL_LENGTH, Self::STORES as u64);
    }

    /// Applies the stores. Within `to` the number of commands is stored last, because readers load it first.
    pub(crate) fn apply(&self, own: &Slot) {
        for PendingStore { place: slot_ref, at, value } in self.in_store_order() {
            slot_ref.slot.set_release(*at, *value);
        }
        self.0[0].place.slot.bump_version();
        self.0[7].place.slot.bump_version();
        own.set_release(offset::JOURNAL_LENGTH, 0);
    }

    /// Applies only the first `stores` stores, as after the death of the process at that point.
    #[cfg(test)]
    pub(crate) fn apply_some(&self, stores: usize) {
        for PendingStore { place: slot_ref, at, value } in self.in_store_order().take(stores) {
            slot_ref.slot.set_release(*at, *value);
        }
    }

    /// Returns the stores in order: `to`, then `from`, then the worker's own slot. Each number of commands follows the
    /// bytes and durations of the same record.
    fn in_store_order(&self) -> impl Iterator<Item = &PendingStore> {
        const ORDER: [usize; EndTransfer::STORES] = [1, 2, 0, 4, 5, 6, 11, 3, 8, 9, 7, 10, 12];
        ORDER.iter().map(|number| &self.0[*number])
    }
}

/// Returns the pending stores in the journal of a dead worker's own slot: position, word and value.
pub(crate) fn journaled_stores(own: &SlotCopy) -> impl Iterator<Item = (u32, usize, u64)> + '_ {
    let count = usize::try_from(own.0[offset::JOURNAL_LENGTH]).map_or(0, |count| count.min(EndTransfer::STORES));
    (0..count).map(|number| {
        let (slot_ref, value) = (own.0[offset::JOURNAL + 2 * number], own.0[offset::JOURNAL + 2 * number + 1]);
        ((slot_ref >> 32) as u32, (slot_ref & 0xffff_ffff) as usize, value)
    })
}
