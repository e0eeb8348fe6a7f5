//! The connection pool of one server, per worker.
//!
//! Guarantees:
//! - The hot path shares nothing between workers and takes no lock.
//! - The most recently used connection goes first. Surplus connections age, and the idle timeout closes them before the
//!   server does.
//! - Over HTTP/2, commands that arrive together share a session, even while it is being opened.
//!
//! Leaves to others: the choice of a server (`load_balancing`), opening connections (`transport`), resends (`resend`).

pub(crate) mod kept_pools;
mod pending_session;
pub(crate) mod response_deadline;
pub(crate) mod send_error;
pub(crate) mod settings;
pub(crate) mod wait_queue;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Finished;
use crate::policy::UpstreamProtocol;

use self::kept_pools::KeptPools;
use self::pending_session::{PendingSession, SessionWaiter};
use self::response_deadline::{ExpiredTimeout, ResponseDeadline};
use self::send_error::SendError;
use self::wait_queue::ServerInFlight;
use super::PoolSettings;
use super::endpoint::error::ConnectionError;
use super::endpoint::outlier_ejection::{ServerFailure, ServerHealth};
use super::endpoint::stream::ServerStream;
use super::endpoint::unanswered::UnansweredRequest;
use super::h1::Http1Connection;
use super::h2::{Http2Session, SessionId};
use super::transport::connector::Connector;
use super::transport::protocol::{
    UpstreamBody, UpstreamConnection, UpstreamExchange, UpstreamRequest, UpstreamResponse,
};

/// The connections to one server.
pub(crate) struct ConnectionPool {
    connector: Connector,
    /// The server's name in metrics and logs.
    pub(crate) server: Rc<str>,
    pub(crate) health: Arc<ServerHealth>,
    pub(crate) in_flight: Rc<ServerInFlight>,
    /// Idle connections; HTTP/1.1 only.
    idle: RefCell<Vec<IdleConnection>>,
    /// Connections that carry several requests; HTTP/2 only.
    sessions: RefCell<Vec<Http2Session>>,
    /// Sessions that are being opened.
    pending_sessions: RefCell<Vec<Rc<PendingSession>>>,
    idle_max: usize,
    idle_time: Duration,
    kept_pools: Rc<KeptPools>,
    /// Whether it is among `kept_pools`.
    is_listed: Cell<bool>,
}

struct IdleConnection {
    connection: Box<Http1Connection>,
    since: Instant,
    /// The idle timeout of this connection.
    idle_max: Duration,
}

/// The connections that an attempt may use.
#[derive(Clone, Copy)]
pub(crate) enum AllowedConnections<'a> {
    /// A kept connection, or a new one if none is left.
    Any,
    /// Any connection except the sessions that refused the request.
    Excluding(&'a [SessionId]),
    /// Only a new connection: kept ones may be as old as the one that was lost.
    NewOnly,
}

/// The result of an attempt.
pub(crate) enum SendAttempt {
    /// The server sent a response.
    Response(LeasedResponse),
    /// Nothing was sent; the request and the reason.
    Unsent(UpstreamRequest, String),
    /// Something was sent, but the request may be resent without permission by the subsystem's configuration.
    Resendable(ResendableRequest),
    /// Something was sent, and no response arrived.
    Failed(SendError),
}

/// A request that may be resent.
pub(crate) struct ResendableRequest {
    /// The request; `None` if more of its body was taken than is buffered.
    pub(crate) request: Option<UpstreamRequest>,
    /// The pool of the server that the request was sent to.
    pub(crate) pool: Rc<ConnectionPool>,
    pub(crate) reason: ResendReason,
}

