//! What is swapped on a reload, as one worker sees it.

use std::rc::Rc;
use std::sync::Arc;

use crate::policy::{Snapshot, Subsystem};

use super::upstream::{Pools, Upstreams};

/// One configuration at work in one worker: the shared snapshot and this worker's way to the subsystems.
pub(super) struct Live {
    pub(super) snapshot: Arc<Snapshot>,
    upstreams: Vec<Rc<Upstreams>>,
}

impl Live {
    /// Puts a snapshot to work. Connections to servers that stay are kept.
    pub(super) fn new(snapshot: Arc<Snapshot>, pools: &Pools) -> Self {
        let upstreams = snapshot.subsystems.iter().map(|subsystem| Rc::new(pools.upstreams_of(subsystem))).collect();
        pools.forget_all_but(&snapshot);
        Self { snapshot, upstreams }
    }

    /// The servers of a subsystem of this snapshot.
    pub(super) fn upstreams_of(&self, subsystem: &Subsystem) -> &Rc<Upstreams> {
        &self.upstreams[subsystem.index]
    }
}
