//! Where the response to an admitted command comes from: the choice of its backend.
//!
//! Guarantees: the backend of a command is chosen once, after all limits.
//!
//! Leaves to others: the shares (`policy`), and the server inside the backend (`proxy::upstream`).

use http::StatusCode;

use crate::policy::{Command, CommandBackends, ShareEdits, ShareTarget};
use crate::proxy::worker::config_view::WorkerConfig;

/// Where the response to an admitted command comes from.
#[derive(Clone, Copy)]
pub(crate) enum Destination {
    /// From a server of a backend.
    Backend(ChosenBackend),
    /// From the gateway itself.
    Local(LocalResponse),
    /// From the gateway itself: the department's own usage.
    UsagePage,
}

/// The backend of one command. It is chosen once: all attempts use its servers.
#[derive(Clone, Copy)]
pub(crate) struct ChosenBackend {
    /// The index of the backend in the worker's configuration.
    pub(crate) index: usize,
    /// The position of the share among the weighted backends of the command.
    share: Option<u8>,
}

/// The kind of a local response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalResponse {
    /// A browser asks whether a page may send a request (Fetch standard, "CORS-preflight request").
    Preflight,
    /// The caller is redirected to another location.
    Redirect,
    /// The command has no backend (500 to 599), or its backend has no servers (503).
    NoBackend(StatusCode),
}

impl Destination {
    /// Chooses the backend of a command. A command without any is answered by the gateway.
    pub(crate) fn choose(config: &WorkerConfig, command: &Command) -> Self {
        let none = Self::Local(LocalResponse::NoBackend(StatusCode::INTERNAL_SERVER_ERROR));
        let chosen = match &command.backends {
            CommandBackends::One(number) => config.index_of(*number).map(|index| ChosenBackend { index, share: None }),
            CommandBackends::Weighted(weighted) => {
                let Some(share) = config.next_share(command.key.number, weighted) else { return none };
                match weighted.shares[share].target {
                    ShareTarget::Backend(number) => {
                        let share = u8::try_from(share).ok();
                        config.index_of(number).map(|index| ChosenBackend { index, share })
                    }
                    ShareTarget::Status(status) => return Self::Local(LocalResponse::NoBackend(status)),
                }
            }
            CommandBackends::None => None,
        };
        let Some(chosen) = chosen else { return none };
        match config.servers_of(chosen.index).servers.is_empty() {
            true => Self::Local(LocalResponse::NoBackend(StatusCode::SERVICE_UNAVAILABLE)),
            false => Self::Backend(chosen),
        }
    }
}

impl ChosenBackend {
    /// The header edits of the command for requests to this backend, if its share has edits of its own.
    pub(crate) fn share_edits(self, command: &Command) -> Option<&ShareEdits> {
        match &command.backends {
            CommandBackends::Weighted(weighted) => weighted.shares.get(usize::from(self.share?))?.edits.as_deref(),
            CommandBackends::None | CommandBackends::One(_) => None,
        }
    }
}
