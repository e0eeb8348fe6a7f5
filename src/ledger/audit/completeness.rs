//! Determines whether the usage of a period can still change, and why.
//!
//! Guarantees:
//! - Reads only the book, at one moment, and changes nothing.
//! - A complete period gets no further usage from any gateway on this ledger. Corrections may still be added; a
//!   correction is not usage.
//!
//! Leaves to [`crate::ledger::LedgerFiles`]: the usage itself.

use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;

use crate::ledger::LedgerReader;
use crate::ledger::book::book_reader::open_for_reading;
use crate::ledger::files::book_path::TALLY_EXTENSION;
use crate::ledger::files::lock;
use crate::ledger::values::error::LedgerError;
use crate::model::Window;

/// The longest delay until commands admitted in the last moment of a period are in the book: one fold a second, with a
/// margin.
pub(crate) const SETTLE_SECONDS: i64 = 5;

/// Whether the usage of a period can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeriodState {
    /// The usage can still change.
    Open,
    /// The usage cannot change.
    Complete,
}

impl PeriodState {
    /// Returns the word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
        }
    }
}

/// The state of a period as a whole, from the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeriodCompleteness {
    /// The gateway that created the book.
    pub gateway: String,
    /// Whether the usage can still change.
    pub state: PeriodState,
    /// The reasons why the usage can change; empty if it cannot.
    pub open_because: Vec<String>,
    /// Epochs that may have lost counts of the period.
    pub lost_counts: Vec<LostCounts>,
    /// The first hour with usage in the book.
    pub first_usage: Option<String>,
    /// The last hour with usage in the book.
    pub last_usage: Option<String>,
}

/// An epoch that did not end cleanly: its counts after a moment may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostCounts {
    /// The number of the epoch.
    pub epoch: u32,
    /// The moment, UTC.
    pub after: String,
    /// `machine died` or `tally missing`.
    pub ending: String,
}

/// Returns the completeness of the half-open range of windows in the book at `path`. Changes nothing.
pub fn completeness(path: &Path, windows: &Range<Window>, now: Timestamp) -> Result<PeriodCompleteness, LedgerError> {
    let connection = open_for_reading(path)?;
    let condition = LedgerCondition::read(path, now)?;
    let failed = |error| LedgerError::book("read", path, error);
    let moment = connection.unchecked_transaction().map_err(failed)?;
    completeness_at(&moment, windows, &condition).map_err(failed)
}

/// Returns the completeness of the range in a book at one moment.
pub(crate) fn completeness_at(
    moment: &Connection,
    windows: &Range<Window>,
    condition: &LedgerCondition,
) -> rusqlite::Result<PeriodCompleteness> {
    let open_because = open_reasons(moment, windows, condition)?;
    let state = if open_because.is_empty() { PeriodState::Complete } else { PeriodState::Open };
    let lost_counts = lost_counts(moment, windows)?;
    let gateway = moment.query_row("SELECT gateway FROM meta", [], |row| row.get(0))?;
    let [first_usage, last_usage] = usage_bounds(moment)?;
    Ok(PeriodCompleteness { gateway, state, open_because, lost_counts, first_usage, last_usage })
}

impl LedgerReader {
    /// Like [`completeness`], on a separate thread.
    pub async fn completeness(
        &self,
        windows: Range<Window>,
        now: Timestamp,
    ) -> Result<PeriodCompleteness, LedgerError> {
        let path = self.path.clone();
        self.run_on_thread(move || completeness(&path, &windows, now)).await
    }
}

/// The state of the ledger beside the book's own rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LedgerCondition {
    pub(crate) now: Timestamp,
    /// Whether a gateway keeps the ledger now.
    pub(crate) is_kept: bool,
    has_tally: bool,
}

impl LedgerCondition {
    /// Reads the condition of the ledger at `path`, which must be its canonical path.
    pub(crate) fn read(path: &Path, now: Timestamp) -> Result<Self, LedgerError> {
        let has_tally = path.with_extension(TALLY_EXTENSION).exists();
        Ok(Self { now, is_kept: lock::is_held(path)?, has_tally })
    }
}

