//! When the certificates of callers end, as far as they have been seen.
//!
//! Guarantees: names are those of the configuration (the identity that a department claims), never a caller's own words; at
//! most [`CALLERS_MAX`] are remembered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::identity::ExpiringItem;
use crate::model::{CallerId, Window};

/// Callers remembered; one beyond is not shown.
const CALLERS_MAX: usize = 10_000;

/// What was seen of whom.
#[derive(Debug, Default)]
pub struct CallersSeen(Mutex<BTreeMap<CallerId, CallerExpiry>>);

/// One caller may show several certificates, one on each of its machines: the earliest end counts, until a certificate has not been
/// shown for a whole hour while others were.
#[derive(Clone, Copy, Debug)]
struct CallerExpiry {
    hour: Window,
    earliest: Timestamp,
    hour_before: Option<Timestamp>,
}

impl CallersSeen {
    /// A caller has shown a certificate that ends then.
    pub fn record(&self, caller: &CallerId, expires: Timestamp, hour: Window) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner); // whole at every moment
        let room = seen.len() < CALLERS_MAX;
        match seen.get_mut(caller) {
            Some(seen) => seen.record(expires, hour),
            None if room => {
                seen.insert(caller.clone(), CallerExpiry { hour, earliest: expires, hour_before: None });
            }
            None => {}
        }
    }

    /// What was seen of the callers that `counts` knows, as expiries of the role `caller`.
    pub fn expiries(&self, counts: impl Fn(&CallerId) -> bool) -> Vec<ExpiringItem> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().filter(|(caller, _)| counts(caller));
        known
            .map(|(caller, seen)| ExpiringItem {
                role: "caller",
                name: caller.to_string(),
                expires_at: seen.earliest_expiry(),
            })
            .collect()
    }
}

impl CallerExpiry {
    fn record(&mut self, expires: Timestamp, hour: Window) {
        if self.hour == hour {
            self.earliest = self.earliest.min(expires);
            return;
        }
        *self = Self { hour, earliest: expires, hour_before: Some(self.earliest) };
    }

    fn earliest_expiry(&self) -> Timestamp {
        self.hour_before.map_or(self.earliest, |before| before.min(self.earliest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_earliest_end_counts_until_it_is_not_seen_any_more() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let clock = Clock::manual(at("2026-11-24T04:30:00Z"));
        let (old, new) = (at("2026-12-01T00:00:00Z"), at("2027-12-01T00:00:00Z"));
        let police = CallerId::Dns("police.city.example".to_owned());
        let seen = CallersSeen::default();
        let ends = || seen.expiries(|_| true).first().map(|expiry| expiry.expires_at);
        seen.record(&police, new, clock.window());
        assert_eq!(ends(), Some(new));
        seen.record(&police, old, clock.window());
        assert_eq!(ends(), Some(old), "another machine's ends earlier");
        for expected in [old, new] {
            clock.advance(std::time::Duration::from_secs(3600));
            seen.record(&police, new, clock.window());
            assert_eq!(ends(), Some(expected));
        }
        assert!(seen.expiries(|_| false).is_empty(), "nobody claims it any more");
    }
}
