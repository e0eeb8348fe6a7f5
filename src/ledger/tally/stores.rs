//! What a worker stores into its slots when a command begins, moves bytes, ends or is refused; and in which order.
//!
//! Guarantees: the sum that says that something happened is stored after what belongs to it, and `VERSION` after both, so
//! a reader that sees the one sees the other. The end of a command whose window is sealed, which two slots must show, is
//! first written down whole in the worker's own slot: a process that dies in the middle has ended it all the same.

use super::slot::{Slot, offset, pack_halves};
use super::slot_copy::SlotCopy;
use crate::model::{Finished, Refused};

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
    /// Whether it costs its units. What a subsystem answered always does.
    pub(crate) charged: bool,
    /// When it was admitted.
    pub(crate) opened_ns: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ns: u64,
}

/// Counts an admission: in the slot first, then in the worker's own. A worker that has counted in a slot and not yet in its
/// own is caught in the act, never out of balance (`conservation`).
pub(crate) fn count_admission(own: &Slot, slot: &Slot, opened_ns: u64) {
    slot.add_admission(opened_ns);
    own.add_release(offset::WORKER_ADMITTED, 1);
}

/// Counts a refusal, in the order of [`admit`].
pub(crate) fn count_refusal(own: &Slot, slot: &Slot, refused: Refused) {
    slot.add_refusal(refused);
    own.add_release(offset::WORKER_REFUSED, 1);
}

/// Counts an end: announced in the worker's own slot, then in the order of [`admit`].
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

    /// Counts an admission, at a moment of the epoch's monotonic clock.
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

    /// Counts the end of a command that was admitted here. The number of commands comes last of its record: a crash in
    /// between leaves the command in flight.
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

/// A store that is about to be made.
#[derive(Clone, Copy, Debug)]
struct PendingStore {
    place: SlotRef,
    at: usize,
    value: u64,
}

/// The end of a command of a sealed window: it ends in `to`, and is in flight in `from` no more.
#[derive(Debug)]
pub(crate) struct EndTransfer([PendingStore; EndTransfer::STORES]);

impl EndTransfer {
    const STORES: usize = 13;

    /// `own` is the worker's own slot, which counts the end too.
    pub(crate) fn new(end: &CommandEnd, from: SlotRef, to: SlotRef, own: SlotRef) -> Self {
        let bytes = [1, end.request_bytes, end.response_bytes];
        let record = [1, end.request_bytes, end.response_bytes, end.duration_ns];
        let more = |slot_ref: SlotRef, at: usize, by: u64| PendingStore {
            place: slot_ref,
            at,
            value: slot_ref.slot.get(at).wrapping_add(by),
        };
        let finished = offset::FINISHED + end.finished.index() * 4;
        // What a subsystem answered has no such word: then nothing is added to another's.
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

    /// Writes down in the worker's own slot what is going to be stored.
    pub(crate) fn write_journal(&self, own: &Slot) {
        for (number, store) in self.0.iter().enumerate() {
            own.set(offset::JOURNAL + 2 * number, pack_halves(store.at as u32, store.place.position));
            own.set(offset::JOURNAL + 2 * number + 1, store.value);
        }
        own.set_release(offset::JOURNAL_LENGTH, Self::STORES as u64);
    }

    /// Stores it. Within `to` the number of commands is what a reader asks for first, so it comes last.
    pub(crate) fn apply(&self, own: &Slot) {
        for PendingStore { place: slot_ref, at, value } in self.in_store_order() {
            slot_ref.slot.set_release(*at, *value);
        }
        self.0[0].place.slot.bump_version();
        self.0[7].place.slot.bump_version();
        own.set_release(offset::JOURNAL_LENGTH, 0);
    }

    /// The first so many of its stores, as a process leaves them that dies there.
    #[cfg(test)]
    pub(crate) fn apply_some(&self, stores: usize) {
        for PendingStore { place: slot_ref, at, value } in self.in_store_order().take(stores) {
            slot_ref.slot.set_release(*at, *value);
        }
    }

    /// What ends first, then the numbers of commands: `to`'s, `from`'s, the worker's.
    fn in_store_order(&self) -> impl Iterator<Item = &PendingStore> {
        const ORDER: [usize; EndTransfer::STORES] = [1, 2, 0, 4, 5, 6, 11, 3, 8, 9, 7, 10, 12];
        ORDER.iter().map(|number| &self.0[*number])
    }
}

/// What a dead worker's own slot says it was about to store: position, word and value.
pub(crate) fn journaled_stores(own: &SlotCopy) -> impl Iterator<Item = (u32, usize, u64)> + '_ {
    let count = usize::try_from(own.0[offset::JOURNAL_LENGTH]).map_or(0, |count| count.min(EndTransfer::STORES));
    (0..count).map(|number| {
        let (slot_ref, value) = (own.0[offset::JOURNAL + 2 * number], own.0[offset::JOURNAL + 2 * number + 1]);
        ((slot_ref >> 32) as u32, (slot_ref & 0xffff_ffff) as usize, value)
    })
}
