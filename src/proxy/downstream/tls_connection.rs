//! A TLS connection that is one command: forwarded as it is, or decrypted.
//!
//! Guarantees:
//! - Nothing of the connection is inspected.
//! - The connection ends like a tunnel: at the deadline of its listener's drain or of the caller's lost authorization,
//!   or by itself.
//!
//! Leaves to others: the decision and the account (`exchange::connection`).

use std::rc::Rc;

use bytes::Bytes;

use crate::lifecycle::DrainWatcher;
use crate::proxy::exchange::connection::{admit_connection, forward_connection};
use crate::proxy::io::lingering_close::close_after_handshake;
use crate::proxy::io::write_timeout::WriteTimeout;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

use super::client_stream::ClientStream;
use super::close_reasons::cut_off;

/// Serves a connection until it is closed. `received` are the bytes that were read of a connection that is passed
/// through.
pub(crate) async fn serve_connection_command(
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
    (stream, received): (ClientStream, Bytes),
    mut drain: DrainWatcher,
) {
    let Ok(admitted) = admit_connection(&worker, &peer) else { return close_after_handshake(stream).await };
    let stream = WriteTimeout::new(stream, worker.capacity.response_idle, &worker.components.telemetry);
    tokio::select! {
        () = forward_connection(&worker, admitted, stream, received) => {}
        // Dropping the connection settles its command as aborted, or as interrupted at the end of a drain.
        () = cut_off(&peer, &mut drain) => {}
    }
}
