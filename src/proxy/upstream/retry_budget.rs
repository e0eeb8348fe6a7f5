//! Which failed attempts are made again, and how often: off unless a subsystem says so.
//!
//! Guarantees: only requests that may be repeated (RFC 9110 section 9.2.2) and have no body; never more retries than the
//! budget's part of this worker's commands, and [`SAVED_MAX`] beyond; a retry is an attempt, not a command: ticket, ledger and
//! outcome are the command's. Leaves to [`super::SubsystemServers`] which server gets it.

use std::cell::Cell;

use http::{Method, Request};

use crate::policy::RetryPolicy;
use crate::proxy::message::request_body::RequestBody;

use super::endpoint::error::ConnectionError;
use super::h1::RequestFraming;
use super::pool::LeasedResponse;
use super::pool::response_deadline::ResponseDeadline;
use super::pool::send_error::SendError;
use super::transport::protocol::{EncodedHead, UpstreamRequest};

/// Retries that may be saved up while little fails.
const SAVED_MAX: u32 = 10;
/// Retries that a worker begins with; Envoy's `min_retry_concurrency`.
const SAVED_FIRST: u32 = 3;
/// What a retry costs; a command brings the budget's percentage of it.
const RETRY_COST: u32 = 100;

/// What one worker may spend on retries at one subsystem.
pub(crate) struct RetryBudget {
    policy: RetryPolicy,
    balance: Cell<u32>,
}

/// A request that may be sent again, as it was. It has no body.
pub(crate) struct RetryableRequest(EncodedHead);

impl RetryBudget {
    pub(crate) fn new(retries: &RetryPolicy) -> Self {
        Self { policy: retries.clone(), balance: Cell::new(SAVED_FIRST * RETRY_COST) }
    }

    /// How often one command is tried again.
    pub(crate) fn retries_max(&self) -> u32 {
        self.policy.attempts
    }

    /// A command has come.
    pub(crate) fn deposit(&self) {
        self.balance.set((self.balance.get() + self.policy.budget_percent).min(SAVED_MAX * RETRY_COST));
    }

    /// Takes what a retry costs, if it is there.
    pub(crate) fn spend(&self) -> bool {
        let left = self.balance.get().checked_sub(RETRY_COST);
        self.balance.set(left.unwrap_or(self.balance.get()));
        left.is_some()
    }

    /// Whether what came of an attempt is to be tried again: a connection that broke before the head of an answer, or an
    /// answer with a status that the subsystem names. A server that asks to be left alone for a moment is.
    pub(crate) fn should_retry(
        &self,
        result: &Result<LeasedResponse, SendError>,
        deadline: &ResponseDeadline<'_>,
    ) -> bool {
        let is_wanted = match result {
            Ok(LeasedResponse { response: answer, .. }) => {
                self.policy.on.contains(&answer.status.as_u16()) && !answer.is_retry_later()
            }
            Err(SendError::Failed(ConnectionError::Closed | ConnectionError::Io(_) | ConnectionError::Http2(_))) => {
                true
            }
            Err(_) => false,
        };
        is_wanted && deadline.progress.error.get().is_none()
    }
}

impl RetryableRequest {
    /// A copy of a request that may be repeated.
    pub(crate) fn from_request(method: &Method, request: &UpstreamRequest) -> Option<Self> {
        let repeatable = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        if !repeatable {
            return None;
        }
        let head = match request {
            UpstreamRequest::Http1(request) => request.head_if_bodiless().map(EncodedHead::Http1),
            UpstreamRequest::Http2(request) => {
                let mut head = Request::new(());
                *head.method_mut() = request.method().clone();
                *head.uri_mut() = request.uri().clone();
                *head.version_mut() = request.version();
                *head.headers_mut() = request.headers().clone();
                request.body().is_empty().then(|| EncodedHead::Http2(Box::new(head)))
            }
        };
        head.map(Self)
    }

    /// The request again.
    pub(crate) fn to_request(&self) -> UpstreamRequest {
        self.0.clone().with_body(RequestBody::empty(), RequestFraming::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_the_commands() {
        let budget = RetryBudget::new(&RetryPolicy { attempts: 1, budget_percent: 20, on: Vec::new() });
        let spent = |commands: usize| (0..commands).inspect(|_| budget.deposit()).filter(|_| budget.spend()).count();
        assert_eq!(spent(1_000), 203, "a fifth, and what a worker begins with");
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 10, "what is saved has an end");
    }
}
