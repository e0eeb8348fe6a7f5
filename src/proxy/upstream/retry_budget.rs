//! Retries: which failed attempts are repeated, and the retry budget that bounds them. Off unless a subsystem
//! configures retries.
//!
//! Guarantees:
//! - Only requests with an idempotent method (RFC 9110 section 9.2.2) and without a body are retried.
//! - retries <= `budget_percent` of this worker's commands + [`SAVED_MAX`].
//! - A retry is an attempt, not a command: ticket, ledger and outcome belong to the command.
//!
//! Leaves to [`super::BackendServers`]: the server that gets the retry.

use std::cell::Cell;
use std::time::Duration;

use http::{Method, Request};

use crate::policy::RetryPolicy;
use crate::proxy::message::request_body::RequestBody;

use super::endpoint::error::ConnectionError;
use super::h1::RequestFraming;
use super::pool::LeasedResponse;
use super::pool::response_deadline::ResponseDeadline;
use super::pool::send_error::SendError;
use super::transport::protocol::{EncodedHead, UpstreamRequest};

/// The maximum of retries that are saved up while few attempts fail.
const SAVED_MAX: u32 = 10;
/// The retries that a worker starts with; Envoy's `min_retry_concurrency`.
const SAVED_FIRST: u32 = 3;
/// The cost of a retry. Each command deposits the budget's percentage of it.
const RETRY_COST: u32 = 100;

/// The retry budget of one worker for one subsystem.
pub(crate) struct RetryBudget {
    policy: RetryPolicy,
    balance: Cell<u32>,
}

/// A copy of a request without a body, for retries.
pub(crate) struct RetryableRequest(EncodedHead);

impl RetryBudget {
    pub(crate) fn new(retries: &RetryPolicy) -> Self {
        Self { policy: retries.clone(), balance: Cell::new(SAVED_FIRST * RETRY_COST) }
    }

    /// The maximum number of retries of one command.
    pub(crate) fn retries_max(&self) -> u32 {
        self.policy.attempts
    }

    /// Deposits the share of one command.
    pub(crate) fn deposit(&self) {
        self.balance.set((self.balance.get() + self.policy.budget_percent).min(SAVED_MAX * RETRY_COST));
    }

    /// Whether the balance is enough for a retry.
    pub(crate) fn has_balance(&self) -> bool {
        self.balance.get() >= RETRY_COST
    }

    /// Whether there is a delay before each retry.
    pub(crate) fn has_backoff(&self) -> bool {
        self.policy.backoff.is_some()
    }

    /// The delay before a retry: the backoff with a jitter of plus or minus 10 %.
    pub(crate) fn next_backoff(&self) -> Option<Duration> {
        self.policy.backoff.map(|backoff| backoff * fastrand::u32(900..=1100) / 1000)
    }

    /// Withdraws the cost of one retry; `false` if the balance is too low.
    pub(crate) fn spend(&self) -> bool {
        let left = self.balance.get().checked_sub(RETRY_COST);
        self.balance.set(left.unwrap_or(self.balance.get()));
        left.is_some()
    }

    /// Whether the result of an attempt calls for a retry: the connection broke before the head of a response, the
    /// attempt exceeded its timeout, no server could be connected to (if listed), or the response has a status that
    /// the subsystem lists. A 429 or 503 with `Retry-After` is not retried: the server requests a pause.
    pub(crate) fn should_retry(
        &self,
        result: &Result<LeasedResponse, SendError>,
        deadline: &ResponseDeadline<'_>,
    ) -> bool {
        let is_wanted = match result {
            Ok(LeasedResponse { response: answer, .. }) => {
                self.policy.on.contains(&answer.status.as_u16()) && !answer.requests_pause()
            }
            Err(SendError::AttemptTimeout) => true,
            Err(SendError::Unreachable(_)) => self.policy.on_connect_failure,
            Err(SendError::Failed(ConnectionError::Closed | ConnectionError::Io(_) | ConnectionError::Http2(_))) => {
                true
            }
            Err(_) => false,
        };
        is_wanted && deadline.progress.error.get().is_none()
    }
}

impl RetryableRequest {
    /// A copy of a request, if its method is idempotent and it has no body.
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

    /// The request to send.
    pub(crate) fn to_request(&self) -> UpstreamRequest {
        self.0.clone().with_body(RequestBody::empty(), RequestFraming::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(backoff: Option<Duration>) -> RetryPolicy {
        RetryPolicy { attempts: 1, budget_percent: 20, on: Vec::new(), on_connect_failure: false, backoff }
    }

    #[test]
    fn backoff_has_a_jitter_of_a_tenth() {
        let budget = RetryBudget::new(&policy(Some(Duration::from_secs(1))));
        for _ in 0..100 {
            let delay = budget.next_backoff().expect("a backoff").as_millis();
            assert!((900..=1100).contains(&delay), "{delay}");
        }
        assert_eq!(RetryBudget::new(&policy(None)).next_backoff(), None);
    }

    #[test]
    fn retries_are_limited_to_a_percentage_of_commands() {
        let budget = RetryBudget::new(&policy(None));
        let spent = |commands: usize| (0..commands).inspect(|_| budget.deposit()).filter(|_| budget.spend()).count();
        assert_eq!(spent(1_000), 203, "a fifth, and the initial budget of a worker");
        (0..1_000).for_each(|_| budget.deposit());
        assert!(budget.has_balance());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 10, "the saved budget is bounded");
        assert!(!budget.has_balance());
    }
}
