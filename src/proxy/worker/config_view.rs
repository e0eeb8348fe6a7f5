//! One worker's view of the published snapshot, which a reload or a change of endpoints replaces.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::limit::{CommandGate, LimitRefusal, LimiterRegistry};
use crate::policy::{Command, DepartmentPolicy, PolicySnapshot, WeightedBackends};
use crate::proxy::upstream::{BackendServers, WorkerPools};

/// One configuration in one worker: the shared snapshot, and this worker's connection pools to the backends.
pub(crate) struct WorkerConfig {
    pub(crate) snapshot: Arc<PolicySnapshot>,
    /// The servers of each backend, by its index.
    backends: Vec<Rc<BackendServers>>,
    /// The phase of each weighted choice, by its index.
    phases: Rc<[Cell<u64>]>,
    /// The limits of a department (by number) on a command (by index). The cache avoids a map of maps and a lock per
    /// command.
    gates: Rc<GateCache>,
}

type GateCache = RefCell<HashMap<(u32, usize), Rc<CommandGate>, foldhash::fast::RandomState>>;

/// The maximum number of cached gates per worker. Beyond it the cache is cleared and filled again.
const GATES_MAX: usize = 100_000;

impl WorkerConfig {
    /// Builds the view of a snapshot, after `before`. Connections to servers that remain are kept. If only endpoints
    /// differ, limits and weighted choices go on.
    pub(crate) fn new(snapshot: Arc<PolicySnapshot>, pools: &WorkerPools, before: Option<&Self>) -> Self {
        let backends = snapshot.backends.iter().map(|backend| pools.servers_of(backend)).collect();
        pools.retain_backends(&snapshot);
        if let Some(same) = before.filter(|before| before.snapshot.differs_only_in_endpoints(&snapshot)) {
            let (phases, gates) = (Rc::clone(&same.phases), Rc::clone(&same.gates));
            return Self { snapshot, backends, phases, gates };
        }
        // A random start: otherwise every reload, in every worker, would begin with the same choices.
        let phases = (0..snapshot.weighted_choices()).map(|_| Cell::new(fastrand::u64(..))).collect();
        Self { snapshot, backends, phases, gates: Rc::default() }
    }

    /// The limits of a department on a command.
    pub(crate) fn gate(
        &self,
        limiters: &LimiterRegistry,
        department: &DepartmentPolicy,
        command: &Command,
    ) -> Result<Rc<CommandGate>, LimitRefusal> {
        let key = (department.department.number, command.index);
        if let Some(gate) = self.gates.borrow().get(&key) {
            return Ok(Rc::clone(gate));
        }
        let gate = limiters.gate(&self.snapshot, department, command)?;
        let mut gates = self.gates.borrow_mut();
        if gates.len() >= GATES_MAX {
            gates.clear();
        }
        gates.insert(key, Rc::clone(&gate));
        Ok(gate)
    }

    /// The servers of a backend of this snapshot, by its index.
    pub(crate) fn servers_of(&self, backend: usize) -> &Rc<BackendServers> {
        &self.backends[backend]
    }

    /// Chooses the share for the next request of a command. `None` if all weights are 0.
    pub(crate) fn next_share(&self, backends: &WeightedBackends) -> Option<usize> {
        let phase = &self.phases[backends.index];
        phase.set(WeightedBackends::next_phase(phase.get()));
        backends.share_at(phase.get())
    }
}
