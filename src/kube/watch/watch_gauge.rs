//! How the watches are: for readiness, metrics and the log.
//!
//! Guarantees:
//! - Reading it waits for nothing.
//! - The age of a watch is the time since the API server last said anything to it. A watch in order is at most about a
//!   minute old: the server sends bookmarks.
//!
//! Leaves to others:
//! - metric names: `telemetry`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::kube::api::ApiFault;
use crate::kube::objects::ObjectKind;

/// The state of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WatchState {
    /// Before the first answer.
    Starting = 0,
    /// Events are followed.
    Live = 1,
    /// The cluster does not serve the kind.
    MissingApi = 2,
    /// The service account lacks a permission.
    Forbidden = 3,
    /// The API server does not answer, or not as it should.
    Unreachable = 4,
}

impl WatchState {
    /// The name of the state as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::MissingApi => "missing_api",
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
        }
    }

    /// The state of a watch with this fault.
    pub(super) fn of_fault(fault: &ApiFault) -> Self {
        match fault {
            ApiFault::MissingApi | ApiFault::NotFound => Self::MissingApi,
            ApiFault::Forbidden(_) | ApiFault::Unauthorized(_) => Self::Forbidden,
            ApiFault::Expired => Self::Starting,
            ApiFault::Conflict
            | ApiFault::Refused(..)
            | ApiFault::Silent
            | ApiFault::Malformed(_)
            | ApiFault::Unreachable(_) => Self::Unreachable,
        }
    }

    /// The order from the best state to the worst.
    fn severity(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::MissingApi => 1,
            Self::Starting => 2,
            Self::Forbidden => 3,
            Self::Unreachable => 4,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Live,
            2 => Self::MissingApi,
            3 => Self::Forbidden,
            4 => Self::Unreachable,
            _ => Self::Starting,
        }
    }
}

/// The states of all watches.
#[derive(Debug)]
pub struct WatchGauge {
    start: Instant,
    /// Of each kind its watches: one for the whole cluster, or one for each namespace.
    kinds: BTreeMap<ObjectKind, Vec<KindGauge>>,
}

#[derive(Debug, Default)]
struct KindGauge {
    state: AtomicU8,
    is_synced: AtomicBool,
    /// Milliseconds from the start to the last answer.
    contact: AtomicU64,
    /// Whole lists.
    lists: AtomicU64,
    faults: AtomicU64,
}

impl KindGauge {
    fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::Acquire)
    }
}

/// The state of one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHealth {
    /// The kind.
    pub kind: ObjectKind,
    /// The state.
    pub state: WatchState,
    /// Whether all objects were handed over once. A kind that the cluster does not serve has none, and is synced.
    pub is_synced: bool,
    /// The time since the last answer of the API server.
    pub age: Duration,
    /// How often all objects were listed again.
    pub relists: u64,
    /// How often the watch had a fault.
    pub faults: u64,
}

impl WatchGauge {
    /// A gauge for these kinds, each with the number of its watches.
    pub(super) fn new(kinds: impl IntoIterator<Item = (ObjectKind, usize)>) -> Self {
        let parts = |count| std::iter::repeat_with(KindGauge::default).take(count).collect();
        let kinds = kinds.into_iter().map(|(kind, count)| (kind, parts(count))).collect();
        Self { start: Instant::now(), kinds }
    }

    /// Whether all objects of this kind were handed over once.
    pub fn synced(&self, kind: ObjectKind) -> bool {
        self.kinds.get(&kind).is_some_and(|parts| parts.iter().all(KindGauge::is_synced))
    }

    /// Whether all objects of all kinds were handed over once.
    pub fn all_synced(&self) -> bool {
        self.kinds.values().flatten().all(KindGauge::is_synced)
    }

    /// The state of the watches of each kind: of several the worst.
    pub fn health(&self) -> Vec<WatchHealth> {
        let now = self.now();
        let health = self.kinds.iter().map(|(kind, parts)| {
            let sum = |read: fn(&KindGauge) -> u64| parts.iter().map(read).sum();
            let contact = parts.iter().map(|part| part.contact.load(Ordering::Relaxed)).min().unwrap_or_default();
            let states = parts.iter().map(|part| WatchState::from_number(part.state.load(Ordering::Relaxed)));
            WatchHealth {
                kind: *kind,
                state: states.max_by_key(|state| state.severity()).unwrap_or(WatchState::Starting),
                is_synced: parts.iter().all(KindGauge::is_synced),
                age: Duration::from_millis(now.saturating_sub(contact)),
                relists: sum(|part| part.lists.load(Ordering::Relaxed).saturating_sub(1)),
                faults: sum(|part| part.faults.load(Ordering::Relaxed)),
            }
        });
        health.collect()
    }

    /// Notes an answer of the API server.
    pub(super) fn note_contact(&self, place: (ObjectKind, usize)) {
        if let Some(gauge) = self.part(place) {
            gauge.contact.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes a state. Returns the one before.
    pub(super) fn note_state(&self, place: (ObjectKind, usize), state: WatchState) -> WatchState {
        let before = self.part(place).map(|gauge| gauge.state.swap(state as u8, Ordering::Relaxed));
        WatchState::from_number(before.unwrap_or_default())
    }

    pub(super) fn note_fault(&self, place: (ObjectKind, usize)) {
        if let Some(gauge) = self.part(place) {
            gauge.faults.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes a whole list.
    pub(super) fn note_synced(&self, place: (ObjectKind, usize)) {
        if let Some(gauge) = self.part(place) {
            gauge.lists.fetch_add(1, Ordering::Relaxed);
            gauge.is_synced.store(true, Ordering::Release);
        }
    }

    fn part(&self, (kind, part): (ObjectKind, usize)) -> Option<&KindGauge> {
        self.kinds.get(&kind)?.get(part)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
