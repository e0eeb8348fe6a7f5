//! The way to the subsystems: per worker and server a pool of kept connections, a choice among servers, and their health.
//!
//! Guarantees: a request is sent once. It is offered again only while nothing of it was sent, to at most [`SERVERS_MAX`]
//! servers; a connection that had been closed while it was kept does not count. A connection is kept only after both bodies
//! ended cleanly.

mod balance;
mod checks;
mod connect;
mod h1;
mod h2;
mod health;
mod names;
mod pool;
mod probe;
mod protocol;
mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::identity::SubsystemTls;
use crate::model::Name;
use crate::policy::{Snapshot, Subsystem, Upstream};

use super::alarms::Alarms;
use super::progress::Progress;

use balance::{Balancer, Tried};
pub use checks::Checks;
use connect::Way;
pub(super) use h1::{Framing, Outgoing as Http1Request, put_field};
pub use health::UpstreamHealth;
use names::Names;
pub(super) use pool::Lease;
use pool::{Attempt, Place, Pool};
use protocol::Exchange;
pub(super) use protocol::{AnswerBody, Answered, Outgoing};
pub(super) use stream::Stream;

/// How many servers of a subsystem one request is offered to before it is unreachable.
const SERVERS_MAX: usize = 3;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Broken {
    /// The server closed before its answer had ended.
    #[error("the connection was closed early")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The answer is not what RFC 9112 allows.
    #[error("the answer cannot be read: {0}")]
    Framing(&'static str),
    /// The HTTP/2 stream, or its session, failed.
    #[error(transparent)]
    Http2(hyper::Error),
    /// The request's own body broke off.
    #[error("the request broke off: {0}")]
    Request(io::Error),
}

/// A request at its beginning.
pub(super) enum Begun {
    /// On its way.
    Sent(Lease, Exchange),
    /// No connection was kept; of which server, unless there is none.
    Unsent(Outgoing, Option<Choice>),
}

/// The server a request is offered to, its place there, and all it was offered to.
pub(super) struct Choice {
    pool: Rc<Pool>,
    place: Place,
    tried: Tried,
}

/// An answer's head, and the connection its body comes on.
pub(super) struct Sent {
    pub(super) answer: Answered,
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
    Failed(#[from] Broken),
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
    pub(super) alarms: &'a Alarms,
    pub(super) response: Duration,
    /// In any case until then.
    pub(super) until: Option<Instant>,
    pub(super) progress: &'a Progress,
}

/// The servers of one subsystem, as one worker reaches them.
pub(super) struct Upstreams {
    balancer: Balancer,
    pools: Vec<Rc<Pool>>,
    connect: Duration,
}

impl Upstreams {
    /// Sends a request at once if a connection is kept: the everyday case, done before anything waits. `department` steers
    /// consistent hashing.
    pub(super) fn begin(&self, request: Outgoing, department: u32) -> Begun {
        let Some(choice) = self.choose(department, Tried::default()) else { return Begun::Unsent(request, None) };
        let Some(link) = choice.pool.kept() else { return Begun::Unsent(request, Some(choice)) };
        match Exchange::begin(link, request) {
            Ok(exchange) => Begun::Sent(Lease::new(choice.pool, choice.place), exchange),
            Err(request) => Begun::Unsent(*request, None),
        }
    }

    /// Waits for the answer to what was begun, on another connection or from another server if nothing was sent.
    pub(super) async fn finish(
        &self,
        begun: Begun,
        department: u32,
        patience: Patience<'_>,
    ) -> Result<Sent, SendError> {
        let (request, choice) = match begun {
            Begun::Unsent(request, choice) => (request, choice),
            Begun::Sent(lease, exchange) => match lease.wait(exchange, &patience).await {
                Attempt::Sent(sent) => return Ok(sent),
                Attempt::Failed(error) => return Err(error),
                // The connection had been closed while it was kept.
                Attempt::Unsent(request, _) => (request, self.choose(department, Tried::default())),
            },
        };
        // Rare, and large: boxed, so that the everyday future stays small enough to be moved cheaply.
        Box::pin(self.send(request, choice, department, &patience)).await
    }

    async fn send(
        &self,
        mut request: Outgoing,
        mut choice: Option<Choice>,
        department: u32,
        patience: &Patience<'_>,
    ) -> Result<Sent, SendError> {
        let mut why = String::from("no server is configured");
        for _ in 0..SERVERS_MAX {
            let Some(Choice { pool, place, tried }) = choice else { break };
            match pool.send(request, place, self.connect, patience).await {
                Attempt::Sent(sent) => return Ok(sent),
                Attempt::Failed(error) => return Err(error),
                Attempt::Unsent(unsent, because) => (request, why) = (unsent, because),
            }
            choice = self.choose(department, tried);
        }
        Err(SendError::Unreachable(why))
    }

    /// A place at the next server.
    fn choose(&self, department: u32, mut tried: Tried) -> Option<Choice> {
        let pool = self.balancer.pick(&self.pools, department, &mut tried)?;
        Some(Choice { pool: Rc::clone(pool), place: pool.take_place(), tried })
    }
}

/// All pools of one worker; they outlive configurations.
pub(super) struct Pools {
    by_server: RefCell<HashMap<ServerKey, Rc<Pool>>>,
    settings: PoolSettings,
    names: Rc<Names>,
}

/// Subsystem and authority.
type ServerKey = (Name, String);

/// What all pools of a gateway share.
#[derive(Clone)]
pub(super) struct PoolSettings {
    /// Idle connections kept per server.
    pub(super) idle_max: usize,
    /// How long an idle connection is kept.
    pub(super) idle_time: Duration,
    /// Who is well.
    pub(super) health: Arc<UpstreamHealth>,
    /// How subsystems are met over TLS.
    pub(super) tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
}

impl Pools {
    pub(super) fn new(settings: PoolSettings) -> Self {
        Self { by_server: RefCell::default(), settings, names: Rc::default() }
    }

    /// The servers of a subsystem; pools that would be the same are used again.
    pub(super) fn upstreams_of(&self, subsystem: &Subsystem) -> Upstreams {
        Upstreams {
            pools: subsystem.upstreams.iter().map(|server| self.pool(subsystem, server)).collect(),
            balancer: Balancer::new(subsystem.balance),
            connect: subsystem.timeouts.connect,
        }
    }

    fn pool(&self, subsystem: &Subsystem, server: &Upstream) -> Rc<Pool> {
        let tls = self.settings.tls.load().get(&subsystem.id).cloned();
        let way = Way::new(subsystem, server, tls, &self.names);
        let key = (subsystem.id.clone(), server.authority.clone());
        let mut by_server = self.by_server.borrow_mut();
        match by_server.get(&key) {
            Some(pool) if pool.goes(&way) => Rc::clone(pool),
            _ => {
                let health = self.settings.health.of(&subsystem.id, server);
                let pool = Rc::new(Pool::new(way, health, &self.settings));
                by_server.insert(key, Rc::clone(&pool));
                pool
            }
        }
    }

    /// Closes the idle connections to servers that a snapshot no longer names.
    pub(super) fn forget_all_but(&self, snapshot: &Snapshot) {
        let named = |(subsystem, authority): &ServerKey| {
            let mut same = snapshot.subsystems.iter().filter(|known| known.id == *subsystem);
            same.any(|known| known.upstreams.iter().any(|server| server.authority == *authority))
        };
        self.by_server.borrow_mut().retain(|server, _| named(server));
        self.settings.health.forget_unused();
    }

    /// Closes connections that have been idle for too long; called from the worker's tick.
    pub(super) fn sweep(&self) {
        for pool in self.by_server.borrow().values() {
            pool.sweep();
        }
    }
}
