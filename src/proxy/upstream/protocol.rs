//! What is spoken with a subsystem, HTTP/1.1 or HTTP/2, behind one face: a request, a connection, an exchange, an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::interim::Interim;
use crate::proxy::request_body::RequestBody;

use super::Broken;
use super::h1::{self, Framing, Wire};
use super::h2::{self, Session, SessionMark};
use super::loan::LentBody;
use super::stream::Stream;
use super::stream_answer::StreamAnswer;

/// A request as it goes out.
pub(in crate::proxy) enum Outgoing {
    /// Written out.
    Http1(h1::Outgoing),
    /// As h2 writes it out.
    Http2(Box<Request<LentBody>>),
}

/// The head of a request, as its protocol has it.
#[derive(Clone)]
pub(in crate::proxy) enum Written {
    /// Written out.
    Http1(Bytes),
    /// As h2 writes it out.
    Http2(Box<Request<()>>),
}

impl Written {
    /// The request with this body.
    pub(in crate::proxy) fn with(self, body: RequestBody, framing: Framing) -> Outgoing {
        match self {
            Self::Http1(head) => Outgoing::Http1(h1::Outgoing::new(head, body, framing)),
            Self::Http2(head) => Outgoing::Http2(Box::new(head.map(|()| LentBody::new(body)))),
        }
    }
}

/// A connection that takes a request.
pub(super) enum Link {
    /// It is the request's alone.
    Http1(Box<Wire>),
    /// It is shared.
    Http2(Session),
}

/// One request and its answer's head.
pub(in crate::proxy) enum Exchange {
    /// On a connection of its own.
    Http1(h1::Exchange),
    /// On a stream.
    Http2(h2::Exchange),
}

/// What is left of a request whose exchange has failed.
pub(super) enum Salvage {
    /// All of it: nothing was sent.
    Unsent(Outgoing),
    /// The server says that it has processed nothing of it (RFC 9113 section 8.7). The request, if all that was taken of its
    /// body is held, and the session that has refused it.
    Refused(Option<Outgoing>, SessionMark),
    /// A kept connection ended before one byte of an answer. The request is safe and has no body, so that it may be sent
    /// again (RFC 9110 section 9.2.2).
    Lost(Outgoing),
    /// Nothing: the server may have processed it.
    Nothing,
}

/// The head of an answer.
pub(super) enum Head {
    Http1(h1::Head),
    Http2(h2::Head),
}

impl Head {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Http1(head) => head.status,
            Self::Http2(head) => head.status,
        }
    }
}

/// What a subsystem answered.
pub(in crate::proxy) struct Answered {
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) headers: HeaderMap,
    /// The protocol a 101 switches to.
    pub(in crate::proxy) upgrade: Option<HeaderValue>,
    pub(in crate::proxy) body: AnswerBody,
}

impl Answered {
    /// Whether the server only asks to be left alone for a moment (RFC 9110 section 15.6.4): it is well, and says so in its
    /// own words, which its caller gets as they are.
    pub(in crate::proxy) fn is_only_busy(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains_key(RETRY_AFTER)
    }
}

/// The body of an answer.
pub(in crate::proxy) enum AnswerBody {
    /// See [`h1::AnswerBody`].
    Http1(h1::AnswerBody),
    /// See [`StreamAnswer`].
    Http2(StreamAnswer),
}

impl Exchange {
    /// Begins. A pool speaks the protocol that its subsystem's requests are made for; were it not so, the request comes
    /// back.
    pub(super) fn begin(link: Link, request: Outgoing) -> Result<Self, Box<Outgoing>> {
        match (link, request) {
            (Link::Http1(wire), Outgoing::Http1(request)) => Ok(Self::Http1(h1::Exchange::begin(wire, request))),
            (Link::Http2(session), Outgoing::Http2(request)) => Ok(Self::Http2(h2::Exchange::begin(session, request))),
            (_, request) => Err(Box::new(request)),
        }
    }

    /// Ready with the head of the final answer.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        match self {
            Self::Http1(exchange) => exchange.poll_head(context).map_ok(Head::Http1),
            Self::Http2(exchange) => exchange.poll_head(context).map_ok(Head::Http2),
        }
    }

    /// The interim answers for the caller that have come since the last call.
    pub(super) fn take_interim(&mut self) -> Vec<Interim> {
        match self {
            Self::Http1(exchange) => exchange.take_interim(),
            Self::Http2(exchange) => exchange.take_interim(),
        }
    }

    /// Whether interim answers have come since the last call of [`Exchange::take_interim`].
    pub(super) fn has_interim(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.has_interim(),
            Self::Http2(exchange) => exchange.has_interim(),
        }
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(super) fn into_salvage(self, broken: &Broken) -> Salvage {
        match self {
            Self::Http1(exchange) => exchange.into_salvage(broken),
            Self::Http2(exchange) => exchange.into_salvage(broken),
        }
    }

    /// The answer with the head that this exchange was ready with. What has come of its body with the head is looked at: an
    /// answer that is broken already is none.
    pub(super) fn into_answer(self, head: Head) -> Result<Answered, Broken> {
        match (self, head) {
            (Self::Http1(exchange), Head::Http1(head)) => exchange.into_answer(head),
            (Self::Http2(exchange), Head::Http2(head)) => exchange.into_answer(head),
            _ => Err(Broken::Closed),
        }
    }
}

impl AnswerBody {
    /// Reads at most so many bytes ahead, from now on; over HTTP/2 the windows tell.
    pub(in crate::proxy) fn read_at_most(&mut self, bytes: usize) {
        match self {
            Self::Http1(body) => body.read_at_most(bytes),
            Self::Http2(..) => {}
        }
    }

    /// Bytes that were read and are not handed over; over HTTP/2 the windows tell of the rest.
    pub(in crate::proxy) fn read_ahead(&self) -> usize {
        match self {
            Self::Http1(body) => body.read_ahead(),
            Self::Http2(body) => body.read_ahead(),
        }
    }

    /// Whether all of its content has been handed over. Over HTTP/2 END_STREAM and trailers may still follow.
    pub(in crate::proxy) fn is_whole(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_whole(),
        }
    }

    /// The connection, if it is the request's alone and may carry another.
    pub(super) fn take_reusable(&mut self) -> Option<Box<Wire>> {
        match self {
            Self::Http1(body) => body.take_reusable(),
            Self::Http2(..) => None,
        }
    }

    /// The connection as it is, with what was read ahead, for another protocol.
    pub(in crate::proxy) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Http1(body) => body.into_stream(),
            Self::Http2(..) => None,
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
