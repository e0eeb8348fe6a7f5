//! One request and its answer's head, on one connection.
//!
//! Guarantees: a request that failed before anything of it was written is given back whole; an answer that comes before its
//! request has ended is heard, even if the server then stops listening.

use std::task::{Context, Poll, Waker, ready};

use http::StatusCode;

use crate::proxy::interim::Interim;

use super::super::INTERIM_MAX;
use super::super::protocol::{self, Answered, Salvage};
use super::Broken;
use super::answer::{AnswerBody, Upload};
use super::head::{Head, read};
use super::request::Outgoing;
use super::wire::Wire;

/// See the module.
pub(in crate::proxy) struct Exchange {
    wire: Box<Wire>,
    outgoing: Outgoing,
    /// Why the rest of the request cannot be sent.
    deaf: Option<Broken>,
    interim: u32,
    /// Interim answers for the caller.
    heard: Vec<Interim>,
}

impl Exchange {
    /// Begins: a request without a body is written at once.
    pub(in crate::proxy::upstream) fn begin(wire: Box<Wire>, outgoing: Outgoing) -> Self {
        let at_once = outgoing.is_only_a_head();
        let mut exchange = Self { wire, outgoing, deaf: None, interim: 0, heard: Vec::new() };
        if at_once {
            // Whoever waits for the answer polls again, and then is woken.
            exchange.deaf = exchange.send(&mut Context::from_waker(Waker::noop())).err();
        }
        exchange
    }

    /// What is left of the request after the exchange has failed in this way.
    pub(in crate::proxy::upstream) fn into_salvage(self, broken: &Broken) -> Salvage {
        if self.outgoing.is_untouched() {
            return Salvage::Unsent(protocol::Outgoing::Http1(self.outgoing));
        }
        let is_silent = self.interim == 0 && self.wire.read.is_empty();
        let has_ended = matches!(broken, Broken::Closed | Broken::Connection(_));
        match self.outgoing.again().filter(|_| self.wire.is_reused && is_silent && has_ended) {
            Some(again) => Salvage::Lost(protocol::Outgoing::Http1(again)),
            None => Salvage::Nothing,
        }
    }

    /// Writes what can be written, and reads until the head of the final answer is there.
    pub(in crate::proxy::upstream) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        self.poll_send(context)?;
        loop {
            while let Some(head) = read(&mut self.wire.read, self.outgoing.to_head)? {
                if is_final(head.status) {
                    return Poll::Ready(Ok(head));
                }
                self.hear(head, context)?;
            }
            match ready!(self.wire.poll_fill(context)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(self.deaf.take().unwrap_or(Broken::Closed))),
                Err(error) => return Poll::Ready(Err(self.deaf.take().unwrap_or(error.into()))),
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        if self.deaf.is_none()
            && let Err(broken) = self.send(context)
        {
            self.deaf = Some(broken);
        }
        match self.deaf.take_if(|broken| self.outgoing.is_untouched() || matches!(broken, Broken::Request(_))) {
            Some(broken) => Err(broken),
            None => Ok(()), // the server may have said why it stopped listening
        }
    }

    fn send(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(stream) = self.wire.writing() else { return Err(Broken::Closed) };
        match self.outgoing.poll_send(context, stream) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Whether [`Exchange::take_interim`] has any.
    pub(in crate::proxy::upstream) fn has_interim(&self) -> bool {
        !self.heard.is_empty()
    }

    /// The interim answers for the caller that have come since the last call.
    pub(in crate::proxy::upstream) fn take_interim(&mut self) -> Vec<Interim> {
        std::mem::take(&mut self.heard)
    }

    /// An interim answer: `100 Continue` answers the gateway, the others are for the caller.
    fn hear(&mut self, Head { status, headers, .. }: Head, context: &mut Context<'_>) -> Result<(), Broken> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(Broken::Framing("too many interim answers"));
        }
        if status == StatusCode::CONTINUE {
            self.outgoing.release();
            self.poll_send(context)?;
        }
        if Interim::is_for_callers(status) {
            self.heard.push(Interim { status, headers });
        }
        Ok(())
    }

    /// The answer with this head, and its body to come, unless it is known to be broken already.
    pub(in crate::proxy::upstream) fn into_answer(mut self, head: Head) -> Result<Answered, Broken> {
        let Head { status, headers, body, upgrade, keeps, idle_max } = head;
        self.wire.idle_max = idle_max;
        let complete = self.outgoing.is_complete();
        let upload = match self.deaf {
            None if !complete => self.wire.split().map(|half| Upload::spawn(self.outgoing, half)),
            _ => None,
        };
        let body = AnswerBody::new(self.wire, body, keeps && complete, upload).look()?;
        Ok(Answered { status, headers, upgrade, body: protocol::AnswerBody::Http1(body) })
    }
}

fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}
