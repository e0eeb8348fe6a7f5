//! The byte stream between the gateway and a server: TCP, a Unix socket, or TLS over TCP, as one type.
//!
//! Guarantees: reads and writes, also vectored ones, go straight to the socket or to rustls.
//!
//! Leaves to others: opening the stream (`transport`), and the protocol on it (`h1`, `h2`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use crate::proxy::io::tcp_connection::TcpConnection;

/// An open connection to a server.
pub(crate) enum ServerStream {
    /// TCP without TLS.
    Tcp(TcpConnection),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpConnection>>),
}

macro_rules! delegate_stream {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream.get_mut() {
            ServerStream::Tcp($inner) => $do,
            ServerStream::Unix($inner) => $do,
            ServerStream::Tls($inner) => $do,
        }
    };
}

impl ServerStream {
    /// Ready when a read is worth a buffer: data has arrived, or readiness cannot be determined.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_readable(context),
            Self::Unix(socket) => socket.poll_read_ready(context),
            Self::Tls(_) => Poll::Ready(Ok(())), // rustls may hold decrypted data
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate_stream!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate_stream!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate_stream!(self, inner => Pin::new(inner).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate_stream!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate_stream!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
