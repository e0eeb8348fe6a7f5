//! The handshakes of one worker that are under way: as many as it may carry, and for a moment twice as many. Who has had a
//! second makes room, of those first whose callers have not said hello; below that age nobody does as long as there is any room.
//!
//! Whoever does not finish its handshake would otherwise hold a place against those who would: turning the newest away
//! would let a few hundred silent connections close the door for everybody until their time is over. Turning away just the
//! oldest, a thousand that come at once would push out who has not had the time to say hello (measured: one good caller in
//! twenty thousand commands, `loadtests siege`), and as many that say hello and stall would push out each who comes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a handshake has before it makes room for others: a good one takes three round trips at most.
const GRACE: Duration = Duration::from_secs(1);
/// There are at most so many times as many as there may be, while none has had its [`GRACE`].
const CROWD: usize = 2;

/// The handshakes under way, oldest first.
pub(super) struct Handshakes {
    max: usize,
    under_way: RefCell<VecDeque<UnderWay>>,
    next: Cell<u64>,
}

struct UnderWay {
    number: u64,
    begun: Instant,
    answered: Rc<Cell<bool>>,
    /// Dropped, it gives the handshake up.
    _hold: oneshot::Sender<()>,
}

/// One handshake; it gives its place back when it is dropped.
pub(super) struct Handshake<'a> {
    all: &'a Handshakes,
    number: u64,
    given_up: oneshot::Receiver<()>,
    /// Whether its caller's hello was answered.
    pub(super) answered: Rc<Cell<bool>>,
}

impl Handshakes {
    /// Room for `max` at once.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), under_way: RefCell::default(), next: Cell::new(0) }
    }

    /// Begins one now; if there are as many as there may be, others are given up.
    pub(super) fn begin(&self, begun: Instant) -> Handshake<'_> {
        let mut under_way = self.under_way.borrow_mut();
        while let Some(position) = self.who_makes_room(&under_way, begun) {
            under_way.remove(position);
        }
        let (hold, given_up) = oneshot::channel();
        let (number, answered) = (self.next.replace(self.next.get() + 1), Rc::default());
        under_way.push_back(UnderWay { number, begun, answered: Rc::clone(&answered), _hold: hold });
        Handshake { all: self, number, given_up, answered }
    }

    /// Which of them is given up before another begins; none, if there is room.
    fn who_makes_room(&self, under_way: &VecDeque<UnderWay>, now: Instant) -> Option<usize> {
        if under_way.len() < self.max {
            return None;
        }
        let had_grace = |position: &usize| now.duration_since(under_way[*position].begun) > GRACE;
        let silent = under_way.iter().position(|handshake| !handshake.answered.get());
        let late = silent.filter(had_grace).or(Some(0).filter(had_grace));
        late.or_else(|| (under_way.len() >= CROWD * self.max).then_some(silent.unwrap_or(0)))
    }
}

impl Handshake<'_> {
    /// Waits until this one has to make room.
    pub(super) async fn given_up(&mut self) {
        let _ = (&mut self.given_up).await; // nothing is ever sent: losing the other end is the message
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut under_way = self.all.under_way.borrow_mut();
        if let Ok(position) = under_way.binary_search_by_key(&self.number, |other| other.number) {
            under_way.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(1_001);

    fn given_up(handshakes: &mut [Handshake<'_>]) -> Vec<u64> {
        let gone = |handshake: &mut Handshake<'_>| {
            handshake.given_up.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
        };
        handshakes.iter_mut().filter_map(|handshake| gone(handshake).then_some(handshake.number)).collect()
    }

    #[test]
    fn a_crowd_finds_room_for_a_second_and_then_the_oldest_makes_it() {
        let (all, now) = (Handshakes::new(2), Instant::now());
        let mut begun: Vec<_> = (0..4).map(|_| all.begin(now)).collect();
        assert!(given_up(&mut begun).is_empty(), "twice as many as there may be");
        begun.push(all.begin(now));
        assert_eq!(given_up(&mut begun), [0], "and no more");
        begun.push(all.begin(now + LATE));
        assert_eq!(given_up(&mut begun), [0, 1, 2, 3], "all that have had their second and are too many");
        begun.push(all.begin(now + LATE));
        assert_eq!(given_up(&mut begun), [0, 1, 2, 3, 4]);
        drop(begun);
        assert!(all.under_way.borrow().is_empty());
    }

    #[test]
    fn who_has_finished_needs_no_room() {
        let (all, now) = (Handshakes::new(1), Instant::now());
        drop(all.begin(now));
        let mut begun = vec![all.begin(now)];
        drop(begun.pop());
        begun.push(all.begin(now + LATE));
        assert!(given_up(&mut begun).is_empty());
    }

    #[test]
    fn who_has_said_nothing_makes_room_first() {
        let (all, now) = (Handshakes::new(2), Instant::now());
        let mut begun: Vec<_> = (0..4).map(|_| all.begin(now)).collect();
        begun[0].answered.set(true);
        begun.push(all.begin(now));
        assert_eq!(given_up(&mut begun), [1]);
        begun.push(all.begin(now + LATE));
        assert_eq!(given_up(&mut begun), [1, 2, 3, 4]);
        begun.push(all.begin(now + LATE));
        assert_eq!(
            given_up(&mut begun),
            [0, 1, 2, 3, 4],
            "one that stalls after its hello, before any that has just come"
        );
    }
}
