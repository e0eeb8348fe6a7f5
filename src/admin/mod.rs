//! The operator's door: metrics, health, the state of the configuration, and usage, over plain HTTP/1.1.
//!
//! Guarantees: nothing here changes anything, shows a secret or is reachable on a traffic listener; connections, requests
//! and waits have limits, so a slow scraper cannot hold the gateway, and silent connections keep no probe out. It authenticates
//! nobody: bind it to loopback or to a network of operators.

mod answer;
mod endpoint;
mod hosts;
mod places;
mod scrapes;
mod server;
mod usage;

use std::fmt;
use std::sync::Arc;

use crate::ledger::LedgerReader;
use crate::lifecycle::Ready;
use crate::model::Name;
use crate::telemetry::{Telemetry, View};

pub use scrapes::SharedScrapes;
pub use server::serve;

/// What the endpoints ask. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// The ledger.
    pub ledger: LedgerReader,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// Whether traffic may come.
    pub ready: Ready,
    /// Names that are answered for, beside addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// Finds the subsystems all of whose servers are out of rotation.
    pub unserved: Arc<dyn Fn() -> Vec<Name> + Send + Sync>,
    /// The pages of metrics that are being made.
    pub scrapes: Arc<SharedScrapes>,
    /// Asks the composition root for what only it knows, at this moment.
    pub view: Arc<dyn Fn() -> View + Send + Sync>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("ready", &self.ready).finish_non_exhaustive()
    }
}
