//! A request on its way out: its head, then its body as it comes.
//!
//! Guarantees: the body is framed anew, by its length if that is known and in chunks if not (RFC 9112 section 6); at most
//! one piece of it is held; a body is never longer or shorter than its head said.

use crate::proxy::message::field_line::put_header;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

use crate::proxy::message::request_body::RequestBody;

use super::ConnectionError;

/// Pieces that wait to be written: a head, a chunk's line, its data, its end.
const PIECES_MAX: usize = 4;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request, or what of it has not been written.
pub(crate) struct Http1Request {
    /// The first is the head, which is kept whole: the request may be sent again.
    pieces: [Bytes; PIECES_MAX],
    /// Bytes of the head that were written.
    head_written: usize,
    /// Taken when it has ended.
    body: Option<RequestBody>,
    framing: RequestFraming,
    is_started: bool,
    /// Until when the body waits to be asked for (`Expect: 100-continue`).
    continue_timer: Option<Pin<Box<Sleep>>>,
    /// Whether it is a HEAD, whose answer has no body.
    pub(crate) is_head_request: bool,
}

impl Http1Request {
    /// A request with this head, written out, and this body.
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
            continue_timer: None,
            is_head_request: to_head,
        }
    }

    /// The body is sent when the server asks for it, or after this time.
    pub(crate) fn hold_for_continue(mut self, timeout: Duration) -> Self {
        self.continue_timer = self.body.is_some().then(|| Box::pin(sleep(timeout)));
        self
    }

    /// Its head, if it has no body.
    pub(crate) fn head_if_bodiless(&self) -> Option<Bytes> {
        self.body.is_none().then(|| self.pieces[0].clone())
    }

    /// The server asks for the body.
    pub(crate) fn release_body(&mut self) {
        self.continue_timer = None;
    }

    /// Whether nothing of it was written, so that it may go elsewhere.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.is_started
    }

    /// Whether all of it was written.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_none() && self.is_written()
    }

    /// The request as it was, if it is safe (RFC 9110 section 9.2.1) and has no body.
    pub(crate) fn into_resendable(self) -> Option<Self> {
        let [head, ..] = self.pieces;
        let is_safe = SAFE_METHODS.iter().any(|method| head.starts_with(method));
        (is_safe && self.framing == RequestFraming::None)
            .then(|| Self::new(head, RequestBody::empty(), RequestFraming::None))
    }

    /// Whether it can be written without waiting for its caller.
    pub(crate) fn is_head_only(&self) -> bool {
        self.body.is_none()
    }

    /// Writes until all is written, or the server or the caller must be waited for.
    pub(crate) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<Result<(), ConnectionError>> {
        loop {
            let more = self.poll_next_piece(context)?;
            if self.is_written() {
                ready!(Pin::new(stream).poll_flush(context))?; // TLS holds records back
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

    /// What is still to be written.
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

    /// Takes the next piece of the body, if there is room for it. Ready when there is no more body.
    fn poll_next_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        while self.pieces[1..].iter().all(Bytes::is_empty) {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            if let Some(held) = &mut self.continue_timer {
                ready!(held.as_mut().poll(context));
                self.continue_timer = None;
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

    /// The body has ended.
    fn stage_end(&mut self, trailers: Option<HeaderMap>) -> Result<(), ConnectionError> {
        if self.body.take().is_none() {
            return Ok(());
        }
        match self.framing {
            RequestFraming::None | RequestFraming::Length(0) => {}
            RequestFraming::Length(_) => return Err(length_mismatch("shorter")),
            RequestFraming::Chunked => {
                let end = [&self.pieces[3][..], &encode_last_chunk(trailers)].concat(); // behind the last chunk's own end
                self.pieces[3] = end.into();
            }
        }
        Ok(())
    }
}

const EMPTY_PIECE: Bytes = Bytes::new();

/// How the heads of safe requests begin (RFC 9110 section 9.2.1); TRACE is not served.
const SAFE_METHODS: [&[u8]; 3] = [b"GET ", b"HEAD ", b"OPTIONS "];

fn length_mismatch(how: &str) -> ConnectionError {
    ConnectionError::RequestBody(io::Error::other(format!("its body is {how} than its length says")))
}

/// The chunk of size 0, and the trailers.
fn encode_last_chunk(trailers: Option<HeaderMap>) -> Vec<u8> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in trailers.iter().flatten() {
        put_header(&mut end, name.as_str(), value.as_bytes());
    }
    end.extend_from_slice(b"\r\n");
    end
}

impl RequestFraming {
    /// Whether a body has ended here: trailers can follow only chunks.
    fn is_end_of(self, body: &RequestBody) -> bool {
        match self {
            Self::Chunked => body.is_end_stream(),
            Self::None | Self::Length(_) => body.is_complete(),
        }
    }

    /// Appends the field that says so. A request that may well have a body says when it has none (RFC 9110 section 8.6).
    pub(crate) fn put_framing_header(self, head: &mut Vec<u8>, expects_body: bool) {
        match self {
            Self::None if expects_body => put_header(head, "content-length", b"0"),
            Self::None => {}
            Self::Length(length) => write!(head, "content-length: {length}\r\n").expect("a Vec takes all bytes"),
            Self::Chunked => put_header(head, "transfer-encoding", b"chunked"),
        }
    }
}
