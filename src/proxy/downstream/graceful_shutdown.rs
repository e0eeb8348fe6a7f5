//! When a client's connection takes no more requests: the gateway drains, the caller is no longer authorised, or the
//! connection has reached its age or its number of requests.
//!
//! Guarantees: revocation and the spreading of load over gateways do not wait for a client to close its connection.
//! Leaves to others: the close itself (`http1`, `http2`).

use std::future::poll_fn;

use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::lifecycle::DrainWatcher;
use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::io::tcp_connection::TcpConnection;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

/// A socket after its handshake. Boxed, because each future that hands it on has room for it twice (more than a kilobyte).
pub(crate) type TlsSocket = Box<TlsStream<TcpConnection>>;

/// Ready when a connection is to take no more commands: the gateway drains, the caller is sent away, or the connection is old
/// or has carried as many as it may. Revocation and the spreading of load over gateways depend on connections that end.
pub(crate) async fn shutdown_requested(
    worker: &TrafficWorker,
    (peer, pulse): (&DownstreamPeer, &ConnectionActivity),
    drain: &mut DrainWatcher,
) {
    let age = worker.jittered(worker.capacity.connection_age);
    let mut timer = worker.tick_timers.timer_at(Instant::now() + age);
    tokio::select! {
        () = drain.begun() => {}
        () = peer.deauthorized() => {}
        () = pulse.request_limit_reached() => {}
        () = poll_fn(|context| timer.poll_elapsed(context)) => {}
    }
}
