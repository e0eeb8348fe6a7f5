//! A session that is being opened, and the commands that wait for it.
//!
//! Guarantees: whoever waits hears how it ended, also if it was given up; it goes on whoever stops waiting, so that a caller
//! that leaves does not make others begin anew; so many wait for it as it carries, and it carries them before others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::proxy::upstream::h2::{Http2Session, STREAMS_MAX};

/// See the module.
#[derive(Default)]
pub(crate) struct PendingSession {
    waiters: Rc<Cell<usize>>,
    outcome: RefCell<Option<Result<Http2Session, String>>>,
    ended: Notify,
}

/// A command that waits.
pub(crate) struct SessionWaiter {
    session: Rc<PendingSession>,
}

impl PendingSession {
    /// One that nobody waits for but who begins it.
    pub(crate) fn start() -> (Rc<Self>, SessionWaiter) {
        let opening = Rc::new(Self::default());
        let waiting = opening.add_waiter();
        (opening, waiting)
    }

    /// A place among those who wait, if there is one.
    pub(crate) fn join(self: &Rc<Self>) -> Option<SessionWaiter> {
        (self.waiters.get() < STREAMS_MAX).then(|| self.add_waiter())
    }

    fn add_waiter(self: &Rc<Self>) -> SessionWaiter {
        self.waiters.set(self.waiters.get() + 1);
        SessionWaiter { session: Rc::clone(self) }
    }

    /// Tells those who wait, once.
    pub(crate) fn complete(&self, outcome: Result<Http2Session, String>) {
        if let Ok(session) = &outcome {
            session.reserve_streams(&self.waiters);
        }
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.ended.notify_waiters();
    }
}

impl SessionWaiter {
    /// The session, which has room for this command as long as it does not wait again, or why there is none.
    pub(crate) async fn wait_outcome(self) -> Result<Http2Session, String> {
        loop {
            let ended = self.session.ended.notified(); // made before the look, so that nothing is missed in between
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
