//! Log rate limiting: at most one line per second for an event, with the number of lines suppressed since the last one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Limits one kind of log line to at most one per second and counts the suppressed lines.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    /// The Unix second of the last line.
    last_logged: AtomicI64,
    suppressed: AtomicU64,
}

impl LogThrottle {
    /// Whether to log at this second. If so, returns the number of lines suppressed since the last one.
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
    fn one_event_per_second_is_logged_and_the_others_are_counted() {
        let sparing = LogThrottle::default();
        let noted: Vec<_> = [7, 7, 7, 8, 8, 10].into_iter().map(|second| sparing.should_log(second)).collect();
        assert_eq!(noted, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
