//! One request and its answer's head, on one session.
//!
//! Guarantees: a request that was not sent is given back whole; one of which the server has processed nothing, as far
//! as its body is held; an answer that comes before its request has ended is heard, and the rest of the request goes
//! on.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Body as _;

use crate::proxy::fields::towards_caller;
use crate::proxy::interim::Interim;
use crate::proxy::message_body::MessageBody;
use crate::proxy::upstream::loan::LentBody;
use crate::proxy::upstream::protocol::{AnswerBody, Answered, Outgoing, Salvage};
use crate::proxy::upstream::stream_answer::StreamAnswer;
use crate::proxy::upstream::{Broken, INTERIM_MAX};

use super::answer::StreamBody;
use super::session::{Counted, Line, Session};
use super::upload::Upload;

/// See the module.
pub(in crate::proxy) struct Exchange {
    state: State,
    /// Whether the session had answered another request before.
    is_reused: bool,
    counted: Counted,
    /// Whether it is a HEAD, whose answer has no body.
    is_head: bool,
    interim: u32,
    /// Interim answers for the caller.
    heard: Vec<Interim>,
}

enum State {
    /// The session has not taken it.
    Unsent { line: Line, request: Box<Request<LentBody>> },
    /// Its answer is waited for.
    Sent(Box<Sent>),
    /// The session has not taken it, and it is gone.
    Gone,
}

struct Sent {
    answer: ResponseFuture,
    /// Its body, if it has one.
    upload: Option<Upload>,
    /// Its head, to be sent again.
    head: Request<()>,
}

/// The head of an answer.
pub(in crate::proxy::upstream) struct Head {
    pub(in crate::proxy::upstream) status: StatusCode,
    pub(in crate::proxy::upstream) headers: HeaderMap,
    stream: RecvStream,
}

impl Exchange {
    /// Begins: a request is sent at once, if the session takes it.
    pub(in crate::proxy::upstream) fn begin(session: Session, mut request: Box<Request<LentBody>>) -> Self {
        note_length(&mut request);
        let (counted, is_head) = (session.counted(), *request.method() == Method::HEAD);
        let is_reused = counted.has_answered();
        let state = State::Unsent { line: Line::new(session), request };
        let mut exchange = Self { state, is_reused, counted, is_head, interim: 0, heard: Vec::new() };
        // Whoever waits for the answer polls again, and then is told.
        let _ = exchange.poll_send(&mut Context::from_waker(Waker::noop()));
        exchange
    }

