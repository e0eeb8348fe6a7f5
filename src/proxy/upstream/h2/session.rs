//! An open connection to a server that carries many requests.
//!
//! Guarantees: requests are sent one after another, in the order of their coming; those that the server's own limit of
//! streams keeps back are not sent before there is room. Whatever ends the connection ends its requests, each through
//! its own future.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use tokio::time::Instant;

use crate::proxy::upstream::Broken;
use crate::proxy::upstream::health::Health;
use crate::proxy::upstream::stream::Stream;
use crate::proxy::waiters::{Place, Waiters};

use super::STREAMS_MAX;
use super::ping::KeepAlive;

/// Bytes of a request body buffered per stream before its caller is held back.
const SEND_BUFFER_MAX: usize = 128 * 1024;
/// What a server may send ahead, per stream. The session has that much for each: callers that take nothing of their
/// answers do not close it for others.
const STREAM_WINDOW: u32 = 64 * 1024;
const SESSION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// The largest head of an answer.
const HEAD_MAX: u32 = 64 * 1024;
/// The least that RFC 9113 section 4.2 allows; a larger frame is only more memory.
const FRAME_MAX: u32 = 16 * 1024;
/// Streams that a server has made us reset; beyond them the session ends with ENHANCE_YOUR_CALM.
const OUR_RESETS_MAX: usize = 1024;

/// An open connection that carries many requests; clones are the same one.
#[derive(Clone)]
pub(in crate::proxy::upstream) struct Session {
    sender: Rc<RefCell<SendRequest<Bytes>>>,
    used: Rc<Used>,
}

/// How a session is used.
pub(super) struct Used {
    streams: Cell<usize>,
    /// Whether anything was answered on it.
    answered: Cell<bool>,
    /// How many commands waited for it to open and have not begun.
    promised: RefCell<Rc<Cell<usize>>>,
    last: Cell<Instant>,
    /// When the server was heard last.
    heard: Cell<Instant>,
    /// Whether the connection has ended.
    has_ended: Cell<bool>,
    /// Whether it has ended because the server was silent.
    is_dead: Cell<bool>,
    /// Requests that the server's limit of streams keeps back.
    waiting: Waiters,
}

/// A request that was sent: its answer, and where its body goes.
pub(super) type Sent = (ResponseFuture, SendStream<Bytes>);

impl Session {
    /// Says hello to a server that speaks HTTP/2 here, as ALPN or the configuration says.
    pub(in crate::proxy::upstream) async fn open(stream: Stream, health: &Arc<Health>) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS_MAX)
            .max_send_buffer_size(SEND_BUFFER_MAX)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SESSION_WINDOW)
            .max_frame_size(FRAME_MAX)
            .max_local_error_reset_streams(Some(OUR_RESETS_MAX))
            .max_header_list_size(HEAD_MAX);
        let (sender, mut connection) = builder.handshake::<_, Bytes>(stream).await?;
        let session = Self { sender: Rc::new(RefCell::new(sender)), used: Rc::new(Used::heard_at(Instant::now())) };
        let keep_alive = KeepAlive::new(connection.ping_pong());
        let sender = Rc::downgrade(&session.sender);
        let driver = Driver { connection, keep_alive, sender, used: Rc::clone(&session.used) };
        let health = Arc::clone(health);
        health.stats.connections.up();
        tokio::task::spawn_local(async move {
            driver.await;
            health.stats.connections.down();
        });
        Ok(session)
    }

    /// Whether it would take another request.
    pub(in crate::proxy::upstream) fn has_room(&self) -> bool {
        self.used.streams.get() + self.used.promised.borrow().get() < STREAMS_MAX && !self.is_closed()
    }

    /// Keeps room for so many commands, as long as there are so many.
    pub(in crate::proxy::upstream) fn promise(&self, commands: &Rc<Cell<usize>>) {
        self.used.promised.replace(Rc::clone(commands));
    }

    /// Whether it is worth keeping: open, and in use or used since then.
    pub(in crate::proxy::upstream) fn is_in_use(&self, since: Instant) -> bool {
        !self.is_closed() && (self.used.streams.get() > 0 || self.used.last.get() >= since)
    }

    /// Whether it takes no requests any more: it has ended, or the server takes its leave.
    fn is_closed(&self) -> bool {
        self.used.has_ended.get() || matches!(self.poll_ready(), Poll::Ready(Err(_)))
    }

    /// Whether a request could be sent now. Nobody is woken when it can: the [`Driver`] looks.
    fn poll_ready(&self) -> Poll<Result<(), h2::Error>> {
        self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()))
    }

    pub(super) fn counted(&self) -> Counted {
        Counted::new(&self.used)
    }

    /// Sends a head, which a look at [`Line::poll`] has allowed.
    pub(super) fn send(&self, head: Request<()>, is_whole: bool) -> Result<Sent, h2::Error> {
        self.sender.borrow_mut().send_request(head, is_whole)
    }
}

