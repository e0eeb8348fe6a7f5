//! An HTTP/1.1 request that is being sent: its head, then its body as the body arrives.
//!
//! Guarantees:
//! - The body gets new framing: its length if that is known, chunks if not (RFC 9112 section 6).
//! - At most one piece of the body is held.
//! - A body is never longer or shorter than its head announced.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::proxy::io::deadline_timer::DeadlineTimer;
use crate::proxy::message::field_line::put_header;
use crate::proxy::message::request_body::RequestBody;

use super::ConnectionError;

/// The pieces that wait to be written: the head, a chunk-size line, the chunk's data, the end of the chunk.
const PIECES_MAX: usize = 4;

/// The framing of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// The request has no body.
    None,
    /// A body of this many bytes (`Content-Length`).
    Length(u64),
    /// A body in chunks (`Transfer-Encoding: chunked`).
    Chunked,
}

/// A request, or the part of a request that has not been written.
pub(crate) struct Http1Request {
    /// The first piece is the head. The head is kept whole, because the request may be resent.
    pieces: [Bytes; PIECES_MAX],
    /// The bytes of the head that were written.
    head_written: usize,
    /// The body; `None` once it has ended.
    body: Option<RequestBody>,
    framing: RequestFraming,
    is_started: bool,
    /// How long the body waits for `100 Continue` (`Expect: 100-continue`).
    continue_timer: DeadlineTimer,
    /// Whether the method is HEAD, whose response has no body.
    pub(crate) is_head_request: bool,
}

impl Http1Request {
    /// A request with this encoded head and this body.
    pub(crate) fn new(head: impl Into<Bytes>, body: RequestBody, framing: RequestFraming) -> Self {
        let head = head.into();
        let to_head = head.starts_with(b"HEAD ");
        let body = (framing != RequestFraming::None).then_some(body);
        Self {
            pieces: [head, EMPTY_PIECE, EMPTY_PIECE, EMPTY_PIECE],
            head_written: 0,
            body,
            framing,
            is_started: false,
            continue_timer: DeadlineTimer::default(),
            is_head_request: to_head,
        }
    }

    /// Holds the body until the server sends `100 Continue`, or until this timeout.
    pub(crate) fn hold_for_continue(mut self, timeout: Duration) -> Self {
        self.continue_timer = DeadlineTimer::new(self.body.is_some().then(|| Instant::now() + timeout));
        self
    }

    /// The head, if the request has no body.
    pub(crate) fn head_if_bodiless(&self) -> Option<Bytes> {
        self.body.is_none().then(|| self.pieces[0].clone())
    }

    /// Releases a held body, because the server sent `100 Continue`.
    pub(crate) fn release_body(&mut self) {
        self.continue_timer.clear();
    }

