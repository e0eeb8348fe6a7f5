//! One admitted command's account: its ticket, its place among the concurrent, its bytes; closed exactly once.
//!
//! Guarantees: [`Account::settle`] consumes it; dropping it unsettled counts the command as aborted (the caller left), or
//! as interrupted when the gateway itself is ending. Nothing else in the house ends a command.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::time::Instant;

use crate::ledger::Ticket;
use crate::limit::Pass;
use crate::model::Finished;
use crate::policy::Subsystem;

use super::exchange::Call;
use super::worker::Worker;

/// See the module.
pub(super) struct Account {
    ticket: Option<Ticket>,
    progress: Rc<Progress>,
    subsystem: Arc<Subsystem>,
    worker: Rc<Worker>,
    _pass: Pass,
}

/// How far the request body has come; shared by the body, which travels upstream, and the account, which stays.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes read from the caller and not yet on the tally.
    pub(super) bytes: Cell<u64>,
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
    fn new() -> Self {
        Self {
            bytes: Cell::new(0),
            last: Cell::new(Instant::now()),
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

    fn close(&self) {
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

impl Account {
    pub(super) fn open(call: &Call, ticket: Ticket, pass: Pass, subsystem: &Arc<Subsystem>) -> Self {
        call.worker.enter();
        Self {
            ticket: Some(ticket),
            progress: Rc::new(Progress::new()),
            subsystem: Arc::clone(subsystem),
            worker: Rc::clone(&call.worker),
            _pass: pass,
        }
    }

    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// Bytes of the answer's body went towards the caller.
    pub(super) fn add_response_bytes(&mut self, bytes: u64) {
        if let Some(ticket) = &mut self.ticket {
            ticket.add_response_bytes(bytes);
            ticket.add_request_bytes(self.progress.bytes.take());
        }
    }

    /// Whether the request body stopped before its end, by nobody's doing but the caller's.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        self.progress.fault.get()
    }

    /// Waits until the disk has the admission.
    pub(super) async fn durable(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.durable().await;
        }
    }

    /// The command ends.
    pub(super) fn settle(mut self, finished: Finished) {
        self.close(finished);
    }

    fn close(&mut self, finished: Finished) {
        let Some(mut ticket) = self.ticket.take() else { return };
        ticket.add_request_bytes(self.progress.bytes.take());
        let duration = ticket.settle(finished);
        self.progress.close();
        self.worker.leave();
        self.worker.recorder.command(&self.subsystem.id, duration);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close(if self.worker.is_ending() { Finished::Interrupted } else { Finished::Aborted });
    }
}
