//! The audit: verifies the chain of a ledger, recomputes its sums, and describes its content.
//!
//! Guarantees:
//! - The audit changes nothing.
//! - It works on a live ledger, on a ledger of a killed process and on a copy.
//! - It includes the counts of the tally that are not in the book yet.
//! - Each finding contains the place, the value found and the value expected.
//! - Memory does not grow with the age of a book.
//! - `backup` writes a copy to another path.
//!
//! Leaves to `cli`: the display.

mod backup;
mod calendar_days;
mod chain_check;
mod completeness;
mod coverage;
mod day_sum_check;
mod epoch_check;
mod export;
mod findings;
mod hour_order;
mod hour_reader;
mod ledger_info;
mod ledger_snapshot;
mod name_table;
mod negative_counts;
mod open_epoch;
mod reconciliation;
mod seal_walk;
mod tally_check;

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::Window;

use self::calendar_days::CalendarDays;
use self::day_sum_check::DaySums;
use self::epoch_check::EpochTable;
use self::findings::{AuditReport, ProgressCallback};
use self::hour_reader::HourRows;
use self::ledger_snapshot::LedgerSnapshot;
use self::name_table::NameTable;
use self::open_epoch::OpenEpoch;
use self::reconciliation::Reconciliation;
use self::tally_check::TallyRows;
use super::book::schema_check;
use super::values::error::LedgerError;

pub use backup::{BackupError, LedgerBackup, backup};
pub use chain_check::{BadHead, NotedHead};
pub use completeness::{LostCounts, PeriodCompleteness, PeriodState, completeness};
pub use coverage::{CoverageGap, GAPS_MAX, LedgerCoverage, ledger_coverage};
pub use epoch_check::EpochRow;
pub use export::{ExportError, ExportPart, export};
pub use findings::{AuditCheck, AuditCounts, AuditFinding, AuditVerdict, ChainHead, FINDINGS_MAX, SealsAfterHead};
pub use ledger_info::{EpochInfo, FileSizes, LedgerInfo, TallyInfo, WindowInfo, ledger_info};

/// Runs all checks on the ledger at `path`. `noted` is a head of the chain that was noted elsewhere.
pub fn verify(
    path: &Path,
    noted: Option<&NotedHead>,
    progress: &mut ProgressCallback<'_>,
) -> Result<AuditVerdict, LedgerError> {
    let snapshot = LedgerSnapshot::read(path)?;
    let mut report = AuditReport::default();
    check_schema_objects(&snapshot, &mut report).map_err(|error| snapshot.book_error(error))?;
    let is_altered = !report.findings.is_empty();
    match run_checks(&snapshot, noted, (&mut report, progress)) {
        Ok(head) => Ok(report.into_verdict(head)),
        Err(error) if is_altered => {
            report.add_note(format!("the rest could not be checked because of the alterations: {error}"));
            Ok(report.into_verdict(chain_check::empty_chain()))
        }
        Err(error) => Err(snapshot.book_error(error)),
    }
}

/// Checks that every table, index, view and trigger is the format's own, and the rows of `outcome` too.
fn check_schema_objects(snapshot: &LedgerSnapshot, report: &mut AuditReport) -> rusqlite::Result<()> {
    for difference in schema_check::schema_differences(&snapshot.connection)? {
        report.add_finding(AuditCheck::Schema, difference.place, difference.what);
    }
    Ok(())
}

fn run_checks(
    snapshot: &LedgerSnapshot,
    noted: Option<&NotedHead>,
    (report, progress): (&mut AuditReport, &mut ProgressCallback<'_>),
) -> rusqlite::Result<ChainHead> {
    let book = &snapshot.connection;
    let (days, epochs) = (CalendarDays::from_book(book)?, EpochTable::from_book(book)?);
    let head = chain_check::check_chain(book, (&days, &epochs), noted, (report, progress))?;
    if let Some(noted) = noted {
        chain_check::check_noted_head(book, noted, report)?;
    }
    epochs.check_epochs(snapshot, report);
    check_adjustments(book, report)?;
    negative_counts::check_negative_counts(book, report)?;
    tally_check::check_tally(snapshot, report);
    sum_all_hours(snapshot, (&days, &epochs), report, progress)?;
    Ok(head)
}

/// Checks that every correction has a seal. The chain check has already compared the corrections with their seals.
fn check_adjustments(book: &rusqlite::Connection, report: &mut AuditReport) -> rusqlite::Result<()> {
    let sealed: i64 = book.query_row("SELECT count(*) FROM seal WHERE kind = 'adjustment'", [], |row| row.get(0))?;
    let mut query = book.prepare("SELECT number FROM adjustment ORDER BY number")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        report.checked.adjustments += 1;
        let number: i64 = row.get(0)?;
        if number < 1 || number > sealed {
            let what = format!("it has no seal; {sealed} corrections have one");
            report.add_finding(AuditCheck::Adjustments, format!("adjustment {number}"), what);
        }
    }
    Ok(())
}

