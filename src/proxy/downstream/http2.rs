//! A connection that speaks HTTP/2 (RFC 9113).
//!
//! Guarantees:
//! - The memory of a connection is bounded, whatever its caller sends or does not read.
//! - Resets by the caller, resets by the gateway, and frames without effect are counted. Too many of them end the
//!   connection.
//! - Time limits: the connection preface, a connection without streams (idle timeout), a stream whose response the
//!   caller does not read (write timeout), the age of the connection.
//! - The commands of a deauthorized caller, and those of a removed listener, are cut off in time ([`cut_off`]).
//! - A stream may become a [`crate::proxy::exchange::tunnel`]. Like a response, a tunnel is one task that ends with its
//!   stream.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::config::CapacitySettings;
use crate::lifecycle::DrainWatcher;
use crate::proxy::exchange::exchange;
use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::io::deadline_timer::DeadlineTimer;
use crate::proxy::io::write_timeout::WriteTimeout;
use crate::proxy::message::interim_response::{Http2InterimQueue, InterimTarget};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::LimitHit;

use super::client_stream::ClientStream;
use super::close_reasons::{cut_off, shutdown_requested};
use super::h2_frame_budget::{FrameBudget, FrameObservers};
use super::h2_refused_heads::PendingHeads;
use super::h2_send_budget::SendBudget;
use super::h2_stream_number::take_number;
use super::idle_timeout::{connection_idle, wait_until};
use super::response_stream::{ResponseStream, StreamProgress};

/// Flow control as Envoy recommends for the edge: 100 streams, 64 KiB per stream, 1 MiB per connection.
const STREAMS_MAX: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The minimum that RFC 9113 section 4.2 allows. A larger frame only costs more memory.
const FRAME_MAX: u32 = 16 * 1024;
/// The size of the HPACK dynamic table. A larger table helps only an attacker (CVE-2016-6581).
const HEADER_TABLE: u32 = 4 * 1024;
/// Bytes of a response that h2 buffers per stream before it applies backpressure.
const SEND_BUFFER_MAX: usize = 16 * 1024;
/// The maximum number of streams that the caller has reset before they were accepted (rapid reset, CVE-2023-44487), and
/// of streams that the caller made the gateway reset (CVE-2025-8671). Beyond them the connection ends with
/// `ENHANCE_YOUR_CALM`.
const CLIENT_RESETS_MAX: usize = 20;
const SERVER_RESETS_MAX: usize = 64;
/// Pings distinguish a dead connection from an idle one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open after GOAWAY, so that the caller can close it.
const GOAWAY_GRACE: Duration = Duration::from_secs(2);
/// How long a closing connection waits for its preface, so that bytes sent right after the handshake are read.
const PREFACE_GRACE: Duration = Duration::from_millis(250);
/// The preface and the head of the SETTINGS frame after it (RFC 9113 section 3.4). Fewer bytes do not open a
/// connection.
const PREFACE_BYTES: u64 = 24 + 9;

/// The limit of h2 for a decoded head is `HEADER_LIST_FACTOR * headBytes`. So the gateway itself can refuse a head
/// between the two limits, with a problem document, an id and a count.
/// - A head above the limit of h2 gets the bare 431 of h2, counted by [`PendingHeads`].
/// - A head above four times that limit ends the connection (`MAX_HEADER_LIST_ABUSE_MULTIPLIER`).
/// - The factor is 3 because h2 silently drops the trailer fields above its limit. A decoded field has at most 1.6
///   times its bytes on the wire (5 bits for a byte, RFC 7541 appendix B). So the rest of such a trailer is still
///   larger than `headBytes`.
const HEADER_LIST_FACTOR: usize = 3;

/// Bytes of a head that h2 decodes, counted as in RFC 9113 section 6.5.2.
fn header_list_max(capacity: &CapacitySettings) -> u32 {
    u32::try_from(capacity.head_bytes.saturating_mul(HEADER_LIST_FACTOR)).unwrap_or(u32::MAX)
}

