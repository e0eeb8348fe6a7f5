//! A small HTTP client for single requests outside the load: control, readiness, metrics.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Timeout of one request.
const LIMIT: Duration = Duration::from_secs(5);

/// The largest response body, in bytes.
const BODY_LIMIT: usize = 64 << 20;

/// The body of a successful GET.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = ask(address, path).with_context(|| format!("asking http://{address}{path}"))?;
    ensure!(status.is_success(), "http://{address}{path} answered {status}: {body}");
    Ok(body)
}

/// Status and body of a GET, on a single-use runtime.
fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match tokio::time::timeout(LIMIT, exchange(address, path)).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer in {LIMIT:?}"),
        }
    })
}

async fn exchange(address: SocketAddr, path: &str) -> Result<(StatusCode, String)> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection); // ends with the runtime
    let request = Request::get(path).header("Host", address.to_string()).body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((head.status, String::from_utf8(body.to_bytes().to_vec())?))
}
