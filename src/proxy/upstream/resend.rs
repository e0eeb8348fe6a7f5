//! What is sent again without the leave of its subsystem's configuration: a request of which a server has processed nothing (RFC 9113
//! section 8.7), and a safe one without a body that a kept connection lost (RFC 9110 section 9.2.2).
//!
//! Guarantees: at most [`RESENDS_MAX`] times a command, and after a loss once, on a new connection; a session that has refused the
//! request does not get it again. A request of which no server has processed anything ends as [`SendError::Refused`] or
//! [`SendError::Unreachable`], any other as [`SendError::Failed`]. Leaves to [`super::transport::protocol`] whether a request can be
//! sent again, and to [`super::retry_budget`] what else is.

use std::rc::Rc;

use super::endpoint::error::ConnectionError;
use super::h2::SessionId;
use super::pool::LeasedResponse;
use super::pool::send_error::SendError;
use super::pool::{AllowedConnections, ConnectionPool, ResendReason, ResendableRequest, SendAttempt};
use super::transport::protocol::UpstreamRequest;
use super::{AttemptState, SERVERS_MAX, SelectedServer, SubsystemServers};

/// How often one command is sent again for these reasons: a server and its stand-in may both restart. Go's client sends
/// again up to six times.
pub(crate) const RESENDS_MAX: usize = 3;

/// What one command has had of it.
#[derive(Default)]
pub(crate) struct ResendState {
    used: usize,
    /// The sessions that have refused it.
    refused_by: Vec<SessionId>,
    /// Why it is not known whether an attempt was processed.
    lost_attempt: Option<ConnectionError>,
}

impl ResendState {
    /// Takes note of an attempt: why it came to nothing, and whether the request may be sent again.
    fn note_attempt(&mut self, reason: ResendReason) -> (String, bool) {
        let may_be = self.used < RESENDS_MAX;
        self.used += 1;
        match reason {
            ResendReason::Refused(session, reason) => {
                self.refused_by.push(session);
                (reason, may_be)
            }
            ResendReason::StaleConnection(broken) => {
                let is_first = self.lost_attempt.is_none();
                (self.lost_attempt.get_or_insert(broken).to_string(), may_be && is_first)
            }
        }
    }

    /// Why there is no answer, after attempts of which none but a lost one can have been processed.
    fn final_error(&mut self, unprocessed: SendError) -> SendError {
        self.lost_attempt.take().map_or(unprocessed, SendError::Failed)
    }
}

/// How an offer ended that came to an answer, or may be made again.
enum ResendResult {
    Response(LeasedResponse),
    Resend(ResendableRequest),
}

impl SubsystemServers {
    /// Sends a request again, as often as it may be.
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

    /// Offers a request to a server, and to others as long as nothing of it is sent.
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

    /// The server that gets a request again: the same, if its connection was lost; otherwise another, if one has room. The place
    /// at the same one has just been given back.
    fn select_for_resend(&self, pool: Rc<ConnectionPool>, is_lost: bool, course: &AttemptState<'_>) -> SelectedServer {
        let mut tried = course.tried;
        self.position_of(&pool).into_iter().for_each(|position| tried.add(position));
        let other = if is_lost { None } else { self.select_server(course.hash_key, tried).ok() };
        other.unwrap_or_else(|| SelectedServer { permit: pool.acquire_permit(), pool, tried })
    }
}
