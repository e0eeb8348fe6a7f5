//! The composition root: from settings to a running gateway; the order of start and stop is the document.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::clock::Clock;
use crate::config::Problems;
use crate::ledger::LedgerError;
use crate::model::Name;

/// What a gateway is started with.
#[derive(Debug)]
pub struct Start {
    /// The configuration file.
    pub config: PathBuf,
    /// Where time comes from.
    pub clock: Clock,
}

/// A gateway at work. Dropping it without [`Running::shutdown`] is like a crash: nothing counted is lost.
#[derive(Debug)]
pub struct Running {}

/// Why a gateway did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The ledger could not be opened or has failed.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// An address could not be bound.
    #[error("{0}")]
    Bind(String),
}

/// Starts a gateway on threads of its own and returns when it is ready.
pub fn start(_start: Start) -> Result<Running, AppError> {
    todo!()
}

impl Running {
    /// The names and bound addresses of all listeners, in the order of the document.
    pub fn listeners(&self) -> Vec<(Name, SocketAddr)> {
        todo!()
    }

    /// The bound address of a listener, by name.
    pub fn listener(&self, _name: &str) -> Option<SocketAddr> {
        todo!()
    }

    /// The bound address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// Reads the configuration again, as SIGHUP does. On problems the old one stays live.
    pub fn reload(&self) -> Result<(), Problems> {
        todo!()
    }

    /// Drains and closes: not ready, still accepting for `shutdown.delay`, then GOAWAY, then waits up to
    /// `shutdown.grace` for commands in flight, then the last fold. Blocks.
    pub fn shutdown(self) -> Result<(), AppError> {
        todo!()
    }
}
