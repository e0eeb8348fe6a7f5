//! How long a gateway that will stop still accepts connections: it leaves by watching new connections.
//!
//! Guarantees:
//! - The phase ends when no new connection has come for the quiet time, which begins again with each connection.
//! - It ends at the latest after the delay. Without a quiet time it lasts for the whole delay.
//!
//! Leaves to others: counting connections, and the wait itself (`app`).

use std::time::Duration;

use tokio::time::Instant;

/// The phase between the announcement of a stop and the drain.
#[derive(Debug)]
pub struct AcceptingPhase {
    deadline: Instant,
    quiet: Option<Duration>,
    /// The number of accepted connections, and since when it is the same.
    accepted: u64,
    unchanged_since: Instant,
}

/// Why the phase is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptingEnd {
    /// No new connection has come for the quiet time.
    Quiet,
    /// The delay is over.
    Delay,
}

impl AcceptingPhase {
    /// A phase that begins `now`, when `accepted` connections have been accepted since the start of the process.
    pub fn begin(now: Instant, (delay, quiet): (Duration, Option<Duration>), accepted: u64) -> Self {
        Self { deadline: now + delay, quiet, accepted, unchanged_since: now }
    }

    /// Whether the phase is over, with the number of connections accepted until `now`.
    pub fn end(&mut self, now: Instant, accepted: u64) -> Option<AcceptingEnd> {
        if self.accepted != accepted {
            (self.accepted, self.unchanged_since) = (accepted, now);
        }
        if self.quiet.is_some_and(|quiet| now.duration_since(self.unchanged_since) >= quiet) {
            return Some(AcceptingEnd::Quiet);
        }
        (now >= self.deadline).then_some(AcceptingEnd::Delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a phase of at most 5 s, with a quiet time of 2 s, and its time in tenths of a second. Connections
    /// come at these tenths.
    fn ended(quiet: Option<u64>, connections: &[u64]) -> (AcceptingEnd, u64) {
        let start = Instant::now();
        let limits = (Duration::from_secs(5), quiet.map(Duration::from_secs));
        let mut phase = AcceptingPhase::begin(start, limits, 7);
        let end = (0..).find_map(|tenth| {
            let accepted = 7 + connections.iter().filter(|came| **came <= tenth).count() as u64;
            Some((phase.end(start + Duration::from_millis(tenth * 100), accepted)?, tenth))
        });
        end.expect("an end")
    }

    #[test]
    fn phase_ends_when_no_connection_has_come_for_the_quiet_time() {
        assert_eq!(ended(Some(2), &[]), (AcceptingEnd::Quiet, 20), "never before the quiet time");
        assert_eq!(ended(Some(2), &[3, 10]), (AcceptingEnd::Quiet, 30), "each connection begins it again");
        assert_eq!(ended(Some(2), &[10, 25, 40]), (AcceptingEnd::Delay, 50), "at the latest after the delay");
        assert_eq!(ended(None, &[]), (AcceptingEnd::Delay, 50), "without a quiet time the whole delay");
    }
}
