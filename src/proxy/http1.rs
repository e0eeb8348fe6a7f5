//! A connection that speaks HTTP/1.1 (RFC 9112).
//!
//! Guarantees: hyper reads nothing that [`super::wire`] has not read first; every request that arrives is counted, those
//! that are not HTTP too. Heads, silence, bodies, answers that are not taken, and the connection itself have limits of
//! time; what hyper buffers has one of size; the answer to the last command that a connection carries says so; what is on its way
//! for a caller that is sent away is cut off in time ([`Peer::cut_off`]).

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::{Either, ready};
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::config::Capacity;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::LimitHit;

use super::connection::{Secured, time_to_go};
use super::departing::Departing;
use super::exchange::{exchange, turn_away};
use super::interim::{InterimHeads, InterimLine};
use super::patient::Patient;
use super::peer::Peer;
use super::pulse::Pulse;
use super::refuse::count_unseen;
use super::tunnel::Tunnel;
use super::wire::{Found, Guard, HeadLimits, Manners};
use super::worker::Worker;

/// The reason of a status that has no name here (RFC 9112 section 4: it may be empty). hyper would write `<none>`.
const NO_REASON: ReasonPhrase = ReasonPhrase::from_static(b"");
/// Bytes that hyper buffers each way; a larger head than this has a larger buffer.
const BUFFER: usize = 32 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    stream: Secured,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let pulse = Rc::new(Pulse::new(worker.alarms.coarse(), capacity.connection_commands));
    let found = Rc::new(Found::default());
    let stream = Patient::new(stream, &worker);
    let interim = Rc::<InterimHeads>::default();
    let stream = Guard::new(stream, manners(&capacity), (Rc::clone(&found), Rc::clone(&interim)), Rc::clone(&pulse));
    let service = service_fn(|request: Request<Incoming>| {
        let beat = pulse.beat();
        let answer = match found.take() {
            None => {
                let takes_interim = request.version() == Version::HTTP_11; // HTTP/1.0 has none
                let line = takes_interim.then(|| InterimLine::Http1(Rc::clone(&interim)));
                Either::Left(exchange(&worker, &peer, request, line))
            }
            Some(fault) => {
                if fault.is_late() {
                    worker.recorder.limit_hit(LimitHit::HeadTime);
                }
                Either::Right(ready(turn_away(&worker, &peer, &request, fault)))
            }
        };
        answer.map_ok(|mut answer| {
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                found.hand_over();
            } else if pulse.is_spent() {
                answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
            }
            if answer.status().canonical_reason().is_none() {
                answer.extensions_mut().insert(NO_REASON);
            }
            answer.map(|body| Departing::over_http1(body, beat))
        })
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None) // the guard's work
        .max_headers(capacity.head_fields)
        .max_header_size(capacity.head_bytes)
        .max_buf_size(BUFFER.max(capacity.head_bytes))
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = poll_fn(|context| connection.poll_without_shutdown(context)) => served,
        () = time_to_go(&worker, (&peer, &pulse), &mut drain) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                served = poll_fn(|context| connection.poll_without_shutdown(context)) => served,
                () = Box::pin(peer.cut_off()) => return Ok(()), // dropping it ends its command as aborted
            }
        }
    };
    if served.as_ref().is_err_and(hyper::Error::is_parse) {
        count_unseen(&worker, &peer);
    }
    served?;
    let Parts { io, read_buf, .. } = connection.into_parts();
    leave(&peer, io.into_inner(), read_buf).await;
    Ok(())
}

/// HTTP is over: the connection ends, or goes on as what its last answer said.
async fn leave<S: AsyncRead + AsyncWrite + Unpin>(peer: &Peer, mut stream: Guard<S>, read: Bytes) {
    match peer.tunnel.take() {
        None => drop(stream.shutdown().await), // it ends either way
        Some(tunnel) => {
            // A caller that spoke before it was told to has broken off; dropping the tunnel says so.
            if let Some(stream) = stream.into_quiet().filter(|_| read.is_empty()) {
                // Boxed: every connection would have the memory for it, 4 KiB, from its beginning.
                Box::pin(carry(tunnel, peer, stream, read)).await;
            }
        }
    }
}

async fn carry(tunnel: Tunnel, peer: &Peer, stream: impl AsyncRead + AsyncWrite, read: Bytes) {
    tokio::select! {
        () = tunnel.run(stream, read) => {}
        () = peer.sent_away() => {} // dropping the tunnel ends its command as aborted
    }
}

fn manners(capacity: &Capacity) -> Manners {
    Manners { head: HeadLimits::of(capacity), head_time: capacity.head_time, idle: capacity.idle }
}
