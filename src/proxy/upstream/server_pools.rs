//! The connection pools and wait queues of one worker, and the settings that the configuration gives each server.
//!
//! Guarantees:
//! - Pools and queues outlive configurations.
//! - A server that a new snapshot keeps also keeps its connections, its number of requests in flight, and its queue.
//! - A backend that a new snapshot does not change is not built again: its balancer and its retry budget go on.
//! - A server that a new snapshot removes is dropped.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::identity::SubsystemTls;
use crate::model::Name;
use crate::policy::{Backend, HashSource, LoadBalancing, PolicySnapshot, UpstreamServer};

use super::backend_servers::{BackendServers, PooledServer};
use super::endpoint::dns::DnsResolver;
use super::load_balancing::{HashKey, LoadBalancer};
use super::pool::ConnectionPool;
use super::pool::settings::PoolSettings;
use super::pool::wait_queue::{ServerInFlight, WaitQueue};
use super::retry_budget::RetryBudget;
use super::transport::connector::Connector;

/// All pools of one worker. They outlive configurations.
pub(crate) struct WorkerPools {
    backends: RefCell<HashMap<Name, BackendPools>>,
    settings: PoolSettings,
    resolver: Rc<DnsResolver>,
    /// Whether pools were dropped since the last sweep.
    has_dropped: Cell<bool>,
}

/// The pools of one backend.
struct BackendPools {
    /// The pools of its servers, by authority.
    by_server: HashMap<String, Rc<ConnectionPool>>,
    queue: Rc<WaitQueue>,
    /// What was built last from `by_server`.
    built: Option<BuiltServers>,
}

/// The servers of a backend, with the TLS settings that they were built with.
struct BuiltServers {
    servers: Rc<BackendServers>,
    tls: Option<SubsystemTls>,
}

impl BuiltServers {
    /// Whether a build for this backend and these settings would give the same.
    fn is_for(&self, backend: &Arc<Backend>, tls: Option<&SubsystemTls>) -> bool {
        let is_same_tls = match (&self.tls, tls) {
            (Some(built), Some(tls)) => built.is_same(tls),
            (built, tls) => built.is_none() && tls.is_none(),
        };
        is_same_tls && (Arc::ptr_eq(&self.servers.policy, backend) || self.servers.policy.is_same_group(backend))
    }
}

/// The number of a server in the entries of persistent cookies.
fn session_number(backend: &Backend, server: &UpstreamServer) -> Option<u64> {
    let LoadBalancing::Hash(HashSource::Cookie(cookie)) = &backend.balance else { return None };
    let secret = cookie.persistence.as_ref().filter(|_| server.weight > 0)?;
    Some(secret.server_number(&server.authority))
}

