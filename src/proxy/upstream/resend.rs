//! Resends: attempts that need no permission by the subsystem's configuration. There are two cases:
//! - A server has processed nothing of the request (RFC 9113 section 8.7).
//! - A kept connection lost a safe request without a body (RFC 9110 section 9.2.2).
//!
//! Guarantees:
//! - A command is resent at most [`RESENDS_MAX`](super::attempt_state::RESENDS_MAX) times, and after a lost connection
//!   once, on a new connection.
//! - A session that refused the request does not get it again.
//! - A request of which no server has processed anything ends as [`SendError::Refused`] or [`SendError::Unreachable`],
//!   any other as [`SendError::Failed`].
//!
//! Leaves to [`super::transport::protocol`] whether a request can be resent, and to [`super::retry_budget`] all other
//! repetitions.

use std::rc::Rc;

use super::attempt_state::AttemptState;
use super::backend_servers::{BackendServers, SERVERS_MAX, SelectedServer};
use super::pool::send_error::SendError;
use super::pool::{AllowedConnections, ConnectionPool, LeasedResponse, ResendReason, ResendableRequest, SendAttempt};
use super::transport::protocol::UpstreamRequest;

/// The result of a resend: a response, or a request that may be resent once more.
enum ResendResult {
    Response(LeasedResponse),
    Resend(ResendableRequest),
}

impl BackendServers {
    /// Resends a request until a response arrives or [`AttemptState`] allows no more resends.
    pub(crate) async fn resend(
        &self,
        mut resendable: ResendableRequest,
        course: &mut AttemptState<'_>,
    ) -> Result<LeasedResponse, SendError> {
        loop {
            let ResendableRequest { request, pool, reason } = resendable;
            let is_lost = matches!(reason, ResendReason::StaleConnection(_));
            let (reason, may_be) = course.resends.note_attempt(reason);
            let Some(request) = request.filter(|_| may_be) else {
                return Err(course.resends.final_error(SendError::Refused(reason)));
            };
            match self.send_to_pool(request, (pool, is_lost), course).await? {
                ResendResult::Response(sent) => return Ok(sent),
                ResendResult::Resend(next) => resendable = next,
            }
        }
    }

    /// Sends a request to a server, and to further servers while nothing of it was sent.
    async fn send_to_pool(
        &self,
        mut request: UpstreamRequest,
        (pool, is_lost): (Rc<ConnectionPool>, bool),
        course: &mut AttemptState<'_>,
    ) -> Result<ResendResult, SendError> {
        let mut selected = self.select_for_resend(pool, is_lost, course);
        let refused = course.resends.refused_by.clone();
        let allowed = if is_lost { AllowedConnections::NewOnly } else { AllowedConnections::Excluding(&refused) };
        let mut reason = String::new();
        for _ in 0..SERVERS_MAX {
            let SelectedServer { pool, permit, tried } = selected;
            course.tried = tried;
            let attempt = pool.send(request, (permit, allowed), self.connect_timeout, &course.deadline).await;
            if !matches!(attempt, SendAttempt::Unsent(..)) {
                pool.health.stats.retries.increment();
            }
            match attempt {
                SendAttempt::Response(sent) => return Ok(ResendResult::Response(sent)),
                SendAttempt::Resendable(resendable) => return Ok(ResendResult::Resend(resendable)),
                SendAttempt::Failed(error) => return Err(error),
                SendAttempt::Unsent(unsent, because) => (request, reason) = (unsent, because),
            }
            let Ok(other) = self.select_server(course.hash_key, course.tried) else { break };
            selected = other;
        }
        Err(course.resends.final_error(SendError::Unreachable(reason)))
    }

    /// The server that gets the resend: the same one if its connection was lost, otherwise another one with room. The
    /// permit for the same server has just been returned.
    fn select_for_resend(&self, pool: Rc<ConnectionPool>, is_lost: bool, course: &AttemptState<'_>) -> SelectedServer {
        let mut tried = course.tried;
        self.position_of(&pool).into_iter().for_each(|position| tried.add(position));
        let other = if is_lost { None } else { self.select_server(course.hash_key, tried).ok() };
        other.unwrap_or_else(|| SelectedServer { permit: pool.acquire_permit(), pool, tried })
    }
}
