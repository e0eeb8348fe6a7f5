//! The places of the operator's door: whoever comes finds one, because a connection that asks for nothing gives way.
//!
//! Guarantees: at most [`CONNECTIONS`] connections, of which one address has at most [`ADDRESS_CONNECTIONS`]; at the first limit
//! the connection that has asked for nothing for the longest time is closed, at the second the one of that address. A request that
//! is being answered is never cut off. So neither silent nor slow connections keep a probe out.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections of operators and scrapers at once.
pub(super) const CONNECTIONS: usize = 64;
/// Of them, from one address: several scrapers and probes on one machine.
pub(super) const ADDRESS_CONNECTIONS: usize = 32;

/// The places that are taken, the one that has been quiet for the longest time first.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Vec<Arc<Seat>>>);

/// One connection.
#[derive(Debug)]
struct Seat {
    address: IpAddr,
    /// Whether a request of it is being answered. Written under the lock of the places.
    is_at_work: AtomicBool,
    leave: Notify,
}

/// A connection's place, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    seat: Arc<Seat>,
    places: Arc<Places>,
}

/// A request of a connection is being answered, as long as this lives.
#[derive(Debug)]
pub(super) struct Work(Arc<Place>);

impl Places {
    /// A place for a connection from this address, and whether another had to leave for it; none, if all are at work.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> (Option<Place>, bool) {
        let mut seats = self.lock();
        let of_address = |seat: &Seat| seat.address == address;
        let is_full = match seats.iter().filter(|seat| of_address(seat)).count() {
            ADDRESS_CONNECTIONS.. => !send_away(&mut seats, of_address),
            _ if seats.len() >= CONNECTIONS => !send_away(&mut seats, |_| true),
            _ => return (Some(self.seat(&mut seats, address)), false),
        };
        if is_full { (None, false) } else { (Some(self.seat(&mut seats, address)), true) }
    }

    fn seat(self: &Arc<Self>, seats: &mut Vec<Arc<Seat>>, address: IpAddr) -> Place {
        let seat = Arc::new(Seat { address, is_at_work: false.into(), leave: Notify::new() });
        seats.push(Arc::clone(&seat));
        Place { seat, places: Arc::clone(self) }
    }

    /// What is behind the lock is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the one away that has been quiet for the longest time, if there is one.
fn send_away(seats: &mut Vec<Arc<Seat>>, is_meant: impl Fn(&Seat) -> bool) -> bool {
    let Some(position) = seats.iter().position(|seat| !seat.is_at_work.load(Relaxed) && is_meant(seat)) else {
        return false;
    };
    seats.remove(position).leave.notify_one();
    true
}

impl Place {
    /// Waits until another needs the place.
    pub(super) async fn is_needed(&self) {
        self.seat.leave.notified().await;
    }

    /// A request has come.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        let _seats = self.places.lock();
        self.seat.is_at_work.store(true, Relaxed);
        Work(Arc::clone(self))
    }
}

impl Drop for Work {
    /// The connection is the last that was heard of.
    fn drop(&mut self) {
        let seat = &self.0.seat;
        let mut seats = self.0.places.lock();
        seat.is_at_work.store(false, Relaxed);
        if let Some(position) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) {
            seats[position..].rotate_left(1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|other| !Arc::ptr_eq(other, &self.seat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_sent_away(place: &Place) -> bool {
        let left = place.places.lock();
        !left.iter().any(|seat| Arc::ptr_eq(seat, &place.seat))
    }

    #[test]
    fn the_quietest_gives_way_and_who_is_at_work_does_not() {
        let places = Arc::new(Places::default());
        let take = |n: usize| Arc::new(places.take(address(u8::try_from(n % 8).expect("small"))).0.expect("a place"));
        let held: Vec<_> = (0..CONNECTIONS).map(take).collect();
        drop(held[0].work()); // it asked last
        let at_work = held[1].work();
        let (first, made_room) = places.take(address(100));
        assert!(first.is_some() && made_room && is_sent_away(&held[2]));
        assert!(!is_sent_away(&held[0]) && !is_sent_away(&held[1]));
        let working: Vec<_> = held.iter().skip(3).chain([&held[0]]).map(Place::work).collect();
        let (second, made_room) = places.take(address(101));
        assert!(second.is_some() && made_room && is_sent_away(&first.expect("a place")), "the only one not at work");
        let all = (second.map(Arc::new), at_work);
        let last = all.0.as_ref().map(Place::work);
        assert!(places.take(address(102)).0.is_none(), "all are at work");
        drop((working, last, all));
        assert!(places.take(address(102)).0.is_some());
        drop(held);
        assert!(places.lock().is_empty());
    }

    #[test]
    fn an_address_takes_the_places_of_no_other() {
        let places = Arc::new(Places::default());
        let other = places.take(address(1)).0.expect("a place");
        let mut held: Vec<_> = (0..ADDRESS_CONNECTIONS).map(|_| places.take(address(2)).0).collect();
        assert!(held.iter().all(Option::is_some) && !is_sent_away(&other));
        held.push(places.take(address(2)).0);
        assert!(!is_sent_away(&other) && is_sent_away(held[0].as_ref().expect("a place")));
        assert_eq!(places.lock().len(), ADDRESS_CONNECTIONS + 1);
    }
}