impl WorkerPools {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        Self { backends: RefCell::default(), settings, resolver: Rc::default(), has_dropped: Cell::new(false) }
    }

    /// The current TLS settings towards subsystems, with which servers are built.
    pub(crate) fn tls(&self) -> Arc<HashMap<Name, SubsystemTls>> {
        self.settings.tls.load_full()
    }

    /// The servers of a backend, with the pools that they have already. Pools of servers that the backend no longer has
    /// are dropped, which closes their idle connections.
    pub(crate) fn servers_of(&self, backend: &Arc<Backend>) -> Rc<BackendServers> {
        let tls = self.settings.tls.load().get(&backend.id).cloned();
        let mut backends = self.backends.borrow_mut();
        let pools = backends.entry(backend.id.clone()).or_insert_with(|| BackendPools {
            by_server: HashMap::new(),
            queue: Rc::new(WaitQueue::new(self.settings.health.queue_stats(&backend.id))),
            built: None,
        });
        if let Some(built) = pools.built.as_ref().filter(|built| built.is_for(backend, tls.as_ref())) {
            return Rc::clone(&built.servers);
        }
        let servers = Rc::new(self.build(backend, tls.as_ref(), pools));
        self.retain_named(backend, pools);
        pools.built = Some(BuiltServers { servers: Rc::clone(&servers), tls });
        servers
    }

    fn build(&self, backend: &Arc<Backend>, tls: Option<&SubsystemTls>, pools: &mut BackendPools) -> BackendServers {
        let servers = backend.upstreams.iter();
        let weights = servers.clone().map(|server| u64::from(server.weight));
        BackendServers {
            servers: servers.map(|server| self.pooled_server(backend, server, (tls, &mut *pools))).collect(),
            balancer: LoadBalancer::new(backend.balance.clone(), weights.collect()),
            connect_timeout: backend.timeouts.connect,
            retry_budget: backend.retries.as_ref().map(RetryBudget::new),
            queue_limits: (self.settings.worker_share.rounded_up_share(backend.queue.length), backend.queue.timeout),
            wait_queue: Rc::clone(&pools.queue),
            policy: Arc::clone(backend),
        }
    }

    fn pooled_server(
        &self,
        backend: &Backend,
        server: &UpstreamServer,
        (tls, pools): (Option<&SubsystemTls>, &mut BackendPools),
    ) -> PooledServer {
        PooledServer {
            pool: self.pool_for(backend, server, (tls, pools)),
            requests_max: server.max_requests.map_or(usize::MAX, |max| self.settings.worker_share.exact_share(max)),
            slow_start: backend.slow_start,
            server_hash: HashKey::from_bytes(server.authority.as_bytes()).server_hash(),
            session_number: session_number(backend, server),
        }
    }

    fn pool_for(
        &self,
        backend: &Backend,
        server: &UpstreamServer,
        (tls, pools): (Option<&SubsystemTls>, &mut BackendPools),
    ) -> Rc<ConnectionPool> {
        let connector = Connector::new(backend, server, tls.cloned(), (&self.resolver, &self.settings.in_flight));
        match pools.by_server.get(&server.authority) {
            Some(pool) if pool.connects_to(&connector) => Rc::clone(pool),
            other => {
                let in_flight = other.map_or_else(
                    || Rc::new(ServerInFlight::new(Rc::clone(&pools.queue))),
                    |pool| Rc::clone(&pool.in_flight),
                );
                let health = self.settings.health.server_health(&backend.id, server);
                let pool = Rc::new(ConnectionPool::new(connector, health, in_flight, &self.settings));
                pools.by_server.insert(server.authority.clone(), Rc::clone(&pool));
                pool
            }
        }
    }

    /// Drops the pools of servers that the backend no longer names.
    fn retain_named(&self, backend: &Backend, pools: &mut BackendPools) {
        if pools.by_server.len() == backend.upstreams.len() {
            return;
        }
        let named: HashSet<&str> = backend.upstreams.iter().map(|server| server.authority.as_str()).collect();
        pools.by_server.retain(|authority, _| named.contains(authority.as_str()));
        self.has_dropped.set(true);
    }

    /// Drops the pools and queues of backends that a snapshot no longer has.
    pub(crate) fn retain_backends(&self, snapshot: &PolicySnapshot) {
        self.settings.health.end_start();
        let mut backends = self.backends.borrow_mut();
        if backends.len() == snapshot.backends.len() {
            return; // each backend of the snapshot has an entry
        }
        let ids: HashSet<&Name> = snapshot.backends.iter().map(|backend| &backend.id).collect();
        backends.retain(|backend, _| ids.contains(backend));
        self.has_dropped.set(true);
    }

    /// Closes connections that exceeded the idle timeout, and forgets the health of servers that were dropped. The
    /// worker's tick calls this.
    pub(crate) fn sweep(&self) {
        if self.has_dropped.take() {
            self.settings.health.forget_unused();
        }
        self.settings.kept_pools.sweep();
        for pools in self.backends.borrow().values() {
            pools.queue.wake_first(); // a server may be healthy again or have another limit
        }
    }
}
