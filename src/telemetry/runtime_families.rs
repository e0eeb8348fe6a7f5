//! The families of the measurements: durations, connections, limits and upstreams, summed over the workers.
//!
//! Guarantees: bounded. Upstreams, queues and durations have at most `capacity.series` series together, however many
//! servers, backends and subsystems there are: half of them for upstreams, a quarter each for the others. What does not
//! fit, in the order of the names, is shown as one: `other`.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::family_spec::{MetricSample, to_float};
use super::histogram::{COMMAND_BOUNDS, DurationDistribution, DurationHistogram, GATEWAY_BOUNDS};
use super::{
    DropReason, EventCounter, LimitHit, MirrorOutcome, QueueStats, SpanDropReason, Telemetry, UpstreamStats,
    lock_unpoisoned, logging, metric_families,
};
use crate::model::Name;

/// The series of one upstream in all its families.
const SERIES_OF_UPSTREAM: usize = 12;
/// The series of one queue.
const SERIES_OF_QUEUE: usize = 3;
/// The series of the histogram of one subsystem: its buckets, that without a bound, the sum and the number.
const SERIES_OF_SUBSYSTEM: usize = COMMAND_BOUNDS.len() + 3;

/// The counts of an upstream, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct UpstreamCounts {
    attempts: u64,
    retries: u64,
    failures: [u64; FAILURE_REASONS.len()],
    ejected: u64,
    checks: [u64; CHECK_RESULTS.len()],
    connections: u64,
    requests: u64,
}

/// The reasons of failures, in the order of [`UpstreamCounts::failures`].
const FAILURE_REASONS: [&str; 5] = ["connect", "reset", "timeout", "malformed_answer", "refused"];

/// The results of health checks, in the order of [`UpstreamCounts::checks`].
const CHECK_RESULTS: [&str; 2] = ["passed", "failed"];

impl UpstreamCounts {
    fn of(stats: &UpstreamStats) -> Self {
        let UpstreamStats { failures_connect, failures_reset, failures_timeout, .. } = stats;
        let UpstreamStats { failures_malformed, failures_refused, checks_passed, checks_failed, .. } = stats;
        let failures = [failures_connect, failures_reset, failures_timeout, failures_malformed, failures_refused];
        Self {
            attempts: stats.attempts.get(),
            retries: stats.retries.get(),
            failures: failures.map(EventCounter::get),
            ejected: stats.ejected.get(),
            checks: [checks_passed, checks_failed].map(EventCounter::get),
            connections: stats.connections.get(),
            requests: stats.requests.get(),
        }
    }

    fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.retries += other.retries;
        self.ejected += other.ejected;
        self.connections += other.connections;
        self.requests += other.requests;
        self.failures.iter_mut().zip(other.failures).for_each(|(sum, one)| *sum += one);
        self.checks.iter_mut().zip(other.checks).for_each(|(sum, one)| *sum += one);
    }
}

/// The first `most` of `all`, and the sum of the others under the key `other`.
fn folded<K, V>(mut all: Vec<(K, V)>, most: usize, other: K, add: impl Fn(&mut V, V)) -> Vec<(K, V)> {
    let mut rest = all.split_off(all.len().min(most)).into_iter().map(|(_, value)| value);
    if let Some(mut sum) = rest.next() {
        rest.for_each(|value| add(&mut sum, value));
        all.push((other, sum));
    }
    all
}

impl Telemetry {
    /// All measurements since the process started, as families with at most `series_max` series for upstreams, queues
    /// and subsystems.
    pub(crate) fn runtime_families(&self, series_max: usize) -> Vec<MetricFamily> {
        let traffic = self.traffic_families(series_max);
        [traffic, self.upstream_families(series_max), self.queue_families(series_max)].concat()
    }

    fn traffic_families(&self, series_max: usize) -> Vec<MetricFamily> {
        let connections = self.connections();
        let handshakes =
            connections.handshake_failures().map(|(why, count)| ([why.name().to_owned()], to_float(count)));
        let hit = |hit: LimitHit| ([hit.name().to_owned()], to_float(self.limit_hit_count(hit)));
        let copies = |end: MirrorOutcome| ([end.name().to_owned()], to_float(self.mirrored_count(end)));
        let access = self.access_counts();
        let dropped = |reason: DropReason| ([reason.name().to_owned()], to_float(access.dropped(reason)));
        let spans = |reason: SpanDropReason| ([reason.name().to_owned()], to_float(self.span_counts().dropped(reason)));
        vec![
            metric_families::COMMAND_DURATION.histogram_family(self.command_durations(series_max)),
            metric_families::GATEWAY_DURATION.histogram_family([([], self.gateway_durations())]),
            metric_families::CONNECTIONS_OPEN.single_family(to_float(connections.open.get())),
            metric_families::CONNECTIONS_ACCEPTED.single_family(to_float(connections.accepted.get())),
            metric_families::HANDSHAKES_FAILED.family_of(handshakes),
            metric_families::LIMIT_HITS.family_of(LimitHit::ALL.map(hit)),
            metric_families::LOG_LINES_DROPPED.single_family(to_float(logging::lines_dropped())),
            metric_families::ACCESS_LINES_WRITTEN.single_family(to_float(access.written())),
            metric_families::ACCESS_LINES_DROPPED.family_of(DropReason::ALL.map(dropped)),
            metric_families::ACCESS_LINES_LEFT_OUT.single_family(to_float(access.left_out())),
            metric_families::SPANS_EXPORTED.single_family(to_float(self.span_counts().exported())),
            metric_families::SPANS_DROPPED.family_of(SpanDropReason::ALL.map(spans)),
            metric_families::MIRRORED.family_of(MirrorOutcome::ALL.map(copies)),
        ]
    }

