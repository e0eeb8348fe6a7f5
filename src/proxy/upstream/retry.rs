//! Which failed attempts are made again, and how often: off unless a subsystem says so.
//!
//! Guarantees: only requests that may be repeated (RFC 9110 section 9.2.2) and have no body; never more retries than the
//! budget's part of this worker's commands, and [`SAVED_MAX`] beyond; a retry is an attempt, not a command: ticket, ledger and
//! outcome are the command's. Leaves to [`super::Upstreams`] which server gets it.

use std::cell::Cell;

use http::{Method, Request};

use crate::policy::Retries;
use crate::proxy::request_body::RequestBody;

use super::h1::Framing;
use super::protocol::{Outgoing, Written};
use super::{Broken, Patience, SendError, Sent};

/// Retries that may be saved up while little fails.
const SAVED_MAX: u32 = 10;
/// Retries that a worker begins with; Envoy's `min_retry_concurrency`.
const SAVED_FIRST: u32 = 3;
/// What a retry costs; a command brings the budget's percentage of it.
const RETRY: u32 = 100;

/// What one worker may spend on retries at one subsystem.
pub(super) struct Budget {
    retries: Retries,
    saved: Cell<u32>,
}

/// A request that may be sent again, as it was. It has no body.
pub(in crate::proxy) struct Spare(Written);

impl Budget {
    pub(super) fn new(retries: &Retries) -> Self {
        Self { retries: retries.clone(), saved: Cell::new(SAVED_FIRST * RETRY) }
    }

    /// How often one command is tried again.
    pub(super) fn attempts(&self) -> u32 {
        self.retries.attempts
    }

    /// A command has come.
    pub(super) fn save(&self) {
        self.saved.set((self.saved.get() + self.retries.budget_percent).min(SAVED_MAX * RETRY));
    }

    /// Takes what a retry costs, if it is there.
    pub(super) fn spend(&self) -> bool {
        let left = self.saved.get().checked_sub(RETRY);
        self.saved.set(left.unwrap_or(self.saved.get()));
        left.is_some()
    }

    /// Whether what came of an attempt is to be tried again: a connection that broke before the head of an answer, or an
    /// answer with a status that the subsystem names. A server that asks to be left alone for a moment is.
    pub(super) fn wants(&self, came: &Result<Sent, SendError>, patience: &Patience<'_>) -> bool {
        let is_wanted = match came {
            Ok(Sent { answer, .. }) => self.retries.on.contains(&answer.status.as_u16()) && !answer.is_only_busy(),
            Err(SendError::Failed(Broken::Closed | Broken::Connection(_) | Broken::Http2(_))) => true,
            Err(_) => false,
        };
        is_wanted && patience.progress.fault.get().is_none()
    }
}

impl Spare {
    /// A copy of a request that may be repeated.
    pub(in crate::proxy) fn of(method: &Method, request: &Outgoing) -> Option<Self> {
        let repeatable = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        if !repeatable {
            return None;
        }
        let head = match request {
            Outgoing::Http1(request) => request.bare_head().map(Written::Http1),
            Outgoing::Http2(request) => {
                let mut head = Request::new(());
                *head.method_mut() = request.method().clone();
                *head.uri_mut() = request.uri().clone();
                *head.version_mut() = request.version();
                *head.headers_mut() = request.headers().clone();
                request.body().is_none().then(|| Written::Http2(Box::new(head)))
            }
        };
        head.map(Self)
    }

    /// The request again.
    pub(super) fn again(&self) -> Outgoing {
        self.0.clone().with(RequestBody::none(), Framing::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_the_commands() {
        let budget = Budget::new(&Retries { attempts: 1, budget_percent: 20, on: Vec::new() });
        let spent = |commands: usize| (0..commands).inspect(|_| budget.save()).filter(|_| budget.spend()).count();
        assert_eq!(spent(1_000), 203, "a fifth, and what a worker begins with");
        (0..1_000).for_each(|_| budget.save());
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 10, "what is saved has an end");
    }
}
