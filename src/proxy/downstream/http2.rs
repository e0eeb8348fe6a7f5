//! A connection that speaks HTTP/2 (RFC 9113).
//!
//! Guarantees: it holds a bounded amount of memory, whatever its caller sends or does not take; resets, whether by the caller or by
//! us, are counted and end it, and so are frames that do nothing; a connection that never opens, one without streams, a
//! stream whose answer is not taken, and the connection itself have limits of time; what is on its way for a caller that is sent
//! away is cut off in time ([`DownstreamPeer::wait_until_cut_off`]). A stream may become a [`crate::proxy::exchange::tunnel`],
//! and is then run like an answer: one task, that ends with it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::config::CapacitySettings;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::LimitHit;

use super::graceful_shutdown::{TlsSocket, shutdown_requested};
use super::h2_frame_budget::{FrameBudget, FrameObservers};
use super::h2_refused_heads::PendingHeads;
use super::h2_send_budget::SendBudget;
use super::h2_stream_number::take_number;
use super::response_stream::{ResponseStream, StreamProgress};
use crate::proxy::exchange::exchange;
use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::io::write_timeout::WriteTimeout;
use crate::proxy::message::grammar::MovableDeadline;
use crate::proxy::message::interim_response::{Http2InterimQueue, InterimTarget};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

/// Envoy's recommendation for the edge: 100 streams, 64 KiB per stream, 1 MiB per connection.
const STREAMS_MAX: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The least that RFC 9113 section 4.2 allows; a larger frame is only more memory.
const FRAME_MAX: u32 = 16 * 1024;
/// What names and values are remembered by the compression; more helps an attacker only (CVE-2016-6581).
const HEADER_TABLE: u32 = 4 * 1024;
/// Bytes of an answer that h2 takes before it asks for no more.
const SEND_BUFFER_MAX: usize = 16 * 1024;
/// Streams that a caller has reset and we have not taken up (CVE-2023-44487), and streams that it made us reset
/// (CVE-2025-8671); beyond them the connection ends with ENHANCE_YOUR_CALM.
const CLIENT_RESETS_MAX: usize = 20;
const SERVER_RESETS_MAX: usize = 64;
/// Pings tell a dead caller from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// For a caller to take its leave.
const GOAWAY_GRACE: Duration = Duration::from_secs(2);
/// For a caller to open a connection that is to end: what it said right after its handshake is read.
const PREFACE_GRACE: Duration = Duration::from_millis(250);
/// The preface and the frame of settings after it (RFC 9113 section 3.4): what is less does not open a connection.
const PREFACE_BYTES: u64 = 24 + 9;

/// How many times `headBytes` h2 decodes of a head, so that we can refuse it in full: with a problem document, an id, a count. More
/// gets h2's own 431, counted by [`PendingHeads`]; four times more ends the connection (`MAX_HEADER_LIST_ABUSE_MULTIPLIER`). Three,
/// because h2 leaves out the fields of a trailer that go beyond it, and tells nobody: one field takes at most 1.6 times what it
/// has on the wire (5 bits for a byte, RFC 7541 appendix B), so what is left of such a trailer is still more than `headBytes`.
const HEADER_LIST_FACTOR: usize = 3;

/// Bytes of a head that h2 decodes, as RFC 9113 section 6.5.2 counts them.
fn header_list_max(capacity: &CapacitySettings) -> u32 {
    u32::try_from(capacity.head_bytes.saturating_mul(HEADER_LIST_FACTOR)).unwrap_or(u32::MAX)
}

