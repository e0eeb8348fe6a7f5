//! How far a request body has come, and why it stopped.

use std::cell::Cell;

use tokio::time::Instant;

use crate::ledger::RequestBodyMeter;

/// How far the request body has come; shared by the body, which travels upstream, and the account, which stays.
#[derive(Debug)]
pub(crate) struct UploadProgress {
    /// Puts what is read from the caller on the tally, if it is a command's.
    pub(crate) upload: Option<RequestBodyMeter>,
    /// When the last of them came, or the request was sent.
    pub(crate) last_progress: Cell<Instant>,
    /// Whether it is the caller who is waited for now: then no subsystem is late.
    pub(crate) waits_for_caller: Cell<bool>,
    /// Whether all of it went upstream.
    pub(crate) is_complete: Cell<bool>,
    /// Whether the request was handed to a server: from then on a part of it may have reached the subsystem.
    pub(crate) is_sent: Cell<bool>,
    /// Why it stopped before its end.
    pub(crate) error: Cell<Option<RequestBodyError>>,
}

impl UploadProgress {
    pub(crate) fn new(upload: RequestBodyMeter, arrived: Instant) -> Self {
        Self { upload: Some(upload), ..Self::uncounted(arrived) }
    }

    /// That of a request which is no command of its own.
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

    /// Whether the caller has broken its body off, or the next piece of it is waited for. What fails meanwhile is not held
    /// against a server: nobody can have a server left out by how a body is sent.
    pub(crate) fn is_caller_at_fault(&self) -> bool {
        self.error.get().is_some() || self.waits_for_caller.get()
    }

    /// Bytes of the request body went on.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        if let Some(upload) = &self.upload {
            upload.add_bytes(bytes);
        }
    }
}

/// Why a request body stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestBodyError {
    /// It grew beyond what the command allows.
    TooLarge,
    /// The caller sent nothing, or too little, for too long.
    TooSlow,
    /// The caller left or broke its framing.
    Aborted,
    /// A trailer is not as trailers must be.
    Trailers(&'static str),
}
