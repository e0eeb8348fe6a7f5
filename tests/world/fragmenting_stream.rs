//! The transport of a caller: a TCP connection that can split the first TLS record into records of one byte. An
//! attacker does so in the hope that SNI is read from the first packet only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A caller's transport to the gateway.
#[derive(Debug)]
pub struct FragmentingStream {
    stream: TcpStream,
    /// Whether the first write has passed, or is not split.
    cut: bool,
}

impl FragmentingStream {
    /// Returns a transport that splits no record.
    pub fn unfragmented(stream: TcpStream) -> Self {
        Self { stream, cut: true }
    }

    /// Returns a transport that splits the first record into records of one byte each, sent one by one.
    pub fn fragmented(stream: TcpStream) -> Self {
        Self { stream, cut: false }
    }

    /// Waits for bytes, without reading them. Returns 0 at the end of the stream, otherwise 1.
    pub async fn peek(&self) -> io::Result<usize> {
        self.stream.peek(&mut [0]).await
    }
}

impl AsFd for FragmentingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for FragmentingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for FragmentingStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        self.cut = true; // the first write of a caller is its ClientHello, one record
        assert_eq!((bytes[0], bytes.len() - 5), (0x16, usize::from(u16::from_be_bytes([bytes[3], bytes[4]]))));
        let crumbs: Vec<u8> = bytes[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
        let socket = self.stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from)?;
        for crumb in crumbs.chunks(6) {
            io::Write::write_all(&mut &socket, crumb)?; // all records together are far smaller than a socket's buffer
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