/// Serves a connection until it is closed.
pub(crate) async fn serve_http2(
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    stream: ClientStream,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let activity = Rc::new(ConnectionActivity::new(worker.tick_timers.coarse_timer(), capacity.connection_commands));
    let stream = WriteTimeout::new(stream, capacity.response_idle, &worker.components.telemetry);
    let received = Rc::clone(stream.received_bytes());
    let pending_heads = Rc::new(PendingHeads::new(&worker, &peer));
    let interim = Rc::<Http2InterimQueue>::default();
    let observers = FrameObservers { pending_heads: Rc::clone(&pending_heads), interim: Rc::clone(&interim) };
    let stream = FrameBudget::new(stream, observers, &activity, &worker);
    let streams = StreamExecutor {
        latest_stream: Rc::default(),
        worker: Rc::clone(&worker),
        peer: Rc::clone(&peer),
        activity: Rc::clone(&activity),
    };
    let commands = Http2Commands {
        worker: &worker,
        peer: &peer,
        activity: &activity,
        pending_heads: &pending_heads,
        interim: &interim,
        latest_stream: Rc::clone(&streams.latest_stream),
        send_budget: Rc::new(SendBudget::new(worker.tick_timers.coarse_timer())),
    };
    let service = service_fn(|request| commands.respond(request));
    let connection = http2_builder(&worker, streams).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = resolving_heads(connection.as_mut(), &pending_heads, &interim) => return served,
        () = preface_timeout(&worker, &received) => {
            worker.recorder.count_limit_hit(LimitHit::HeadTime);
            return Ok(()); // A client without a preface would not understand a GOAWAY.
        }
        () = connection_idle(&worker, &activity, capacity.idle) => connection.as_mut().graceful_shutdown(),
        () = shutdown_requested(&worker, (&peer, &activity), &mut drain) => {
            if peer.is_deauthorized() && !peer.has_requests() {
                return Ok(()); // The caller may never send its preface, and hyper would wait for it.
            }
            connection.as_mut().graceful_shutdown();
        }
    }
    tokio::select! {
        served = resolving_heads(connection, &pending_heads, &interim) => served,
        () = goaway_grace(&worker, &activity, &received) => Ok(()),
        // Dropping the streams settles their commands as aborted or interrupted.
        () = Box::pin(cut_off(&peer, &mut drain)) => Ok(()),
    }
}

/// The limits of a connection.
fn http2_builder(worker: &TrafficWorker, streams: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(worker.tick_timers.coarse_timer())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .header_table_size(HEADER_TABLE)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(header_list_max(&worker.capacity))
        .max_pending_accept_reset_streams(CLIENT_RESETS_MAX)
        .max_local_error_reset_streams(SERVER_RESETS_MAX)
        .enable_connect_protocol() // RFC 8441 section 3. Subsystems are not asked for it.
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The commands of one connection, and what they share.
struct Http2Commands<'a> {
    worker: &'a Rc<TrafficWorker>,
    peer: &'a Rc<DownstreamPeer>,
    activity: &'a Rc<ConnectionActivity>,
    pending_heads: &'a PendingHeads,
    interim: &'a Rc<Http2InterimQueue>,
    latest_stream: Rc<RefCell<Weak<StreamProgress>>>,
    send_budget: Rc<SendBudget>,
}

impl Http2Commands<'_> {
    /// The response to one request, for the task of its stream.
    fn respond(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseStream>, Infallible>> + use<> {
        let number = take_stream_number(&mut request, self.interim);
        self.pending_heads.note_accepted(number);
        let line = number.map(|number| InterimTarget::Http2(self.interim.request_stream(number)));
        let (active_request, progress) = (self.activity.begin_request(), Rc::new(StreamProgress::default()));
        if self.worker.components.departure.is_announced() {
            self.activity.end_with_this_request(); // GOAWAY: later commands take another connection
        }
        let (send_budget, latest_stream) = (Rc::clone(&self.send_budget), Rc::clone(&self.latest_stream));
        latest_stream.replace(Rc::downgrade(&progress)); // hyper passes the stream to the executor right after this.
        exchange(self.worker, self.peer, request, line).map_ok(move |mut response| {
            if let Some(tunnel) = response.body_mut().take_tunnel() {
                progress.tunnel.set(Some(tunnel));
                // hyper also passes the writer of the tunnel to the executor right after this.
                latest_stream.replace(Rc::downgrade(&progress));
            }
            response.map(|body| ResponseStream::over_http2(body, active_request, send_budget, progress))
        })
    }
}

