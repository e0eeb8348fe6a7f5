//! Limits the concurrent TLS handshakes of one worker.
//!
//! Guarantees:
//! - At the limit, handshakes older than 1 s are evicted, first those whose `ClientHello` has not arrived.
//! - Younger handshakes are evicted only at the hard limit, which is twice the limit.
//!
//! Without eviction, clients that do not finish their handshake would hold all permits:
//! - If the newest were refused, a few hundred silent connections would block all clients until the handshake timeout.
//! - If only the oldest were evicted, a thousand connections at once would evict clients before their `ClientHello`
//!   arrives (measured: one good caller in twenty thousand commands, `loadtests siege`). A thousand clients that stall
//!   after their `ClientHello` would evict every new client.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The age from which a handshake may be evicted. A normal handshake takes at most three round trips.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);
/// The hard limit is this multiple of `max`. It applies while no handshake is older than [`EVICTABLE_AFTER`].
const OVERCOMMIT_FACTOR: usize = 2;

/// The pending handshakes, oldest first.
pub(crate) struct HandshakeLimiter {
    max: usize,
    pending: RefCell<VecDeque<PendingHandshake>>,
    next_number: Cell<u64>,
}

struct PendingHandshake {
    number: u64,
    started: Instant,
    hello_answered: Rc<Cell<bool>>,
    /// Dropping the sender evicts the handshake.
    _eviction: oneshot::Sender<()>,
}

/// One pending handshake; dropping the permit releases its place.
pub(crate) struct HandshakePermit<'a> {
    limiter: &'a HandshakeLimiter,
    number: u64,
    eviction: oneshot::Receiver<()>,
    /// Whether the gateway has answered the `ClientHello`.
    pub(crate) hello_answered: Rc<Cell<bool>>,
}

impl HandshakeLimiter {
    /// A limiter of `max` concurrent handshakes.
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), pending: RefCell::default(), next_number: Cell::new(0) }
    }

    /// Begins a handshake now. Evicts others if the limit is reached.
    pub(crate) fn acquire(&self, started: Instant) -> HandshakePermit<'_> {
        let mut pending = self.pending.borrow_mut();
        while let Some(position) = self.eviction_candidate(&pending, started) {
            pending.remove(position);
        }
        let (hold, eviction) = oneshot::channel();
        let (number, hello_answered) = (self.next_number.replace(self.next_number.get() + 1), Rc::default());
        pending.push_back(PendingHandshake {
            number,
            started,
            hello_answered: Rc::clone(&hello_answered),
            _eviction: hold,
        });
        HandshakePermit { limiter: self, number, eviction, hello_answered }
    }

    /// The position of the handshake to evict before another begins. `None` if a permit is free.
    fn eviction_candidate(&self, pending: &VecDeque<PendingHandshake>, now: Instant) -> Option<usize> {
        if pending.len() < self.max {
            return None;
        }
        let had_grace = |position: &usize| now.duration_since(pending[*position].started) > EVICTABLE_AFTER;
        let silent = pending.iter().position(|handshake| !handshake.hello_answered.get());
        let over_grace = silent.filter(had_grace).or(Some(0).filter(had_grace));
        over_grace.or_else(|| (pending.len() >= OVERCOMMIT_FACTOR * self.max).then_some(silent.unwrap_or(0)))
    }
}

impl HandshakePermit<'_> {
    /// Waits until this handshake is evicted.
    pub(crate) async fn evicted(&mut self) {
        let _ = (&mut self.eviction).await; // No value is ever sent: the closed channel is the signal.
    }
}

impl Drop for HandshakePermit<'_> {
    fn drop(&mut self) {
        let mut pending = self.limiter.pending.borrow_mut();
        if let Ok(position) = pending.binary_search_by_key(&self.number, |other| other.number) {
            pending.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(1_001);

    fn evicted(handshakes: &mut [HandshakePermit<'_>]) -> Vec<u64> {
        let gone = |handshake: &mut HandshakePermit<'_>| {
            handshake.eviction.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
        };
        handshakes.iter_mut().filter_map(|handshake| gone(handshake).then_some(handshake.number)).collect()
    }

    #[test]
    fn handshakes_older_than_one_second_are_evicted_over_the_limit() {
        let (all, now) = (HandshakeLimiter::new(2), Instant::now());
        let mut started: Vec<_> = (0..4).map(|_| all.acquire(now)).collect();
        assert!(evicted(&mut started).is_empty(), "at most twice the limit");
        started.push(all.acquire(now));
        assert_eq!(evicted(&mut started), [0], "the hard cap evicts the oldest");
        started.push(all.acquire(now + LATE));
        assert_eq!(evicted(&mut started), [0, 1, 2, 3], "all handshakes older than a second over the limit");
        started.push(all.acquire(now + LATE));
        assert_eq!(evicted(&mut started), [0, 1, 2, 3, 4]);
        drop(started);
        assert!(all.pending.borrow().is_empty());
    }

    #[test]
    fn finished_handshakes_release_their_permits() {
        let (all, now) = (HandshakeLimiter::new(1), Instant::now());
        drop(all.acquire(now));
        let mut started = vec![all.acquire(now)];
        drop(started.pop());
        started.push(all.acquire(now + LATE));
        assert!(evicted(&mut started).is_empty());
    }

    #[test]
    fn handshakes_without_a_client_hello_are_evicted_first() {
        let (all, now) = (HandshakeLimiter::new(2), Instant::now());
        let mut started: Vec<_> = (0..4).map(|_| all.acquire(now)).collect();
        started[0].hello_answered.set(true);
        started.push(all.acquire(now));
        assert_eq!(evicted(&mut started), [1]);
        started.push(all.acquire(now + LATE));
        assert_eq!(evicted(&mut started), [1, 2, 3, 4]);
        started.push(all.acquire(now + LATE));
        assert_eq!(
            evicted(&mut started),
            [0, 1, 2, 3, 4],
            "a stalled handshake with a ClientHello is evicted before a new one"
        );
    }
}
