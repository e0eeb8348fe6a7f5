//! What a worker stores into its slots when a command begins, moves bytes, ends or is refused; and in which order.
//!
//! Guarantees: the sum that says that something happened is stored after what belongs to it, and `VERSION` after both, so
//! a reader that sees the one sees the other. The end of a command whose window is sealed, which two slots must show, is
//! first written down whole in the worker's own slot: a process that dies in the middle has ended it all the same.

use super::slot::{Slot, pair, word};
use super::words::Words;
use crate::model::{Finished, Refused};

/// A slot and its position in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) position: u32,
    pub(super) slot: &'static Slot,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Place {}

/// The end of one command.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) finished: Finished,
    /// Whether it costs its units. What a subsystem answered always does.
    pub(super) charged: bool,
    /// When it was admitted.
    pub(super) opened_ns: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) duration_ns: u64,
}

/// Counts an admission: in the slot first, then in the worker's own. A worker that has counted in a slot and not yet in its
/// own is caught in the act, never out of balance (`balance`).
pub(super) fn admit(own: &Slot, slot: &Slot, opened_ns: u64) {
    slot.admit(opened_ns);
    own.add_last(word::WORKER_ADMITTED, 1);
}

/// Counts a refusal, in the order of [`admit`].
pub(super) fn refuse(own: &Slot, slot: &Slot, refused: Refused) {
    slot.refuse(refused);
    own.add_last(word::WORKER_REFUSED, 1);
}

/// Counts an end: announced in the worker's own slot, then in the order of [`admit`].
pub(super) fn finish(own: &Slot, slot: &Slot, end: &End) {
    own.add(word::WORKER_ENDING, 1);
    slot.finish(end);
    own.add_last(word::WORKER_FINISHED, 1);
}

impl Slot {
    /// Counts a command as received, in the worker's own slot.
    pub(super) fn receive(&self) {
        self.add(word::WORKER_RECEIVED, 1);
    }

    /// Counts an admission, at a moment of the epoch's monotonic clock.
    pub(super) fn admit(&self, opened_ns: u64) {
        self.add(word::STARTED, opened_ns);
        self.add_last(word::ADMITTED, 1);
        self.changed();
    }

    pub(super) fn refuse(&self, refused: Refused) {
        self.add_last(word::REFUSED + refused.index(), 1);
        self.changed();
    }

    /// Counts bytes of a command in flight, at `REQUEST_BYTES` or `RESPONSE_BYTES`.
    pub(super) fn pass(&self, at: usize, bytes: u64) {
        self.add(at, bytes);
        self.changed();
    }

    /// Counts the end of a command that was admitted here. The number of commands comes last of its record: a crash in
    /// between leaves the command in flight.
    pub(super) fn finish(&self, end: &End) {
        let at = word::FINISHED + end.finished.index() * 4;
        self.add(at + 1, end.request_bytes);
        self.add(at + 2, end.response_bytes);
        self.add(at + 3, end.duration_ns);
        if let Some(charged) = word::charged(end.finished) {
            self.add(charged, u64::from(end.charged));
        }
        self.add_last(at, 1);
        self.add(word::STARTED, end.opened_ns.wrapping_neg());
        self.changed();
    }

    fn changed(&self) {
        self.add_last(word::VERSION, 1);
    }
}

/// A store that is about to be made.
#[derive(Clone, Copy, Debug)]
struct Store {
    place: Place,
    at: usize,
    value: u64,
}

/// The end of a command of a sealed window: it ends in `to`, and is in flight in `from` no more.
#[derive(Debug)]
pub(super) struct Move([Store; Move::STORES]);

impl Move {
    const STORES: usize = 13;

    /// `own` is the worker's own slot, which counts the end too.
    pub(super) fn new(end: &End, from: Place, to: Place, own: Place) -> Self {
        let bytes = [1, end.request_bytes, end.response_bytes];
        let record = [1, end.request_bytes, end.response_bytes, end.duration_ns];
        let more = |place: Place, at: usize, by: u64| Store { place, at, value: place.slot.get(at).wrapping_add(by) };
        let finished = word::FINISHED + end.finished.index() * 4;
        // What a subsystem answered has no such word: then nothing is added to another's.
        let charged = word::charged(end.finished).map_or((word::CHARGED, 0), |at| (at, u64::from(end.charged)));
        Self(std::array::from_fn(|number| match number {
            0..3 => more(to, word::LATE_IN + number, bytes[number]),
            3..7 => more(to, finished + number - 3, record[number - 3]),
            7..10 => more(from, word::LATE_OUT + number - 7, bytes[number - 7]),
            10 => more(from, word::STARTED, end.opened_ns.wrapping_neg()),
            11 => more(to, charged.0, charged.1),
            _ => more(own, word::WORKER_FINISHED, 1),
        }))
    }

    /// Writes down in the worker's own slot what is going to be stored.
    pub(super) fn announce(&self, own: &Slot) {
        for (number, store) in self.0.iter().enumerate() {
            own.set(word::MOVE + 2 * number, pair(store.at as u32, store.place.position));
            own.set(word::MOVE + 2 * number + 1, store.value);
        }
        own.set_last(word::MOVES, Self::STORES as u64);
    }

    /// Stores it. Within `to` the number of commands is what a reader asks for first, so it comes last.
    pub(super) fn make(&self, own: &Slot) {
        for Store { place, at, value } in self.in_order() {
            place.slot.set_last(*at, *value);
        }
        self.0[0].place.slot.changed();
        self.0[7].place.slot.changed();
        own.set_last(word::MOVES, 0);
    }

    /// The first so many of its stores, as a process leaves them that dies there.
    #[cfg(test)]
    pub(super) fn make_some(&self, stores: usize) {
        for Store { place, at, value } in self.in_order().take(stores) {
            place.slot.set_last(*at, *value);
        }
    }

    /// What ends first, then the numbers of commands: `to`'s, `from`'s, the worker's.
    fn in_order(&self) -> impl Iterator<Item = &Store> {
        const ORDER: [usize; Move::STORES] = [1, 2, 0, 4, 5, 6, 11, 3, 8, 9, 7, 10, 12];
        ORDER.iter().map(|number| &self.0[*number])
    }
}

/// What a dead worker's own slot says it was about to store: position, word and value.
pub(super) fn announced(own: &Words) -> impl Iterator<Item = (u32, usize, u64)> + '_ {
    let count = usize::try_from(own.0[word::MOVES]).map_or(0, |count| count.min(Move::STORES));
    (0..count).map(|number| {
        let (place, value) = (own.0[word::MOVE + 2 * number], own.0[word::MOVE + 2 * number + 1]);
        ((place >> 32) as u32, (place & 0xffff_ffff) as usize, value)
    })
}