    /// Sends the head, if it is not sent, and what there is of the body.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let State::Unsent { line, .. } = &self.state {
            let session = ready!(line.poll(context))?.clone();
            let State::Unsent { request, line } = std::mem::replace(&mut self.state, State::Gone) else {
                return Poll::Ready(Err(Broken::Closed));
            };
            self.state = State::Sent(Box::new(Sent::begin(&session, *request)?));
            drop(line);
        }
        if let State::Sent(sent) = &mut self.state
            && let Some(upload) = &mut sent.upload
        {
            let _ = upload.poll(context); // a stream that has ended says so as its answer
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what can be sent, until the head of the final answer is there.
    pub(in crate::proxy::upstream) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        ready!(self.poll_send(context))?;
        while let Some(interim) = self.poll_interim(context)? {
            self.hear(interim)?;
        }
        let State::Sent(sent) = &mut self.state else { return Poll::Ready(Err(Broken::Closed)) };
        let answer = ready!(Pin::new(&mut sent.answer).poll(context)).map_err(|error| self.counted.broken(error))?;
        self.counted.answers();
        sent.upload.take().into_iter().for_each(Upload::go_on);
        let (head, stream) = answer.into_parts();
        Poll::Ready(Ok(Head { status: head.status, headers: head.headers, stream }))
    }

    /// The next interim answer, if one has come.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Result<Option<Response<()>>, Broken> {
        let State::Sent(sent) = &mut self.state else { return Ok(None) };
        match sent.answer.poll_informational(context) {
            Poll::Ready(Some(interim)) => interim.map(Some).map_err(|error| self.counted.broken(error)),
            Poll::Ready(None) | Poll::Pending => Ok(None),
        }
    }

    fn hear(&mut self, interim: Response<()>) -> Result<(), Broken> {
        self.counted.hears();
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(Broken::Framing("too many interim answers"));
        }
        let (head, ()) = interim.into_parts();
        if Interim::is_for_callers(head.status) {
            let (status, mut headers) = (head.status, head.headers);
            towards_caller(&mut headers);
            self.heard.push(Interim { status, headers });
        }
        Ok(())
    }

    /// Whether [`Exchange::take_interim`] has any.
    pub(in crate::proxy::upstream) fn has_interim(&self) -> bool {
        !self.heard.is_empty()
    }

    /// The interim answers for the caller that have come since the last call.
    pub(in crate::proxy::upstream) fn take_interim(&mut self) -> Vec<Interim> {
        std::mem::take(&mut self.heard)
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(in crate::proxy::upstream) fn into_salvage(self, broken: &Broken) -> Salvage {
        let sent = match self.state {
            State::Unsent { request, .. } => return Salvage::Unsent(Outgoing::Http2(request)),
            State::Sent(sent) => sent,
            State::Gone => return Salvage::Nothing,
        };
        match Fate::of(broken) {
            Fate::Refused => Salvage::Refused(sent.again(), self.counted.mark()),
            Fate::Ended if self.is_reused && self.interim == 0 && sent.is_safe_and_bare() => {
                sent.again().map_or(Salvage::Nothing, Salvage::Lost)
            }
            Fate::Ended | Fate::Unknown => Salvage::Nothing,
        }
    }

    /// The answer with this head, and its body to come, unless it is known to be broken already.
    pub(in crate::proxy::upstream) fn into_answer(self, head: Head) -> Result<Answered, Broken> {
        let Head { status, mut headers, stream } = head;
        let is_only_a_head = self.is_head || matches!(status.as_u16(), 204 | 304);
        let body = StreamBody::new(stream, &headers, self.counted);
        towards_caller(&mut headers);
        let body = StreamAnswer::new(MessageBody::of_http2_answer(body, is_only_a_head)).look()?;
        Ok(Answered { status, headers, upgrade: None, body: AnswerBody::Http2(body) })
    }
}

/// The length of a body that is known, as hyper's client writes it: a server may want to know that there is none.
fn note_length(request: &mut Request<LentBody>) {
    let Some(length) = request.body().size_hint().exact() else { return };
    let rarely_has_one = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    if length > 0 || !rarely_has_one {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

impl Sent {
    fn begin(session: &Session, request: Request<LentBody>) -> Result<Self, Broken> {
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        let (answer, stream) = session.send(head.clone(), body.is_end_stream()).map_err(Broken::Http2)?;
        let upload = (!body.is_end_stream()).then(|| Upload::new(stream, body));
        Ok(Self { answer, upload, head })
    }

    fn is_safe_and_bare(&self) -> bool {
        self.head.method().is_safe() && self.upload.is_none()
    }

    /// The request, with all of its body; nothing, if more of it was taken than is held.
    fn again(self) -> Option<Outgoing> {
        let body = match self.upload {
            Some(upload) => upload.take_back()?,
            None => LentBody::none(),
        };
        Some(Outgoing::Http2(Box::new(self.head.map(|()| body))))
    }
}

/// What became of a request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The server has processed nothing of it: it reset the stream with REFUSED_STREAM, or took its leave with a last
    /// stream below this one (RFC 9113 section 8.7). h2 gives the error of a GOAWAY to such streams only.
    Refused,
    /// The connection ended.
    Ended,
    /// Anything else.
    Unknown,
}

impl Fate {
    fn of(broken: &Broken) -> Self {
        let Broken::Http2(error) = broken else { return Self::Unknown };
        let is_refused = error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        match error {
            error if error.is_remote() && is_refused => Self::Refused,
            error if error.is_io() => Self::Ended,
            _ => Self::Unknown,
        }
    }
}
