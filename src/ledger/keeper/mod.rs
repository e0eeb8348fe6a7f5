//! The keeper: the one thread of the gateway that writes the ledger to the disk.
//!
//! It syncs the tally, folds the tally into the book, seals hours, and adds slots before the free ones run out.
//!
//! Guarantees:
//! - A failed sync is never retried: the keeper gives up the ledger at once.
//! - A full disk loses nothing: the keeper retries every second.
//! - An hour is sealed only when every worker has acknowledged that it has left the hour.
//! - If a file of the ledger is removed, renamed or replaced, the keeper gives up the ledger within a second.

pub(crate) mod displaced_files;
pub(crate) mod recovery;
pub(crate) mod requests;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::{Clock, MonotonicTime};
use crate::lifecycle::{Readiness, ReadinessBlock};
use crate::model::Window;

use self::displaced_files::LedgerFileWatch;
use self::requests::{KeeperRequest, SharedFlags};
use super::book::book_writer::{BookUpdate, BookWriter};
use super::book::department_names::DepartmentNames;
use super::book::epoch_end::{EpochEnding, fallback_window};
use super::fold::{SeriesNames, TallyFold};
use super::tally::conservation::{WorkerTotals, imbalance};
use super::tally::file::{SlotSegment, TallyFile};
use super::tally::slot::{SlotVersion, offset};
use super::values::error::LedgerError;
use super::values::measures::{LedgerTotals, SyncTimes};

/// The interval between folds of the tally into the book.
const FOLD_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between syncs while no command begins or ends. Streams may move bytes during this time.
const IDLE_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Group commit: the time for which requests for a sync are collected before the next sync starts.
const GROUP_COMMIT_DELAY: Duration = Duration::from_millis(1);
/// The delay between the end of an hour and its seal, in seconds. The delay absorbs small clock corrections.
const SEAL_DELAY_SECONDS: i64 = 60;
/// The upper bounds of the histogram of sync durations, in microseconds.
const SYNC_BOUNDS_US: [u64; 8] = [100, 250, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000];

/// The keeper's state.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) epoch: u32,
    /// The ledger's clock: decides the window of a count.
    pub(crate) clock: Clock,
    pub(crate) sync_every: Duration,
    /// The age at which compaction removes the hours of a day.
    pub(crate) compact_after: Option<Duration>,
    pub(crate) ready: Readiness,
    /// Names of departments that are not in the book yet.
    pub(crate) pending_names: Option<DepartmentNames>,
    /// Present while folds into the book fail.
    pub(crate) fold_failing: Option<ReadinessBlock>,
    /// Present while there is no room for more slots.
    pub(crate) growth_failing: Option<ReadinessBlock>,
    pub(crate) shared: Arc<SharedFlags>,
    pub(crate) tally: TallyFile,
    pub(crate) book: BookWriter,
    pub(crate) fold: TallyFold,
    /// Checked once a second: counts in removed files are lost with the process.
    pub(crate) file_watch: LedgerFileWatch,
    /// The version of each slot at its last copy, by position.
    pub(crate) slot_versions: Vec<SlotVersion>,
    /// The difference between slots and workers at their last comparison.
    pub(crate) imbalance: i64,
    /// Hours and tables of names that were rewritten because the book differed from the tally.
    pub(crate) mended: u64,
    pub(crate) worker_channels: Vec<WorkerChannel>,
    pub(crate) synced: watch::Sender<u64>,
    pub(crate) schedule: KeeperSchedule,
    pub(crate) times: SyncTimes,
}

/// The keeper's end of the channel to one worker.
#[derive(Debug)]
pub(crate) struct WorkerChannel {
    pub(crate) segments: mpsc::Sender<SlotSegment>,
    /// Slots given to this worker so far, and slots per segment.
    pub(crate) slots_given: u32,
    pub(crate) segment_slots: u32,
}

/// The last times of periodic work, by the machine's clock and not the ledger's clock. The schedule decides when work
/// runs, and never what is written.
#[derive(Debug)]
pub(crate) struct KeeperSchedule {
    clock: Clock,
    /// The last check for changes to sync.
    last_check: MonotonicTime,
    last_sync: MonotonicTime,
    last_fold: MonotonicTime,
    /// The time since when there has been no room for more slots.
    disk_full_since: Option<MonotonicTime>,
    /// Commands begun and ended at the last sync.
    activity: u64,
}

/// The way in which the keeper ended.
enum KeeperExit {
    Closed,
    Abandoned,
}

