//! `tallygate ledger export --format openmetrics`: sealed hours as samples, for `promtool tsdb create-blocks-from
//! openmetrics`. The samples are those of `/metrics/hours`.
//!
//! Guarantees:
//! - Only hours that are sealed, and that ended at least [`EXPORT_AGE_HOURS`] ago, are exported. A range that is named
//!   is exported whole, or refused with the range that is possible.
//! - Days whose hours were removed by compaction are exported only on request.
//!
//! Leaves to others: the samples (`report`), and the file (`ledger`).

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use clap::Args;

use crate::clock::Clock;
use crate::ledger::SealedHours;
use crate::model::Window;
use crate::report::{
    CommonLabels, HourSamplesError, ReportRange, SampleFormat, parse_hour_grouping, write_hour_samples,
};

use super::{BadUsage, print_message};

/// The least age of an exported hour. A running Prometheus writes the newest hours into blocks of its own, which
/// imported blocks must not overlap.
pub(super) const EXPORT_AGE_HOURS: u32 = 3;

/// The labels without `--by`.
const DEFAULT_GROUPING: &str = "department,subsystem";

/// The options of `--format openmetrics`.
#[derive(Debug, Args)]
pub(super) struct HourExportArgs {
    /// With --format openmetrics: the first day or month, in the ledger's calendar, or a whole hour such as
    /// 2026-10-01T08:00:00+08:00 [default: the first hour of the ledger]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// With --format openmetrics: the end of the range, exclusive [default: the end of the last sealed hour that ended
    /// three hours ago]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// With --format openmetrics: department,subsystem or department,subsystem,command [default: department,subsystem]
    #[arg(long, value_name = "KEYS")]
    by: Option<String>,
    /// With --format openmetrics: a label of every sample, such as job=tallygate-hours; may be given several times.
    /// With the labels that a Prometheus adds to what it scrapes, the samples are the same as the scraped ones
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// With --format openmetrics: export days of which the ledger has only sums, each as one sample in its first hour.
    /// Load them only where the Prometheus has no samples of these days
    #[arg(long)]
    compacted_days: bool,
}

impl HourExportArgs {
    /// Refuses the options, which another format does not have.
    pub(super) fn refuse_options(&self) -> Result<(), BadUsage> {
        let given = [
            ("--from", self.from.is_some()),
            ("--to", self.to.is_some()),
            ("--by", self.by.is_some()),
            ("--label", !self.labels.is_empty()),
            ("--compacted-days", self.compacted_days),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(BadUsage(format!(
                "{option} is an option of --format openmetrics; the other formats export the whole ledger"
            ))),
            None => Ok(()),
        }
    }
}

/// An export whose range is checked.
pub(super) struct HourExport {
    hours: SealedHours,
    windows: Range<Window>,
    labels: CommonLabels,
}

impl HourExport {
    /// Opens the ledger and checks the range.
    pub(super) fn prepare(ledger: &Path, args: &HourExportArgs, clock: &Clock) -> anyhow::Result<Self> {
        let grouping = parse_hour_grouping(args.by.as_deref().unwrap_or(DEFAULT_GROUPING));
        let labels = CommonLabels::parse(&args.labels).map_err(|error| BadUsage(format!("--label: {error}")))?;
        let hours = SealedHours::open(ledger, grouping.map_err(|error| BadUsage(format!("--by: {error}")))?)?;
        let windows = exported_windows(&hours, args, clock.window())?;
        hours.refuse_cut_days(&windows)?;
        Ok(Self { hours, windows, labels })
    }

    /// Writes the samples.
    pub(super) fn write(mut self, to: &mut impl Write) -> Result<(), HourSamplesError> {
        write_hour_samples(&mut self.hours, &[self.windows], (SampleFormat::OpenMetrics, self.labels, to))?;
        Ok(to.flush()?)
    }
}

/// Returns the hours to export.
fn exported_windows(hours: &SealedHours, args: &HourExportArgs, now: Window) -> Result<Range<Window>, BadUsage> {
    let possible = possible_windows(hours, args, now)?;
    let [first, end] = [possible.start, possible.end].map(|window| window.to_string());
    let (from, to) = (args.from.as_ref().unwrap_or(&first), args.to.as_ref().unwrap_or(&end));
    let range = ReportRange::parse(Some(from), Some(to), hours.calendar(), now);
    let mut windows = range.map_err(|error| BadUsage(error.to_string()))?.windows();
    if windows.end > possible.end {
        return Err(BadUsage(format!(
            "the range ends at {}, and only hours that are sealed and ended {EXPORT_AGE_HOURS} hours ago can be exported: \
             end it with --to {end}, or before",
            windows.end
        )));
    }
    let sealed = hours.sealed();
    if windows.start < sealed.start {
        print_message(&format!("note: the ledger begins at {}: there are no samples of earlier hours", sealed.start));
        windows.start = sealed.start;
    }
    if windows.start < possible.start {
        return Err(BadUsage(format!(
            "hours before {first} are kept only as sums of days: begin the range with --from {first}, or add \
             --compacted-days to export each of these days as one sample in its first hour"
        )));
    }
    if args.from.is_none() && sealed.start < possible.start {
        print_message(&format!("note: hours before {first} are kept only as sums of days: left out"));
    }
    if windows.is_empty() { Err(nothing_to_export(&windows.end.to_string())) } else { Ok(windows) }
}

/// Returns the hours that can be exported.
fn possible_windows(hours: &SealedHours, args: &HourExportArgs, now: Window) -> Result<Range<Window>, BadUsage> {
    let sealed = hours.sealed();
    let first = if args.compacted_days { sealed.start } else { sealed.start.max(hours.compacted_before()) };
    let end = sealed.end.min(Window(now.0.saturating_sub(EXPORT_AGE_HOURS)));
    if first < end { Ok(first..end) } else { Err(nothing_to_export(&end.to_string())) }
}

fn nothing_to_export(end: &str) -> BadUsage {
    BadUsage(format!(
        "there is no hour to export: only hours that are sealed and ended {EXPORT_AGE_HOURS} hours ago, those before \
         {end}, can be exported"
    ))
}
