//! `tallygate report usage --prometheus`: the report of a ledger, from the hours that a Prometheus has.
//!
//! Guarantees:
//! - With all hours, the report is the same, byte for byte, as that of the ledger with `--measures`.
//! - Hours that are missing are named on stderr, and the state of the report is `open`.
//!
//! Leaves to `prometheus`: the queries. Leaves to `report`: the sums.

use std::ops::Range;

use clap::Args;

use crate::clock::Clock;
use crate::model::{CalendarOffset, Name, Window};
use crate::report::{
    GroupKey, GroupKeys, MeasureColumns, ReportQuery, ReportRange, ScrapedHours, ScrapedReport, ScrapedSum,
    UsageReport, window_ranges_text,
};

use crate::cli::check::plural;
use crate::cli::prometheus::{PrometheusArgs, PrometheusHours, QueryAnswer, query_ranges};
use crate::cli::{BadUsage, print_message};

/// The keys without `--by`.
const DEFAULT_KEYS: &str = "department,subsystem";

/// The options of a report from a Prometheus.
#[derive(Debug, Args)]
pub(in crate::cli) struct ScrapedUsageArgs {
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// With --prometheus: the offset of the calendar of days and months, calendar.offset of the gateway [default:
    /// +08:00]
    #[arg(long, value_name = "OFFSET", requires = "prometheus", allow_hyphen_values = true)]
    calendar: Option<String>,
    /// With --prometheus: the label that tells gateways apart, such as instance, whose usage is added up
    #[arg(long, value_name = "LABEL", requires = "prometheus")]
    sum_by: Option<String>,
}

/// A Prometheus to report from, with checked options.
pub(in crate::cli) struct ScrapedSource {
    hours: PrometheusHours,
    calendar: CalendarOffset,
    sum_by: Option<String>,
    group_by: GroupKeys,
    columns: MeasureColumns,
}

/// Checks the options. `None` without `--prometheus`.
pub(in crate::cli) fn prepare(
    args: &ScrapedUsageArgs,
    (by, measures): (Option<&GroupKeys>, Option<MeasureColumns>),
    clock: &Clock,
) -> anyhow::Result<Option<ScrapedSource>> {
    let Some(hours) = PrometheusHours::prepare(&args.prometheus, clock)? else { return Ok(None) };
    let calendar = args.calendar.as_deref().map(CalendarOffset::parse).transpose();
    let calendar = calendar.map_err(|error| BadUsage(format!("--calendar: {error}")))?.unwrap_or_default();
    let group_by = match by {
        Some(by) => by.clone(),
        None => GroupKeys::parse(DEFAULT_KEYS)?,
    };
    let unknown = group_by.keys().iter().find(|key| matches!(key, GroupKey::Outcome | GroupKey::Blame));
    if let Some(key) = unknown {
        let name = key.name();
        return Err(BadUsage(format!("--by: samples of hours have no {name}; leave it out, or give --ledger")).into());
    }
    let columns = measures.unwrap_or(MeasureColumns::OF_HOUR_SAMPLES);
    if !columns.is_within(MeasureColumns::OF_HOUR_SAMPLES) {
        let message = "--measures: samples of hours have commands and units only; give --ledger for others";
        return Err(BadUsage(message.to_owned()).into());
    }
    Ok(Some(ScrapedSource { hours, calendar, sum_by: args.sum_by.clone(), group_by, columns }))
}

impl ScrapedSource {
    /// The calendar of days and months.
    pub(in crate::cli) fn calendar(&self) -> CalendarOffset {
        self.calendar
    }

    /// The report of a range. One day of samples is read after the other. `now` is the present hour.
    pub(in crate::cli) fn report(
        self,
        range: ReportRange,
        departments: &[Name],
        now: Window,
    ) -> anyhow::Result<UsageReport> {
        let windows = range.windows();
        let query = ReportQuery { range, group_by: self.group_by, departments: departments.to_vec() };
        let mut sum = ScrapedSum::new(query, self.calendar);
        for part in query_ranges(&(windows.start..windows.end.min(now))) {
            let QueryAnswer { series, warnings } = self.hours.series(&part)?;
            print_warnings(&warnings);
            sum.add(&ScrapedHours::read(&series, &part, self.sum_by.as_deref())?)?;
        }
        let ScrapedReport { usage, missing } = sum.finish(self.columns, now)?;
        print_notes(&windows, &missing, now);
        Ok(usage)
    }
}

/// Prints the warnings of an answer on stderr.
pub(super) fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        print_message(&format!("note: the Prometheus warns, and may have answered a part: {warning}"));
    }
}

/// Prints on stderr why the report is open.
fn print_notes(windows: &Range<Window>, missing: &[Range<Window>], now: Window) {
    if now < windows.end {
        print_message(&format!("note: open: the period ends at {}", windows.end));
    }
    if !missing.is_empty() {
        let hours: u32 = missing.iter().map(|range| range.end.0 - range.start.0).sum();
        let hours = plural(usize::try_from(hours).unwrap_or(usize::MAX), "hour");
        let ranges = window_ranges_text(missing);
        print_message(&format!(
            "note: open: the Prometheus does not have all samples of {hours}, and only whole hours are added: \
             {ranges}; ledger export --format openmetrics has them"
        ));
    }
}
