//! Kept connections to one server, per worker: nothing is shared on the hot path, nothing is locked.
//!
//! The most recently used connection goes first, so that spare ones grow old and are closed before the server closes them. Over
//! HTTP/2 commands that come together share a session, from when it is being opened.

mod pending_session;
pub(crate) mod response_deadline;
pub(crate) mod send_error;
pub(crate) mod settings;
pub(crate) mod wait_queue;

use super::transport::protocol::UpstreamResponse;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Finished;
use crate::policy::UpstreamProtocol;

use self::pending_session::{PendingSession, SessionWaiter};
use self::response_deadline::ResponseDeadline;
use self::send_error::SendError;
use self::wait_queue::ServerInFlight;
use super::PoolSettings;
use super::endpoint::error::ConnectionError;
use super::endpoint::health::{ServerFailure, ServerHealth};
use super::h1::Http1Connection;
use super::h2::{Http2Session, SessionId};
use super::transport::connector::Connector;
use super::transport::protocol::{
    UnansweredRequest, UpstreamBody, UpstreamConnection, UpstreamExchange, UpstreamRequest,
};

/// One server's connections.
pub(crate) struct ConnectionPool {
    connector: Connector,
    pub(crate) health: Arc<ServerHealth>,
    pub(crate) in_flight: Rc<ServerInFlight>,
    /// Connections that wait for their next request; HTTP/1.1 only.
    idle: RefCell<Vec<IdleConnection>>,
    /// Connections that carry many requests; HTTP/2 only.
    sessions: RefCell<Vec<Http2Session>>,
    /// Those that are being opened.
    pending_sessions: RefCell<Vec<Rc<PendingSession>>>,
    idle_max: usize,
    idle_time: Duration,
    /// The time of the last sweep: fine enough to tell how long a connection has been idle, and free to read.
    last_sweep: Cell<Instant>,
}

struct IdleConnection {
    connection: Box<Http1Connection>,
    since: Instant,
    /// How long it may be idle.
    idle_max: Duration,
}

/// Which connections an attempt may use.
#[derive(Clone, Copy)]
pub(crate) enum AllowedConnections<'a> {
    /// A kept one, or a new one if none is left.
    Any,
    /// Any but sessions that have refused the request.
    Excluding(&'a [SessionId]),
    /// A new one: others may be as old as the one that has just ended.
    NewOnly,
}

/// What became of an attempt.
pub(crate) enum SendAttempt {
    /// The server answered.
    Response(LeasedResponse),
    /// Nothing was sent, for this reason; here is the request again.
    Unsent(UpstreamRequest, String),
    /// Something was sent, but the request may be sent again without its subsystem's leave.
    Resendable(ResendableRequest),
    /// Something was sent, and no answer came.
    Failed(SendError),
}

/// A request that may be sent again.
pub(crate) struct ResendableRequest {
    /// The request; nothing, if too much of its body was taken.
    pub(crate) request: Option<UpstreamRequest>,
    /// The server that it was sent to.
    pub(crate) pool: Rc<ConnectionPool>,
    pub(crate) reason: ResendReason,
}

/// Why a request may be sent again.
pub(crate) enum ResendReason {
    /// The server has processed nothing of it, as this session says.
    Refused(SessionId, String),
    /// A kept connection ended before one byte of an answer.
    StaleConnection(ConnectionError),
}

impl ConnectionPool {
    pub(crate) fn new(
        connector: Connector,
        health: Arc<ServerHealth>,
        in_flight: Rc<ServerInFlight>,
        settings: &PoolSettings,
    ) -> Self {
        Self {
            connector,
            health,
            in_flight,
            idle: RefCell::default(),
            sessions: RefCell::default(),
            pending_sessions: RefCell::default(),
            idle_max: settings.idle_max,
            idle_time: settings.idle_time,
            last_sweep: Cell::new(Instant::now()),
        }
    }

    /// Whether connections of this pool go this way.
    pub(crate) fn connects_to(&self, connector: &Connector) -> bool {
        self.connector.is_same_endpoint(connector)
    }

    /// A request's place, from the moment the server was chosen.
    pub(crate) fn acquire_permit(&self) -> RequestPermit {
        RequestPermit::acquire(self)
    }

