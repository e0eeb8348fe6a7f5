//! How far a ledger reaches: its identity, its first and last complete hours, and when no gateway ran on it.
//!
//! Guarantees:
//! - Reads only the book, at one moment, and changes nothing.
//! - No gateway on this ledger adds usage to an hour before `complete_to`, unless its epoch ended with a loss
//!   (`lost_counts`).
//!
//! Leaves to [`super::completeness()`]: whether a period can still change, and lost counts.

use std::ops::Range;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;

use crate::ledger::book::book_reader::open_for_reading;
use crate::ledger::book::ledger_identity::ledger_identity;
use crate::ledger::files::book_path::canonical_path;
use crate::ledger::values::error::LedgerError;
use crate::model::Window;

use super::completeness::{LedgerCondition, PeriodCompleteness, SETTLE_SECONDS, completeness_at};

/// The most gaps of one ledger that are listed.
pub const GAPS_MAX: usize = 100;

/// How far a ledger reaches, and its state in a range of windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerCoverage {
    /// The identity of the ledger; `None` before its first epoch.
    pub id: Option<String>,
    /// The start of the first epoch, UTC.
    pub begins: Option<String>,
    /// The end of the last complete hour, UTC: no usage is added to the hours before it. `None` if no hour is complete.
    pub complete_to: Option<String>,
    /// The end of the last epoch, UTC; `None` while an epoch has not ended.
    pub ended_at: Option<String>,
    /// The parts of the range, up to now, in which the ledger counted nothing because no gateway ran on it. Only gaps
    /// with at least one whole hour; at most [`GAPS_MAX`].
    pub gaps: Vec<CoverageGap>,
    /// The number of gaps that are not listed.
    pub gaps_left_out: usize,
    /// The completeness of the range.
    pub completeness: PeriodCompleteness,
}

/// A part of a range in which a ledger counted nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoverageGap {
    /// The begin, UTC.
    pub from: String,
    /// The end, UTC.
    pub to: String,
    /// The cause: `before its first start`, `no gateway ran`, `closed`, `not closed`, or the ending of the epoch before
    /// the gap if it was not clean.
    pub why: String,
}

/// Returns the coverage of the half-open range of windows by the ledger at `path`. Changes nothing.
pub fn ledger_coverage(path: &Path, windows: &Range<Window>, now: Timestamp) -> Result<LedgerCoverage, LedgerError> {
    let path = &canonical_path(path)?;
    let connection = open_for_reading(path)?;
    let condition = LedgerCondition::read(path, now)?;
    let failed = |error| LedgerError::book("read", path, error);
    let moment = connection.unchecked_transaction().map_err(failed)?;
    let completeness = completeness_at(&moment, windows, &condition).map_err(failed)?;
    coverage_at(&moment, (windows, &condition), completeness).map_err(failed)
}

fn coverage_at(
    book: &Connection,
    (windows, condition): (&Range<Window>, &LedgerCondition),
    completeness: PeriodCompleteness,
) -> rusqlite::Result<LedgerCoverage> {
    let end = windows.end.start_unix_seconds().min(condition.now.as_second());
    let mut gaps = GapList { range: windows.start.start_unix_seconds()..end, listed: Vec::new(), left_out: 0 };
    let runs = read_runs(book, condition.is_kept, &mut gaps)?;
    let begins = runs.begins.map(Window::of_unix_seconds);
    let complete_to = complete_to(book, &runs)?.filter(|window| Some(*window) > begins);
    Ok(LedgerCoverage {
        id: ledger_identity(book)?,
        begins: runs.begins.map(seconds_text),
        complete_to: complete_to.map(|window| window.to_string()),
        ended_at: runs.ended_at.filter(|_| runs.open_synced.is_none()).map(seconds_text),
        gaps: gaps.listed,
        gaps_left_out: gaps.left_out,
        completeness,
    })
}

/// The times of all epochs together, in Unix seconds.
#[derive(Debug, Default)]
struct EpochRuns {
    begins: Option<i64>,
    ended_at: Option<i64>,
    /// The earliest last sync of the epochs that have not ended.
    open_synced: Option<i64>,
}

