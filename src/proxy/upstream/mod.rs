//! The way to the subsystems: per worker and server a pool of kept connections, a choice among servers, and their health.
//!
//! Guarantees: a request is sent once. It is offered again only while nothing of it was sent (hyper gives such a request
//! back), to at most [`SERVERS_MAX`] servers. A connection is kept only after both bodies ended cleanly.

mod balance;
mod connect;
mod health;
mod pool;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::policy::{Snapshot, Subsystem};

use super::progress::Progress;
use super::request_body::RequestBody;

use balance::{Balancer, Tried};
pub use health::UpstreamHealth;
pub(super) use pool::Lease;
use pool::{Attempt, Pool};

/// How many servers of a subsystem one request is offered to before it is unreachable.
const SERVERS_MAX: usize = 3;

/// A request that is sent once: taken by the connection that sends it, back again if it sent nothing. Lent down the calls
/// instead of handed, so that it is not moved at each.
pub(super) type Outgoing = Option<Request<RequestBody>>;

/// An answer's head, and the connection its body comes on.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No connection; nothing was sent.
    #[error("no connection to the subsystem: {0}")]
    Unreachable(String),
    /// It broke after something was sent.
    #[error("the subsystem broke off: {0}")]
    Failed(hyper::Error),
    /// It did not answer in time.
    #[error("the subsystem did not answer in time")]
    Timeout,
}

impl SendError {
    /// What the caller is told: no address and no cause, which are the log's.
    pub(super) fn for_callers(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "no connection to the subsystem could be made; nothing was sent to it",
            Self::Failed(_) => "the subsystem broke off before it had answered",
            Self::Timeout => "the subsystem did not answer in time",
        }
    }
}

/// How long to wait for an answer: `response` beyond the last progress of the request body.
pub(super) struct Patience<'a> {
    pub(super) response: Duration,
    pub(super) progress: &'a Progress,
}

/// The servers of one subsystem, as one worker reaches them.
pub(super) struct Upstreams {
    balancer: Balancer,
    pools: Vec<Rc<Pool>>,
    connect: Duration,
}

impl Upstreams {
    /// Sends what is outgoing to one of the servers. `department` steers consistent hashing.
    pub(super) async fn send(
        &self,
        outgoing: &mut Outgoing,
        department: u32,
        patience: Patience<'_>,
    ) -> Result<Box<Sent>, SendError> {
        let mut tried = Tried::default();
        let mut why = String::from("no server is configured");
        for _ in 0..SERVERS_MAX {
            let Some(pool) = self.balancer.pick(&self.pools, department, &mut tried) else { break };
            match pool.send(outgoing, self.connect, &patience).await {
                Attempt::Sent(sent) => return Ok(sent),
                Attempt::Failed(error) => return Err(error),
                Attempt::Unsent(because) => why = because,
            }
        }
        Err(SendError::Unreachable(why))
    }
}

/// All pools of one worker; they outlive configurations.
pub(super) struct Pools {
    by_server: RefCell<HashMap<ServerKey, Rc<Pool>>>,
    settings: PoolSettings,
}

/// Subsystem and address.
type ServerKey = (String, String);

/// What all pools of a gateway share.
#[derive(Clone)]
pub(super) struct PoolSettings {
    /// Idle connections kept per server.
    pub(super) idle_max: usize,
    /// How long an idle connection is kept.
    pub(super) idle_time: Duration,
    /// Who is well.
    pub(super) health: Arc<UpstreamHealth>,
}

impl Pools {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self { by_server: RefCell::default(), settings }
    }

    /// The servers of a subsystem; pools that exist are used again.
    pub(super) fn upstreams_of(&self, subsystem: &Subsystem) -> Upstreams {
        let mut by_server = self.by_server.borrow_mut();
        let pools = subsystem.upstreams.iter().map(|server| {
            let pool = by_server.entry((subsystem.id.to_string(), server.address.clone()));
            Rc::clone(pool.or_insert_with(|| {
                let health = self.settings.health.of(&subsystem.id, server);
                Rc::new(Pool::new(server, health, &self.settings))
            }))
        });
        Upstreams {
            pools: pools.collect(),
            balancer: Balancer::new(subsystem.balance),
            connect: subsystem.timeouts.connect,
        }
    }

    /// Closes the idle connections to servers that a snapshot no longer names.
    pub(super) fn forget_all_but(&self, snapshot: &Snapshot) {
        let named: HashSet<ServerKey> = snapshot
            .subsystems
            .iter()
            .flat_map(|subsystem| {
                subsystem.upstreams.iter().map(|server| (subsystem.id.to_string(), server.address.clone()))
            })
            .collect();
        self.by_server.borrow_mut().retain(|server, _| named.contains(server));
        self.settings.health.forget_unused();
    }

    /// Closes connections that have been idle for too long; called from the worker's tick.
    pub(super) fn sweep(&self) {
        for pool in self.by_server.borrow().values() {
            pool.sweep();
        }
    }
}
