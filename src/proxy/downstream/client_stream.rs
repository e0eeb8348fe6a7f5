//! The byte stream of a client connection: TLS, or plain TCP.
//!
//! Guarantees: an unencrypted stream returns the bytes that [`super::plain_protocol`] has read from it, before all
//! others.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::proxy::io::tcp_connection::TcpConnection;

use super::plain_protocol::PeekedBytes;

/// The byte stream of a client connection. Boxed, because each future that passes it on reserves its size twice (TLS:
/// more than 1 KiB).
#[derive(Debug)]
pub(crate) enum ClientStream {
    /// After the TLS handshake.
    Tls(Box<TlsStream<TcpConnection>>),
    /// Without TLS.
    Plain(Box<PlainStream>),
}

/// An unencrypted stream, with the bytes that were read before its protocol was known.
#[derive(Debug)]
pub(crate) struct PlainStream {
    pub(crate) socket: TcpConnection,
    pub(crate) peeked: PeekedBytes,
}

impl ClientStream {
    /// Limits the bytes that TLS buffers. A plain stream buffers none.
    pub(crate) fn set_buffer_limit(&mut self, bytes: usize) {
        if let Self::Tls(stream) = self {
            stream.get_mut().1.set_buffer_limit(Some(bytes));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Plain(stream) => match stream.peeked.move_to(buffer) {
                true => Poll::Ready(Ok(())),
                false => Pin::new(&mut stream.socket).poll_read(context, buffer),
            },
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(stream) => stream.socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_shutdown(context),
        }
    }
}
