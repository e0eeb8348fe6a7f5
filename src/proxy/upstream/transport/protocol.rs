//! What is spoken with a subsystem, HTTP/1.1 or HTTP/2, behind one face: a request, a connection, an exchange, an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::message::interim_response::InterimResponse;
use crate::proxy::message::request_body::RequestBody;

use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::endpoint::stream::ServerStream;
use crate::proxy::upstream::h1::{self, Http1Connection, RequestFraming};
use crate::proxy::upstream::h2::replayable_body::ReplayableBody;
use crate::proxy::upstream::h2::response_body::Http2Body;
use crate::proxy::upstream::h2::{self, Http2Session, SessionId};

/// A request as it goes out.
pub(crate) enum UpstreamRequest {
    /// Written out.
    Http1(h1::Http1Request),
    /// As h2 writes it out.
    Http2(Box<Request<ReplayableBody>>),
}

/// The head of a request, as its protocol has it.
#[derive(Clone)]
pub(crate) enum EncodedHead {
    /// Written out.
    Http1(Bytes),
    /// As h2 writes it out.
    Http2(Box<Request<()>>),
}

impl EncodedHead {
    /// The request with this body.
    pub(crate) fn with_body(self, body: RequestBody, framing: RequestFraming) -> UpstreamRequest {
        match self {
            Self::Http1(head) => UpstreamRequest::Http1(h1::Http1Request::new(head, body, framing)),
            Self::Http2(head) => UpstreamRequest::Http2(Box::new(head.map(|()| ReplayableBody::new(body)))),
        }
    }
}

/// A connection that takes a request.
pub(crate) enum UpstreamConnection {
    /// It is the request's alone.
    Http1(Box<Http1Connection>),
    /// It is shared.
    Http2(Http2Session),
}

/// One request and its answer's head.
pub(crate) enum UpstreamExchange {
    /// On a connection of its own.
    Http1(h1::Http1Exchange),
    /// On a stream.
    Http2(h2::Http2Exchange),
}

/// What is left of a request whose exchange has failed.
pub(crate) enum UnansweredRequest {
    /// All of it: nothing was sent.
    Unsent(UpstreamRequest),
    /// The server says that it has processed nothing of it (RFC 9113 section 8.7). The request, if all that was taken of its
    /// body is held, and the session that has refused it.
    Refused(Option<UpstreamRequest>, SessionId),
    /// A kept connection ended before one byte of an answer. The request is safe and has no body, so that it may be sent
    /// again (RFC 9110 section 9.2.2).
    StaleConnection(UpstreamRequest),
    /// Nothing: the server may have processed it.
    MaybeProcessed,
}

/// The head of an answer.
pub(crate) enum ResponseHead {
    Http1(h1::Http1ResponseHead),
    Http2(h2::Http2ResponseHead),
}

impl ResponseHead {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Http1(head) => head.status,
            Self::Http2(head) => head.status,
        }
    }
}

/// What a subsystem answered.
pub(crate) struct UpstreamResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The protocol a 101 switches to.
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) body: UpstreamBody,
}

impl UpstreamResponse {
    /// Whether the server only asks to be left alone for a moment (RFC 9110 section 15.6.4): it is well, and says so in its
    /// own words, which its caller gets as they are.
    pub(crate) fn is_retry_later(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains_key(RETRY_AFTER)
    }
}

/// The body of an answer.
pub(crate) enum UpstreamBody {
    /// See [`h1::AnswerBody`].
    Http1(h1::Http1Body),
    /// See [`Http2Body`].
    Http2(Http2Body),
}

impl UpstreamExchange {
    /// Begins. A pool speaks the protocol that its subsystem's requests are made for; were it not so, the request comes
    /// back.
    pub(crate) fn begin(link: UpstreamConnection, request: UpstreamRequest) -> Result<Self, Box<UpstreamRequest>> {
        match (link, request) {
            (UpstreamConnection::Http1(wire), UpstreamRequest::Http1(request)) => {
                Ok(Self::Http1(h1::Http1Exchange::begin(wire, request)))
            }
            (UpstreamConnection::Http2(session), UpstreamRequest::Http2(request)) => {
                Ok(Self::Http2(h2::Http2Exchange::begin(session, request)))
            }
            (_, request) => Err(Box::new(request)),
        }
    }

    /// Ready with the head of the final answer.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<ResponseHead, ConnectionError>> {
        match self {
            Self::Http1(exchange) => exchange.poll_head(context).map_ok(ResponseHead::Http1),
            Self::Http2(exchange) => exchange.poll_head(context).map_ok(ResponseHead::Http2),
        }
    }

    /// The interim answers for the caller that have come since the last call.
    pub(crate) fn take_interim(&mut self) -> Vec<InterimResponse> {
        match self {
            Self::Http1(exchange) => exchange.take_interim(),
            Self::Http2(exchange) => exchange.take_interim(),
        }
    }

    /// Whether interim answers have come since the last call of [`Exchange::take_interim`].
    pub(crate) fn has_interim(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.has_interim(),
            Self::Http2(exchange) => exchange.has_interim(),
        }
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(crate) fn into_unanswered(self, error: &ConnectionError) -> UnansweredRequest {
        match self {
            Self::Http1(exchange) => exchange.into_unanswered(error),
            Self::Http2(exchange) => exchange.into_unanswered(error),
        }
    }

    /// The answer with the head that this exchange was ready with. What has come of its body with the head is looked at: an
    /// answer that is broken already is none.
    pub(crate) fn into_response(self, head: ResponseHead) -> Result<UpstreamResponse, ConnectionError> {
        match (self, head) {
            (Self::Http1(exchange), ResponseHead::Http1(head)) => exchange.into_response(head),
            (Self::Http2(exchange), ResponseHead::Http2(head)) => exchange.into_response(head),
            _ => Err(ConnectionError::Closed),
        }
    }
}

impl UpstreamBody {
    /// Reads at most so many bytes ahead, from now on; over HTTP/2 the windows tell.
    pub(crate) fn set_read_ahead_max(&mut self, bytes: usize) {
        match self {
            Self::Http1(body) => body.set_read_ahead_max(bytes),
            Self::Http2(..) => {}
        }
    }

    /// Bytes that were read and are not handed over; over HTTP/2 the windows tell of the rest.
    pub(crate) fn buffered_bytes(&self) -> usize {
        match self {
            Self::Http1(body) => body.buffered_bytes(),
            Self::Http2(body) => body.buffered_bytes(),
        }
    }

    /// Whether all of its content has been handed over. Over HTTP/2 END_STREAM and trailers may still follow.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_complete(),
        }
    }

    /// The connection, if it is the request's alone and may carry another.
    pub(crate) fn take_reusable(&mut self) -> Option<Box<Http1Connection>> {
        match self {
            Self::Http1(body) => body.take_reusable(),
            Self::Http2(..) => None,
        }
    }

    /// The connection as it is, with what was read ahead, for another protocol.
    pub(crate) fn into_stream(self) -> Option<(ServerStream, Bytes)> {
        match self {
            Self::Http1(body) => body.into_stream(),
            Self::Http2(..) => None,
        }
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
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
