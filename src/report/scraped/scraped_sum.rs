//! Adds up the hours of a Prometheus into a report of commands and units.
//!
//! Guarantees:
//! - Only whole hours are added. The others are missing hours, and the report is open.
//! - Memory holds the groups of the report and the hours that were added last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::ledger::Measures;
use crate::ledger::audit::PeriodState;
use crate::model::{CalendarOffset, Window};
use crate::report::grouping::{GroupKey, namespace_of};
use crate::report::measure_columns::MeasureColumns;
use crate::report::report_query::ReportQuery;
use crate::report::usage_report::{GroupSums, UsageReport};

use super::scraped_error::series_text;
use super::{FAMILY_LABEL, ScrapedError, ScrapedHours, ScrapedUsage, UsageLabels};

/// The most ranges that a sentence lists.
const RANGES_MAX: usize = 10;

/// The sum of the hours so far.
#[derive(Debug)]
pub struct ScrapedSum {
    query: ReportQuery,
    calendar: CalendarOffset,
    sums: GroupSums,
    /// The whole hours of each gateway.
    whole: BTreeMap<String, BTreeSet<Window>>,
}

/// A report of the hours of a Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapedReport {
    /// The report. It is open if hours are missing, or not over.
    pub usage: UsageReport,
    /// The hours that are over, and that are not whole for every gateway; in ranges.
    pub missing: Vec<Range<Window>>,
}

impl ScrapedSum {
    /// The sum of no hour.
    pub fn new(query: ReportQuery, calendar: CalendarOffset) -> Self {
        Self { query, calendar, sums: GroupSums::default(), whole: BTreeMap::new() }
    }

    /// Adds hours.
    pub fn add(&mut self, hours: &ScrapedHours) -> Result<(), ScrapedError> {
        for (gateway, hours) in hours.gateways() {
            let whole = self.whole.entry(gateway.to_owned()).or_default();
            for (window, hour) in hours.iter().filter(|(_, hour)| hour.is_whole()) {
                whole.insert(*window);
                for (labels, usage) in hour.usage().filter(|(labels, _)| self.query.selects(&labels.department)) {
                    let keys = keys_of(labels, *window, (&self.query, self.calendar))?;
                    self.sums.add_to_group(keys, &measures(usage))?;
                }
            }
        }
        Ok(())
    }

    /// The report, of the hours that are over in the hour `now`.
    pub fn finish(self, columns: MeasureColumns, now: Window) -> Result<ScrapedReport, ScrapedError> {
        let range = self.query.range.windows();
        let over = range.start..range.end.min(now);
        let is_whole =
            |window: &Window| !self.whole.is_empty() && self.whole.values().all(|whole| whole.contains(window));
        let missing = ranges((over.start.0..over.end.0).map(Window).filter(|window| !is_whole(window)));
        let is_complete = missing.is_empty() && range.end <= now;
        let state = if is_complete { PeriodState::Complete } else { PeriodState::Open };
        let usage = UsageReport::group(&[], self.query.range, self.calendar, self.query.group_by)?;
        let (rows, total) = self.sums.into_rows();
        Ok(ScrapedReport { usage: UsageReport { rows, total, ..usage }.limited_to(columns, state), missing })
    }
}

fn measures(usage: ScrapedUsage) -> Measures {
    Measures { commands: usage.commands, units: usage.units, ..Measures::default() }
}

/// The values of the keys. Keys that no sample has, which the command line refuses, are empty.
fn keys_of(
    labels: &UsageLabels,
    window: Window,
    (query, calendar): (&ReportQuery, CalendarOffset),
) -> Result<Vec<String>, ScrapedError> {
    let subsystem = labels.subsystem.as_deref().unwrap_or_default();
    let value = |key: &GroupKey| {
        Ok(match key {
            GroupKey::Department => labels.department.clone(),
            GroupKey::Namespace => namespace_of(subsystem).to_owned(),
            GroupKey::Subsystem => subsystem.to_owned(),
            GroupKey::Command => labels.command.clone().ok_or_else(|| no_command(labels))?,
            GroupKey::Outcome | GroupKey::Blame => String::new(),
            GroupKey::Month => calendar.month_of(window).to_string(),
            GroupKey::Day => calendar.date_of(window).to_string(),
            GroupKey::Hour => window.to_string(),
        })
    };
    query.group_by.keys().iter().map(value).collect()
}

fn no_command(labels: &UsageLabels) -> ScrapedError {
    let subsystem = labels.subsystem.clone().unwrap_or_default();
    let name = (FAMILY_LABEL, "tallygate_usage_hour_commands".to_owned());
    let labels = [name, ("department", labels.department.clone()), ("subsystem", subsystem)];
    ScrapedError::NoCommand { series: series_text(&labels.map(|(name, value)| (name.to_owned(), value)).into()) }
}

/// Hours in their order as ranges.
fn ranges(windows: impl Iterator<Item = Window>) -> Vec<Range<Window>> {
    let mut ranges: Vec<Range<Window>> = Vec::new();
    for window in windows {
        match ranges.last_mut().filter(|last| last.end == window) {
            Some(last) => last.end = window.next(),
            None => ranges.push(window..window.next()),
        }
    }
    ranges
}

/// Ranges of hours as text: the first ones, and how many more there are.
pub fn window_ranges_text(ranges: &[Range<Window>]) -> String {
    let shown = ranges.iter().take(RANGES_MAX).map(|range| format!("{} to {}", range.start, range.end));
    let more = ranges.len().checked_sub(RANGES_MAX).filter(|more| *more > 0).map(|more| format!("{more} more ranges"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}
