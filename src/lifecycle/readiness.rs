//! Readiness: blocked by living guards, each with the name of what is awaited.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether traffic may come; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    awaited: Arc<Mutex<Vec<String>>>,
}

/// As long as it lives, the gateway is not ready.
#[derive(Debug)]
pub struct ReadinessBlock {
    readiness: Readiness,
    reason: String,
}

impl Readiness {
    /// Blocks readiness until the guard is dropped; `what` is shown to whoever asks why.
    pub fn block(&self, what: impl Into<String>) -> ReadinessBlock {
        let what = what.into();
        self.lock().push(what.clone());
        ReadinessBlock { readiness: self.clone(), reason: what }
    }

    /// What is still awaited; empty means ready.
    pub fn awaited_reasons(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner) // a list of words cannot be left half-changed
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
    fn ready_when_every_guard_is_dropped() {
        let ready = Readiness::default();
        let (ledger, listener) = (ready.block("ledger"), ready.block("listener"));
        drop(ledger);
        assert_eq!(ready.awaited_reasons(), ["listener"]);
        drop(listener);
        assert!(ready.awaited_reasons().is_empty());
    }
}
