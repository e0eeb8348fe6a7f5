//! The state that the admin endpoints read (`AdminState`): ledger, telemetry, readiness, configuration status.
//!
//! Guarantees: cheap to clone; nothing in it can change the gateway.
//!
//! Leaves to others: connections and limits (`server`), responses (`endpoints`, `usage_api`, `hours_api`).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::ledger::LedgerReader;
use crate::lifecycle::Readiness;
use crate::model::Name;
use crate::telemetry::{RuntimeView, Telemetry};

use super::hours_api::HourPages;
use super::shared_scrape::SharedScrapes;

/// The data sources of the endpoints. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// The ledger.
    pub ledger: LedgerReader,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Whether the gateway is ready for traffic.
    pub ready: Readiness,
    /// The accepted host names, in addition to IP addresses and `localhost`. A reload replaces them.
    pub hosts: Arc<ArcSwap<Vec<String>>>,
    /// Finds the subsystems whose servers are all out of rotation.
    pub unserved: Arc<dyn Fn() -> Vec<Name> + Send + Sync>,
    /// The pages of metrics that are being rendered.
    pub scrapes: Arc<SharedScrapes>,
    /// The pages of hours that are being written.
    pub hour_pages: Arc<HourPages>,
    /// Reads the current state of the composition root.
    pub view: Arc<dyn Fn() -> RuntimeView + Send + Sync>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("ready", &self.ready).finish_non_exhaustive()
    }
}
