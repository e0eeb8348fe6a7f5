//! The way to the subsystems: per worker and server a pool of kept connections, a choice among servers, and their health.
//!
//! Guarantees: a request is sent once, unless its subsystem allows retries (see [`retry`]), or it is known that sending it
//! again is harmless: its server has processed nothing of it (RFC 9113 section 8.7), or it is safe, has no body, and a kept
//! connection ended before one byte of an answer (RFC 9110 section 9.2.2). It is sent again for these reasons at most
//! [`again::AGAIN_MAX`] times, for the latter once. It is offered again while nothing of it was sent, to at most [`SERVERS_MAX`]
//! servers; a connection that had been closed while it was kept does not count. A connection is kept only after both bodies
//! ended cleanly.

mod again;
mod balance;
mod checks;
mod connect;
mod h1;
mod h2;
mod health;
mod loan;
mod names;
mod opening;
mod pool;
mod probe;
mod protocol;
mod queue;
mod retry;
mod servers;
mod set;
mod stream;
mod stream_answer;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::time::{Instant, timeout_at};

use crate::model::Name;
use crate::policy::{Balance, HashBy};

use super::alarms::Alarms;
use super::interim::Interim;
use super::message_body::BodyError;
use super::progress::{BodyFault, Progress};

use again::Leave;
pub(super) use balance::Key;
use balance::{Balancer, Chosen};
pub use checks::Checks;
pub(super) use h1::{Framing, put_field};
pub use health::UpstreamHealth;
pub(super) use pool::Lease;
use pool::{Attempt, Links, Place, Pool, Why};
use protocol::Exchange;
pub(super) use protocol::{AnswerBody, Answered, Outgoing, Written};
use queue::Line;
use retry::{Budget, Spare};
use servers::Server;
pub(super) use servers::{PoolSettings, Pools, Share};
use set::Set;
pub(super) use stream::Stream;

/// How many servers of a subsystem one request is offered to before it is unreachable.
const SERVERS_MAX: usize = 3;

/// How many interim answers (1xx) one request may have.
const INTERIM_MAX: u32 = 16;

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
    #[error("{0}")]
    Http2(::h2::Error),
    /// The request's own body broke off.
    #[error("the request broke off: {0}")]
    Request(io::Error),
}

impl From<BodyError> for Broken {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Hyper(error) => Self::Connection(io::Error::other(error)), // of a caller: no answer comes by hyper
            BodyError::Stream(error) => Self::Http2(error),
            BodyError::Stopped => Self::Connection(io::Error::other("its stream was reset before its end")),
            BodyError::Longer => Self::Framing("it is longer than its head says"),
        }
    }
}

impl Broken {
    /// Whether the request broke off, and not its connection.
    fn is_of_request(&self) -> bool {
        matches!(self, Self::Request(_))
    }

    /// Whether the server has broken HTTP, as opposed to off.
    fn is_malformed(&self) -> bool {
        match self {
            Self::Framing(_) => true,
            Self::Http2(error) => h2::is_malformed(error),
            Self::Closed | Self::Connection(_) | Self::Request(_) => false,
        }
    }
}

/// A request at its beginning. Its parts are boxed: every future that waits for the response holds a copy, and a future beyond
/// 3 KiB costs 800 instructions more to allocate.
pub(super) enum Begun {
    /// On its way.
    Sent(Lease, Box<Exchange>),
    /// No connection was kept, or no server has a place.
    Unsent(Box<Outgoing>, Result<Choice, NoPlace>),
}

/// The server a request is offered to, its place there, and all it was offered to.
pub(super) struct Choice {
    pool: Rc<Pool>,
    place: Place,
    tried: Set,
}

/// Why a request has no place at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All that are well carry as many as they may; one may be waited for.
    Full,
    /// There is no other server.
    Nobody,
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
    /// All servers that are well carry as many as they may, and none gave a place up in time; nothing was sent.
    #[error("all servers of the subsystem carry as many requests as they may")]
    Busy,
    /// It was sent, and its server said each time that it had processed nothing of it.
    #[error("the subsystem refused the request before it processed anything of it: {0}")]
    Refused(String),
    /// It broke after something was sent.
    #[error("the subsystem broke off: {0}")]
    Failed(#[from] Broken),
    /// It did not answer in time.
    #[error("the subsystem did not answer in time")]
    Timeout,
}

impl SendError {
    /// What the request itself broke of, if it did.
    pub(super) fn fault_of_request(&self) -> Option<BodyFault> {
        matches!(self, Self::Failed(Broken::Request(_))).then_some(BodyFault::Broken)
    }

