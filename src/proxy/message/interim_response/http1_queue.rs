//! The queue of interim responses on an HTTP/1.1 connection.
//!
//! Guarantees:
//!
//! - An interim response follows the final response to the request before it. `proxy::downstream::h1_scanning_stream`
//!   writes the queue whenever hyper flushes, and hyper flushes only once all of its own output is written.
//! - At most [`BYTES_MAX`] bytes wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Write as _;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use http::HeaderName;

use crate::proxy::message::field_line::put_header;

use super::{BYTES_MAX, InterimResponse};

/// The interim responses that wait to be written on one connection.
#[derive(Default)]
pub(crate) struct Http1InterimQueue {
    pending: RefCell<BytesMut>,
    /// The unwritten bytes, at the front, of the head that is being written.
    partly_written: Cell<usize>,
    /// The lengths of the heads after it.
    lengths: RefCell<VecDeque<usize>>,
    waker: Cell<Option<Waker>>,
}

impl Http1InterimQueue {
    /// Queues an interim response to the current command, without the fields that `is_removed` selects.
    pub(crate) fn push(&self, interim: &InterimResponse, is_removed: impl Fn(&HeaderName) -> bool) {
        let head = encode(interim, is_removed);
        let mut waiting = self.pending.borrow_mut();
        if waiting.len() + head.len() <= BYTES_MAX {
            waiting.extend_from_slice(&head);
            self.lengths.borrow_mut().push_back(head.len());
        }
    }

    /// Writes the queue with `write`, which returns the number of written bytes. With `only_begun` it writes only the
    /// rest of a partly written head.
    pub(crate) fn poll_write<E>(
        &self,
        only_begun: bool,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        while let Some(length) = self.next_length(only_begun) {
            let mut waiting = self.pending.borrow_mut();
            let wrote = match write(&waiting[..length]) {
                Poll::Ready(Ok(wrote)) if wrote > 0 => wrote,
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())), // the connection ends; its flush reports that
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            waiting.advance(wrote);
            self.partly_written.set(length - wrote);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// The number of bytes to write next: the rest of a partly written head, or a whole head.
    fn next_length(&self, only_begun: bool) -> Option<usize> {
        match self.partly_written.get() {
            0 if only_begun => None,
            0 => self.lengths.borrow_mut().pop_front().inspect(|length| self.partly_written.set(*length)),
            rest => Some(rest),
        }
    }

    /// Whether the queue is empty.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// Ready when the queue is empty.
    pub(crate) fn poll_drained(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_idle() {
            return Poll::Ready(());
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

fn encode(interim: &InterimResponse, is_removed: impl Fn(&HeaderName) -> bool) -> Vec<u8> {
    let (code, reason) = (interim.status.as_str(), interim.status.canonical_reason().unwrap_or_default());
    let mut head = Vec::new();
    write!(head, "HTTP/1.1 {code} {reason}\r\n").expect("writing to a Vec cannot fail");
    interim.forwarded_headers(is_removed).for_each(|(name, value)| put_header(&mut head, name, value));
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::interim;
    use super::*;

    /// The output, if the writer takes at most this number of bytes at a time, and only every other time.
    fn all_of(heads: &Http1InterimQueue, at_a_time: usize, only_begun: bool) -> String {
        let (mut out, mut busy) = (Vec::new(), false);
        let mut write = |bytes: &[u8]| {
            busy = !busy;
            if busy {
                return Poll::Pending;
            }
            let count = bytes.len().min(at_a_time);
            out.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok::<_, std::convert::Infallible>(count))
        };
        while heads.poll_write(only_begun, &mut write).is_pending() {}
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn heads_are_written_in_order_without_reserved_fields() {
        for at_a_time in [1, 7, 4096] {
            let heads = Http1InterimQueue::default();
            let hints = [("link", "</a.css>"), ("x-request-id", "forged"), ("ratelimit", "x"), ("server", "old")];
            heads.push(&interim(103, &hints), |name| name == "server");
            heads.push(&interim(199, &[("content-length", "5")]), |_| false);
            assert!(heads.poll_drained(&Context::from_waker(Waker::noop())).is_pending());
            let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 199 \r\n\r\n";
            assert_eq!(all_of(&heads, at_a_time, false), expected);
            assert!(heads.poll_drained(&Context::from_waker(Waker::noop())).is_ready());
        }
    }

    #[test]
    fn other_bytes_are_written_between_whole_heads_only() {
        let heads = Http1InterimQueue::default();
        heads.push(&interim(103, &[]), |_| false);
        heads.push(&interim(102, &[]), |_| false);
        assert_eq!(all_of(&heads, 4096, true), "", "no frame was started");
        let mut room = 5;
        let begun = heads.poll_write(false, |bytes: &[u8]| match std::mem::take(&mut room) {
            0 => Poll::Pending,
            some => Poll::Ready(Ok::<_, std::convert::Infallible>(some.min(bytes.len()))),
        });
        assert!(begun.is_pending());
        assert_eq!(all_of(&heads, 4096, true), "1.1 103 Early Hints\r\n\r\n", "the rest of the started frame");
        assert_eq!(all_of(&heads, 4096, false), "HTTP/1.1 102 Processing\r\n\r\n");
    }

    #[test]
    fn queued_heads_are_bounded() {
        let heads = Http1InterimQueue::default();
        let large = InterimResponse {
            status: StatusCode::EARLY_HINTS,
            headers: [(http::header::LINK, "x".repeat(40_000).parse().expect("a value"))].into_iter().collect(),
        };
        (0..3).for_each(|_| heads.push(&large, |_| false));
        assert!(all_of(&heads, 4096, false).len() < BYTES_MAX);
    }
}
