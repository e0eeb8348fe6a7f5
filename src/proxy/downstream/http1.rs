//! A connection that speaks HTTP/1.1 (RFC 9112).
//!
//! Guarantees:
//! - hyper reads only bytes that [`crate::proxy::message::grammar`] has scanned before.
//! - Every request that arrives is counted, and so is a request that is not valid HTTP.
//! - Time limits: head, idle timeout, body, response that the caller does not read (write timeout), age of the
//!   connection.
//! - Size limit: the buffers of hyper ([`BUFFER_SIZE`]).
//! - The response to the last command of a connection has `Connection: close`. Each response is the last one once the
//!   gateway has announced that it will stop: a client never writes to a connection that is about to close.
//! - The commands of a deauthorized caller, and those of a removed listener, are cut off in time ([`cut_off`]).

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::{Either, ready};
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::config::CapacitySettings;
use crate::lifecycle::DrainWatcher;
use crate::proxy::exchange::refuse::count_hyper_refusal;
use crate::proxy::exchange::response_body::ResponseBody;
use crate::proxy::exchange::tunnel::UpgradeTunnel;
use crate::proxy::exchange::{exchange, reject_malformed};
use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::io::write_timeout::WriteTimeout;
use crate::proxy::message::grammar::HeadLimits;
use crate::proxy::message::interim_response::{Http1InterimQueue, InterimTarget};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::LimitHit;

use super::client_stream::ClientStream;
use super::close_reasons::{cut_off, shutdown_requested};
use super::h1_scanning_stream::{ClientLimits, PendingFault, ScanningStream};
use super::response_stream::ResponseStream;

/// The reason phrase of a status without a registered name. RFC 9112 section 4 allows an empty phrase; hyper would
/// write `<none>`.
const EMPTY_REASON: ReasonPhrase = ReasonPhrase::from_static(b"");
/// Bytes that hyper buffers in each direction. A configured head limit above this size enlarges the buffer.
const BUFFER_SIZE: usize = 32 * 1024;
/// How long a new connection of a removed listener waits for its first request, which may be on its way.
const FIRST_REQUEST_DRAIN_TIME: Duration = Duration::from_millis(250);

/// Serves a connection until it is closed.
pub(crate) async fn serve_http1(
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    stream: ClientStream,
    mut drain: DrainWatcher,
) -> hyper::Result<()> {
    let capacity = worker.capacity;
    let activity = Rc::new(ConnectionActivity::new(worker.tick_timers.coarse_timer(), capacity.connection_commands));
    let pending_fault = Rc::new(PendingFault::default());
    let stream = WriteTimeout::new(stream, capacity.response_idle, &worker.components.telemetry);
    let interim = Rc::<Http1InterimQueue>::default();
    let tunnel = Cell::default();
    let stream = ScanningStream::new(
        stream,
        client_limits(&capacity),
        (Rc::clone(&pending_fault), Rc::clone(&interim)),
        Rc::clone(&activity),
    );
    let commands = Http1Commands {
        worker: &worker,
        peer: &peer,
        activity: &activity,
        pending_fault: &pending_fault,
        interim: &interim,
        tunnel: &tunnel,
    };
    let service = service_fn(|request| commands.respond(request));
    let mut connection = http1::Builder::new()
        .header_read_timeout(None) // `ScanningStream` enforces the limit.
        .max_headers(capacity.head_fields)
        .max_header_size(capacity.head_bytes)
        .max_buf_size(BUFFER_SIZE.max(capacity.head_bytes))
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = poll_fn(|context| connection.poll_without_shutdown(context)) => served,
        () = shutdown_requested(&worker, (&peer, &activity), &mut drain) => {
            let first = first_request((&peer, &drain), |context| connection.poll_without_shutdown(context));
            match Box::pin(first).await {
                Some(served) => served,
                None => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    tokio::select! {
                        served = poll_fn(|context| connection.poll_without_shutdown(context)) => served,
                        // Dropping the connection settles its command as aborted or interrupted.
                        () = Box::pin(cut_off(&peer, &mut drain)) => return Ok(()),
                    }
                }
            }
        }
    };
    if served.as_ref().is_err_and(hyper::Error::is_parse) {
        count_hyper_refusal(&worker, &peer);
    }
    served?;
    let Parts { io, read_buf, .. } = connection.into_parts();
    finish_connection((&peer, drain), io.into_inner(), read_buf, tunnel.take()).await;
    Ok(())
}

