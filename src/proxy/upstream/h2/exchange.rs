//! One HTTP/2 exchange: a request and the head of its response, on one stream of a session.
//!
//! Guarantees:
//! - A request that was not sent is given back whole.
//! - A request of which the server has processed nothing is given back if its body is buffered.
//! - A response that arrives before its request has ended is read, and the rest of the request is still sent.
//!
//! Leaves to others: the body of the response (`response_body`), and whether a request is resent (`resend`).

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body as _;

use crate::proxy::message::header_rules::{keep_date_unindexed, sanitize_response};
use crate::proxy::message::message_body::MessageBody;
use crate::proxy::upstream::endpoint::error::ConnectionError;
use crate::proxy::upstream::endpoint::received_interim::ReceivedInterim;
use crate::proxy::upstream::endpoint::unanswered::UnansweredRequest;

use super::replayable_body::ReplayableBody;
use super::response_body::Http2Body;
use super::session::{Http2Session, SendTurn, SessionId, SessionPermit};
use super::stream_body::StreamBody;
use super::stream_upload::StreamUpload;

/// One request in progress on a stream of a session.
pub(crate) struct Http2Exchange {
    state: ExchangeState,
    /// Whether the session had already responded to another request.
    is_reused: bool,
    permit: SessionPermit,
    /// Whether the method is HEAD, whose response has no body.
    is_head_request: bool,
    interim: ReceivedInterim,
}

enum ExchangeState {
    /// The request waits for its turn on the session.
    Unsent { turn: SendTurn, request: Box<Request<ReplayableBody>> },
    /// The request was sent, and its response is awaited.
    Sent(Box<SentRequest>),
    /// Sending the head failed, and the request is lost.
    Failed,
}

struct SentRequest {
    response: ResponseFuture,
    /// The upload of the body, if the request has one.
    upload: Option<StreamUpload>,
    /// The head, kept for a resend.
    head: Request<()>,
}

/// The head of a response.
pub(crate) struct Http2ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) stream: RecvStream,
}

impl Http2Exchange {
    /// Begins an exchange. The request is sent at once if the session has room for it.
    pub(crate) fn begin(session: Http2Session, mut request: Box<Request<ReplayableBody>>) -> Self {
        set_content_length(&mut request);
        let (permit, is_head) = (session.new_permit(), *request.method() == Method::HEAD);
        let is_reused = permit.has_responded();
        let state = ExchangeState::Unsent { turn: SendTurn::new(session), request };
        let mut exchange =
            Self { state, is_reused, permit, is_head_request: is_head, interim: ReceivedInterim::default() };
        // A no-op waker suffices: the future that waits for the response polls again and registers its own waker.
        let _ = exchange.poll_send(&mut Context::from_waker(Waker::noop()));
        exchange
    }

