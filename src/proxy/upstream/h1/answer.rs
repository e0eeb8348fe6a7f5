//! An answer: its head, and its body as it comes.
//!
//! Guarantees: the end of the body is the end its framing said; anything else is an error. Its connection can be taken back
//! only after that end, and only if nothing follows it unasked.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::task::AbortHandle;

use crate::proxy::fields::towards_caller;

use super::super::stream::Stream;
use super::Broken;
use super::decode::{Decoder, Step};
use super::request::Outgoing;
use super::wire::Wire;

/// Pieces below this many bytes are put together, if they came together.
const SMALL: usize = 1024;

/// See the module.
pub(in crate::proxy) struct AnswerBody {
    /// Taken when the body has ended.
    wire: Option<Box<Wire>>,
    decoder: Decoder,
    keeps: bool,
    /// What was found behind the last piece.
    next: Option<Result<Step, Broken>>,
    /// Told at the next poll.
    broken: Option<Broken>,
    _upload: Option<Upload>,
}

impl AnswerBody {
    pub(super) fn new(wire: Box<Wire>, decoder: Decoder, keeps: bool, upload: Option<Upload>) -> Self {
        Self { wire: Some(wire), decoder, keeps, next: None, broken: None, _upload: upload }
    }

    /// Reads at most so many bytes ahead, from now on.
    pub(in crate::proxy::upstream) fn read_at_most(&mut self, bytes: usize) {
        if let Some(wire) = &mut self.wire {
            wire.room_max = bytes;
        }
    }

    /// Looks at the chunks that have come with the head: an answer that is malformed there is none.
    pub(super) fn look(mut self) -> Result<Self, Broken> {
        let is_chunked = matches!(self.decoder, Decoder::Chunked(_));
        if let Some(wire) = self.wire.as_mut().filter(|wire| is_chunked && !wire.read.is_empty()) {
            self.next = Some(Ok(self.decoder.next(&mut wire.read)?));
        }
        Ok(self)
    }

    /// Bytes that were read and are not handed over.
    pub(in crate::proxy::upstream) fn read_ahead(&self) -> usize {
        let next = match &self.next {
            Some(Ok(Step::Data(data))) => data.len(),
            _ => 0,
        };
        next + self.wire.as_ref().map_or(0, |wire| wire.read.len())
    }

    /// The connection, if it may carry another request.
    pub(in crate::proxy::upstream) fn take_reusable(&mut self) -> Option<Box<Wire>> {
        let clean = self.keeps && self.decoder.is_done();
        self.wire.take().filter(|wire| clean && wire.read.is_empty()).map(Wire::renewed)
    }

    /// The connection as it is, with what was read ahead, for another protocol.
    pub(in crate::proxy::upstream) fn into_stream(self) -> Option<(Stream, Bytes)> {
        self.wire.and_then(|wire| wire.into_stream())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(wire) = &mut self.wire else { return Poll::Ready(None) };
        loop {
            match self.next.take().unwrap_or_else(|| self.decoder.next(&mut wire.read))? {
                Step::Data(data) if data.len() < SMALL && !wire.read.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.gather(data)))));
                }
                Step::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Step::Trailers(mut fields) => {
                    towards_caller(&mut fields);
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Step::End => return Poll::Ready(None),
                Step::More => {}
            }
            wire.expect(self.decoder.left());
            if !ready!(wire.poll_fill(context))? {
                match self.decoder {
                    Decoder::UntilClose => self.decoder = Decoder::Length(0),
                    _ => return Poll::Ready(Some(Err(Broken::Closed))),
                }
            }
        }
    }
}

impl AnswerBody {
    /// A small piece, and those that came with it: each costs its caller a frame, and callers take many small ones for an attack
    /// (h2: `too_many_data_frames`).
    fn gather(&mut self, first: Bytes) -> Bytes {
        let Some(wire) = &mut self.wire else { return first };
        let mut gathered = BytesMut::with_capacity(2 * SMALL);
        gathered.extend_from_slice(&first);
        while gathered.len() < SMALL && !wire.read.is_empty() && !self.decoder.is_done() {
            match self.decoder.next(&mut wire.read) {
                Ok(Step::Data(data)) => gathered.extend_from_slice(&data),
                Ok(Step::More) => break,
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        gathered.freeze()
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    /// An error waits for one more poll, so that hyper first flushes what came before it: the caller gets what there is.
    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(broken) = this.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match this.poll(context) {
            Poll::Ready(Some(Err(broken))) => {
                this.broken = Some(broken);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done() && self.next.is_none() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

/// The rest of a request whose answer came early; ended with its answer.
pub(super) struct Upload(AbortHandle);

impl Upload {
    /// A task of its own, because its caller may hear the whole answer only after it has said everything.
    pub(super) fn spawn(mut outgoing: Outgoing, mut half: WriteHalf<Stream>) -> Self {
        let sending = async move {
            // The answer says how the command ends. A server that waits for the rest of a body that broke off must learn it.
            if poll_fn(|context| outgoing.poll_send(context, &mut half)).await.is_err() {
                let _ = half.shutdown().await;
            }
        };
        Self(tokio::task::spawn_local(sending).abort_handle())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::net::UnixStream;

    use super::super::decode::Chunks;
    use super::super::wire::tests::wire;
    use super::*;

    /// The body of a chunked answer that begins with a chunk of `hello`; what follows has come with it.
    async fn after_hello(rest: &str) -> AnswerBody {
        let (stream, mut server) = UnixStream::pair().expect("a pair");
        let mut body = AnswerBody::new(Box::new(wire(stream)), Decoder::Chunked(Chunks::default()), true, None);
        server.write_all(format!("5\r\nhello\r\n{rest}").as_bytes()).await.expect("the server writes");
        let first = body.frame().await.expect("a frame").expect("it is whole");
        assert_eq!(first.into_data().expect("it is data"), "hello");
        body
    }

    #[tokio::test]
    async fn what_is_malformed_behind_a_piece_is_no_end_and_its_connection_is_not_kept() {
        for rest in ["0\r\nbad trailer\r\n\r\n", "no size\r\n"] {
            let mut body = after_hello(rest).await;
            assert!(!body.is_end_stream(), "{rest:?}");
            // The error waits for one more poll: a caller that leaves before it had no whole answer.
            while Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop())).is_ready() {}
            assert!(body.broken.is_some() && !body.is_end_stream(), "{rest:?}");
            assert!(body.take_reusable().is_none(), "{rest:?}");
        }
    }

    #[tokio::test]
    async fn what_ends_well_is_kept() {
        let mut body = after_hello("0\r\n\r\n").await;
        assert!(body.is_end_stream() && body.take_reusable().is_some());
    }
}
