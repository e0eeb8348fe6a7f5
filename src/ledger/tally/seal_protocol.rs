//! The words through which the keeper and the workers signal to each other.
//!
//! Guarantees: no lock is taken and nobody waits on the way of a command. Where one side must not miss what the other has
//! just said while the other must not miss what it has just done, both have a `SeqCst` fence between the two; `models/`
//! tries every order. Leaves questions and answers to `shared`.

use super::atomics::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
use crate::model::Window;

/// Words that the keeper writes and the workers read.
#[derive(Debug)]
pub(crate) struct SharedFlags {
    /// Nothing may be counted into windows before this one any more: they are being sealed.
    sealing_before: AtomicU32,
    /// Windows before this one are sealed and in the book; their idle slots may be used again.
    sealed_before: AtomicU32,
    /// Folds that are in the book.
    folds: AtomicU64,
    /// Syncs begun.
    syncs: AtomicU64,
    /// Somebody waits for a sync.
    sync_requested: AtomicBool,
    /// One for each worker.
    pub(crate) workers: Vec<WorkerFlags>,
}

/// Words that one worker writes and the keeper reads.
#[derive(Debug)]
pub(crate) struct WorkerFlags {
    /// The `sealing` that the worker keeps to; `u32::MAX` while there is no meter.
    acknowledged_before: AtomicU32,
    /// Slots taken and not given back.
    pub(crate) occupied_slots: AtomicU32,
    /// Slots that the worker's present window uses.
    pub(crate) slots_per_window: AtomicU32,
    /// Received - refused - finished - in flight, at the last tick.
    pub(crate) imbalance: AtomicI64,
}

impl SharedFlags {
    pub(crate) fn new(workers: usize) -> Self {
        let worker = || WorkerFlags {
            acknowledged_before: AtomicU32::new(u32::MAX),
            occupied_slots: AtomicU32::new(0),
            slots_per_window: AtomicU32::new(0),
            imbalance: AtomicI64::new(0),
        };
        Self {
            sealing_before: AtomicU32::new(0),
            sealed_before: AtomicU32::new(0),
            folds: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_requested: AtomicBool::new(false),
            workers: (0..workers).map(|_| worker()).collect(),
        }
    }

    /// Asks all workers to leave the windows before `window` alone; returns the window before which all have said they do,
    /// of an earlier wish perhaps: hours that pass faster than workers look up are sealed all the same. The fence pairs with
    /// the one in [`WorkerFlags::register`]: a worker that is missed here sees the wish before it counts anything.
    pub(crate) fn request_seal(&self, window: Window) -> Window {
        self.sealing_before.store(window.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let left = self.workers.iter().map(|worker| worker.acknowledged_before.load(Ordering::SeqCst));
        Window(left.fold(window.0, u32::min))
    }

    /// The first window that may be counted into.
    pub(crate) fn sealing(&self) -> Window {
        Window(self.sealing_before.load(Ordering::SeqCst))
    }

    pub(crate) fn set_sealed(&self, window: Window) {
        self.sealed_before.store(window.0, Ordering::Release);
    }

    pub(crate) fn sealed(&self) -> Window {
        Window(self.sealed_before.load(Ordering::Acquire))
    }

    /// A fold begins. The fence pairs with the one in [`SharedFlags::folds`]: a fold that begins after the next one to end sees
    /// every store made before the worker asked.
    pub(crate) fn begin_fold(&self) {
        fence(Ordering::SeqCst);
    }

    /// What the fold has seen is in the book.
    pub(crate) fn end_fold(&self) {
        self.folds.fetch_add(1, Ordering::AcqRel);
    }

    /// Folds that are in the book. Two more, and one of them has begun after this call and seen all that was stored before.
    pub(crate) fn folds(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.folds.load(Ordering::Acquire)
    }

    /// Registers the wish for a sync that begins after this call; returns its number and whether the keeper must be
    /// woken. The fence pairs with the one in [`SharedFlags::begin_sync`]: a sync numbered above the one read here sees every
    /// store made before.
    pub(crate) fn request_sync(&self) -> (u64, bool) {
        fence(Ordering::SeqCst);
        let next = self.syncs.load(Ordering::SeqCst) + 1;
        (next, !self.sync_requested.swap(true, Ordering::SeqCst))
    }

    /// The number of the sync that begins now.
    pub(crate) fn begin_sync(&self) -> u64 {
        self.sync_requested.store(false, Ordering::SeqCst);
        let number = self.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        fence(Ordering::SeqCst);
        number
    }

    pub(crate) fn is_sync_requested(&self) -> bool {
        self.sync_requested.load(Ordering::SeqCst)
    }
}

impl WorkerFlags {
    /// There is a meter now: the first window that it may count into.
    pub(crate) fn register(&self, shared: &SharedFlags) -> Window {
        self.acknowledge(Window(0));
        fence(Ordering::SeqCst);
        let sealing = shared.sealing();
        self.acknowledge(sealing);
        sealing
    }

    /// Promises to count nothing into windows before `window`, after everything counted so far.
    pub(crate) fn acknowledge(&self, window: Window) {
        self.acknowledged_before.store(window.0, Ordering::SeqCst);
    }

    /// There is no meter any more, or none yet.
    pub(crate) fn deregister(&self) {
        self.acknowledged_before.store(u32::MAX, Ordering::SeqCst);
    }
}
