//! An HTTP/2 session that is being opened, and the commands that wait for it.
//!
//! Guarantees:
//! - Every waiter gets the outcome, also if opening was given up.
//! - Opening continues when a waiter is dropped, so that a caller that disconnects does not make other commands start
//!   over.
//! - At most `STREAMS_MAX` commands wait, which is the session's capacity. The session carries them before later
//!   commands.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::proxy::upstream::h2::{Http2Session, STREAMS_MAX};

/// A session that is being opened: its number of waiters and its outcome.
#[derive(Default)]
pub(crate) struct PendingSession {
    waiters: Rc<Cell<usize>>,
    outcome: RefCell<Option<Result<Http2Session, String>>>,
    ended: Notify,
}

/// A command that waits for the session.
pub(crate) struct SessionWaiter {
    session: Rc<PendingSession>,
}

impl PendingSession {
    /// A new pending session, with its first waiter.
    pub(crate) fn start() -> (Rc<Self>, SessionWaiter) {
        let opening = Rc::new(Self::default());
        let waiting = opening.add_waiter();
        (opening, waiting)
    }

    /// Adds a waiter, if the session will have room for it.
    pub(crate) fn join(self: &Rc<Self>) -> Option<SessionWaiter> {
        (self.waiters.get() < STREAMS_MAX).then(|| self.add_waiter())
    }

    fn add_waiter(self: &Rc<Self>) -> SessionWaiter {
        self.waiters.set(self.waiters.get() + 1);
        SessionWaiter { session: Rc::clone(self) }
    }

    /// Sets the outcome, once, and wakes all waiters.
    pub(crate) fn complete(&self, outcome: Result<Http2Session, String>) {
        if let Ok(session) = &outcome {
            session.reserve_streams(&self.waiters);
        }
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.ended.notify_waiters();
    }
}

impl SessionWaiter {
    /// The session, or why it could not be opened. The session reserves room for this command until its next wait.
    pub(crate) async fn wait_outcome(self) -> Result<Http2Session, String> {
        loop {
            // Created before the check, so that no notification is lost in between.
            let ended = self.session.ended.notified();
            if let Some(outcome) = &*self.session.outcome.borrow() {
                return outcome.clone();
            }
            ended.await;
        }
    }
}

impl Drop for SessionWaiter {
    fn drop(&mut self) {
        self.session.waiters.set(self.session.waiters.get().saturating_sub(1));
    }
}
