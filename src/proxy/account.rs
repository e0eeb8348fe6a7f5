//! One admitted command's account: its ticket, its place among the concurrent, its bytes; closed exactly once.
//!
//! Guarantees: [`Account::settle`] consumes it; dropping it unsettled counts the command as aborted (the caller left), or
//! as interrupted when the gateway itself is ending. Nothing else in the house ends a command.

use std::rc::Rc;
use std::sync::Arc;

use crate::ledger::Ticket;
use crate::limit::Pass;
use crate::model::Finished;
use crate::policy::Subsystem;
use crate::telemetry::LimitHit;

use super::call::Call;
use super::progress::{BodyFault, Progress};
use super::worker::Worker;

/// See the module.
pub(super) struct Account {
    ticket: Option<Ticket>,
    progress: Rc<Progress>,
    subsystem: Arc<Subsystem>,
    worker: Rc<Worker>,
    /// The department's number.
    department: u32,
    pass: Pass,
}

impl Account {
    pub(super) fn open(
        call: &Call,
        ticket: Ticket,
        pass: Pass,
        (department, subsystem): (u32, &Arc<Subsystem>),
    ) -> Self {
        call.worker.load.enter(department);
        Self {
            progress: Rc::new(Progress::new(ticket.upload(), call.instant)),
            ticket: Some(ticket),
            subsystem: Arc::clone(subsystem),
            worker: Rc::clone(&call.worker),
            department,
            pass,
        }
    }

    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// Bytes of the answer's body went towards the caller.
    pub(super) fn add_response_bytes(&mut self, bytes: u64) {
        if let Some(ticket) = &mut self.ticket {
            ticket.add_response_bytes(bytes);
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
        if let Some(upload) = &self.progress.upload {
            ticket.end_upload(upload);
        }
        if costs_nothing(finished, self.progress.sent.get()) {
            ticket.waive();
            self.pass.return_units();
        }
        let duration = ticket.settle(finished);
        if self.fault() == Some(BodyFault::Slow) {
            self.worker.recorder.limit_hit(LimitHit::BodyPace);
        }
        self.worker.load.leave(self.department);
        self.worker.recorder.command(&self.subsystem.id, duration);
    }
}

/// Whether a command that ended so costs no units: nothing of it reached a subsystem. What the gateway answers itself
/// (redirects) ends as `ok` and costs what the configuration says.
fn costs_nothing(finished: Finished, was_sent: bool) -> bool {
    match finished {
        Finished::Ok | Finished::ClientError | Finished::ServerError => false,
        Finished::Unreachable => true,
        Finished::UpstreamFailed | Finished::Timeout | Finished::Aborted | Finished::Interrupted => !was_sent,
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close(if self.worker.is_ending() { Finished::Interrupted } else { Finished::Aborted });
    }
}
