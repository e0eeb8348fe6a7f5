//! How much: the tally, where commands are counted as they happen, and the book, which finance reads.
//!
//! See `docs/ledger.md` for what is guaranteed and how the files look. Knows no HTTP.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Refused, Window};

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// The book; the tally lies beside it with `.tally` for its extension.
    pub path: PathBuf,
    /// The gateway's name, written into both files.
    pub gateway: Name,
    /// How often the tally is carried to the disk.
    pub sync_every: Duration,
    /// How many meters there are: one per worker.
    pub workers: usize,
    /// The calendar written into the book for its readers.
    pub calendar: CalendarOffset,
}

/// Why the ledger could not be opened, kept or read.
#[derive(Debug, thiserror::Error)]
#[error("ledger: {0}")]
pub struct LedgerError(pub String);

/// The open ledger: owner of the keeper thread.
#[derive(Debug)]
pub struct Ledger {}

/// What a worker thread turns into its [`Meter`].
#[derive(Debug)]
pub struct MeterSeed {}

/// Counts the commands of one worker. Cheap to clone within its thread; never leaves it.
#[derive(Clone, Debug)]
pub struct Meter {
    _not_send: std::marker::PhantomData<std::rc::Rc<()>>,
}

/// Evidence that a command is on the tally; consumed exactly once, by [`Ticket::settle`] or by being dropped.
#[derive(Debug)]
pub struct Ticket {}

/// Asks the keeper for what the ledger holds at this moment. Cheap to clone, may go to any thread.
#[derive(Clone, Debug)]
pub struct LedgerReader {}

impl Ledger {
    /// Opens or makes the ledger, recovers what a dead process left, starts the keeper. `failed` is called at most once,
    /// from the keeper, when the disk has failed and the process must end (exit 74).
    pub fn open(
        _settings: LedgerSettings,
        _clock: Clock,
        _failed: Box<dyn FnOnce(LedgerError) + Send>,
    ) -> Result<(Self, Vec<MeterSeed>), LedgerError> {
        todo!()
    }

    /// A reader of this ledger.
    pub fn reader(&self) -> LedgerReader {
        todo!()
    }

    /// Folds and syncs for the last time, ends the epoch `clean`, stops the keeper.
    pub fn close(self) -> Result<(), LedgerError> {
        todo!()
    }
}

impl MeterSeed {
    /// Becomes the meter of the thread it is called on.
    pub fn into_meter(self) -> Meter {
        todo!()
    }
}

impl Meter {
    /// Counts a command as received, before anything is decided about it.
    pub fn received(&self) {
        todo!()
    }

    /// Counts a command as admitted. Refuses with [`Refused::LedgerUnavailable`] what it has no slot for.
    pub fn open(
        &self,
        _department: &Department,
        _command: &CommandKey,
        _units: u64,
        _window: Window,
    ) -> Result<Ticket, Refused> {
        todo!()
    }

    /// Counts a command as refused.
    pub fn refuse(&self, _department: &Department, _command: &CommandKey, _refused: Refused, _window: Window) {
        todo!()
    }

    /// To be called about every 100 ms on the worker's own thread: checks the worker's books, lets the keeper seal.
    pub fn tick(&self) {
        todo!()
    }
}

impl Ticket {
    /// Adds bytes of the request body.
    pub fn add_request_bytes(&mut self, _bytes: u64) {
        todo!()
    }

    /// Adds bytes of the response body.
    pub fn add_response_bytes(&mut self, _bytes: u64) {
        todo!()
    }

    /// Completes when an fdatasync that began after the admission has ended.
    pub async fn durable(&self) {
        todo!()
    }

    /// Ends the command. Duration is the time since `open` on the meter's clock.
    pub fn settle(self, _finished: Finished) {
        todo!()
    }
}

mod totals;

pub use totals::{OutcomeTotals, SeriesTotals, SyncTimes, Totals, UsageRow};

impl LedgerReader {
    /// Everything the ledger holds at this moment, book and tally together.
    pub async fn totals(&self) -> Result<Totals, LedgerError> {
        todo!()
    }

    /// Exact usage rows of the half-open range of windows, summed over epochs, including what the tally holds beyond the
    /// book.
    pub async fn usage(&self, _windows: std::ops::Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        todo!()
    }
}

/// A ledger's files, opened for reading by another process: live, killed or copied.
#[derive(Debug)]
pub struct LedgerFiles {}

impl LedgerFiles {
    /// Opens the book at `path` and whatever tally lies beside it; changes neither.
    pub fn open(_path: &std::path::Path) -> Result<Self, LedgerError> {
        todo!()
    }

    /// The calendar offset the ledger was kept in.
    pub fn calendar(&self) -> CalendarOffset {
        todo!()
    }

    /// As [`LedgerReader::usage`].
    pub fn usage(&self, _windows: std::ops::Range<Window>) -> Result<Vec<UsageRow>, LedgerError> {
        todo!()
    }
}