    fn upstream_families(&self, series_max: usize) -> Vec<MetricFamily> {
        let other = [Name::OTHER, Name::OTHER].map(str::to_owned);
        let most = series_max / 2 / SERIES_OF_UPSTREAM;
        let upstreams = folded(self.upstreams_in_use(), most, other, UpstreamCounts::add);
        let each = |read: fn(&UpstreamCounts) -> u64| {
            upstreams.iter().map(move |(labels, counts)| (labels.clone(), to_float(read(counts))))
        };
        let failures = upstreams.iter().flat_map(|(labels, counts)| reasoned(labels, FAILURE_REASONS, counts.failures));
        let checks = upstreams.iter().flat_map(|(labels, counts)| reasoned(labels, CHECK_RESULTS, counts.checks));
        vec![
            metric_families::UPSTREAM_ATTEMPTS.family_of(each(|counts| counts.attempts)),
            metric_families::UPSTREAM_RETRIES.family_of(each(|counts| counts.retries)),
            metric_families::UPSTREAM_FAILURES.family_of(failures),
            metric_families::UPSTREAM_EJECTED.family_of(each(|counts| counts.ejected)),
            metric_families::UPSTREAM_CHECKS.family_of(checks),
            metric_families::UPSTREAM_CONNECTIONS.family_of(each(|counts| counts.connections)),
            metric_families::UPSTREAM_REQUESTS.family_of(each(|counts| counts.requests)),
        ]
    }

    fn queue_families(&self, series_max: usize) -> Vec<MetricFamily> {
        let mut queues = lock_unpoisoned(&self.queues);
        queues.retain(|_, stats| Arc::strong_count(stats) > 1); // a reload removed the others
        let counts = |stats: &QueueStats| [stats.waiting.get(), stats.full.get(), stats.timeout.get()];
        let all = queues.iter().map(|(name, stats)| (name.to_string(), counts(stats))).collect();
        let add = |sum: &mut [u64; 3], one: [u64; 3]| sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
        let queues = folded(all, series_max / 4 / SERIES_OF_QUEUE, Name::OTHER.to_owned(), add);
        let waiting = queues.iter().map(|(name, [waiting, ..])| ([name.clone()], to_float(*waiting)));
        let failures = queues.iter().flat_map(|(name, [_, full, timeout])| {
            let reasons = [("full", *full), ("timeout", *timeout)];
            reasons.map(|(reason, count)| ([name.clone(), reason.to_owned()], to_float(count)))
        });
        vec![metric_families::COMMANDS_QUEUED.family_of(waiting), metric_families::QUEUE_FAILURES.family_of(failures)]
    }

    fn gateway_durations(&self) -> DurationDistribution {
        let durations = lock_unpoisoned(&self.durations);
        DurationHistogram::sum_workers(GATEWAY_BOUNDS, durations.gateway.iter().map(|one| &**one))
    }

    fn command_durations(&self, series_max: usize) -> Vec<([String; 1], DurationDistribution)> {
        let durations = lock_unpoisoned(&self.durations);
        let all = durations.commands.iter().map(|(subsystem, workers)| (subsystem.to_string(), workers.clone()));
        let most = series_max / 4 / SERIES_OF_SUBSYSTEM;
        let kept = folded(all.collect(), most, Name::OTHER.to_owned(), |sum: &mut Vec<_>, one| sum.extend(one));
        let sum = |workers: &[Arc<DurationHistogram>]| {
            DurationHistogram::sum_workers(COMMAND_BOUNDS, workers.iter().map(|one| &**one))
        };
        kept.iter().map(|(subsystem, workers)| ([subsystem.clone()], sum(workers))).collect()
    }

    /// The upstreams that are still referenced elsewhere. A reload removed the others, and they are dropped here.
    fn upstreams_in_use(&self) -> Vec<([String; 2], UpstreamCounts)> {
        let mut upstreams = lock_unpoisoned(&self.upstreams);
        upstreams.retain(|_, stats| Arc::strong_count(stats) > 1);
        let counts = upstreams.iter().map(|((subsystem, upstream), stats)| {
            ([subsystem.to_string(), upstream.clone()], UpstreamCounts::of(stats))
        });
        counts.collect()
    }
}

