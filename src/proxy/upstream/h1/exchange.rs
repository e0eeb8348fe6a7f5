//! One request and its answer's head, on one connection.
//!
//! Guarantees: a request that failed before anything of it was written is given back whole; an answer that comes before its
//! request has ended is heard, even if the server then stops listening.

use std::task::{Context, Poll, Waker, ready};

use http::StatusCode;

use crate::proxy::message::interim_response::InterimResponse;

use super::ConnectionError;
use super::connection::Http1Connection;
use super::request::Http1Request;
use super::response_body::{Http1Body, RequestUpload};
use super::response_head::{Http1ResponseHead, parse_response_head};
use crate::proxy::message::interim_response::INTERIM_RESPONSES_MAX;
use crate::proxy::upstream::transport::protocol::{self, UnansweredRequest, UpstreamResponse};

/// See the module.
pub(crate) struct Http1Exchange {
    connection: Box<Http1Connection>,
    request: Http1Request,
    /// Why the rest of the request cannot be sent.
    send_error: Option<ConnectionError>,
    interim_count: u32,
    /// Interim answers for the caller.
    interim_responses: Vec<InterimResponse>,
}

impl Http1Exchange {
    /// Begins: a request without a body is written at once.
    pub(crate) fn begin(connection: Box<Http1Connection>, outgoing: Http1Request) -> Self {
        let at_once = outgoing.is_head_only();
        let mut exchange =
            Self { connection, request: outgoing, send_error: None, interim_count: 0, interim_responses: Vec::new() };
        if at_once {
            // Whoever waits for the answer polls again, and then is woken.
            exchange.send_error = exchange.try_send(&mut Context::from_waker(Waker::noop())).err();
        }
        exchange
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(crate) fn into_unanswered(self, broken: &ConnectionError) -> UnansweredRequest {
        if self.request.is_unsent() {
            return UnansweredRequest::Unsent(protocol::UpstreamRequest::Http1(self.request));
        }
        let is_silent = self.interim_count == 0 && self.connection.unparsed.is_empty();
        let has_ended = matches!(broken, ConnectionError::Closed | ConnectionError::Io(_));
        match self.request.into_resendable().filter(|_| self.connection.is_reused && is_silent && has_ended) {
            Some(resendable) => UnansweredRequest::StaleConnection(protocol::UpstreamRequest::Http1(resendable)),
            None => UnansweredRequest::MaybeProcessed,
        }
    }

    /// Writes what can be written, and reads until the head of the final answer is there.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Http1ResponseHead, ConnectionError>> {
        self.poll_send(context)?;
        loop {
            while let Some(head) = parse_response_head(&mut self.connection.unparsed, self.request.is_head_request)? {
                if is_final_status(head.status) {
                    return Poll::Ready(Ok(head));
                }
                self.note_interim(head, context)?;
            }
            match ready!(self.connection.poll_fill(context)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(self.send_error.take().unwrap_or(ConnectionError::Closed))),
                Err(error) => return Poll::Ready(Err(self.send_error.take().unwrap_or(error.into()))),
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionError> {
        if self.send_error.is_none()
            && let Err(broken) = self.try_send(context)
        {
            self.send_error = Some(broken);
        }
        match self
            .send_error
            .take_if(|broken| self.request.is_unsent() || matches!(broken, ConnectionError::RequestBody(_)))
        {
            Some(broken) => Err(broken),
            None => Ok(()), // the server may have said why it stopped listening
        }
    }

    fn try_send(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionError> {
        let Some(stream) = self.connection.write_stream() else { return Err(ConnectionError::Closed) };
        match self.request.poll_send(context, stream) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Whether [`Http1Exchange::take_interim`] has any.
    pub(crate) fn has_interim(&self) -> bool {
        !self.interim_responses.is_empty()
    }

    /// The interim answers for the caller that have come since the last call.
    pub(crate) fn take_interim(&mut self) -> Vec<InterimResponse> {
        std::mem::take(&mut self.interim_responses)
    }

    /// An interim answer: `100 Continue` answers the gateway, the others are for the caller.
    fn note_interim(
        &mut self,
        Http1ResponseHead { status, headers, .. }: Http1ResponseHead,
        context: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        self.interim_count += 1;
        if self.interim_count > INTERIM_RESPONSES_MAX {
            return Err(ConnectionError::InvalidResponse("too many interim answers"));
        }
        if status == StatusCode::CONTINUE {
            self.request.release_body();
            self.poll_send(context)?;
        }
        if InterimResponse::is_forwarded(status) {
            self.interim_responses.push(InterimResponse { status, headers });
        }
        Ok(())
    }

    /// The answer with this head, and its body to come, unless it is known to be broken already.
    pub(crate) fn into_response(mut self, head: Http1ResponseHead) -> Result<UpstreamResponse, ConnectionError> {
        let Http1ResponseHead { status, headers, body, upgrade, keep_alive: keeps, idle_max } = head;
        self.connection.idle_max = idle_max;
        let complete = self.request.is_complete();
        let upload = match self.send_error {
            None if !complete => {
                self.connection.split_write_half().map(|half| RequestUpload::spawn(self.request, half))
            }
            _ => None,
        };
        let body = Http1Body::new(self.connection, body, keeps && complete, upload).check_buffered()?;
        Ok(UpstreamResponse { status, headers, upgrade, body: protocol::UpstreamBody::Http1(body) })
    }
}

fn is_final_status(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}
