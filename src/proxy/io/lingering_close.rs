//! The lingering close: after a last response, input is read and discarded for a short time.
//!
//! A close with unread bytes would make the kernel send RST, or would reset the HTTP/2 stream, and the response would
//! be lost (curl then drops a response that it already has). The limits are enough for a caller that reads the
//! response only after it has sent its body.
//!
//! Guarantees: at most the limit of bytes and one piece are read, and at most [`LINGER_TIME`] is waited.
//!
//! Leaves to others: when a connection or a body is closed, and the write side before that.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::deadline_timer::DeadlineTimer;

/// The maximum of discarded bytes after a response.
const LINGER_BYTES: usize = 256 * 1024;
/// The maximum of discarded bytes after a failed handshake, whose caller has sent little.
const HANDSHAKE_LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);
/// The size of a read whose bytes are discarded.
const READ_SIZE: usize = 4096;

/// The bytes and the time that a lingering close may still take.
pub(crate) struct LingeringClose {
    left: usize,
    timer: DeadlineTimer,
}

impl LingeringClose {
    /// The close after a response.
    pub(crate) fn after_response() -> Self {
        Self { left: LINGER_BYTES, timer: DeadlineTimer::default() }
    }

    /// Discards input. `poll_next` gives the length of the next piece, or `None` at the end of the input. Ready at
    /// that end, or at the limits.
    pub(crate) fn poll_discard(
        &mut self,
        context: &mut Context<'_>,
        mut poll_next: impl FnMut(&mut Context<'_>) -> Poll<Option<usize>>,
    ) -> Poll<()> {
        loop {
            match poll_next(context) {
                Poll::Ready(Some(bytes)) if bytes <= self.left => self.left -= bytes,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.poll_idle(context, LINGER_TIME),
            }
        }
    }

    /// Discards the input of a stream.
    pub(crate) fn poll_discard_stream<S: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<()> {
        self.poll_discard(context, |context| {
            let mut piece = [MaybeUninit::uninit(); READ_SIZE];
            let mut piece = ReadBuf::uninit(&mut piece);
            let read = Pin::new(&mut *stream).poll_read(context, &mut piece);
            read.map(|read| read.ok().map(|()| piece.filled().len()).filter(|bytes| *bytes > 0))
        })
    }
}

/// Closes a connection whose handshake has failed: shuts the write side down, then discards input, so that the caller
/// can read the TLS alert.
pub(crate) async fn close_after_handshake(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut linger = LingeringClose { left: HANDSHAKE_LINGER_BYTES, timer: DeadlineTimer::default() };
    let close = async {
        if stream.shutdown().await.is_ok() {
            poll_fn(|context| linger.poll_discard_stream(context, &mut stream)).await;
        }
    };
    let _ = timeout(LINGER_TIME, close).await; // The connection is closed in both cases.
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// The pieces that are discarded of an input without end.
    fn discarded(length: usize) -> usize {
        let (mut linger, mut pieces) = (LingeringClose::after_response(), 0);
        let polled = linger.poll_discard(&mut Context::from_waker(Waker::noop()), |_| {
            pieces += 1;
            Poll::Ready(Some(length))
        });
        assert!(polled.is_ready());
        pieces
    }

    #[test]
    fn an_input_without_end_is_discarded_up_to_the_limit() {
        assert_eq!(discarded(LINGER_BYTES / 4), 5, "four pieces, and the one that is too much");
        assert_eq!(discarded(LINGER_BYTES + 1), 1);
    }

    #[tokio::test]
    async fn a_stream_is_discarded_up_to_its_end() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(&[0; 3 * READ_SIZE]).await.expect("room");
        let mut linger = LingeringClose::after_response();
        let mut context = Context::from_waker(Waker::noop());
        assert!(linger.poll_discard_stream(&mut context, &mut near).is_pending());
        assert_eq!(linger.left, LINGER_BYTES - 3 * READ_SIZE);
        drop(far);
        assert!(linger.poll_discard_stream(&mut context, &mut near).is_ready());
    }
}
