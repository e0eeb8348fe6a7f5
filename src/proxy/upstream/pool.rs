//! Kept connections to one server, per worker: nothing is shared on the hot path, nothing is locked.
//!
//! The most recently used connection goes first, so that spare ones grow old and are closed before the server closes them. Over
//! HTTP/2 commands that come together share a session, from when it is being opened.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Finished;
use crate::policy::Protocol;

use super::connect::Way;
use super::h1::Wire;
use super::h2::{Session, SessionMark};
use super::health::{Failure, Health};
use super::opening::{Opening, Waiting};
use super::protocol::{AnswerBody, Exchange, Head, Link, Outgoing, Salvage};
use super::queue::Here;
use super::{Broken, Patience, PoolSettings, SendError, Sent};

/// One server's connections.
pub(super) struct Pool {
    way: Way,
    pub(super) health: Arc<Health>,
    pub(super) here: Rc<Here>,
    /// Connections that wait for their next request; HTTP/1.1 only.
    idle: RefCell<Vec<Idle>>,
    /// Connections that carry many requests; HTTP/2 only.
    sessions: RefCell<Vec<Session>>,
    /// Those that are being opened.
    openings: RefCell<Vec<Rc<Opening>>>,
    idle_max: usize,
    idle_time: Duration,
    /// The time of the last sweep: fine enough to tell how long a connection has been idle, and free to read.
    now: Cell<Instant>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
    /// How long it may be idle.
    max: Duration,
}

/// Which connections an attempt may use.
#[derive(Clone, Copy)]
pub(super) enum Links<'a> {
    /// A kept one, or a new one if none is left.
    Any,
    /// Any but sessions that have refused the request.
    Besides(&'a [SessionMark]),
    /// A new one: others may be as old as the one that has just ended.
    New,
}

/// What became of an attempt.
pub(super) enum Attempt {
    /// The server answered.
    Sent(Sent),
    /// Nothing was sent, for this reason; here is the request again.
    Unsent(Outgoing, String),
    /// Something was sent, but the request may be sent again without its subsystem's leave.
    Again(Again),
    /// Something was sent, and no answer came.
    Failed(SendError),
}

/// A request that may be sent again.
pub(super) struct Again {
    /// The request; nothing, if too much of its body was taken.
    pub(super) request: Option<Outgoing>,
    /// The server that it was sent to.
    pub(super) pool: Rc<Pool>,
    pub(super) why: Why,
}

/// Why a request may be sent again.
pub(super) enum Why {
    /// The server has processed nothing of it, as this session says.
    Refused(SessionMark, String),
    /// A kept connection ended before one byte of an answer.
    Lost(Broken),
}

impl Pool {
    pub(super) fn new(way: Way, health: Arc<Health>, here: Rc<Here>, settings: &PoolSettings) -> Self {
        Self {
            way,
            health,
            here,
            idle: RefCell::default(),
            sessions: RefCell::default(),
            openings: RefCell::default(),
            idle_max: settings.idle_max,
            idle_time: settings.idle_time,
            now: Cell::new(Instant::now()),
        }
    }

    /// Whether connections of this pool go this way.
    pub(super) fn goes(&self, way: &Way) -> bool {
        self.way.is_same(way)
    }

    /// A request's place, from the moment the server was chosen.
    pub(super) fn take_place(&self) -> Place {
        Place::take(self)
    }

