//! The families of what is measured: durations, connections, limits and upstreams, summed over the workers.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::family::{Sample, number};
use super::histogram::{COMMAND_BOUNDS, Distribution, GATEWAY_BOUNDS, Histogram};
use super::{LimitHit, Mirrored, Telemetry, UpstreamStats, lock, logging, metrics};

impl Telemetry {
    /// Everything measured since the process began, as families.
    pub(super) fn measured(&self) -> Vec<MetricFamily> {
        [self.traffic(), self.upstream_families(), self.queue_families()].concat()
    }

    fn traffic(&self) -> Vec<MetricFamily> {
        let connections = self.connections();
        let handshakes = connections.handshakes_failed().map(|(why, count)| ([why.name().to_owned()], number(count)));
        let hit = |hit: LimitHit| ([hit.name().to_owned()], number(self.limit_hits(hit)));
        let copies = |end: Mirrored| ([end.name().to_owned()], number(self.mirrored_so_far(end)));
        vec![
            metrics::COMMAND_DURATION.distributions(self.command_durations()),
            metrics::GATEWAY_DURATION.distributions([([], self.gateway_durations())]),
            metrics::CONNECTIONS_OPEN.single(number(connections.open.get())),
            metrics::CONNECTIONS_ACCEPTED.single(number(connections.accepted.get())),
            metrics::HANDSHAKES_FAILED.samples(handshakes),
            metrics::LIMIT_HITS.samples(LimitHit::ALL.map(hit)),
            metrics::LOG_LINES_DROPPED.single(number(logging::lines_dropped())),
            metrics::MIRRORED.samples(Mirrored::ALL.map(copies)),
        ]
    }

    fn upstream_families(&self) -> Vec<MetricFamily> {
        let upstreams = self.upstreams_in_use();
        let each = |read: fn(&UpstreamStats) -> u64| {
            upstreams.iter().map(move |(labels, stats)| (labels.clone(), number(read(stats))))
        };
        let failures = upstreams.iter().flat_map(|(labels, stats)| failures(labels, stats));
        let checks = upstreams.iter().flat_map(|(labels, stats)| checks(labels, stats));
        vec![
            metrics::UPSTREAM_ATTEMPTS.samples(each(|stats| stats.attempts.get())),
            metrics::UPSTREAM_RETRIES.samples(each(|stats| stats.retries.get())),
            metrics::UPSTREAM_FAILURES.samples(failures),
            metrics::UPSTREAM_EJECTED.samples(each(|stats| stats.ejected.get())),
            metrics::UPSTREAM_CHECKS.samples(checks),
            metrics::UPSTREAM_CONNECTIONS.samples(each(|stats| stats.connections.get())),
            metrics::UPSTREAM_REQUESTS.samples(each(|stats| stats.requests.get())),
        ]
    }

    fn queue_families(&self) -> Vec<MetricFamily> {
        let mut queues = lock(&self.queues);
        queues.retain(|_, stats| Arc::strong_count(stats) > 1); // the others were removed by a reload
        let waiting = queues.iter().map(|(name, stats)| ([name.to_string()], number(stats.waiting.get())));
        let failures = queues.iter().flat_map(|(name, stats)| {
            let reasons = [("full", &stats.full), ("timeout", &stats.timeout)];
            reasons.map(|(reason, count)| ([name.to_string(), reason.to_owned()], number(count.get())))
        });
        vec![metrics::COMMANDS_QUEUED.samples(waiting), metrics::QUEUE_FAILURES.samples(failures)]
    }

    fn gateway_durations(&self) -> Distribution {
        let durations = lock(&self.durations);
        Histogram::sum(GATEWAY_BOUNDS, durations.gateway.iter().map(|one| &**one))
    }

    fn command_durations(&self) -> Vec<([String; 1], Distribution)> {
        let durations = lock(&self.durations);
        let sum = |workers: &Vec<Arc<Histogram>>| Histogram::sum(COMMAND_BOUNDS, workers.iter().map(|one| &**one));
        durations.commands.iter().map(|(subsystem, workers)| ([subsystem.to_string()], sum(workers))).collect()
    }

    /// The upstreams that somebody still holds; the others were removed by a reload and are forgotten here.
    fn upstreams_in_use(&self) -> Vec<([String; 2], Arc<UpstreamStats>)> {
        let mut upstreams = lock(&self.upstreams);
        upstreams.retain(|_, stats| Arc::strong_count(stats) > 1);
        upstreams
            .iter()
            .map(|((subsystem, upstream), stats)| ([subsystem.to_string(), upstream.clone()], Arc::clone(stats)))
            .collect()
    }
}

fn failures([subsystem, upstream]: &[String; 2], stats: &UpstreamStats) -> [Sample<3>; 5] {
    let reasons = [
        ("connect", &stats.failures_connect),
        ("reset", &stats.failures_reset),
        ("timeout", &stats.failures_timeout),
        ("malformed_answer", &stats.failures_malformed),
        ("refused", &stats.failures_refused),
    ];
    reasons.map(|(reason, count)| ([subsystem.clone(), upstream.clone(), reason.to_owned()], number(count.get())))
}

fn checks([subsystem, upstream]: &[String; 2], stats: &UpstreamStats) -> [Sample<3>; 2] {
    let results = [("passed", &stats.checks_passed), ("failed", &stats.checks_failed)];
    results.map(|(result, count)| ([subsystem.clone(), upstream.clone(), result.to_owned()], number(count.get())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::telemetry::HandshakeFailure;
    use crate::telemetry::samples::name;

    #[test]
    fn what_workers_measure_is_added_up() {
        let telemetry = Telemetry::new();
        let upstream = telemetry.upstream(&name("cameras"), "127.0.0.1:9001");
        upstream.attempts.one();
        upstream.failures_reset.one();
        upstream.checks_failed.one();
        upstream.retries.one();
        let queue = telemetry.queue(&name("cameras"));
        queue.waiting.up();
        queue.full.one();
        telemetry.connections().handshake_failed(HandshakeFailure::Revoked);
        telemetry.limit_hit(LimitHit::AdminRequests);
        for recorder in [telemetry.recorder(), telemetry.recorder()] {
            recorder.command(&name("cameras"), Duration::from_millis(3));
            recorder.gateway(Duration::from_micros(30));
        }
        let text = TextEncoder::new().encode_to_string(&telemetry.measured()).expect("it renders");
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
    fn an_upstream_that_nobody_holds_is_forgotten() {
        let telemetry = Telemetry::new();
        drop(telemetry.upstream(&name("cameras"), "127.0.0.1:9001"));
        assert!(telemetry.upstreams_in_use().is_empty());
    }
}
