//! The two shapes of a number that many threads write: one that only grows, one that goes up and down.
//!
//! Guarantees: no lock, no order between numbers (relaxed): a scrape sees each of them as it was a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows while the process lives.
#[derive(Debug, Default)]
pub struct EventCounter(AtomicU64);

impl EventCounter {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something now.
#[derive(Debug, Default)]
pub struct LevelGauge(AtomicU64);

impl LevelGauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; every `decrement` has had its `increment`.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
