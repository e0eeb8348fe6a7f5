//! The pause after a fault.
//!
//! Guarantees:
//! - Between 0.8 and 30 s, doubling, with a random part of a quarter so that gateways do not come back together.
//!
//! Leaves to others:
//! - what a fault is: the caller.

use std::time::Duration;

/// The first pause.
const PAUSE_FIRST: Duration = Duration::from_millis(800);

/// The longest pause, without its random part.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pauses that grow from fault to fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrowingPause {
    first: Duration,
    next: Duration,
}

impl Default for GrowingPause {
    fn default() -> Self {
        Self::starting_with(PAUSE_FIRST)
    }
}

impl GrowingPause {
    pub(crate) fn starting_with(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// The pause after this fault.
    pub(crate) fn after_fault(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause - pause / 4 * fastrand::u32(0..=100) / 100
    }

    /// The next fault has the first pause again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_its_maximum_and_begins_again_after_a_reset() {
        let mut pause = GrowingPause::default();
        let seconds: Vec<_> = (0..8).map(|_| pause.after_fault().as_secs_f32()).collect();
        for (found, full) in seconds.iter().zip([0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]) {
            assert!(*found <= full && *found >= full * 0.74, "{seconds:?}");
        }
        pause.reset();
        assert!(pause.after_fault() <= PAUSE_FIRST);
    }
}
