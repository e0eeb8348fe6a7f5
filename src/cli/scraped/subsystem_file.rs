//! `report reconcile --subsystem-counts`: reads the file, the ledger by outcome, and the gateway's counters of what was
//! sent twice.
//!
//! Leaves to `report`: the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::ledger::{LedgerFiles, UsageRow};
use crate::model::Window;
use crate::report::{DayOutcomes, SubsystemComparison, SubsystemCounts, UsageReconciliation};

use crate::cli::prometheus::{PrometheusError, PrometheusHours};
use crate::cli::{BadUsage, print_message};

/// The hours before and after a period that another calendar can move into it.
const MOVED_HOURS: u32 = 26;

/// Reads the file of a subsystem's counts.
pub(super) fn read_counts(file: &Path) -> Result<SubsystemCounts, BadUsage> {
    let refused = |why: String| BadUsage(format!("--subsystem-counts {}: {why}", file.display()));
    let mut content = Vec::new();
    // One byte more than is allowed, so that `parse` sees that there is more.
    let read = File::open(file).and_then(|file| file.take(SubsystemCounts::BYTES_MAX + 1).read_to_end(&mut content));
    read.map_err(|error| refused(error.to_string()))?;
    SubsystemCounts::parse(&content).map_err(|error| refused(error.to_string()))
}

/// The gateway's counters of retries and mirrored copies.
pub(super) struct SentAgain<'a> {
    pub(super) source: &'a PrometheusHours,
    pub(super) counts: &'a SubsystemCounts,
}

impl SentAgain<'_> {
    /// The most commands that subsystems received twice on a day.
    fn most_on(&self, date: Date, both: &UsageReconciliation) -> Result<u64, PrometheusError> {
        let start = both.calendar.first_window(date);
        self.source.sent_again(&(start..Window(start.0 + 24)), &|subsystem| self.counts.covers(subsystem))
    }
}

/// Compares the counts with the ledgers.
pub(super) fn compare(
    books: &[PathBuf],
    both: &UsageReconciliation,
    (counts, sent_again): (&SubsystemCounts, &SentAgain<'_>),
    compacted_before: Window,
) -> anyhow::Result<SubsystemComparison> {
    let windows = both.range.windows();
    let is_meant = |row: &UsageRow| counts.covers(row.subsystem.as_str()) && both.selects(row.department.as_str());
    let mut days: BTreeMap<(String, Date), DayOutcomes> = BTreeMap::new();
    for book in books {
        for row in LedgerFiles::open(book)?.usage_by_day(windows.clone())?.iter().filter(|row| is_meant(row)) {
            let key = (row.department.to_string(), both.calendar.date_of(row.window));
            *days.entry(key).or_default() += DayOutcomes::of(row.outcome, row.totals.commands);
        }
    }
    let mut counts = counts.clone();
    counts.commands.retain(|(department, _), _| both.selects(department));
    let dates = whole_days(both);
    days.retain(|(_, date), _| dates.contains(date));
    let mut compared = SubsystemComparison::new(&counts, &days, &dates);
    for date in compared.days_with_more() {
        compared.explain_sent_again(date, sent_again.most_on(date, both)?);
    }
    if !compared.is_explained() && windows.start.0 >= compacted_before.0 + MOVED_HOURS {
        let mut hours: BTreeMap<(String, Window), DayOutcomes> = BTreeMap::new();
        let around = Window(windows.start.0.saturating_sub(MOVED_HOURS))..Window(windows.end.0 + MOVED_HOURS);
        for book in books {
            for row in LedgerFiles::open(book)?.usage_by_hour(around.clone())?.iter().filter(|row| is_meant(row)) {
                let key = (row.department.to_string(), row.window);
                *hours.entry(key).or_default() += DayOutcomes::of(row.outcome, row.totals.commands);
            }
        }
        compared.explain_other_calendar(&counts, &hours, both.calendar);
    }
    Ok(compared)
}

/// The days that lie in the period as a whole. Parts of days are not compared.
fn whole_days(both: &UsageReconciliation) -> BTreeSet<Date> {
    let windows = both.range.windows();
    let mut days = BTreeSet::new();
    let mut start = both.calendar.day_of(windows.start);
    while start < windows.end {
        let end = Window(start.0 + 24);
        match windows.start <= start && end <= windows.end {
            true => drop(days.insert(both.calendar.date_of(start))),
            false => print_message(&format!(
                "note: --subsystem-counts: {} is only partly in the period: not compared",
                both.calendar.date_of(start)
            )),
        }
        start = end;
    }
    days
}
