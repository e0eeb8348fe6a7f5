//! How much: the tally, where commands are counted as they happen, and the book, which finance reads.
//!
//! A worker counts through its [`Meter`] into slots of the tally, a file mapped into memory: what is stored there outlives
//! the process whatever ends it. The keeper, one thread, carries the tally to the disk, folds it into the book (SQLite) and
//! seals hours in a hash chain. Values are cumulative: seeing or writing them twice cannot over-count.
//!
//! Guarantees, formats and limits: `docs/ledger.md`. Read `meter` first, then `slot`, `fold` and `keeper`. Knows no HTTP.

mod adjust;
mod atomics;
pub mod audit;
mod balance;
mod book;
mod canon;
mod connect;
mod counting;
mod disk;
mod displaced;
mod durable;
mod ending;
mod error;
mod fold;
mod in_flight;
mod keeper;
mod lines;
mod lock;
mod lost;
mod map;
mod memory;
mod meter;
mod migrate;
mod names;
mod pages;
mod place;
mod proof;
mod range;
mod read_only;
mod reader;
mod recover;
mod rollup;
mod rows;
mod schema;
mod schema_check;
mod seal;
mod series_sums;
mod shared;
mod shelf;
mod signals;
mod slot;
mod sparse;
mod sums;
mod tally;
#[cfg(test)]
mod tests;
mod totals;

mod words;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use self::book::Book;
use self::disk::{Disk, SystemDisk};
use self::displaced::FileWatch;
use self::fold::Fold;
use self::keeper::{Desk, Keeper, Pace};
use self::lock::LedgerLock;
use self::shared::{Request, Requests, Shared};
use self::tally::{Header, SEGMENT_SLOTS, Segment, Tally};
use crate::clock::Clock;
use crate::lifecycle::Ready;
use crate::model::{CalendarOffset, Name, Window};

pub use adjust::{Adjustment, AdjustmentRow, BadAdjustment, adjust, check_adjustment};
pub use error::LedgerError;
pub use memory::{SeriesMemory, series_memory};
pub use meter::{Meter, MeterSeed, Ticket, Upload};
pub use reader::{LedgerFiles, LedgerReader};
pub use totals::{DepartmentUse, LedgerView, OutcomeTotals, SeriesTotals, SyncTimes, Totals, UsageRow, UseSums};

/// The tally's extension.
const TALLY: &str = "tally";

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// The book, or a symbolic link to it; the tally lies beside the book with `.tally` for its extension, the lock file
    /// with `.lock`.
    pub path: PathBuf,
    /// The gateway's name, written into both files.
    pub gateway: Name,
    /// How often the tally is carried to the disk.
    pub sync_every: Duration,
    /// How many meters there are: one per worker.
    pub workers: usize,
    /// The calendar written into the book for its readers.
    pub calendar: CalendarOffset,
    /// How old a day is when its hours are forgotten and only its sums are kept; never, if there is none.
    pub compact_after: Option<Duration>,
    /// Told when the ledger has no space for what is new, until it has some again.
    pub ready: Ready,
}

/// The open ledger: owner of the keeper thread. Dropping it without [`Ledger::close`] is like a crash: the next start
/// recovers everything that was counted.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    requests: Requests,
    keeper: Option<JoinHandle<Result<(), LedgerError>>>,
}

impl Ledger {
    /// Opens or makes the ledger, recovers what a dead process left, starts the keeper. `failed` is called at most once,
    /// from the keeper, when the disk has failed and the process must end (exit 74).
    pub fn open(
        settings: LedgerSettings,
        clock: Clock,
        failed: Box<dyn FnOnce(LedgerError) + Send>,
    ) -> Result<(Self, Vec<MeterSeed>), LedgerError> {
        Self::open_on(Box::new(SystemDisk), settings, clock, failed)
    }

    fn open_on(
        disk: Box<dyn Disk>,
        settings: LedgerSettings,
        clock: Clock,
        failed: Box<dyn FnOnce(LedgerError) + Send>,
    ) -> Result<(Self, Vec<MeterSeed>), LedgerError> {
        if cfg!(uncounted) {
            tracing::error!(
                "this build counts nothing: it is for measurements, not for traffic that somebody pays for"
            );
        }
        let Founded { path, keeper, inbox, requests, lock, seeds } = found(disk, SEGMENT_SLOTS, &settings, &clock)?;
        let keeper = start(keeper, inbox, lock, failed)
            .map_err(|error| LedgerError::file("start the keeper of", &path, error))?;
        Ok((Self { path, requests, keeper: Some(keeper) }, seeds))
    }

    /// A reader of this ledger.
    pub fn reader(&self) -> LedgerReader {
        LedgerReader { path: self.path.clone(), requests: self.requests.clone() }
    }

    /// Folds and syncs for the last time, ends the epoch `clean`, stops the keeper. Commands still in flight become
    /// `interrupted`; what a meter counts afterwards is lost, so the workers must have ended.
    pub fn close(mut self) -> Result<(), LedgerError> {
        self.stop(Request::Close)
    }

    fn stop(&mut self, how: Request) -> Result<(), LedgerError> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let _ = self.requests.send(how); // a keeper that is gone says why when joined
        keeper.join().unwrap_or_else(|_| Err(LedgerError::Panicked("while it closed the ledger".to_owned())))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.stop(Request::Abandon);
    }
}