fn open_reasons(book: &Connection, windows: &Range<Window>, look: &LedgerCondition) -> rusqlite::Result<Vec<String>> {
    let mut reasons = Vec::new();
    let end = windows.end.start_unix_seconds();
    if look.now.as_second() < end {
        reasons.push(format!("the period ends at {}", windows.end));
    }
    let (first, last) = (windows.start.0, windows.end.0);
    // The hours of an ended epoch wait for a seal until the next start, but they get no more counts.
    let query = "SELECT count(DISTINCT \"window\") FROM unsealed JOIN epoch USING (epoch)
                 WHERE ending IS NULL AND \"window\" >= ? AND \"window\" < ?";
    let unsealed: i64 = book.query_row(query, [first, last], |row| row.get(0))?;
    if unsealed > 0 {
        reasons.push(format!("{} not sealed yet", count_with_noun(unsealed, "hour is", "hours are")));
    }
    let query = "SELECT coalesce(sum(commands), 0) FROM in_flight WHERE \"window\" >= ? AND \"window\" < ?";
    let in_flight: i64 = book.query_row(query, [first, last], |row| row.get(0))?;
    if in_flight > 0 {
        reasons.push(format!("{} still in flight", count_with_noun(in_flight, "command is", "commands are")));
    }
    reasons.extend(open_epoch_reasons(book, end + SETTLE_SECONDS, look)?);
    Ok(reasons)
}

/// Returns the reasons from open epochs: an epoch that has not ended may hold counts that are not in the book yet.
fn open_epoch_reasons(book: &Connection, settled: i64, look: &LedgerCondition) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare("SELECT epoch, last_sync_at FROM epoch WHERE ending IS NULL ORDER BY 1")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))?;
    let mut reasons = Vec::new();
    for row in rows {
        let (epoch, last_sync_at) = row?;
        let synced = last_sync_at.parse::<Timestamp>().map_or(i64::MIN, Timestamp::as_second);
        match (look.is_kept, look.has_tally) {
            (true, _) if synced >= settled => {}
            (true, _) if look.now.as_second() < settled => {}
            (true, _) => reasons.push(format!("epoch {epoch} was last written into the book at {last_sync_at}")),
            (false, true) => reasons.push(format!(
                "the gateway of epoch {epoch} did not close the ledger; its next start recovers what it counted"
            )),
            (false, false) => reasons.push(format!(
                "epoch {epoch} has not ended, and there is no tally beside the book: counts after {last_sync_at} may \
                 be missing"
            )),
        }
    }
    Ok(reasons)
}

fn lost_counts(book: &Connection, windows: &Range<Window>) -> rusqlite::Result<Vec<LostCounts>> {
    let mut query = book.prepare(
        "SELECT epoch, last_sync_at, ending, ended_at FROM epoch WHERE ending IN ('machine died', 'tally missing') ORDER BY 1",
    )?;
    let rows = query.query_map([], |row| {
        let lost = LostCounts { epoch: row.get(0)?, after: row.get(1)?, ending: row.get(2)? };
        Ok((lost, row.get::<_, String>(3)?))
    })?;
    let mut lost = Vec::new();
    for row in rows {
        let (one, ended_at) = row?;
        let (from, to) = (window_from_text(&one.after), window_from_text(&ended_at));
        if from < windows.end && windows.start <= to {
            lost.push(one);
        }
    }
    Ok(lost)
}

/// Returns the window of a moment as written in the book. For an invalid moment, returns the first window, so that
/// nothing is left out.
fn window_from_text(moment: &str) -> Window {
    moment.parse::<Timestamp>().map_or(Window(0), |moment| Window::of_unix_seconds(moment.as_second()))
}

/// Returns the first and the last hour with usage.
fn usage_bounds(book: &Connection) -> rusqlite::Result<[Option<String>; 2]> {
    let query = "SELECT (SELECT min(\"window\") FROM usage), (SELECT min(day) FROM day_sum), (SELECT max(\"window\") FROM usage),
                        (SELECT max(day) FROM day_sum)";
    book.query_row(query, [], |row| {
        let window = |column| row.get::<_, Option<u32>>(column);
        let first = [window(0)?, window(1)?].into_iter().flatten().min();
        let last = [window(2)?, window(3)?].into_iter().flatten().max();
        Ok([first, last].map(|window| window.map(|window| Window(window).to_string())))
    })
}

fn count_with_noun(number: i64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
