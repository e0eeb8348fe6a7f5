//! Settings that all pools of a worker share (`PoolSettings`), and this worker's share of limits that are divided
//! (`WorkerShare`).
//!
//! Guarantees: the shares of all workers add up to the whole.
//!
//! Leaves to others: keeping the limits (`pool`, `server_pools`).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::SubsystemTls;
use crate::model::Name;
use crate::proxy::capacity::load_shedding::InFlightLimiter;
use crate::proxy::upstream::endpoint::outlier_ejection::UpstreamHealth;

use super::kept_pools::KeptPools;

/// The settings that all pools of a worker share.
#[derive(Clone)]
pub(crate) struct PoolSettings {
    /// The maximum of idle connections per server.
    pub(crate) idle_max: usize,
    /// The idle timeout of a connection.
    pub(crate) idle_time: Duration,
    /// The health of the servers.
    pub(crate) health: Arc<UpstreamHealth>,
    /// The TLS settings of the subsystems.
    pub(crate) tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// This worker's share of limits that are divided among workers.
    pub(crate) worker_share: WorkerShare,
    /// The requests in flight of the worker, and its limits on buffers.
    pub(crate) in_flight: Rc<InFlightLimiter>,
    /// The pools of the worker that keep connections.
    pub(crate) kept_pools: Rc<KeptPools>,
}

/// One worker's share of a limit that is divided among all workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerShare {
    /// The worker's position.
    pub(crate) index: usize,
    /// The number of workers.
    pub(crate) workers: usize,
}

impl WorkerShare {
    /// The worker's share, at least 1. The shares add up to `whole` if `whole >= workers`.
    pub(crate) fn exact_share(self, whole: usize) -> usize {
        let of = self.workers.max(1);
        (whole / of + usize::from(self.index < whole % of)).max(1)
    }

    /// The worker's share, rounded up; 0 of 0.
    pub(crate) fn rounded_up_share(self, whole: usize) -> usize {
        whole.div_ceil(self.workers.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_shares_sum_up_to_the_whole() {
        for (whole, of) in [(1, 1), (7, 2), (8, 3), (3, 3), (100, 7)] {
            let parts = (0..of).map(|index| WorkerShare { index, workers: of }.exact_share(whole));
            assert_eq!(parts.sum::<usize>(), whole, "{whole} among {of}");
        }
        let share = WorkerShare { index: 1, workers: 2 };
        assert_eq!((share.rounded_up_share(0), share.rounded_up_share(3)), (0, 2));
    }
}
