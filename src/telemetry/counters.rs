//! The two shapes of a number that many threads write: a counter that only grows and a gauge that goes up and down.
//!
//! Guarantees:
//! - No locks.
//! - No ordering between numbers (relaxed atomics): a scrape sees each number as it was a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows while the process lives.
#[derive(Debug, Default)]
pub struct EventCounter(AtomicU64);

impl EventCounter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds several.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The current count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge: the current number of things of one kind.
#[derive(Debug, Default)]
pub struct LevelGauge(AtomicU64);

impl LevelGauge {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts one. Every `decrement` follows its own `increment`.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The current level.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
