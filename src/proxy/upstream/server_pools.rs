//! The connection pools and wait queues of one worker, and the settings that the configuration gives each server.
//!
//! Guarantees:
//! - Pools and queues outlive configurations.
//! - A server that a reload keeps also keeps its connections, its number of requests in flight, and its queue.
//! - A server that a reload removes is dropped.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::model::Name;
use crate::policy::{Backend, PolicySnapshot, UpstreamServer};

use super::backend_servers::{BackendServers, PooledServer};
use super::endpoint::dns::DnsResolver;
use super::endpoint::outlier_ejection::ServerKey;
use super::load_balancing::{HashKey, LoadBalancer};
use super::pool::ConnectionPool;
use super::pool::settings::PoolSettings;
use super::pool::wait_queue::{ServerInFlight, WaitQueue};
use super::retry_budget::RetryBudget;
use super::transport::connector::Connector;

/// All pools of one worker. They outlive configurations.
pub(crate) struct WorkerPools {
    by_server: RefCell<HashMap<ServerKey, Rc<ConnectionPool>>>,
    queues: RefCell<HashMap<Name, Rc<WaitQueue>>>,
    settings: PoolSettings,
    resolver: Rc<DnsResolver>,
}

impl WorkerPools {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        Self { by_server: RefCell::default(), queues: RefCell::default(), settings, resolver: Rc::default() }
    }

    /// The servers of a backend. A pool that would be the same is reused.
    pub(crate) fn servers_of(&self, backend: &Arc<Backend>) -> BackendServers {
        let queue = self.queue_for(&backend.id);
        let servers = backend.upstreams.iter();
        let weights = servers.clone().map(|server| u64::from(server.weight));
        BackendServers {
            servers: servers.map(|server| self.pooled_server(backend, server, &queue)).collect(),
            balancer: LoadBalancer::new(backend.balance.clone(), weights.collect()),
            connect_timeout: backend.timeouts.connect,
            retry_budget: backend.retries.as_ref().map(RetryBudget::new),
            queue_limits: (self.settings.worker_share.rounded_up_share(backend.queue.length), backend.queue.timeout),
            wait_queue: queue,
            policy: Arc::clone(backend),
        }
    }

    fn queue_for(&self, backend: &Name) -> Rc<WaitQueue> {
        let mut lines = self.queues.borrow_mut();
        let queue = lines.entry(backend.clone());
        Rc::clone(queue.or_insert_with(|| Rc::new(WaitQueue::new(self.settings.health.queue_stats(backend)))))
    }

    fn pooled_server(&self, backend: &Backend, server: &UpstreamServer, queue: &Rc<WaitQueue>) -> PooledServer {
        PooledServer {
            pool: self.pool_for(backend, server, queue),
            requests_max: server.max_requests.map_or(usize::MAX, |max| self.settings.worker_share.exact_share(max)),
            slow_start: backend.slow_start,
            server_hash: HashKey::from_bytes(server.authority.as_bytes()).server_hash(),
        }
    }

    fn pool_for(&self, backend: &Backend, server: &UpstreamServer, queue: &Rc<WaitQueue>) -> Rc<ConnectionPool> {
        let tls = self.settings.tls.load().get(&backend.id).cloned();
        let connector = Connector::new(backend, server, tls, (&self.resolver, &self.settings.in_flight));
        let key = (backend.id.clone(), server.authority.clone());
        let mut by_server = self.by_server.borrow_mut();
        match by_server.get(&key) {
            Some(pool) if pool.connects_to(&connector) => Rc::clone(pool),
            other => {
                let in_flight = other
                    .map_or_else(|| Rc::new(ServerInFlight::new(Rc::clone(queue))), |pool| Rc::clone(&pool.in_flight));
                let health = self.settings.health.server_health(&backend.id, server);
                let pool = Rc::new(ConnectionPool::new(connector, health, in_flight, &self.settings));
                by_server.insert(key, Rc::clone(&pool));
                pool
            }
        }
    }

    /// Drops the pools of servers that a snapshot no longer names, which closes their idle connections.
    pub(crate) fn retain_servers(&self, snapshot: &PolicySnapshot) {
        let backends = snapshot.backends.iter();
        let ids: HashSet<&Name> = backends.clone().map(|backend| &backend.id).collect();
        let servers: HashSet<(&Name, &str)> = backends
            .flat_map(|backend| backend.upstreams.iter().map(|server| (&backend.id, server.authority.as_str())))
            .collect();
        self.by_server.borrow_mut().retain(|(backend, authority), _| servers.contains(&(backend, authority.as_str())));
        self.queues.borrow_mut().retain(|backend, _| ids.contains(backend));
        self.settings.health.forget_unused();
    }

    /// Closes connections that exceeded the idle timeout. The worker's tick calls this.
    pub(crate) fn sweep(&self) {
        for pool in self.by_server.borrow().values() {
            pool.sweep();
        }
        for queue in self.queues.borrow().values() {
            // A server may be healthy again or have another limit.
            queue.wake_first();
        }
    }
}
