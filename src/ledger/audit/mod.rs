//! The audit: is the ledger what it says it is? Follows the chain, adds everything up again, tells what there is.
//!
//! Guarantees: changes nothing; works on a live ledger, on one whose process was killed and on a copy, and includes what the
//! tally holds beyond the book; each finding says where and what was expected. Memory does not grow with the age of a
//! book. `backup` writes a copy elsewhere. Showing it to people is for `cli`.

mod backup;
mod balance;
mod chain;
mod completeness;
mod days;
mod epochs;
mod export;
mod finding;
mod hours;
mod info;
mod names;
mod negative;
mod open;
mod order;
mod seals;
mod snapshot;
mod sums;
mod tally;

use std::collections::BTreeSet;
use std::path::Path;

use self::balance::Balance;
use self::days::Days;
use self::epochs::Epochs;
use self::finding::Report;
use self::hours::Hour;
use self::names::Names;
use self::open::OpenEpoch;
use self::snapshot::Snapshot;
use self::sums::DaySums;
use self::tally::TallyRows;
use super::error::LedgerError;
use super::schema_check;
use crate::model::Window;

pub use backup::{Backup, BackupError, backup};
pub use chain::{BadHead, NotedHead};
pub use completeness::{Completeness, LostCounts, PeriodState, completeness};
pub use epochs::EpochRow;
pub use export::{ExportError, Part, export};
pub use finding::{AfterHead, ChainHead, Check, Checked, Finding, MOST_FINDINGS, Verdict};
pub use info::{EpochInfo, Info, Sizes, TallyInfo, WindowInfo, info};

/// Called with what is being done, how much of it is done, and how much there is.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Checks everything that can be checked of the ledger at `path`; `noted` is a head that was kept elsewhere.
pub fn verify(path: &Path, noted: Option<&NotedHead>, progress: &mut Progress<'_>) -> Result<Verdict, LedgerError> {
    let snapshot = Snapshot::take(path)?;
    let mut report = Report::default();
    check_schema(&snapshot, &mut report).map_err(|error| snapshot.failed(error))?;
    let is_altered = !report.findings.is_empty();
    match check(&snapshot, noted, (&mut report, progress)) {
        Ok(head) => Ok(report.verdict(head)),
        Err(error) if is_altered => {
            report.note(format!("the rest could not be checked in a book that is altered so: {error}"));
            Ok(report.verdict(chain::beginning()))
        }
        Err(error) => Err(snapshot.failed(error)),
    }
}

/// Every table, index, view and trigger is the format's own; so are the rows of `outcome`.
fn check_schema(snapshot: &Snapshot, report: &mut Report) -> rusqlite::Result<()> {
    for difference in schema_check::differences(&snapshot.connection)? {
        report.find(Check::Schema, difference.place, difference.what);
    }
    Ok(())
}

fn check(
    snapshot: &Snapshot,
    noted: Option<&NotedHead>,
    (report, progress): (&mut Report, &mut Progress<'_>),
) -> rusqlite::Result<ChainHead> {
    let book = &snapshot.connection;
    let (days, epochs) = (Days::read(book)?, Epochs::read(book)?);
    let head = chain::check(book, (&days, &epochs), noted, (report, progress))?;
    if let Some(noted) = noted {
        chain::check_noted(book, noted, report)?;
    }
    epochs.check(snapshot, report);
    check_adjustments(book, report)?;
    negative::check(book, report)?;
    tally::check(snapshot, report);
    add_up(snapshot, (&days, &epochs), report, progress)?;
    Ok(head)
}

/// Every correction is the one its seal covers (the chain looked at that), and none has no seal.
fn check_adjustments(book: &rusqlite::Connection, report: &mut Report) -> rusqlite::Result<()> {
    let sealed: i64 = book.query_row("SELECT count(*) FROM seal WHERE kind = 'adjustment'", [], |row| row.get(0))?;
    let mut query = book.prepare("SELECT number FROM adjustment ORDER BY number")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        report.checked.adjustments += 1;
        let number: i64 = row.get(0)?;
        if number < 1 || number > sealed {
            let what = format!("it has no seal; {sealed} corrections have one");
            report.find(Check::Adjustments, format!("adjustment {number}"), what);
        }
    }
    Ok(())
}

