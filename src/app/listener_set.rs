//! The listeners of a running gateway (`ListenerSet`): the tasks that accept connections, and their settings. A reload
//! changes the set in two steps: it retires what goes, and activates what comes. It publishes the configuration between
//! the two, so no connection is accepted with the settings of the old one and served by the new one.
//!
//! Guarantees:
//! - Retired sockets are closed before the step ends.
//! - A socket that is handed over stays open; connections wait in the kernel between the two steps.
//! - Connections of retired listeners take no more commands, and have the grace period for those in flight.
//! - The drain of the gateway is the drain of every listener.
//!
//! Leaves to others: binding (`binding`), what goes and comes (`listener_plan`), and the connections themselves
//! (`proxy`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::ListenerSettings;
use crate::identity::ServerTls;
use crate::lifecycle::{DrainTrigger, DrainWatcher, drain};
use crate::model::Name;
use crate::proxy::{AcceptSettings, ConnectionsMax, TrafficComponents, TrafficListener, WorkerHandle};

use super::listener_plan::ListenerFate;

/// The running listeners, and what they need to accept connections.
pub(crate) struct ListenerSet {
    /// In the order of the configuration; `None` for those that were removed in the first step of a reload.
    running: Vec<Option<RunningListener>>,
    environment: AcceptEnvironment,
    drain: DrainWatcher,
}

/// What all listeners share.
pub(crate) struct AcceptEnvironment {
    pub(crate) traffic: TrafficComponents,
    pub(crate) workers: Vec<WorkerHandle>,
    /// The maximum of connections of all listeners together.
    pub(crate) connections_max: usize,
    /// The maximum of connections of one address.
    pub(crate) address_connections: usize,
}

/// The settings of one listener, and the origin of its socket.
pub(crate) struct PlannedListener {
    pub(crate) settings: ListenerSettings,
    /// The number of its name.
    pub(crate) number: u32,
    /// Its certificates and trust anchors; `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ArcSwap<ServerTls>>>,
    pub(crate) socket: PlannedSocket,
}

/// The origin of a socket.
pub(crate) enum PlannedSocket {
    /// That of the live listener at this position.
    Live(usize),
    Bound(TrafficListener),
}

/// A listener that accepts connections.
struct RunningListener {
    name: Name,
    settings: watch::Sender<Option<Arc<AcceptSettings>>>,
    /// The drain of its connections; `None` between the two steps of a hand-over.
    connections: Option<(DrainTrigger, DrainWatcher)>,
    /// Closes the socket.
    socket: DrainTrigger,
}

impl ListenerSet {
    /// A set without listeners. The drain of the gateway begins the drain of all of them.
    pub(crate) fn new(environment: AcceptEnvironment, drain: DrainWatcher) -> Self {
        Self { running: Vec::new(), environment, drain }
    }

    /// Waits until the gateway drains.
    pub(crate) async fn drain_begun(&mut self) {
        self.drain.begun().await;
    }

    /// Closes all sockets and drains all connections, because the gateway stops.
    pub(crate) fn begin_drain(self) {
        for listener in self.running.into_iter().flatten() {
            listener.socket.begin();
            if let Some((connections, _)) = listener.connections {
                connections.begin();
            }
        }
    }

    /// Retires the listeners that do not continue, and returns when their sockets are closed. `fates` are those of the
    /// running listeners, in their order. Commands in flight have time until `deadline`.
    pub(crate) async fn retire(&mut self, fates: &[ListenerFate], deadline: Instant) {
        let mut closing = Vec::new();
        for (place, fate) in self.running.iter_mut().zip(fates) {
            match (fate, place.take()) {
                (ListenerFate::Keep, kept) => *place = kept,
                (_, None) => {}
                (ListenerFate::HandOver, Some(mut listener)) => {
                    listener.settings.send_replace(None);
                    listener.drain_connections(deadline);
                    *place = Some(listener);
                }
                (ListenerFate::Remove, Some(mut listener)) => {
                    listener.socket.begin();
                    listener.drain_connections(deadline);
                    closing.push(listener);
                }
            }
        }
        for listener in closing {
            listener.socket.done().await;
            tracing::info!(listener = %listener.name, "listener removed; its connections drain");
        }
    }

    /// Lets the listeners of a configuration accept connections, with its settings. Live sockets are those of the
    /// previous call, by position.
    pub(crate) fn activate(&mut self, planned: Vec<PlannedListener>) {
        let mut before = std::mem::take(&mut self.running);
        for PlannedListener { settings, number, tls, socket } in planned {
            let running = match socket {
                PlannedSocket::Live(index) => before.get_mut(index).and_then(Option::take),
                PlannedSocket::Bound(listener) => Some(self.spawn(listener, &settings.name)),
            };
            let running = running.map(|mut running| {
                running.name = settings.name.clone();
                let (_, watcher) = running.connections.get_or_insert_with(drain);
                let accept = self.environment.accept_settings(settings, number, tls, watcher.clone());
                running.settings.send_replace(Some(Arc::new(accept)));
                running
            });
            self.running.push(running);
        }
    }

    /// Spawns the task of a new socket. It waits for its settings.
    fn spawn(&self, listener: TrafficListener, name: &Name) -> RunningListener {
        let (settings, current) = watch::channel(None);
        let (socket, stop) = drain();
        tokio::spawn(listener.accept_connections(current, self.environment.workers.clone(), stop));
        RunningListener { name: name.clone(), settings, connections: None, socket }
    }
}

impl RunningListener {
    fn drain_connections(&mut self, deadline: Instant) {
        if let Some((connections, _)) = self.connections.take() {
            connections.begin_until(deadline);
        }
    }
}

impl AcceptEnvironment {
    fn accept_settings(
        &self,
        listener: ListenerSettings,
        number: u32,
        tls: Option<Arc<ArcSwap<ServerTls>>>,
        drain: DrainWatcher,
    ) -> AcceptSettings {
        let connections_max = ConnectionsMax {
            all: self.connections_max,
            listener: listener.connections.unwrap_or(self.connections_max),
            address: self.address_connections,
        };
        AcceptSettings {
            name: listener.name,
            protocol: listener.protocol,
            tls,
            number,
            connections_max,
            trusted_proxies: Arc::new(listener.proxies),
            connection_limits: Arc::clone(&self.traffic.connection_limits),
            telemetry: Arc::clone(&self.traffic.telemetry),
            drain,
        }
    }
}
