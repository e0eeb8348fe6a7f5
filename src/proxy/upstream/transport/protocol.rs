//! The upstream protocol, HTTP/1.1 or HTTP/2, behind one interface: request, connection, exchange, response, body.
//!
//! Guarantees: a request is sent only on a connection of its own protocol.
//!
//! Leaves to others: the protocols themselves (`h1`, `h2`), and the choice of a connection (`pool`).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::message::request_body::RequestBody;
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::endpoint::received_interim::ReceivedInterim;
use crate::proxy::upstream::endpoint::stream::ServerStream;
use crate::proxy::upstream::endpoint::unanswered::UnansweredRequest;
use crate::proxy::upstream::h1::{self, Http1Connection, RequestFraming};
use crate::proxy::upstream::h2::replayable_body::ReplayableBody;
use crate::proxy::upstream::h2::response_body::Http2Body;
use crate::proxy::upstream::h2::{self, Http2Session, SessionId};

/// An upstream request, ready to be sent.
pub(crate) enum UpstreamRequest {
    /// An encoded HTTP/1.1 request.
    Http1(h1::Http1Request),
    /// A request that h2 encodes.
    Http2(Box<Request<ReplayableBody>>),
}

/// The head of a request in the form of its protocol.
#[derive(Clone)]
pub(crate) enum EncodedHead {
    /// The encoded head.
    Http1(Bytes),
    /// A head that h2 encodes.
    Http2(Box<Request<()>>),
}

impl EncodedHead {
    /// The request with this head and this body.
    pub(crate) fn with_body(self, body: RequestBody, framing: RequestFraming) -> UpstreamRequest {
        match self {
            Self::Http1(head) => UpstreamRequest::Http1(h1::Http1Request::new(head, body, framing)),
            Self::Http2(head) => UpstreamRequest::Http2(Box::new(head.map(|()| ReplayableBody::new(body)))),
        }
    }
}

/// A connection that can carry a request.
pub(crate) enum UpstreamConnection {
    /// A connection that one request uses alone.
    Http1(Box<Http1Connection>),
    /// A session that several requests share.
    Http2(Http2Session),
}

/// A request in progress, until the head of its response.
pub(crate) enum UpstreamExchange {
    /// An exchange on its own connection.
    Http1(h1::Http1Exchange),
    /// An exchange on an HTTP/2 stream.
    Http2(h2::Http2Exchange),
}

/// The head of a response.
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

/// The response of a subsystem.
pub(crate) struct UpstreamResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The protocol that a 101 response switches to.
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) body: UpstreamBody,
}

impl UpstreamResponse {
    /// Whether the response is a 503 with `Retry-After` (RFC 9110 section 15.6.4). Such a server is healthy, and the
    /// caller gets the response unchanged.
    pub(crate) fn is_retry_later(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains_key(RETRY_AFTER)
    }

    /// Whether the server requests a pause before the next request: a 429 or a 503 with `Retry-After` (RFC 6585
    /// section 4).
    pub(crate) fn requests_pause(&self) -> bool {
        self.is_retry_later()
            || (self.status == StatusCode::TOO_MANY_REQUESTS && self.headers.contains_key(RETRY_AFTER))
    }
}

/// The body of a response.
pub(crate) enum UpstreamBody {
    /// See [`h1::Http1Body`].
    Http1(h1::Http1Body),
    /// See [`Http2Body`].
    Http2(Http2Body),
}

impl UpstreamExchange {
    /// Begins an exchange. A pool uses the protocol that its subsystem's requests are made for; on a mismatch the
    /// request is given back.
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

    /// Ready with the head of the final response.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<ResponseHead, ConnectionError>> {
        match self {
            Self::Http1(exchange) => exchange.poll_head(context).map_ok(ResponseHead::Http1),
            Self::Http2(exchange) => exchange.poll_head(context).map_ok(ResponseHead::Http2),
        }
    }

    /// The interim responses that have arrived.
    pub(crate) fn interim(&mut self) -> &mut ReceivedInterim {
        match self {
            Self::Http1(exchange) => exchange.interim(),
            Self::Http2(exchange) => exchange.interim(),
        }
    }

    /// The remainder of the request after the exchange failed with this error.
    pub(crate) fn into_unanswered(self, error: &ConnectionError) -> UnansweredRequest<UpstreamRequest, SessionId> {
        match self {
            Self::Http1(exchange) => exchange.into_unanswered(error).map_request(UpstreamRequest::Http1),
            Self::Http2(exchange) => exchange.into_unanswered(error).map_request(UpstreamRequest::Http2),
        }
    }

    /// The response with the head of this exchange. The part of the body that arrived with the head is checked: a
    /// response that is malformed there counts as no response.
    pub(crate) fn into_response(self, head: ResponseHead) -> Result<UpstreamResponse, ConnectionError> {
        match (self, head) {
            (Self::Http1(exchange), ResponseHead::Http1(head)) => {
                let h1::Http1ResponseHead { status, headers, body, upgrade, keep_alive, idle_max } = head;
                let body = exchange.into_body(body, keep_alive, idle_max)?;
                Ok(UpstreamResponse { status, headers, upgrade, body: UpstreamBody::Http1(body) })
            }
            (Self::Http2(exchange), ResponseHead::Http2(head)) => {
                let h2::Http2ResponseHead { status, mut headers, stream } = head;
                let body = exchange.into_body(stream, status, &mut headers)?;
                Ok(UpstreamResponse { status, headers, upgrade: None, body: UpstreamBody::Http2(body) })
            }
            _ => Err(ConnectionError::Closed),
        }
    }
}

impl UpstreamBody {
    /// Limits each further read to this many bytes. Over HTTP/2, flow control does this.
    pub(crate) fn set_read_ahead_max(&mut self, bytes: usize) {
        match self {
            Self::Http1(body) => body.set_read_ahead_max(bytes),
            Self::Http2(..) => {}
        }
    }

    /// Bytes that were read and are not handed over yet. Over HTTP/2, flow control bounds the rest.
    pub(crate) fn buffered_bytes(&self) -> usize {
        match self {
            Self::Http1(body) => body.buffered_bytes(),
            Self::Http2(body) => body.buffered_bytes(),
        }
    }

    /// Whether all content has been handed over. Over HTTP/2, END_STREAM and trailers may still follow.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_complete(),
        }
    }

    /// The connection, if one request uses it alone and it can be reused.
    pub(crate) fn take_reusable(&mut self) -> Option<Box<Http1Connection>> {
        match self {
            Self::Http1(body) => body.take_reusable(),
            Self::Http2(..) => None,
        }
    }

    /// The connection with the bytes that were read ahead, for another protocol after an upgrade.
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
