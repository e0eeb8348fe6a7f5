//! How far a request body has come, and why it stopped.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use tokio::time::Instant;

use crate::ledger::Upload;

/// How far the request body has come; shared by the body, which travels upstream, and the account, which stays.
#[derive(Debug)]
pub(super) struct Progress {
    /// Puts what is read from the caller on the tally.
    pub(super) upload: Upload,
    /// When the last of them came, or the request was sent.
    pub(super) last: Cell<Instant>,
    /// Whether it is the caller who is waited for now: then no subsystem is late.
    pub(super) waiting: Cell<bool>,
    /// Whether all of it went upstream.
    pub(super) complete: Cell<bool>,
    /// Why it stopped before its end.
    pub(super) fault: Cell<Option<BodyFault>>,
    /// The account is closed: what has not gone upstream by now does not go.
    over: Cell<bool>,
    /// Who reads the body, to be told when the account is closed.
    reader: RefCell<Option<Waker>>,
}

impl Progress {
    pub(super) fn new(upload: Upload, arrived: Instant) -> Self {
        Self {
            upload,
            last: Cell::new(arrived),
            waiting: Cell::new(false),
            complete: Cell::new(false),
            fault: Cell::new(None),
            over: Cell::new(false),
            reader: RefCell::new(None),
        }
    }

    /// Whether the account is closed; otherwise the reader is woken when it is.
    pub(super) fn is_over(&self, context: &Context<'_>) -> bool {
        if !self.over.get() {
            let mut reader = self.reader.borrow_mut();
            if !reader.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *reader = Some(context.waker().clone());
            }
        }
        self.over.get()
    }

    /// The account is closed: whoever still reads the body is told.
    pub(super) fn close(&self) {
        self.over.set(true);
        if self.complete.get() {
            return; // nobody reads on
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Why a request body stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It grew beyond what the command allows.
    TooLarge,
    /// The caller sent nothing for too long.
    Idle,
    /// The caller left or broke its framing.
    Broken,
    /// The command was over before its body was: answered early, for example.
    Over,
}