/// Reads the rows of every hour once, and hands them to all who add up.
fn add_up(
    snapshot: &Snapshot,
    (days, epochs): (&Days, &Epochs),
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> rusqlite::Result<()> {
    let book = &snapshot.connection;
    let mut names = Names::read(book)?;
    let open = snapshot.readings().map(|readings| OpenEpoch::of(readings, &mut names));
    let rows = open.as_ref().zip(snapshot.readings()).map(|(open, readings)| TallyRows::of(open, readings, &mut names));
    let mut balance = Balance::new(book, (days, epochs), open.as_ref())?;
    let mut sums = DaySums::new(book, days);
    let mut seen = BTreeSet::new();
    let mut hours = Hours::new(book, days.horizon)?;
    while let Some(hour) = hours.next(progress)? {
        check_rows(&hour, epochs, report);
        sums.add(&hour, (&names, report))?;
        balance.add_hour(&hour, report);
        if let Some(rows) = &rows {
            rows.check(&hour, (&names, report));
        }
        seen.insert(days.kept(hour.window).start);
    }
    sums.end_day((&names, report))?;
    hours.check_empty(report);
    check_unsealed(book, days.horizon, report)?;
    sums::check_strays(book, days, |day| seen.contains(&day), report)?;
    sums::check_ever(book, (&names, report))?;
    balance.add_stored(book)?;
    if let Some(open) = &open {
        balance.add_open(open);
    }
    balance.finish(open.as_ref(), (&names, report));
    Ok(())
}

/// The hours of a book from the horizon on.
struct Hours<'a> {
    book: &'a rusqlite::Connection,
    from: Window,
    /// Epochs that sealed an hour which has not been read yet.
    sealed: std::collections::HashMap<Window, BTreeSet<u32>>,
    done: u64,
    count: u64,
}

impl<'a> Hours<'a> {
    fn new(book: &'a rusqlite::Connection, horizon: Window) -> rusqlite::Result<Self> {
        let sealed = hours::sealed(book, horizon)?;
        let count = sealed.len() as u64;
        Ok(Self { book, from: horizon, sealed, done: 0, count })
    }

    fn next(&mut self, progress: &mut Progress<'_>) -> rusqlite::Result<Option<Hour>> {
        let Some(window) = hours::next(self.book, self.from)? else { return Ok(None) };
        self.from = window.next();
        self.done += 1;
        progress("hours", self.done.min(self.count), self.count);
        hours::read(self.book, window, self.sealed.remove(&window).unwrap_or_default()).map(Some)
    }

    /// Hours that were sealed and of which no row is left.
    fn check_empty(&self, report: &mut Report) {
        let mut empty: Vec<_> = self.sealed.iter().collect();
        empty.sort();
        for (window, epochs) in empty {
            for epoch in epochs {
                report.find(
                    Check::Rows,
                    format!("epoch {epoch}, hour {window}"),
                    "it is sealed, and none of its rows is left",
                );
            }
        }
    }
}

/// Every row has a seal or waits for one.
fn check_rows(hour: &Hour, epochs: &Epochs, report: &mut Report) {
    let with_rows = hour.epochs();
    for epoch in &with_rows {
        let place = format!("epoch {epoch}, hour {}", hour.window);
        let (is_sealed, waits) = (hour.sealed.contains(epoch), hour.unsealed.contains(epoch));
        if !is_sealed && !waits {
            report.find(Check::Rows, &place, "its rows have no seal and do not wait for one");
        }
        if is_sealed && waits {
            report.find(Check::Rows, &place, "it is sealed, and waits for a seal all the same");
        }
        if epochs.get(*epoch).is_none() {
            report.find(Check::Epochs, &place, "it has rows, and the book does not know the epoch");
        }
    }
    for epoch in hour.sealed.difference(&with_rows) {
        report.find(
            Check::Rows,
            format!("epoch {epoch}, hour {}", hour.window),
            "it is sealed, and none of its rows is left",
        );
    }
}

/// Nothing before the horizon waits for a seal.
fn check_unsealed(book: &rusqlite::Connection, horizon: Window, report: &mut Report) -> rusqlite::Result<()> {
    let mut query = book.prepare("SELECT epoch, \"window\" FROM unsealed WHERE \"window\" < ?1")?;
    let mut rows = query.query([horizon.0])?;
    while let Some(row) = rows.next()? {
        let (epoch, window): (u32, u32) = (row.get(0)?, row.get(1)?);
        let what = format!("it waits for a seal, but hours before {horizon} are kept as days only");
        report.find(Check::Rows, format!("epoch {epoch}, hour {}", Window(window)), what);
    }
    Ok(())
}