    /// Whether nothing of the request was written, so that another connection may carry it.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.is_started
    }

    /// Whether the whole request was written.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_none() && self.is_written()
    }

    /// A copy of the request for a resend, if its method is safe (RFC 9110 section 9.2.1) and it has no body.
    pub(crate) fn into_resendable(self) -> Option<Self> {
        let [head, ..] = self.pieces;
        let is_safe = SAFE_METHODS.iter().any(|method| head.starts_with(method));
        (is_safe && self.framing == RequestFraming::None)
            .then(|| Self::new(head, RequestBody::empty(), RequestFraming::None))
    }

    /// Whether the request has no body left to wait for.
    pub(crate) fn is_head_only(&self) -> bool {
        self.body.is_none()
    }

    /// Writes until the request is complete, or until the server or the caller must be waited for.
    pub(crate) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<Result<(), ConnectionError>> {
        loop {
            let more = self.poll_next_piece(context)?;
            if self.is_written() {
                // TLS buffers records until a flush.
                ready!(Pin::new(stream).poll_flush(context))?;
                return more.map(Ok);
            }
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let waiting = self.pending_slices().into_iter().filter(|piece| !piece.is_empty());
            let count = slices.iter_mut().zip(waiting).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.is_started = true;
            self.advance(written);
        }
    }

    /// The bytes that are still to be written.
    fn pending_slices(&self) -> [&[u8]; PIECES_MAX] {
        let [head, line, data, end] = &self.pieces;
        [&head[self.head_written..], line, data, end]
    }

    fn is_written(&self) -> bool {
        self.pending_slices().iter().all(|piece| piece.is_empty())
    }

    fn advance(&mut self, mut written: usize) {
        let of_head = written.min(self.pieces[0].len() - self.head_written);
        self.head_written += of_head;
        written -= of_head;
        for piece in &mut self.pieces[1..] {
            let count = written.min(piece.len());
            piece.advance(count);
            written -= count;
        }
    }

    /// Takes the next piece of the body when the previous one was written. Ready when the body has ended.
    fn poll_next_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        while self.pieces[1..].iter().all(Bytes::is_empty) {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            if self.continue_timer.is_set() {
                ready!(self.continue_timer.poll_elapsed(context));
                self.continue_timer.clear();
            }
            match ready!(Pin::new(body).poll_frame(context)).transpose().map_err(ConnectionError::RequestBody)? {
                Some(frame) => self.stage_frame(frame)?,
                None => self.stage_end(None)?,
            }
            if self.body.as_ref().is_some_and(|body| self.framing.is_end_of(body)) {
                self.stage_end(None)?;
            }
        }
        Poll::Pending
    }

    fn stage_frame(&mut self, frame: Frame<Bytes>) -> Result<(), ConnectionError> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.stage_data(data),
            Err(frame) => self.stage_end(frame.into_trailers().ok()),
        }
    }

    fn stage_data(&mut self, data: Bytes) -> Result<(), ConnectionError> {
        match &mut self.framing {
            RequestFraming::Chunked => {
                self.pieces[1] = format!("{:x}\r\n", data.len()).into();
                self.pieces[3] = Bytes::from_static(b"\r\n");
            }
            RequestFraming::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| length_mismatch("longer"))?;
            }
            RequestFraming::None => return Err(length_mismatch("longer")),
        }
        self.pieces[2] = data;
        Ok(())
    }

    /// Ends the body, with its trailers.
    fn stage_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), ConnectionError> {
        if self.body.take().is_none() {
            return Ok(());
        }
        match self.framing {
            RequestFraming::None | RequestFraming::Length(0) => {}
            RequestFraming::Length(_) => return Err(length_mismatch("shorter")),
            RequestFraming::Chunked => {
                // Goes behind the end of the last chunk.
                let end = [&self.pieces[3][..], &encode_last_chunk(trailers)].concat();
                self.pieces[3] = end.into();
            }
        }
        Ok(())
    }
}

const EMPTY_PIECE: Bytes = Bytes::new();

/// The first bytes of heads with a safe method (RFC 9110 section 9.2.1); TRACE is not supported.
const SAFE_METHODS: [&[u8]; 3] = [b"GET ", b"HEAD ", b"OPTIONS "];

fn length_mismatch(how: &str) -> ConnectionError {
    ConnectionError::RequestBody(io::Error::other(format!("the body is {how} than its Content-Length")))
}

/// The last chunk, of size 0, with the trailers.
fn encode_last_chunk(trailers: Option<HeaderMap>) -> Vec<u8> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in trailers.iter().flatten() {
        put_header(&mut end, name.as_str(), value.as_bytes());
    }
    end.extend_from_slice(b"\r\n");
    end
}

impl RequestFraming {
    /// Whether the body has ended here: trailers can follow only chunks.
    fn is_end_of(self, body: &RequestBody) -> bool {
        match self {
            Self::Chunked => body.is_end_stream(),
            Self::None | Self::Length(_) => body.is_complete(),
        }
    }

    /// Appends the framing header. A request whose method usually has a body announces an empty one (RFC 9110 section
    /// 8.6).
    pub(crate) fn put_framing_header(self, head: &mut Vec<u8>, expects_body: bool) {
        match self {
            Self::None if expects_body => put_header(head, "content-length", b"0"),
            Self::None => {}
            Self::Length(length) => write!(head, "content-length: {length}\r\n").expect("writing to a Vec cannot fail"),
            Self::Chunked => put_header(head, "transfer-encoding", b"chunked"),
        }
    }
}
