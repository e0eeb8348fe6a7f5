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
    kinds: BTreeMap<ObjectKind, KindGauge>,
}

#[derive(Debug, Default)]
struct KindGauge {
    state: AtomicU8,
    is_synced: AtomicBool,
    /// Milliseconds from the start to the last answer.
    contact: AtomicU64,
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
}

impl WatchGauge {
    pub(super) fn new(kinds: &[ObjectKind]) -> Self {
        let kinds = kinds.iter().map(|kind| (*kind, KindGauge::default())).collect();
        Self { start: Instant::now(), kinds }
    }

    /// Whether all objects of this kind were handed over once.
    pub fn synced(&self, kind: ObjectKind) -> bool {
        self.kinds.get(&kind).is_some_and(|gauge| gauge.is_synced.load(Ordering::Acquire))
    }

    /// Whether all objects of all kinds were handed over once.
    pub fn all_synced(&self) -> bool {
        self.kinds.values().all(|gauge| gauge.is_synced.load(Ordering::Acquire))
    }

    /// The state of each watch.
    pub fn health(&self) -> Vec<WatchHealth> {
        let now = self.now();
        let health = self.kinds.iter().map(|(kind, gauge)| WatchHealth {
            kind: *kind,
            state: WatchState::from_number(gauge.state.load(Ordering::Relaxed)),
            is_synced: gauge.is_synced.load(Ordering::Acquire),
            age: Duration::from_millis(now.saturating_sub(gauge.contact.load(Ordering::Relaxed))),
        });
        health.collect()
    }

    /// Notes an answer of the API server.
    pub(super) fn note_contact(&self, kind: ObjectKind) {
        if let Some(gauge) = self.kinds.get(&kind) {
            gauge.contact.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes a state. Returns the one before.
    pub(super) fn note_state(&self, kind: ObjectKind, state: WatchState) -> WatchState {
        let before = self.kinds.get(&kind).map(|gauge| gauge.state.swap(state as u8, Ordering::Relaxed));
        WatchState::from_number(before.unwrap_or_default())
    }

    pub(super) fn note_synced(&self, kind: ObjectKind) {
        if let Some(gauge) = self.kinds.get(&kind) {
            gauge.is_synced.store(true, Ordering::Release);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
