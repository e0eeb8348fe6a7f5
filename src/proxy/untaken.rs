//! What the answers of one HTTP/2 connection hold in memory because its caller has not taken it: what was read ahead of a
//! subsystem, and what hyper and h2 were handed and have not written.
//!
//! Guarantees: counted to the byte, and with what h2 keeps beside each piece, from the moment it is read until it is dropped,
//! also when its stream has ended; together at most [`ALL_MAX`] bytes and one read more, and of each stream beyond that what h2
//! takes before it holds back, and [`READ_MIN`]. A piece keeps alive a buffer of at most twice its read's length, and of its own
//! length when it is less than half of that (`upstream/h1/wire`). Nobody waits for room that may never be made: a stream that has read ahead may hand that over, and where
//! streams that their caller has put aside hold all there is, so that nobody makes room, the others go on in small pieces,
//! one after another. Leaves to [`super::departing`] whether the socket takes anything.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::Timer as _;
use tokio::time::Instant;

use super::alarms::CoarseTimer;
use super::waiters::{Place, Waiters};

/// Bytes of all answers.
const ALL_MAX: usize = 192 * 1024;
/// Room that is worth a read; streams wait for as much, as long as others make room.
const READ: usize = 16 * 1024;
/// What they read if nobody does.
const READ_MIN: usize = 4 * 1024;
/// Bytes that h2 and hyper keep beside a piece, whatever its length (tests/floods.rs: 64 KiB in frames of 1 KiB took 100).
const BESIDE: usize = 600;

/// See the module.
pub(super) struct Untaken {
    clock: CoarseTimer,
    bytes: Cell<usize>,
    /// How often room was made.
    taken: Cell<u64>,
    /// Streams that may not go on before there is room, or it is their turn.
    waiting: Waiters,
}

/// What one stream has handed over and its caller has not taken.
#[derive(Debug, Default)]
pub(super) struct Handed {
    bytes: Cell<usize>,
    took: Cell<Option<Instant>>,
}

/// One stream's share in it.
pub(super) struct Share {
    all: Rc<Untaken>,
    /// Of this stream.
    handed: Rc<Handed>,
    /// Bytes of the last read, as long as some of them were not handed over.
    read: usize,
    /// How often room had been made when it last asked for some in vain.
    seen: Cell<u64>,
    /// While it may not go on.
    place: Place,
}

/// A piece of an answer that is handed over; counted until it is dropped.
pub(super) struct Piece {
    bytes: Bytes,
    held: Option<Held>,
}

struct Held {
    all: Rc<Untaken>,
    own: Rc<Handed>,
    bytes: usize,
}

impl Handed {
    /// When the caller took something last, to the tick, if there is something that it has not taken.
    pub(super) fn untaken_since(&self) -> Option<Instant> {
        self.took.get().filter(|_| self.bytes.get() > 0)
    }

    /// Whether the caller has taken all.
    pub(super) fn is_nothing(&self) -> bool {
        self.bytes.get() == 0
    }

    /// The caller has taken something, or what keeps it from taking is not its own stream.
    pub(super) fn note_taken(&self, now: Instant) {
        self.took.set(Some(now));
    }
}

impl Untaken {
    /// Nothing yet, on a connection whose time is this.
    pub(super) fn new(clock: CoarseTimer) -> Self {
        Self { clock, bytes: Cell::default(), taken: Cell::default(), waiting: Waiters::default() }
    }

    fn room(&self) -> Option<usize> {
        ALL_MAX.checked_sub(self.bytes.get()).filter(|room| *room >= READ)
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.taken.set(self.taken.get().wrapping_add(u64::from(bytes > 0)));
        self.let_next_go_on();
    }

    /// One after another, so that each finds what the one before has left; and it is always somebody's turn.
    fn let_next_go_on(&self) {
        if self.room().is_some() || !self.waiting.is_anybody_let_through() {
            self.waiting.let_first_through();
        }
    }
}

