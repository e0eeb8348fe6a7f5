//! A lane: a transport on which a department has one command in flight at a time.
//!
//! - HTTP/1.1 is written and parsed here, because the driver shares a core with the upstream and must cost little.
//! - HTTP/2 is hyper's.
//! - A response counts only when its whole body has arrived.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::HOST;
use crate::upstream::{field, head_length};

/// The path of the only command: `snapshot.read` of the cameras.
const PATH: &str = "/cameras/v1/snapshots/7";

/// The largest HTTP/1.1 response, head and body, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The address and the TLS configuration with which one department connects.
#[derive(Clone, Debug)]
pub struct Door {
    /// The proxy's address.
    pub address: SocketAddr,
    /// TLS with the department's certificate and protocol (ALPN).
    pub tls: Arc<ClientConfig>,
}

impl Door {
    /// Opens a TLS connection, whose ALPN protocol must be the requested one.
    pub async fn enter(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(ServerName::try_from(HOST)?, stream).await.context("shaking hands (TLS)")?;
        let agreed = stream.get_ref().1.alpn_protocol();
        ensure!(
            agreed == self.tls.alpn_protocols.first().map(Vec::as_slice),
            "the proxy did not agree to the protocol asked for (ALPN)"
        );
        Ok(stream)
    }
}

/// One command in flight at a time, over one of three kinds of transport.
#[derive(Debug)]
pub enum Lane {
    /// An HTTP/1.1 keep-alive connection.
    KeepAlive(Box<KeepAlive>),
    /// One stream at a time on a shared HTTP/2 connection.
    Stream(http2::SendRequest<Empty<Bytes>>, Uri),
    /// A new connection for each command.
    Fresh(Door),
}

impl Lane {
    /// A lane with its own HTTP/1.1 connection.
    pub async fn keep_alive(door: &Door) -> Result<Self> {
        Ok(Self::KeepAlive(Box::new(KeepAlive::connect(door, "keep-alive").await?)))
    }

    /// `streams` lanes that share one HTTP/2 connection.
    pub async fn streams(door: &Door, streams: usize) -> Result<Vec<Self>> {
        let io = TokioIo::new(door.enter().await?);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.context("shaking hands (HTTP/2)")?;
        tokio::spawn(connection); // its errors come back through the senders
        let uri: Uri = format!("https://{HOST}{PATH}").parse()?;
        Ok((0..streams).map(|_| Self::Stream(sender.clone(), uri.clone())).collect())
    }

    /// Sends one command, reads the whole response and returns its status.
    pub async fn command(&mut self) -> Result<u16> {
        match self {
            Self::KeepAlive(connection) => connection.command().await,
            Self::Stream(sender, uri) => stream_command(sender, uri.clone()).await,
            Self::Fresh(door) => KeepAlive::connect(door, "close").await?.command().await,
        }
    }
}

async fn stream_command(sender: &mut http2::SendRequest<Empty<Bytes>>, uri: Uri) -> Result<u16> {
    sender.ready().await?;
    let mut answer = sender.send_request(Request::get(uri).body(Empty::new())?).await?;
    while let Some(frame) = answer.body_mut().frame().await {
        frame.context("reading the answer")?;
    }
    Ok(answer.status().as_u16())
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct KeepAlive {
    stream: TlsStream<TcpStream>,
    request: String,
    input: Vec<u8>,
}

impl KeepAlive {
    async fn connect(door: &Door, connection: &str) -> Result<Self> {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nConnection: {connection}\r\n\r\n");
        Ok(Self { stream: door.enter().await?, request, input: Vec::with_capacity(4096) })
    }

    async fn command(&mut self) -> Result<u16> {
        self.stream.write_all(self.request.as_bytes()).await.context("sending the command")?;
        self.stream.flush().await.context("sending the command")?;
        self.input.clear();
        let head = self.read_head().await?;
        let (status, length) = understand(&self.input[..head])?;
        while self.input.len() < head + length {
            self.read_more().await?;
        }
        ensure!(self.input.len() == head + length, "the answer was longer than its Content-Length");
        Ok(status)
    }

    async fn read_head(&mut self) -> Result<usize> {
        loop {
            self.read_more().await?;
            if let Some(length) = head_length(&self.input) {
                return Ok(length);
            }
        }
    }

    async fn read_more(&mut self) -> Result<()> {
        ensure!(self.input.len() < ANSWER_LIMIT, "the answer was longer than {ANSWER_LIMIT} bytes");
        let read = self.stream.read_buf(&mut self.input).await.context("reading the answer")?;
        ensure!(read > 0, "the proxy closed the connection before the end of the answer");
        Ok(())
    }
}

/// Parses the head of a response into status and body length.
fn understand(head: &[u8]) -> Result<(u16, usize)> {
    let status = std::str::from_utf8(head.get(9..12).unwrap_or_default())?;
    let status = status.parse().with_context(|| format!("the answer's status is no number: {status:?}"))?;
    let Some(length) = field(head, b"content-length") else {
        bail!("the answer (status {status}) has no Content-Length, although the upstream sent one");
    };
    Ok((status, std::str::from_utf8(length)?.parse().context("the answer's Content-Length is no number")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_parsed_or_refused_with_a_reason() {
        let good = understand(b"HTTP/1.1 429 Slow Down\r\ncontent-length: 12\r\n\r\n").expect("a good head");
        assert_eq!(good, (429, 12));
        let chunked = understand(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect_err("no length");
        assert!(chunked.to_string().contains("no Content-Length"), "{chunked}");
        assert!(understand(b"garbage").is_err());
    }
}