/// Polls a new connection of a removed listener until its first request has arrived, or its time is over. hyper closes
/// a connection without a request at once, although the request may be on its way. Returns the end of the connection,
/// if it ends meanwhile. Other connections are not polled.
async fn first_request<T>(
    (peer, drain): (&DownstreamPeer, &DrainWatcher),
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    if peer.has_requests() || drain.deadline().is_none() {
        return None;
    }
    let arrival = poll_fn(|context| match poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if peer.has_requests() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    timeout(FIRST_REQUEST_DRAIN_TIME, arrival).await.unwrap_or(None)
}

/// The commands of one connection, and what they share.
struct Http1Commands<'a> {
    worker: &'a Rc<TrafficWorker>,
    peer: &'a Rc<DownstreamPeer>,
    activity: &'a Rc<ConnectionActivity>,
    pending_fault: &'a PendingFault,
    interim: &'a Rc<Http1InterimQueue>,
    /// The tunnel that the connection becomes after its last response.
    tunnel: &'a Cell<Option<Box<UpgradeTunnel>>>,
}

impl<'a> Http1Commands<'a> {
    /// The response to one request, and what the connection must know about it.
    fn respond(
        &'a self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ResponseStream>, Infallible>> + use<'a> {
        let active_request = self.activity.begin_request();
        let response = match self.pending_fault.take_fault() {
            None => {
                let takes_interim = request.version() == Version::HTTP_11; // HTTP/1.0 has no interim responses.
                let line = takes_interim.then(|| InterimTarget::Http1(Rc::clone(self.interim)));
                Either::Left(exchange(self.worker, self.peer, request, line))
            }
            Some(fault) => {
                if fault.is_timeout() {
                    self.worker.recorder.count_limit_hit(LimitHit::HeadTime);
                }
                Either::Right(ready(reject_malformed(self.worker, self.peer, request, fault)))
            }
        };
        response.map_ok(|mut response| {
            self.finish_head(&mut response);
            response.map(|body| ResponseStream::over_http1(body, active_request))
        })
    }

    /// Completes the head of a response, and notes whether the connection leaves HTTP after it.
    fn finish_head(&self, response: &mut Response<ResponseBody>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.pending_fault.leave_http();
            self.tunnel.set(response.body_mut().take_tunnel());
        } else if self.activity.is_request_limit_reached() || self.worker.components.departure.is_announced() {
            response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
        }
        if response.status().canonical_reason().is_none() {
            response.extensions_mut().insert(EMPTY_REASON);
        }
    }
}

/// Ends the HTTP part of a connection: closes it, or runs the tunnel that its last response announced.
async fn finish_connection<S: AsyncRead + AsyncWrite + Unpin>(
    (peer, drain): (&DownstreamPeer, DrainWatcher),
    mut stream: ScanningStream<S>,
    read: Bytes,
    tunnel: Option<Box<UpgradeTunnel>>,
) {
    match tunnel {
        None => drop(stream.shutdown().await), // The connection ends, whatever the result.
        Some(tunnel) => {
            // A caller that sent bytes before the response has broken the upgrade. Dropping the tunnel settles it so.
            if let Some(stream) = stream.into_unread().filter(|_| read.is_empty()) {
                // Boxed: otherwise every connection would reserve the 4 KiB of this future from its beginning.
                Box::pin(run_tunnel(*tunnel, (peer, drain), stream, read)).await;
            }
        }
    }
}

async fn run_tunnel(
    tunnel: UpgradeTunnel,
    (peer, mut drain): (&DownstreamPeer, DrainWatcher),
    stream: impl AsyncRead + AsyncWrite,
    read: Bytes,
) {
    tokio::select! {
        () = tunnel.run_on_connection(stream, read) => {}
        // Dropping the tunnel settles its command as aborted, or as interrupted at the end of a drain.
        () = peer.deauthorized() => {}
        () = cut_off(peer, &mut drain) => {}
    }
}

fn client_limits(capacity: &CapacitySettings) -> ClientLimits {
    ClientLimits {
        head: HeadLimits::from_capacity(capacity),
        head_timeout: capacity.head_time,
        idle_timeout: capacity.idle,
    }
}
