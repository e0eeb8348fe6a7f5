//! The components that all threads of a running gateway share (`SharedComponents`).
//!
//! Guarantees: cheap to clone; made once, at start.
//!
//! Leaves to others: the order of start and stop (`app`), and what a reload replaces (`reload`).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::identity::ServerTls;
use crate::ledger::LedgerReader;
use crate::lifecycle::Readiness;
use crate::model::{CalendarOffset, Name};
use crate::proxy::TrafficComponents;

/// The components that all threads of a running gateway share.
#[derive(Clone)]
pub(crate) struct SharedComponents {
    /// The components that the workers use too.
    pub(crate) traffic: TrafficComponents,
    /// The calendar of the months: that of the ledger, which is written at start.
    pub(crate) calendar: CalendarOffset,
    pub(crate) listener_tls: Arc<HashMap<Name, Arc<ArcSwap<ServerTls>>>>,
    pub(crate) reader: LedgerReader,
    pub(crate) ready: Readiness,
}
