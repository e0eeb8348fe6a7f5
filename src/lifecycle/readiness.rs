//! Readiness: the process is not ready while any guard exists. Each guard has a reason.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the process is ready for traffic. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    awaited: Arc<Mutex<Vec<String>>>,
}

/// A guard: the gateway is not ready while it exists.
#[derive(Debug)]
pub struct ReadinessBlock {
    readiness: Readiness,
    reason: String,
}

impl Readiness {
    /// Blocks readiness until the guard is dropped. `what` is the reason that readiness checks report.
    pub fn block(&self, what: impl Into<String>) -> ReadinessBlock {
        let what = what.into();
        self.lock().push(what.clone());
        ReadinessBlock { readiness: self.clone(), reason: what }
    }

    /// The reasons that still block readiness. Empty means ready.
    pub fn awaited_reasons(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner) // every change of the list is a single step
    }
}

impl Drop for ReadinessBlock {
    fn drop(&mut self) {
        let mut awaited = self.readiness.lock();
        if let Some(position) = awaited.iter().position(|what| *what == self.reason) {
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
        let (ledger, listener) = (ready.block("ledger"), ready.block("listener"));
        drop(ledger);
        assert_eq!(ready.awaited_reasons(), ["listener"]);
        drop(listener);
        assert!(ready.awaited_reasons().is_empty());
    }
}