impl Share {
    /// That of a stream for which so many bytes have been read already; tells in `handed` how many it has handed over.
    pub(super) fn new(all: Rc<Untaken>, handed: Rc<Handed>, ahead: usize) -> Self {
        all.add(ahead);
        Self { all, handed, read: ahead, seen: Cell::new(0), place: Place::default() }
    }

    /// Ready with how many bytes may be read, at most.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<usize> {
        let room = self.all.room();
        let has_turn = self.all.waiting.is_let_through(&self.place);
        if room.is_none() && self.read == 0 && (self.are_others_at_work() || !has_turn) {
            self.all.waiting.wait(&self.place, context.waker());
            self.all.let_next_go_on();
            return Poll::Pending;
        }
        self.all.waiting.leave(&self.place);
        Poll::Ready(room.unwrap_or(READ_MIN))
    }

    /// Whether room was made since the last look: then there will be enough.
    fn are_others_at_work(&self) -> bool {
        let taken = self.all.taken.get();
        self.seen.replace(taken) != taken
    }

    /// These bytes go out, and so many that were read with them do not yet.
    pub(super) fn hand_over(&mut self, bytes: Bytes, ahead: usize) -> Piece {
        let read = if self.read > 0 { self.read } else { bytes.len() + ahead };
        // What is only a part of its read does not keep all of that in memory.
        let bytes = if bytes.len() < read / 2 { Bytes::copy_from_slice(&bytes) } else { bytes };
        let held = Held::new(&self.all, &self.handed, bytes.len() + BESIDE);
        self.went_on(read, ahead);
        Piece { bytes, held: Some(held) }
    }

    /// Nothing goes out; so many bytes were read ahead.
    pub(super) fn came_to_nothing(&mut self, ahead: usize) {
        self.went_on(self.read.max(ahead), ahead);
    }

    fn went_on(&mut self, read: usize, ahead: usize) {
        let read = if ahead > 0 { read } else { 0 };
        let before = std::mem::replace(&mut self.read, read);
        self.all.add(read.saturating_sub(before));
        self.all.remove(before.saturating_sub(read)); // no room is made by what is only noted again
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.waiting.leave(&self.place);
        self.all.remove(self.read); // it may have been its turn
    }
}

