//! Adds up the hours of a Prometheus into a report of commands and units.
//!
//! Guarantees:
//! - Only whole hours are added. The others are missing hours, and the report is open.
//! - Memory holds the groups of the report and the hours that were added last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::ledger::audit::PeriodState;
use crate::ledger::{Measures, UsageSums};
use crate::model::{CalendarOffset, Window};
use crate::report::grouping::{GroupKey, namespace_of};
use crate::report::measure_columns::MeasureColumns;
use crate::report::report_query::ReportQuery;
use crate::report::usage_report::{GroupSums, UsageReport};

use super::scraped_error::{ScrapedError, series_text};
use super::scraped_hour::{ScrapedHours, UsageLabels};
use super::scraped_series::FAMILY_LABEL;

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
        let missing = window_ranges((over.start.0..over.end.0).map(Window).filter(|window| !is_whole(window)));
        let is_complete = missing.is_empty() && range.end <= now;
        let state = if is_complete { PeriodState::Complete } else { PeriodState::Open };
        let usage = UsageReport::group(&[], self.query.range, self.calendar, self.query.group_by)?;
        let (rows, total) = self.sums.into_rows();
        Ok(ScrapedReport { usage: UsageReport { rows, total, ..usage }.limited_to(columns, state), missing })
    }
}

fn measures(usage: UsageSums) -> Measures {
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
pub fn window_ranges(windows: impl Iterator<Item = Window>) -> Vec<Range<Window>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::report::render::{TableTarget, render_csv, render_table};
    use crate::report::scraped::scraped_series::tests::{commands_of, day, hour, labelled, read};
    use crate::report::{GroupKeys, ReportRange};

    /// The report of the hours 10, 11 and 12 of a day, as text.
    fn report(by: &str, departments: &[&str], hours: &ScrapedHours, now: u32) -> Result<ScrapedReport, ScrapedError> {
        let query = ReportQuery {
            range: ReportRange { from: hour(10), to: hour(13) },
            group_by: GroupKeys::parse(by).expect("keys"),
            departments: departments.iter().map(|id| Name::parse(id).expect("a name")).collect(),
        };
        let mut sum = ScrapedSum::new(query, CalendarOffset::default());
        sum.add(hours)?;
        sum.finish(MeasureColumns::OF_HOUR_SAMPLES, hour(now))
    }

    fn brief(report: &ScrapedReport) -> String {
        let rows = report.usage.rows.iter();
        let rows = rows.map(|row| format!("{}={}/{}", row.keys.join(","), row.totals.commands, row.totals.units));
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn whole_hours_are_added_by_the_keys_and_others_are_missing() {
        let hours = read(&day(), None).expect("hours");
        for (by, departments, expected) in [
            ("department,subsystem", &[][..], "fire,cameras=1/1 parking,cameras=7/14 parking,shop.cart=9/0"),
            ("department", &["parking"], "parking=16/14"),
            ("namespace", &[], "=8/15 shop=9/0"),
            ("hour", &[], "2026-10-05T10:00:00Z=15/12 2026-10-05T11:00:00Z=2/3"),
            ("day,department", &[], "2026-10-05,fire=1/1 2026-10-05,parking=16/14"),
            ("month", &[], "2026-10=17/15"),
        ] {
            let report = report(by, departments, &hours, 13).expect("a report");
            assert_eq!(brief(&report), expected, "{by}");
            // The hour 12 has a part of its samples.
            assert_eq!(window_ranges_text(&report.missing), "2026-10-05T12:00:00Z to 2026-10-05T13:00:00Z");
            assert_eq!(report.usage.chosen.expect("chosen").state, PeriodState::Open);
        }
        assert!(matches!(report("command", &[], &hours, 13), Err(ScrapedError::NoCommand { .. })));
    }

    #[test]
    fn period_is_complete_once_it_is_over_and_no_hour_is_missing() {
        let mut series = day();
        series[8].samples[2].value = "1".to_owned(); // the hour 12 has one sample
        let hours = read(&series, None).expect("hours");
        for (now, state, missing) in [(13, PeriodState::Complete, ""), (12, PeriodState::Open, "")] {
            let report = report("department", &[], &hours, now).expect("a report");
            assert_eq!(
                (report.usage.chosen.expect("chosen").state, window_ranges_text(&report.missing).as_str()),
                (state, missing)
            );
        }
        let none = report("department", &[], &ScrapedHours::default(), 13).expect("a report");
        assert_eq!(window_ranges_text(&none.missing), "2026-10-05T10:00:00Z to 2026-10-05T13:00:00Z");
        assert_eq!(brief(&none), "");
    }

    #[test]
    fn gateways_are_added_up_by_their_label_and_an_hour_of_one_is_not_enough() {
        let gateway =
            |gateway: &str, commands: &[u64]| labelled(commands_of("parking", commands), ("gateway", gateway));
        let series = [gateway("a", &[1, 2, 3]), gateway("b", &[10, 20])].concat();
        let report = report("hour", &[], &read(&series, Some("gateway")).expect("hours"), 13).expect("a report");
        let sums = "2026-10-05T10:00:00Z=11/0 2026-10-05T11:00:00Z=22/0 2026-10-05T12:00:00Z=3/0";
        assert_eq!(brief(&report), sums);
        assert_eq!(window_ranges_text(&report.missing), "2026-10-05T12:00:00Z to 2026-10-05T13:00:00Z");
    }

    #[test]
    fn report_has_only_what_both_sources_know() {
        let hours = read(&day(), None).expect("hours");
        let usage = report("department,subsystem", &[], &hours, 13).expect("a report").usage;
        assert_eq!(
            render_table(&usage, TableTarget::Pipe),
            "period    2026-10-05T10:00:00Z to 2026-10-05T13:00:00Z (calendar +08:00)
state     open

 department  subsystem  commands  units
 fire        cameras           1      1
 parking     cameras           7     14
 parking     shop.cart         9      0
 total                        17     15
"
        );
        assert_eq!(
            render_csv(&usage).expect("it renders").lines().take(2).collect::<Vec<_>>(),
            [
                "department,subsystem,commands,units,from,to,calendar,state",
                "fire,cameras,1,1,2026-10-05T10:00:00Z,2026-10-05T13:00:00Z,UTC+08:00,open"
            ]
        );
    }

    #[test]
    fn long_list_of_ranges_is_cut_off() {
        let ranges = window_ranges((0..26).filter(|hour| hour % 2 == 0).map(Window));
        let text = window_ranges_text(&ranges);
        assert!(text.starts_with("1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z, 1970-01-01T02:00:00Z to "), "{text}");
        assert!(text.ends_with("1970-01-01T19:00:00Z, 3 more ranges"), "{text}");
    }
}