    /// Sends a request on a kept connection that it may use, or on a new one if none will take it.
    pub(super) async fn send(
        self: &Rc<Self>,
        mut request: Outgoing,
        (mut place, links): (Place, Links<'_>),
        within: Duration,
        patience: &Patience<'_>,
    ) -> Attempt {
        while let Some(link) = self.kept(links) {
            match self.send_on((link, place), request, patience).await {
                Attempt::Unsent(unsent, _) => request = unsent, // it had been closed while it was kept
                ended => return ended,
            }
            place = self.take_place();
        }
        let link = match self.open(within).await {
            Ok(link) => link,
            Err(why) => return Attempt::Unsent(request, why),
        };
        match self.send_on((link, place), request, patience).await {
            Attempt::Unsent(request, why) => {
                self.health.note_failure(Failure::Connect);
                Attempt::Unsent(request, why)
            }
            ended => ended,
        }
    }

    /// Opens a connection, or waits for one that is being opened and can be shared.
    async fn open(self: &Rc<Self>, within: Duration) -> Result<Link, String> {
        match self.way.protocol {
            Protocol::Http1 => self.way.connect(within, &self.health).await.map_err(|why| self.failed_to_connect(&why)),
            Protocol::Http2 => self.opening(within).outcome().await.map(Link::Http2),
        }
    }

    /// A place with what opens a session, which has a task of its own.
    fn opening(self: &Rc<Self>, within: Duration) -> Waiting {
        let joined = self.openings.borrow().iter().find_map(Opening::join);
        joined.unwrap_or_else(|| {
            let (opening, waiting) = Opening::begin();
            self.openings.borrow_mut().push(Rc::clone(&opening));
            tokio::task::spawn_local(Opener { pool: Rc::clone(self), opening }.open(within));
            waiting
        })
    }

    fn failed_to_connect(&self, why: &io::Error) -> String {
        self.health.note_failure(Failure::Connect);
        format!("{}: {why}", self.way.address)
    }

    async fn send_on(
        self: &Rc<Self>,
        (link, place): (Link, Place),
        request: Outgoing,
        patience: &Patience<'_>,
    ) -> Attempt {
        patience.progress.last.set(Instant::now()); // connecting had a patience of its own
        match Exchange::begin(link, request) {
            Ok(exchange) => Lease::new(Rc::clone(self), place).wait(Box::new(exchange), patience).await,
            Err(request) => Attempt::Unsent(*request, "the server speaks another protocol now".to_owned()),
        }
    }

    /// A connection failed after something was sent, or the request broke off.
    fn failed(&self, error: Broken, is_callers: bool) -> Attempt {
        if !is_callers && !error.is_of_request() {
            self.health.note_broken(&error);
        }
        Attempt::Failed(SendError::Failed(error))
    }

    /// A kept connection that is still good, of those that may be used. One on which anything has happened meanwhile is let go.
    pub(super) fn kept(&self, links: Links<'_>) -> Option<Link> {
        let refused = match links {
            Links::New => return None,
            Links::Any => &[],
            Links::Besides(refused) => refused,
        };
        match self.way.protocol {
            Protocol::Http2 => self.kept_session(refused).map(Link::Http2),
            Protocol::Http1 => self.kept_wire().map(Link::Http1),
        }
    }

    fn kept_session(&self, refused: &[SessionMark]) -> Option<Session> {
        let may_be_used = |session: &Session| !refused.iter().any(|mark| mark.is_of(session));
        self.sessions.borrow().iter().find(|session| session.has_room() && may_be_used(session)).cloned()
    }

    fn kept_wire(&self) -> Option<Box<Wire>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let Idle { mut wire, since, max } = idle.pop()?;
            if self.is_fresh(since, max) && wire.is_quiet() {
                return Some(wire);
            }
        }
    }

    /// A new session is for everybody from now on.
    fn share(&self, session: &Session) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < self.idle_max {
            sessions.push(session.clone());
        }
    }

    fn keep(&self, wire: Box<Wire>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max {
            let max = wire.idle_max.map_or(self.idle_time, |max| max.min(self.idle_time));
            idle.push(Idle { wire, since: self.now.get(), max });
        }
    }

    /// Closes what has been idle for too long, and what its server has closed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.now.set(now);
        self.idle.borrow_mut().retain_mut(|idle| self.is_fresh(idle.since, idle.max) && idle.wire.is_quiet());
        let since = now.checked_sub(self.idle_time).unwrap_or(now);
        self.sessions.borrow_mut().retain(|session| session.is_in_use(since));
    }

    fn is_fresh(&self, since: Instant, max: Duration) -> bool {
        self.now.get().saturating_duration_since(since) < max
    }
}

/// Opens a session for all who wait for it.
struct Opener {
    pool: Rc<Pool>,
    opening: Rc<Opening>,
}

impl Opener {
    async fn open(self, within: Duration) {
        let Self { pool, opening } = &self;
        let outcome = match pool.way.connect(within, &pool.health).await {
            Ok(Link::Http2(session)) => Ok(session),
            Ok(Link::Http1(_)) => Err("it was reached over HTTP/1.1".to_owned()), // not on this way
            Err(why) => Err(pool.failed_to_connect(&why)),
        };
        if let Ok(session) = &outcome {
            pool.share(session);
        }
        opening.end(outcome);
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.opening.end(Err("the worker has ended".to_owned())); // unless it has ended otherwise
        self.pool.openings.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.opening));
    }
}

/// One request's hold on one server.
pub(in crate::proxy) struct Lease {
    pool: Rc<Pool>,
    _place: Place,
}

/// One request's place among those a server has in flight, from the moment the server was chosen: a server that is slow to
/// take connections must not look idle.
pub(super) struct Place {
    health: Arc<Health>,
    here: Rc<Here>,
}

impl Place {
    fn take(pool: &Pool) -> Self {
        pool.health.stats.requests.up();
        pool.here.enter();
        Self { health: Arc::clone(&pool.health), here: Rc::clone(&pool.here) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.health.stats.requests.down();
        self.here.leave();
    }
}

impl Lease {
    pub(super) fn new(pool: Rc<Pool>, place: Place) -> Self {
        pool.health.stats.attempts.one();
        Self { pool, _place: place }
    }

