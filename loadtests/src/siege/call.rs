//! An HTTP/1.1 caller: a connection from its own source address, one command at a time.
//!
//! Guarantees: a response counts only when its whole body has arrived.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::HOST;
use crate::upstream::{field, head_length};

/// Timeout of a connection attempt or a command.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest response, head and body, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Source, destination and TLS configuration of a caller.
#[derive(Clone, Debug)]
pub struct Way {
    pub to: SocketAddr,
    pub tls: Arc<ClientConfig>,
    /// Size of the kernel's receive buffer, in bytes. A smaller buffer makes a slower reader.
    pub receive_buffer: Option<u32>,
}

impl Way {
    /// A TCP connection from 127.0.0.x, where x depends on `n`.
    pub async fn dial(&self, n: usize) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let last = 2 + u8::try_from(n % 16)?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
        let stream = tokio::time::timeout(PATIENCE, socket.connect(self.to)).await.context("connecting")??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection from the same source address.
    pub async fn enter(&self, n: usize) -> Result<TlsStream<TcpStream>> {
        let stream = self.dial(n).await?;
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(ServerName::try_from(HOST)?, stream);
        Ok(tokio::time::timeout(PATIENCE, connecting).await.context("shaking hands")??)
    }

    /// A caller with its own connection.
    pub async fn caller(&self, n: usize) -> Result<Caller> {
        Ok(Caller { stream: self.enter(n).await?, input: Vec::with_capacity(2048) })
    }
}

/// The response to a command.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    pub has_retry_after: bool,
    /// Whether the connection takes no more commands.
    pub is_last: bool,
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Caller {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
}

impl Caller {
    /// Sends one command and reads the whole response.
    pub async fn command(&mut self, path: &str) -> Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(path)).await.context("waiting for an answer")?
    }

    async fn exchange(&mut self, path: &str) -> Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.context("sending the command")?;
        self.stream.flush().await.context("sending the command")?;
        self.input.clear();
        let head = loop {
            self.read_more().await?;
            if let Some(length) = head_length(&self.input) {
                break length;
            }
        };
        let (answer, length) = understand(&self.input[..head])?;
        while self.input.len() < head + length {
            self.read_more().await?;
        }
        Ok(answer)
    }

    async fn read_more(&mut self) -> Result<()> {
        ensure!(self.input.len() < ANSWER_LIMIT, "the answer was longer than {ANSWER_LIMIT} bytes");
        let read = self.stream.read_buf(&mut self.input).await.context("reading the answer")?;
        ensure!(read > 0, "the gateway closed the connection before the end of the answer");
        Ok(())
    }
}

fn understand(head: &[u8]) -> Result<(Answer, usize)> {
    let status = std::str::from_utf8(head.get(9..12).unwrap_or_default())?.parse().context("a status")?;
    let length = field(head, b"content-length").context("an answer has a Content-Length")?;
    let length = std::str::from_utf8(length)?.parse().context("a Content-Length is a number")?;
    let has_retry_after = field(head, b"retry-after").is_some();
    let is_last = field(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok((Answer { status, has_retry_after, is_last }, length))
}
