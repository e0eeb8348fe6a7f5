//! Keeps the bytes of a ClientHello while it is read, for a connection that is passed through.
//!
//! Guarantees:
//! - At most [`CLIENT_HELLO_MAX`] bytes and one piece are kept. A longer ClientHello is an error.
//! - No byte is lost: what was read is the beginning of the connection, whatever its records and segments.
//!
//! Leaves to others: the time limit (that of the handshake), and the parsing (rustls).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest ClientHello, in bytes with the heads of its records. Those of browsers have about 2 KiB (with a
/// post-quantum key share), and Envoy has the same limit.
pub(crate) const CLIENT_HELLO_MAX: usize = 16 * 1024;

/// A stream that keeps what is read from it.
pub(crate) struct HelloRecorder<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S> HelloRecorder<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The stream, and all bytes that were read from it.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.read.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HelloRecorder<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let recorder = self.get_mut();
        if recorder.read.len() > CLIENT_HELLO_MAX {
            let text = format!("the ClientHello is longer than {CLIENT_HELLO_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::General(text))));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut recorder.stream).poll_read(context, buffer))?;
        recorder.read.extend_from_slice(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HelloRecorder<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_kept_up_to_the_limit() {
        let sent: Vec<u8> = (0..CLIENT_HELLO_MAX + 1).map(|at| at as u8).collect();
        let mut recorder = HelloRecorder::new(&sent[..]);
        let mut piece = [0; 1000];
        let mut count = 0;
        let error = loop {
            match recorder.read(&mut piece).await {
                Ok(0) => panic!("the limit was not applied"),
                Ok(read) => count += read,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("longer than 16384 bytes"), "{error}");
        assert_eq!(count, sent.len(), "one piece more than the limit");
        assert_eq!(recorder.into_parts().1, sent);
    }
}