impl KeeperSchedule {
    pub(crate) fn new(clock: Clock) -> Self {
        let now = clock.monotonic();
        Self { clock, last_check: now, last_sync: now, last_fold: now, disk_full_since: None, activity: 0 }
    }
}

/// Runs the keeper until the ledger is closed or the disk fails.
pub(crate) fn run_keeper(
    mut keeper: Keeper,
    requests: &mpsc::Receiver<KeeperRequest>,
    failed: Box<dyn FnOnce(LedgerError) + Send>,
) -> Result<(), LedgerError> {
    let work = std::panic::AssertUnwindSafe(|| keeper.run(requests));
    match std::panic::catch_unwind(work).unwrap_or_else(|panic| Err(LedgerError::Panicked(panic_text(&*panic)))) {
        Ok(KeeperExit::Closed) => keeper.close(),
        Ok(KeeperExit::Abandoned) => Ok(()),
        Err(error) => {
            let ready = keeper.ready.clone();
            let _not_ready = ready.block("a working ledger", FAILED_REMEDY);
            drop(keeper); // ends the tasks that wait for a sync
            failed(error);
            Err(LedgerError::Stopped)
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Keeper {
    fn run(&mut self, requests: &mpsc::Receiver<KeeperRequest>) -> Result<KeeperExit, LedgerError> {
        loop {
            match requests.recv_timeout(self.time_until_due()) {
                Ok(KeeperRequest::Close) => return Ok(KeeperExit::Closed),
                Ok(KeeperRequest::Abandon) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(KeeperExit::Abandoned);
                }
                Ok(request) => self.handle_request(request)?,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.run_due_work()?;
        }
    }

    /// Returns the time until the next periodic work is due.
    fn time_until_due(&self) -> Duration {
        let until =
            |since: MonotonicTime, every: Duration| every.saturating_sub(self.schedule.clock.monotonic().since(since));
        let every = if self.shared.is_sync_requested() { GROUP_COMMIT_DELAY } else { self.sync_every };
        until(self.schedule.last_check, every).min(until(self.schedule.last_fold, FOLD_INTERVAL))
    }

    /// Runs the periodic work that is due.
    pub(crate) fn run_due_work(&mut self) -> Result<(), LedgerError> {
        let now = self.schedule.clock.monotonic();
        let every = if self.shared.is_sync_requested() { GROUP_COMMIT_DELAY } else { self.sync_every };
        if now.since(self.schedule.last_check) >= every {
            self.schedule.last_check = now;
            self.sync_if_needed(now.since(self.schedule.last_sync))?;
        }
        if now.since(self.schedule.last_fold) >= FOLD_INTERVAL {
            self.schedule.last_fold = now;
            self.grow_unless_disk_is_full(now)?; // a fold is the longest time in which nothing grows
            self.check_files()?;
            let folded = self.fold_into_book();
            set_readiness(&mut self.fold_failing, folded.is_err(), (&self.ready, ("a writable book", BOOK_REMEDY)));
            defer_transient(folded)?;
        }
        self.grow_unless_disk_is_full(now)
    }

    /// Gives up the ledger if one of its files was displaced. Before that, the counts so far are written into the files
    /// that are still open. So an operator who moved these files, or removed only the tally, loses nothing.
    fn check_files(&mut self) -> Result<(), LedgerError> {
        let Some((path, how)) = self.file_watch.find_displaced(self.tally.disk()) else { return Ok(()) };
        let displaced = LedgerError::Displaced { path: path.to_owned(), how };
        if let Err(error) = self.fold_into_book().and_then(|()| self.book.checkpoint_log()) {
            tracing::warn!(%error, "the last fold into a book whose files were displaced failed");
        }
        Err(displaced)
    }

    fn grow_unless_disk_is_full(&mut self, now: MonotonicTime) -> Result<(), LedgerError> {
        if self.schedule.disk_full_since.is_some_and(|since| now.since(since) < FOLD_INTERVAL) {
            return Ok(());
        }
        let grown = self.grow_tally();
        self.schedule.disk_full_since = grown.is_err().then_some(now);
        set_readiness(
            &mut self.growth_failing,
            grown.is_err(),
            (&self.ready, ("space on the ledger's disk for new series", SPACE_REMEDY)),
        );
        defer_transient(grown)
    }

    /// Handles one request. If the requester has dropped its receiver, the reply is discarded.
    pub(crate) fn handle_request(&mut self, request: KeeperRequest) -> Result<(), LedgerError> {
        match request {
            KeeperRequest::Wake | KeeperRequest::Close | KeeperRequest::Abandon => {}
            KeeperRequest::DepartmentNames(names) => self.pending_names = Some(names),
            KeeperRequest::Totals(reply) => {
                self.absorb_changes();
                let _ = reply.send(self.totals());
            }
            KeeperRequest::TotalsAndUsage(reply) => {
                self.absorb_changes();
                let _ = reply.send((self.totals(), self.fold.open_usage(self.epoch)));
            }
            KeeperRequest::OpenRows(reply) => {
                self.absorb_changes();
                let _ = reply.send(self.fold.open_rows(self.epoch));
            }
            KeeperRequest::Fold(reply) => {
                self.sync_tally()?;
                self.schedule.disk_full_since = None;
                let folded = self.fold_into_book();
                let may_pass = folded.as_ref().err().is_none_or(LedgerError::is_transient);
                if !may_pass {
                    return folded;
                }
                let _ = reply.send(folded);
            }
        }
        Ok(())
    }

    fn sync_if_needed(&mut self, since_sync: Duration) -> Result<(), LedgerError> {
        let activity = self.activity();
        let is_idle = activity == self.schedule.activity && !self.shared.is_sync_requested();
        if is_idle && since_sync < IDLE_SYNC_INTERVAL {
            return Ok(());
        }
        self.schedule.activity = activity;
        self.sync_tally()
    }

    fn sync_tally(&mut self) -> Result<(), LedgerError> {
        let number = self.shared.begin_sync();
        let before = self.schedule.clock.monotonic();
        self.tally.sync(&self.clock)?;
        self.schedule.last_sync = self.schedule.clock.monotonic();
        self.schedule.last_check = self.schedule.last_sync;
        record_sync(&mut self.times, self.schedule.last_sync.since(before));
        self.times.synced_at = self.clock.wall();
        self.synced.send_replace(number);
        Ok(())
    }

    /// Returns the number of commands begun and ended so far.
    fn activity(&self) -> u64 {
        let own = self.tally.worker_slots();
        own.map(|slot| slot.get(offset::WORKER_RECEIVED).wrapping_add(slot.get(offset::WORKER_FINISHED)))
            .fold(0, u64::wrapping_add)
    }

    /// Folds changed slots into memory, and compares the sums with the workers' own counters. An unchanged slot costs
    /// one read of its first cache line.
    fn absorb_changes(&mut self) {
        let before = WorkerTotals::from_worker_slots(self.tally.worker_slots());
        for (position, slot) in self.tally.slots() {
            let version = slot.version(); // read before the copy, so the copy is at least as recent
            if self.slot_versions.get(position) == Some(&version) {
                continue;
            }
            let Some(copy) = slot.copy() else { continue };
            if self.fold.absorb(position, &copy, |at| series_names_at(&self.tally, at)) {
                store_version(&mut self.slot_versions, position, version);
            }
        }
        let after = WorkerTotals::from_worker_slots(self.tally.worker_slots());
        self.imbalance = imbalance(&before, self.fold.slot_totals(), &after);
    }

    /// Writes the fold into the book, and seals the hours that are over.
    fn fold_into_book(&mut self) -> Result<(), LedgerError> {
        let now = self.clock.wall();
        let over = first_open_window(now).max(self.shared.sealing());
        self.shared.begin_fold();
        let left = self.shared.request_seal(over);
        let seal_before = Some(left).filter(|left| *left > self.shared.sealed());
        self.absorb_changes();
        // The book's content is on the disk, so the tally on the disk must not be older. Otherwise a loss of power
        // would take counts back, or interrupt commands that a sealed hour holds as ended.
        self.sync_tally()?;
        self.mended += self.book.apply(&BookUpdate {
            fold: &self.fold,
            in_flight: self.fold.in_flight(self.clock.monotonic().nanoseconds()),
            epoch: self.epoch,
            synced_at: self.times.synced_at,
            now,
            seal_before,
            ending: None,
        })?;
        self.fold.mark_saved(seal_before.unwrap_or_default());
        self.shared.set_sealed(seal_before.unwrap_or_else(|| self.shared.sealed()));
        self.shared.end_fold();
        self.times.folded_at = now;
        self.write_names(now)?;
        self.compact(now)
    }

    /// Writes pending names. A later fold retries names that could not be written.
    fn write_names(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(names) = self.pending_names.take() else { return Ok(()) };
        let written = self.book.save_department_names(&names, now);
        self.pending_names = written.is_err().then_some(names);
        written
    }

    /// Runs one step of compaction for days older than `compact_after`.
    fn compact(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(age) = self.compact_after else { return Ok(()) };
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let old = Window::of_unix_seconds(now.as_second().saturating_sub(age));
        let before = old.min(self.shared.sealed()); // sealed hours get no more counts
        self.book.compact(before, now).map(drop)
    }

    /// Adds segments until every worker's free slots cover `slots_per_window` and half a segment.
    fn grow_tally(&mut self) -> Result<(), LedgerError> {
        for (number, (channel, worker)) in self.worker_channels.iter_mut().zip(&self.shared.workers).enumerate() {
            let needed = worker.slots_per_window.load(Ordering::Relaxed).saturating_add(channel.segment_slots / 2);
            while channel.slots_given.saturating_sub(worker.occupied_slots.load(Ordering::Relaxed)) < needed {
                let segment = self.tally.add_segment(number as u32)?;
                channel.slots_given += channel.segment_slots;
                if channel.segments.send(segment).is_err() {
                    break; // the meter has been dropped
                }
            }
        }
        Ok(())
    }

    fn totals(&self) -> LedgerTotals {
        let imbalance = self.shared.workers.iter().map(|worker| worker.imbalance.load(Ordering::Relaxed));
        let imbalance = imbalance.fold(self.imbalance, i64::wrapping_add);
        LedgerTotals { series: self.fold.totals(), imbalance, mended: self.mended, times: self.times }
    }

    fn close(mut self) -> Result<(), LedgerError> {
        self.check_files()?; // otherwise the tally of another ledger might be removed below
        self.sync_tally()?;
        self.absorb_changes();
        let (now, now_ns) = (self.clock.wall(), self.clock.monotonic().nanoseconds());
        let window = fallback_window(now, self.shared.sealing());
        self.fold.interrupt(window, now_ns, |at| series_names_at(&self.tally, at));
        self.book.apply(&BookUpdate {
            fold: &self.fold,
            in_flight: BTreeMap::new(),
            epoch: self.epoch,
            synced_at: self.times.synced_at,
            now,
            seal_before: None,
            ending: Some(EpochEnding::Clean),
        })?;
        self.write_names(now)?;
        self.tally.remove()
    }
}

/// Returns the first hour whose end is not yet [`SEAL_DELAY_SECONDS`] past at the moment `now`.
pub(crate) fn first_open_window(now: Timestamp) -> Window {
    Window::of_unix_seconds(now.as_second() - SEAL_DELAY_SECONDS)
}

fn store_version(versions: &mut Vec<SlotVersion>, position: usize, version: SlotVersion) {
    if versions.len() <= position {
        versions.resize(position + 1, SlotVersion::default());
    }
    versions[position] = version;
}

fn series_names_at(tally: &TallyFile, position: u32) -> Option<SeriesNames> {
    tally.slot(position).and_then(super::tally::slot::Slot::copy).and_then(|copy| SeriesNames::from_copy(&copy))
}

/// What to do about each state of the ledger that blocks readiness.
const FAILED_REMEDY: &str =
    "check the disk of the ledger: the gateway ends with exit code 74, and the next start recovers the counts";
const BOOK_REMEDY: &str = "free space on the ledger's disk, or end the program that locks the book: the log has the error; nothing is lost meanwhile";
const SPACE_REMEDY: &str = "free space on the ledger's disk: commands that were counted before go on, new departments and commands are refused";

/// Blocks readiness while an operation fails.
fn set_readiness(
    guard: &mut Option<ReadinessBlock>,
    fails: bool,
    (ready, (what, remedy)): (&Readiness, (&str, &'static str)),
) {
    match (fails, guard.is_some()) {
        (true, false) => *guard = Some(ready.block(what, remedy)),
        (false, true) => *guard = None,
        _ => {}
    }
}

/// Logs a transient failure (a full disk, or a book locked by a reader) and leaves the retry to the next turn.
fn defer_transient(done: Result<(), LedgerError>) -> Result<(), LedgerError> {
    match done {
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "the ledger will retry; nothing is lost meanwhile");
            Ok(())
        }
        done => done,
    }
}

fn record_sync(times: &mut SyncTimes, took: Duration) {
    times.syncs += 1;
    times.sync_time += took;
    for (bucket, bound) in times.sync_buckets.iter_mut().zip(SYNC_BOUNDS_US) {
        bucket.0 = Duration::from_micros(bound);
        bucket.1 += u64::from(took <= bucket.0);
    }
}