impl Held {
    fn new(all: &Rc<Untaken>, own: &Rc<Handed>, bytes: usize) -> Self {
        all.add(bytes);
        own.bytes.set(own.bytes.get() + bytes);
        Self { all: Rc::clone(all), own: Rc::clone(own), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.own.bytes.set(self.own.bytes.get().saturating_sub(self.bytes));
        self.all.remove(self.bytes);
    }
}

impl From<Bytes> for Piece {
    /// Of a connection that has one answer at a time.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, held: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    /// Some of it is written: that much the caller has made room for.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(held) = &self.held {
            held.own.note_taken(held.all.clock.now().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::super::alarms::Alarms;
    use super::super::waiters::Woken;
    use super::*;

    fn untaken() -> Rc<Untaken> {
        Rc::new(Untaken::new(Alarms::new().coarse()))
    }

    fn share(all: &Rc<Untaken>, ahead: usize) -> Share {
        Share::new(Rc::clone(all), Rc::default(), ahead)
    }

    fn shares(all: &Rc<Untaken>, count: usize) -> Vec<Share> {
        std::iter::repeat_with(|| share(all, 0)).take(count).collect()
    }

    fn bytes(count: usize) -> Bytes {
        vec![7; count].into()
    }

    fn room(share: &Share, waker: &Waker) -> Poll<usize> {
        share.poll_room(&Context::from_waker(waker))
    }

    #[test]
    fn many_streams_hold_no_more_than_a_few_may() {
        let all = untaken();
        let (mut shares, mut pieces) = (shares(&all, 100), Vec::new());
        for share in &mut shares {
            let Poll::Ready(most) = room(share, Waker::noop()) else { break };
            let read = most.min(64 * 1024);
            pieces.push(share.hand_over(bytes(1024), read - 1024));
        }
        assert_eq!(pieces.len(), 3);
        assert_eq!(all.bytes.get(), ALL_MAX + 1024 + BESIDE, "reads, and what was copied out of them");
        assert!(room(&shares[99], Waker::noop()).is_pending());
        assert!(room(&shares[0], Waker::noop()).is_ready(), "it has read ahead");
        drop(shares);
        assert_eq!(all.bytes.get(), 3 * (1024 + BESIDE), "its streams have ended");
        drop(pieces);
        assert_eq!(all.bytes.get(), 0);
    }

    #[test]
    fn those_who_wait_go_on_one_after_another_and_nobodys_turn_is_lost() {
        let all = untaken();
        let _aside = share(&all, ALL_MAX);
        let woken: Vec<Arc<Woken>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let mut waiting = shares(&all, 4);
        let ready = |share: &Share, woken: &Arc<Woken>| room(share, &Waker::from(Arc::clone(woken)));
        for (share, woken) in waiting.iter().zip(&woken) {
            assert!(ready(share, woken).is_pending());
        }
        let turns = || woken.iter().map(|woken| woken.times()).collect::<Vec<_>>();
        assert_eq!(turns(), [1, 0, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_pending(), "it is another's turn");
        assert_eq!(ready(&waiting[0], &woken[0]), Poll::Ready(READ_MIN));
        let _piece = waiting[0].hand_over(bytes(READ_MIN), 0);
        assert_eq!(turns(), [1, 1, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_ready());
        waiting[1].came_to_nothing(0);
        assert_eq!(turns(), [1, 1, 1, 0]);
        drop(waiting.remove(2));
        assert_eq!(turns(), [1, 1, 1, 1]);
        assert!(ready(&waiting[0], &woken[0]).is_pending(), "again behind the others");
        assert!(ready(&waiting[2], &woken[3]).is_ready());
        let _another = waiting[2].hand_over(bytes(READ_MIN), 0);
        assert_eq!(turns(), [2, 1, 1, 1]);
        drop(waiting);
        assert_eq!(all.waiting.counts(), (0, 0));
    }

    #[test]
    fn who_waits_gets_the_room_that_is_made() {
        let all = untaken();
        let (mut first, second) = (share(&all, 0), share(&all, 0));
        let piece = first.hand_over(bytes(ALL_MAX), 0);
        let woken = Arc::new(Woken::default());
        assert!(room(&second, &Waker::from(Arc::clone(&woken))).is_pending());
        drop((first, piece));
        assert!(woken.times() > 0);
        assert_eq!(room(&second, Waker::noop()), Poll::Ready(ALL_MAX));
    }

    #[test]
    fn a_part_of_a_piece_that_is_written_is_taken() {
        let (all, handed) = (untaken(), Rc::new(Handed::default()));
        let mut share = Share::new(Rc::clone(&all), Rc::clone(&handed), 0);
        let mut piece = share.hand_over(bytes(100), 0);
        let long_ago = Instant::now() - std::time::Duration::from_secs(60);
        handed.note_taken(long_ago);
        assert_eq!(handed.untaken_since(), Some(long_ago));
        piece.advance(1);
        assert!(handed.untaken_since().is_some_and(|since| since > long_ago));
        drop(piece);
        assert_eq!(handed.untaken_since(), None, "nothing is left to be taken");
    }

    #[test]
    fn a_stream_knows_what_it_has_handed_over() {
        let (all, handed) = (untaken(), Rc::new(Handed::default()));
        let mut share = Share::new(Rc::clone(&all), Rc::clone(&handed), 0);
        let (one, two) = (share.hand_over(bytes(100), 50), share.hand_over(bytes(50), 0));
        assert_eq!((handed.bytes.get(), all.bytes.get()), (150 + 2 * BESIDE, 150 + 2 * BESIDE));
        drop(one);
        assert_eq!(handed.bytes.get(), 50 + BESIDE);
        drop((share, two));
        assert_eq!((handed.bytes.get(), all.bytes.get()), (0, 0));
    }
}
