//! One admitted command's account: its ticket, its place among the concurrent, its bytes; closed exactly once.
//!
//! Guarantees: [`Account::settle`] consumes it; dropping it unsettled counts the command as aborted (the caller left), or
//! as interrupted when the gateway itself is ending. Nothing else in the house ends a command.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

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
    /// Bytes read from the caller so far.
    pub(super) bytes: Cell<u64>,
    /// When the last of them came.
    pub(super) last: Cell<Instant>,
    /// Whether all of it went upstream.
    pub(super) complete: Cell<bool>,
    /// Why it stopped before its end.
    pub(super) fault: Cell<Option<BodyFault>>,
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
}

impl Account {
    pub(super) fn open(call: &Call, ticket: Ticket, pass: Pass, subsystem: &Arc<Subsystem>) -> Self {
        let progress = Progress {
            bytes: Cell::new(0),
            last: Cell::new(Instant::now()),
            complete: Cell::new(false),
            fault: Cell::new(None),
        };
        call.worker.enter();
        Self {
            ticket: Some(ticket),
            progress: Rc::new(progress),
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
        self.worker.leave();
        self.worker.recorder.command(&self.subsystem.id, duration);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close(if self.worker.is_ending() { Finished::Interrupted } else { Finished::Aborted });
    }
}
