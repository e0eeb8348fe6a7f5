//! Requests to the backends: per worker and server a connection pool, load balancing, health, retries and resends.
//!
//! Guarantees:
//! - A request is sent once, with two exceptions: its backend allows retries (see [`retry_budget`]), or a resend is
//!   known to be harmless.
//! - A resend is harmless if the server has processed nothing of the request (RFC 9113 section 8.7).
//! - A resend is also harmless if a kept connection ended before the first byte of a response, and the request is safe
//!   and has no body (RFC 9110 section 9.2.2).
//! - A request is resent at most [`attempt_state::RESENDS_MAX`] times, and at most once after a lost connection.
//! - A request of which nothing was sent is offered to at most [`SERVERS_MAX`] servers. A kept connection that had been
//!   closed by its server does not count.
//! - A connection returns to its pool only after both bodies ended cleanly.

mod attempt_state;
mod backend_servers;
mod connect;
mod endpoint;
mod h1;
mod h2;
mod health_checks;
mod load_balancing;
mod pool;
mod resend;
mod retry_budget;
mod server_pools;
mod sessions;
mod transport;

use std::pin::Pin;

use http::Method;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::pool::LeasedResponse;
pub(crate) use self::pool::response_deadline::ResponseDeadline;
pub(crate) use self::pool::send_error::SendError;
pub(crate) use self::pool::settings::{PoolSettings, WorkerShare};
use attempt_state::AttemptState;
pub(crate) use backend_servers::BackendServers;
use backend_servers::{NoServer, SERVERS_MAX, SelectedServer};
pub(crate) use connect::ConnectedServer;
pub use endpoint::outlier_ejection::UpstreamHealth;
pub(crate) use endpoint::stream::ServerStream;
pub(crate) use h1::RequestFraming;
#[doc(hidden)] // for fuzz/ only
pub use h1::{ResponseEnd, WholeResponse, read_whole_response};
pub use health_checks::HealthChecker;
pub(crate) use load_balancing::HashKey;
use load_balancing::server_set::TriedServers;
pub(crate) use pool::ServerLease;
use pool::{AllowedConnections, ResendReason, SendAttempt};
use retry_budget::{RetryBudget, RetryableRequest};
pub(crate) use server_pools::WorkerPools;
use transport::protocol::UpstreamExchange;
pub(crate) use transport::protocol::{EncodedHead, UpstreamBody, UpstreamRequest, UpstreamResponse};

/// A request whose sending has begun. The parts are boxed: every future that waits for the response holds a copy, and a
/// future larger than 3.5 KiB costs 800 more instructions to allocate.
pub(crate) enum PendingSend {
    /// Sent on a kept connection.
    InFlight(ServerLease, Box<UpstreamExchange>),
    /// Not sent: the pool had no kept connection, or no server was selected.
    Unsent(Box<UpstreamRequest>, Result<SelectedServer, NoServer>),
}

impl BackendServers {
    /// A copy of the request for retries. `None` if the backend allows no retries or the request must not be
    /// repeated.
    pub(crate) fn retryable_copy(&self, request: &UpstreamRequest, method: &Method) -> Option<RetryableRequest> {
        self.retry_budget.as_ref().and_then(|_| RetryableRequest::from_request(method, request))
    }

    /// Sends a request at once if a connection is kept. This is the common case, and nothing is awaited in it.
    pub(crate) fn try_send(&self, request: UpstreamRequest, key: Option<HashKey>) -> PendingSend {
        let first = if self.wait_queue.is_empty() {
            self.select_server(key, TriedServers::default())
        } else {
            Err(NoServer::AllFull)
        };
        let Ok(selected) = first else { return PendingSend::Unsent(Box::new(request), first) };
        let Some(link) = selected.pool.take_kept(AllowedConnections::Any) else {
            return PendingSend::Unsent(Box::new(request), Ok(selected));
        };
        match UpstreamExchange::begin(link, request) {
            Ok(exchange) => PendingSend::InFlight(ServerLease::new(selected.pool, selected.permit), Box::new(exchange)),
            Err(request) => PendingSend::Unsent(request, Err(NoServer::NoneLeft)),
        }
    }

    /// Waits for the response to a begun request. If nothing was sent, another connection or another server is used. If
    /// the attempt failed, a retry follows where a copy exists and the budget allows it.
    pub(crate) async fn wait_response(
        &self,
        pending_send: PendingSend,
        (key, retryable): (Option<HashKey>, Option<RetryableRequest>),
        deadline: ResponseDeadline<'_>,
    ) -> Result<LeasedResponse, SendError> {
        let mut attempt = AttemptState::new(key, deadline);
        let result = self.first_attempt(pending_send, &mut attempt).await;
        if let Some(budget) = &self.retry_budget {
            budget.deposit();
            if let Some(retryable) = retryable.filter(|_| budget.should_retry(&result, &attempt.deadline)) {
                return Box::pin(self.retry(result, &retryable, budget, attempt)).await;
            }
        }
        result
    }

    /// Waits for the response to a shadow copy. A shadow copy is not a command: it neither deposits to the retry
    /// budget, which callers pay for, nor spends from it.
    pub(crate) async fn wait_shadow_response(
        &self,
        pending_send: PendingSend,
        key: Option<HashKey>,
        deadline: ResponseDeadline<'_>,
    ) -> Result<LeasedResponse, SendError> {
        self.first_attempt(pending_send, &mut AttemptState::new(key, deadline)).await
    }

