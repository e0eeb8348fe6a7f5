//! The servers of one backend: selection by load balancing, and the wait for a server with room.
//!
//! Guarantees: a selected server comes with the permit that counts the request in flight.
//!
//! Leaves to others: sending (`upstream`, `resend`), keys and cookies of sessions (`sessions`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::policy::Backend;

use super::attempt_state::AttemptState;
use super::load_balancing::server_set::TriedServers;
use super::load_balancing::{self, HashKey, LoadBalancer, Selection};
use super::pool::send_error::SendError;
use super::pool::wait_queue::WaitQueue;
use super::pool::{ConnectionPool, RequestPermit};
use super::retry_budget::RetryBudget;

/// The number of servers of a backend that one request is offered to. After that the backend is unreachable.
pub(crate) const SERVERS_MAX: usize = 3;

/// The servers of one backend as one worker uses them: load balancer, pools, wait queue and retry budget.
pub(crate) struct BackendServers {
    /// The configuration of the backend.
    pub(crate) policy: Arc<Backend>,
    pub(crate) balancer: LoadBalancer,
    pub(crate) servers: Vec<PooledServer>,
    pub(crate) connect_timeout: Duration,
    pub(crate) wait_queue: Rc<WaitQueue>,
    /// The maximum length of the wait queue, and the maximum time a request waits in it.
    pub(crate) queue_limits: (usize, Duration),
    /// The budget for retries, if the backend allows retries.
    pub(crate) retry_budget: Option<RetryBudget>,
}

/// One server as the load balancer sees it.
pub(crate) struct PooledServer {
    pub(crate) pool: Rc<ConnectionPool>,
    /// The maximum of this worker's requests in flight at the server.
    pub(crate) requests_max: usize,
    pub(crate) slow_start: Option<Duration>,
    pub(crate) server_hash: u64,
    /// Its number in the entries of persistent cookies. `None` without persistent sessions, and with a weight of 0.
    pub(crate) session_number: Option<u64>,
}

/// The server that a request is offered to, the permit for that server, and all servers that were tried.
pub(crate) struct SelectedServer {
    pub(crate) pool: Rc<ConnectionPool>,
    pub(crate) permit: RequestPermit,
    pub(crate) tried: TriedServers,
}

/// Why no server was selected for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoServer {
    /// All healthy servers have their maximum of requests in flight; the request may wait in the queue.
    AllFull,
    /// All servers were tried.
    NoneLeft,
}

impl load_balancing::BalancedServer for PooledServer {
    fn is_healthy(&self) -> bool {
        self.pool.health.is_healthy()
    }

    fn has_room(&self) -> bool {
        self.pool.in_flight.in_flight() < self.requests_max
    }

    fn in_flight(&self) -> u64 {
        self.pool.health.stats.requests.get()
    }

    fn slow_start_weight(&self) -> u64 {
        self.slow_start.map_or(load_balancing::FULL_WEIGHT, |time| self.pool.health.slow_start_weight(time))
    }

    fn server_hash(&self) -> u64 {
        self.server_hash
    }
}

impl BackendServers {
    pub(crate) fn position_of(&self, pool: &Rc<ConnectionPool>) -> Option<usize> {
        self.servers.iter().position(|server| Rc::ptr_eq(&server.pool, pool))
    }

    /// Waits in the queue until a server has room.
    pub(crate) async fn wait_in_queue(
        &self,
        attempt: &AttemptState<'_>,
    ) -> Result<Result<SelectedServer, NoServer>, SendError> {
        let (length, timeout) = self.queue_limits;
        let Some(waiting) = self.wait_queue.join(length) else {
            self.wait_queue.stats.full.increment();
            return Err(SendError::Busy);
        };
        let end = Instant::now() + timeout;
        let deadline = attempt.deadline.not_after.map_or(end, |not_after| not_after.min(end));
        while timeout_at(deadline, waiting.wait_until_woken()).await.is_ok() {
            if !waiting.is_first() {
                continue;
            }
            match self.select_server(attempt.hash_key, attempt.tried) {
                Err(NoServer::AllFull) => {}
                chosen => return Ok(chosen),
            }
        }
        self.wait_queue.stats.timeout.increment();
        Err(if deadline < end { SendError::Timeout } else { SendError::Busy })
    }

    /// Selects the next server and takes a permit for it.
    pub(crate) fn select_server(
        &self,
        key: Option<HashKey>,
        mut tried: TriedServers,
    ) -> Result<SelectedServer, NoServer> {
        match self.balancer.select(&self.servers, key, tried) {
            Selection::Server(position) => {
                tried.add(position);
                let pool = &self.servers[position].pool;
                Ok(SelectedServer { pool: Rc::clone(pool), permit: pool.acquire_permit(), tried })
            }
            Selection::AllFull => Err(NoServer::AllFull),
            Selection::NoneLeft => Err(NoServer::NoneLeft),
        }
    }
}
