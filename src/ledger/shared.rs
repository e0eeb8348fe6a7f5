//! What the keeper and the workers tell each other: a few atomic words, one channel towards the keeper.
//!
//! Guarantees: no lock is taken and nobody waits on the way of a command.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::error::LedgerError;
use super::fold::OpenRows;
use super::totals::Totals;
use crate::model::Window;

/// What the keeper is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// There is something to do before the next turn: a worker is short of slots, or somebody waits for a sync.
    Wake,
    /// What is counted at this moment.
    Totals(oneshot::Sender<Totals>),
    /// The rows that the book does not have for good yet.
    OpenRows(oneshot::Sender<OpenRows>),
    /// Sync, fold and seal now.
    Fold(oneshot::Sender<Result<(), LedgerError>>),
    /// End the epoch cleanly.
    Close,
    /// Stop where you stand, as a crash does.
    Abandon,
}

/// Words that the keeper writes and the workers read.
#[derive(Debug)]
pub(super) struct Shared {
    /// Nothing may be counted into windows before this one any more: they are being sealed.
    sealing: AtomicU32,
    /// Windows before this one are sealed and in the book; their idle slots may be used again.
    sealed: AtomicU32,
    /// Folds that are in the book.
    pub(super) folds: AtomicU64,
    /// Syncs begun.
    syncs: AtomicU64,
    /// Somebody waits for a sync.
    sync_wanted: AtomicBool,
    /// One for each worker.
    pub(super) workers: Vec<Worker>,
}

/// Words that one worker writes and the keeper reads.
#[derive(Debug)]
pub(super) struct Worker {
    /// The `sealing` that the worker keeps to; `u32::MAX` while there is no meter.
    acknowledged: AtomicU32,
    /// Slots taken and not given back.
    pub(super) occupied: AtomicU32,
    /// Slots that the worker's present window uses.
    pub(super) in_window: AtomicU32,
    /// Received - refused - finished - in flight, at the last tick.
    pub(super) imbalance: AtomicI64,
}

impl Shared {
    pub(super) fn new(workers: usize) -> Self {
        let worker = || Worker {
            acknowledged: AtomicU32::new(u32::MAX),
            occupied: AtomicU32::new(0),
            in_window: AtomicU32::new(0),
            imbalance: AtomicI64::new(0),
        };
        Self {
            sealing: AtomicU32::new(0),
            sealed: AtomicU32::new(0),
            folds: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_wanted: AtomicBool::new(false),
            workers: (0..workers).map(|_| worker()).collect(),
        }
    }

    /// Asks all workers to leave the windows before `window` alone; whether all have said they do.
    pub(super) fn ask_to_leave(&self, window: Window) -> bool {
        self.sealing.store(window.0, Ordering::SeqCst);
        self.workers.iter().all(|worker| worker.acknowledged.load(Ordering::SeqCst) >= window.0)
    }

    /// The first window that may be counted into.
    pub(super) fn sealing(&self) -> Window {
        Window(self.sealing.load(Ordering::SeqCst))
    }

    pub(super) fn set_sealed(&self, window: Window) {
        self.sealed.store(window.0, Ordering::Release);
    }

    pub(super) fn sealed(&self) -> Window {
        Window(self.sealed.load(Ordering::Acquire))
    }

    /// Registers the wish for a sync that begins after this call; returns its number and whether the keeper must be
    /// woken. The fence pairs with the one in [`Shared::begin_sync`]: a sync numbered above the one read here sees every
    /// store made before.
    pub(super) fn want_sync(&self) -> (u64, bool) {
        fence(Ordering::SeqCst);
        let next = self.syncs.load(Ordering::SeqCst) + 1;
        (next, !self.sync_wanted.swap(true, Ordering::SeqCst))
    }

    /// The number of the sync that begins now.
    pub(super) fn begin_sync(&self) -> u64 {
        self.sync_wanted.store(false, Ordering::SeqCst);
        let number = self.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        fence(Ordering::SeqCst);
        number
    }

    pub(super) fn is_sync_wanted(&self) -> bool {
        self.sync_wanted.load(Ordering::SeqCst)
    }
}

impl Worker {
    /// Promises to count nothing into windows before `window`, after everything counted so far.
    pub(super) fn acknowledge(&self, window: Window) {
        self.acknowledged.store(window.0, Ordering::SeqCst);
    }

    /// There is no meter any more, or none yet.
    pub(super) fn leave(&self) {
        self.acknowledged.store(u32::MAX, Ordering::SeqCst);
    }
}

/// The way to the keeper.
pub(super) type Requests = mpsc::Sender<Request>;