    async fn first_attempt(
        &self,
        pending_send: PendingSend,
        attempt: &mut AttemptState<'_>,
    ) -> Result<LeasedResponse, SendError> {
        // The rare cases have large futures. They are boxed so that the common future stays small.
        let rest: Pin<Box<dyn Future<Output = Result<LeasedResponse, SendError>> + '_>> = match pending_send {
            PendingSend::Unsent(request, selected) => Box::pin(self.send_to_servers(*request, selected, attempt)),
            PendingSend::InFlight(lease, exchange) => {
                // Only a retry reads the position.
                let position = self.retry_budget.as_ref().and_then(|_| self.position_of(lease.pool()));
                match lease.wait_response(exchange, &attempt.deadline).await {
                    SendAttempt::Response(sent) => return Ok(sent),
                    SendAttempt::Failed(error) => {
                        position.into_iter().for_each(|position| attempt.tried.add(position));
                        return Err(error);
                    }
                    // The server had closed the kept connection. The request held its permit until now, so it need not
                    // queue.
                    SendAttempt::Unsent(request, _) => {
                        attempt.deadline.progress.is_sent.set(false);
                        Box::pin(self.send_to_servers(
                            request,
                            self.select_server(attempt.hash_key, TriedServers::default()),
                            attempt,
                        ))
                    }
                    SendAttempt::Resendable(again) => {
                        let is_lost = matches!(again.reason, ResendReason::StaleConnection(_));
                        attempt.deadline.progress.is_sent.set(is_lost); // this was the first attempt
                        Box::pin(self.resend(again, attempt))
                    }
                }
            }
        };
        rest.await
    }

    async fn send_to_servers(
        &self,
        mut request: UpstreamRequest,
        mut selected: Result<SelectedServer, NoServer>,
        attempt: &mut AttemptState<'_>,
    ) -> Result<LeasedResponse, SendError> {
        let mut reason = String::from("no server is configured");
        for _ in 0..SERVERS_MAX {
            let chosen = match selected {
                Err(NoServer::AllFull) => self.wait_in_queue(attempt).await?,
                chosen => chosen,
            };
            let Ok(SelectedServer { pool, permit, tried }) = chosen else { break };
            attempt.tried = tried;
            match pool.send(request, (permit, AllowedConnections::Any), self.connect_timeout, &attempt.deadline).await {
                SendAttempt::Response(sent) => return Ok(sent),
                SendAttempt::Failed(error) => return Err(error),
                SendAttempt::Resendable(again) => return Box::pin(self.resend(again, attempt)).await,
                SendAttempt::Unsent(unsent, because) => (request, reason) = (unsent, because),
            }
            selected = self.select_server(attempt.hash_key, attempt.tried);
        }
        Err(SendError::Unreachable(reason))
    }

    /// Makes retries: at other servers first, then at any server. A retry never waits in the queue for a permit.
    async fn retry(
        &self,
        mut result: Result<LeasedResponse, SendError>,
        retryable: &RetryableRequest,
        budget: &RetryBudget,
        mut attempt: AttemptState<'_>,
    ) -> Result<LeasedResponse, SendError> {
        for _ in 0..budget.retries_max() {
            if !budget.should_retry(&result, &attempt.deadline) || !wait_backoff(budget, &attempt.deadline).await {
                break;
            }
            if let Ok(sent) = &mut result {
                self.position_of(sent.lease.pool()).into_iter().for_each(|position| attempt.tried.add(position));
                // Should no server be free, this response is the final one. The backoff is no part of its attempt.
                sent.attempt_end = sent.attempt_end.filter(|_| !budget.has_backoff());
            }
            let other = self.select_server(attempt.hash_key, attempt.tried).or_else(|reason| match reason {
                NoServer::NoneLeft => self.select_server(attempt.hash_key, TriedServers::default()),
                NoServer::AllFull => Err(reason),
            });
            let Ok(selected) = other else { break };
            if !budget.spend() {
                break;
            }
            if let Ok(sent) = result {
                sent.note_replaced(); // the final response is noted by the code that forwards it
            }
            result = self.send_retry(retryable, selected, &mut attempt).await;
        }
        result
    }

    async fn send_retry(
        &self,
        retryable: &RetryableRequest,
        selected: SelectedServer,
        attempt: &mut AttemptState<'_>,
    ) -> Result<LeasedResponse, SendError> {
        attempt.tried = selected.tried;
        selected.pool.health.stats.retries.increment();
        let was_sent = attempt.deadline.progress.is_sent.get();
        let permit = (selected.permit, AllowedConnections::Any);
        let result =
            match selected.pool.send(retryable.to_request(), permit, self.connect_timeout, &attempt.deadline).await {
                SendAttempt::Response(sent) => Ok(sent),
                SendAttempt::Failed(error) => Err(error),
                SendAttempt::Resendable(again) => self.resend(again, attempt).await,
                SendAttempt::Unsent(_, reason) => Err(SendError::Unreachable(reason)),
            };
        // Not `Unreachable` if an earlier attempt was sent.
        if was_sent { result.map_err(SendError::after_ambiguous_attempt) } else { result }
    }
}

/// Waits for the backoff before a retry. Returns whether the retry may follow. With a backoff that is not the case if
/// the budget is used up, or if the command ends before the backoff does: the caller need not wait for nothing.
async fn wait_backoff(budget: &RetryBudget, deadline: &ResponseDeadline<'_>) -> bool {
    let Some(backoff) = budget.next_backoff() else { return true };
    let begin = Instant::now() + backoff;
    let may_follow = budget.has_balance() && deadline.not_after.is_none_or(|end| begin < end);
    if may_follow {
        sleep_until(begin).await;
    }
    may_follow
}
