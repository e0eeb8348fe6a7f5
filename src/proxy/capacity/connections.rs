//! Limits the open connections per listener, per department and per address.
//!
//! Guarantees:
//! - The count is exact over all threads.
//! - A connection releases its permits when it ends, however it ends.
//! - A scope without connections takes no memory. So the map has at most one entry per open permit.
//! - A connection above a limit is counted as a limit hit.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::model::counted_address;
use crate::telemetry::{LimitHit, Telemetry};

/// What a connection limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LimitScope {
    /// A listener, by the number of its name, which stays the same across reloads.
    Listener(u32),
    /// A department, by its number.
    Department(u32),
    /// An address. For IPv6 the first 64 bits, because a client with one address of a /64 network has all of them.
    Address(IpAddr),
}

/// The open connections of all scopes. The hasher is the standard one (resistant to collisions), because callers choose
/// their addresses.
#[derive(Debug)]
pub struct ConnectionLimits {
    open_connections: DashMap<LimitScope, usize>,
    telemetry: Arc<Telemetry>,
}

/// One open connection of one scope; dropping the permit releases it.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    scope: LimitScope,
}

impl ConnectionLimits {
    /// No connections yet. Rejected connections are counted in `telemetry`.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { open_connections: DashMap::new(), telemetry }
    }

    /// Counts one more connection of a scope. `None` if the scope has reached `max`.
    pub(crate) fn try_acquire(self: &Arc<Self>, holder: LimitScope, max: usize) -> Option<ConnectionPermit> {
        {
            let mut held = self.open_connections.entry(holder).or_default();
            if *held >= max {
                self.telemetry.count_limit_hit(holder.limit_hit());
                return None;
            }
            *held += 1;
        }
        Some(ConnectionPermit { limits: Arc::clone(self), scope: holder })
    }
}

impl LimitScope {
    /// The scope of an address.
    pub(crate) fn for_address(address: IpAddr) -> Self {
        Self::Address(counted_address(address))
    }

    fn limit_hit(self) -> LimitHit {
        match self {
            Self::Listener(_) => LimitHit::ListenerConnections,
            Self::Department(_) => LimitHit::DepartmentConnections,
            Self::Address(_) => LimitHit::AddressConnections,
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Entry::Occupied(mut held) = self.limits.open_connections.entry(self.scope) else { return };
        match held.get() {
            0 | 1 => drop(held.remove()),
            _ => *held.get_mut() -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_has_at_most_its_limit_of_permits_and_returns_them() {
        let telemetry = Telemetry::new();
        let limits = Arc::new(ConnectionLimits::new(Arc::clone(&telemetry)));
        let police = LimitScope::Department(1);
        let (one, two) = (limits.try_acquire(police, 2), limits.try_acquire(police, 2));
        assert!(one.is_some() && two.is_some());
        assert!(limits.try_acquire(police, 2).is_none());
        assert!(limits.try_acquire(LimitScope::Department(2), 2).is_some(), "limits are separate for each holder");
        assert_eq!(telemetry.limit_hit_count(LimitHit::DepartmentConnections), 1);
        drop(one);
        assert!(limits.try_acquire(police, 2).is_some());
        drop(two);
        assert!(limits.open_connections.is_empty(), "holders without permits are removed");
        assert!(limits.try_acquire(police, 0).is_none());
    }

    #[test]
    fn concurrent_threads_acquire_at_most_the_limit() {
        let limits = Arc::new(ConnectionLimits::new(Telemetry::new()));
        let takers = (0..4).map(|_| {
            let limits = Arc::clone(&limits);
            std::thread::spawn(move || {
                (0..100).filter_map(|_| limits.try_acquire(LimitScope::Listener(0), 250)).collect::<Vec<_>>()
            })
        });
        let takers: Vec<_> = takers.collect();
        let taken: Vec<ConnectionPermit> =
            takers.into_iter().flat_map(|taker| taker.join().expect("no panic")).collect();
        assert_eq!(taken.len(), 250);
    }

    #[test]
    fn ipv6_addresses_are_limited_per_64_bit_network() {
        let of = |text: &str| LimitScope::for_address(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