/// Serves a connection to its end.
pub(crate) async fn serve_http2(
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    stream: TlsSocket,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let activity = Rc::new(ConnectionActivity::new(worker.tick_timers.coarse_timer(), capacity.connection_commands));
    let stream = WriteTimeout::new(stream, &worker);
    let received = Rc::clone(stream.received_bytes());
    let pending_heads = Rc::new(PendingHeads::new(&worker, &peer));
    let interim = Rc::<Http2InterimQueue>::default();
    let watchers = FrameObservers { pending_heads: Rc::clone(&pending_heads), interim: Rc::clone(&interim) };
    let stream = FrameBudget::new(stream, watchers, &activity, &worker);
    let streams = StreamExecutor {
        latest_stream: Rc::default(),
        worker: Rc::clone(&worker),
        peer: Rc::clone(&peer),
        activity: Rc::clone(&activity),
    };
    let (latest_stream, send_budget) =
        (Rc::clone(&streams.latest_stream), Rc::new(SendBudget::new(worker.tick_timers.coarse_timer())));
    let service = service_fn(|mut request: Request<Incoming>| {
        let number = take_stream_number(&mut request, &interim);
        pending_heads.note_accepted(number);
        let line = number.and_then(|number| interim.open_stream(number)).map(InterimTarget::Http2);
        let (active_request, progress, send_budget) =
            (activity.begin_request(), Rc::new(StreamProgress::default()), Rc::clone(&send_budget));
        latest_stream.replace(Rc::downgrade(&progress)); // hyper hands the stream to be run right after this
        let (peer_too, latest_stream) = (Rc::clone(&peer), Rc::clone(&latest_stream));
        let response = exchange(&worker, &peer, request, line);
        response.map_ok(move |response| {
            if let Some(tunnel) = peer_too.tunnel.take() {
                progress.tunnel.put(tunnel);
                latest_stream.replace(Rc::downgrade(&progress)); // and what writes to it right after this
            }
            response.map(|body| ResponseStream::over_http2(body, active_request, send_budget, progress))
        })
    });
    let connection = http2::Builder::new(streams)
        .timer(worker.tick_timers.coarse_timer())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .header_table_size(HEADER_TABLE)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(header_list_max(&capacity))
        .max_pending_accept_reset_streams(CLIENT_RESETS_MAX)
        .max_local_error_reset_streams(SERVER_RESETS_MAX)
        .enable_connect_protocol() // RFC 8441 section 3; asked of no subsystem
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = resolving_heads(connection.as_mut(), &pending_heads, &interim) => return served,
        () = preface_timeout(&worker, &received) => {
            worker.recorder.count_limit_hit(LimitHit::HeadTime);
            return Ok(()); // nobody is there who would understand a GOAWAY
        }
        () = connection_idle(&worker, &activity, capacity.idle) => connection.as_mut().graceful_shutdown(),
        () = shutdown_requested(&worker, (&peer, &activity), &mut drain) => {
            if peer.is_deauthorized() && !peer.has_requests() {
                return Ok(()); // it may never open the connection, and hyper would wait for it
            }
            connection.as_mut().graceful_shutdown();
        }
    }
    tokio::select! {
        served = resolving_heads(connection, &pending_heads, &interim) => served,
        () = goaway_grace(&worker, &activity, &received) => Ok(()),
        () = Box::pin(peer.wait_until_cut_off()) => Ok(()), // its streams break, and their commands end as aborted
    }
}

/// The number of a request's stream, which nothing else sees of it.
fn take_stream_number(request: &mut Request<Incoming>, interim: &Http2InterimQueue) -> Option<u32> {
    if interim.is_disabled() { None } else { take_number(request.headers_mut()) }
}

/// Runs a connection, and tells its heads whenever it is polled again, and its interim answers who polls it.
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

/// Ready when a caller that was told to go has no command any more, and has had time to take its leave: h2 waits for its
/// answer to a ping (RFC 9113 section 6.8). A caller that has not opened the connection is not waited for as long.
async fn goaway_grace(worker: &TrafficWorker, activity: &ConnectionActivity, received: &Cell<u64>) {
    let notified_at = Instant::now();
    wait_until(worker, notified_at + PREFACE_GRACE).await;
    if received.get() < PREFACE_BYTES {
        return;
    }
    wait_until(worker, notified_at + GOAWAY_GRACE).await;
    connection_idle(worker, activity, GOAWAY_GRACE).await;
}

/// Ready when a caller has not opened the connection in time.
async fn preface_timeout(worker: &TrafficWorker, received: &Cell<u64>) {
    wait_until(worker, Instant::now() + worker.capacity.head_time).await;
    if received.get() >= PREFACE_BYTES {
        std::future::pending().await
    }
}

/// Ready when there has been no command for `idle`.
async fn connection_idle(worker: &TrafficWorker, activity: &ConnectionActivity, idle: Duration) {
    loop {
        let deadline = activity.idle_since() + idle;
        if deadline <= activity.now() {
            return;
        }
        wait_until(worker, deadline).await;
    }
}

async fn wait_until(worker: &TrafficWorker, deadline: Instant) {
    let mut timer = worker.tick_timers.timer_at(deadline);
    poll_fn(|context| timer.poll_elapsed(context)).await;
}

/// Runs hyper's streams on the worker's own thread, each with its [`StreamProgress`].
#[derive(Clone)]
struct StreamExecutor {
    /// The turn of the stream that was taken up last. Held by the stream itself: what hyper does not take up after all, for
    /// its caller has left, is not kept here.
    latest_stream: Rc<RefCell<Weak<StreamProgress>>>,
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    activity: Rc<ConnectionActivity>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    /// Takes an answer on its way, or what writes to a tunnel.
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

/// Runs a stream until its caller takes nothing of its answer for too long. Dropped, it is reset with CANCEL, and its command
/// settles as aborted. While the whole connection takes nothing more, a stream may only wait for its turn among others:
/// [`WriteTimeout`] ends the connection if nothing moves at all.
async fn run_stream(
    stream: impl Future<Output = ()>,
    progress: Rc<StreamProgress>,
    (worker, activity): (Rc<TrafficWorker>, Rc<ConnectionActivity>),
) {
    let timeout = worker.capacity.response_idle;
    let mut stream = pin!(stream);
    let mut wait = MovableDeadline::default();
    poll_fn(|context| {
        let polled = stream.as_mut().poll(context);
        let Some(since) = progress.blocked_on_client_since().filter(|_| polled.is_pending()) else { return polled };
        ready!(wait.poll_elapsed(context, since + timeout));
        if activity.is_write_stalled() {
            progress.restart_timeout(Instant::now());
            ready!(wait.poll_elapsed(context, Instant::now() + timeout));
        }
        worker.recorder.count_limit_hit(LimitHit::AnswerIdle);
        Poll::Ready(())
    })
    .await;
}
