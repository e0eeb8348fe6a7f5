//! The announcement that the gateway will stop: before it drains, while it still accepts connections.
//!
//! Guarantees: reading it is one relaxed load, and needs no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the gateway will stop. Cheap to clone: all clones say the same.
#[derive(Clone, Debug, Default)]
pub struct Departure(Arc<AtomicBool>);

impl Departure {
    /// Announces that the gateway will stop. It cannot be taken back.
    pub fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway will stop.
    pub fn is_announced(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_say_the_same() {
        let departure = Departure::default();
        let other = departure.clone();
        assert!(!other.is_announced());
        departure.announce();
        assert!(other.is_announced());
    }
}
