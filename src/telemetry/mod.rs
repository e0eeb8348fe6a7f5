//! Showing: what the gateway measures, and how Prometheus and the log see it.
//!
//! Guarantees: what is counted for money comes from one snapshot of the ledger, so it continues over restarts and agrees
//! with the report; what is only measured (durations, connections, upstreams) lives here, costs a few nanoseconds to
//! record, and begins at zero with the process. Label sets are bounded. Decides nothing and keeps no truth of its own.

mod caller_certificates;
mod config_changes;
mod counters;
mod family_spec;
mod histogram;
mod label_cap;
mod log_queue;
mod log_throttle;
pub mod logging;
mod metrics;
mod process_metrics;
mod recorder;
mod runtime_families;
mod runtime_view;
mod scrape;
#[cfg(test)]
mod test_totals;
mod text_page;
mod traffic_stats;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Name;

pub use caller_certificates::CallersSeen;
pub use config_changes::{ChangedItems, ConfigChanges, NameList};
pub use counters::{EventCounter, LevelGauge};
pub use recorder::WorkerRecorder;
pub use runtime_view::{ConfigStatus, DepartmentLimits, LiveConfig, QuotaUse, RejectedConfig, RuntimeView};
pub use scrape::ScrapeInput;
pub use traffic_stats::{
    ConnectionStats, HandshakeFailure, LimitHit, MirrorOutcome, OpenConnection, QueueStats, UpstreamStats,
};

use histogram::{COMMAND_BOUNDS, DurationHistogram, GATEWAY_BOUNDS};

/// Everything that is measured and not counted by the ledger. One per process, shared.
#[derive(Debug, Default)]
pub struct Telemetry {
    connections: Arc<ConnectionStats>,
    callers: CallersSeen,
    limit_hits: [EventCounter; LimitHit::ALL.len()],
    mirrored: [EventCounter; MirrorOutcome::ALL.len()],
    upstreams: Mutex<BTreeMap<(Name, String), Arc<UpstreamStats>>>,
    queues: Mutex<BTreeMap<Name, Arc<QueueStats>>>,
    durations: Mutex<DurationHistograms>,
}

/// The histograms of all workers. Those of a subsystem that a reload removed stay until the process ends: they are
/// bounded by the configurations it has seen.
#[derive(Debug, Default)]
struct DurationHistograms {
    commands: BTreeMap<Name, Vec<Arc<DurationHistogram>>>,
    gateway: Vec<Arc<DurationHistogram>>,
}

impl Telemetry {
    /// Nothing measured yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What a worker records its durations with; call it on the worker's own thread, once.
    pub fn recorder(self: &Arc<Self>) -> WorkerRecorder {
        WorkerRecorder::new(Arc::clone(self))
    }

    /// The numbers of the queue before one subsystem, the same for every worker; shown as long as somebody holds them.
    pub fn queue_stats(&self, subsystem: &Name) -> Arc<QueueStats> {
        Arc::clone(lock_unpoisoned(&self.queues).entry(subsystem.clone()).or_default())
    }

    /// The numbers of one upstream, the same for every worker; shown as long as somebody holds them.
    pub fn upstream_stats(&self, subsystem: &Name, upstream: &str) -> Arc<UpstreamStats> {
        let key = (subsystem.clone(), upstream.to_owned());
        Arc::clone(lock_unpoisoned(&self.upstreams).entry(key).or_default())
    }

    /// Whether an upstream is out of rotation, as `tallygate_upstream_ejected` shows it; `false` for one that nobody has used.
    pub fn is_ejected(&self, subsystem: &Name, upstream: &str) -> bool {
        let key = (subsystem.clone(), upstream.to_owned());
        lock_unpoisoned(&self.upstreams).get(&key).is_some_and(|stats| stats.ejected.get() > 0)
    }

    /// The numbers of the callers' connections.
    pub fn connections(&self) -> &Arc<ConnectionStats> {
        &self.connections
    }

    /// The callers that have been seen.
    pub fn callers(&self) -> &CallersSeen {
        &self.callers
    }

    /// A limit was hit.
    pub fn count_limit_hit(&self, hit: LimitHit) {
        self.limit_hits[hit as usize].increment();
    }

    /// A request was chosen to be copied, and this became of its copy.
    pub fn count_mirrored(&self, end: MirrorOutcome) {
        self.mirrored[end as usize].increment();
    }

    /// How many copies ended so.
    pub fn mirrored_count(&self, end: MirrorOutcome) -> u64 {
        self.mirrored[end as usize].get()
    }

    /// How often a limit was hit.
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

/// The maps behind these locks are only added to, so a panic elsewhere cannot leave them half-changed.
fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
