//! HTTP/2 towards a subsystem: hyper's client, many requests on one connection.
//!
//! Guarantees: a session carries at most [`STREAMS_MAX`] requests of ours at once; a request that was not sent comes back.
//! Leaves flow control, and the limits that the server sets, to hyper and h2.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::proxy::request_body::RequestBody;
use crate::proxy::runtime::OnThisThread;

use super::Broken;
use super::health::Health;
use super::stream::Stream;

/// Requests of ours on one session at once; beyond it another session is opened.
pub(super) const STREAMS_MAX: usize = 100;
/// Bytes of a request body buffered per stream before its caller is held back.
const SEND_BUFFER_MAX: usize = 128 * 1024;
/// What a server may send ahead, per stream. The session has that much for each: callers that take nothing of their answers do
/// not close it for others.
const STREAM_WINDOW: u32 = 64 * 1024;
const SESSION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// Pings tell a dead server from a quiet one.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// The largest head of an answer.
const HEAD_MAX: u32 = 64 * 1024;

/// An open connection that carries many requests; clones are the same one.
#[derive(Clone)]
pub(super) struct Session {
    sender: SendRequest<RequestBody>,
    used: Rc<Used>,
}

struct Used {
    streams: Cell<usize>,
    /// How many commands waited for it to open and have not begun.
    promised: RefCell<Rc<Cell<usize>>>,
    last: Cell<Instant>,
}

impl Session {
    /// Says hello to a server that speaks HTTP/2 here, as ALPN or the configuration says.
    pub(super) async fn open(stream: Stream, health: &Arc<Health>) -> Result<Self, hyper::Error> {
        let (sender, connection) = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .max_send_buf_size(SEND_BUFFER_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SESSION_WINDOW)
            .max_header_list_size(HEAD_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .handshake(TokioIo::new(stream))
            .await?;
        let health = Arc::clone(health);
        health.stats.connections.up();
        tokio::task::spawn_local(async move {
            // Whatever ends it, whoever waits for an answer on it is told through its own future.
            let _ = connection.await;
            health.stats.connections.down();
        });
        let used = Used { streams: Cell::new(0), promised: RefCell::default(), last: Cell::new(Instant::now()) };
        Ok(Self { sender, used: Rc::new(used) })
    }

    /// Whether it would take another request.
    pub(super) fn has_room(&self) -> bool {
        self.used.streams.get() + self.used.promised.borrow().get() < STREAMS_MAX && self.sender.is_ready()
    }

    /// Keeps room for so many commands, as long as there are so many.
    pub(super) fn promise(&self, commands: &Rc<Cell<usize>>) {
        self.used.promised.replace(Rc::clone(commands));
    }

    /// Whether it is worth keeping: open, and in use or used since then.
    pub(super) fn is_in_use(&self, since: Instant) -> bool {
        !self.sender.is_closed() && (self.used.streams.get() > 0 || self.used.last.get() >= since)
    }
}

/// One request and its answer's head, on one session.
pub(in crate::proxy) struct Exchange {
    answer: Pin<Box<dyn Future<Output = Sent>>>,
    unsent: Option<Box<Request<RequestBody>>>,
    counted: Counted,
    /// Whether it is a HEAD, whose answer has no body.
    pub(super) to_head: bool,
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Exchange {
    pub(super) fn begin(mut session: Session, request: Request<RequestBody>) -> Self {
        let (counted, to_head) = (Counted::new(&session.used), *request.method() == Method::HEAD);
        Self { answer: Box::pin(session.sender.try_send_request(request)), unsent: None, counted, to_head }
    }

    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Box<Response<Incoming>>, Broken>> {
        self.answer.as_mut().poll(context).map(|sent| {
            sent.map(Box::new).map_err(|mut error| {
                self.unsent = error.take_message().map(Box::new);
                Broken::Http2(error.into_error())
            })
        })
    }

    /// The request again, if nothing of it was sent.
    pub(super) fn into_unsent(self) -> Option<Box<Request<RequestBody>>> {
        self.unsent
    }

    /// What must live as long as the answer's body.
    pub(super) fn into_counted(self) -> Counted {
        self.counted
    }
}

/// Counts a request on a session as long as it, or its answer, lives.
pub(in crate::proxy) struct Counted(Rc<Used>);

impl Counted {
    fn new(used: &Rc<Used>) -> Self {
        used.streams.set(used.streams.get() + 1);
        Self(Rc::clone(used))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.last.set(Instant::now());
    }
}
