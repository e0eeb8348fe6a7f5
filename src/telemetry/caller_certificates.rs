//! Expiry of the client certificates that callers have presented.
//!
//! Guarantees:
//! - Names are those of the configuration (the identity that a department claims), never text supplied by a caller.
//! - At most [`CALLERS_MAX`] callers are remembered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::identity::ExpiringItem;
use crate::model::{CallerId, Window};

/// The maximum number of remembered callers. Callers beyond it are not shown.
const CALLERS_MAX: usize = 10_000;

/// The callers seen, each with the expiry of its certificates.
#[derive(Debug, Default)]
pub struct CallersSeen(Mutex<BTreeMap<CallerId, CallerExpiry>>);

/// The expiry of one caller's certificates. A caller may present several certificates, one on each of its machines. The
/// earliest expiry counts until its certificate has not been presented for a whole hour in which others were.
#[derive(Clone, Copy, Debug)]
struct CallerExpiry {
    hour: Window,
    earliest: Timestamp,
    hour_before: Option<Timestamp>,
}

impl CallersSeen {
    /// Records that a caller presented a certificate that expires at `expires`.
    pub fn record(&self, caller: &CallerId, expires: Timestamp, hour: Window) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner); // the map is consistent at every moment
        let room = seen.len() < CALLERS_MAX;
        match seen.get_mut(caller) {
            Some(seen) => seen.record(expires, hour),
            None if room => {
                seen.insert(caller.clone(), CallerExpiry { hour, earliest: expires, hour_before: None });
            }
            None => {}
        }
    }

    /// The callers for which `counts` returns true, as expiries of the role `caller`.
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
    fn earliest_expiry_counts_until_its_certificate_is_no_longer_seen() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let clock = Clock::manual(at("2026-11-24T04:30:00Z"));
        let (old, new) = (at("2026-12-01T00:00:00Z"), at("2027-12-01T00:00:00Z"));
        let police = CallerId::Dns("police.city.example".to_owned());
        let seen = CallersSeen::default();
        let ends = || seen.expiries(|_| true).first().map(|expiry| expiry.expires_at);
        seen.record(&police, new, clock.window());
        assert_eq!(ends(), Some(new));
        seen.record(&police, old, clock.window());
        assert_eq!(ends(), Some(old), "the certificate of another machine expires earlier");
        for expected in [old, new] {
            clock.advance(std::time::Duration::from_secs(3600));
            seen.record(&police, new, clock.window());
            assert_eq!(ends(), Some(expected));
        }
        assert!(seen.expiries(|_| false).is_empty(), "the identity is no longer claimed");
    }
}
