//! The ledger: counts commands in the tally (memory-mapped slots) and keeps them in the book (SQLite) for finance.
//!
//! A worker counts through its [`Meter`] into slots of the tally, a memory-mapped file. Stored values survive the end
//! of the process, whatever ends the process. The keeper is one thread with three jobs: it syncs the tally to the disk,
//! folds the tally into the book (SQLite), and seals hours in a hash chain. Values are cumulative: reading or writing a
//! value twice cannot over-count.
//!
//! Guarantees, formats and limits: `docs/ledger.md`. Reading order: `count::meter`, `tally::slot`, `fold`, `keeper`.
//! Leaves to others: HTTP; nothing in this module depends on it.

pub mod audit;
mod book;
mod count;
mod files;
mod fold;
mod hash_chain;
mod keeper;
mod reader;
mod sealed_hours;
mod tally;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::lifecycle::Readiness;
use crate::model::{CalendarOffset, Name, Window};

use self::book::book_writer::BookWriter;
use self::files::book_path::TALLY_EXTENSION;
use self::files::lock::LedgerLock;
use self::fold::TallyFold;
use self::keeper::displaced_files::LedgerFileWatch;
use self::keeper::requests::{KeeperRequest, RequestSender, SharedFlags};
use self::keeper::{Keeper, KeeperSchedule, WorkerChannel};
use self::tally::disk::{SystemDisk, TallyDisk};
use self::tally::file::{SEGMENT_SLOTS, SlotSegment, TallyFile, TallyHeader};

pub use self::values::error::BadAdjustment;
pub use book::adjustments::{Adjustment, AdjustmentRow, add_adjustment, check_adjustment};
pub use book::department_names::DatedName;
pub use count::meter::{Meter, MeterSeed, RequestBodyMeter, Ticket};
pub use count::series_memory::{SeriesMemory, series_memory};
pub use files::book_path::is_companion;
pub use reader::{LedgerFiles, LedgerReader};
pub use sealed_hours::{CorrectedUnits, HourGrouping, HourHead, HourUsage, SealedHours};
pub use values::error::LedgerError;
pub use values::measures::{
    DepartmentUsage, LedgerTotals, LedgerView, Measures, SeriesTotals, SyncTimes, UsageRow, UsageSums,
};

/// The settings of a ledger.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// The book, or a symbolic link to the book. The tally lies beside the book with the extension `.tally`, the lock
    /// file with the extension `.lock`.
    pub path: PathBuf,
    /// The gateway's name, written into the book and the tally.
    pub gateway: Name,
    /// The interval between syncs of the tally to the disk.
    pub sync_every: Duration,
    /// The number of meters: one per worker.
    pub workers: usize,
    /// The calendar offset, written into the book for its readers.
    pub calendar: CalendarOffset,
    /// The age at which compaction removes the hours of a day and keeps only the day's sums. `None`: never.
    pub compact_after: Option<Duration>,
    /// Blocked while the ledger has no space for new counts.
    pub ready: Readiness,
}

/// The open ledger: owner of the keeper thread. Dropping a `Ledger` without [`Ledger::close`] is like a crash: the next
/// start recovers all counts.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    request_sender: RequestSender,
    keeper: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Ledger {
    /// Opens or creates the ledger, recovers the epoch of a dead process, and starts the keeper. The keeper calls
    /// `failed` at most once: when the disk has failed and the process must end (exit 74).
    pub fn open(
        settings: LedgerSettings,
        clock: Clock,
        failed: Box<dyn FnOnce(LedgerError) + Send>,
    ) -> Result<(Self, Vec<MeterSeed>), LedgerError> {
        Self::open_on(Box::new(SystemDisk), settings, clock, failed)
    }

    fn open_on(
        disk: Box<dyn TallyDisk>,
        settings: LedgerSettings,
        clock: Clock,
        failed: Box<dyn FnOnce(LedgerError) + Send>,
    ) -> Result<(Self, Vec<MeterSeed>), LedgerError> {
        if cfg!(uncounted) {
            tracing::error!("this build counts nothing: it is for measurements, not for billed traffic");
        }
        let LedgerParts { path, keeper, request_receiver: receiver, request_sender: requests, lock, seeds } =
            build_parts(disk, SEGMENT_SLOTS, &settings, &clock)?;
        let keeper = spawn_keeper(keeper, receiver, lock, failed)
            .map_err(|error| LedgerError::file("start the keeper thread of", &path, error))?;
        Ok((Self { path, request_sender: requests, keeper: Some(keeper) }, seeds))
    }

    /// Returns a reader of this ledger.
    pub fn reader(&self) -> LedgerReader {
        LedgerReader { path: self.path.clone(), request_sender: self.request_sender.clone() }
    }

    /// Folds and syncs for the last time, ends the epoch as `clean`, and stops the keeper. Commands still in flight
    /// become `interrupted`. The workers must have ended: anything that a meter counts afterwards is lost.
    pub fn close(mut self) -> Result<(), LedgerError> {
        self.stop_keeper(KeeperRequest::Close)
    }

    fn stop_keeper(&mut self, how: KeeperRequest) -> Result<(), LedgerError> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let _ = self.request_sender.send(how); // if the keeper has ended, `join` returns the reason
        keeper.join().unwrap_or_else(|_| Err(LedgerError::Panicked("while it closed the ledger".to_owned())))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.stop_keeper(KeeperRequest::Abandon);
    }
}

/// A ledger whose keeper has not started.
struct LedgerParts {
    /// The book's canonical path.
    path: PathBuf,
    keeper: Keeper,
    request_receiver: mpsc::Receiver<KeeperRequest>,
    request_sender: RequestSender,
    /// Held until the keeper ends.
    lock: LedgerLock,
    seeds: Vec<MeterSeed>,
}

