//! One worker's view of the configuration that a reload replaces.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::limit::{CommandGate, LimitRefusal, LimiterRegistry};
use crate::policy::{Command, DepartmentPolicy, PolicySnapshot, Subsystem};
use crate::proxy::upstream::{SubsystemServers, WorkerPools};

/// One configuration in one worker: the shared snapshot, and this worker's connection pools to the subsystems.
pub(crate) struct WorkerConfig {
    pub(crate) snapshot: Arc<PolicySnapshot>,
    upstreams: Vec<Rc<SubsystemServers>>,
    /// The limits of a department (by number) on a command (by index). The cache avoids a map of maps and a lock per
    /// command.
    gates: RefCell<HashMap<(u32, usize), Rc<CommandGate>, foldhash::fast::RandomState>>,
}

/// The maximum number of cached gates per worker. Beyond it the cache is cleared and filled again.
const GATES_MAX: usize = 100_000;

impl WorkerConfig {
    /// Builds the view of a snapshot. Connections to servers that remain in the configuration are kept.
    pub(crate) fn new(snapshot: Arc<PolicySnapshot>, pools: &WorkerPools) -> Self {
        let upstreams = snapshot.subsystems.iter().map(|subsystem| Rc::new(pools.upstreams_for(subsystem))).collect();
        pools.retain_servers(&snapshot);
        Self { snapshot, upstreams, gates: RefCell::default() }
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

    /// The servers of a subsystem of this snapshot.
    pub(crate) fn upstreams_for(&self, subsystem: &Subsystem) -> &Rc<SubsystemServers> {
        &self.upstreams[subsystem.index]
    }
}
