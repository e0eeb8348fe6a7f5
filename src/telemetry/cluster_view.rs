//! What a Kubernetes controller knows about its cluster and its own work, at one moment: plain values for `/metrics`
//! and `/config`.
//!
//! Guarantees: bounded by the number of kinds; no name of an object is in it.
//!
//! Leaves to others: counting (`kube`), the families (`cluster_families`).

use std::time::Duration;

use jiff::Timestamp;

/// The state of a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Each watched kind.
    pub kinds: Vec<KindView>,
    /// Translations of the cluster's objects.
    pub translations: WorkTotals,
    /// Configurations that were handed to the data plane.
    pub applies: WorkTotals,
    /// Of these, those that it rejected as a whole.
    pub rejected_applies: u64,
    /// Writes of statuses, by result.
    pub status_writes: Vec<(&'static str, u64)>,
    /// Statuses that wait to be written.
    pub statuses_waiting: u64,
    /// Events, by result.
    pub events: Vec<(&'static str, u64)>,
    /// Whether this process writes: it holds the lease.
    pub is_leader: bool,
    /// Annotations of ingress-nginx at Ingresses of this controller, by what became of them.
    pub annotations: Vec<(&'static str, u64)>,
    /// The last good configuration on the disk.
    pub last_good: LastGoodView,
}

/// A watched kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindView {
    /// The kind: `HTTPRoute`.
    pub kind: &'static str,
    /// Whether all objects were listed once.
    pub is_synced: bool,
    /// The state of the watch.
    pub state: &'static str,
    /// The objects that are known.
    pub objects: u64,
    /// The time since the API server last said anything.
    pub age: Duration,
    /// How often all objects were listed again.
    pub relists: u64,
    /// Faults of the watch.
    pub faults: u64,
}

/// How often something was done, and how long that took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkTotals {
    /// How often.
    pub count: u64,
    /// The sum of the durations.
    pub duration: Duration,
}

/// The last good configuration on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastGoodView {
    /// When this process last wrote it; `None` before that.
    pub written_at: Option<Timestamp>,
    /// Whether it is served.
    pub served: Option<ServedLastGood>,
}

/// A last good configuration that is served, because the cluster's own is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ServedLastGood {
    /// When it was written.
    pub written_at: Timestamp,
    /// Since when it is served.
    pub since: Timestamp,
}

impl ServedLastGood {
    /// The time since it was written; 0 if that is in the future.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.written_at)).unwrap_or_default()
    }
}
