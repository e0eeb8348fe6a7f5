//! New connections to servers: TCP, within the connect timeout of tower, then hyper's HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{ServiceExt as _, service_fn, timeout::Timeout};

use crate::proxy::request_body::RequestBody;
use crate::proxy::socket::Socket;

use super::health::Health;

/// The largest head of an answer; nginx's default is smaller, HAProxy's the same order.
const ANSWER_HEAD_MAX: usize = 64 * 1024;

/// Opens a connection. The text of an error names the address.
pub(super) async fn connect(
    address: &str,
    within: Duration,
    health: &Arc<Health>,
) -> Result<SendRequest<RequestBody>, String> {
    let stream = open(address, within).await.map_err(|why| format!("{address}: {why}"))?;
    let handshake = http1::Builder::new().max_header_size(ANSWER_HEAD_MAX).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|why| format!("{address}: {why}"))?;
    let health = Arc::clone(health);
    health.stats.connections.up();
    tokio::task::spawn_local(async move {
        // Whatever ends it, whoever waits for an answer on it is told through its own future.
        let _ = connection.await;
        health.stats.connections.down();
    });
    Ok(sender)
}

async fn open(address: &str, within: Duration) -> Result<Socket, String> {
    let connector = Timeout::new(service_fn(TcpStream::connect::<&str>), within);
    let stream = connector.oneshot(address).await.map_err(|why| match why.is::<tower::timeout::error::Elapsed>() {
        true => format!("no connection within {} ms", within.as_millis()),
        false => why.to_string(),
    })?;
    Socket::new(stream).map_err(|why| why.to_string())
}
