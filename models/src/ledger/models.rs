//! The models: each is one property of the words that threads share, in a few steps. Worker threads are on one side,
//! the keeper or a reader on the other.

use loom::sync::Arc;
use loom::thread;

use super::atomics::{AtomicU64, Ordering};
use super::conservation::{SlotTotals, WorkerTotals, imbalance};
use super::seal_protocol::SharedFlags;
use super::slot::{Slot, SlotKind, offset, pack_halves};
use super::slot_copy::SlotCopy;
use super::stores::{self, CommandEnd};
use crate::model::{Finished, Window};

const END: CommandEnd = CommandEnd {
    finished: Finished::Ok,
    charged: true,
    opened_ns: 0,
    request_bytes: 0,
    response_bytes: 0,
    duration_ns: 0,
};

fn slot(asked: &[usize], window: u32) -> Arc<Slot> {
    let slot = Slot::asking(asked);
    put_to_use(&slot, window);
    Arc::new(slot)
}

fn put_to_use(slot: &Slot, window: u32) {
    slot.begin_use(SlotKind::Count, |slot| slot.set(offset::WINDOW_AND_SERIES, pack_halves(window, 0)));
}

/// If a slot changes its use during a copy (a seqlock-like read), the copy is of one of the two uses, or there is no
/// copy.
pub fn no_slot_is_read_half_owned() {
    let slot = slot(&[offset::STATE, offset::WINDOW_AND_SERIES, offset::ADMITTED], 1);
    slot.add_admission(0);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            put_to_use(&slot, 2);
        }
    });
    if let Some(words) = slot.copy().filter(|words| words.kind() == SlotKind::Count) {
        let copy = (words.window(), words.0[offset::ADMITTED]);
        assert!([(Window(1), 1), (Window(2), 0)].contains(&copy), "{copy:?}");
    }
    worker.join().expect("a worker");
}

/// If the first cache line of a slot is unchanged since the last fold, the last fold copied the slot completely.
pub fn no_count_is_missed_by_a_glance() {
    let slot = slot(&[offset::ADMITTED, offset::VERSION], 1);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            slot.add_admission(0);
            slot.add_admission(0);
        }
    });
    let (glance, words) = (slot.version(), slot.copy().expect("a slot at rest"));
    worker.join().expect("a worker");
    if slot.version() == glance {
        assert_eq!(words.0[offset::ADMITTED], 2, "the keeper will not look at it again");
    }
}

/// A copy never contains more ends than admissions, at any moment.
pub fn no_copy_shows_more_ends_than_beginnings() {
    let slot = slot(&[offset::ADMITTED, offset::FINISHED], 1);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            for _ in 0..2 {
                slot.add_admission(0);
                slot.add_end(&END);
            }
        }
    });
    let words = slot.copy().expect("a slot at rest");
    let (begun, ended) = (words.0[offset::ADMITTED], words.finished(Finished::Ok).commands);
    assert!(ended <= begun, "{ended} of {begun} have ended");
    worker.join().expect("a worker");
}

/// In a comparison of slots and workers at any moment, commands in flight are not an imbalance.
pub fn no_command_in_hand_is_an_imbalance() {
    const OWN: [usize; 4] =
        [offset::WORKER_RECEIVED, offset::WORKER_ADMITTED, offset::WORKER_ENDING, offset::WORKER_FINISHED];
    let (own, slot) = (Arc::new(Slot::asking(&OWN)), slot(&[offset::ADMITTED, offset::FINISHED], 1));
    let worker = thread::spawn({
        let (own, slot) = (Arc::clone(&own), Arc::clone(&slot));
        move || {
            own.take_over();
            slot.take_over();
            own.count_received();
            stores::count_admission(&own, &slot, 0);
            stores::count_end(&own, &slot, &END);
        }
    });
    assert_eq!(compare(&own, &slot), 0);
    worker.join().expect("a worker");
    assert_eq!(compare(&own, &slot), 0);
}

fn compare(own: &Slot, slot: &Slot) -> i64 {
    let before = WorkerTotals::from_worker_slots(std::iter::once(own));
    let mut counted = SlotTotals::default();
    counted.add_slot(&SlotCopy::EMPTY, &slot.copy().expect("a slot at rest"));
    imbalance(&before, &counted, &WorkerTotals::from_worker_slots(std::iter::once(own)))
}

