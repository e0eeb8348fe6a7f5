//! The protocol of an unencrypted connection, which has no ALPN: HTTP/2 with prior knowledge or HTTP/1.1.
//!
//! Guarantees:
//! - Only the connection preface of HTTP/2 (RFC 9113 section 3.4) selects HTTP/2. Its first line is no request of
//!   HTTP/1.1 that the gateway accepts, so no byte has two meanings.
//! - At most 24 bytes are read, and no byte is lost.
//!
//! Leaves to others: the time limit.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first bytes of a connection, read to find out its protocol.
#[derive(Debug, Default)]
pub(crate) struct PeekedBytes {
    bytes: [u8; PREFACE.len()],
    /// The bytes that were handed over already.
    start: usize,
    end: usize,
}

impl PeekedBytes {
    /// Reads until the bytes are the preface, or cannot become it any more, or the stream ends. Returns whether the
    /// protocol is HTTP/2.
    pub(crate) async fn detect_http2(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        while self.end < PREFACE.len() {
            let read = stream.read(&mut self.bytes[self.end..]).await?;
            self.end += read;
            if read == 0 || self.bytes[..self.end] != PREFACE[..self.end] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves bytes to the buffer. Returns `false` if none are left.
    pub(crate) fn move_to(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let count = buffer.remaining().min(self.end - self.start);
        buffer.put_slice(&self.bytes[self.start..self.start + count]);
        self.start += count;
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn detected(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut client, mut stream) = tokio::io::duplex(64);
        let mut peeked = PeekedBytes::default();
        let written = async {
            for piece in pieces {
                client.write_all(piece).await.expect("space");
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let (is_http2, ()) = tokio::join!(peeked.detect_http2(&mut stream), written);
        let is_http2 = is_http2.expect("no error");
        let mut left = Vec::new();
        let mut bytes = [0; 5];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            if !peeked.move_to(&mut buffer) {
                break;
            }
            left.extend_from_slice(buffer.filled());
        }
        stream.read_to_end(&mut left).await.expect("no error");
        (is_http2, left)
    }

    #[tokio::test]
    async fn only_the_whole_preface_selects_http2_and_no_byte_is_lost() {
        for (pieces, is_http2) in [
            (&[&PREFACE[..]][..], true),
            (&[&PREFACE[..1], &PREFACE[1..20], &PREFACE[20..], b"more"], true),
            (&[b"GET / HTTP/1.1\r\n\r\n"], false),
            (&[b"P", b"UT / HTTP/1.1\r\n\r\n"], false),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"], false),
            (&[b"PRI * HTTP/1.1\r\n\r\n"], false),
            (&[b"PRI"], false),
            (&[], false),
        ] {
            assert_eq!(detected(pieces).await, (is_http2, pieces.concat()), "{pieces:?}");
        }
    }
}
