//! The watches: one for each kind, from the API server into bounded channels of index events.
//!
//! Guarantees:
//! - A watch never ends by itself: whatever fails is tried again with a growing pause, and a version that is too old
//!   (410) leads to a new list.
//! - A connection that is dead without a sign is given up after the time of the watch and 5 s.
//! - Objects are JSON: a malformed one hides no other.
//! - Secrets may be watched in some namespaces only, each with a watch of its own.
//! - EndpointSlices have a channel of their own. A full channel of the others does not delay them.
//! - A fault is logged once when it begins and once when it is over, with its remedy.
//!
//! Leaves to others:
//! - facts: `index`;
//! - the connection and its credentials: `api`.

mod kind_watch;
mod listing;
mod namespace_merge;
mod watch_gauge;
mod watch_scope;

use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::kind_watch::{KindWatch, WatchPlace};
use self::namespace_merge::NamespaceMerge;
use super::index::IndexEvent;
use super::objects::ObjectKind;

pub(crate) use self::kind_watch::MISSING_ANSWERS;
pub use self::kind_watch::WatchTimes;
pub use self::watch_gauge::{WatchGauge, WatchHealth, WatchState};
pub use self::watch_scope::{SECRET_NAMESPACES_MAX, WatchScope};

/// The largest number of events that wait in a channel. A watch whose channel is full reads no more from its
/// connection; the API server keeps the events.
pub const EVENTS_MAX: usize = 1024;

/// The running watches. They end when this is dropped.
#[derive(Debug)]
pub struct RunningWatches {
    /// Events of all kinds but EndpointSlices.
    pub events: mpsc::Receiver<IndexEvent>,
    /// Events of EndpointSlices.
    pub endpoint_events: mpsc::Receiver<IndexEvent>,
    /// How the watches are, for readiness and metrics.
    pub gauge: Arc<WatchGauge>,
    /// The tasks of the watches.
    pub tasks: WatchTasks,
}

/// The tasks of the watches. They end when this is dropped.
#[derive(Debug)]
pub struct WatchTasks(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

/// Starts a watch for each of `kinds` in the whole cluster. Must be called on a tokio runtime.
pub fn start_watches(client: &Client, kinds: &[ObjectKind], times: WatchTimes) -> RunningWatches {
    start_scoped_watches(client, (kinds, &WatchScope::default()), times)
}

/// Starts a watch for each of `kinds`, or several where the scope has namespaces. Must be called on a tokio runtime.
pub fn start_scoped_watches(
    client: &Client,
    (kinds, scope): (&[ObjectKind], &WatchScope),
    times: WatchTimes,
) -> RunningWatches {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let (endpoint_sender, endpoint_events) = mpsc::channel(EVENTS_MAX);
    let gauge = Arc::new(WatchGauge::new(kinds.iter().map(|kind| (*kind, scope.parts(*kind).len()))));
    let mut tasks = JoinSet::new();
    for kind in kinds {
        let sender = if *kind == ObjectKind::EndpointSlice { &endpoint_sender } else { &sender };
        let parts = scope.parts(*kind);
        let mut senders = vec![sender.clone()];
        if parts.len() > 1 {
            let channels = parts.iter().map(|_| mpsc::channel(EVENTS_MAX));
            let (of_parts, received): (Vec<_>, Vec<_>) = channels.unzip();
            tasks.spawn(NamespaceMerge::new(parts.len()).run(received, sender.clone()));
            senders = of_parts;
        }
        for ((part, namespace), sender) in parts.into_iter().enumerate().zip(senders) {
            let place = WatchPlace { kind: *kind, part, namespace };
            let watch = KindWatch::new(place, client.clone(), sender, Arc::clone(&gauge), times);
            tasks.spawn(watch.run());
        }
    }
    RunningWatches { events, endpoint_events, gauge, tasks: WatchTasks(tasks) }
}

#[cfg(test)]
mod tests;
