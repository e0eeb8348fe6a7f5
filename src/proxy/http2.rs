//! A connection that speaks HTTP/2 (RFC 9113).
//!
//! Guarantees: it holds a bounded amount of memory, whatever its caller sends or does not take; resets, whether by the caller or by
//! us, are counted and end it, and so are frames that do nothing; a connection that never opens, one without streams, a
//! stream whose answer is not taken, and the connection itself have limits of time. A stream may become a [`super::tunnel`],
//! and is then run like an answer: one task, that ends with it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::lifecycle::DrainWatcher;
use crate::telemetry::LimitHit;

use super::connection::{Secured, time_to_go};
use super::departing::{Departing, Turn};
use super::exchange::exchange;
use super::frames::Frames;
use super::patient::Patient;
use super::peer::Peer;
use super::pulse::Pulse;
use super::untaken::Untaken;
use super::wire::Wait;
use super::worker::Worker;

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
const CALLERS_RESETS_MAX: usize = 20;
const OUR_RESETS_MAX: usize = 64;
/// Pings tell a dead caller from a quiet one.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// For a caller to take its leave.
const PARTING: Duration = Duration::from_secs(2);
/// For a caller to open a connection that is to end: what it said right after its handshake is read.
const OPENING_LEFT: Duration = Duration::from_millis(250);
/// The preface and the frame of settings after it (RFC 9113 section 3.4): what is less does not open a connection.
const OPENING_BYTES: u64 = 24 + 9;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    stream: Secured,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let pulse = Rc::new(Pulse::new(worker.alarms.coarse(), capacity.connection_commands));
    let stream = Patient::new(stream, &worker);
    let heard = Rc::clone(stream.heard());
    let stream = Frames::new(stream, &worker, &pulse);
    let streams = Streams {
        taken_up: Rc::default(),
        worker: Rc::clone(&worker),
        peer: Rc::clone(&peer),
        pulse: Rc::clone(&pulse),
    };
    let (taken_up, untaken) = (Rc::clone(&streams.taken_up), Rc::new(Untaken::default()));
    let service = service_fn(|request| {
        let (beat, turn, untaken) = (pulse.beat(), Rc::new(Turn::default()), Rc::clone(&untaken));
        taken_up.replace(Rc::downgrade(&turn)); // hyper hands the stream to be run right after this
        let (peer_too, taken_up) = (Rc::clone(&peer), Rc::clone(&taken_up));
        let answer = exchange(&worker, &peer, request);
        answer.map_ok(move |answer| {
            if let Some(tunnel) = peer_too.tunnel.take() {
                turn.tunnel.leave(tunnel);
                taken_up.replace(Rc::downgrade(&turn)); // and what writes to it right after this
            }
            answer.map(|body| Departing::over_http2(body, beat, untaken, turn))
        })
    });
    let connection = http2::Builder::new(streams)
        .timer(worker.alarms.coarse())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .header_table_size(HEADER_TABLE)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(u32::try_from(capacity.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(CALLERS_RESETS_MAX)
        .max_local_error_reset_streams(OUR_RESETS_MAX)
        .enable_connect_protocol() // RFC 8441 section 3; asked of no subsystem
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served,
        () = never_opens(&worker, &heard) => {
            worker.recorder.limit_hit(LimitHit::HeadTime);
            return Ok(()); // nobody is there who would understand a GOAWAY
        }
        () = rests(&worker, &pulse, capacity.idle) => connection.as_mut().graceful_shutdown(),
        () = time_to_go(&worker, (&peer, &pulse), &mut drain) => {
            if peer.is_sent_away() && !peer.has_asked() {
                return Ok(()); // it may never open the connection, and hyper would wait for it
            }
            connection.as_mut().graceful_shutdown();
        }
    }
    tokio::select! {
        served = connection => served,
        () = parted(&worker, &pulse, &heard) => Ok(()),
    }
}

/// Ready when a caller that was told to go has no command any more, and has had time to take its leave: h2 waits for its
/// answer to a ping (RFC 9113 section 6.8). A caller that has not opened the connection is not waited for as long.
async fn parted(worker: &Worker, pulse: &Pulse, heard: &Cell<u64>) {
    let told = Instant::now();
    wait_until(worker, told + OPENING_LEFT).await;
    if heard.get() < OPENING_BYTES {
        return;
    }
    wait_until(worker, told + PARTING).await;
    rests(worker, pulse, PARTING).await;
}

/// Ready when a caller has not opened the connection in time.
async fn never_opens(worker: &Worker, heard: &Cell<u64>) {
    wait_until(worker, Instant::now() + worker.capacity.head_time).await;
    if heard.get() >= OPENING_BYTES {
        std::future::pending().await
    }
}

/// Ready when there has been no command for `idle`.
async fn rests(worker: &Worker, pulse: &Pulse, idle: Duration) {
    loop {
        let deadline = pulse.rests_since() + idle;
        if deadline <= pulse.now() {
            return;
        }
        wait_until(worker, deadline).await;
    }
}

async fn wait_until(worker: &Worker, deadline: Instant) {
    let mut alarm = worker.alarms.alarm(deadline);
    poll_fn(|context| alarm.poll(context)).await;
}

/// Runs hyper's streams on the worker's own thread, each with its [`Turn`].
#[derive(Clone)]
struct Streams {
    /// The turn of the stream that was taken up last. Held by the stream itself: what hyper does not take up after all, for
    /// its caller has left, is not kept here.
    taken_up: Rc<RefCell<Weak<Turn>>>,
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    pulse: Rc<Pulse>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    /// Takes an answer on its way, or what writes to a tunnel.
    fn execute(&self, stream: F) {
        let turn = self.taken_up.take().upgrade().unwrap_or_default();
        let worker = Rc::clone(&self.worker);
        match turn.tunnel.take() {
            None => drop(tokio::task::spawn_local(run(stream, turn, worker))),
            Some(tunnel) => {
                let (peer, beat) = (Rc::clone(&self.peer), self.pulse.second_beat());
                tokio::task::spawn_local(async move {
                    tunnel.run_on_stream(stream, &peer, (&worker, &beat)).await;
                });
            }
        }
    }
}

/// Runs a stream until its caller takes nothing of its answer for too long. Dropped, it is reset with CANCEL, and its command
/// settles as aborted.
async fn run(stream: impl Future<Output = ()>, turn: Rc<Turn>, worker: Rc<Worker>) {
    let patience = worker.capacity.answer_idle;
    let mut stream = pin!(stream);
    let mut wait = Wait::default();
    poll_fn(|context| match (stream.as_mut().poll(context), turn.callers_since()) {
        (Poll::Pending, Some(since)) => {
            ready!(wait.poll(context, since + patience));
            worker.recorder.limit_hit(LimitHit::AnswerIdle);
            Poll::Ready(())
        }
        (polled, _) => polled,
    })
    .await;
}
