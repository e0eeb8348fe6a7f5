//! One HTTP/1.1 request on a connection of its own: connect, TLS, send, read a bounded body. Redirects are not
//! followed.

use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::prometheus_error::QueryFault;
use super::prometheus_url::PrometheusUrl;

/// Sends a request. Returns status and body; a body of more than `bytes_max` is a fault.
pub(super) async fn send_request(
    url: &PrometheusUrl,
    tls: Option<Arc<ClientConfig>>,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(u16, Bytes), QueryFault> {
    let connected = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = connected.map_err(|error| QueryFault::Unreachable(error.to_string()))?;
    let Some(config) = tls else { return exchange(stream, request, bytes_max).await };
    let name = ServerName::try_from(url.host.clone()).map_err(|error| QueryFault::Tls(error.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    exchange(stream.map_err(|error| QueryFault::Tls(error.to_string()))?, request, bytes_max).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(u16, Bytes), QueryFault> {
    let broken = |error: hyper::Error| QueryFault::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    check_status(&head)?;
    let body = Limited::new(body, bytes_max).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => QueryFault::TooLarge(bytes_max >> 20),
        false => QueryFault::Broken(error.to_string()),
    })?;
    connection.abort();
    Ok((head.status.as_u16(), body.to_bytes()))
}

/// Refuses statuses that need no body to be understood.
fn check_status(head: &http::response::Parts) -> Result<(), QueryFault> {
    let status = head.status.as_u16();
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&head.status) {
        return Err(QueryFault::Unauthorized(status));
    }
    if head.status.is_redirection() {
        let to = head.headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        return Err(QueryFault::Redirected(status, to.unwrap_or_default()));
    }
    Ok(())
}
