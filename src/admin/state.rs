//! What the admin endpoints read (`AdminState`): ledger, telemetry, readiness, configuration status.
//!
//! Guarantees: cheap to clone; nothing in it can change the gateway.
//! Leaves to others: connections and limits (`server`), responses (`endpoints`, `usage_api`).

use std::fmt;
use std::sync::Arc;

use crate::ledger::LedgerReader;
use crate::lifecycle::Readiness;
use crate::model::Name;
use crate::telemetry::RuntimeView;
use crate::telemetry::Telemetry;

use super::shared_scrape::SharedScrapes;

/// What the endpoints ask. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// The ledger.
    pub ledger: LedgerReader,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// Whether traffic may come.
    pub ready: Readiness,
    /// Names that are answered for, beside addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// Finds the subsystems all of whose servers are out of rotation.
    pub unserved: Arc<dyn Fn() -> Vec<Name> + Send + Sync>,
    /// The pages of metrics that are being made.
    pub scrapes: Arc<SharedScrapes>,
    /// Asks the composition root for what only it knows, at this moment.
    pub view: Arc<dyn Fn() -> RuntimeView + Send + Sync>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("ready", &self.ready).finish_non_exhaustive()
    }
}