    /// Sends a request on a kept connection that it may use, or on a new one if none will take it.
    pub(crate) async fn send(
        self: &Rc<Self>,
        mut request: UpstreamRequest,
        (mut permit, allowed): (RequestPermit, AllowedConnections<'_>),
        within: Duration,
        patience: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        while let Some(link) = self.take_kept(allowed) {
            match self.send_on((link, permit), request, patience).await {
                SendAttempt::Unsent(unsent, _) => request = unsent, // it had been closed while it was kept
                ended => return ended,
            }
            permit = self.acquire_permit();
        }
        let link = match self.open_connection(within).await {
            Ok(link) => link,
            Err(reason) => return SendAttempt::Unsent(request, reason),
        };
        match self.send_on((link, permit), request, patience).await {
            SendAttempt::Unsent(request, reason) => {
                self.health.note_failure(ServerFailure::Connect);
                SendAttempt::Unsent(request, reason)
            }
            ended => ended,
        }
    }

    /// Opens a connection, or waits for one that is being opened and can be shared.
    async fn open_connection(self: &Rc<Self>, within: Duration) -> Result<UpstreamConnection, String> {
        match self.connector.protocol {
            UpstreamProtocol::Http1 => {
                self.connector.connect(within, &self.health).await.map_err(|reason| self.note_connect_failure(&reason))
            }
            UpstreamProtocol::Http2 => self.pending_session(within).wait_outcome().await.map(UpstreamConnection::Http2),
        }
    }

    /// A place with what opens a session, which has a task of its own.
    fn pending_session(self: &Rc<Self>, within: Duration) -> SessionWaiter {
        let joined = self.pending_sessions.borrow().iter().find_map(PendingSession::join);
        joined.unwrap_or_else(|| {
            let (opening, waiting) = PendingSession::start();
            self.pending_sessions.borrow_mut().push(Rc::clone(&opening));
            tokio::task::spawn_local(SessionOpener { pool: Rc::clone(self), session: opening }.open_session(within));
            waiting
        })
    }

    fn note_connect_failure(&self, reason: &io::Error) -> String {
        self.health.note_failure(ServerFailure::Connect);
        format!("{}: {reason}", self.connector.address)
    }

    async fn send_on(
        self: &Rc<Self>,
        (link, permit): (UpstreamConnection, RequestPermit),
        request: UpstreamRequest,
        patience: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        patience.progress.last_progress.set(Instant::now()); // connecting had a patience of its own
        match UpstreamExchange::begin(link, request) {
            Ok(exchange) => ServerLease::new(Rc::clone(self), permit).wait_response(Box::new(exchange), patience).await,
            Err(request) => SendAttempt::Unsent(*request, "the server speaks another protocol now".to_owned()),
        }
    }

    /// A connection failed after something was sent, or the request broke off.
    fn note_failed_attempt(&self, error: ConnectionError, is_callers: bool) -> SendAttempt {
        if !is_callers && !error.is_request_error() {
            self.health.note_connection_error(&error);
        }
        SendAttempt::Failed(SendError::Failed(error))
    }

    /// A kept connection that is still good, of those that may be used. One on which anything has happened meanwhile is let go.
    pub(crate) fn take_kept(&self, allowed: AllowedConnections<'_>) -> Option<UpstreamConnection> {
        let refused = match allowed {
            AllowedConnections::NewOnly => return None,
            AllowedConnections::Any => &[],
            AllowedConnections::Excluding(refused) => refused,
        };
        match self.connector.protocol {
            UpstreamProtocol::Http2 => self.find_session(refused).map(UpstreamConnection::Http2),
            UpstreamProtocol::Http1 => self.take_idle().map(UpstreamConnection::Http1),
        }
    }

    fn find_session(&self, refused: &[SessionId]) -> Option<Http2Session> {
        let may_be_used = |session: &Http2Session| !refused.iter().any(|mark| mark.identifies(session));
        self.sessions.borrow().iter().find(|session| session.has_room() && may_be_used(session)).cloned()
    }

    fn take_idle(&self) -> Option<Box<Http1Connection>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let IdleConnection { mut connection, since, idle_max: max } = idle.pop()?;
            if self.is_fresh(since, max) && connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// A new session is for everybody from now on.
    fn add_session(&self, session: &Http2Session) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < self.idle_max {
            sessions.push(session.clone());
        }
    }

    fn put_idle(&self, connection: Box<Http1Connection>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max {
            let max = connection.idle_max.map_or(self.idle_time, |max| max.min(self.idle_time));
            idle.push(IdleConnection { connection, since: self.last_sweep.get(), idle_max: max });
        }
    }

    /// Closes what has been idle for too long, and what its server has closed.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.last_sweep.set(now);
        self.idle
            .borrow_mut()
            .retain_mut(|idle| self.is_fresh(idle.since, idle.idle_max) && idle.connection.is_reusable());
        let since = now.checked_sub(self.idle_time).unwrap_or(now);
        self.sessions.borrow_mut().retain(|session| session.is_in_use_since(since));
    }

    fn is_fresh(&self, since: Instant, max: Duration) -> bool {
        self.last_sweep.get().saturating_duration_since(since) < max
    }
}

/// Opens a session for all who wait for it.
struct SessionOpener {
    pool: Rc<ConnectionPool>,
    session: Rc<PendingSession>,
}

impl SessionOpener {
    async fn open_session(self, within: Duration) {
        let Self { pool, session: opening } = &self;
        let outcome = match pool.connector.connect(within, &pool.health).await {
            Ok(UpstreamConnection::Http2(session)) => Ok(session),
            Ok(UpstreamConnection::Http1(_)) => Err("it was reached over HTTP/1.1".to_owned()), // not on this way
            Err(reason) => Err(pool.note_connect_failure(&reason)),
        };
        if let Ok(session) = &outcome {
            pool.add_session(session);
        }
        opening.complete(outcome);
    }
}

