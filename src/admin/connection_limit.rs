//! The connection limit of the admin server. A new connection evicts an idle one, so health probes are accepted.
//!
//! Guarantees:
//! - At most [`CONNECTIONS_MAX`] connections are open, at most [`ADDRESS_CONNECTIONS_MAX`] of them from one address.
//! - At the first limit, the connection that has been idle longest is closed; at the second, the longest idle one of
//!   the same address.
//! - A connection with a request in progress is never closed. Neither silent nor slow connections keep a probe out.
//!
//! Leaves to others: timeouts and the limit of requests (`server`).

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The maximum of connections of operators and scrapers.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// The maximum of connections from one address: several scrapers and probes on one machine.
pub(crate) const ADDRESS_CONNECTIONS_MAX: usize = 32;

/// The open connections, longest idle first.
#[derive(Debug, Default)]
pub(crate) struct AdminConnections(Mutex<Vec<Arc<ConnectionEntry>>>);

/// One connection.
#[derive(Debug)]
struct ConnectionEntry {
    address: IpAddr,
    /// Whether a request is in progress. Written under the lock of the list.
    is_busy: AtomicBool,
    evict: Notify,
}

/// The permit of a connection for its lifetime.
#[derive(Debug)]
pub(crate) struct AdminPermit {
    entry: Arc<ConnectionEntry>,
    connections: Arc<AdminConnections>,
}

/// Marks a connection as busy for the lifetime of a request.
#[derive(Debug)]
pub(crate) struct BusyGuard(Arc<AdminPermit>);

impl AdminConnections {
    /// A permit for a connection from this address, and whether another connection was evicted for it. No permit if all
    /// candidates are busy.
    pub(crate) fn try_acquire(self: &Arc<Self>, address: IpAddr) -> (Option<AdminPermit>, bool) {
        let mut entries = self.lock();
        let of_address = |entry: &ConnectionEntry| entry.address == address;
        let is_full = match entries.iter().filter(|entry| of_address(entry)).count() {
            ADDRESS_CONNECTIONS_MAX.. => !evict_idle(&mut entries, of_address),
            _ if entries.len() >= CONNECTIONS_MAX => !evict_idle(&mut entries, |_| true),
            _ => return (Some(self.add_connection(&mut entries, address)), false),
        };
        if is_full { (None, false) } else { (Some(self.add_connection(&mut entries, address)), true) }
    }

    fn add_connection(self: &Arc<Self>, entries: &mut Vec<Arc<ConnectionEntry>>, address: IpAddr) -> AdminPermit {
        let entry = Arc::new(ConnectionEntry { address, is_busy: false.into(), evict: Notify::new() });
        entries.push(Arc::clone(&entry));
        AdminPermit { entry, connections: Arc::clone(self) }
    }

    /// Ignores poisoning: the list is consistent between any two statements.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ConnectionEntry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the connection that has been idle longest, if any. Returns whether one was evicted.
fn evict_idle(entries: &mut Vec<Arc<ConnectionEntry>>, is_meant: impl Fn(&ConnectionEntry) -> bool) -> bool {
    let Some(position) = entries.iter().position(|entry| !entry.is_busy.load(Relaxed) && is_meant(entry)) else {
        return false;
    };
    entries.remove(position).evict.notify_one();
    true
}

impl AdminPermit {
    /// Waits until the connection is evicted.
    pub(crate) async fn wait_evicted(&self) {
        self.entry.evict.notified().await;
    }

    /// Marks the connection as busy.
    pub(crate) fn begin_request(self: &Arc<Self>) -> BusyGuard {
        let _seats = self.connections.lock();
        self.entry.is_busy.store(true, Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

impl Drop for BusyGuard {
    /// Moves the connection to the end of the list, because it is now the most recently used one.
    fn drop(&mut self) {
        let entry = &self.0.entry;
        let mut entries = self.0.connections.lock();
        entry.is_busy.store(false, Relaxed);
        if let Some(position) = entries.iter().position(|other| Arc::ptr_eq(other, entry)) {
            entries[position..].rotate_left(1);
        }
    }
}

impl Drop for AdminPermit {
    fn drop(&mut self) {
        self.connections.lock().retain(|other| !Arc::ptr_eq(other, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_evicted(permit: &AdminPermit) -> bool {
        let left = permit.connections.lock();
        !left.iter().any(|entry| Arc::ptr_eq(entry, &permit.entry))
    }

    #[test]
    fn least_recently_used_idle_connection_is_evicted_and_active_ones_are_kept() {
        let connections = Arc::new(AdminConnections::default());
        let take = |n: usize| {
            Arc::new(connections.try_acquire(address(u8::try_from(n % 8).expect("small"))).0.expect("a place"))
        };
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(take).collect();
        drop(held[0].begin_request()); // it is the most recently used one
        let at_work = held[1].begin_request();
        let (first, made_room) = connections.try_acquire(address(100));
        assert!(first.is_some() && made_room && is_evicted(&held[2]));
        assert!(!is_evicted(&held[0]) && !is_evicted(&held[1]));
        let working: Vec<_> = held.iter().skip(3).chain([&held[0]]).map(AdminPermit::begin_request).collect();
        let (second, made_room) = connections.try_acquire(address(101));
        assert!(second.is_some() && made_room && is_evicted(&first.expect("a place")), "the only idle connection");
        let all = (second.map(Arc::new), at_work);
        let last = all.0.as_ref().map(AdminPermit::begin_request);
        assert!(connections.try_acquire(address(102)).0.is_none(), "all connections are active");
        drop((working, last, all));
        assert!(connections.try_acquire(address(102)).0.is_some());
        drop(held);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn address_over_its_limit_evicts_only_its_own_connection() {
        let connections = Arc::new(AdminConnections::default());
        let other = connections.try_acquire(address(1)).0.expect("a place");
        let mut held: Vec<_> = (0..ADDRESS_CONNECTIONS_MAX).map(|_| connections.try_acquire(address(2)).0).collect();
        assert!(held.iter().all(Option::is_some) && !is_evicted(&other));
        held.push(connections.try_acquire(address(2)).0);
        assert!(!is_evicted(&other) && is_evicted(held[0].as_ref().expect("a place")));
        assert_eq!(connections.lock().len(), ADDRESS_CONNECTIONS_MAX + 1);
    }
}