    /// Waits for the answer on a connection to this server.
    pub(super) async fn wait(self, mut exchange: Box<Exchange>, patience: &Patience<'_>) -> Attempt {
        let was_sent = patience.progress.sent.replace(true);
        let came = patience.wait(&mut exchange).await;
        // Before the exchange, and the body in it, is taken apart.
        let (has_fault, is_callers) = (patience.progress.fault.get().is_some(), patience.progress.is_callers_doing());
        match came {
            Some(Ok(head)) => match exchange.into_answer(head) {
                Ok(answer) => Attempt::Sent(Sent { answer, lease: self }),
                Err(broken) => self.pool.failed(broken, is_callers),
            },
            Some(Err(broken)) => {
                let salvage = exchange.into_salvage(&broken);
                if matches!(salvage, Salvage::Unsent(_) | Salvage::Refused(..)) {
                    patience.progress.sent.set(was_sent); // nothing of it was processed
                }
                self.end(salvage, broken, (has_fault, is_callers))
            }
            None => {
                if patience.is_the_subsystems_over() {
                    self.fail(Finished::Timeout);
                }
                Attempt::Failed(SendError::Timeout)
            }
        }
    }

    /// Nothing was answered. A request whose own body broke is not sent again.
    fn end(self, salvage: Salvage, broken: Broken, (has_fault, is_callers): (bool, bool)) -> Attempt {
        match salvage {
            _ if broken.is_of_request() => self.pool.failed(broken, is_callers),
            Salvage::Unsent(request) => Attempt::Unsent(request, broken.to_string()),
            _ if has_fault => self.pool.failed(broken, is_callers),
            Salvage::Refused(request, session) => {
                self.pool.health.note_refusal(&broken);
                let why = Why::Refused(session, broken.to_string());
                Attempt::Again(Again { request, pool: self.pool, why })
            }
            Salvage::Lost(request) => {
                self.pool.health.note_lost();
                Attempt::Again(Again { request: Some(request), pool: self.pool, why: Why::Lost(broken) })
            }
            Salvage::Nothing => self.pool.failed(broken, is_callers),
        }
    }

    /// The answer ended cleanly. Its connection is kept if it may carry another request.
    pub(in crate::proxy) fn give_back(self, body: &mut AnswerBody) {
        if let Some(wire) = body.take_reusable() {
            self.pool.keep(wire);
        }
    }

    /// The server failed to answer, or to finish its answer.
    pub(in crate::proxy) fn fail(&self, finished: Finished) {
        self.pool.health.note_failure(match finished {
            Finished::Timeout => Failure::Timeout,
            _ => Failure::Reset,
        });
    }

    /// The answer's body broke in this way, by the server's doing.
    pub(in crate::proxy) fn broke(&self, broken: &Broken) {
        self.pool.health.note_broken(broken);
    }

    /// The server that answers.
    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The server answered 5xx.
    pub(in crate::proxy) fn note_server_error(&self) {
        self.pool.health.note_failure(Failure::ServerError);
    }

    /// The server answered.
    pub(in crate::proxy) fn note_success(&self) {
        self.pool.health.note_success();
    }
}

impl Patience<'_> {
    /// Whether the subsystem has had the time that its configuration gives it. A deadline that a caller sets is no measure of
    /// a server's health.
    fn is_the_subsystems_over(&self) -> bool {
        self.progress.last.get() + self.response <= Instant::now()
    }

    /// Waits as long as the request body makes progress, and `response` beyond; `None` when patience has ended.
    async fn wait(&self, exchange: &mut Exchange) -> Option<Result<Head, Broken>> {
        loop {
            let patient = self.progress.last.get() + self.response;
            let deadline = self.until.map_or(patient, |until| until.min(patient));
            let mut alarm = self.alarms.alarm(deadline);
            let answered = poll_fn(|context| {
                let polled = exchange.poll_head(context);
                if let Some(take) = self.interim.filter(|_| exchange.has_interim()) {
                    exchange.take_interim().into_iter().for_each(take);
                }
                match polled {
                    Poll::Ready(head) => Poll::Ready(Some(head)),
                    Poll::Pending => alarm.poll(context).map(|()| None),
                }
            });
            if let Some(answer) = answered.await {
                return Some(answer);
            }
            if self.until.is_some_and(|until| until <= deadline) {
                return None;
            }
            if self.progress.waiting.get() {
                self.progress.last.set(Instant::now()); // the caller is late, not the subsystem; `bodyIdle` ends that wait
            } else if self.progress.last.get() + self.response <= deadline {
                return None;
            }
        }
    }
}
