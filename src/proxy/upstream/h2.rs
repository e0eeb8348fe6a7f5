//! HTTP/2 towards a subsystem: hyper's client, many requests on one connection.
//!
//! Guarantees: a session carries at most [`STREAMS_MAX`] requests of ours at once; a request that was not sent comes back, and
//! so does one of which the server has processed nothing, as far as its body is held ([`super::loan`]).
//! Leaves flow control, and the limits that the server sets, to hyper and h2.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
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

use crate::proxy::runtime::OnThisThread;

use super::Broken;
use super::health::Health;
use super::loan::{Lender, LentBody};
use super::protocol::{Outgoing, Salvage};
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
    sender: SendRequest<LentBody>,
    used: Rc<Used>,
}

struct Used {
    streams: Cell<usize>,
    /// Whether anything was answered on it.
    answered: Cell<bool>,
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
        let used = Used {
            streams: Cell::new(0),
            answered: Cell::new(false),
            promised: RefCell::default(),
            last: Cell::new(Instant::now()),
        };
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

/// Tells a session from others.
#[derive(Clone)]
pub(super) struct SessionMark(Rc<Used>);

impl SessionMark {
    /// Whether it is that of this session.
    pub(super) fn is_of(&self, session: &Session) -> bool {
        Rc::ptr_eq(&self.0, &session.used)
    }
}

/// One request and its answer's head, on one session.
pub(in crate::proxy) struct Exchange {
    answer: Pin<Box<dyn Future<Output = Sent>>>,
    unsent: Option<Box<Request<LentBody>>>,
    /// The request, to be sent again.
    repeat: Box<Repeat>,
    /// Whether the session had answered another request before.
    is_reused: bool,
    counted: Counted,
    /// Whether it is a HEAD, whose answer has no body.
    pub(super) to_head: bool,
}

type Sent = Result<Response<Incoming>, TrySendError<Request<LentBody>>>;

impl Exchange {
    pub(super) fn begin(mut session: Session, request: Request<LentBody>) -> Self {
        let (counted, to_head) = (Counted::new(&session.used), *request.method() == Method::HEAD);
        let repeat = Box::new(Repeat::of(&request));
        let is_reused = session.used.answered.get();
        let answer = Box::pin(session.sender.try_send_request(request));
        Self { answer, unsent: None, repeat, is_reused, counted, to_head }
    }

    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Box<Response<Incoming>>, Broken>> {
        self.answer.as_mut().poll(context).map(|sent| match sent {
            Ok(answer) => {
                self.counted.0.answered.set(true);
                self.repeat.body.let_go();
                Ok(Box::new(answer))
            }
            Err(mut error) => {
                self.unsent = error.take_message().map(Box::new);
                Err(Broken::Http2(error.into_error()))
            }
        })
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(super) fn into_salvage(self, broken: &Broken) -> Salvage {
        if let Some(unsent) = self.unsent {
            return Salvage::Unsent(Outgoing::Http2(unsent));
        }
        match Fate::of(broken) {
            Fate::Refused => Salvage::Refused(self.repeat.again(), SessionMark(Rc::clone(&self.counted.0))),
            Fate::Ended if self.is_reused && self.repeat.is_safe_and_bare() => {
                self.repeat.again().map_or(Salvage::Nothing, Salvage::Lost)
            }
            Fate::Ended | Fate::Unknown => Salvage::Nothing,
        }
    }

    /// What must live as long as the answer's body.
    pub(super) fn into_counted(self) -> Counted {
        self.counted
    }
}

/// A request as it was.
struct Repeat {
    head: Request<()>,
    body: Lender,
}

impl Repeat {
    fn of(request: &Request<LentBody>) -> Self {
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        Self { head, body: request.body().lender() }
    }

    fn is_safe_and_bare(&self) -> bool {
        self.head.method().is_safe() && !self.body.has_body()
    }

    /// The request, with all of its body; nothing, if more of it was taken than is held.
    fn again(self) -> Option<Outgoing> {
        let Self { head, body } = self;
        body.take_back().map(|body| Outgoing::Http2(Box::new(head.map(|()| body))))
    }
}

/// What became of a request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The server has processed nothing of it: it reset the stream with REFUSED_STREAM, or took its leave with a last stream
    /// below this one (RFC 9113 section 8.7). h2 gives the error of a GOAWAY to such streams only.
    Refused,
    /// The connection ended.
    Ended,
    /// Anything else.
    Unknown,
}

impl Fate {
    fn of(broken: &Broken) -> Self {
        let Broken::Http2(error) = broken else { return Self::Unknown };
        match h2_error(error) {
            Some(error) if error.is_remote() && error.is_go_away() => Self::Refused,
            Some(error) if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => Self::Refused,
            Some(_) => Self::Unknown,
            None if error.source().is_some_and(|cause| cause.is::<std::io::Error>()) => Self::Ended,
            None => Self::Unknown,
        }
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}

/// Whether a server has broken RFC 9113, as h2 has found.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(h2::Error::is_library)
}

/// Whether a server has taken its leave in good order (RFC 9113 section 6.8).
pub(super) fn is_leaving(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
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
