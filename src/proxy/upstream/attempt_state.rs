//! The state of one command across its attempts: the servers tried, the deadline, and the resends.
//!
//! Guarantees: at most [`RESENDS_MAX`] resends are allowed, and after a lost connection one.
//!
//! Leaves to others: the attempts themselves (`upstream`, `resend`).

use super::endpoint::error::ConnectionError;
use super::h2::SessionId;
use super::load_balancing::HashKey;
use super::load_balancing::server_set::TriedServers;
use super::pool::ResendReason;
use super::pool::response_deadline::ResponseDeadline;
use super::pool::send_error::SendError;

/// The maximum number of resends of one command: a server and its stand-in may both restart. Go's client resends up to
/// six times.
pub(crate) const RESENDS_MAX: usize = 3;

/// The state of a command across all its attempts.
pub(crate) struct AttemptState<'a> {
    pub(crate) hash_key: Option<HashKey>,
    pub(crate) tried: TriedServers,
    pub(crate) deadline: ResponseDeadline<'a>,
    pub(crate) resends: ResendState,
}

impl<'a> AttemptState<'a> {
    pub(crate) fn new(key: Option<HashKey>, deadline: ResponseDeadline<'a>) -> Self {
        Self { hash_key: key, tried: TriedServers::default(), deadline, resends: ResendState::default() }
    }
}

/// The resends of one command.
#[derive(Default)]
pub(crate) struct ResendState {
    used: usize,
    /// The sessions that refused the request.
    pub(crate) refused_by: Vec<SessionId>,
    /// The error of a lost attempt, of which it is unknown whether it was processed.
    lost_attempt: Option<ConnectionError>,
}

impl ResendState {
    /// Records a failed attempt. Returns its reason, and whether the request may be resent.
    pub(crate) fn note_attempt(&mut self, reason: ResendReason) -> (String, bool) {
        let may_be = self.used < RESENDS_MAX;
        self.used += 1;
        match reason {
            ResendReason::Refused(session, reason) => {
                self.refused_by.push(session);
                (reason, may_be)
            }
            ResendReason::StaleConnection(error) => {
                let is_first = self.lost_attempt.is_none();
                (self.lost_attempt.get_or_insert(error).to_string(), may_be && is_first)
            }
        }
    }

    /// The final error, when only a lost attempt can have been processed.
    pub(crate) fn final_error(&mut self, unprocessed: SendError) -> SendError {
        self.lost_attempt.take().map_or(unprocessed, SendError::Failed)
    }
}