impl Used {
    /// Opened, or heard last, now.
    pub(super) fn heard_at(now: Instant) -> Self {
        Self {
            streams: Cell::new(0),
            answered: Cell::new(false),
            promised: RefCell::default(),
            last: Cell::new(now),
            heard: Cell::new(now),
            has_ended: Cell::new(false),
            is_dead: Cell::new(false),
            waiting: Waiters::default(),
        }
    }

    /// Whether it carries no request.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// When the server was heard last.
    pub(super) fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// The server is heard.
    pub(super) fn hear(&self) {
        self.heard.set(Instant::now());
    }

    /// Lets the next request through, if there is one and it can be sent, or all if none can any more.
    fn let_next_through(&self, ready: impl FnOnce() -> Poll<Result<(), h2::Error>>) {
        if self.waiting.is_empty() {
            return;
        }
        match ready() {
            Poll::Ready(Ok(())) => self.waiting.let_first_through(),
            Poll::Ready(Err(_)) => self.waiting.wake_all(),
            Poll::Pending => {}
        }
    }
}

/// A request's place in the order of those that are not sent.
pub(super) struct Line {
    session: Session,
    place: Place,
}

impl Line {
    pub(super) fn new(session: Session) -> Self {
        Self { session, place: Place::default() }
    }

    /// Ready when the request may be sent, with the session to send it on; an error if it never may.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Result<&Session, Broken>> {
        let used = &self.session.used;
        if used.has_ended.get() {
            return Poll::Ready(Err(Broken::Closed));
        }
        let is_next = used.waiting.is_let_through(&self.place) || used.waiting.is_empty();
        match self.session.poll_ready() {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::Http2(error))),
            Poll::Ready(Ok(())) if is_next => Poll::Ready(Ok(&self.session)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                used.waiting.wait(&self.place, context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Line {
    /// Sent or not: it is the next one's turn.
    fn drop(&mut self) {
        let used = &self.session.used;
        used.waiting.leave(&self.place);
        used.let_next_through(|| self.session.poll_ready());
    }
}

/// Drives a connection to its end.
struct Driver {
    connection: Connection<Stream, Bytes>,
    keep_alive: KeepAlive,
    /// Whoever holds it keeps the connection open, which the driver may not.
    sender: Weak<RefCell<SendRequest<Bytes>>>,
    used: Rc<Used>,
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        if driver.keep_alive.poll(context, &driver.used).is_ready() {
            driver.used.is_dead.set(true);
            return Poll::Ready(());
        }
        let polled = Pin::new(&mut driver.connection).poll(context);
        driver.let_next_through();
        polled.map(drop) // whatever ends it, whoever waits for an answer on it is told through its own future
    }
}

impl Driver {
    fn let_next_through(&self) {
        self.used.let_next_through(|| {
            let Some(sender) = self.sender.upgrade() else { return Poll::Pending };
            sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()))
        });
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.used.has_ended.set(true);
        self.used.waiting.wake_all();
    }
}

/// Tells a session from others.
#[derive(Clone)]
pub(in crate::proxy::upstream) struct SessionMark(Rc<Used>);

impl SessionMark {
    /// Whether it is that of this session.
    pub(in crate::proxy::upstream) fn is_of(&self, session: &Session) -> bool {
        Rc::ptr_eq(&self.0, &session.used)
    }
}

/// Counts a request on a session as long as it, or its answer, lives.
pub(in crate::proxy) struct Counted(Rc<Used>);

impl Counted {
    pub(super) fn new(used: &Rc<Used>) -> Self {
        used.streams.set(used.streams.get() + 1);
        Self(Rc::clone(used))
    }

    /// Whether the session has answered before.
    pub(super) fn has_answered(&self) -> bool {
        self.0.answered.get()
    }

    /// The session answers.
    pub(super) fn answers(&self) {
        self.0.answered.set(true);
        self.0.hear();
    }

    /// Something came that is no answer yet, or more of one.
    pub(super) fn hears(&self) {
        self.0.hear();
    }

    /// How a request failed: with its stream, or because its server was silent.
    pub(super) fn broken(&self, error: h2::Error) -> Broken {
        match self.0.is_dead.get() {
            true => Broken::Connection(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer a ping")),
            false => Broken::Http2(error),
        }
    }

    pub(super) fn mark(&self) -> SessionMark {
        SessionMark(Rc::clone(&self.0))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.last.set(Instant::now());
    }
}
