//! How far a request body has come, and why it stopped.

use std::cell::Cell;

use tokio::time::Instant;

use crate::ledger::Upload;

/// How far the request body has come; shared by the body, which travels upstream, and the account, which stays.
#[derive(Debug)]
pub(super) struct Progress {
    /// Puts what is read from the caller on the tally, if it is a command's.
    pub(super) upload: Option<Upload>,
    /// When the last of them came, or the request was sent.
    pub(super) last: Cell<Instant>,
    /// Whether it is the caller who is waited for now: then no subsystem is late.
    pub(super) waiting: Cell<bool>,
    /// Whether all of it went upstream.
    pub(super) complete: Cell<bool>,
    /// Whether the request was handed to a server: from then on a part of it may have reached the subsystem.
    pub(super) sent: Cell<bool>,
    /// Why it stopped before its end.
    pub(super) fault: Cell<Option<BodyFault>>,
}

impl Progress {
    pub(super) fn new(upload: Upload, arrived: Instant) -> Self {
        Self { upload: Some(upload), ..Self::uncounted(arrived) }
    }

    /// That of a request which is no command of its own.
    pub(super) fn uncounted(arrived: Instant) -> Self {
        Self {
            upload: None,
            last: Cell::new(arrived),
            waiting: Cell::new(false),
            complete: Cell::new(false),
            sent: Cell::new(false),
            fault: Cell::new(None),
        }
    }

    /// Whether the caller has broken its body off, or the next piece of it is waited for. What fails meanwhile is not held
    /// against a server: nobody can have a server left out by how a body is sent.
    pub(super) fn is_callers_doing(&self) -> bool {
        self.fault.get().is_some() || self.waiting.get()
    }

    /// Bytes of the request body went on.
    pub(super) fn pass(&self, bytes: u64) {
        if let Some(upload) = &self.upload {
            upload.pass(bytes);
        }
    }
}

/// Why a request body stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It grew beyond what the command allows.
    TooLarge,
    /// The caller sent nothing, or too little, for too long.
    Slow,
    /// The caller left or broke its framing.
    Broken,
    /// A trailer is not as trailers must be.
    Trailers(&'static str),
}