/// Takes the stream number of a request out of its headers. hyper has no other access to it.
fn take_stream_number(request: &mut Request<Incoming>, interim: &Http2InterimQueue) -> Option<u32> {
    if interim.is_disabled() { None } else { take_number(request.headers_mut()) }
}

/// Polls a connection. Before each poll, resolves the doubtful heads and passes the waker to the queue of interim
/// responses.
fn resolving_heads<F: Future>(
    mut connection: Pin<&mut F>,
    pending_heads: &PendingHeads,
    interim: &Http2InterimQueue,
) -> impl Future<Output = F::Output> {
    poll_fn(move |context| {
        pending_heads.resolve_doubtful();
        interim.set_waker(context.waker());
        connection.as_mut().poll(context)
    })
}

/// Ready when a connection after GOAWAY has no open command and its caller has had time to close it. h2 waits for the
/// caller's response to a PING (RFC 9113 section 6.8). A connection without a preface has only `PREFACE_GRACE`.
async fn goaway_grace(worker: &TrafficWorker, activity: &ConnectionActivity, received: &Cell<u64>) {
    let notified_at = Instant::now();
    wait_until(worker, notified_at + PREFACE_GRACE).await;
    if received.get() < PREFACE_BYTES {
        return;
    }
    wait_until(worker, notified_at + GOAWAY_GRACE).await;
    connection_idle(worker, activity, GOAWAY_GRACE).await;
}

/// Ready when the connection preface has not arrived in time.
async fn preface_timeout(worker: &TrafficWorker, received: &Cell<u64>) {
    wait_until(worker, Instant::now() + worker.capacity.head_time).await;
    if received.get() >= PREFACE_BYTES {
        std::future::pending().await
    }
}

/// Runs hyper's streams on the worker's own thread, each with its [`StreamProgress`].
#[derive(Clone)]
struct StreamExecutor {
    /// The progress of the stream that was accepted last. The stream owns it, and this is a weak reference. So nothing
    /// is kept here for a stream that hyper drops because its caller has left.
    latest_stream: Rc<RefCell<Weak<StreamProgress>>>,
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    activity: Rc<ConnectionActivity>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    /// Spawns the task of a response, or of a tunnel's writer.
    fn execute(&self, stream: F) {
        let progress = self.latest_stream.take().upgrade().unwrap_or_default();
        let worker = Rc::clone(&self.worker);
        match progress.tunnel.take() {
            None => drop(tokio::task::spawn_local(run_stream(stream, progress, (worker, Rc::clone(&self.activity))))),
            Some(tunnel) => {
                let (peer, active_request) = (Rc::clone(&self.peer), self.activity.attach_stream());
                tokio::task::spawn_local(async move {
                    tunnel.run_on_stream(stream, &peer, (&worker, &active_request)).await;
                });
            }
        }
    }
}

/// Runs a stream until its write timeout: the caller has read nothing of the response for `response_idle`.
///
/// On a timeout the stream is dropped, which resets it with CANCEL and settles its command as aborted. While the whole
/// connection is stalled, a stream may only be waiting for its turn, so its timeout restarts. [`WriteTimeout`]
/// ends a connection on which nothing moves.
async fn run_stream(
    stream: impl Future<Output = ()>,
    progress: Rc<StreamProgress>,
    (worker, activity): (Rc<TrafficWorker>, Rc<ConnectionActivity>),
) {
    let timeout = worker.capacity.response_idle;
    let mut stream = pin!(stream);
    let mut wait = DeadlineTimer::default();
    poll_fn(|context| {
        let polled = stream.as_mut().poll(context);
        let Some(since) = progress.blocked_on_client_since().filter(|_| polled.is_pending()) else { return polled };
        ready!(wait.poll_at(context, since + timeout));
        if activity.is_write_stalled() {
            progress.restart_timeout(Instant::now());
            ready!(wait.poll_at(context, Instant::now() + timeout));
        }
        worker.recorder.count_limit_hit(LimitHit::ResponseIdle);
        Poll::Ready(())
    })
    .await;
}
