//! An HTTP/2 session: an open connection to a server that carries many requests.
//!
//! Guarantees:
//! - Requests are sent one after another, in order of arrival.
//! - Requests above the server's limit of concurrent streams wait until the server has room.
//! - The end of a connection ends all its requests, each through its own future.
//!
//! Leaves to others: pings (`keep_alive`), and the number of sessions (`pool`).

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

use crate::proxy::io::waker_queue::{WaiterId, WakerQueue};
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::endpoint::outlier_ejection::ServerHealth;
use crate::proxy::upstream::endpoint::stream::ServerStream;

use super::keep_alive::KeepAlive;

/// The maximum of concurrent requests on one session; beyond it another session is opened.
pub(crate) const STREAMS_MAX: usize = 100;

/// The send buffer of a request body per stream, in bytes. Beyond it, backpressure stops the caller.
const SEND_BUFFER_MAX: usize = 128 * 1024;
/// The flow-control window of a stream. The session's window has that size for each of its streams: callers that do not
/// read their responses do not block the others.
const STREAM_WINDOW: u32 = 64 * 1024;
const SESSION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// The maximum size of a response head.
const RESPONSE_HEAD_MAX: u32 = 64 * 1024;
/// The minimum that RFC 9113 section 4.2 allows; larger frames only need more memory.
const FRAME_SIZE_MAX: u32 = 16 * 1024;
/// The maximum of streams that a server makes the gateway reset; beyond it the session ends with ENHANCE_YOUR_CALM.
const LOCAL_RESETS_MAX: usize = 1024;

/// An open connection that carries many requests. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Http2Session {
    sender: Rc<RefCell<SendRequest<Bytes>>>,
    usage: Rc<SessionUsage>,
}

/// The usage and state of a session.
pub(crate) struct SessionUsage {
    streams: Cell<usize>,
    /// Whether the session has carried a response.
    has_responded: Cell<bool>,
    /// The number of commands that waited for the session to open and have not begun yet.
    reserved: RefCell<Rc<Cell<usize>>>,
    last_used: Cell<Instant>,
    /// When something was last received from the server.
    last_received: Cell<Instant>,
    /// Whether the connection has ended.
    has_ended: Cell<bool>,
    /// Whether the connection ended because the server was unresponsive.
    is_unresponsive: Cell<bool>,
    /// Requests that wait because of the server's limit of concurrent streams.
    send_queue: WakerQueue,
}

/// A request that was sent: the future of its response, and the stream for its body.
pub(crate) type SentStream = (ResponseFuture, SendStream<Bytes>);

impl Http2Session {
    /// Performs the HTTP/2 handshake with a server that speaks HTTP/2, according to ALPN or the configuration.
    pub(crate) async fn open(stream: ServerStream, health: &Arc<ServerHealth>) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS_MAX)
            .max_send_buffer_size(SEND_BUFFER_MAX)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SESSION_WINDOW)
            .max_frame_size(FRAME_SIZE_MAX)
            .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
            .max_header_list_size(RESPONSE_HEAD_MAX);
        let (sender, mut connection) = builder.handshake::<_, Bytes>(stream).await?;
        let session =
            Self { sender: Rc::new(RefCell::new(sender)), usage: Rc::new(SessionUsage::received_at(Instant::now())) };
        let keep_alive = KeepAlive::new(connection.ping_pong());
        let sender = Rc::downgrade(&session.sender);
        let driver = SessionDriver { connection, keep_alive, sender, usage: Rc::clone(&session.usage) };
        let health = Arc::clone(health);
        health.stats.connections.increment();
        tokio::task::spawn_local(async move {
            driver.await;
            health.stats.connections.decrement();
        });
        Ok(session)
    }

    /// Whether the session can take another request.
    pub(crate) fn has_room(&self) -> bool {
        self.usage.streams.get() + self.usage.reserved.borrow().get() < STREAMS_MAX && !self.is_closed()
    }

    /// Reserves streams for waiting commands. The counter drops as they begin.
    pub(crate) fn reserve_streams(&self, commands: &Rc<Cell<usize>>) {
        self.usage.reserved.replace(Rc::clone(commands));
    }

    /// Whether the session is worth keeping: open, and in use now or used since `since`.
    pub(crate) fn is_in_use_since(&self, since: Instant) -> bool {
        !self.is_closed() && (self.usage.streams.get() > 0 || self.usage.last_used.get() >= since)
    }

    /// Whether the session takes no more requests: it has ended, or the server sent GOAWAY.
    fn is_closed(&self) -> bool {
        self.usage.has_ended.get() || matches!(self.poll_ready(), Poll::Ready(Err(_)))
    }

    /// Whether a request could be sent now. Registers no waker: the [`SessionDriver`] checks and wakes the queue.
    fn poll_ready(&self) -> Poll<Result<(), h2::Error>> {
        self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()))
    }

    pub(crate) fn new_permit(&self) -> SessionPermit {
        SessionPermit::new(&self.usage)
    }

    /// Sends a head. Requires a ready [`SendTurn::poll_turn`].
    pub(crate) fn send_head(&self, head: Request<()>, is_whole: bool) -> Result<SentStream, h2::Error> {
        self.sender.borrow_mut().send_request(head, is_whole)
    }
}

