//! The components that all threads of a running gateway share (`SharedComponents`).
//!
//! Guarantees: cheap to clone; made once, at start.
//!
//! Leaves to others: the order of start and stop (`app`), and what a reload replaces (`reload`).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::identity::{ServerTls, SubsystemTls};
use crate::ledger::LedgerReader;
use crate::lifecycle::Readiness;
use crate::limit::LimiterRegistry;
use crate::model::{CalendarOffset, Name};
use crate::policy::PolicySnapshot;
use crate::proxy::{ConnectionLimits, UpstreamHealth};
use crate::telemetry::Telemetry;

/// The components that all threads of a running gateway share.
#[derive(Clone)]
pub(crate) struct SharedComponents {
    pub(crate) clock: Clock,
    /// The calendar of the months: that of the ledger, which is written at start.
    pub(crate) calendar: CalendarOffset,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) limiters: Arc<LimiterRegistry>,
    pub(crate) published: Arc<ArcSwap<PolicySnapshot>>,
    pub(crate) listener_tls: Arc<HashMap<Name, Arc<ArcSwap<ServerTls>>>>,
    pub(crate) subsystem_tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    pub(crate) reader: LedgerReader,
    pub(crate) ready: Readiness,
    pub(crate) connection_limits: Arc<ConnectionLimits>,
    pub(crate) health: Arc<UpstreamHealth>,
}
