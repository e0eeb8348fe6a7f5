//! The upload of a request body to an HTTP/2 stream, with backpressure.
//!
//! Guarantees:
//! - At most one piece of the body is held. h2 gets a piece only when the stream has flow-control capacity for some of
//!   it.
//! - A body that breaks off resets its stream.
//! - A body is not read any further after the server has reset its stream.
//! - A stream that is dropped before its response is reset at once. Otherwise h2 would first send the data that waits
//!   for capacity.
//!
//! Leaves to others: the buffer for a resend (`replayable_body`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::{Body as _, Frame};

use super::replayable_body::ReplayableBody;

/// The upload of one request body.
pub(crate) struct StreamUpload {
    stream: SendStream<Bytes>,
    body: ReplayableBody,
    piece: Option<UploadPiece>,
    is_finished: bool,
    /// Whether the response has begun.
    has_response: bool,
}

/// A piece that waits for flow-control capacity.
struct UploadPiece {
    bytes: Bytes,
    is_last: bool,
}

/// The stream accepts no more data.
struct StreamEnded;

impl StreamUpload {
    pub(crate) fn new(stream: SendStream<Bytes>, body: ReplayableBody) -> Self {
        Self { stream, body, piece: None, is_finished: false, has_response: false }
    }

    /// Ready when nothing more is sent: the body has ended or broken off, or the stream has ended.
    pub(crate) fn poll_finished(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.is_finished {
            match ready!(self.poll_step(context)) {
                Ok(()) => {}
                Err(StreamEnded) => self.is_finished = true,
            }
        }
        Poll::Ready(())
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamEnded>> {
        if self.stream.poll_reset(context).is_ready() {
            return Poll::Ready(Err(StreamEnded));
        }
        if self.piece.is_some() {
            ready!(self.poll_capacity(context))?;
            return Poll::Ready(self.send_piece());
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match next {
            Some(Ok(frame)) => self.take_frame(frame),
            Some(Err(_)) => {
                self.stream.send_reset(Reason::INTERNAL_ERROR);
                Err(StreamEnded)
            }
            None => self.send_data(UploadPiece { bytes: Bytes::new(), is_last: true }),
        })
    }

    fn take_frame(&mut self, frame: Frame<Bytes>) -> Result<(), StreamEnded> {
        let frame = match frame.into_data() {
            Ok(bytes) if bytes.is_empty() => {
                return self.send_data(UploadPiece { bytes, is_last: self.body.is_end_stream() });
            }
            Ok(bytes) => {
                self.piece = Some(UploadPiece { bytes, is_last: self.body.is_end_stream() });
                // Reserving the whole piece would keep the session's window from other streams.
                self.stream.reserve_capacity(1);
                return Ok(());
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            self.stream.reserve_capacity(0);
            let _ = self.stream.send_trailers(trailers); // a stream that cannot take trailers has ended
        }
        Err(StreamEnded)
    }

    /// Ready when the stream has capacity for a part of the piece.
    fn poll_capacity(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamEnded>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(StreamEnded)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_piece(&mut self) -> Result<(), StreamEnded> {
        self.piece.take().map_or(Ok(()), |piece| self.send_data(piece))
    }

    fn send_data(&mut self, UploadPiece { bytes, is_last }: UploadPiece) -> Result<(), StreamEnded> {
        match self.stream.send_data(bytes, is_last) {
            Ok(()) if !is_last => Ok(()),
            Ok(()) | Err(_) => Err(StreamEnded),
        }
    }

    /// Continues the upload in a task of its own and drops the replay buffer, because the server has begun to process
    /// the request.
    pub(crate) fn detach(mut self) {
        self.has_response = true;
        self.body.discard();
        if !self.is_finished {
            tokio::task::spawn_local(async move { std::future::poll_fn(|context| self.poll_finished(context)).await });
        }
    }

    /// The body for another stream; `None` if more of it was taken than is buffered.
    pub(crate) fn into_body(mut self) -> Option<ReplayableBody> {
        std::mem::replace(&mut self.body, ReplayableBody::empty()).rewind()
    }
}

impl Drop for StreamUpload {
    fn drop(&mut self) {
        if !self.has_response {
            self.stream.send_reset(Reason::CANCEL); // has no effect on a stream that has ended
        }
    }
}
