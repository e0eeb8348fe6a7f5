//! What the answers of one HTTP/2 connection hold in memory because its caller has not taken it: what was read ahead of a
//! subsystem, and what h2 was handed and has not written.
//!
//! Guarantees: together at most [`ALL_MAX`] bytes, one read more, and of each stream beyond that what h2 takes before it holds
//! back ([`SEND_BUFFER_MAX`]) and [`READ_MIN`]. Nobody waits for room that may never be made: a stream that has read ahead may
//! hand that over, and where streams that their caller has put aside hold all there is, the others go on in small pieces, one
//! after another. Leaves to [`super::departing`] whether the socket takes anything.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::waiters::{Place, Waiters};

/// Bytes of one answer that h2 takes before it asks for no more.
pub(super) const SEND_BUFFER_MAX: usize = 16 * 1024;
/// Bytes of all answers.
const ALL_MAX: usize = 256 * 1024;
/// The least that is worth a read.
const READ_MIN: usize = 4 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    bytes: Cell<usize>,
    /// Streams that may not go on before there is room, or it is their turn.
    waiting: Waiters,
}

/// One stream's share in it.
pub(super) struct Share {
    all: Rc<Untaken>,
    /// Bytes that h2 may still have when hyper asks for more: it asks while there are fewer than [`SEND_BUFFER_MAX`].
    left: usize,
    /// Those, and what was handed over since.
    handed: usize,
    /// Bytes that were read and not handed over.
    ahead: usize,
    /// While it may not go on.
    place: Place,
}

impl Untaken {
    fn room(&self) -> Option<usize> {
        ALL_MAX.checked_sub(self.bytes.get()).filter(|room| *room > 0)
    }

    /// One after another, so that each finds what the one before has left; and it is always somebody's turn.
    fn let_next_go_on(&self) {
        if self.room().is_some() || !self.waiting.is_anybody_let_through() {
            self.waiting.let_first_through();
        }
    }
}

impl Share {
    /// That of a stream for which so many bytes have been read already.
    pub(super) fn new(all: Rc<Untaken>, ahead: usize) -> Self {
        let mut share = Self { all, left: 0, handed: 0, ahead: 0, place: Place::default() };
        share.change(0, ahead);
        share
    }

    /// hyper asks for more: what was handed over has been taken, but for what h2 may keep.
    pub(super) fn taken(&mut self) {
        if self.handed > 0 {
            self.left = self.handed.min(SEND_BUFFER_MAX);
            self.change(0, self.ahead);
        }
    }

    /// Ready with how many bytes may be read, at most.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<usize> {
        let room = self.all.room();
        let may_go_on = self.all.waiting.is_let_through(&self.place) || self.ahead > 0;
        if room.is_none() && !may_go_on {
            self.all.waiting.wait(&self.place, context.waker());
            self.all.let_next_go_on(); // in its turn, behind those who are at work
            return Poll::Pending;
        }
        self.all.waiting.leave(&self.place);
        Poll::Ready(room.unwrap_or(0).max(READ_MIN))
    }

    /// What came of it: so many bytes go out, if any, and so many were read ahead.
    pub(super) fn went_on(&mut self, bytes: Option<usize>, ahead: usize) {
        self.change(bytes.map_or(self.handed, |bytes| self.left + bytes), ahead);
        self.all.let_next_go_on();
    }

    fn change(&mut self, handed: usize, ahead: usize) {
        let others = self.all.bytes.get().saturating_sub(self.handed + self.ahead);
        (self.handed, self.ahead) = (handed, ahead);
        self.all.bytes.set(others + handed + ahead);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.waiting.leave(&self.place);
        self.change(0, 0);
        self.all.let_next_go_on(); // it may have been its turn
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shares(all: &Rc<Untaken>, count: usize) -> Vec<Share> {
        std::iter::repeat_with(|| Share::new(Rc::clone(all), 0)).take(count).collect()
    }

    fn room(share: &Share, waker: &Waker) -> Poll<usize> {
        share.poll_room(&Context::from_waker(waker))
    }

    #[test]
    fn many_streams_hold_no_more_than_a_few_may() {
        let all = Rc::new(Untaken::default());
        let mut shares = shares(&all, 100);
        let mut held = 0;
        for share in &mut shares {
            let Poll::Ready(most) = room(share, Waker::noop()) else { break };
            let read = most.min(64 * 1024);
            share.went_on(Some(1024), read - 1024);
            held += read;
        }
        assert_eq!(held, ALL_MAX);
        assert!(room(&shares[99], Waker::noop()).is_pending());
        assert!(room(&shares[0], Waker::noop()).is_ready(), "it has read ahead");
        drop(shares);
        assert_eq!(all.bytes.get(), 0);
    }

    #[test]
    fn those_who_wait_go_on_one_after_another_and_nobodys_turn_is_lost() {
        let all = Rc::new(Untaken::default());
        let _aside = Share::new(Rc::clone(&all), ALL_MAX);
        let woken: Vec<Arc<Woken>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let mut waiting = shares(&all, 4);
        let ready = |share: &Share, woken: &Arc<Woken>| room(share, &Waker::from(Arc::clone(woken)));
        for (share, woken) in waiting.iter().zip(&woken) {
            assert!(ready(share, woken).is_pending());
        }
        let turns = || woken.iter().map(|woken| woken.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(turns(), [1, 0, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_pending(), "it is another's turn");
        assert_eq!(ready(&waiting[0], &woken[0]), Poll::Ready(READ_MIN));
        waiting[0].went_on(Some(READ_MIN), 0);
        assert_eq!(turns(), [1, 1, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_ready());
        waiting[1].went_on(None, 0); // nothing had come
        assert_eq!(turns(), [1, 1, 1, 0]);
        drop(waiting.remove(2));
        assert_eq!(turns(), [1, 1, 1, 1]);
        waiting[0].taken();
        assert!(ready(&waiting[0], &woken[0]).is_pending(), "again behind the others");
        assert!(ready(&waiting[2], &woken[3]).is_ready());
        waiting[2].went_on(Some(READ_MIN), 0);
        assert_eq!(turns(), [2, 1, 1, 1]);
        drop(waiting);
        assert_eq!((all.bytes.get(), all.waiting.counts()), (ALL_MAX, (0, 0)));
    }

    #[test]
    fn who_waits_gets_the_room_that_is_made() {
        let all = Rc::new(Untaken::default());
        let (mut first, second) = (Share::new(Rc::clone(&all), 0), Share::new(Rc::clone(&all), 0));
        first.went_on(Some(ALL_MAX), 0);
        assert!(room(&second, Waker::noop()).is_pending());
        first.taken();
        assert_eq!(room(&second, Waker::noop()), Poll::Ready(ALL_MAX));
    }

    #[test]
    fn what_h2_may_still_have_is_counted_again_with_the_next_piece() {
        let all = Rc::new(Untaken::default());
        let mut share = Share::new(Rc::clone(&all), 0);
        for (piece, held) in [(1000, 1000), (1000, 2000), (60_000, 62_000), (10, SEND_BUFFER_MAX + 10)] {
            share.taken();
            share.went_on(Some(piece), 0);
            assert_eq!(all.bytes.get(), held);
        }
    }
}
