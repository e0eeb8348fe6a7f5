//! Certificates and revocation lists that end while the gateway runs.
//!
//! Guarantees: what ends within [`EXPIRY_WARNING_DAYS`](crate::identity::WARNING_DAYS) days, or has ended, is warned of in the log
//! once a day and at the moment of its end; the gateway is not ready while a listener lets nobody in because its
//! revocation lists have expired.
//!
//! Leaves to others: warnings at start and at each reload (whoever reads the files gives them), and the dates themselves,
//! which are on `/metrics`.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::identity::{expiry_warnings, next_expiry};
use crate::lifecycle::ReadinessBlock;
use crate::model::Name;

use super::components::SharedComponents;
use super::reload::all_expiries;

/// How often what ends soon is warned of.
const WARNING_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Looks after what ends.
pub(crate) struct ExpiryWatch {
    components: SharedComponents,
    /// When to warn next.
    next_warning: Timestamp,
    /// Keeps the gateway from being ready, for each listener that lets nobody in.
    closed_listeners: HashMap<Name, (Timestamp, ReadinessBlock)>,
}

impl ExpiryWatch {
    /// Begins now; the files were read, and warned of, a moment ago.
    pub(crate) fn new(components: SharedComponents) -> Self {
        let mut expiry_watch = Self { components, next_warning: Timestamp::MAX, closed_listeners: HashMap::new() };
        expiry_watch.restart_schedule();
        expiry_watch
    }

    /// To be called once a second.
    pub(crate) fn check_expiries(&mut self) {
        let now = self.components.clock.wall();
        self.check_revocation_lists(now);
        if now >= self.next_warning {
            let expiries = all_expiries(&self.components);
            expiry_warnings(&expiries, now).iter().for_each(|warning| tracing::warn!("{warning}"));
            self.schedule_warning(now);
        }
    }

    /// To be called after each reload, which has warned of what it has read.
    pub(crate) fn restart_schedule(&mut self) {
        let now = self.components.clock.wall();
        self.check_revocation_lists(now);
        self.schedule_warning(now);
    }

    fn schedule_warning(&mut self, now: Timestamp) {
        let tomorrow = now.checked_add(WARNING_INTERVAL).unwrap_or(Timestamp::MAX);
        self.next_warning =
            next_expiry(&all_expiries(&self.components), now).map_or(tomorrow, |ending| ending.min(tomorrow));
    }

    fn check_revocation_lists(&mut self, now: Timestamp) {
        for (listener, tls) in self.components.listener_tls.iter() {
            let closed = tls.load().no_current_crl_since(now);
            if self.closed_listeners.get(listener).map(|(at, _)| *at) == closed {
                continue;
            }
            self.closed_listeners.remove(listener);
            let Some(at) = closed else { continue };
            tracing::error!(%listener, expired = %at, "nobody is let in: the revocation lists have expired; fetch new ones");
            let awaited = format!(
                "a current revocation list for listener {listener}: the last one expired at {at}, so nobody is let in"
            );
            self.closed_listeners.insert(listener.clone(), (at, self.components.ready.block(awaited)));
        }
    }
}
