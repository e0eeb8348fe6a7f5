//! The sealed hours of a book, read one by one: usage, corrections, and the head of the hash chain.
//!
//! Guarantees:
//! - All hours are read at one moment, and only from the book. Nothing is changed.
//! - What is returned for an hour depends on nothing that happens after the hour was sealed: neither on later hours,
//!   nor on later corrections, nor on the configuration. So a page of today and an export of next year show the same.
//!   The exceptions are a clock that was set back before a start (`docs/ledger.md`), and compaction.
//! - The usage of an hour is that of [`super::LedgerFiles::usage_by_hour`].
//! - Memory holds the names of all series and the sums of one hour.
//!
//! Leaves to others: which hours are wanted, and their text (`report::hour_samples`).

mod chain_head;
mod dated_corrections;
mod hour_usage;
mod sealed_range;

use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::model::{CalendarOffset, Window};

use super::book::book_reader::{BookReader, open_detecting_changes};
use super::book::read_only::FrozenBook;
use super::book::usage_query::compacted_day_cut_by;
use super::files::book_path;
use super::reader::LedgerReader;
use super::values::error::LedgerError;

use self::dated_corrections::DatedCorrections;
use self::hour_usage::UsageGroups;

pub use self::chain_head::HourHead;
pub use self::dated_corrections::CorrectedUnits;
pub use self::hour_usage::{HourGrouping, HourUsage};

/// The sealed hours of a book at one moment.
#[derive(Debug)]
pub struct SealedHours {
    path: PathBuf,
    /// A connection in a transaction that has begun to read.
    connection: Connection,
    /// The book's state at opening, if the book was opened as an immutable file.
    frozen: Option<FrozenBook>,
    calendar: CalendarOffset,
    sealed: Range<Window>,
    compacted_before: Window,
    groups: UsageGroups,
    corrections: DatedCorrections,
}

impl SealedHours {
    /// Opens the book at `path` for reading. The usage of each hour will be summed by `grouping`.
    pub fn open(path: &Path, grouping: HourGrouping) -> Result<Self, LedgerError> {
        let path = book_path::canonical_path(path)?;
        let (connection, frozen) = open_detecting_changes(&path)?;
        let failed = |error| LedgerError::book("read", &path, error);
        connection.execute_batch("BEGIN").map_err(failed)?;
        let book = BookReader::new(&path, &connection);
        let (calendar, compacted_before) = (book.calendar()?, book.compacted_before()?);
        let sealed = sealed_range::sealed_range(&connection).map_err(failed)?;
        let groups = UsageGroups::read(&connection, grouping).map_err(failed)?;
        let corrections = DatedCorrections::read(&connection).map_err(failed)?;
        Ok(Self { path, connection, frozen, calendar, sealed, compacted_before, groups, corrections })
    }

    /// Returns the offset of the ledger's calendar.
    pub fn calendar(&self) -> CalendarOffset {
        self.calendar
    }

    /// Returns the sealed hours: from the hour of the ledger's first start, or from the begin of its first compacted
    /// day, up to the first hour that is not sealed. The hours between, in which no gateway ran, are among them. No
    /// usage is added to these hours any more.
    pub fn sealed(&self) -> Range<Window> {
        self.sealed.clone()
    }

    /// Returns the first hour that is kept as an hour. Compaction has replaced the hours before it by the sums of
    /// their days.
    pub fn compacted_before(&self) -> Window {
        self.compacted_before
    }

    /// Refuses a range that begins or ends within a day whose hours were removed by compaction.
    pub fn refuse_cut_days(&self, windows: &Range<Window>) -> Result<(), LedgerError> {
        let (book, before) = (&self.connection, self.compacted_before);
        match compacted_day_cut_by(book, windows, before).map_err(|error| self.book_error(error))? {
            Some(day) => Err(LedgerError::RangeCutsDay { day, before }),
            None => Ok(()),
        }
    }

    /// Returns the usage of an hour. A compacted day is the usage of its first hour, and its other hours have none, as
    /// in [`super::LedgerFiles::usage_by_hour`].
    pub fn usage(&mut self, window: Window) -> Result<impl Iterator<Item = HourUsage<'_>>, LedgerError> {
        let is_compacted = window < self.compacted_before;
        let read = self.groups.read_hour(&self.connection, (window, is_compacted));
        read.map_err(|error| LedgerError::book("read", &self.path, error))?;
        Ok(self.groups.usage_of(window))
    }

    /// Returns the head of the hash chain as of the seal of an hour.
    pub fn head(&self, window: Window) -> Result<HourHead, LedgerError> {
        chain_head::head_of_hour(&self.connection, window).map_err(|error| self.book_error(error))
    }

    /// Returns the sums of the corrections that had been made by the end of an hour.
    pub fn corrections(&self, window: Window) -> impl Iterator<Item = CorrectedUnits<'_>> {
        self.corrections.made_by(window)
    }

    /// Returns an error if the book has changed although it was opened as an immutable file. Call it when all is read.
    pub fn confirm_unchanged(&self) -> Result<(), LedgerError> {
        match self.frozen.is_some_and(|frozen| frozen.has_changed(&self.path)) {
            true => Err(LedgerError::ChangedWhileRead(self.path.clone())),
            false => Ok(()),
        }
    }

    fn book_error(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", &self.path, error)
    }
}

impl LedgerReader {
    /// Like [`SealedHours::open`], on a separate thread.
    pub async fn sealed_hours(&self, grouping: HourGrouping) -> Result<SealedHours, LedgerError> {
        let path = self.path.clone();
        self.run_on_thread(move || SealedHours::open(&path, grouping)).await
    }
}