fn build_parts(
    disk: Box<dyn TallyDisk>,
    segment_slots: u32,
    settings: &LedgerSettings,
    clock: &Clock,
) -> Result<LedgerParts, LedgerError> {
    create_folder(settings)?;
    let settings = &LedgerSettings { path: files::book_path::canonical_path(&settings.path)?, ..settings.clone() };
    let lock = files::lock::acquire(&settings.path)?;
    let (new_epoch, segments) = start_epoch(disk, segment_slots, settings, clock)?;
    let watch = LedgerFileWatch::new(new_epoch.tally.disk(), &settings.path, &lock, new_epoch.tally.file_identity()?)?;
    let (requests, receiver) = mpsc::channel();
    let (synced, _) = watch::channel(0);
    let shared = Arc::new(SharedFlags::new(settings.workers));
    shared.request_seal(new_epoch.first_window); // a clock that is set back counts into no earlier hour
    let hand = |(number, first)| seed_worker(number, first, (clock, &shared, &requests, &synced));
    let (seeds, worker_channels) = segments.into_iter().enumerate().map(hand).unzip();
    let keeper = Keeper {
        epoch: new_epoch.epoch,
        clock: clock.clone(),
        sync_every: settings.sync_every,
        compact_after: settings.compact_after,
        ready: settings.ready.clone(),
        pending_names: None,
        fold_failing: None,
        growth_failing: None,
        shared,
        tally: new_epoch.tally,
        book: new_epoch.book,
        fold: new_epoch.fold,
        file_watch: watch,
        slot_versions: Vec::new(),
        imbalance: 0,
        mended: 0,
        worker_channels,
        synced,
        schedule: KeeperSchedule::new(Clock::system()),
        times: SyncTimes { synced_at: clock.wall(), folded_at: clock.wall(), ..SyncTimes::default() },
    };
    Ok(LedgerParts {
        path: settings.path.clone(),
        keeper,
        request_receiver: receiver,
        request_sender: requests,
        lock,
        seeds,
    })
}

/// The parts of a new epoch.
struct NewEpoch {
    epoch: u32,
    tally: TallyFile,
    book: BookWriter,
    fold: TallyFold,
    /// The first hour that accepts counts. Hours before the compaction horizon are removed, and the sums of their days
    /// never change. Hours that were over when the epoch began belong to other epochs.
    first_window: Window,
}

fn create_folder(settings: &LedgerSettings) -> Result<(), LedgerError> {
    let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| LedgerError::file("create the folder", folder, error))
}

/// Recovers a dead epoch, then begins a new one. The tally gets its name before the book records the epoch, so every
/// epoch in the book has had a tally.
fn start_epoch(
    disk: Box<dyn TallyDisk>,
    segment_slots: u32,
    settings: &LedgerSettings,
    clock: &Clock,
) -> Result<(NewEpoch, Vec<SlotSegment>), LedgerError> {
    let tally_path = settings.path.with_extension(TALLY_EXTENSION);
    let mut book = BookWriter::open(&settings.path, &settings.gateway, settings.calendar)?;
    let mut header = TallyHeader { segment_slots, ..new_tally_header(settings, clock) };
    keeper::recovery::recover_epoch(&mut book, &*disk, &tally_path, &header)?;
    let lost = book.end_orphaned_epochs(clock.wall())?;
    if lost > 0 {
        tracing::error!(
            lost,
            "an epoch of this ledger has no end and its tally is missing; its last counts may be missing"
        );
    }
    header.epoch = book.next_epoch()?;
    let workers = u32::try_from(settings.workers).unwrap_or(u32::MAX);
    let (tally, segments) = TallyFile::create(disk, &tally_path, &header, workers)?;
    book.begin_epoch(&header)?;
    let compacted_before = book.reader().compacted_before()?;
    let fold = TallyFold::new(book.reader().series()?, compacted_before);
    let first = compacted_before.max(keeper::first_open_window(header.created_at));
    Ok((NewEpoch { epoch: header.epoch, tally, book, fold, first_window: first }, segments))
}

fn new_tally_header(settings: &LedgerSettings, clock: &Clock) -> TallyHeader {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    TallyHeader {
        epoch: 0,
        gateway: settings.gateway.to_string(),
        boot_id: boot_id.trim().to_owned(),
        process_id: std::process::id(),
        segment_slots: SEGMENT_SLOTS,
        created_at: clock.wall(),
        synced_at: clock.wall(),
        synced_ns: clock.monotonic().nanoseconds(),
    }
}

type SeedContext<'a> = (&'a Clock, &'a Arc<SharedFlags>, &'a RequestSender, &'a watch::Sender<u64>);

fn seed_worker(
    number: usize,
    first: SlotSegment,
    (clock, shared, requests, synced): SeedContext<'_>,
) -> (MeterSeed, WorkerChannel) {
    let (segments, arriving) = mpsc::channel();
    let slots = u32::try_from(first.slots.len()).unwrap_or(u32::MAX);
    let seed = MeterSeed {
        number,
        clock: clock.clone(),
        shared: Arc::clone(shared),
        request_sender: requests.clone(),
        synced: synced.subscribe(),
        first_segment: first,
        segment_receiver: arriving,
    };
    (seed, WorkerChannel { segments, slots_given: slots, segment_slots: slots })
}

/// Starts the keeper thread, which holds the lock until it ends.
fn spawn_keeper(
    keeper: Keeper,
    requests: mpsc::Receiver<KeeperRequest>,
    lock: LedgerLock,
    failed: Box<dyn FnOnce(LedgerError) + Send>,
) -> std::io::Result<JoinHandle<Result<(), LedgerError>>> {
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        let done = keeper::run_keeper(keeper, &requests, failed);
        drop(lock);
        done
    })
}
