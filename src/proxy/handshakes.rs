//! The handshakes of one worker that are under way: as many as it may carry; the oldest makes room, of those whose callers have
//! not said hello before the others.
//!
//! Whoever does not finish its handshake would otherwise hold a place against those who would: turning the newest away
//! would let a few hundred silent connections close the door for everybody until their time is over. Turning away just the
//! oldest, a thousand that come at once would push out who is in the middle of its handshake.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::oneshot;

/// The handshakes under way, oldest first.
pub(super) struct Handshakes {
    max: usize,
    under_way: RefCell<VecDeque<UnderWay>>,
    next: Cell<u64>,
}

struct UnderWay {
    number: u64,
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
    /// Whether another had to make room for it.
    pub(super) made_room: bool,
}

impl Handshakes {
    /// Room for `max` at once.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), under_way: RefCell::default(), next: Cell::new(0) }
    }

    /// Begins one; if there are as many as there may be, another is given up.
    pub(super) fn begin(&self) -> Handshake<'_> {
        let mut under_way = self.under_way.borrow_mut();
        let made_room = under_way.len() >= self.max;
        if made_room {
            let silent = under_way.iter().position(|other| !other.answered.get());
            under_way.remove(silent.unwrap_or(0));
        }
        let (hold, given_up) = oneshot::channel();
        let (number, answered) = (self.next.replace(self.next.get() + 1), Rc::default());
        under_way.push_back(UnderWay { number, answered: Rc::clone(&answered), _hold: hold });
        Handshake { all: self, number, given_up, answered, made_room }
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

    #[tokio::test]
    async fn the_oldest_makes_room_for_the_newest() {
        let all = Handshakes::new(2);
        let mut one = all.begin();
        let mut two = all.begin();
        assert!(!one.made_room && !two.made_room);
        let three = all.begin();
        assert!(three.made_room);
        one.given_up().await;
        drop(one);
        drop(three);
        let four = all.begin();
        assert!(!four.made_room, "whoever has finished needs no room");
        let five = all.begin();
        assert!(five.made_room);
        two.given_up().await;
        drop((two, four, five));
        assert!(all.under_way.borrow().is_empty());
    }

    #[tokio::test]
    async fn who_has_said_nothing_makes_room_first() {
        let all = Handshakes::new(2);
        let one = all.begin();
        one.answered.set(true);
        let mut two = all.begin();
        let mut three = all.begin();
        two.given_up().await;
        three.answered.set(true);
        drop(all.begin());
        assert!(three.given_up.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        drop((one, two, three));
        assert!(all.under_way.borrow().is_empty());
    }
}