    /// The same after another attempt that may have been processed.
    fn after_another(self) -> Self {
        match self {
            Self::Unreachable(why) | Self::Refused(why) => Broken::Connection(io::Error::other(why)).into(),
            other => other,
        }
    }

    /// What the caller is told: no address and no cause, which are the log's.
    pub(super) fn for_callers(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "no connection to the subsystem could be made; nothing was sent to it",
            Self::Busy => "the subsystem carries as many commands as it may; nothing was sent to it",
            Self::Refused(_) => "the subsystem refused the command; nothing of it was processed",
            Self::Failed(broken) if broken.is_malformed() => "the subsystem's answer is not valid HTTP",
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
    /// Takes interim answers as they come, if the caller gets them.
    pub(super) interim: Option<&'a dyn Fn(Interim)>,
}

/// The servers of one subsystem, as one worker reaches them.
pub(super) struct Upstreams {
    balancer: Balancer,
    servers: Vec<Server>,
    connect: Duration,
    line: Rc<Line>,
    /// How many may wait in the line, and how long.
    queue: (usize, Duration),
    /// What may be spent on retries, if anything.
    budget: Option<Budget>,
}

/// A command on its way among the servers.
struct Course<'a> {
    key: Option<Key>,
    tried: Set,
    patience: Patience<'a>,
    leave: Leave,
}

impl<'a> Course<'a> {
    fn new(key: Option<Key>, patience: Patience<'a>) -> Self {
        Self { key, tried: Set::default(), patience, leave: Leave::default() }
    }
}

impl Upstreams {
    /// What keeps a request with its server, if anything does.
    pub(super) fn key(&self, headers: &HeaderMap, department: &Name) -> Option<Key> {
        match self.balancer.balance() {
            Balance::LeastRequest | Balance::RoundRobin => None,
            Balance::Hash(HashBy::Department) => Some(Key::of(department.as_str().as_bytes())),
            Balance::Hash(HashBy::Header(name)) => headers.get(name).map(|value| Key::of(value.as_bytes())),
        }
    }

    /// A copy of a request that is sent again if its first attempt fails; none, if it may not be.
    pub(super) fn spare(&self, request: &Outgoing, method: &Method) -> Option<Spare> {
        self.budget.as_ref().and_then(|_| Spare::of(method, request))
    }

    /// Sends a request at once if a connection is kept: the everyday case, done before anything waits.
    pub(super) fn begin(&self, request: Outgoing, key: Option<Key>) -> Begun {
        let first = if self.line.is_empty() { self.choose(key, Set::default()) } else { Err(NoPlace::Full) };
        let Ok(choice) = first else { return Begun::Unsent(Box::new(request), first) };
        let Some(link) = choice.pool.kept(Links::Any) else { return Begun::Unsent(Box::new(request), Ok(choice)) };
        match Exchange::begin(link, request) {
            Ok(exchange) => Begun::Sent(Lease::new(choice.pool, choice.place), Box::new(exchange)),
            Err(request) => Begun::Unsent(request, Err(NoPlace::Nobody)),
        }
    }

    /// Waits for the answer to what was begun, on another connection or from another server if nothing was sent; or to
    /// another attempt, if there is a spare and the budget allows it.
    pub(super) async fn finish(
        &self,
        begun: Begun,
        (key, spare): (Option<Key>, Option<Spare>),
        patience: Patience<'_>,
    ) -> Result<Sent, SendError> {
        let mut course = Course::new(key, patience);
        let came = self.first(begun, &mut course).await;
        if let Some(budget) = &self.budget {
            budget.save();
            if let Some(spare) = spare.filter(|_| budget.wants(&came, &course.patience)) {
                return Box::pin(self.again(came, &spare, budget, course)).await;
            }
        }
        came
    }

    /// Waits for the answer to a copy. It is no command: it earns no retries, which callers pay for, and spends none.
    pub(super) async fn finish_copy(
        &self,
        begun: Begun,
        key: Option<Key>,
        patience: Patience<'_>,
    ) -> Result<Sent, SendError> {
        self.first(begun, &mut Course::new(key, patience)).await
    }

