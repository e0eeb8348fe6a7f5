//! The account of one admitted command: its ticket, its concurrency permit, its bytes. It is settled exactly once.
//!
//! Guarantees:
//!
//! - [`InFlightCommand::settle`] consumes the account.
//! - An account dropped before that counts the command as aborted (the caller disconnected), or as interrupted if the
//!   gateway itself is shutting down, or has cut the connection off because its listener was removed.
//! - Nothing else ends a command.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use crate::ledger::Ticket;
use crate::limit::LimitPermit;
use crate::model::{Finished, Outcome};
use crate::policy::Subsystem;
use crate::proxy::io::close_notice::CloseNotice;
use crate::proxy::message::upload_progress::{RequestBodyError, UploadProgress};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::{AccessRecord, LimitHit, RecordText};

/// The account of an admitted command, open until the command settles.
pub(crate) struct InFlightCommand {
    ticket: Option<Ticket>,
    progress: Rc<UploadProgress>,
    subsystem: Arc<Subsystem>,
    worker: Rc<TrafficWorker>,
    close_notice: Rc<CloseNotice>,
    /// The department's number.
    department: u32,
    limit_permit: LimitPermit,
    /// The record for the access log and for traces; `None` if neither wants it.
    record: Option<Box<AccessRecord>>,
}

/// Where and when a command arrived.
pub(crate) struct CommandOrigin<'a> {
    pub(crate) worker: &'a Rc<TrafficWorker>,
    pub(crate) peer: &'a DownstreamPeer,
    pub(crate) arrived_at: Instant,
    /// The record for the access log.
    pub(crate) record: Option<Box<AccessRecord>>,
}

impl InFlightCommand {
    pub(crate) fn open(
        origin: CommandOrigin<'_>,
        ticket: Ticket,
        permit: LimitPermit,
        (department, subsystem): (u32, &Arc<Subsystem>),
    ) -> Self {
        let CommandOrigin { worker, peer, arrived_at, record } = origin;
        worker.in_flight.begin_command(department);
        Self {
            progress: Rc::new(UploadProgress::new(ticket.body_meter(), arrived_at, record.is_some())),
            ticket: Some(ticket),
            subsystem: Arc::clone(subsystem),
            worker: Rc::clone(worker),
            close_notice: Rc::clone(peer.close_notice()),
            department,
            limit_permit: permit,
            record,
        }
    }

    pub(crate) fn progress(&self) -> &Rc<UploadProgress> {
        &self.progress
    }

    /// Counts bytes of the response body that were sent towards the caller.
    pub(crate) fn add_response_bytes(&mut self, bytes: u64) {
        if let Some(ticket) = &mut self.ticket {
            ticket.add_response_bytes(bytes);
        }
    }

    /// The reason why the request body stopped before its end, if it did. The caller is at fault then.
    pub(crate) fn body_error(&self) -> Option<RequestBodyError> {
        self.progress.error.get()
    }

    /// Changes the record for the access log, if there is one.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut AccessRecord)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// Notes the status of the response that was begun.
    pub(crate) fn note_status(&mut self, status: StatusCode) {
        self.note(|record| record.status = Some(status.as_u16()));
    }

    /// Notes the status and the reason of a failure response.
    pub(crate) fn note_failure(&mut self, status: StatusCode, reason: impl FnOnce() -> String) {
        self.note(|record| {
            record.status = Some(status.as_u16());
            record.set_text(RecordText::Reason, reason().as_bytes());
        });
    }

    /// Waits until the admission is on disk.
    pub(crate) async fn wait_until_durable(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.wait_until_durable().await;
        }
    }

    /// Ends the command with an outcome.
    pub(crate) fn settle(mut self, finished: Finished) {
        self.settle_once(finished);
    }

    fn settle_once(&mut self, finished: Finished) {
        let Some(mut ticket) = self.ticket.take() else { return };
        let finished = self.cause_of(finished);
        if let Some(upload) = &self.progress.upload {
            ticket.close_body_meter(upload);
        }
        let is_free = is_free_of_charge(finished, self.progress.is_sent.get());
        if is_free {
            ticket.waive();
            self.limit_permit.return_units();
        }
        let bytes = ticket.bytes();
        let duration = ticket.settle(finished);
        if self.body_error() == Some(RequestBodyError::TooSlow) {
            self.worker.recorder.count_limit_hit(LimitHit::BodyPace);
        }
        self.worker.in_flight.end_command(self.department);
        self.worker.recorder.record_command(&self.subsystem.id, duration);
        if let Some(mut record) = self.record.take() {
            record.outcome = Outcome::Finished(finished);
            (record.request_bytes, record.response_bytes) = bytes;
            record.units = if is_free { 0 } else { record.units };
            record.duration = duration;
            self.progress.describe_attempts(&mut record);
            self.worker.log_command(record);
        }
    }
}

impl InFlightCommand {
    /// The outcome, with the gateway in place of the caller if the gateway has cut the connection off.
    fn cause_of(&self, finished: Finished) -> Finished {
        let is_ours = || self.worker.is_aborting() || self.close_notice.is_interrupted();
        if finished == Finished::Aborted && is_ours() { Finished::Interrupted } else { finished }
    }
}

/// Whether a command with this outcome costs no units, because no part of it reached a subsystem. A local response
/// (such as a redirect) settles as `ok` and costs the configured units; without a backend it settles as `unreachable`.
fn is_free_of_charge(finished: Finished, was_sent: bool) -> bool {
    match finished {
        Finished::Ok | Finished::ClientError | Finished::ServerError => false,
        Finished::Unreachable => true,
        Finished::UpstreamFailed | Finished::Timeout | Finished::Aborted | Finished::Interrupted => !was_sent,
    }
}

impl Drop for InFlightCommand {
    fn drop(&mut self) {
        self.settle_once(Finished::Aborted);
    }
}
