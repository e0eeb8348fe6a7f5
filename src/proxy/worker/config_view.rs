//! One worker's view of the published snapshot, which a reload or a change of endpoints replaces.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::AccessLogSettings;
use crate::identity::SubsystemTls;
use crate::limit::{CommandGate, LimitRefusal, LimiterRegistry};
use crate::model::Name;
use crate::policy::{Backend, Command, DepartmentPolicy, PolicySnapshot, WeightedBackends};
use crate::proxy::upstream::{BackendServers, WorkerPools};

/// One configuration in one worker: the shared snapshot, and this worker's connection pools to the backends.
pub(crate) struct WorkerConfig {
    pub(crate) snapshot: Arc<PolicySnapshot>,
    /// The servers of each backend, in the order of the snapshot.
    backends: Vec<Rc<BackendServers>>,
    /// The TLS settings with which they were built.
    tls: Arc<SubsystemTlsMap>,
    /// The phases of the weighted choices that were made.
    phases: Rc<PhaseMap>,
    /// The limits of a department on a command, by their numbers. The cache avoids a map of maps and a lock per
    /// command.
    gates: Rc<GateCache>,
    /// The settings of the access log; `None` while it is off.
    pub(crate) access_log: Option<Arc<AccessLogSettings>>,
}

type SubsystemTlsMap = HashMap<Name, SubsystemTls>;

type GateCache = RefCell<HashMap<(u32, u32), Rc<CommandGate>, RandomState>>;

/// The phase of the weighted choice of each command, by its number. It has at most an entry for each command.
type PhaseMap = RefCell<HashMap<u32, u64, RandomState>>;

/// The maximum number of cached gates per worker. Beyond it the cache is cleared and filled again.
const GATES_MAX: usize = 100_000;

impl WorkerConfig {
    /// Builds the view of a snapshot, after `before`. Connections to servers that remain are kept, and so are backends
    /// that are the same. If only endpoints differ, limits and weighted choices go on.
    pub(crate) fn new(
        (snapshot, access_log): (Arc<PolicySnapshot>, Option<Arc<AccessLogSettings>>),
        pools: &WorkerPools,
        before: Option<&Self>,
    ) -> Self {
        let tls = pools.tls();
        let known = before.filter(|before| Arc::ptr_eq(&before.tls, &tls));
        let servers_of = |backend| {
            known.and_then(|known| known.known_servers(backend)).map_or_else(|| pools.servers_of(backend), Rc::clone)
        };
        let backends = snapshot.backends.iter().map(servers_of).collect();
        pools.retain_backends(&snapshot);
        let same = before.filter(|before| before.snapshot.differs_only_in_endpoints(&snapshot));
        let (phases, gates) = same.map(|same| (Rc::clone(&same.phases), Rc::clone(&same.gates))).unwrap_or_default();
        Self { snapshot, backends, tls, phases, gates, access_log }
    }

    /// The servers of a backend that this configuration shares with another one.
    fn known_servers(&self, backend: &Arc<Backend>) -> Option<&Rc<BackendServers>> {
        let index = self.index_of(backend.number)?;
        Arc::ptr_eq(&self.snapshot.backends[index], backend).then(|| &self.backends[index])
    }

    /// The limits of a department on a command.
    pub(crate) fn gate(
        &self,
        limiters: &LimiterRegistry,
        department: &DepartmentPolicy,
        command: &Command,
    ) -> Result<Rc<CommandGate>, LimitRefusal> {
        let key = (department.department.number, command.key.number);
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

    /// The index of a backend in this configuration, by its number.
    pub(crate) fn index_of(&self, backend: u32) -> Option<usize> {
        self.snapshot.backend_positions.get(&backend).copied()
    }

    /// The servers of a backend, by its index in this configuration.
    pub(crate) fn servers_of(&self, backend: usize) -> &Rc<BackendServers> {
        &self.backends[backend]
    }

    /// Chooses the share for the next request of the command with this number. `None` if all weights are 0.
    pub(crate) fn next_share(&self, command: u32, backends: &WeightedBackends) -> Option<usize> {
        let mut phases = self.phases.borrow_mut();
        // A random start: otherwise every reload, in every worker, would begin with the same choices.
        let phase = phases.entry(command).or_insert_with(|| fastrand::u64(..));
        *phase = WeightedBackends::next_phase(*phase);
        backends.share_at(*phase)
    }
}
