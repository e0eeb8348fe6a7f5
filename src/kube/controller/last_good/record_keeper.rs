//! Writing the last good configuration when it has changed, away from everything that serves or applies.
//!
//! Guarantees:
//! - At most one write in [`WRITE_PAUSE`], and none while neither the configuration nor an endpoint changes.
//! - A write waits for the end of a stream of changes, at most [`CHANGE_AGE_MAX`]; the first one does not.
//! - Of several configurations that became live meanwhile the newest is written. What was live when the process stops
//!   is written before it ends.
//! - A write that fails is logged when that begins and when it is over, and is tried again.
//!
//! Leaves to others: the file (`last_good`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::record::RecordToWrite;
use super::record_store::LastGoodStore;
use crate::clock::Clock;
use crate::kube::controller::applied::{AppliedTranslation, version_of};
use crate::kube::controller::controller_gauge::ControllerGauge;
use crate::kube::controller::data_plane::EndpointList;
use crate::kube::index::SharedEndpoints;
use crate::lifecycle::DrainWatcher;

/// How long the end of the process waits for the last write.
const LAST_WRITE_TIME: Duration = Duration::from_secs(5);

/// From the first live configuration to the first write.
const FIRST_WRITE_TIME: Duration = Duration::from_secs(1);

/// The shortest time from one write to the next.
const WRITE_PAUSE: Duration = Duration::from_secs(30);

/// A stream of changes has ended when none has come for this time. A write syncs the disk, and a route that is made
/// meanwhile is live later: 80 to 120 ms instead of 20 (`loadtests/results/2026-12-01-kubernetes.md`).
const QUIET_TIME: Duration = Duration::from_secs(5);

/// The longest time from a change to its write.
const CHANGE_AGE_MAX: Duration = Duration::from_secs(300);

/// What became of the newest translation.
type AppliedReceiver = watch::Receiver<Option<Arc<AppliedTranslation>>>;

/// Writes what is live.
pub(in crate::kube::controller) struct RecordKeeper {
    store: Arc<LastGoodStore>,
    applied: AppliedReceiver,
    endpoints: SharedEndpoints,
    gauge: Arc<ControllerGauge>,
    clock: Clock,
    /// What the file has, as far as this process has written it.
    written: Option<WrittenRecord>,
    is_faulty: bool,
}

/// What a record was made of.
struct WrittenRecord {
    applied: Arc<AppliedTranslation>,
    endpoints: EndpointList,
}

impl WrittenRecord {
    fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.applied.translation, &other.applied.translation);
        let is_same_config = Arc::ptr_eq(one, two) || (one.documents == two.documents && one.texts == two.texts);
        is_same_config && self.endpoints == other.endpoints
    }
}

impl RecordKeeper {
    /// A keeper of what is applied, with the endpoints.
    pub(in crate::kube::controller) fn new(
        store: Arc<LastGoodStore>,
        (applied, endpoints): (AppliedReceiver, SharedEndpoints),
        (gauge, clock): (Arc<ControllerGauge>, Clock),
    ) -> Self {
        Self { store, applied, endpoints, gauge, clock, written: None, is_faulty: false }
    }

    /// Runs until the drain begins, and writes once more then.
    pub(in crate::kube::controller) async fn run(mut self, mut drain: DrainWatcher) {
        let (mut wait, mut earliest) = ((FIRST_WRITE_TIME, FIRST_WRITE_TIME), Instant::now());
        loop {
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { break },
                () = sleep(WRITE_PAUSE) => {} // endpoints may have changed
                () = drain.begun() => break,
            }
            if !self.await_quiet(wait, earliest, &mut drain).await {
                break;
            }
            self.write_newest().await;
            (wait, earliest) = ((QUIET_TIME, CHANGE_AGE_MAX), Instant::now() + WRITE_PAUSE);
        }
        if timeout(LAST_WRITE_TIME, self.write_newest()).await.is_err() {
            tracing::warn!(path = %self.store.path().display(), "the last good configuration was not written in time");
        }
    }

    /// Waits until nothing has changed for the time `quiet`, at most for the time `longest`, and until `earliest`.
    /// Returns whether it is time to write; otherwise the drain has begun.
    async fn await_quiet(
        &mut self,
        (quiet, longest): (Duration, Duration),
        earliest: Instant,
        drain: &mut DrainWatcher,
    ) -> bool {
        let latest = Instant::now() + longest;
        loop {
            let due = (Instant::now() + quiet).min(latest).max(earliest);
            tokio::select! {
                () = drain.begun() => return false,
                () = sleep_until(due) => return true,
                changed = self.applied.changed() => if changed.is_err() { return false },
            }
        }
    }

    async fn write_newest(&mut self) {
        let newest = self.applied.borrow_and_update().clone();
        let Some(newest) = newest.filter(|newest| newest.config.rejected.is_none()) else { return };
        let services = newest.translation.backend_services.iter();
        let endpoints: EndpointList =
            services.map(|service| (service.clone(), self.endpoints.addresses_by_port(service))).collect();
        let next = WrittenRecord { applied: newest, endpoints };
        if self.written.as_ref().is_some_and(|written| written.is_same(&next)) {
            return;
        }
        let (store, now) = (Arc::clone(&self.store), self.clock.wall());
        let written = tokio::task::spawn_blocking(move || {
            let translation = &next.applied.translation;
            let record = RecordToWrite {
                written_at: now,
                version: &version_of(translation),
                documents: &translation.documents,
                texts: &translation.texts,
                endpoints: &next.endpoints,
            };
            let result = store.write(&record);
            (next, result)
        });
        // A panic was reported by its hook; the next change tries again.
        let Ok((next, result)) = written.await else { return };
        let was_faulty = std::mem::replace(&mut self.is_faulty, result.is_err());
        match result {
            Ok(()) => {
                self.written = Some(next);
                self.gauge.note_last_good_written(now);
                if was_faulty {
                    tracing::info!("the last good configuration is written again");
                }
            }
            Err(error) if !was_faulty => tracing::warn!(
                "the last good configuration was not written: {error}. Traffic does not depend on it; a process that \
                 starts while the API server is away would serve an older one or none. It is tried again with the next \
                 change"
            ),
            Err(_) => {}
        }
    }
}