impl SessionUsage {
    /// The usage of a session that last received something at `now`.
    pub(crate) fn received_at(now: Instant) -> Self {
        Self {
            streams: Cell::new(0),
            has_responded: Cell::new(false),
            reserved: RefCell::default(),
            last_used: Cell::new(now),
            last_received: Cell::new(now),
            has_ended: Cell::new(false),
            is_unresponsive: Cell::new(false),
            send_queue: WakerQueue::default(),
        }
    }

    /// Whether the session carries no request.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// When something was last received from the server.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received.get()
    }

    /// Records that something was received from the server.
    pub(crate) fn note_received(&self) {
        self.last_received.set(Instant::now());
    }

    /// Releases the next waiting request if it can be sent, or all of them if the session takes no more requests.
    fn release_next(&self, ready: impl FnOnce() -> Poll<Result<(), h2::Error>>) {
        if self.send_queue.is_empty() {
            return;
        }
        match ready() {
            Poll::Ready(Ok(())) => self.send_queue.release_first(),
            Poll::Ready(Err(_)) => self.send_queue.wake_all(),
            Poll::Pending => {}
        }
    }
}

/// A request's turn in the send queue of its session.
pub(crate) struct SendTurn {
    session: Http2Session,
    waiter: WaiterId,
}

impl SendTurn {
    pub(crate) fn new(session: Http2Session) -> Self {
        Self { session, waiter: WaiterId::default() }
    }

    /// Ready with the session when the request may be sent; an error if the session takes no more requests.
    pub(crate) fn poll_turn(&self, context: &Context<'_>) -> Poll<Result<&Http2Session, ConnectionError>> {
        let usage = &self.session.usage;
        if usage.has_ended.get() {
            return Poll::Ready(Err(ConnectionError::Closed));
        }
        let is_next = usage.send_queue.take_release(&self.waiter) || usage.send_queue.is_empty();
        match self.session.poll_ready() {
            Poll::Ready(Err(error)) => Poll::Ready(Err(ConnectionError::Http2(error))),
            Poll::Ready(Ok(())) if is_next => Poll::Ready(Ok(&self.session)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                usage.send_queue.register(&self.waiter, context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for SendTurn {
    /// Passes the turn to the next request, whether this one was sent or not.
    fn drop(&mut self) {
        let usage = &self.session.usage;
        usage.send_queue.remove(&self.waiter);
        usage.release_next(|| self.session.poll_ready());
    }
}

/// Drives a connection to its end.
struct SessionDriver {
    connection: Connection<ServerStream, Bytes>,
    keep_alive: KeepAlive,
    /// Weak: a strong reference would keep the connection open.
    sender: Weak<RefCell<SendRequest<Bytes>>>,
    usage: Rc<SessionUsage>,
}

impl Future for SessionDriver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        if driver.keep_alive.poll_unresponsive(context, &driver.usage).is_ready() {
            driver.usage.is_unresponsive.set(true);
            return Poll::Ready(());
        }
        let polled = Pin::new(&mut driver.connection).poll(context);
        driver.release_next();
        // Each waiting request gets the error through its own future.
        polled.map(drop)
    }
}

impl SessionDriver {
    fn release_next(&self) {
        self.usage.release_next(|| {
            let Some(sender) = self.sender.upgrade() else { return Poll::Pending };
            sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()))
        });
    }
}

impl Drop for SessionDriver {
    fn drop(&mut self) {
        self.usage.has_ended.set(true);
        self.usage.send_queue.wake_all();
    }
}

/// The identity of a session.
#[derive(Clone)]
pub(crate) struct SessionId(Rc<SessionUsage>);

impl SessionId {
    /// Whether this is the id of `session`.
    pub(crate) fn identifies(&self, session: &Http2Session) -> bool {
        Rc::ptr_eq(&self.0, &session.usage)
    }
}

/// Counts a request on a session for the lifetime of the request or of its response.
pub(crate) struct SessionPermit(Rc<SessionUsage>);

impl SessionPermit {
    pub(crate) fn new(usage: &Rc<SessionUsage>) -> Self {
        usage.streams.set(usage.streams.get() + 1);
        Self(Rc::clone(usage))
    }

    /// Whether the session has carried a response before.
    pub(crate) fn has_responded(&self) -> bool {
        self.0.has_responded.get()
    }

    /// Records a response.
    pub(crate) fn note_response(&self) {
        self.0.has_responded.set(true);
        self.0.note_received();
    }

    /// Records an interim response or a part of a response body.
    pub(crate) fn note_received(&self) {
        self.0.note_received();
    }

    /// The error of a failed request: that of its stream, or a timeout if the server was unresponsive.
    pub(crate) fn connection_error(&self, error: h2::Error) -> ConnectionError {
        match self.0.is_unresponsive.get() {
            true => ConnectionError::Io(io::Error::new(io::ErrorKind::TimedOut, "keep-alive ping timeout")),
            false => ConnectionError::Http2(error),
        }
    }

    pub(crate) fn session_id(&self) -> SessionId {
        SessionId(Rc::clone(&self.0))
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.last_used.set(Instant::now());
    }
}
