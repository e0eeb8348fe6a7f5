//! Showing: what the gateway measures, and how Prometheus and the log see it.
//!
//! Guarantees: what is counted for money comes from one snapshot of the ledger, so it continues over restarts and agrees
//! with the report; what is only measured (durations, connections, upstreams) lives here, costs a few nanoseconds to
//! record, and begins at zero with the process. Label sets are bounded. Decides nothing and keeps no truth of its own.

mod callers;
mod changes;
mod collect;
mod counter;
mod family;
mod fold;
mod histogram;
mod log_queue;
pub mod logging;
mod measured;
mod metrics;
mod page;
mod process;
mod recorder;
#[cfg(test)]
mod samples;
mod sparing;
mod stats;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Name;

pub use callers::CallersSeen;
pub use changes::{ChangedItems, ConfigChanges, NameList};
pub use collect::Scrape;
pub use counter::{Count, Level};
pub use recorder::Recorder;
pub use stats::{ConnectionStats, HandshakeFailure, LimitHit, Mirrored, OpenConnection, QueueStats, UpstreamStats};
pub use view::{ConfigStatus, DepartmentLimits, LiveConfig, QuotaUse, RejectedConfig, View};

use histogram::{COMMAND_BOUNDS, GATEWAY_BOUNDS, Histogram};

/// Everything that is measured and not counted by the ledger. One per process, shared.
#[derive(Debug, Default)]
pub struct Telemetry {
    connections: Arc<ConnectionStats>,
    callers: CallersSeen,
    limit_hits: [Count; LimitHit::ALL.len()],
    mirrored: [Count; Mirrored::ALL.len()],
    upstreams: Mutex<BTreeMap<(Name, String), Arc<UpstreamStats>>>,
    queues: Mutex<BTreeMap<Name, Arc<QueueStats>>>,
    durations: Mutex<Durations>,
}

/// The histograms of all workers. Those of a subsystem that a reload removed stay until the process ends: they are
/// bounded by the configurations it has seen.
#[derive(Debug, Default)]
struct Durations {
    commands: BTreeMap<Name, Vec<Arc<Histogram>>>,
    gateway: Vec<Arc<Histogram>>,
}

impl Telemetry {
    /// Nothing measured yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What a worker records its durations with; call it on the worker's own thread, once.
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        Recorder::new(Arc::clone(self))
    }

    /// The numbers of the queue before one subsystem, the same for every worker; shown as long as somebody holds them.
    pub fn queue(&self, subsystem: &Name) -> Arc<QueueStats> {
        Arc::clone(lock(&self.queues).entry(subsystem.clone()).or_default())
    }

    /// The numbers of one upstream, the same for every worker; shown as long as somebody holds them.
    pub fn upstream(&self, subsystem: &Name, upstream: &str) -> Arc<UpstreamStats> {
        let key = (subsystem.clone(), upstream.to_owned());
        Arc::clone(lock(&self.upstreams).entry(key).or_default())
    }

    /// Whether an upstream is out of rotation, as `tallygate_upstream_ejected` shows it; `false` for one that nobody has used.
    pub fn is_ejected(&self, subsystem: &Name, upstream: &str) -> bool {
        let key = (subsystem.clone(), upstream.to_owned());
        lock(&self.upstreams).get(&key).is_some_and(|stats| stats.ejected.get() > 0)
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
    pub fn limit_hit(&self, hit: LimitHit) {
        self.limit_hits[hit as usize].one();
    }

    /// A request was chosen to be copied, and this became of its copy.
    pub fn mirrored(&self, end: Mirrored) {
        self.mirrored[end as usize].one();
    }

    /// How many copies ended so.
    pub fn mirrored_so_far(&self, end: Mirrored) -> u64 {
        self.mirrored[end as usize].get()
    }

    /// How often a limit was hit.
    pub fn limit_hits(&self, hit: LimitHit) -> u64 {
        self.limit_hits[hit as usize].get()
    }

    fn add_command_histogram(&self, subsystem: &Name) -> Arc<Histogram> {
        let histogram = Arc::new(Histogram::new(COMMAND_BOUNDS));
        lock(&self.durations).commands.entry(subsystem.clone()).or_default().push(Arc::clone(&histogram));
        histogram
    }

    fn add_gateway_histogram(&self) -> Arc<Histogram> {
        let histogram = Arc::new(Histogram::new(GATEWAY_BOUNDS));
        lock(&self.durations).gateway.push(Arc::clone(&histogram));
        histogram
    }
}

/// The maps behind these locks are only added to, so a panic elsewhere cannot leave them half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
