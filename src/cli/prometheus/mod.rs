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
use crate::report::hour_families_matcher;

pub(super) use self::prometheus_client::PrometheusClient;
pub(super) use self::prometheus_error::{BadPrometheusOption, PrometheusError};
pub(super) use self::query_answer::{QueryAnswer, excerpt};

/// The most hours of one query, which bounds its answer: 24 samples of each series.
const QUERY_HOURS_MAX: u32 = 24;

/// The options of a Prometheus.
#[derive(Debug, Args)]
pub(super) struct PrometheusArgs {
    /// A Prometheus that scrapes /metrics/hours, with its path prefix and, if it asks for them, user and password:
    /// https://USER:PASSWORD@prometheus.example/prefix
    #[arg(long, value_name = "URL")]
    pub(super) prometheus: Option<String>,
    /// A file with the bearer token for the Prometheus
    #[arg(long, value_name = "FILE", requires = "prometheus", conflicts_with = "ledgers")]
    prometheus_token: Option<PathBuf>,
    /// A label matcher for every query, such as 'instance="10.0.0.1:9090"'; may be given several times
    #[arg(long = "matcher", value_name = "MATCHER", requires = "prometheus", conflicts_with = "ledgers")]
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
        let hours = range.end.0 - range.start.0;
        let query = format!("{{{}{}}}[{hours}h]", hour_families_matcher(), self.matchers);
        self.client.query(&query, range.end.start_unix_seconds())
    }
}

/// Divides a range into ranges for one query each: whole days of UTC, as far as possible.
pub(super) fn query_ranges(range: &Range<Window>) -> impl Iterator<Item = Range<Window>> + use<> {
    let (start, end) = (range.start.0, range.end.0);
    let starts = (start..end).filter(move |hour| *hour == start || hour.is_multiple_of(QUERY_HOURS_MAX));
    starts.map(move |hour| Window(hour)..Window((hour - hour % QUERY_HOURS_MAX + QUERY_HOURS_MAX).min(end)))
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
