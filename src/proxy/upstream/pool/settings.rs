//! Settings that all pools of a worker share (`PoolSettings`), and this worker's share of limits that are divided
//! (`WorkerShare`).
//!
//! Guarantees: the shares of all workers add up to the whole.
//! Leaves to others: keeping the limits (`pool`, `server_pools`).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::SubsystemTls;
use crate::model::Name;
use crate::proxy::capacity::in_flight::InFlightLimiter;
use crate::proxy::upstream::endpoint::health::UpstreamHealth;

/// What all pools of a gateway share.
#[derive(Clone)]
pub(crate) struct PoolSettings {
    /// Idle connections kept per server.
    pub(crate) idle_max: usize,
    /// How long an idle connection is kept.
    pub(crate) idle_time: Duration,
    /// Who is well.
    pub(crate) health: Arc<UpstreamHealth>,
    /// How subsystems are met over TLS.
    pub(crate) tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// This worker's part of what is divided among all.
    pub(crate) worker_share: WorkerShare,
    /// How much the worker carries.
    pub(crate) in_flight: Rc<InFlightLimiter>,
}

/// One worker's part of what is divided among all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerShare {
    /// Its position.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) workers: usize,
}

impl WorkerShare {
    /// Its part; all parts together are the whole, if that is at least 1 for each.
    pub(crate) fn exact_share(self, whole: usize) -> usize {
        let of = self.workers.max(1);
        (whole / of + usize::from(self.index < whole % of)).max(1)
    }

    /// Its part, rounded up; nothing of nothing.
    pub(crate) fn rounded_up_share(self, whole: usize) -> usize {
        whole.div_ceil(self.workers.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (whole, of) in [(1, 1), (7, 2), (8, 3), (3, 3), (100, 7)] {
            let parts = (0..of).map(|index| WorkerShare { index, workers: of }.exact_share(whole));
            assert_eq!(parts.sum::<usize>(), whole, "{whole} among {of}");
        }
        let share = WorkerShare { index: 1, workers: 2 };
        assert_eq!((share.rounded_up_share(0), share.rounded_up_share(3)), (0, 2));
    }
}