/// Why a request may be resent.
pub(crate) enum ResendReason {
    /// The server has processed nothing of the request; the session that refused it, and the reason.
    Refused(SessionId, String),
    /// A kept connection ended before the first byte of a response.
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
            server: health.upstream().into(),
            health,
            in_flight,
            idle: RefCell::default(),
            sessions: RefCell::default(),
            pending_sessions: RefCell::default(),
            idle_max: settings.idle_max,
            idle_time: settings.idle_time,
            kept_pools: Rc::clone(&settings.kept_pools),
            is_listed: Cell::new(false),
        }
    }

    /// Whether this pool connects to the same endpoint in the same way.
    pub(crate) fn connects_to(&self, connector: &Connector) -> bool {
        self.connector.is_same_endpoint(connector)
    }

    /// Counts a request as in flight, from the selection of the server on.
    pub(crate) fn acquire_permit(&self) -> RequestPermit {
        RequestPermit::acquire(self)
    }

    /// Sends a request on a kept connection, or on a new one if no kept one can be used.
    pub(crate) async fn send(
        self: &Rc<Self>,
        mut request: UpstreamRequest,
        (mut permit, allowed): (RequestPermit, AllowedConnections<'_>),
        within: Duration,
        deadline: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        while let Some(link) = self.take_kept(allowed) {
            match self.send_on((link, permit), request, deadline).await {
                // The server had closed the kept connection.
                SendAttempt::Unsent(unsent, _) => request = unsent,
                ended => return ended,
            }
            permit = self.acquire_permit();
        }
        deadline.progress.note_connecting(&self.server);
        let link = match deadline.until_end(self.open_connection(within)).await {
            Some(Ok(link)) => link,
            Some(Err(reason)) => return SendAttempt::Unsent(request, reason),
            None => return SendAttempt::Failed(SendError::Timeout),
        };
        match self.send_on((link, permit), request, deadline).await {
            SendAttempt::Unsent(request, reason) => {
                self.health.note_failure(ServerFailure::Connect);
                SendAttempt::Unsent(request, reason)
            }
            ended => ended,
        }
    }

    /// Opens a connection, or waits for a session that is being opened and can be shared.
    async fn open_connection(self: &Rc<Self>, within: Duration) -> Result<UpstreamConnection, String> {
        match self.connector.protocol {
            UpstreamProtocol::Http1 => {
                self.connector.connect(within, &self.health).await.map_err(|reason| self.note_connect_failure(&reason))
            }
            UpstreamProtocol::Http2 => self.pending_session(within).wait_outcome().await.map(UpstreamConnection::Http2),
            UpstreamProtocol::Tcp => Err("the server expects the bytes of TLS connections".to_owned()),
        }
    }

    /// Opens a connection for the bytes of a TLS connection of a caller. It is never kept or shared.
    ///
    /// # Errors
    /// The reason why there is no connection. It counts against the server's health.
    pub(crate) async fn open_stream(&self, within: Duration) -> Result<ServerStream, String> {
        self.connector.connect_stream(within).await.map_err(|reason| self.note_connect_failure(&reason))
    }

    /// Joins a session that is being opened, or starts to open one in a task of its own.
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
        deadline: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        // Connecting had its own timeout, so the response timeout starts here.
        deadline.progress.last_progress.set(Instant::now());
        match UpstreamExchange::begin(link, request) {
            Ok(exchange) => ServerLease::new(Rc::clone(self), permit).wait_response(Box::new(exchange), deadline).await,
            Err(request) => SendAttempt::Unsent(*request, "the server now uses another protocol".to_owned()),
        }
    }

    /// Records an attempt that failed after something was sent. `is_callers` means that the caller's request broke off.
    fn note_failed_attempt(&self, error: ConnectionError, is_callers: bool) -> SendAttempt {
        if !is_callers && !error.is_request_error() {
            self.health.note_connection_error(&error);
        }
        SendAttempt::Failed(SendError::Failed(error))
    }

    /// Takes a kept connection that is still usable. An idle connection with any event on it is dropped.
    pub(crate) fn take_kept(&self, allowed: AllowedConnections<'_>) -> Option<UpstreamConnection> {
        let refused = match allowed {
            AllowedConnections::NewOnly => return None,
            AllowedConnections::Any => &[],
            AllowedConnections::Excluding(refused) => refused,
        };
        match self.connector.protocol {
            UpstreamProtocol::Http2 => self.find_session(refused).map(UpstreamConnection::Http2),
            UpstreamProtocol::Http1 => self.take_idle().map(UpstreamConnection::Http1),
            UpstreamProtocol::Tcp => None,
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

    /// Shares a new session with all later requests.
    fn add_session(self: &Rc<Self>, session: &Http2Session) {
        self.list();
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < self.idle_max {
            sessions.push(session.clone());
        }
    }

    fn put_idle(self: &Rc<Self>, connection: Box<Http1Connection>) {
        self.list();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max {
            let max = connection.idle_max.map_or(self.idle_time, |max| max.min(self.idle_time));
            idle.push(IdleConnection { connection, since: self.kept_pools.swept_at(), idle_max: max });
        }
    }

    /// From now on the pool is swept.
    fn list(self: &Rc<Self>) {
        if !self.is_listed.replace(true) {
            self.kept_pools.add(self);
        }
    }

    /// Closes connections that exceeded the idle timeout, and connections that the server closed. Returns whether any
    /// are left; without one the pool is not swept any more.
    fn sweep(&self, now: Instant) -> bool {
        self.idle
            .borrow_mut()
            .retain_mut(|idle| self.is_fresh(idle.since, idle.idle_max) && idle.connection.is_reusable());
        let since = now.checked_sub(self.idle_time).unwrap_or(now);
        self.sessions.borrow_mut().retain(|session| session.is_in_use_since(since));
        let is_kept = !self.idle.borrow().is_empty() || !self.sessions.borrow().is_empty();
        self.is_listed.set(is_kept);
        is_kept
    }

    fn is_fresh(&self, since: Instant, max: Duration) -> bool {
        self.kept_pools.swept_at().saturating_duration_since(since) < max
    }
}

/// Opens a session for all its waiters.
struct SessionOpener {
    pool: Rc<ConnectionPool>,
    session: Rc<PendingSession>,
}

impl SessionOpener {
    async fn open_session(self, within: Duration) {
        let Self { pool, session: opening } = &self;
        let outcome = match pool.connector.connect(within, &pool.health).await {
            Ok(UpstreamConnection::Http2(session)) => Ok(session),
            // A connector for HTTP/2 never returns HTTP/1.1.
            Ok(UpstreamConnection::Http1(_)) => Err("the connection uses HTTP/1.1 instead of HTTP/2".to_owned()),
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
        // Has no effect if the outcome is already set.
        self.session.complete(Err("the worker has stopped".to_owned()));
        self.pool.pending_sessions.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.session));
    }
}

