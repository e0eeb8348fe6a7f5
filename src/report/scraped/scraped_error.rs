//! What is wrong with samples of a Prometheus.

use std::collections::BTreeMap;

use crate::model::Window;
use crate::report::usage_report::SumOverflow;

use super::scraped_series::FAMILY_LABEL;

/// The reason why samples of a Prometheus do not make hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapedError {
    /// Two series have different values at the same hour.
    #[error(
        "in the hour {window} the Prometheus has two values: {first_value} in {first}, and {second_value} in {second}; \
         these are two ledgers, or one of them was edited: choose one, for example with --matcher '{hint}', or add up \
         several gateways with --sum-by LABEL"
    )]
    Conflict {
        /// The hour.
        window: Window,
        /// The value of the first series.
        first_value: u64,
        /// The first series.
        first: String,
        /// The value of the second series.
        second_value: u64,
        /// The second series.
        second: String,
        /// A matcher that chooses the first series.
        hint: String,
    },
    /// An hour has more samples than it had when it was scraped.
    #[error(
        "in the hour {window} the Prometheus has {found} samples of commands, and tallygate_usage_hour_series is \
         {expected}: these are samples of several ledgers or of several groupings (?by=) that cannot be told apart; \
         choose the series of one with --matcher 'LABEL=\"VALUE\"'"
    )]
    TooManySamples {
        /// The hour.
        window: Window,
        /// The samples of the hour.
        found: u64,
        /// The samples that the hour should have.
        expected: u64,
    },
    /// A sample is not within an hour as the gateway writes it.
    #[error(
        "the Prometheus has a sample at {at} in {series}, which is not one minute before the end of an hour of the \
         query: it does not keep the times of samples; set honor_timestamps: true for the job of \
         /metrics/hours"
    )]
    WrongTime {
        /// The time, in Unix milliseconds.
        at: i64,
        /// The series.
        series: String,
    },
    /// A value is not a count.
    #[error(
        "the Prometheus has the value {value:?} in {series}, which is not a whole number below 2^53: it is no sample \
         of a gateway; look for a rule or an exporter that writes this name"
    )]
    NotACount {
        /// The value.
        value: String,
        /// The series.
        series: String,
    },
    /// A sample of usage has no department.
    #[error("the series {series} has no label department: relabelling removed it, or it is not of a gateway")]
    NoDepartment {
        /// The series.
        series: String,
    },
    /// The report is grouped by command, and the samples are not.
    #[error(
        "the series {series} has no label command, so --by cannot have command: leave it out, or let the Prometheus \
         scrape /metrics/hours?by=department,subsystem,command"
    )]
    NoCommand {
        /// The series.
        series: String,
    },
    /// A sum does not fit.
    #[error(transparent)]
    Overflow(#[from] SumOverflow),
}

impl ScrapedError {
    /// Whether other options of the command line give an answer.
    pub fn is_choice(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TooManySamples { .. } | Self::NoCommand { .. })
    }
}

/// A series in the notation of Prometheus.
pub(super) fn series_text(labels: &BTreeMap<String, String>) -> String {
    let family = labels.get(FAMILY_LABEL).map_or("", String::as_str);
    let others = labels.iter().filter(|(name, _)| *name != FAMILY_LABEL);
    let others: Vec<_> = others.map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{family}{{{}}}", others.join(","))
}

/// A matcher that chooses the first of two series: by the first label in which they differ.
pub(super) fn choosing_matcher(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> String {
    let differs = |name: &&String| first.get(*name) != second.get(*name);
    let name = first.keys().chain(second.keys()).find(differs).map_or("job", String::as_str);
    format!("{name}={:?}", first.get(name).map_or("", String::as_str))
}
