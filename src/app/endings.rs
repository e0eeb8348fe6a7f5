//! Certificates and revocation lists that end while the gateway runs.
//!
//! Guarantees: what ends within [`WARNING_DAYS`](crate::identity::WARNING_DAYS) days, or has ended, is warned of in the log
//! once a day and at the moment of its end; the gateway is not ready while a listener lets nobody in because its
//! revocation lists have expired.
//!
//! Leaves to others: warnings at start and at each reload (whoever reads the files gives them), and the dates themselves,
//! which are on `/metrics`.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::identity::{ending_soon, next_ending};
use crate::lifecycle::NotReady;
use crate::model::Name;

use super::Organs;
use super::reload::expiries;

/// How often what ends soon is warned of.
const WARNING_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// Looks after what ends.
pub(super) struct Endings {
    organs: Organs,
    /// When to warn next.
    next: Timestamp,
    /// Keeps the gateway from being ready, for each listener that lets nobody in.
    closed: HashMap<Name, (Timestamp, NotReady)>,
}

impl Endings {
    /// Begins now; the files were read, and warned of, a moment ago.
    pub(super) fn new(organs: Organs) -> Self {
        let mut endings = Self { organs, next: Timestamp::MAX, closed: HashMap::new() };
        endings.look_at_new_files();
        endings
    }

    /// To be called once a second.
    pub(super) fn look(&mut self) {
        let now = self.organs.clock.wall();
        self.look_at_lists(now);
        if now >= self.next {
            let expiries = expiries(&self.organs);
            ending_soon(&expiries, now).iter().for_each(|warning| tracing::warn!("{warning}"));
            self.plan(now);
        }
    }

    /// To be called after each reload, which has warned of what it has read.
    pub(super) fn look_at_new_files(&mut self) {
        let now = self.organs.clock.wall();
        self.look_at_lists(now);
        self.plan(now);
    }

    fn plan(&mut self, now: Timestamp) {
        let tomorrow = now.checked_add(WARNING_EVERY).unwrap_or(Timestamp::MAX);
        self.next = next_ending(&expiries(&self.organs), now).map_or(tomorrow, |ending| ending.min(tomorrow));
    }

    fn look_at_lists(&mut self, now: Timestamp) {
        for (listener, tls) in self.organs.tls.iter() {
            let closed = tls.load().closed_since(now);
            if self.closed.get(listener).map(|(at, _)| *at) == closed {
                continue;
            }
            self.closed.remove(listener);
            let Some(at) = closed else { continue };
            tracing::error!(%listener, expired = %at, "nobody is let in: the revocation lists have expired; fetch new ones");
            let awaited = format!(
                "a current revocation list for listener {listener}: the last one expired at {at}, so nobody is let in"
            );
            self.closed.insert(listener.clone(), (at, self.organs.ready.block(awaited)));
        }
    }
}
