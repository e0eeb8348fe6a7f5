//! Paths, metric names and servers that several tests use.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::ANY_PORT;

/// The path of the command `snapshot.read` of `cameras`: one unit, without a body.
pub const READ: &str = "/cameras/v1/snapshots/1";

/// The path of the command `snapshot.submit` of `cameras`: one unit, with a body.
pub const SUBMIT: &str = "/cameras/v1/snapshots";

pub const ATTEMPTS: &str = "tallygate_upstream_attempts_total";
pub const RETRIES: &str = "tallygate_upstream_retries_total";
pub const EJECTED: &str = "tallygate_upstream_ejected";
pub const QUEUED: &str = "tallygate_commands_queued";
pub const IN_FLIGHT: &str = "tallygate_commands_in_flight";

/// Starts a server that reads once from each connection, sends these bytes, and closes the connection.
pub async fn canned_server(response: impl Into<String>) -> SocketAddr {
    let (listener, response) = (TcpListener::bind(ANY_PORT).await.unwrap(), response.into());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16 * 1024]).await;
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}
