//! The expiry watch: certificates and revocation lists that expire while the gateway runs.
//!
//! Guarantees:
//! - An item that expires within [`EXPIRY_WARNING_DAYS`](crate::identity::EXPIRY_WARNING_DAYS) days, or has expired, is
//!   logged once a day and at the moment of its expiry.
//! - The gateway is not ready while a listener accepts no caller because its revocation lists have expired.
//!
//! Leaves to others: warnings at start and at each reload (the code that reads the files), and the dates themselves
//! (`/metrics`).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::identity::{expiry_warnings, next_expiry};
use crate::lifecycle::ReadinessBlock;
use crate::model::Name;

use super::components::SharedComponents;
use super::reload::all_expiries;

/// The interval between two warnings of the same expiry.
const WARNING_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// The schedule of expiry warnings.
pub(crate) struct ExpiryWatch {
    components: SharedComponents,
    /// The time of the next warning.
    next_warning: Timestamp,
    /// The readiness blocks, one per listener that accepts no caller.
    closed_listeners: HashMap<Name, (Timestamp, ReadinessBlock)>,
}

/// What to do about a listener whose lists have expired.
const REVOCATION_REMEDY: &str =
    "fetch a new list from the authority and put it in the place of the old one: it is live within a second";

impl ExpiryWatch {
    /// Starts the schedule. The files have just been read, with their warnings.
    pub(crate) fn new(components: SharedComponents) -> Self {
        let mut expiry_watch = Self { components, next_warning: Timestamp::MAX, closed_listeners: HashMap::new() };
        expiry_watch.restart_schedule();
        expiry_watch
    }

    /// Checks all expiry dates. Called once a second.
    pub(crate) fn check_expiries(&mut self) {
        let now = self.components.traffic.clock.wall();
        self.check_revocation_lists(now);
        if now >= self.next_warning {
            let expiries = all_expiries(&self.components);
            expiry_warnings(&expiries, now).iter().for_each(|warning| tracing::warn!("{warning}"));
            self.schedule_warning(now);
        }
    }

    /// Restarts the schedule. Called after each reload, which has logged the warnings of its files.
    pub(crate) fn restart_schedule(&mut self) {
        let now = self.components.traffic.clock.wall();
        self.check_revocation_lists(now);
        self.schedule_warning(now);
    }

    fn schedule_warning(&mut self, now: Timestamp) {
        let tomorrow = now.checked_add(WARNING_INTERVAL).unwrap_or(Timestamp::MAX);
        self.next_warning =
            next_expiry(&all_expiries(&self.components), now).map_or(tomorrow, |ending| ending.min(tomorrow));
    }

    fn check_revocation_lists(&mut self, now: Timestamp) {
        let live = self.components.listener_tls.load();
        self.closed_listeners.retain(|listener, _| live.contains_key(listener));
        for (listener, tls) in live.iter() {
            let closed = tls.load().no_current_crl_since(now);
            if self.closed_listeners.get(listener).map(|(at, _)| *at) == closed {
                continue;
            }
            self.closed_listeners.remove(listener);
            let Some(at) = closed else { continue };
            tracing::error!(
                %listener,
                expired = %at,
                "all clients are rejected: the revocation lists have expired; fetch new ones"
            );
            let awaited = format!(
                "a current revocation list for listener {listener}: the last one expired at {at}, so all clients are \
                 rejected"
            );
            self.closed_listeners
                .insert(listener.clone(), (at, self.components.ready.block(awaited, REVOCATION_REMEDY)));
        }
    }
}
