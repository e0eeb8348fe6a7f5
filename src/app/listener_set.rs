//! The bound listeners of a gateway and the settings they accept connections with (`ListenerSet`).
//!
//! Guarantees: listeners accept until the drain begins.
//!
//! Leaves to others: binding (`binding`), and the connections themselves (`proxy`).

use std::sync::Arc;

use crate::config::GatewaySettings;
use crate::lifecycle::DrainWatcher;
use crate::model::Name;
use crate::proxy::{AcceptSettings, ConnectionsMax, TrafficListener, WorkerHandle};

use super::components::SharedComponents;

/// The bound listeners, and what they need to accept connections.
pub(crate) struct ListenerSet {
    pub(crate) bound: Vec<(Name, TrafficListener)>,
    pub(crate) settings: GatewaySettings,
    pub(crate) connections_max: usize,
    pub(crate) handles: Vec<WorkerHandle>,
    pub(crate) drain: DrainWatcher,
}

impl ListenerSet {
    /// Spawns every listener on the control runtime.
    pub(crate) fn spawn_listeners(self, components: &SharedComponents) {
        for (position, (name, listener)) in self.bound.into_iter().enumerate() {
            let settings = &self.settings.listeners[position]; // in the order of the settings
            let max = ConnectionsMax {
                all: self.connections_max,
                listener: settings.connections.unwrap_or(self.connections_max),
                address: self.settings.capacity.address_connections,
            };
            let accept = AcceptSettings {
                tls: components.listener_tls.get(&name).cloned(),
                name,
                position,
                connections_max: max,
                trusted_proxies: Arc::new(settings.proxies.clone()),
                connection_limits: Arc::clone(&components.traffic.connection_limits),
                telemetry: Arc::clone(&components.traffic.telemetry),
            };
            tokio::spawn(listener.accept_connections(accept, self.handles.clone(), self.drain.clone()));
        }
    }
}
