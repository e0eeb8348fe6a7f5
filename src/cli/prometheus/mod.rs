//! The query API of a Prometheus, for commands that compare it with a ledger: options, queries, answers.
//!
//! Guarantees:
//! - Every wait and every answer is bounded.
//! - An answer is used whole or not at all. An error names the query.
//!
//! Leaves to `report`: what the samples mean.

mod http_post;
mod matcher;
mod prometheus_client;
mod prometheus_error;
mod prometheus_url;
mod query_answer;

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;

use crate::clock::Clock;
use crate::model::Window;
use crate::report::{ScrapedSeries, UpHistory, head_families_matcher, hour_families_matcher};

pub(super) use self::prometheus_client::PrometheusClient;
pub(super) use self::prometheus_error::{BadPrometheusOption, PrometheusError};
pub(super) use self::query_answer::{QueryAnswer, excerpt};

/// The most hours of one query, which bounds its answer: 24 samples of each series.
const QUERY_HOURS_MAX: u32 = 24;

/// The most hours of one query of heads: a month of six series.
const HEAD_QUERY_HOURS_MAX: u32 = 31 * 24;
/// The counter of requests that were sent again.
const RETRIES: &str = "tallygate_upstream_retries_total";
/// The counter of copies.
const MIRRORED: &str = "tallygate_mirrored_requests_total";
/// The days before an hour in which a scrape shows that the Prometheus was there already.
const EARLIER_DAYS: u32 = 31;

/// The options of a Prometheus.
#[derive(Debug, Args)]
pub(super) struct PrometheusArgs {
    /// A Prometheus that scrapes /metrics/hours, with its path prefix and, if it asks for them, user and password:
    /// https://USER:PASSWORD@prometheus.example/prefix
    #[arg(long, value_name = "URL")]
    pub(super) prometheus: Option<String>,
    /// A file with the bearer token for the Prometheus
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    prometheus_token: Option<PathBuf>,
    /// A label matcher for every query, such as 'instance="10.0.0.1:9090"'; may be given several times
    #[arg(long = "matcher", value_name = "MATCHER", requires = "prometheus")]
    matchers: Vec<String>,
}

/// A Prometheus, and the matchers of every query.
pub(super) struct PrometheusHours {
    client: PrometheusClient,
    matchers: String,
}

impl PrometheusHours {
    /// Checks the options. `None` without `--prometheus`.
    pub(super) fn prepare(args: &PrometheusArgs, clock: &Clock) -> anyhow::Result<Option<Self>> {
        let Some(url) = &args.prometheus else { return Ok(None) };
        let matchers = args.matchers.iter().map(|text| matcher::check_matcher(text)).collect::<Result<Vec<_>, _>>();
        let matchers = matchers.map_err(|error| BadPrometheusOption(format!("--matcher: {error}")))?;
        let matchers = matchers.into_iter().map(|matcher| format!(",{matcher}")).collect();
        let client = PrometheusClient::new(url, args.prometheus_token.as_deref(), clock)?;
        Ok(Some(Self { client, matchers }))
    }

    /// The samples of the hours of a range of at most [`QUERY_HOURS_MAX`] hours. Their times are within the hours, so
    /// it makes no difference whether the edges of a range belong to it.
    pub(super) fn series(&self, range: &Range<Window>) -> Result<QueryAnswer, PrometheusError> {
        self.samples(&hour_families_matcher(), range)
    }

    /// The heads of the hash chain of the hours of a range of [`head_query_ranges`].
    pub(super) fn heads(&self, range: &Range<Window>) -> Result<QueryAnswer, PrometheusError> {
        self.samples(&head_families_matcher(), range)
    }

    fn samples(&self, families: &str, range: &Range<Window>) -> Result<QueryAnswer, PrometheusError> {
        let hours = range.end.0 - range.start.0;
        let query = format!("{{{families}{}}}[{hours}h]", self.matchers);
        self.client.query(&query, range.end.start_unix_seconds())
    }

    /// The scrapes of a job while it could take the hours of a range, for [`UpHistory::add`].
    pub(super) fn scrapes(&self, job: &str, range: &Range<Window>) -> Result<QueryAnswer, PrometheusError> {
        let (query, at) = UpHistory::query(&self.selector("up", job), range);
        self.client.query(&query, at)
    }

    /// Whether the job was scraped in the [`EARLIER_DAYS`] before an hour.
    pub(super) fn was_scraped_before(&self, job: &str, window: Window) -> Result<bool, PrometheusError> {
        // A range of one step: the client reads ranges of samples.
        let query = format!("count_over_time({}[{EARLIER_DAYS}d])[1s:1s]", self.selector("up", job));
        Ok(!self.client.query(&query, window.start_unix_seconds())?.series.is_empty())
    }

    /// The most commands that were sent to subsystems again in a day: retries to the chosen subsystems, and mirrored
    /// copies. From the increments between all samples of these counters, a scrape before the day included.
    pub(super) fn sent_again(
        &self,
        range: &Range<Window>,
        is_chosen: &dyn Fn(&str) -> bool,
    ) -> Result<u64, PrometheusError> {
        let hours = range.end.0 - range.start.0;
        let query = format!("{{__name__=~\"{RETRIES}|{MIRRORED}\"{}}}[{hours}h5m]", self.matchers);
        let answer = self.client.query(&query, range.end.start_unix_seconds())?;
        let chosen = answer.series.iter().filter(|series| match series.labels.get("subsystem") {
            Some(subsystem) => is_chosen(subsystem),
            None => series.labels.get("result").is_some_and(|result| result != "left_out"),
        });
        Ok(chosen.map(ScrapedSeries::increments).fold(0, u64::saturating_add))
    }

    fn selector(&self, family: &str, job: &str) -> String {
        let job = job.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{family}{{job=\"{job}\"{}}}", self.matchers)
    }
}

/// Divides a range into ranges for one query each: whole days of UTC, as far as possible.
pub(super) fn query_ranges(range: &Range<Window>) -> impl Iterator<Item = Range<Window>> + use<> {
    let (start, end) = (range.start.0, range.end.0);
    let starts = (start..end).filter(move |hour| *hour == start || hour.is_multiple_of(QUERY_HOURS_MAX));
    starts.map(move |hour| Window(hour)..Window((hour - hour % QUERY_HOURS_MAX + QUERY_HOURS_MAX).min(end)))
}

/// Divides a range into ranges for one query of heads each.
pub(super) fn head_query_ranges(range: &Range<Window>) -> impl Iterator<Item = Range<Window>> + use<> {
    let (start, end) = (range.start.0, range.end.0);
    let length = HEAD_QUERY_HOURS_MAX;
    (start..end).step_by(length as usize).map(move |hour| Window(hour)..Window((hour + length).min(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_cover_each_hour_once() {
        for ((start, end), expected) in [
            ((48, 72), &[(48, 72)][..]),
            ((40, 73), &[(40, 48), (48, 72), (72, 73)]),
            ((50, 51), &[(50, 51)]),
            ((50, 50), &[]),
        ] {
            let ranges = query_ranges(&(Window(start)..Window(end)));
            let found: Vec<_> = ranges.map(|range| (range.start.0, range.end.0)).collect();
            assert_eq!(found, expected, "{start} to {end}");
        }
    }
}
