//! One admitted command's account: its ticket, its place among the concurrent, its bytes; closed exactly once.
//!
//! Guarantees: [`InFlightCommand::settle`] consumes it; dropping it unsettled counts the command as aborted (the caller left), or
//! as interrupted when the gateway itself is ending. Nothing else in the house ends a command.

use std::rc::Rc;
use std::sync::Arc;

use crate::ledger::Ticket;
use crate::limit::LimitPermit;
use crate::model::Finished;
use crate::policy::Subsystem;
use crate::telemetry::LimitHit;

use super::context::RequestContext;
use crate::proxy::message::upload_progress::{RequestBodyError, UploadProgress};
use crate::proxy::worker::TrafficWorker;

/// See the module.
pub(crate) struct InFlightCommand {
    ticket: Option<Ticket>,
    progress: Rc<UploadProgress>,
    subsystem: Arc<Subsystem>,
    worker: Rc<TrafficWorker>,
    /// The department's number.
    department: u32,
    limit_permit: LimitPermit,
}

impl InFlightCommand {
    pub(crate) fn open(
        context: &RequestContext,
        ticket: Ticket,
        permit: LimitPermit,
        (department, subsystem): (u32, &Arc<Subsystem>),
    ) -> Self {
        context.worker.in_flight.begin_command(department);
        Self {
            progress: Rc::new(UploadProgress::new(ticket.body_meter(), context.arrived_at)),
            ticket: Some(ticket),
            subsystem: Arc::clone(subsystem),
            worker: Rc::clone(&context.worker),
            department,
            limit_permit: permit,
        }
    }

    pub(crate) fn progress(&self) -> &Rc<UploadProgress> {
        &self.progress
    }

    /// Bytes of the answer's body went towards the caller.
    pub(crate) fn add_response_bytes(&mut self, bytes: u64) {
        if let Some(ticket) = &mut self.ticket {
            ticket.add_response_bytes(bytes);
        }
    }

    /// Whether the request body stopped before its end, by nobody's doing but the caller's.
    pub(crate) fn body_error(&self) -> Option<RequestBodyError> {
        self.progress.error.get()
    }

    /// Waits until the disk has the admission.
    pub(crate) async fn wait_until_durable(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.wait_until_durable().await;
        }
    }

    /// The command ends.
    pub(crate) fn settle(mut self, finished: Finished) {
        self.settle_once(finished);
    }

    fn settle_once(&mut self, finished: Finished) {
        let Some(mut ticket) = self.ticket.take() else { return };
        if let Some(upload) = &self.progress.upload {
            ticket.close_body_meter(upload);
        }
        if is_free_of_charge(finished, self.progress.is_sent.get()) {
            ticket.waive();
            self.limit_permit.return_units();
        }
        let duration = ticket.settle(finished);
        if self.body_error() == Some(RequestBodyError::TooSlow) {
            self.worker.recorder.count_limit_hit(LimitHit::BodyPace);
        }
        self.worker.in_flight.end_command(self.department);
        self.worker.recorder.record_command(&self.subsystem.id, duration);
    }
}

/// Whether a command that ended so costs no units: nothing of it reached a subsystem. What the gateway answers itself
/// (redirects) ends as `ok` and costs what the configuration says.
fn is_free_of_charge(finished: Finished, was_sent: bool) -> bool {
    match finished {
        Finished::Ok | Finished::ClientError | Finished::ServerError => false,
        Finished::Unreachable => true,
        Finished::UpstreamFailed | Finished::Timeout | Finished::Aborted | Finished::Interrupted => !was_sent,
    }
}

impl Drop for InFlightCommand {
    fn drop(&mut self) {
        self.settle_once(if self.worker.is_aborting() { Finished::Interrupted } else { Finished::Aborted });
    }
}
