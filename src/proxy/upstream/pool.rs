//! Kept connections to one server, per worker: nothing is shared on the hot path, nothing is locked.
//!
//! The most recently used connection goes first, so that spare ones grow old and are closed before the server closes them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use crate::model::Finished;
use crate::policy::Upstream;
use crate::proxy::request_body::RequestBody;

use super::balance::Server;
use super::connect::connect;
use super::health::{Failure, Health};
use super::{Answered, Patience, PoolSettings, SendError, Sent, boxed};

type Sender = SendRequest<RequestBody>;

/// One server's connections.
pub(super) struct Pool {
    address: String,
    health: Arc<Health>,
    idle: RefCell<Vec<Idle>>,
    idle_max: usize,
    idle_time: Duration,
    /// The time of the last sweep: fine enough to tell how long a connection has been idle, and free to read.
    now: Cell<Instant>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// What became of an attempt.
pub(super) enum Attempt {
    /// The server answered.
    Sent(Sent),
    /// Nothing was sent, for this reason; here is the request again.
    Unsent(Box<Request<RequestBody>>, String),
    /// Something was sent, and no answer came.
    Failed(SendError),
}

impl Server for Pool {
    fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }

    fn in_flight(&self) -> u64 {
        self.health.stats.requests.get()
    }
}

impl Pool {
    pub(super) fn new(server: &Upstream, health: Arc<Health>, settings: &PoolSettings) -> Self {
        Self {
            address: server.address.clone(),
            health,
            idle: RefCell::default(),
            idle_max: settings.idle_max,
            idle_time: settings.idle_time,
            now: Cell::new(Instant::now()),
        }
    }

    /// A request's place, from the moment the server was chosen.
    pub(super) fn take_place(&self) -> Place {
        Place::take(&self.health)
    }

    /// Sends a request on a kept connection, or on a new one if none will take it.
    pub(super) async fn send(
        self: &Rc<Self>,
        mut request: Box<Request<RequestBody>>,
        mut place: Place,
        within: Duration,
        patience: &Patience<'_>,
    ) -> Attempt {
        while let Some(sender) = self.kept() {
            match self.send_on((sender, place), request, patience).await {
                Attempt::Unsent(unsent, _) => request = unsent, // it had been closed while it was kept
                ended => return ended,
            }
            place = self.take_place();
        }
        let sender = match connect(&self.address, within, &self.health).await {
            Ok(sender) => sender,
            Err(why) => return self.unreachable(request, why),
        };
        match self.send_on((sender, place), request, patience).await {
            Attempt::Unsent(request, why) => self.unreachable(request, why),
            ended => ended,
        }
    }

    fn unreachable(&self, request: Box<Request<RequestBody>>, why: String) -> Attempt {
        self.health.note_failure(Failure::Connect);
        Attempt::Unsent(request, why)
    }

    async fn send_on(
        self: &Rc<Self>,
        (mut sender, place): (Sender, Place),
        request: Box<Request<RequestBody>>,
        patience: &Patience<'_>,
    ) -> Attempt {
        let answer = Box::pin(boxed(sender.try_send_request(*request)));
        patience.progress.last.set(Instant::now()); // connecting had a patience of its own
        Lease::new(Rc::clone(self), sender, place).wait(answer, patience).await
    }

    /// A connection failed after something was sent.
    fn failed(&self, error: hyper::Error, patience: &Patience<'_>) -> Attempt {
        if patience.progress.fault.get().is_none() {
            self.health.note_failure(Failure::Reset); // otherwise the caller broke it
        }
        Attempt::Failed(SendError::Failed(error))
    }

    /// A kept connection that is still good. One that is not ready at once has something left of its last request: it is
    /// let go rather than waited for.
    pub(super) fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let Idle { sender, since } = idle.pop()?;
            if self.is_fresh(since) && sender.is_ready() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max && !sender.is_closed() {
            idle.push(Idle { sender, since: self.now.get() });
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self) {
        self.now.set(Instant::now());
        self.idle.borrow_mut().retain(|idle| !idle.sender.is_closed() && self.is_fresh(idle.since));
    }

    fn is_fresh(&self, since: Instant) -> bool {
        self.now.get().saturating_duration_since(since) < self.idle_time
    }
}

/// One request's hold on one connection. Dropping it closes the connection, which tells the server that nobody listens.
pub(in crate::proxy) struct Lease {
    pool: Rc<Pool>,
    sender: Option<Sender>,
    _place: Place,
}

/// One request's place among those a server has in flight, from the moment the server was chosen: a server that is slow to
/// take connections must not look idle.
pub(super) struct Place(Arc<Health>);

impl Place {
    fn take(health: &Arc<Health>) -> Self {
        health.stats.requests.up();
        Self(Arc::clone(health))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.stats.requests.down();
    }
}

impl Lease {
    pub(super) fn new(pool: Rc<Pool>, sender: Sender, place: Place) -> Self {
        pool.health.stats.attempts.one();
        Self { pool, sender: Some(sender), _place: place }
    }

    /// Waits for the answer on this connection.
    pub(super) async fn wait<A>(self, answer: Pin<Box<A>>, patience: &Patience<'_>) -> Attempt
    where
        A: Future<Output = Answered>,
    {
        match patience.wait(answer).await {
            Some(Ok(response)) => Attempt::Sent(Sent { response, lease: self }),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Attempt::Unsent(Box::new(request), error.into_error().to_string()),
                None => self.pool.failed(error.into_error(), patience),
            },
            None => {
                self.fail(Finished::Timeout);
                Attempt::Failed(SendError::Timeout)
            }
        }
    }

    /// The answer ended cleanly. The connection is kept if the request had ended too.
    pub(in crate::proxy) fn give_back(mut self, request_ended: bool) {
        if let Some(sender) = self.sender.take().filter(|_| request_ended) {
            self.pool.keep(sender);
        }
    }

    /// The server failed to answer, or to finish its answer.
    pub(in crate::proxy) fn fail(&self, finished: Finished) {
        self.pool.health.note_failure(match finished {
            Finished::Timeout => Failure::Timeout,
            _ => Failure::Reset,
        });
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
    /// Waits as long as the request body makes progress, and `response` beyond; `None` when patience has ended.
    async fn wait<A: Future>(&self, mut answer: Pin<Box<A>>) -> Option<A::Output> {
        loop {
            let deadline = self.progress.last.get() + self.response;
            let mut alarm = self.alarms.alarm(deadline);
            let answered = poll_fn(|context| match answer.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => alarm.poll(context).map(|()| None),
            });
            if let Some(answer) = answered.await {
                return Some(answer);
            }
            if self.progress.waiting.get() {
                self.progress.last.set(Instant::now()); // the caller is late, not the subsystem; `bodyIdle` ends that wait
            } else if self.progress.last.get() + self.response <= deadline {
                return None;
            }
        }
    }
}
