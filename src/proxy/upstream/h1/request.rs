//! A request on its way out: its head, then its body as it comes.
//!
//! Guarantees: the body is framed anew, by its length if that is known and in chunks if not (RFC 9112 section 6); at most
//! one piece of it is held; a body is never longer or shorter than its head said.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

use crate::proxy::request_body::RequestBody;

use super::Broken;

/// Pieces that wait to be written: a head, a chunk's line, its data, its end.
const PIECES_MAX: usize = 4;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request, or what of it has not been written.
pub(in crate::proxy) struct Outgoing {
    /// The first is the head, which is kept whole: the request may be sent again.
    pieces: [Bytes; PIECES_MAX],
    /// Bytes of the head that were written.
    head_written: usize,
    /// Taken when it has ended.
    body: Option<RequestBody>,
    framing: Framing,
    touched: bool,
    /// Until when the body waits to be asked for (`Expect: 100-continue`).
    held: Option<Pin<Box<Sleep>>>,
    /// Whether it is a HEAD, whose answer has no body.
    pub(super) to_head: bool,
}

impl Outgoing {
    /// A request with this head, written out, and this body.
    pub(in crate::proxy) fn new(head: impl Into<Bytes>, body: RequestBody, framing: Framing) -> Self {
        let head = head.into();
        let to_head = head.starts_with(b"HEAD ");
        let body = (framing != Framing::None).then_some(body);
        Self {
            pieces: [head, EMPTY, EMPTY, EMPTY],
            head_written: 0,
            body,
            framing,
            touched: false,
            held: None,
            to_head,
        }
    }

    /// The body is sent when the server asks for it, or after this time.
    pub(in crate::proxy) fn held(mut self, patience: Duration) -> Self {
        self.held = self.body.is_some().then(|| Box::pin(sleep(patience)));
        self
    }

    /// Its head, if it has no body.
    pub(in crate::proxy::upstream) fn bare_head(&self) -> Option<Bytes> {
        self.body.is_none().then(|| self.pieces[0].clone())
    }

    /// The server asks for the body.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    /// Whether nothing of it was written, so that it may go elsewhere.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Whether all of it was written.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_none() && self.is_written()
    }

    /// The request as it was, if it is safe (RFC 9110 section 9.2.1) and has no body.
    pub(super) fn again(self) -> Option<Self> {
        let [head, ..] = self.pieces;
        let is_safe = SAFE.iter().any(|method| head.starts_with(method));
        (is_safe && self.framing == Framing::None).then(|| Self::new(head, RequestBody::none(), Framing::None))
    }

    /// Whether it can be written without waiting for its caller.
    pub(super) fn is_only_a_head(&self) -> bool {
        self.body.is_none()
    }

    /// Writes until all is written, or the server or the caller must be waited for.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let more = self.poll_stage(context)?;
            if self.is_written() {
                ready!(Pin::new(stream).poll_flush(context))?; // TLS holds records back
                return more.map(Ok);
            }
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let waiting = self.waiting().into_iter().filter(|piece| !piece.is_empty());
            let count = slices.iter_mut().zip(waiting).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.touched = true;
            self.advance(written);
        }
    }

    /// What is still to be written.
    fn waiting(&self) -> [&[u8]; PIECES_MAX] {
        let [head, line, data, end] = &self.pieces;
        [&head[self.head_written..], line, data, end]
    }

    fn is_written(&self) -> bool {
        self.waiting().iter().all(|piece| piece.is_empty())
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
    fn poll_stage(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.pieces[1..].iter().all(Bytes::is_empty) {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            if let Some(held) = &mut self.held {
                ready!(held.as_mut().poll(context));
                self.held = None;
            }
            match ready!(Pin::new(body).poll_frame(context)).transpose().map_err(Broken::Request)? {
                Some(frame) => self.stage(frame)?,
                None => self.end(None)?,
            }
            if self.body.as_ref().is_some_and(|body| self.framing.ends_with(body)) {
                self.end(None)?;
            }
        }
        Poll::Pending
    }

    fn stage(&mut self, frame: Frame<Bytes>) -> Result<(), Broken> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.stage_data(data),
            Err(frame) => self.end(frame.into_trailers().ok()),
        }
    }

    fn stage_data(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.framing {
            Framing::Chunked => {
                self.pieces[1] = format!("{:x}\r\n", data.len()).into();
                self.pieces[3] = Bytes::from_static(b"\r\n");
            }
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| unlike_its_length("longer"))?;
            }
            Framing::None => return Err(unlike_its_length("longer")),
        }
        self.pieces[2] = data;
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Broken> {
        if self.body.take().is_none() {
            return Ok(());
        }
        match self.framing {
            Framing::None | Framing::Length(0) => {}
            Framing::Length(_) => return Err(unlike_its_length("shorter")),
            Framing::Chunked => {
                let end = [&self.pieces[3][..], &last_chunk(trailers)].concat(); // behind the last chunk's own end
                self.pieces[3] = end.into();
            }
        }
        Ok(())
    }
}

const EMPTY: Bytes = Bytes::new();

/// How the heads of safe requests begin (RFC 9110 section 9.2.1); TRACE is not served.
const SAFE: [&[u8]; 3] = [b"GET ", b"HEAD ", b"OPTIONS "];

fn unlike_its_length(how: &str) -> Broken {
    Broken::Request(io::Error::other(format!("its body is {how} than its length says")))
}

/// The chunk of size 0, and the trailers.
fn last_chunk(trailers: Option<HeaderMap>) -> Vec<u8> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in trailers.iter().flatten() {
        put_field(&mut end, name.as_str(), value.as_bytes());
    }
    end.extend_from_slice(b"\r\n");
    end
}

/// Appends a field line.
pub(in crate::proxy) fn put_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

impl Framing {
    /// Whether a body has ended here: trailers can follow only chunks.
    fn ends_with(self, body: &RequestBody) -> bool {
        match self {
            Self::Chunked => body.is_end_stream(),
            Self::None | Self::Length(_) => body.is_whole(),
        }
    }

    /// Appends the field that says so. A request that may well have a body says when it has none (RFC 9110 section 8.6).
    pub(in crate::proxy) fn put(self, head: &mut Vec<u8>, expects_body: bool) {
        match self {
            Self::None if expects_body => put_field(head, "content-length", b"0"),
            Self::None => {}
            Self::Length(length) => write!(head, "content-length: {length}\r\n").expect("a Vec takes all bytes"),
            Self::Chunked => put_field(head, "transfer-encoding", b"chunked"),
        }
    }
}
