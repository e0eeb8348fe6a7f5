//! What is claimed of the words that threads share. Each model is one claim in a few steps: worker threads on one side,
//! the keeper or a reader on the other.

use loom::sync::Arc;
use loom::thread;

use super::atomics::{AtomicU64, Ordering};
use super::balance::{Counted, Said, imbalance};
use super::counting::{self, End};
use super::signals::Shared;
use super::slot::{Kind, Slot, pair, word};
use super::words::Words;
use crate::model::{Finished, Window};

const END: End =
    End { finished: Finished::Ok, charged: true, opened_ns: 0, request_bytes: 0, response_bytes: 0, duration_ns: 0 };

fn slot(asked: &[usize], window: u32) -> Arc<Slot> {
    let slot = Slot::asking(asked);
    put_to_use(&slot, window);
    Arc::new(slot)
}

fn put_to_use(slot: &Slot, window: u32) {
    slot.begin(Kind::Count, |slot| slot.set(word::WHERE, pair(window, 0)));
}

/// A slot goes from one use to the next while it is copied: the copy is of one of them, or there is none.
pub fn no_slot_is_read_half_owned() {
    let slot = slot(&[word::STATE, word::WHERE, word::ADMITTED], 1);
    slot.admit(0);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            put_to_use(&slot, 2);
        }
    });
    if let Some(words) = slot.words().filter(|words| words.kind() == Kind::Count) {
        let copy = (words.window(), words.0[word::ADMITTED]);
        assert!([(Window(1), 1), (Window(2), 0)].contains(&copy), "{copy:?}");
    }
    worker.join().expect("a worker");
}

/// What has the same first cache line as at the last fold was copied whole at the last fold.
pub fn no_count_is_missed_by_a_glance() {
    let slot = slot(&[word::ADMITTED, word::VERSION], 1);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            slot.admit(0);
            slot.admit(0);
        }
    });
    let (glance, words) = (slot.glance(), slot.words().expect("a slot at rest"));
    worker.join().expect("a worker");
    if slot.glance() == glance {
        assert_eq!(words.0[word::ADMITTED], 2, "the keeper will not look at it again");
    }
}

/// A copy made at any moment never holds more ends than beginnings.
pub fn no_copy_shows_more_ends_than_beginnings() {
    let slot = slot(&[word::ADMITTED, word::FINISHED], 1);
    let worker = thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            slot.take_over();
            for _ in 0..2 {
                slot.admit(0);
                slot.finish(&END);
            }
        }
    });
    let words = slot.words().expect("a slot at rest");
    let (begun, ended) = (words.0[word::ADMITTED], words.finished(Finished::Ok).commands);
    assert!(ended <= begun, "{ended} of {begun} have ended");
    worker.join().expect("a worker");
}

/// Whenever slots and workers are held against each other, what is in a worker's hands at that moment is no imbalance.
pub fn no_command_in_hand_is_an_imbalance() {
    const OWN: [usize; 4] = [word::WORKER_RECEIVED, word::WORKER_ADMITTED, word::WORKER_ENDING, word::WORKER_FINISHED];
    let (own, slot) = (Arc::new(Slot::asking(&OWN)), slot(&[word::ADMITTED, word::FINISHED], 1));
    let worker = thread::spawn({
        let (own, slot) = (Arc::clone(&own), Arc::clone(&slot));
        move || {
            own.take_over();
            slot.take_over();
            own.receive();
            counting::admit(&own, &slot, 0);
            counting::finish(&own, &slot, &END);
        }
    });
    assert_eq!(compare(&own, &slot), 0);
    worker.join().expect("a worker");
    assert_eq!(compare(&own, &slot), 0);
}

fn compare(own: &Slot, slot: &Slot) -> i64 {
    let before = Said::by(std::iter::once(own));
    let mut counted = Counted::default();
    counted.add_slot(&Words::EMPTY, &slot.words().expect("a slot at rest"));
    imbalance(&before, &counted, &Said::by(std::iter::once(own)))
}

/// A slot that is used again after two folds has been copied by one that began after its last change.
pub fn no_slot_is_used_again_before_a_fold_has_seen_it() {
    let (shared, slot) = (Arc::new(Shared::new(1)), slot(&[word::STATE, word::ADMITTED], 1));
    let worker = thread::spawn({
        let (shared, slot) = (Arc::clone(&shared), Arc::clone(&slot));
        move || {
            slot.take_over();
            slot.admit(0);
            let idle_since = shared.folds();
            let has_rested = shared.folds() >= idle_since + 2;
            if has_rested {
                slot.end();
            }
            has_rested
        }
    });
    let mut seen = 0;
    for _ in 0..2 {
        shared.begin_fold();
        seen = slot.words().filter(|words| words.kind() == Kind::Count).map_or(seen, |words| words.0[word::ADMITTED]);
        shared.end_fold();
    }
    if worker.join().expect("a worker") {
        assert_eq!(seen, 1, "given back and never folded");
    }
}

/// With `durability: machine` an answer waits for the sync whose number it was told: that one and all later ones carry its
/// admission, and one of them will be made.
pub fn no_answer_is_released_before_it_is_durable() {
    let (shared, admitted) = (Arc::new(Shared::new(1)), Arc::new(AtomicU64::new(0)));
    let worker = thread::spawn({
        let (shared, admitted) = (Arc::clone(&shared), Arc::clone(&admitted));
        move || {
            admitted.store(1, Ordering::Relaxed);
            shared.want_sync()
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
    assert!(is_done || must_wake && shared.is_sync_wanted(), "{number} waits for ever");
}

/// Two answers at once: neither waits for ever because the other has woken the keeper.
pub fn no_answer_waits_for_ever() {
    let shared = Arc::new(Shared::new(2));
    let ask = |shared: &Arc<Shared>| {
        let shared = Arc::clone(shared);
        thread::spawn(move || shared.want_sync().0)
    };
    let workers = [ask(&shared), ask(&shared)];
    let sync = shared.begin_sync();
    let numbers = workers.map(|worker| worker.join().expect("a worker"));
    let waits = numbers.iter().any(|number| *number > sync);
    assert!(!waits || shared.is_sync_wanted(), "{numbers:?} after {sync}");
}

const HOUR: Window = Window(4);

/// When every worker has said that it has left an hour, everything counted into it is seen, and nothing follows.
pub fn nothing_is_counted_into_an_hour_that_is_being_sealed() {
    let (shared, counted) = (Arc::new(Shared::new(1)), Arc::new(AtomicU64::new(0)));
    let sealing = shared.workers[0].arrive(&shared);
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

/// A worker that comes while an hour is being sealed either keeps out of it or is waited for.
pub fn nothing_is_counted_into_a_sealed_hour_by_a_worker_that_has_just_come() {
    let (shared, counted) = (Arc::new(Shared::new(1)), Arc::new(AtomicU64::new(0)));
    let worker = thread::spawn({
        let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
        move || {
            if shared.workers[0].arrive(&shared) <= HOUR {
                counted.store(1, Ordering::Relaxed);
                shared.workers[0].leave();
            }
        }
    });
    seal_and_compare(&shared, &counted, worker);
}

fn seal_and_compare(shared: &Shared, counted: &AtomicU64, worker: thread::JoinHandle<()>) {
    let left = shared.ask_to_leave(HOUR.next());
    let sealed = (left > HOUR).then(|| counted.load(Ordering::Relaxed));
    worker.join().expect("a worker");
    if let Some(sealed) = sealed {
        assert_eq!(counted.load(Ordering::Relaxed), sealed, "counted after the seal");
    }
}
