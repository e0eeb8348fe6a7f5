//! New connections to servers: TCP, within the connect timeout of tower.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tower::{ServiceExt as _, service_fn, timeout::Timeout};

use crate::proxy::socket::Socket;

use super::h1::Wire;
use super::health::Health;

/// Opens a connection. The text of an error names the address.
pub(super) async fn connect(address: &str, within: Duration, health: &Arc<Health>) -> Result<Box<Wire>, String> {
    let socket = open(address, within).await.map_err(|why| format!("{address}: {why}"))?;
    Ok(Box::new(Wire::new(socket, health)))
}

async fn open(address: &str, within: Duration) -> Result<Socket, String> {
    let connector = Timeout::new(service_fn(TcpStream::connect::<&str>), within);
    let stream = connector.oneshot(address).await.map_err(|why| match why.is::<tower::timeout::error::Elapsed>() {
        true => format!("no connection within {} ms", within.as_millis()),
        false => why.to_string(),
    })?;
    Socket::new(stream).map_err(|why| why.to_string())
}