/// Reads the epochs in their order, and adds the times between them to `gaps`.
fn read_runs(book: &Connection, is_kept: bool, gaps: &mut GapList) -> rusqlite::Result<EpochRuns> {
    let mut query = book.prepare("SELECT started_at, last_sync_at, ended_at, ending FROM epoch ORDER BY epoch")?;
    let mut rows = query.query([])?;
    let mut runs = EpochRuns::default();
    let mut stopped: (i64, String) = (i64::MIN, "before its first start".to_owned());
    while let Some(row) = rows.next()? {
        let (started, synced): (String, String) = (row.get(0)?, row.get(1)?);
        let (ended, ending): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let (started, synced) = (unix_seconds(&started), unix_seconds(&synced));
        gaps.add(stopped.0..started, &stopped.1);
        runs.begins.get_or_insert(started);
        stopped = match ending.as_deref() {
            Some("clean") => (ended.as_deref().map_or(synced, unix_seconds), "no gateway ran".to_owned()),
            Some(ending) => (synced, ending.to_owned()),
            None => (synced, "not closed".to_owned()),
        };
        match ending {
            Some(_) => runs.ended_at = Some(stopped.0.max(runs.ended_at.unwrap_or(stopped.0))),
            None => runs.open_synced = Some(synced.min(runs.open_synced.unwrap_or(synced))),
        }
    }
    let is_running = is_kept && runs.open_synced.is_some();
    if !is_running {
        let why = if stopped.1 == "no gateway ran" { "closed" } else { &stopped.1 };
        gaps.add(stopped.0..i64::MAX, why);
    }
    Ok(runs)
}

/// Returns the first hour that is not complete. In an epoch that has not ended, commands of the last moments may not be
/// in the book yet, and commands in flight may end in the hour of their admission until that hour is sealed.
fn complete_to(book: &Connection, runs: &EpochRuns) -> rusqlite::Result<Option<Window>> {
    let Some(synced) = runs.open_synced else { return Ok(runs.ended_at.map(Window::of_unix_seconds)) };
    let query = "SELECT min(first) FROM (
                     SELECT min(\"window\") AS first FROM unsealed JOIN epoch USING (epoch) WHERE ending IS NULL
                     UNION ALL SELECT min(\"window\") FROM in_flight)";
    let open: Option<u32> = book.query_row(query, [], |row| row.get(0))?;
    let settled = Window::of_unix_seconds(synced - SETTLE_SECONDS);
    Ok(Some(settled.min(open.map_or(settled, Window))))
}

/// The gaps within a range of Unix seconds.
#[derive(Debug)]
struct GapList {
    range: Range<i64>,
    listed: Vec<CoverageGap>,
    left_out: usize,
}

impl GapList {
    /// Adds the part of a gap that lies in the range, if it contains a whole hour.
    fn add(&mut self, gap: Range<i64>, why: &str) {
        let (from, to) = (gap.start.max(self.range.start), gap.end.min(self.range.end));
        if from >= to || !has_whole_hour(from, to) {
            return;
        }
        if self.listed.len() == GAPS_MAX {
            self.left_out += 1;
            return;
        }
        self.listed.push(CoverageGap { from: seconds_text(from), to: seconds_text(to), why: why.to_owned() });
    }
}

fn has_whole_hour(from: i64, to: i64) -> bool {
    let window = Window::of_unix_seconds(from);
    let first_whole = if window.start_unix_seconds() < from { window.next() } else { window };
    first_whole.next().start_unix_seconds() <= to
}

/// Returns a moment of the book in Unix seconds; 0 for one that cannot be read, so that nothing is left out.
fn unix_seconds(moment: &str) -> i64 {
    moment.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}

fn seconds_text(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |moment| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_cut_to_the_range_and_have_a_whole_hour() {
        const HOUR: i64 = 3600;
        for (gap, expected) in [
            (i64::MIN..10 * HOUR, None),
            (i64::MIN..11 * HOUR, Some("1970-01-01T10:00:00Z 1970-01-01T11:00:00Z")),
            (11 * HOUR + 1..12 * HOUR + 3599, None),
            (11 * HOUR + 1..13 * HOUR, Some("1970-01-01T11:00:01Z 1970-01-01T13:00:00Z")),
            (18 * HOUR..i64::MAX, Some("1970-01-01T18:00:00Z 1970-01-01T20:00:00Z")),
            (20 * HOUR..i64::MAX, None),
            (Range { start: 15 * HOUR, end: 12 * HOUR }, None), // a clock that was set back
        ] {
            let mut gaps = GapList { range: 10 * HOUR..20 * HOUR, listed: Vec::new(), left_out: 0 };
            gaps.add(gap.clone(), "closed");
            let found = gaps.listed.first().map(|gap| format!("{} {}", gap.from, gap.to));
            assert_eq!(found.as_deref(), expected, "{gap:?}");
        }
    }

    #[test]
    fn number_of_listed_gaps_is_bounded() {
        let mut gaps = GapList { range: 0..i64::MAX, listed: Vec::new(), left_out: 0 };
        for number in 0..GAPS_MAX as i64 + 7 {
            gaps.add(number * 7200..number * 7200 + 3600, "no gateway ran");
        }
        assert_eq!((gaps.listed.len(), gaps.left_out), (GAPS_MAX, 7));
    }
}
