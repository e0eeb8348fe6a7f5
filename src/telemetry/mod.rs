//! Telemetry: the measurements of the gateway, the Prometheus exposition of `/metrics`, the log, the
//! access log and traces.
//!
//! Guarantees:
//! - Counters that bills depend on come from one snapshot of the ledger. They continue over restarts and agree with the
//!   report.
//! - Pure measurements (durations, connections, upstreams) live here. Recording one costs a few nanoseconds. They start
//!   at zero with the process.
//! - Label sets are bounded.
//!
//! Telemetry makes no decisions and holds no authoritative state of its own.

mod access_log;
mod caller_certificates;
mod cluster_families;
mod cluster_view;
mod config_changes;
mod counters;
mod family_spec;
mod histogram;
mod label_cap;
mod log_lines;
pub mod logging;
mod metric_families;
mod process_metrics;
mod recorder;
mod runtime_families;
mod runtime_view;
mod scrape;
mod spans;
#[cfg(test)]
mod test_totals;
mod text_page;
mod traffic_stats;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Name;

pub use access_log::{
    AccessCounts, AccessLog, AccessLogOpenError, AccessRecord, AccessRecorder, DropReason, PreparedAccessLog,
    RecordText,
};
pub use caller_certificates::CallersSeen;
pub use cluster_view::{ClusterView, KindView, LastGoodView, ServedLastGood, WorkTotals};
pub use config_changes::{ChangedItems, ConfigChanges, ListenerChanges, NameList};
pub use counters::{EventCounter, LevelGauge};
pub use recorder::WorkerRecorder;
pub use runtime_view::{
    ConfigCounts, ConfigStatus, DepartmentLimits, LiveConfig, QuotaUse, RejectedConfig, RuntimeView,
};
pub use scrape::ScrapeInput;
pub use spans::{SpanCounts, SpanDropReason, SpanRecorder, TraceExport};
pub use traffic_stats::{
    ConnectionStats, HandshakeFailure, LimitHit, MirrorOutcome, OpenConnection, QueueStats, UpstreamStats,
};

use histogram::{COMMAND_BOUNDS, DurationHistogram, GATEWAY_BOUNDS};

/// All measurements that the ledger does not count. One per process, shared by all workers.
#[derive(Debug, Default)]
pub struct Telemetry {
    connections: Arc<ConnectionStats>,
    callers: CallersSeen,
    limit_hits: [EventCounter; LimitHit::ALL.len()],
    mirrored: [EventCounter; MirrorOutcome::ALL.len()],
    upstreams: Mutex<BTreeMap<(Name, String), Arc<UpstreamStats>>>,
    queues: Mutex<BTreeMap<Name, Arc<QueueStats>>>,
    durations: Mutex<DurationHistograms>,
    access: Arc<AccessCounts>,
    spans: Arc<SpanCounts>,
}

/// The histograms of all workers. Histograms of a subsystem that a reload removed stay until the process ends. Their
/// number is bounded by the configurations that the process has loaded.
#[derive(Debug, Default)]
struct DurationHistograms {
    commands: BTreeMap<Name, Vec<Arc<DurationHistogram>>>,
    gateway: Vec<Arc<DurationHistogram>>,
}

impl Telemetry {
    /// Empty telemetry, with every measurement at zero.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The recorder with which a worker records its durations. Call this once per worker, on the worker's own thread.
    pub fn recorder(self: &Arc<Self>) -> WorkerRecorder {
        WorkerRecorder::new(Arc::clone(self))
    }

    /// The queue statistics of one subsystem, shared by all workers. Scrapes show them while a reference outside this
    /// registry exists.
    pub fn queue_stats(&self, subsystem: &Name) -> Arc<QueueStats> {
        Arc::clone(lock_unpoisoned(&self.queues).entry(subsystem.clone()).or_default())
    }

    /// The statistics of one upstream, shared by all workers. Scrapes show them while a reference outside this registry
    /// exists.
    pub fn upstream_stats(&self, subsystem: &Name, upstream: &str) -> Arc<UpstreamStats> {
        let key = (subsystem.clone(), upstream.to_owned());
        Arc::clone(lock_unpoisoned(&self.upstreams).entry(key).or_default())
    }

    /// Whether outlier ejection or health checks have taken an upstream out of rotation, as
    /// `tallygate_upstream_ejected` shows it. Returns `false` for an upstream that has not been used.
    pub fn is_ejected(&self, subsystem: &Name, upstream: &str) -> bool {
        let key = (subsystem.clone(), upstream.to_owned());
        lock_unpoisoned(&self.upstreams).get(&key).is_some_and(|stats| stats.ejected.get() > 0)
    }

    /// The statistics of the downstream (caller) connections.
    pub fn connections(&self) -> &Arc<ConnectionStats> {
        &self.connections
    }

    /// The callers that have been seen, with the expiry of their certificates.
    pub fn callers(&self) -> &CallersSeen {
        &self.callers
    }

    /// What became of the lines of the access log.
    pub fn access_counts(&self) -> &Arc<AccessCounts> {
        &self.access
    }

    /// What became of the spans of sampled commands.
    pub fn span_counts(&self) -> &Arc<SpanCounts> {
        &self.spans
    }

    /// Counts one hit of a limit.
    pub fn count_limit_hit(&self, hit: LimitHit) {
        self.limit_hits[hit as usize].increment();
    }

    /// Counts one mirrored request with the outcome of its copy.
    pub fn count_mirrored(&self, end: MirrorOutcome) {
        self.mirrored[end as usize].increment();
    }

    /// The number of copies with this outcome.
    pub fn mirrored_count(&self, end: MirrorOutcome) -> u64 {
        self.mirrored[end as usize].get()
    }

    /// The number of hits of a limit.
    pub fn limit_hit_count(&self, hit: LimitHit) -> u64 {
        self.limit_hits[hit as usize].get()
    }

    fn add_command_histogram(&self, subsystem: &Name) -> Arc<DurationHistogram> {
        let histogram = Arc::new(DurationHistogram::new(COMMAND_BOUNDS));
        lock_unpoisoned(&self.durations).commands.entry(subsystem.clone()).or_default().push(Arc::clone(&histogram));
        histogram
    }

    fn add_gateway_histogram(&self) -> Arc<DurationHistogram> {
        let histogram = Arc::new(DurationHistogram::new(GATEWAY_BOUNDS));
        lock_unpoisoned(&self.durations).gateway.push(Arc::clone(&histogram));
        histogram
    }
}

/// Locks a map and ignores poisoning. The maps are only added to, so a panic elsewhere cannot leave them half-changed.
fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
