//! The interim responses (1xx) that have arrived for one request.
//!
//! Guarantees: a request gets at most [`INTERIM_RESPONSES_MAX`] of them; one more is an error.
//!
//! Leaves to others: reading them (`h1`, `h2`), and forwarding them (`pool`).

use http::{HeaderMap, StatusCode};

use crate::proxy::message::interim_response::InterimResponse;

use super::error::ConnectionError;

/// The most interim responses to one request.
const INTERIM_RESPONSES_MAX: u32 = 16;

/// Counts interim responses, and keeps those for the caller.
#[derive(Default)]
pub(crate) struct ReceivedInterim {
    count: u32,
    for_caller: Vec<InterimResponse>,
}

impl ReceivedInterim {
    /// Counts an interim response; an error if there are too many.
    pub(crate) fn count_one(&mut self) -> Result<(), ConnectionError> {
        self.count += 1;
        match self.count > INTERIM_RESPONSES_MAX {
            true => Err(ConnectionError::InvalidResponse("too many interim responses")),
            false => Ok(()),
        }
    }

    /// Keeps a counted interim response, if it is for the caller.
    pub(crate) fn keep(&mut self, status: StatusCode, headers: HeaderMap) {
        if InterimResponse::is_forwarded(status) {
            self.for_caller.push(InterimResponse { status, headers });
        }
    }

    /// Whether any interim response has arrived.
    pub(crate) fn has_any(&self) -> bool {
        self.count > 0
    }

    /// Whether [`ReceivedInterim::take`] would return any.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.for_caller.is_empty()
    }

    /// The interim responses for the caller since the last call.
    pub(crate) fn take(&mut self) -> Vec<InterimResponse> {
        std::mem::take(&mut self.for_caller)
    }
}
