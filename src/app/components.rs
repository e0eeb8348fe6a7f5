//! The components that all threads of a running gateway share (`SharedComponents`).
//!
//! Guarantees: cheap to clone; made once, at start.
//!
//! Leaves to others: the order of start and stop (`app`), and what a reload replaces (`reload`).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::identity::ServerTls;
use crate::kube::controller::ControllerGauge;
use crate::ledger::LedgerReader;
use crate::lifecycle::Readiness;
use crate::model::{CalendarOffset, Name};
use crate::proxy::TrafficComponents;

use super::live_listeners::LiveListeners;
use super::snapshot_publisher::SnapshotPublisher;

/// The TLS settings of listeners, by name. A reload replaces the settings of a name in place, so that the connections
/// of the listener see them.
pub(crate) type ListenerTlsMap = HashMap<Name, Arc<ArcSwap<ServerTls>>>;

/// The components that all threads of a running gateway share.
#[derive(Clone)]
pub(crate) struct SharedComponents {
    /// The components that the workers use too.
    pub(crate) traffic: TrafficComponents,
    /// Replaces the published snapshot of `traffic`.
    pub(crate) publisher: Arc<SnapshotPublisher>,
    /// The calendar of the months: that of the ledger, which is written at start.
    pub(crate) calendar: CalendarOffset,
    /// The TLS settings of the live listeners.
    pub(crate) listener_tls: Arc<ArcSwap<ListenerTlsMap>>,
    /// The accepted host names of the admin listener.
    pub(crate) admin_hosts: Arc<ArcSwap<Vec<String>>>,
    /// The live addresses.
    pub(crate) live: LiveListeners,
    pub(crate) reader: LedgerReader,
    pub(crate) ready: Readiness,
    /// What the Kubernetes controller counts; `None` without one.
    pub(crate) cluster: Option<Arc<ControllerGauge>>,
}
