//! The progress of a request body, and the reason why it stopped.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::time::Instant;

use crate::ledger::RequestBodyMeter;
use crate::telemetry::{AccessRecord, RecordText};

/// The progress of a request body. Shared by the body, which travels upstream, and the account, which stays.
#[derive(Debug)]
pub(crate) struct UploadProgress {
    /// Counts the bytes read from the caller on the tally. `None` for a request that is not a command.
    pub(crate) upload: Option<RequestBodyMeter>,
    /// The time of the last progress: the arrival of data, or the sending of the request.
    pub(crate) last_progress: Cell<Instant>,
    /// Whether the gateway waits for the caller now. The response timeout of the subsystem does not run then.
    pub(crate) waits_for_caller: Cell<bool>,
    /// Whether the whole body went upstream.
    pub(crate) is_complete: Cell<bool>,
    /// Whether the request was handed to a server. From then on a part of it may have reached the subsystem.
    pub(crate) is_sent: Cell<bool>,
    /// Why the body stopped before its end.
    pub(crate) error: Cell<Option<RequestBodyError>>,
    /// The attempts to send the request, if the access log needs them.
    attempts: Option<AttemptTrace>,
}

/// The attempts to send a request, for the access log.
#[derive(Debug, Default)]
struct AttemptTrace {
    /// How often the request was handed to a connection.
    count: Cell<u32>,
    /// The server of the last attempt, or the one to which the gateway last tried to connect.
    server: RefCell<Option<Rc<str>>>,
}

impl UploadProgress {
    /// Progress of the request of a command. `is_traced`: the attempts to send it are noted.
    pub(crate) fn new(upload: RequestBodyMeter, arrived: Instant, is_traced: bool) -> Self {
        let attempts = is_traced.then(AttemptTrace::default);
        Self { upload: Some(upload), attempts, ..Self::uncounted(arrived) }
    }

    /// Progress of a request that is not a command, such as a shadow request.
    pub(crate) fn uncounted(arrived: Instant) -> Self {
        Self {
            upload: None,
            last_progress: Cell::new(arrived),
            waits_for_caller: Cell::new(false),
            is_complete: Cell::new(false),
            is_sent: Cell::new(false),
            error: Cell::new(None),
            attempts: None,
        }
    }

    /// Notes that the request is handed to a connection to this server.
    pub(crate) fn note_attempt(&self, server: &Rc<str>) {
        if let Some(attempts) = &self.attempts {
            attempts.count.set(attempts.count.get() + 1);
            attempts.server.replace(Some(Rc::clone(server)));
        }
    }

    /// Notes that the gateway tries to connect to this server.
    pub(crate) fn note_connecting(&self, server: &Rc<str>) {
        if let Some(attempts) = &self.attempts {
            attempts.server.replace(Some(Rc::clone(server)));
        }
    }

    /// Adds the attempts to a record.
    pub(crate) fn describe_attempts(&self, record: &mut AccessRecord) {
        let Some(attempts) = &self.attempts else { return };
        record.attempts = attempts.count.get();
        if let Some(server) = &*attempts.server.borrow() {
            record.set_text(RecordText::Upstream, server.as_bytes());
        }
    }

    /// Whether the caller has broken off its body, or the next piece of the body is awaited. A failure in that state
    /// does not count against a server's health: no caller can get a server ejected by the way it sends a body.
    pub(crate) fn is_caller_at_fault(&self) -> bool {
        self.error.get().is_some() || self.waits_for_caller.get()
    }

    /// Counts bytes of the request body that were forwarded.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        if let Some(upload) = &self.upload {
            upload.add_bytes(bytes);
        }
    }
}

/// Why a request body stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestBodyError {
    /// The body exceeded the limit of the command.
    TooLarge,
    /// The caller sent nothing, or too little, for too long.
    TooSlow,
    /// The caller disconnected or broke its framing.
    Aborted,
    /// A trailer is malformed or not allowed.
    Trailers(&'static str),
}