    async fn first(&self, begun: Begun, course: &mut Course<'_>) -> Result<Sent, SendError> {
        // What follows the everyday case is rare, and large: boxed, so that the everyday future stays small.
        let rest: Pin<Box<dyn Future<Output = Result<Sent, SendError>> + '_>> = match begun {
            Begun::Unsent(request, choice) => Box::pin(self.send(*request, choice, course)),
            Begun::Sent(lease, exchange) => {
                let position = self.budget.as_ref().and_then(|_| self.position_of(lease.pool())); // nobody else asks
                match lease.wait(exchange, &course.patience).await {
                    Attempt::Sent(sent) => return Ok(sent),
                    Attempt::Failed(error) => {
                        position.into_iter().for_each(|position| course.tried.add(position));
                        return Err(error);
                    }
                    // The connection had been closed while it was kept. The place was its own a moment ago: no need to queue.
                    Attempt::Unsent(request, _) => {
                        course.patience.progress.sent.set(false);
                        Box::pin(self.send(request, self.choose(course.key, Set::default()), course))
                    }
                    Attempt::Again(again) => {
                        let is_lost = matches!(again.why, Why::Lost(_));
                        course.patience.progress.sent.set(is_lost); // it was the first attempt
                        Box::pin(self.send_again(again, course))
                    }
                }
            }
        };
        rest.await
    }

    async fn send(
        &self,
        mut request: Outgoing,
        mut choice: Result<Choice, NoPlace>,
        course: &mut Course<'_>,
    ) -> Result<Sent, SendError> {
        let mut why = String::from("no server is configured");
        for _ in 0..SERVERS_MAX {
            let chosen = match choice {
                Err(NoPlace::Full) => self.queue(course).await?,
                chosen => chosen,
            };
            let Ok(Choice { pool, place, tried }) = chosen else { break };
            course.tried = tried;
            match pool.send(request, (place, Links::Any), self.connect, &course.patience).await {
                Attempt::Sent(sent) => return Ok(sent),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(again) => return Box::pin(self.send_again(again, course)).await,
                Attempt::Unsent(unsent, because) => (request, why) = (unsent, because),
            }
            choice = self.choose(course.key, course.tried);
        }
        Err(SendError::Unreachable(why))
    }

    /// Makes further attempts: at other servers as long as there are any, never by waiting for a place.
    async fn again(
        &self,
        mut came: Result<Sent, SendError>,
        spare: &Spare,
        budget: &Budget,
        mut course: Course<'_>,
    ) -> Result<Sent, SendError> {
        for _ in 0..budget.attempts() {
            if !budget.wants(&came, &course.patience) {
                break;
            }
            if let Ok(sent) = &came {
                self.position_of(sent.lease.pool()).into_iter().for_each(|position| course.tried.add(position));
            }
            let other = self.choose(course.key, course.tried).or_else(|why| match why {
                NoPlace::Nobody => self.choose(course.key, Set::default()),
                NoPlace::Full => Err(why),
            });
            let Ok(choice) = other else { break };
            if !budget.spend() {
                break;
            }
            if let Ok(sent) = came {
                sent.lease.note_server_error(); // the last one is noted by whoever answers
            }
            course.tried = choice.tried;
            choice.pool.health.stats.retries.one();
            let place = (choice.place, Links::Any);
            came = match choice.pool.send(spare.again(), place, self.connect, &course.patience).await {
                Attempt::Sent(sent) => Ok(sent),
                Attempt::Failed(error) => Err(error),
                Attempt::Again(again) => self.send_again(again, &mut course).await.map_err(SendError::after_another),
                // Not `Unreachable`: something was sent before.
                Attempt::Unsent(_, why) => Err(SendError::Unreachable(why).after_another()),
            };
        }
        came
    }

    fn position_of(&self, pool: &Rc<Pool>) -> Option<usize> {
        self.servers.iter().position(|server| Rc::ptr_eq(&server.pool, pool))
    }

    /// Waits in the line for a place.
    async fn queue(&self, course: &Course<'_>) -> Result<Result<Choice, NoPlace>, SendError> {
        let (length, timeout) = self.queue;
        let Some(waiting) = self.line.join(length) else {
            self.line.stats.full.one();
            return Err(SendError::Busy);
        };
        let end = Instant::now() + timeout;
        let deadline = course.patience.until.map_or(end, |until| until.min(end));
        while timeout_at(deadline, waiting.woken()).await.is_ok() {
            if !waiting.is_first() {
                continue;
            }
            match self.choose(course.key, course.tried) {
                Err(NoPlace::Full) => {}
                chosen => return Ok(chosen),
            }
        }
        self.line.stats.timeout.one();
        Err(if deadline < end { SendError::Timeout } else { SendError::Busy })
    }

    /// A place at the next server.
    fn choose(&self, key: Option<Key>, mut tried: Set) -> Result<Choice, NoPlace> {
        match self.balancer.choose(&self.servers, key, tried) {
            Chosen::Server(position) => {
                tried.add(position);
                let pool = &self.servers[position].pool;
                Ok(Choice { pool: Rc::clone(pool), place: pool.take_place(), tried })
            }
            Chosen::Full => Err(NoPlace::Full),
            Chosen::Nobody => Err(NoPlace::Nobody),
        }
    }
}

/// Subsystem and authority.
type ServerKey = (Name, String);
