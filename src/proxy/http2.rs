//! A connection that speaks HTTP/2 (RFC 9113).
//!
//! Guarantees: it holds a bounded amount of memory, whatever its caller sends or does not take; resets, whether by the caller or by
//! us, are counted and end it, and so are frames that do nothing; a connection that never opens, one without streams, a
//! stream whose answer is not taken, and the connection itself have limits of time; what is on its way for a caller that is sent
//! away is cut off in time ([`Peer::cut_off`]). A stream may become a [`super::tunnel`],
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

use crate::config::Capacity;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::LimitHit;

use super::connection::{Secured, time_to_go};
use super::departing::{Departing, Turn};
use super::exchange::exchange;
use super::frames::{Frames, Watchers};
use super::heads::Heads;
use super::interim::{InterimLine, InterimStreams};
use super::numbers::take_number;
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

/// How many times `headBytes` h2 decodes of a head, so that we can refuse it in full: with a problem document, an id, a count. More
/// gets h2's own 431, counted by [`Heads`]; four times more ends the connection (`MAX_HEADER_LIST_ABUSE_MULTIPLIER`). Three,
/// because h2 leaves out the fields of a trailer that go beyond it, and tells nobody: one field takes at most 1.6 times what it
/// has on the wire (5 bits for a byte, RFC 7541 appendix B), so what is left of such a trailer is still more than `headBytes`.
const HEAD_READ_FACTOR: usize = 3;

/// Bytes of a head that h2 decodes, as RFC 9113 section 6.5.2 counts them.
fn head_read_max(capacity: &Capacity) -> u32 {
    u32::try_from(capacity.head_bytes.saturating_mul(HEAD_READ_FACTOR)).unwrap_or(u32::MAX)
}

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
    let heads = Rc::new(Heads::new(&worker, &peer));
    let interim = Rc::<InterimStreams>::default();
    let watchers = Watchers { heads: Rc::clone(&heads), interim: Rc::clone(&interim) };
    let stream = Frames::new(stream, watchers, &pulse, &worker);
    let streams = Streams {
        taken_up: Rc::default(),
        worker: Rc::clone(&worker),
        peer: Rc::clone(&peer),
        pulse: Rc::clone(&pulse),
    };
    let (taken_up, untaken) = (Rc::clone(&streams.taken_up), Rc::new(Untaken::new(worker.alarms.coarse())));
    let service = service_fn(|mut request: Request<Incoming>| {
        let number = number_of(&mut request, &interim);
        heads.taken_up(number);
        let line = number.and_then(|number| interim.stream(number)).map(InterimLine::Http2);
        let (beat, turn, untaken) = (pulse.beat(), Rc::new(Turn::default()), Rc::clone(&untaken));
        taken_up.replace(Rc::downgrade(&turn)); // hyper hands the stream to be run right after this
        let (peer_too, taken_up) = (Rc::clone(&peer), Rc::clone(&taken_up));
        let answer = exchange(&worker, &peer, request, line);
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
        .max_header_list_size(head_read_max(&capacity))
        .max_pending_accept_reset_streams(CALLERS_RESETS_MAX)
        .max_local_error_reset_streams(OUR_RESETS_MAX)
        .enable_connect_protocol() // RFC 8441 section 3; asked of no subsystem
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = in_turns(connection.as_mut(), &heads, &interim) => return served,
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
        served = in_turns(connection, &heads, &interim) => served,
        () = parted(&worker, &pulse, &heard) => Ok(()),
        () = Box::pin(peer.cut_off()) => Ok(()), // its streams break, and their commands end as aborted
    }
}

/// The number of a request's stream, which nothing else sees of it.
fn number_of(request: &mut Request<Incoming>, interim: &InterimStreams) -> Option<u32> {
    if interim.is_off() { None } else { take_number(request.headers_mut()) }
}

/// Runs a connection, and tells its heads whenever it is polled again, and its interim answers who polls it.
fn in_turns<F: Future>(
    mut connection: Pin<&mut F>,
    heads: &Heads,
    interim: &InterimStreams,
) -> impl Future<Output = F::Output> {
    poll_fn(move |context| {
        heads.next_turn();
        interim.polled_by(context.waker());
        connection.as_mut().poll(context)
    })
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
            None => drop(tokio::task::spawn_local(run(stream, turn, (worker, Rc::clone(&self.pulse))))),
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
/// settles as aborted. While the whole connection takes nothing more, a stream may only wait for its turn among others:
/// [`Patient`] ends the connection if nothing moves at all.
async fn run(stream: impl Future<Output = ()>, turn: Rc<Turn>, (worker, pulse): (Rc<Worker>, Rc<Pulse>)) {
    let patience = worker.capacity.answer_idle;
    let mut stream = pin!(stream);
    let mut wait = Wait::default();
    poll_fn(|context| {
        let polled = stream.as_mut().poll(context);
        let Some(since) = turn.callers_since().filter(|_| polled.is_pending()) else { return polled };
        ready!(wait.poll(context, since + patience));
        if pulse.is_stalled() {
            turn.begin_anew(Instant::now());
            ready!(wait.poll(context, Instant::now() + patience));
        }
        worker.recorder.limit_hit(LimitHit::AnswerIdle);
        Poll::Ready(())
    })
    .await;
}
