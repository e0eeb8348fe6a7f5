//! `report reconcile --missing`: just the hours that a Prometheus lacks, as `ledger export --format openmetrics` writes
//! them, for `promtool tsdb create-blocks-from openmetrics`.
//!
//! Guarantees:
//! - The samples get the labels that the Prometheus gave to those that it has, so that they are the same series.
//! - Only hours that are sealed, and old enough, are written. Those that are not are counted on stderr.
//! - A file is written only if there is an hour to write.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;

use crate::ledger::{HourGrouping, SealedHours};
use crate::model::Window;
use crate::report::{
    CommonLabels, HourSamplesError, SampleFormat, ScrapedSeries, UsageReconciliation, source_labels, window_ranges,
    write_hour_samples,
};

use crate::cli::check::plural;
use crate::cli::hour_export::EXPORT_AGE_HOURS;
use crate::cli::{BadUsage, print_message};

/// The most sources that a message names.
const NAMED_SOURCES_MAX: usize = 3;

/// The options of the file of missing hours.
#[derive(Debug, Args)]
pub(super) struct MissingHoursArgs {
    /// A new file for the hours that the Prometheus lacks, for promtool tsdb create-blocks-from openmetrics
    #[arg(long, value_name = "FILE")]
    missing: Option<PathBuf>,
    /// With --missing: a label of every sample, such as job=tallygate-hours; may be given several times [default: those
    /// of the series that the Prometheus has]
    #[arg(long = "label", value_name = "NAME=VALUE", requires = "missing")]
    labels: Vec<String>,
}

impl MissingHoursArgs {
    pub(super) fn is_asked_for(&self) -> bool {
        self.missing.is_some()
    }
}

/// What the samples of a Prometheus have in common.
#[derive(Debug, Default)]
pub(super) struct SeenSources {
    /// The labels that scrapes have added.
    labels: BTreeSet<Vec<(String, String)>>,
    has_commands: bool,
}

impl SeenSources {
    /// Notes the labels of series.
    pub(super) fn add(&mut self, series: &[ScrapedSeries]) {
        for ScrapedSeries { labels, .. } in series {
            self.has_commands |= labels.contains_key("command");
            // The series without labels of its own is one for each source.
            if !labels.contains_key("department") && !labels.contains_key("part") {
                let source = source_labels(labels).map(|(name, value)| (name.to_owned(), value.to_owned()));
                self.labels.insert(source.collect());
            }
        }
    }

    fn grouping(&self) -> HourGrouping {
        if self.has_commands { HourGrouping::Command } else { HourGrouping::Subsystem }
    }

    /// The labels of what is written: those of the only source.
    fn common_labels(&self, given: &[String]) -> Result<CommonLabels, BadUsage> {
        let texts = match self.labels.iter().collect::<Vec<_>>().as_slice() {
            _ if !given.is_empty() => given.to_vec(),
            [] => {
                print_message(
                    "note: the Prometheus has no hour of this period, so the samples get no labels: if it scrapes the \
                     gateway, give those of its job with --label",
                );
                Vec::new()
            }
            [only] => only.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            several => return Err(too_many_sources(several)),
        };
        CommonLabels::parse(&texts).map_err(|error| BadUsage(format!("--label: {error}")))
    }
}

fn too_many_sources(sources: &[&Vec<(String, String)>]) -> BadUsage {
    let text = |labels: &&Vec<(String, String)>| {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{{{}}}", labels.join(","))
    };
    let shown: Vec<_> = sources.iter().take(NAMED_SOURCES_MAX).map(text).collect();
    BadUsage(format!(
        "--missing: the Prometheus has hours of {} sources, {} and so on: choose one with --matcher, or give the labels of \
         the missing samples with --label NAME=VALUE",
        sources.len(),
        shown.join(", ")
    ))
}

/// The hours that a Prometheus lacks.
#[derive(Debug)]
pub(super) struct MissingHours {
    ranges: Vec<Range<Window>>,
    /// Hours that are not old enough.
    young: usize,
    /// Hours of which the ledger has only the sum of their day.
    compacted: usize,
}

impl MissingHours {
    /// The hours that can be loaded now.
    pub(super) fn of(both: &UsageReconciliation, compacted_before: Window, now: Window) -> Self {
        let absent = both.causes.iter().filter(|(cause, _)| cause.is_absence());
        let absent: BTreeSet<Window> = absent.flat_map(|(_, hours)| hours.windows.iter().copied()).collect();
        let is_old = |window: &Window| window.next().0 + EXPORT_AGE_HOURS <= now.0;
        let compacted = absent.iter().filter(|window| **window < compacted_before).count();
        let young = absent.iter().filter(|window| !is_old(window)).count();
        let ready = absent.into_iter().filter(|window| *window >= compacted_before && is_old(window));
        Self { ranges: window_ranges(ready), young, compacted }
    }

    /// Writes the file, if it is asked for.
    pub(super) fn write(self, args: &MissingHoursArgs, books: &[PathBuf], seen: &SeenSources) -> anyhow::Result<()> {
        let (Some(file), [book]) = (&args.missing, books) else { return Ok(()) };
        if self.young > 0 {
            let hours = plural(self.young, "hour");
            print_message(&format!(
                "note: --missing: {hours} ended less than {EXPORT_AGE_HOURS} hours ago and cannot be loaded yet"
            ));
        }
        if self.compacted > 0 {
            let hours = plural(self.compacted, "hour");
            print_message(&format!(
                "note: --missing: {hours} are kept only as sums of days: ledger export --compacted-days has them"
            ));
        }
        let shown = file.display();
        if self.ranges.is_empty() {
            print_message(&format!("note: --missing: there is no hour to load, so {shown} is not written"));
            return Ok(());
        }
        let labels = seen.common_labels(&args.labels)?;
        let mut hours = SealedHours::open(book, seen.grouping())?;
        let created = File::create_new(file);
        let created = created
            .map_err(|error| BadUsage(format!("--missing {shown}: {error}; name a new file in an existing folder")))?;
        let mut to = BufWriter::new(created);
        write_hour_samples(&mut hours, &self.ranges, (SampleFormat::OpenMetrics, labels, &mut to))?;
        to.flush().map_err(HourSamplesError::Write)?;
        let count = self.ranges.iter().map(|range| (range.end.0 - range.start.0) as usize).sum();
        print_message(&format!(
            "{} written to {shown}: load them with promtool tsdb create-blocks-from --max-block-duration=768h openmetrics \
             {shown} BLOCKS, and move the blocks into the folder of the Prometheus",
            plural(count, "hour")
        ));
        Ok(())
    }
}
