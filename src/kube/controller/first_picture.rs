//! The time until the first picture of the cluster, and what is served if it does not come: the last good
//! configuration.
//!
//! Guarantees:
//! - A picture that comes in time is used, and nothing of the disk is served.
//! - Where every watch has found the API server unreachable, the wait ends at once.
//! - What cannot be read is said in the log with its reason, and the gateway waits for the API server as it does
//!   without it.
//!
//! Leaves to others: events (`event_loop`), the file (`last_good`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::controller_gauge::ControllerGauge;
use super::data_plane::DataPlane;
use super::endpoint_follower::EndpointNews;
use super::last_good::{LastGoodConfig, LastGoodStore};
use crate::clock::Clock;
use crate::kube::index::IndexEvent;
use crate::kube::objects::ObjectKey;
use crate::kube::watch::{WatchGauge, WatchState};
use crate::lifecycle::DrainWatcher;
use crate::telemetry::ServedLastGood;

/// The time between two looks at the states of the watches.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// How long the first picture may take by default.
const PICTURE_TIME: Duration = Duration::from_secs(5);

/// Where the last good configuration is, and when it is served.
#[derive(Clone, Debug)]
pub struct LastGoodSettings {
    /// Its place.
    pub store: Arc<LastGoodStore>,
    /// How long the first picture of the cluster may take before the last good configuration is served.
    pub wait: Duration,
}

impl LastGoodSettings {
    /// The usual settings of a gateway with this ledger.
    pub fn beside(ledger: &std::path::Path) -> Self {
        Self { store: Arc::new(LastGoodStore::beside(ledger)), wait: PICTURE_TIME }
    }
}

/// What completes the picture.
#[derive(Debug)]
pub(super) enum Arrival {
    /// An event of a watch.
    Event(IndexEvent),
    /// The Services of which the endpoints are live.
    Endpoints(BTreeSet<ObjectKey>),
}

/// The arrivals until the first picture.
pub(super) struct FirstPicture<'a> {
    pub(super) events: &'a mut mpsc::Receiver<IndexEvent>,
    pub(super) news: &'a EndpointNews,
    pub(super) watches: &'a WatchGauge,
}

impl FirstPicture<'_> {
    /// Hands what arrives to `take`, which returns whether the picture is whole. Returns whether it is, in time.
    pub(super) async fn await_whole(
        self,
        wait: Duration,
        drain: &mut DrainWatcher,
        mut take: impl FnMut(Arrival) -> bool,
    ) -> bool {
        let end = Instant::now() + wait;
        let mut look = interval(LOOK_TIME);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let arrival = tokio::select! {
                biased;
                () = drain.begun() => return false,
                services = self.news.take() => Arrival::Endpoints(services),
                Some(event) = self.events.recv() => Arrival::Event(event),
                () = sleep_until(end) => return false,
                _ = look.tick() => {
                    if self.is_unreachable() {
                        return false;
                    }
                    continue;
                }
            };
            if take(arrival) {
                return true;
            }
        }
    }

    fn is_unreachable(&self) -> bool {
        self.watches.health().iter().all(|health| health.state == WatchState::Unreachable)
    }
}

/// Serves the last good configuration, if there is one. Blocks until it is live.
pub(super) fn serve_last_good(
    config: &LastGoodConfig,
    data_plane: &dyn DataPlane,
    (gauge, clock): (&ControllerGauge, &Clock),
) {
    let LastGoodConfig { written_at, version, documents, texts, endpoints } = config;
    data_plane.seed_endpoints(endpoints.iter().map(|(service, ports)| (service.to_owned(), ports.clone())).collect());
    match data_plane.apply(version, documents, texts) {
        Ok(excluded) => {
            let served = ServedLastGood { written_at: *written_at, since: clock.wall() };
            tracing::warn!(
                %written_at,
                age = ?served.age(clock.wall()),
                documents = documents.len(),
                excluded_sources = (!excluded.is_empty()).then_some(excluded.len()),
                "the API server has not shown the cluster in time: the last good configuration is served until it does. \
                 Changes of the cluster since then are not known"
            );
            gauge.note_last_good_served(served);
            data_plane.set_ready();
        }
        Err(problems) => tracing::error!(
            %written_at, %problems,
            "the last good configuration was rejected; the gateway waits for the API server"
        ),
    }
}

/// Whether there is a last good configuration. It is read only when it is needed, because that of 5,000 routes takes
/// about 25 MiB of memory.
pub(super) fn is_written(store: &LastGoodStore) -> bool {
    match store.is_written() {
        Ok(is_written) => is_written,
        Err(error) => {
            tracing::error!(
                "the last good configuration is not used: {error}. If the API server is away, the gateway waits for it"
            );
            false
        }
    }
}

/// Reads the last good configuration. What is wrong with it is logged.
pub(super) fn read_last_good(store: &LastGoodStore) -> Option<LastGoodConfig> {
    match store.read() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(
                "the last good configuration is not used: {error}. If the API server is away, the gateway waits for it. \
                 The file is replaced once the configuration of the cluster is live; until then it can be deleted"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
