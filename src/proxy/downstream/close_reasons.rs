//! Graceful shutdown: when a client's connection takes no more requests.
//!
//! The reasons: the listener drains (the gateway stops, or a reload has removed the listener), the caller is no longer
//! authorized, or the connection has reached its maximum age or number of requests. When the gateway will stop, the
//! number of requests is reached with the next one.
//!
//! Guarantees: revocation, and the spreading of load over several gateways, do not depend on a client that closes its
//! connection.
//!
//! Leaves to others: the close itself (`http1`, `http2`).

use std::future::poll_fn;

use tokio::time::Instant;

use crate::lifecycle::DrainWatcher;
use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

/// Ready when a connection takes no more commands: its listener drains, the caller is deauthorized, or the connection
/// has reached its maximum age or number of commands. Revocation and the spreading of load over gateways need
/// connections that end.
pub(crate) async fn shutdown_requested(
    worker: &TrafficWorker,
    (peer, activity): (&DownstreamPeer, &ConnectionActivity),
    drain: &mut DrainWatcher,
) {
    let age = worker.jittered(worker.capacity.connection_age);
    let mut timer = worker.tick_timers.timer_at(Instant::now() + age);
    tokio::select! {
        () = drain.begun() => peer.note_drain(drain),
        () = peer.deauthorized() => {}
        () = activity.request_limit_reached() => {}
        () = poll_fn(|context| timer.poll_elapsed(context)) => {}
    }
}

/// Ready when the commands in flight of a closing connection must be cut off: at the deadline of a lost authorization
/// ([`DownstreamPeer::wait_until_cut_off`]), or at the deadline of the drain of its listener, which may still begin.
pub(crate) async fn cut_off(peer: &DownstreamPeer, drain: &mut DrainWatcher) {
    let note_drain = async {
        drain.begun().await;
        peer.note_drain(drain);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = peer.wait_until_cut_off() => {}
        () = note_drain => {}
    }
}
