//! What is swapped on a reload, as one worker sees it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::limit::{Gate, Limited, Limiters};
use crate::policy::{Command, DepartmentPolicy, Snapshot, Subsystem};

use super::upstream::{Pools, Upstreams};

/// One configuration at work in one worker: the shared snapshot and this worker's way to the subsystems.
pub(super) struct Live {
    pub(super) snapshot: Arc<Snapshot>,
    upstreams: Vec<Rc<Upstreams>>,
    /// What limits a department (by number) on a command (by index): found once, then asked without a map of maps or a lock.
    gates: RefCell<HashMap<(u32, usize), Rc<Gate>, foldhash::fast::RandomState>>,
}

/// Gates remembered per worker; beyond it all are found anew.
const GATES_MAX: usize = 100_000;

impl Live {
    /// Puts a snapshot to work. Connections to servers that stay are kept.
    pub(super) fn new(snapshot: Arc<Snapshot>, pools: &Pools) -> Self {
        let upstreams = snapshot.subsystems.iter().map(|subsystem| Rc::new(pools.upstreams_of(subsystem))).collect();
        pools.forget_all_but(&snapshot);
        Self { snapshot, upstreams, gates: RefCell::default() }
    }

    /// What limits a department on a command.
    pub(super) fn gate(
        &self,
        limiters: &Limiters,
        department: &DepartmentPolicy,
        command: &Command,
    ) -> Result<Rc<Gate>, Limited> {
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
    pub(super) fn upstreams_of(&self, subsystem: &Subsystem) -> &Rc<Upstreams> {
        &self.upstreams[subsystem.index]
    }
}
