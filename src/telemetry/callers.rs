//! When the certificates of callers end, as far as they have been seen.
//!
//! Guarantees: names are those of the configuration (the identity that a department claims), never a caller's own words; at
//! most [`CALLERS_MAX`] are remembered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::identity::Expiry;
use crate::model::{CallerId, Window};

/// Callers remembered; one beyond is not shown.
const CALLERS_MAX: usize = 10_000;

/// What was seen of whom.
#[derive(Debug, Default)]
pub struct CallersSeen(Mutex<BTreeMap<CallerId, Seen>>);

/// One caller may show several certificates, one on each of its machines: the earliest end counts, until a certificate has not been
/// shown for a whole hour while others were.
#[derive(Clone, Copy, Debug)]
struct Seen {
    hour: Window,
    earliest: Timestamp,
    hour_before: Option<Timestamp>,
}

impl CallersSeen {
    /// A caller has shown a certificate that ends then.
    pub fn saw(&self, caller: &CallerId, expires: Timestamp, hour: Window) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner); // whole at every moment
        let room = seen.len() < CALLERS_MAX;
        match seen.get_mut(caller) {
            Some(seen) => seen.again(expires, hour),
            None if room => drop(seen.insert(caller.clone(), Seen { hour, earliest: expires, hour_before: None })),
            None => {}
        }
    }

    /// What was seen of the callers that `counts` knows, as expiries of the role `caller`.
    pub fn expiries(&self, counts: impl Fn(&CallerId) -> bool) -> Vec<Expiry> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().filter(|(caller, _)| counts(caller));
        known.map(|(caller, seen)| Expiry { role: "caller", name: caller.to_string(), at: seen.ends() }).collect()
    }
}

impl Seen {
    fn again(&mut self, expires: Timestamp, hour: Window) {
        if self.hour == hour {
            self.earliest = self.earliest.min(expires);
            return;
        }
        *self = Self { hour, earliest: expires, hour_before: Some(self.earliest) };
    }

    fn ends(&self) -> Timestamp {
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
        let ends = || seen.expiries(|_| true).first().map(|expiry| expiry.at);
        seen.saw(&police, new, clock.window());
        assert_eq!(ends(), Some(new));
        seen.saw(&police, old, clock.window());
        assert_eq!(ends(), Some(old), "another machine's ends earlier");
        for expected in [old, new] {
            clock.advance(std::time::Duration::from_secs(3600));
            seen.saw(&police, new, clock.window());
            assert_eq!(ends(), Some(expected));
        }
        assert!(seen.expiries(|_| false).is_empty(), "nobody claims it any more");
    }
}
