//! The progress of a request body, and the reason why it stopped.

use std::cell::Cell;

use tokio::time::Instant;

use crate::ledger::RequestBodyMeter;

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
}

impl UploadProgress {
    pub(crate) fn new(upload: RequestBodyMeter, arrived: Instant) -> Self {
        Self { upload: Some(upload), ..Self::uncounted(arrived) }
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
