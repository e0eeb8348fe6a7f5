//! The seal protocol: the atomic words through which the keeper and the workers signal to each other.
//!
//! Guarantees:
//! - No side takes a lock, and the path of a command does not wait.
//! - Store-load pairs (Dekker) have a `SeqCst` fence on both sides: each side stores its own word, executes the fence,
//!   and then loads the other side's word. The loom models under `models/` explore every order.
//!
//! Leaves requests and replies to `keeper::requests`.

use crate::model::Window;

use super::atomics::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// Words that the keeper writes and the workers read.
#[derive(Debug)]
pub(crate) struct SharedFlags {
    /// The first window that accepts counts. Earlier windows are being sealed.
    sealing_before: AtomicU32,
    /// Windows before this one are sealed and in the book; their idle slots may be reused.
    sealed_before: AtomicU32,
    /// The number of folds that are in the book.
    folds: AtomicU64,
    /// The number of syncs that have begun.
    syncs: AtomicU64,
    /// Whether a command waits for a sync.
    sync_requested: AtomicBool,
    /// One entry per worker.
    pub(crate) workers: Vec<WorkerFlags>,
}

/// Words that one worker writes and the keeper reads.
#[derive(Debug)]
pub(crate) struct WorkerFlags {
    /// The `sealing_before` that the worker has acknowledged; `u32::MAX` while there is no meter.
    acknowledged_before: AtomicU32,
    /// Slots taken and not returned.
    pub(crate) occupied_slots: AtomicU32,
    /// Slots that should be free: what an hour needs.
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

    /// Requests all workers to stop counting into windows before `window`. Returns the window before which all workers
    /// have acknowledged a request, possibly an earlier one. So hours are sealed even if they pass faster than workers
    /// check. The fence pairs with the one in [`WorkerFlags::register`]: a worker that is missed here sees the request
    /// before it counts anything.
    pub(crate) fn request_seal(&self, window: Window) -> Window {
        self.sealing_before.store(window.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let left = self.workers.iter().map(|worker| worker.acknowledged_before.load(Ordering::SeqCst));
        Window(left.fold(window.0, u32::min))
    }

    /// Returns the first window that accepts counts.
    pub(crate) fn sealing(&self) -> Window {
        Window(self.sealing_before.load(Ordering::SeqCst))
    }

    pub(crate) fn set_sealed(&self, window: Window) {
        self.sealed_before.store(window.0, Ordering::Release);
    }

    pub(crate) fn sealed(&self) -> Window {
        Window(self.sealed_before.load(Ordering::Acquire))
    }

    /// Marks the beginning of a fold. The fence pairs with the one in [`SharedFlags::folds`]: after a worker has called
    /// `folds`, a fold that begins after the end of the next fold sees every store made before the call.
    pub(crate) fn begin_fold(&self) {
        fence(Ordering::SeqCst);
    }

    /// Records that the sums of the fold are in the book.
    pub(crate) fn end_fold(&self) {
        self.folds.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of folds in the book. After two more folds, one of them began after this call and has seen
    /// all earlier stores.
    pub(crate) fn folds(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.folds.load(Ordering::Acquire)
    }

    /// Requests a sync that begins after this call. Returns the number of that sync, and whether the keeper must be
    /// woken. The fence pairs with the one in [`SharedFlags::begin_sync`]: a sync with a number above the one read here
    /// sees every earlier store.
    pub(crate) fn request_sync(&self) -> (u64, bool) {
        fence(Ordering::SeqCst);
        let next = self.syncs.load(Ordering::SeqCst) + 1;
        (next, !self.sync_requested.swap(true, Ordering::SeqCst))
    }

    /// Returns the number of the sync that begins now.
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
    /// Registers a meter. Returns the first window that the meter may count into.
    pub(crate) fn register(&self, shared: &SharedFlags) -> Window {
        self.acknowledge(Window(0));
        fence(Ordering::SeqCst);
        let sealing = shared.sealing();
        self.acknowledge(sealing);
        sealing
    }

    /// Acknowledges that the worker counts nothing more into windows before `window`; all earlier counts are stored
    /// before.
    pub(crate) fn acknowledge(&self, window: Window) {
        self.acknowledged_before.store(window.0, Ordering::SeqCst);
    }

    /// Records that the worker has no meter.
    pub(crate) fn deregister(&self) {
        self.acknowledged_before.store(u32::MAX, Ordering::SeqCst);
    }
}
