//! One HTTP/1.1 exchange: a request and the head of its response, on one connection.
//!
//! Guarantees:
//! - A request that failed before any byte of it was written is given back whole.
//! - A response that arrives before its request has ended is read, even if the server then stops reading the request.
//!
//! Leaves to others: the body of the response (`response_body`), and whether a request is resent (`resend`).

use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::StatusCode;

use crate::proxy::upstream::endpoint::received_interim::ReceivedInterim;
use crate::proxy::upstream::endpoint::unanswered::UnansweredRequest;

use super::ConnectionError;
use super::body_decoder::BodyDecoder;
use super::connection::Http1Connection;
use super::request::Http1Request;
use super::response_body::{Http1Body, RequestUpload};
use super::response_head::{Http1ResponseHead, parse_response_head};

/// One request in progress on its own connection.
pub(crate) struct Http1Exchange {
    connection: Box<Http1Connection>,
    request: Http1Request,
    /// Why the rest of the request cannot be sent.
    send_error: Option<ConnectionError>,
    interim: ReceivedInterim,
}

impl Http1Exchange {
    /// Begins an exchange. A request without a body is written at once.
    pub(crate) fn begin(connection: Box<Http1Connection>, outgoing: Http1Request) -> Self {
        let at_once = outgoing.is_head_only();
        let mut exchange =
            Self { connection, request: outgoing, send_error: None, interim: ReceivedInterim::default() };
        if at_once {
            // A no-op waker suffices: the future that waits for the response polls again and registers its own waker.
            exchange.send_error = exchange.try_send(&mut Context::from_waker(Waker::noop())).err();
        }
        exchange
    }

    /// The remainder of the request after the exchange failed with this error. A server cannot refuse a request: `S` is
    /// for the session of another protocol.
    pub(crate) fn into_unanswered<S>(self, error: &ConnectionError) -> UnansweredRequest<Http1Request, S> {
        if self.request.is_unsent() {
            return UnansweredRequest::Unsent(self.request);
        }
        let is_silent = !self.interim.has_any() && self.connection.unparsed.is_empty();
        let has_ended = matches!(error, ConnectionError::Closed | ConnectionError::Io(_));
        match self.request.into_resendable().filter(|_| self.connection.is_reused && is_silent && has_ended) {
            Some(resendable) => UnansweredRequest::StaleConnection(resendable),
            None => UnansweredRequest::MaybeProcessed,
        }
    }

    /// Writes the request as far as possible, and reads until the final head has arrived.
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
            && let Err(error) = self.try_send(context)
        {
            self.send_error = Some(error);
        }
        match self
            .send_error
            .take_if(|error| self.request.is_unsent() || matches!(error, ConnectionError::RequestBody(_)))
        {
            Some(error) => Err(error),
            // The response of the server may give the reason why it stopped reading.
            None => Ok(()),
        }
    }

    fn try_send(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionError> {
        let Some(stream) = self.connection.write_stream() else { return Err(ConnectionError::Closed) };
        match self.request.poll_send(context, stream) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// The interim responses that have arrived.
    pub(crate) fn interim(&mut self) -> &mut ReceivedInterim {
        &mut self.interim
    }

    /// Handles an interim response: `100 Continue` is for the gateway, all others are for the caller.
    fn note_interim(
        &mut self,
        Http1ResponseHead { status, headers, .. }: Http1ResponseHead,
        context: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        self.interim.count_one()?;
        if status == StatusCode::CONTINUE {
            self.request.release_body();
            self.poll_send(context)?;
        }
        self.interim.keep(status, headers);
        Ok(())
    }

    /// The body that follows the head; an error if its buffered part is already malformed. `keep_alive` and `idle_max`
    /// are those of the head.
    pub(crate) fn into_body(
        mut self,
        decoder: BodyDecoder,
        keep_alive: bool,
        idle_max: Option<Duration>,
    ) -> Result<Http1Body, ConnectionError> {
        self.connection.idle_max = idle_max;
        let complete = self.request.is_complete();
        let upload = match self.send_error {
            None if !complete => {
                self.connection.split_write_half().map(|half| RequestUpload::spawn(self.request, half))
            }
            _ => None,
        };
        Http1Body::new(self.connection, decoder, keep_alive && complete, upload).check_buffered()
    }
}

pub(super) fn is_final_status(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}
