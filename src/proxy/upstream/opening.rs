//! A session that is being opened, and the commands that wait for it.
//!
//! Guarantees: whoever waits hears how it ended, also if it was given up; it goes on whoever stops waiting, so that a caller
//! that leaves does not make others begin anew; so many wait for it as it carries, and it carries them before others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::h2::{STREAMS_MAX, Session};

/// See the module.
#[derive(Default)]
pub(super) struct Opening {
    waiting: Rc<Cell<usize>>,
    outcome: RefCell<Option<Result<Session, String>>>,
    ended: Notify,
}

/// A command that waits.
pub(super) struct Waiting {
    opening: Rc<Opening>,
}

impl Opening {
    /// One that nobody waits for but who begins it.
    pub(super) fn begin() -> (Rc<Self>, Waiting) {
        let opening = Rc::new(Self::default());
        let waiting = opening.wait();
        (opening, waiting)
    }

    /// A place among those who wait, if there is one.
    pub(super) fn join(self: &Rc<Self>) -> Option<Waiting> {
        (self.waiting.get() < STREAMS_MAX).then(|| self.wait())
    }

    fn wait(self: &Rc<Self>) -> Waiting {
        self.waiting.set(self.waiting.get() + 1);
        Waiting { opening: Rc::clone(self) }
    }

    /// Tells those who wait, once.
    pub(super) fn end(&self, outcome: Result<Session, String>) {
        if let Ok(session) = &outcome {
            session.promise(&self.waiting);
        }
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.ended.notify_waiters();
    }
}

impl Waiting {
    /// The session, which has room for this command as long as it does not wait again, or why there is none.
    pub(super) async fn outcome(self) -> Result<Session, String> {
        loop {
            let ended = self.opening.ended.notified(); // made before the look, so that nothing is missed in between
            if let Some(outcome) = &*self.opening.outcome.borrow() {
                return outcome.clone();
            }
            ended.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.opening.waiting.set(self.opening.waiting.get().saturating_sub(1));
    }
}