/// A ledger whose keeper has not begun to work.
struct Founded {
    /// The book's own path.
    path: PathBuf,
    keeper: Keeper,
    inbox: mpsc::Receiver<Request>,
    requests: Requests,
    /// Held as long as the keeper lives.
    lock: LedgerLock,
    seeds: Vec<MeterSeed>,
}

fn found(
    disk: Box<dyn Disk>,
    segment_slots: u32,
    settings: &LedgerSettings,
    clock: &Clock,
) -> Result<Founded, LedgerError> {
    make_folder(settings)?;
    let settings = &LedgerSettings { path: place::canonical(&settings.path)?, ..settings.clone() };
    let lock = lock::take(&settings.path)?;
    let (beginning, segments) = begin(disk, segment_slots, settings, clock)?;
    let watch = FileWatch::over(beginning.tally.disk(), &settings.path, &lock, beginning.tally.file()?)?;
    let (requests, inbox) = mpsc::channel();
    let (synced, _) = watch::channel(0);
    let shared = Arc::new(Shared::new(settings.workers));
    shared.ask_to_leave(beginning.first); // a clock that is set back counts into no hour before
    let hand = |(number, first)| seed(number, first, (clock, &shared, &requests, &synced));
    let (seeds, desks) = segments.into_iter().enumerate().map(hand).unzip();
    let keeper = Keeper {
        epoch: beginning.epoch,
        clock: clock.clone(),
        sync_every: settings.sync_every,
        compact_after: settings.compact_after,
        ready: settings.ready.clone(),
        names: None,
        cannot_fold: None,
        cannot_grow: None,
        shared,
        tally: beginning.tally,
        book: beginning.book,
        fold: beginning.fold,
        watch,
        glances: Vec::new(),
        imbalance: 0,
        mended: 0,
        desks,
        synced,
        pace: Pace::new(Clock::system()),
        times: SyncTimes { synced_at: clock.wall(), folded_at: clock.wall(), ..SyncTimes::default() },
    };
    Ok(Founded { path: settings.path.clone(), keeper, inbox, requests, lock, seeds })
}

/// A new epoch.
struct Beginning {
    epoch: u32,
    tally: Tally,
    book: Book,
    fold: Fold,
    /// The first hour that may be counted into. Hours before the horizon are forgotten, and their days never change again;
    /// hours that were over when the epoch began are those of other epochs.
    first: Window,
}

fn make_folder(settings: &LedgerSettings) -> Result<(), LedgerError> {
    let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| LedgerError::file("make the folder", folder, error))
}

/// Recovers what is there, then begins an epoch: first the tally under its name, then the book's note of it, so that an
/// epoch in the book has had a tally.
fn begin(
    disk: Box<dyn Disk>,
    segment_slots: u32,
    settings: &LedgerSettings,
    clock: &Clock,
) -> Result<(Beginning, Vec<Segment>), LedgerError> {
    let tally_path = settings.path.with_extension(TALLY);
    let mut book = Book::open(&settings.path, &settings.gateway, settings.calendar)?;
    let mut header = Header { segment_slots, ..header(settings, clock) };
    recover::recover(&mut book, &*disk, &tally_path, &header)?;
    let lost = book.end_lost_epochs(clock.wall())?;
    if lost > 0 {
        tracing::error!(
            lost,
            "an epoch of this ledger never ended and its tally is gone; its last counts may be missing"
        );
    }
    header.epoch = book.next_epoch()?;
    let workers = u32::try_from(settings.workers).unwrap_or(u32::MAX);
    let (tally, segments) = Tally::create(disk, &tally_path, &header, workers)?;
    book.begin_epoch(&header)?;
    let horizon = book.pages().horizon()?;
    let fold = Fold::new(book.pages().series()?, horizon);
    let first = horizon.max(keeper::over_at(header.created));
    Ok((Beginning { epoch: header.epoch, tally, book, fold, first }, segments))
}

fn header(settings: &LedgerSettings, clock: &Clock) -> Header {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Header {
        epoch: 0,
        gateway: settings.gateway.to_string(),
        boot_id: boot_id.trim().to_owned(),
        process: std::process::id(),
        segment_slots: SEGMENT_SLOTS,
        created: clock.wall(),
        synced_at: clock.wall(),
        synced_ns: clock.monotonic().nanoseconds(),
    }
}

type Ties<'a> = (&'a Clock, &'a Arc<Shared>, &'a Requests, &'a watch::Sender<u64>);

fn seed(number: usize, first: Segment, (clock, shared, requests, synced): Ties<'_>) -> (MeterSeed, Desk) {
    let (segments, arriving) = mpsc::channel();
    let slots = u32::try_from(first.slots.len()).unwrap_or(u32::MAX);
    let seed = MeterSeed {
        number,
        clock: clock.clone(),
        shared: Arc::clone(shared),
        requests: requests.clone(),
        synced: synced.subscribe(),
        first,
        arriving,
    };
    (seed, Desk { segments, given: slots, segment_slots: slots })
}

/// Starts the keeper; the lock is held until its thread ends.
fn start(
    keeper: Keeper,
    requests: mpsc::Receiver<Request>,
    lock: LedgerLock,
    failed: Box<dyn FnOnce(LedgerError) + Send>,
) -> std::io::Result<JoinHandle<Result<(), LedgerError>>> {
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        let done = keeper::keep(keeper, &requests, failed);
        drop(lock);
        done
    })
}
