//! Says something at most once a second, however often it happens, and then how often it was kept to itself.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    /// The second of the last line.
    last_logged: AtomicI64,
    suppressed: AtomicU64,
}

impl LogThrottle {
    /// Whether to tell it at this second: then how many were suppressed since the last one.
    pub(crate) fn should_log(&self, unix_seconds: i64) -> Option<u64> {
        if self.last_logged.swap(unix_seconds, Ordering::Relaxed) != unix_seconds {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_told_and_the_others_are_counted() {
        let sparing = LogThrottle::default();
        let noted: Vec<_> = [7, 7, 7, 8, 8, 10].into_iter().map(|second| sparing.should_log(second)).collect();
        assert_eq!(noted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
