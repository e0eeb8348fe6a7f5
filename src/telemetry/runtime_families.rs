//! The families of the measurements: durations, connections, limits and upstreams, summed over the workers.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::family_spec::{MetricSample, to_float};
use super::histogram::{COMMAND_BOUNDS, DurationDistribution, DurationHistogram, GATEWAY_BOUNDS};
use super::{LimitHit, MirrorOutcome, Telemetry, UpstreamStats, lock_unpoisoned, logging, metric_families};

impl Telemetry {
    /// All measurements since the process started, as families.
    pub(crate) fn runtime_families(&self) -> Vec<MetricFamily> {
        [self.traffic_families(), self.upstream_families(), self.queue_families()].concat()
    }

    fn traffic_families(&self) -> Vec<MetricFamily> {
        let connections = self.connections();
        let handshakes =
            connections.handshake_failures().map(|(why, count)| ([why.name().to_owned()], to_float(count)));
        let hit = |hit: LimitHit| ([hit.name().to_owned()], to_float(self.limit_hit_count(hit)));
        let copies = |end: MirrorOutcome| ([end.name().to_owned()], to_float(self.mirrored_count(end)));
        vec![
            metric_families::COMMAND_DURATION.histogram_family(self.command_durations()),
            metric_families::GATEWAY_DURATION.histogram_family([([], self.gateway_durations())]),
            metric_families::CONNECTIONS_OPEN.single_family(to_float(connections.open.get())),
            metric_families::CONNECTIONS_ACCEPTED.single_family(to_float(connections.accepted.get())),
            metric_families::HANDSHAKES_FAILED.family_of(handshakes),
            metric_families::LIMIT_HITS.family_of(LimitHit::ALL.map(hit)),
            metric_families::LOG_LINES_DROPPED.single_family(to_float(logging::lines_dropped())),
            metric_families::MIRRORED.family_of(MirrorOutcome::ALL.map(copies)),
        ]
    }

    fn upstream_families(&self) -> Vec<MetricFamily> {
        let upstreams = self.upstreams_in_use();
        let each = |read: fn(&UpstreamStats) -> u64| {
            upstreams.iter().map(move |(labels, stats)| (labels.clone(), to_float(read(stats))))
        };
        let failures = upstreams.iter().flat_map(|(labels, stats)| failure_samples(labels, stats));
        let checks = upstreams.iter().flat_map(|(labels, stats)| check_samples(labels, stats));
        vec![
            metric_families::UPSTREAM_ATTEMPTS.family_of(each(|stats| stats.attempts.get())),
            metric_families::UPSTREAM_RETRIES.family_of(each(|stats| stats.retries.get())),
            metric_families::UPSTREAM_FAILURES.family_of(failures),
            metric_families::UPSTREAM_EJECTED.family_of(each(|stats| stats.ejected.get())),
            metric_families::UPSTREAM_CHECKS.family_of(checks),
            metric_families::UPSTREAM_CONNECTIONS.family_of(each(|stats| stats.connections.get())),
            metric_families::UPSTREAM_REQUESTS.family_of(each(|stats| stats.requests.get())),
        ]
    }

    fn queue_families(&self) -> Vec<MetricFamily> {
        let mut queues = lock_unpoisoned(&self.queues);
        queues.retain(|_, stats| Arc::strong_count(stats) > 1); // a reload removed the others
        let waiting = queues.iter().map(|(name, stats)| ([name.to_string()], to_float(stats.waiting.get())));
        let failures = queues.iter().flat_map(|(name, stats)| {
            let reasons = [("full", &stats.full), ("timeout", &stats.timeout)];
            reasons.map(|(reason, count)| ([name.to_string(), reason.to_owned()], to_float(count.get())))
        });
        vec![metric_families::COMMANDS_QUEUED.family_of(waiting), metric_families::QUEUE_FAILURES.family_of(failures)]
    }

    fn gateway_durations(&self) -> DurationDistribution {
        let durations = lock_unpoisoned(&self.durations);
        DurationHistogram::sum_workers(GATEWAY_BOUNDS, durations.gateway.iter().map(|one| &**one))
    }

    fn command_durations(&self) -> Vec<([String; 1], DurationDistribution)> {
        let durations = lock_unpoisoned(&self.durations);
        let sum = |workers: &Vec<Arc<DurationHistogram>>| {
            DurationHistogram::sum_workers(COMMAND_BOUNDS, workers.iter().map(|one| &**one))
        };
        durations.commands.iter().map(|(subsystem, workers)| ([subsystem.to_string()], sum(workers))).collect()
    }

    /// The upstreams that are still referenced elsewhere. A reload removed the others, and they are dropped here.
    fn upstreams_in_use(&self) -> Vec<([String; 2], Arc<UpstreamStats>)> {
        let mut upstreams = lock_unpoisoned(&self.upstreams);
        upstreams.retain(|_, stats| Arc::strong_count(stats) > 1);
        upstreams
            .iter()
            .map(|((subsystem, upstream), stats)| ([subsystem.to_string(), upstream.clone()], Arc::clone(stats)))
            .collect()
    }
}

fn failure_samples([subsystem, upstream]: &[String; 2], stats: &UpstreamStats) -> [MetricSample<3>; 5] {
    let reasons = [
        ("connect", &stats.failures_connect),
        ("reset", &stats.failures_reset),
        ("timeout", &stats.failures_timeout),
        ("malformed_answer", &stats.failures_malformed),
        ("refused", &stats.failures_refused),
    ];
    reasons.map(|(reason, count)| ([subsystem.clone(), upstream.clone(), reason.to_owned()], to_float(count.get())))
}

fn check_samples([subsystem, upstream]: &[String; 2], stats: &UpstreamStats) -> [MetricSample<3>; 2] {
    let results = [("passed", &stats.checks_passed), ("failed", &stats.checks_failed)];
    results.map(|(result, count)| ([subsystem.clone(), upstream.clone(), result.to_owned()], to_float(count.get())))
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
        let text = TextEncoder::new().encode_to_string(&telemetry.runtime_families()).expect("it renders");
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

    #[test]
    fn unused_upstream_is_removed() {
        let telemetry = Telemetry::new();
        drop(telemetry.upstream_stats(&name("cameras"), "127.0.0.1:9001"));
        assert!(telemetry.upstreams_in_use().is_empty());
    }
}
