//! An answer: its head, and its body as it comes.
//!
//! Guarantees: the end of the body is the end its framing said; anything else is an error. Its connection can be taken back
//! only after that end, and only if nothing follows it unasked.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::WriteHalf;
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

    /// Bytes that were read and are not handed over.
    pub(in crate::proxy::upstream) fn read_ahead(&self) -> usize {
        self.wire.as_ref().map_or(0, |wire| wire.read.len())
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
        self.decoder.is_done() && self.next.is_none()
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
            // How it ends is told by the answer.
            let _ = poll_fn(|context| outgoing.poll_send(context, &mut half)).await;
        };
        Self(tokio::task::spawn_local(sending).abort_handle())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}