    /// Sends the head if it was not sent, and the available part of the body.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if let ExchangeState::Unsent { turn, .. } = &self.state {
            let session = ready!(turn.poll_turn(context))?.clone();
            let ExchangeState::Unsent { request, turn } = std::mem::replace(&mut self.state, ExchangeState::Failed)
            else {
                return Poll::Ready(Err(ConnectionError::Closed));
            };
            self.state = ExchangeState::Sent(Box::new(SentRequest::begin(&session, *request)?));
            drop(turn);
        }
        if let ExchangeState::Sent(sent) = &mut self.state
            && let Some(upload) = &mut sent.upload
        {
            let _ = upload.poll_finished(context); // the end of the stream is reported by its response
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the request as far as possible, until the final head has arrived.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Http2ResponseHead, ConnectionError>> {
        ready!(self.poll_send(context))?;
        while let Some(interim) = self.poll_interim(context)? {
            self.note_interim(interim)?;
        }
        let ExchangeState::Sent(sent) = &mut self.state else { return Poll::Ready(Err(ConnectionError::Closed)) };
        let response =
            ready!(Pin::new(&mut sent.response).poll(context)).map_err(|error| self.permit.connection_error(error))?;
        self.permit.note_response();
        sent.upload.take().into_iter().for_each(StreamUpload::detach);
        let (head, stream) = response.into_parts();
        Poll::Ready(Ok(Http2ResponseHead { status: head.status, headers: head.headers, stream }))
    }

    /// The next interim response, if one has arrived.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Result<Option<Response<()>>, ConnectionError> {
        let ExchangeState::Sent(sent) = &mut self.state else { return Ok(None) };
        match sent.response.poll_informational(context) {
            Poll::Ready(Some(interim)) => interim.map(Some).map_err(|error| self.permit.connection_error(error)),
            Poll::Ready(None) | Poll::Pending => Ok(None),
        }
    }

    fn note_interim(&mut self, interim: Response<()>) -> Result<(), ConnectionError> {
        self.permit.note_received();
        self.interim.count_one()?;
        let (mut head, ()) = interim.into_parts();
        sanitize_response(&mut head.headers);
        self.interim.keep(head.status, head.headers);
        Ok(())
    }

    /// The interim responses that have arrived.
    pub(crate) fn interim(&mut self) -> &mut ReceivedInterim {
        &mut self.interim
    }

    /// The remainder of the request after the exchange failed with this error.
    pub(crate) fn into_unanswered(
        self,
        error: &ConnectionError,
    ) -> UnansweredRequest<Box<Request<ReplayableBody>>, SessionId> {
        let sent = match self.state {
            ExchangeState::Unsent { request, .. } => return UnansweredRequest::Unsent(request),
            ExchangeState::Sent(sent) => sent,
            ExchangeState::Failed => return UnansweredRequest::MaybeProcessed,
        };
        match StreamFailure::classify(error) {
            StreamFailure::Refused => UnansweredRequest::Refused(sent.into_resendable(), self.permit.session_id()),
            StreamFailure::Disconnected if self.is_reused && !self.interim.has_any() && sent.is_safe_without_body() => {
                sent.into_resendable().map_or(UnansweredRequest::MaybeProcessed, UnansweredRequest::StaleConnection)
            }
            StreamFailure::Disconnected | StreamFailure::Unknown => UnansweredRequest::MaybeProcessed,
        }
    }

    /// The body that follows the head; an error if its received part is already malformed. Also sanitizes the headers.
    pub(crate) fn into_body(
        self,
        stream: RecvStream,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Result<Http2Body, ConnectionError> {
        let is_only_a_head = self.is_head_request || matches!(status.as_u16(), 204 | 304);
        let body = StreamBody::new(stream, headers, self.permit);
        sanitize_response(headers);
        if let Some(date) = headers.get_mut(DATE) {
            keep_date_unindexed(&DATE, date);
        }
        Http2Body::new(MessageBody::for_http2_response(body, is_only_a_head)).check_buffered()
    }
}

/// Sets `Content-Length` if the length of the body is known, as hyper's client does: a server may need to know that a
/// body is empty.
fn set_content_length(request: &mut Request<ReplayableBody>) {
    let Some(length) = request.body().size_hint().exact() else { return };
    let rarely_has_one = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    if length > 0 || !rarely_has_one {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

impl SentRequest {
    fn begin(session: &Http2Session, request: Request<ReplayableBody>) -> Result<Self, ConnectionError> {
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        let (response, stream) =
            session.send_head(head.clone(), body.is_end_stream()).map_err(ConnectionError::Http2)?;
        let upload = (!body.is_end_stream()).then(|| StreamUpload::new(stream, body));
        Ok(Self { response, upload, head })
    }

    fn is_safe_without_body(&self) -> bool {
        self.head.method().is_safe() && self.upload.is_none()
    }

    /// The request with its whole body; `None` if more of the body was taken than is buffered.
    fn into_resendable(self) -> Option<Box<Request<ReplayableBody>>> {
        let body = match self.upload {
            Some(upload) => upload.into_body()?,
            None => ReplayableBody::empty(),
        };
        Some(Box::new(self.head.map(|()| body)))
    }
}

/// How a stream without a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamFailure {
    /// The server has processed nothing of the request (RFC 9113 section 8.7). It reset the stream with REFUSED_STREAM,
    /// or sent a GOAWAY whose last stream id is below this stream. h2 reports the GOAWAY error only to such streams.
    Refused,
    /// The connection ended.
    Disconnected,
    /// Any other error.
    Unknown,
}

impl StreamFailure {
    fn classify(error: &ConnectionError) -> Self {
        let ConnectionError::Http2(error) = error else { return Self::Unknown };
        let is_refused = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        match error {
            error if error.is_remote() && is_refused => Self::Refused,
            error if error.is_io() => Self::Disconnected,
            _ => Self::Unknown,
        }
    }
}