/// Reads the rows of every hour once, and passes them to all checks that add up hours.
fn sum_all_hours(
    snapshot: &LedgerSnapshot,
    (days, epochs): (&CalendarDays, &EpochTable),
    report: &mut AuditReport,
    progress: &mut ProgressCallback<'_>,
) -> rusqlite::Result<()> {
    let book = &snapshot.connection;
    let mut names = NameTable::from_book(book)?;
    let open = snapshot.readings().map(|readings| OpenEpoch::from_readings(readings, &mut names));
    let rows = open
        .as_ref()
        .zip(snapshot.readings())
        .map(|(open, readings)| TallyRows::from_readings(open, readings, &mut names));
    let mut balance = Reconciliation::new(book, (days, epochs), open.as_ref())?;
    let mut sums = DaySums::new(book, days);
    let mut seen = BTreeSet::new();
    let mut hours = HourCursor::new(book, days.compacted_before)?;
    while let Some(hour) = hours.next_hour(progress)? {
        check_hour_rows(&hour, epochs, report);
        sums.add_hour(&hour, (&names, report))?;
        balance.add_hour(&hour, report);
        if let Some(rows) = &rows {
            rows.check_hour(&hour, (&names, report));
        }
        seen.insert(days.kept_day(hour.window).start);
    }
    sums.end_day((&names, report))?;
    hours.check_exhausted(report);
    check_unsealed_hours(book, days.compacted_before, report)?;
    day_sum_check::check_stray_days(book, days, |day| seen.contains(&day), report)?;
    day_sum_check::check_total_sums(book, (&names, report))?;
    balance.add_stored(book)?;
    if let Some(open) = &open {
        balance.add_open_epoch(open);
    }
    balance.finish(open.as_ref(), (&names, report));
    Ok(())
}

/// A cursor over the hours of a book from the horizon on.
struct HourCursor<'a> {
    book: &'a rusqlite::Connection,
    next_window: Window,
    /// Epochs that sealed an hour which has not been read yet.
    sealed: std::collections::HashMap<Window, BTreeSet<u32>>,
    done: u64,
    count: u64,
}

impl<'a> HourCursor<'a> {
    fn new(book: &'a rusqlite::Connection, compacted_before: Window) -> rusqlite::Result<Self> {
        let sealed = hour_reader::sealed_epochs(book, compacted_before)?;
        let count = sealed.len() as u64;
        Ok(Self { book, next_window: compacted_before, sealed, done: 0, count })
    }

    fn next_hour(&mut self, progress: &mut ProgressCallback<'_>) -> rusqlite::Result<Option<HourRows>> {
        let Some(window) = hour_reader::next_hour(self.book, self.next_window)? else { return Ok(None) };
        self.next_window = window.next();
        self.done += 1;
        progress("hours", self.done.min(self.count), self.count);
        hour_reader::read_hour(self.book, window, self.sealed.remove(&window).unwrap_or_default()).map(Some)
    }

    /// Reports hours that were sealed and have no rows.
    fn check_exhausted(&self, report: &mut AuditReport) {
        let mut empty: Vec<_> = self.sealed.iter().collect();
        empty.sort();
        for (window, epochs) in empty {
            for epoch in epochs {
                report.add_finding(
                    AuditCheck::Rows,
                    format!("epoch {epoch}, hour {window}"),
                    "it is sealed, but all of its rows are missing",
                );
            }
        }
    }
}

/// Checks that every row has a seal or waits for one.
fn check_hour_rows(hour: &HourRows, epochs: &EpochTable, report: &mut AuditReport) {
    let with_rows = hour.epochs();
    for epoch in &with_rows {
        let place = format!("epoch {epoch}, hour {}", hour.window);
        let (is_sealed, waits) = (hour.sealed.contains(epoch), hour.unsealed.contains(epoch));
        if !is_sealed && !waits {
            report.add_finding(AuditCheck::Rows, &place, "its rows are not sealed and not marked as unsealed");
        }
        if is_sealed && waits {
            report.add_finding(AuditCheck::Rows, &place, "it is sealed, but marked as unsealed");
        }
        if epochs.get(*epoch).is_none() {
            report.add_finding(AuditCheck::Epochs, &place, "it has rows, but the epoch is not in the book");
        }
    }
    for epoch in hour.sealed.difference(&with_rows) {
        report.add_finding(
            AuditCheck::Rows,
            format!("epoch {epoch}, hour {}", hour.window),
            "it is sealed, but all of its rows are missing",
        );
    }
}

/// Checks that no hour before the horizon waits for a seal.
fn check_unsealed_hours(
    book: &rusqlite::Connection,
    compacted_before: Window,
    report: &mut AuditReport,
) -> rusqlite::Result<()> {
    let mut query = book.prepare("SELECT epoch, \"window\" FROM unsealed WHERE \"window\" < ?1")?;
    let mut rows = query.query([compacted_before.0])?;
    while let Some(row) = rows.next()? {
        let (epoch, window): (u32, u32) = (row.get(0)?, row.get(1)?);
        let what =
            format!("it is marked as unsealed, but hours before {compacted_before} are kept only as sums of days");
        report.add_finding(AuditCheck::Rows, format!("epoch {epoch}, hour {}", Window(window)), what);
    }
    Ok(())
}