/// A sample for each reason.
fn reasoned<const N: usize>(
    [subsystem, upstream]: &[String; 2],
    reasons: [&'static str; N],
    counts: [u64; N],
) -> impl Iterator<Item = MetricSample<3>> {
    let labels = [subsystem.clone(), upstream.clone()];
    reasons.into_iter().zip(counts).map(move |(reason, count)| {
        let [subsystem, upstream] = labels.clone();
        ([subsystem, upstream, reason.to_owned()], to_float(count))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::telemetry::HandshakeFailure;
    use crate::telemetry::test_totals::name;

    #[test]
    fn worker_measurements_are_summed() {
        let telemetry = Telemetry::new();
        let upstream = telemetry.upstream_stats(&name("cameras"), "127.0.0.1:9001");
        upstream.attempts.increment();
        upstream.failures_reset.increment();
        upstream.checks_failed.increment();
        upstream.retries.increment();
        let queue = telemetry.queue_stats(&name("cameras"));
        queue.waiting.increment();
        queue.full.increment();
        telemetry.connections().count_handshake_failure(HandshakeFailure::Revoked);
        telemetry.count_limit_hit(LimitHit::AdminRequests);
        for recorder in [telemetry.recorder(), telemetry.recorder()] {
            recorder.record_command(&name("cameras"), Duration::from_millis(3));
            recorder.record_gateway(Duration::from_micros(30));
        }
        let text = TextEncoder::new().encode_to_string(&telemetry.runtime_families(1_000)).expect("it renders");
        for line in [
            r#"tallygate_command_duration_seconds_bucket{subsystem="cameras",le="0.0025"} 0"#,
            r#"tallygate_command_duration_seconds_bucket{subsystem="cameras",le="0.005"} 2"#,
            r#"tallygate_command_duration_seconds_bucket{subsystem="cameras",le="+Inf"} 2"#,
            r#"tallygate_command_duration_seconds_sum{subsystem="cameras"} 0.006"#,
            r#"tallygate_gateway_duration_seconds_bucket{le="0.00005"} 2"#,
            r#"tallygate_tls_handshakes_failed_total{reason="revoked"} 1"#,
            r#"tallygate_limit_hits_total{limit="admin_requests"} 1"#,
            r#"tallygate_upstream_attempts_total{subsystem="cameras",upstream="127.0.0.1:9001"} 1"#,
            r#"tallygate_upstream_failures_total{subsystem="cameras",upstream="127.0.0.1:9001",reason="reset"} 1"#,
            r#"tallygate_upstream_health_checks_total{subsystem="cameras",upstream="127.0.0.1:9001",result="failed"} 1"#,
            r#"tallygate_upstream_retries_total{subsystem="cameras",upstream="127.0.0.1:9001"} 1"#,
            r#"tallygate_commands_queued{subsystem="cameras"} 1"#,
            r#"tallygate_queue_failures_total{subsystem="cameras",reason="full"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    /// The lines of the families with samples, without comments.
    fn lines(telemetry: &Telemetry, series_max: usize) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&telemetry.runtime_families(series_max)).expect("it renders");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn what_does_not_fit_is_one_series_and_sums_stay_exact() {
        let telemetry = Telemetry::new();
        let upstreams: Vec<_> =
            (0..100).map(|number| telemetry.upstream_stats(&name("b"), &format!("{number:03}"))).collect();
        let queues: Vec<_> = (0..100).map(|number| telemetry.queue_stats(&name(&format!("q{number:03}")))).collect();
        let recorder = telemetry.recorder();
        for (number, (upstream, queue)) in upstreams.iter().zip(&queues).enumerate() {
            upstream.attempts.increment();
            upstream.failures_timeout.increment();
            upstream.checks_passed.increment();
            queue.full.increment();
            recorder.record_command(&name(&format!("s{number:03}")), Duration::from_millis(3));
        }
        let at_most = |series: usize| series + SERIES_OF_UPSTREAM + SERIES_OF_QUEUE + SERIES_OF_SUBSYSTEM;
        for series in [0, 1, 60, 120, 10_000] {
            let shown = lines(&telemetry, series);
            let groups =
                ["tallygate_upstream_", "tallygate_queue_", "tallygate_commands_queued", "tallygate_command_d"];
            let bounded = shown.iter().filter(|line| groups.iter().any(|group| line.starts_with(group))).count();
            assert!(bounded <= at_most(series), "{bounded} of {series}");
            let sum = |family: &str| -> u64 {
                let values = shown.iter().filter_map(|line| line.strip_prefix(family)?.rsplit_once(' '));
                values.map(|(_, value)| value.parse::<u64>().expect("a count")).sum()
            };
            for family in [
                "tallygate_upstream_attempts_total",
                "tallygate_upstream_failures_total",
                "tallygate_upstream_health_checks_total",
                "tallygate_queue_failures_total",
                "tallygate_command_duration_seconds_count",
            ] {
                assert_eq!(sum(family), 100, "{family} with {series}");
            }
            let others = shown.iter().filter(|line| line.contains(r#"subsystem="other""#)).count();
            assert_eq!(others > 0, series < 10_000, "{series}");
        }
    }

    #[test]
    fn unused_upstream_is_removed() {
        let telemetry = Telemetry::new();
        drop(telemetry.upstream_stats(&name("cameras"), "127.0.0.1:9001"));
        assert!(telemetry.upstreams_in_use().is_empty());
    }
}
