//! The body of a request on its way to a stream.
//!
//! Guarantees: at most one piece of it is held, and h2 takes a piece only when the stream has room for some of it; a
//! body that breaks off resets its stream; nothing more is read of a body whose stream the server has reset. A stream
//! that is given up before it is answered is reset at once: h2 by itself would first send what waits for room.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::{Body as _, Frame};

use crate::proxy::upstream::loan::LentBody;

/// See the module.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    body: LentBody,
    piece: Option<Piece>,
    is_over: bool,
    /// Whether the stream is answered.
    is_answered: bool,
}

/// A piece that the stream has no room for yet.
struct Piece {
    bytes: Bytes,
    is_last: bool,
}

/// The stream takes nothing more.
struct Over;

impl Upload {
    pub(super) fn new(stream: SendStream<Bytes>, body: LentBody) -> Self {
        Self { stream, body, piece: None, is_over: false, is_answered: false }
    }

    /// Ready when nothing more is sent: the body has ended or broken off, or the stream has.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.is_over {
            match ready!(self.poll_step(context)) {
                Ok(()) => {}
                Err(Over) => self.is_over = true,
            }
        }
        Poll::Ready(())
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if self.stream.poll_reset(context).is_ready() {
            return Poll::Ready(Err(Over));
        }
        if self.piece.is_some() {
            ready!(self.poll_room(context))?;
            return Poll::Ready(self.send_piece());
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match next {
            Some(Ok(frame)) => self.take(frame),
            Some(Err(_)) => {
                self.stream.send_reset(Reason::INTERNAL_ERROR);
                Err(Over)
            }
            None => self.send(Piece { bytes: Bytes::new(), is_last: true }),
        })
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Over> {
        let frame = match frame.into_data() {
            Ok(bytes) if bytes.is_empty() => return self.send(Piece { bytes, is_last: self.body.is_end_stream() }),
            Ok(bytes) => {
                self.piece = Some(Piece { bytes, is_last: self.body.is_end_stream() });
                self.stream.reserve_capacity(1); // all of it would keep the session's window from others
                return Ok(());
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            self.stream.reserve_capacity(0);
            let _ = self.stream.send_trailers(trailers); // a stream that cannot take them has ended
        }
        Err(Over)
    }

    /// Ready when the stream has room for some of the piece.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Over)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_piece(&mut self) -> Result<(), Over> {
        self.piece.take().map_or(Ok(()), |piece| self.send(piece))
    }

    fn send(&mut self, Piece { bytes, is_last }: Piece) -> Result<(), Over> {
        match self.stream.send_data(bytes, is_last) {
            Ok(()) if !is_last => Ok(()),
            Ok(()) | Err(_) => Err(Over),
        }
    }

    /// The server has taken the request up: nothing of the body is held any more. What is left of it goes on by itself.
    pub(super) fn go_on(mut self) {
        self.is_answered = true;
        self.body.let_go();
        if !self.is_over {
            tokio::task::spawn_local(async move { std::future::poll_fn(|context| self.poll(context)).await });
        }
    }

    /// The body, for another stream; nothing, if more of it was taken than is held.
    pub(super) fn take_back(mut self) -> Option<LentBody> {
        std::mem::replace(&mut self.body, LentBody::none()).take_back()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_answered {
            self.stream.send_reset(Reason::CANCEL); // does nothing to a stream that has ended
        }
    }
}