/// The use of one server by one request.
pub(crate) struct ServerLease {
    pool: Rc<ConnectionPool>,
    _permit: RequestPermit,
}

/// Counts one request in flight at a server, from the selection of the server on: a server that is slow to accept
/// connections must not look idle.
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

    /// Waits for the response on a connection to this server.
    pub(crate) async fn wait_response(
        self,
        mut exchange: Box<UpstreamExchange>,
        deadline: &ResponseDeadline<'_>,
    ) -> SendAttempt {
        let was_sent = deadline.progress.is_sent.replace(true);
        deadline.progress.note_attempt(&self.pool.server);
        deadline.begin_attempt();
        let result = deadline.wait_head(&mut exchange).await;
        // Read before the exchange, which holds the request body, is taken apart.
        let (has_fault, is_callers) = (deadline.progress.error.get().is_some(), deadline.progress.is_caller_at_fault());
        match result {
            Ok(Ok(head)) => match exchange.into_response(head) {
                Ok(response) => {
                    let attempt_end = deadline.attempt_end.get();
                    SendAttempt::Response(LeasedResponse { response, lease: self, attempt_end })
                }
                Err(error) => self.pool.note_failed_attempt(error, is_callers),
            },
            Ok(Err(error)) => {
                let salvage = exchange.into_unanswered(&error);
                if matches!(salvage, UnansweredRequest::Unsent(_) | UnansweredRequest::Refused(..)) {
                    // The server has processed nothing of the request.
                    deadline.progress.is_sent.set(was_sent);
                }
                self.classify_failure(salvage, error, (has_fault, is_callers))
            }
            Err(expired) => {
                if deadline.is_response_timeout_over() && !is_callers {
                    self.note_failure(Finished::Timeout);
                }
                SendAttempt::Failed(match expired {
                    ExpiredTimeout::Response => SendError::Timeout,
                    ExpiredTimeout::Attempt => SendError::AttemptTimeout,
                })
            }
        }
    }

    /// Classifies an attempt without a response. A request whose own body broke off is not resent.
    fn classify_failure(
        self,
        salvage: UnansweredRequest<UpstreamRequest, SessionId>,
        error: ConnectionError,
        (has_fault, is_callers): (bool, bool),
    ) -> SendAttempt {
        match salvage {
            _ if error.is_request_error() => self.pool.note_failed_attempt(error, is_callers),
            UnansweredRequest::Unsent(request) => SendAttempt::Unsent(request, error.to_string()),
            _ if has_fault => self.pool.note_failed_attempt(error, is_callers),
            UnansweredRequest::Refused(request, session) => {
                self.pool.health.note_refusal(&error);
                let reason = ResendReason::Refused(session, error.to_string());
                SendAttempt::Resendable(ResendableRequest { request, pool: self.pool, reason })
            }
            UnansweredRequest::StaleConnection(request) => {
                self.pool.health.note_stale_connection();
                SendAttempt::Resendable(ResendableRequest {
                    request: Some(request),
                    pool: self.pool,
                    reason: ResendReason::StaleConnection(error),
                })
            }
            UnansweredRequest::MaybeProcessed => self.pool.note_failed_attempt(error, is_callers),
        }
    }

    /// Returns the connection to the pool after a clean end of the response, if the connection can be reused.
    pub(crate) fn return_connection(self, body: &mut UpstreamBody) {
        if let Some(connection) = body.take_reusable() {
            self.pool.put_idle(connection);
        }
    }

    /// Records that the server did not send a response, or did not finish it.
    pub(crate) fn note_failure(&self, finished: Finished) {
        self.pool.health.note_failure(match finished {
            Finished::Timeout => ServerFailure::Timeout,
            _ => ServerFailure::Reset,
        });
    }

    /// Records that the server broke the body of the response in this way.
    pub(crate) fn note_connection_error(&self, error: &ConnectionError) {
        self.pool.health.note_connection_error(error);
    }

    /// The pool of the server that responds.
    pub(crate) fn pool(&self) -> &Rc<ConnectionPool> {
        &self.pool
    }

    /// Records a 5xx response of the server.
    pub(crate) fn note_server_error(&self) {
        self.pool.health.note_failure(ServerFailure::ServerError);
    }

    /// Records a response of the server that is no failure.
    pub(crate) fn note_success(&self) {
        self.pool.health.note_success();
    }
}

/// The head of a response, with the lease of the server that sends its body.
pub(crate) struct LeasedResponse {
    pub(crate) response: UpstreamResponse,
    pub(crate) lease: ServerLease,
    /// The end of the attempt, which bounds the body too.
    pub(crate) attempt_end: Option<Instant>,
}

impl LeasedResponse {
    /// Records a response that a retry replaces in the server's health, and discards it.
    pub(crate) fn note_replaced(self) {
        if self.response.status.is_server_error() {
            self.lease.note_server_error();
        } else {
            self.lease.note_success();
        }
    }
}
