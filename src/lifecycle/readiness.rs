//! Readiness: the process is not ready while any guard exists. Each guard has a reason, and says what to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the process is ready for traffic. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    awaited: Arc<Mutex<Vec<AwaitedReason>>>,
}

/// Why the process is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedReason {
    /// What it waits for: "a writable book".
    pub what: String,
    /// What an operator can do.
    pub remedy: &'static str,
}

/// A guard: the gateway is not ready while it exists.
#[derive(Debug)]
pub struct ReadinessBlock {
    readiness: Readiness,
    reason: AwaitedReason,
}

impl Readiness {
    /// Blocks readiness until the guard is dropped. Readiness checks report `what` is awaited, and the `remedy`.
    pub fn block(&self, what: impl Into<String>, remedy: &'static str) -> ReadinessBlock {
        let reason = AwaitedReason { what: what.into(), remedy };
        self.lock().push(reason.clone());
        ReadinessBlock { readiness: self.clone(), reason }
    }

    /// The reasons that still block readiness. Empty means ready.
    pub fn awaited_reasons(&self) -> Vec<AwaitedReason> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<AwaitedReason>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner) // every change of the list is a single step
    }
}

impl Drop for ReadinessBlock {
    fn drop(&mut self) {
        let mut awaited = self.readiness.lock();
        if let Some(position) = awaited.iter().position(|reason| *reason == self.reason) {
            awaited.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_guard_is_dropped() {
        let ready = Readiness::default();
        let (ledger, listener) = (ready.block("ledger", "look"), ready.block("listener", "wait"));
        drop(ledger);
        let awaited = AwaitedReason { what: "listener".to_owned(), remedy: "wait" };
        assert_eq!(ready.awaited_reasons(), [awaited]);
        drop(listener);
        assert!(ready.awaited_reasons().is_empty());
    }
}
