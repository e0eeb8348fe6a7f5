//! A connection that speaks HTTP/1.1 (RFC 9112).
//!
//! Guarantees: hyper reads nothing that [`super::wire`] has not read first; every request that arrives is counted, those
//! that are not HTTP too. Heads, silence, bodies, answers that are not taken, and the connection itself have limits of
//! time; what hyper buffers has one of size.

use std::pin::pin;
use std::rc::Rc;

use futures_util::TryFutureExt as _;
use futures_util::future::{Either, ready};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::server::TlsStream;

use crate::config::Capacity;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::LimitHit;

use super::connection::time_to_go;
use super::departing::Departing;
use super::exchange::{exchange, turn_away};
use super::patient::Patient;
use super::peer::Peer;
use super::pulse::Pulse;
use super::refuse::count_unseen;
use super::socket::Socket;
use super::wire::{Found, Guard, HeadLimits, Manners};
use super::worker::Worker;

/// Bytes that hyper buffers each way; a larger head than this has a larger buffer.
const BUFFER: usize = 64 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    stream: TlsStream<Socket>,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let pulse = Rc::new(Pulse::new(worker.alarms.coarse()));
    let found = Rc::new(Found::default());
    let stream = Patient::new(stream, &worker);
    let stream = Guard::new(stream, manners(&capacity), Rc::clone(&found), Rc::clone(&pulse));
    let service = service_fn(|request| {
        let beat = pulse.beat();
        let answer = match found.take() {
            None => Either::Left(exchange(&worker, &peer, request)),
            Some(fault) => {
                if fault.is_late() {
                    worker.recorder.limit_hit(LimitHit::HeadTime);
                }
                Either::Right(ready(turn_away(&worker, &peer, &request, fault)))
            }
        };
        answer.map_ok(|answer| answer.map(|body| Departing::over_http1(body, beat)))
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None) // the guard's work
        .max_headers(capacity.head_fields)
        .max_header_size(capacity.head_bytes)
        .max_buf_size(BUFFER.max(capacity.head_bytes))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = time_to_go(&worker, &peer, &mut drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if served.as_ref().is_err_and(hyper::Error::is_parse) {
        count_unseen(&worker, &peer);
    }
    served
}

fn manners(capacity: &Capacity) -> Manners {
    Manners {
        head: HeadLimits { bytes: capacity.head_bytes, fields: capacity.head_fields },
        head_time: capacity.head_time,
        idle: capacity.idle,
    }
}