/// A slot that is reused after two folds was copied by a fold that began after the slot's last change.
pub fn no_slot_is_used_again_before_a_fold_has_seen_it() {
    let (shared, slot) = (Arc::new(SharedFlags::new(1)), slot(&[offset::STATE, offset::ADMITTED], 1));
    let worker = thread::spawn({
        let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
        move || {
            slot.take_over();
            slot.add_admission(0);
            let idle_since = shared.folds();
            let has_rested = shared.folds() >= idle_since + 2;
            if has_rested {
                slot.end_use();
            }
            has_rested
        }
    });
    let mut seen = 0;
    for _ in 0..2 {
        shared.begin_fold();
        seen =
            slot.copy().filter(|words| words.kind() == SlotKind::Count).map_or(seen, |words| words.0[offset::ADMITTED]);
        shared.end_fold();
    }
    if worker.join().expect("a worker") {
        assert_eq!(seen, 1, "given back and never folded");
    }
}

/// With `durability: machine`, a response waits for the sync with a given number. This sync and all later ones contain
/// its admission, and one of them will happen.
pub fn no_answer_is_released_before_it_is_durable() {
    let (shared, admitted) = (Arc::new(SharedFlags::new(1)), Arc::new(AtomicU64::new(0)));
    let worker = thread::spawn({
        let (shared, admitted) = (Arc::clone(&shared), Arc::clone(&admitted));
        move || {
            admitted.store(1, Ordering::Relaxed);
            shared.request_sync()
        }
    });
    let mut syncs = Vec::new();
    for _ in 0..2 {
        syncs.push((shared.begin_sync(), admitted.load(Ordering::Relaxed)));
    }
    let (number, must_wake) = worker.join().expect("a worker");
    for (sync, carried) in &syncs {
        assert!(*sync < number || *carried == 1, "sync {sync} releases {number} and does not carry it");
    }
    let is_done = syncs.iter().any(|(sync, _)| *sync >= number);
    assert!(is_done || must_wake && shared.is_sync_requested(), "{number} waits for ever");
}

/// Two responses at once: neither waits forever because the other has already woken the keeper.
pub fn no_answer_waits_for_ever() {
    let shared = Arc::new(SharedFlags::new(2));
    let ask = |shared: &Arc<SharedFlags>| {
        let shared = Arc::clone(shared);
        thread::spawn(move || shared.request_sync().0)
    };
    let workers = [ask(&shared), ask(&shared)];
    let sync = shared.begin_sync();
    let numbers = workers.map(|worker| worker.join().expect("a worker"));
    let waits = numbers.iter().any(|number| *number > sync);
    assert!(!waits || shared.is_sync_requested(), "{numbers:?} after {sync}");
}

const HOUR: Window = Window(4);

/// After every worker has acknowledged the end of an hour, all its counts are visible, and no count follows.
pub fn nothing_is_counted_into_an_hour_that_is_being_sealed() {
    let (shared, counted) = (Arc::new(SharedFlags::new(1)), Arc::new(AtomicU64::new(0)));
    let sealing = shared.workers[0].register(&shared);
    let worker = thread::spawn({
        let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
        move || {
            if sealing <= HOUR {
                counted.store(1, Ordering::Relaxed);
            }
            let sealing = shared.sealing();
            shared.workers[0].acknowledge(sealing);
            if sealing <= HOUR {
                counted.store(2, Ordering::Relaxed);
            }
        }
    });
    seal_and_compare(&shared, &counted, worker);
}

/// A worker that registers during the sealing of an hour either does not count into the hour, or the seal waits for it.
pub fn nothing_is_counted_into_a_sealed_hour_by_a_worker_that_has_just_come() {
    let (shared, counted) = (Arc::new(SharedFlags::new(1)), Arc::new(AtomicU64::new(0)));
    let worker = thread::spawn({
        let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
        move || {
            if shared.workers[0].register(&shared) <= HOUR {
                counted.store(1, Ordering::Relaxed);
                shared.workers[0].deregister();
            }
        }
    });
    seal_and_compare(&shared, &counted, worker);
}

fn seal_and_compare(shared: &SharedFlags, counted: &AtomicU64, worker: thread::JoinHandle<()>) {
    let left = shared.request_seal(HOUR.next());
    let sealed = (left > HOUR).then(|| counted.load(Ordering::Relaxed));
    worker.join().expect("a worker");
    if let Some(sealed) = sealed {
        assert_eq!(counted.load(Ordering::Relaxed), sealed, "counted after the seal");
    }
}