impl Drop for SessionOpener {
    fn drop(&mut self) {
        self.session.complete(Err("the worker has ended".to_owned())); // unless it has ended otherwise
        self.pool.pending_sessions.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.session));
    }
}

/// One request's hold on one server.
pub(crate) struct ServerLease {
    pool: Rc<ConnectionPool>,
    _permit: RequestPermit,
}

/// One request's place among those a server has in flight, from the moment the server was chosen: a server that is slow to
/// take connections must not look idle.
pub(crate) struct RequestPermit {
    health: Arc<ServerHealth>,
    in_flight: Rc<ServerInFlight>,
}

impl RequestPermit {
    fn acquire(pool: &ConnectionPool) -> Self {
        pool.health.stats.requests.increment();
        pool.in_flight.begin_request();
        Self { health: Arc::clone(&pool.health), in_flight: Rc::clone(&pool.in_flight) }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.health.stats.requests.decrement();
        self.in_flight.end_request();
    }
}

impl ServerLease {
    pub(crate) fn new(pool: Rc<ConnectionPool>, permit: RequestPermit) -> Self {
        pool.health.stats.attempts.increment();
        Self { pool, _permit: permit }
    }

    /// Waits for the answer on a connection to this server.
    pub(crate) async fn wait_response(
        self,
        mut exchange: Box<UpstreamExchange>,
        patience: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        let was_sent = patience.progress.is_sent.replace(true);
        let result = patience.wait_head(&mut exchange).await;
        // Before the exchange, and the body in it, is taken apart.
        let (has_fault, is_callers) = (patience.progress.error.get().is_some(), patience.progress.is_caller_at_fault());
        match result {
            Some(Ok(head)) => match exchange.into_response(head) {
                Ok(response) => SendAttempt::Response(LeasedResponse { response, lease: self }),
                Err(broken) => self.pool.note_failed_attempt(broken, is_callers),
            },
            Some(Err(broken)) => {
                let salvage = exchange.into_unanswered(&broken);
                if matches!(salvage, UnansweredRequest::Unsent(_) | UnansweredRequest::Refused(..)) {
                    patience.progress.is_sent.set(was_sent); // nothing of it was processed
                }
                self.classify_failure(salvage, broken, (has_fault, is_callers))
            }
            None => {
                if patience.is_response_timeout_over() {
                    self.note_failure(Finished::Timeout);
                }
                SendAttempt::Failed(SendError::Timeout)
            }
        }
    }

    /// Nothing was answered. A request whose own body broke is not sent again.
    fn classify_failure(
        self,
        salvage: UnansweredRequest,
        broken: ConnectionError,
        (has_fault, is_callers): (bool, bool),
    ) -> SendAttempt {
        match salvage {
            _ if broken.is_request_error() => self.pool.note_failed_attempt(broken, is_callers),
            UnansweredRequest::Unsent(request) => SendAttempt::Unsent(request, broken.to_string()),
            _ if has_fault => self.pool.note_failed_attempt(broken, is_callers),
            UnansweredRequest::Refused(request, session) => {
                self.pool.health.note_refusal(&broken);
                let reason = ResendReason::Refused(session, broken.to_string());
                SendAttempt::Resendable(ResendableRequest { request, pool: self.pool, reason })
            }
            UnansweredRequest::StaleConnection(request) => {
                self.pool.health.note_stale_connection();
                SendAttempt::Resendable(ResendableRequest {
                    request: Some(request),
                    pool: self.pool,
                    reason: ResendReason::StaleConnection(broken),
                })
            }
            UnansweredRequest::MaybeProcessed => self.pool.note_failed_attempt(broken, is_callers),
        }
    }

    /// The answer ended cleanly. Its connection is kept if it may carry another request.
    pub(crate) fn return_connection(self, body: &mut UpstreamBody) {
        if let Some(connection) = body.take_reusable() {
            self.pool.put_idle(connection);
        }
    }

    /// The server failed to answer, or to finish its answer.
    pub(crate) fn note_failure(&self, finished: Finished) {
        self.pool.health.note_failure(match finished {
            Finished::Timeout => ServerFailure::Timeout,
            _ => ServerFailure::Reset,
        });
    }

    /// The answer's body broke in this way, by the server's doing.
    pub(crate) fn note_connection_error(&self, broken: &ConnectionError) {
        self.pool.health.note_connection_error(broken);
    }

    /// The server that answers.
    pub(crate) fn pool(&self) -> &Rc<ConnectionPool> {
        &self.pool
    }

    /// The server answered 5xx.
    pub(crate) fn note_server_error(&self) {
        self.pool.health.note_failure(ServerFailure::ServerError);
    }

    /// The server answered.
    pub(crate) fn note_success(&self) {
        self.pool.health.note_success();
    }
}

/// An answer's head, and the connection its body comes on.
pub(crate) struct LeasedResponse {
    pub(crate) response: UpstreamResponse,
    pub(crate) lease: ServerLease,
}
