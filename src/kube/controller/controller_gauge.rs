//! What the controller counts about itself, for metrics and `/config`.
//!
//! Guarantees:
//! - Noting waits for nothing, and reading delays no event.
//! - Bounded: numbers for each kind and for each result, no names of objects.
//!
//! Leaves to others: metric names (`telemetry`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::kube::events::EventCounters;
use crate::kube::index::Index;
use crate::kube::objects::ObjectKind;
use crate::kube::status::StatusQueue;
use crate::kube::translate::{AnnotationCounts, Translation};
use crate::kube::watch::WatchGauge;
use crate::telemetry::{ClusterView, KindView, LastGoodView, ServedLastGood, WorkTotals};

/// The numbers of one controller.
#[derive(Debug, Default)]
pub struct ControllerGauge {
    sources: OnceLock<GaugeSources>,
    objects: [AtomicU64; ObjectKind::ALL.len()],
    is_leader: AtomicBool,
    translations: WorkCounter,
    applies: WorkCounter,
    rejected_applies: AtomicU64,
    annotations: Mutex<AnnotationCounts>,
    last_good: Mutex<LastGoodView>,
}

/// The parts of a running controller that count themselves.
#[derive(Debug)]
pub(super) struct GaugeSources {
    pub(super) watches: Arc<WatchGauge>,
    pub(super) statuses: StatusQueue,
    pub(super) events: Arc<EventCounters>,
}

/// Counts a kind of work and its time.
#[derive(Debug, Default)]
struct WorkCounter {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl WorkCounter {
    fn note(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn totals(&self) -> WorkTotals {
        let duration = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        WorkTotals { count: self.count.load(Ordering::Relaxed), duration }
    }
}

/// Locks values that are replaced in one step.
fn lock<T>(values: &Mutex<T>) -> MutexGuard<'_, T> {
    values.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ControllerGauge {
    /// Sets the parts that count themselves. A process has one controller.
    pub(super) fn set_sources(&self, sources: GaugeSources) {
        let _ = self.sources.set(sources);
    }

    /// Notes how many objects of a kind are known.
    pub(super) fn note_objects(&self, kind: ObjectKind, index: &Index) {
        if let Some(place) = ObjectKind::ALL.iter().position(|one| *one == kind) {
            self.objects[place].store(index.count(kind) as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn note_leadership(&self, is_leader: bool) {
        self.is_leader.store(is_leader, Ordering::Relaxed);
    }

    /// Notes a translation and its time.
    pub(super) fn note_translation(&self, translation: &Translation, took: Duration) {
        self.translations.note(took);
        let mut sums = AnnotationCounts::default();
        translation.ingresses.iter().for_each(|ingress| sums.add(ingress.annotations));
        *lock(&self.annotations) = sums;
    }

    /// Notes that a configuration of the cluster is live, or was rejected as a whole.
    pub(super) fn note_applied(&self, is_live: bool, took: Duration) {
        self.applies.note(took);
        if !is_live {
            self.rejected_applies.fetch_add(1, Ordering::Relaxed);
        } else if lock(&self.last_good).served.take().is_some() {
            tracing::info!("the configuration of the cluster is live; the last good one is not served any more");
        }
    }

    pub(super) fn note_last_good_written(&self, at: Timestamp) {
        lock(&self.last_good).written_at = Some(at);
    }

    pub(super) fn note_last_good_served(&self, served: ServedLastGood) {
        lock(&self.last_good).served = Some(served);
    }

    /// The last good configuration that is served, if it is.
    pub fn served_last_good(&self) -> Option<ServedLastGood> {
        lock(&self.last_good).served.clone()
    }

    /// All numbers.
    pub fn view(&self) -> ClusterView {
        let sources = self.sources.get();
        let counts = sources.map(|sources| sources.statuses.counts()).unwrap_or_default();
        let [written, dropped] = sources.map_or([0, 0], |sources| {
            [&sources.events.written, &sources.events.dropped].map(|count| count.load(Ordering::Relaxed))
        });
        let AnnotationCounts { taken, differs, lost, unknown } = *lock(&self.annotations);
        ClusterView {
            kinds: sources.map(|sources| self.kinds(&sources.watches)).unwrap_or_default(),
            translations: self.translations.totals(),
            applies: self.applies.totals(),
            rejected_applies: self.rejected_applies.load(Ordering::Relaxed),
            status_writes: vec![
                ("written", counts.written),
                ("conflict", counts.conflicts),
                ("failed", counts.failed),
                ("dropped", counts.dropped),
            ],
            statuses_waiting: counts.waiting,
            events: vec![("written", written), ("dropped", dropped)],
            is_leader: self.is_leader.load(Ordering::Relaxed),
            annotations: vec![("taken", taken), ("differs", differs), ("lost", lost), ("unknown", unknown)],
            last_good: lock(&self.last_good).clone(),
        }
    }

    fn kinds(&self, watches: &WatchGauge) -> Vec<KindView> {
        let objects_of = |kind: ObjectKind| {
            let place = ObjectKind::ALL.iter().position(|one| *one == kind);
            place.map_or(0, |place| self.objects[place].load(Ordering::Relaxed))
        };
        let kinds = watches.health().into_iter().map(|health| KindView {
            kind: health.kind.api().kind,
            is_synced: health.is_synced,
            state: health.state.as_str(),
            objects: objects_of(health.kind),
            age: health.age,
            relists: health.relists,
            faults: health.faults,
        });
        kinds.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::objects::ObjectKey;
    use crate::kube::translate::IngressOutcome;

    #[test]
    fn numbers_are_those_that_were_noted() {
        let gauge = ControllerGauge::default();
        let counts = |taken, unknown| AnnotationCounts { taken, unknown, ..AnnotationCounts::default() };
        let ingress = |name: &str, annotations| IngressOutcome {
            key: ObjectKey::new("a", name),
            document: None,
            faults: Vec::new(),
            annotations,
            subsystems: Vec::new(),
        };
        let ingresses = vec![ingress("x", counts(3, 1)), ingress("y", counts(2, 0))];
        let translation = Translation { ingresses, ..Translation::default() };
        gauge.note_translation(&translation, Duration::from_millis(2));
        gauge.note_translation(&translation, Duration::from_millis(3));
        gauge.note_leadership(true);
        gauge.note_applied(false, Duration::from_millis(7));
        let view = gauge.view();
        assert_eq!(view.annotations, [("taken", 5), ("differs", 0), ("lost", 0), ("unknown", 1)], "the latest alone");
        assert_eq!(view.translations, WorkTotals { count: 2, duration: Duration::from_millis(5) });
        assert_eq!((view.applies.count, view.rejected_applies, view.is_leader), (1, 1, true));
        assert!(view.kinds.is_empty(), "before the watches");
    }

    #[test]
    fn last_good_configuration_is_served_until_one_of_the_cluster_is_live() {
        let gauge = ControllerGauge::default();
        let at = Timestamp::UNIX_EPOCH;
        gauge.note_last_good_served(ServedLastGood { written_at: at, since: at });
        gauge.note_applied(false, Duration::ZERO);
        assert!(gauge.served_last_good().is_some(), "a rejected one changes nothing");
        gauge.note_applied(true, Duration::ZERO);
        assert!(gauge.served_last_good().is_none());
    }
}
