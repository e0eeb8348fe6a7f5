//! What the answers of one HTTP/2 connection hold in memory because its caller has not taken it: what was read ahead of a
//! subsystem, and what hyper and h2 were handed and have not written.
//!
//! Guarantees: counted to the byte, and with what h2 keeps beside each piece, from the moment it is read until it is dropped,
//! also when its stream has ended; together at most [`BUDGET_MAX`] bytes and one read more, and of each stream beyond that what h2
//! takes before it holds back, and [`READ_MIN`]. A piece keeps alive a buffer of at most twice its read's length, and of its own
//! length when it is less than half of that (`upstream/h1/wire`). Nobody waits for room that may never be made: a stream that has read ahead may hand that over, and where
//! streams that their caller has put aside hold all there is, so that nobody makes room, the others go on in small pieces,
//! one after another. Leaves to [`super::response_stream`] whether the socket takes anything.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::Timer as _;
use tokio::time::Instant;

use crate::proxy::io::tick_timer::CoarseTimer;
use crate::proxy::io::waker_queue::{WaiterId, WakerQueue};

/// Bytes of all answers.
const BUDGET_MAX: usize = 192 * 1024;
/// Room that is worth a read; streams wait for as much, as long as others make room.
const READ_SIZE: usize = 16 * 1024;
/// What they read if nobody does.
const READ_MIN: usize = 4 * 1024;
/// Bytes that h2 and hyper keep beside a piece, whatever its length (tests/http2/http2_abuse.rs: 64 KiB in frames of 1 KiB took 100).
const CHUNK_OVERHEAD: usize = 600;

/// See the module.
pub(crate) struct SendBudget {
    clock: CoarseTimer,
    bytes: Cell<usize>,
    /// How often room was made.
    releases: Cell<u64>,
    /// Streams that may not go on before there is room, or it is their turn.
    blocked_streams: WakerQueue,
}

/// What one stream has handed over and its caller has not taken.
#[derive(Debug, Default)]
pub(crate) struct UnsentBytes {
    bytes: Cell<usize>,
    last_sent: Cell<Option<Instant>>,
}

/// One stream's share in it.
pub(crate) struct StreamBudget {
    budget: Rc<SendBudget>,
    /// Of this stream.
    unsent: Rc<UnsentBytes>,
    /// Bytes of the last read, as long as some of them were not handed over.
    last_read: usize,
    /// How often room had been made when it last asked for some in vain.
    releases_seen: Cell<u64>,
    /// While it may not go on.
    waiter: WaiterId,
}

/// A piece of an answer that is handed over; counted until it is dropped.
pub(crate) struct CountedChunk {
    bytes: Bytes,
    charge: Option<ChunkCharge>,
}

struct ChunkCharge {
    budget: Rc<SendBudget>,
    unsent: Rc<UnsentBytes>,
    bytes: usize,
}

impl UnsentBytes {
    /// When the caller took something last, to the tick, if there is something that it has not taken.
    pub(crate) fn unsent_since(&self) -> Option<Instant> {
        self.last_sent.get().filter(|_| self.bytes.get() > 0)
    }

    /// Whether the caller has taken all.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.get() == 0
    }

    /// The caller has taken something, or what keeps it from taking is not its own stream.
    pub(crate) fn note_sent(&self, now: Instant) {
        self.last_sent.set(Some(now));
    }
}

impl SendBudget {
    /// Nothing yet, on a connection whose time is this.
    pub(crate) fn new(clock: CoarseTimer) -> Self {
        Self { clock, bytes: Cell::default(), releases: Cell::default(), blocked_streams: WakerQueue::default() }
    }

    fn available(&self) -> Option<usize> {
        BUDGET_MAX.checked_sub(self.bytes.get()).filter(|room| *room >= READ_SIZE)
    }

    fn charge(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn release(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.releases.set(self.releases.get().wrapping_add(u64::from(bytes > 0)));
        self.wake_next();
    }

    /// One after another, so that each finds what the one before has left; and it is always somebody's turn.
    fn wake_next(&self) {
        if self.available().is_some() || !self.blocked_streams.has_unused_release() {
            self.blocked_streams.release_first();
        }
    }
}

impl StreamBudget {
    /// That of a stream for which so many bytes have been read already; tells in `unsent` how many it has handed over.
    pub(crate) fn new(all: Rc<SendBudget>, unsent: Rc<UnsentBytes>, ahead: usize) -> Self {
        all.charge(ahead);
        Self { budget: all, unsent, last_read: ahead, releases_seen: Cell::new(0), waiter: WaiterId::default() }
    }

    /// Ready with how many bytes may be read, at most.
    pub(crate) fn poll_available(&self, context: &Context<'_>) -> Poll<usize> {
        let room = self.budget.available();
        let has_turn = self.budget.blocked_streams.take_release(&self.waiter);
        if room.is_none() && self.last_read == 0 && (self.has_recent_release() || !has_turn) {
            self.budget.blocked_streams.register(&self.waiter, context.waker());
            self.budget.wake_next();
            return Poll::Pending;
        }
        self.budget.blocked_streams.remove(&self.waiter);
        Poll::Ready(room.unwrap_or(READ_MIN))
    }

    /// Whether room was made since the last look: then there will be enough.
    fn has_recent_release(&self) -> bool {
        let taken = self.budget.releases.get();
        self.releases_seen.replace(taken) != taken
    }

    /// These bytes go out, and so many that were read with them do not yet.
    pub(crate) fn send_chunk(&mut self, bytes: Bytes, ahead: usize) -> CountedChunk {
        let read = if self.last_read > 0 { self.last_read } else { bytes.len() + ahead };
        // What is only a part of its read does not keep all of that in memory.
        let bytes = if bytes.len() < read / 2 { Bytes::copy_from_slice(&bytes) } else { bytes };
        let held = ChunkCharge::new(&self.budget, &self.unsent, bytes.len() + CHUNK_OVERHEAD);
        self.update_charge(read, ahead);
        CountedChunk { bytes, charge: Some(held) }
    }

    /// Nothing goes out; so many bytes were read ahead.
    pub(crate) fn release_unused(&mut self, ahead: usize) {
        self.update_charge(self.last_read.max(ahead), ahead);
    }

    fn update_charge(&mut self, read: usize, ahead: usize) {
        let read = if ahead > 0 { read } else { 0 };
        let before = std::mem::replace(&mut self.last_read, read);
        self.budget.charge(read.saturating_sub(before));
        self.budget.release(before.saturating_sub(read)); // no room is made by what is only noted again
    }
}

impl Drop for StreamBudget {
    fn drop(&mut self) {
        self.budget.blocked_streams.remove(&self.waiter);
        self.budget.release(self.last_read); // it may have been its turn
    }
}

impl ChunkCharge {
    fn new(all: &Rc<SendBudget>, own: &Rc<UnsentBytes>, bytes: usize) -> Self {
        all.charge(bytes);
        own.bytes.set(own.bytes.get() + bytes);
        Self { budget: Rc::clone(all), unsent: Rc::clone(own), bytes }
    }
}

impl Drop for ChunkCharge {
    fn drop(&mut self) {
        self.unsent.bytes.set(self.unsent.bytes.get().saturating_sub(self.bytes));
        self.budget.release(self.bytes);
    }
}

impl From<Bytes> for CountedChunk {
    /// Of a connection that has one answer at a time.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, charge: None }
    }
}

impl Buf for CountedChunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    /// Some of it is written: that much the caller has made room for.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(held) = &self.charge {
            held.unsent.note_sent(held.budget.clock.now().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::proxy::io::tick_timer::TickTimers;
    use crate::proxy::io::waker_queue::WakeCounter;

    fn untaken() -> Rc<SendBudget> {
        Rc::new(SendBudget::new(TickTimers::new().coarse_timer()))
    }

    fn share(all: &Rc<SendBudget>, ahead: usize) -> StreamBudget {
        StreamBudget::new(Rc::clone(all), Rc::default(), ahead)
    }

    fn shares(all: &Rc<SendBudget>, count: usize) -> Vec<StreamBudget> {
        std::iter::repeat_with(|| share(all, 0)).take(count).collect()
    }

    fn bytes(count: usize) -> Bytes {
        vec![7; count].into()
    }

    fn room(share: &StreamBudget, waker: &Waker) -> Poll<usize> {
        share.poll_available(&Context::from_waker(waker))
    }

    #[test]
    fn many_streams_hold_no_more_than_a_few_may() {
        let all = untaken();
        let (mut shares, mut pieces) = (shares(&all, 100), Vec::new());
        for share in &mut shares {
            let Poll::Ready(most) = room(share, Waker::noop()) else { break };
            let read = most.min(64 * 1024);
            pieces.push(share.send_chunk(bytes(1024), read - 1024));
        }
        assert_eq!(pieces.len(), 3);
        assert_eq!(all.bytes.get(), BUDGET_MAX + 1024 + CHUNK_OVERHEAD, "reads, and what was copied out of them");
        assert!(room(&shares[99], Waker::noop()).is_pending());
        assert!(room(&shares[0], Waker::noop()).is_ready(), "it has read ahead");
        drop(shares);
        assert_eq!(all.bytes.get(), 3 * (1024 + CHUNK_OVERHEAD), "its streams have ended");
        drop(pieces);
        assert_eq!(all.bytes.get(), 0);
    }

    #[test]
    fn those_who_wait_go_on_one_after_another_and_nobodys_turn_is_lost() {
        let all = untaken();
        let _aside = share(&all, BUDGET_MAX);
        let woken: Vec<Arc<WakeCounter>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let mut waiting = shares(&all, 4);
        let ready = |share: &StreamBudget, woken: &Arc<WakeCounter>| room(share, &Waker::from(Arc::clone(woken)));
        for (share, woken) in waiting.iter().zip(&woken) {
            assert!(ready(share, woken).is_pending());
        }
        let turns = || woken.iter().map(|woken| woken.times()).collect::<Vec<_>>();
        assert_eq!(turns(), [1, 0, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_pending(), "it is another's turn");
        assert_eq!(ready(&waiting[0], &woken[0]), Poll::Ready(READ_MIN));
        let _piece = waiting[0].send_chunk(bytes(READ_MIN), 0);
        assert_eq!(turns(), [1, 1, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_ready());
        waiting[1].release_unused(0);
        assert_eq!(turns(), [1, 1, 1, 0]);
        drop(waiting.remove(2));
        assert_eq!(turns(), [1, 1, 1, 1]);
        assert!(ready(&waiting[0], &woken[0]).is_pending(), "again behind the others");
        assert!(ready(&waiting[2], &woken[3]).is_ready());
        let _another = waiting[2].send_chunk(bytes(READ_MIN), 0);
        assert_eq!(turns(), [2, 1, 1, 1]);
        drop(waiting);
        assert_eq!(all.blocked_streams.counts(), (0, 0));
    }

    #[test]
    fn who_waits_gets_the_room_that_is_made() {
        let all = untaken();
        let (mut first, second) = (share(&all, 0), share(&all, 0));
        let piece = first.send_chunk(bytes(BUDGET_MAX), 0);
        let woken = Arc::new(WakeCounter::default());
        assert!(room(&second, &Waker::from(Arc::clone(&woken))).is_pending());
        drop((first, piece));
        assert!(woken.times() > 0);
        assert_eq!(room(&second, Waker::noop()), Poll::Ready(BUDGET_MAX));
    }

    #[test]
    fn a_part_of_a_piece_that_is_written_is_taken() {
        let (all, unsent) = (untaken(), Rc::new(UnsentBytes::default()));
        let mut share = StreamBudget::new(Rc::clone(&all), Rc::clone(&unsent), 0);
        let mut piece = share.send_chunk(bytes(100), 0);
        let long_ago = Instant::now() - std::time::Duration::from_secs(60);
        unsent.note_sent(long_ago);
        assert_eq!(unsent.unsent_since(), Some(long_ago));
        piece.advance(1);
        assert!(unsent.unsent_since().is_some_and(|since| since > long_ago));
        drop(piece);
        assert_eq!(unsent.unsent_since(), None, "nothing is left to be taken");
    }

    #[test]
    fn a_stream_knows_what_it_has_handed_over() {
        let (all, unsent) = (untaken(), Rc::new(UnsentBytes::default()));
        let mut share = StreamBudget::new(Rc::clone(&all), Rc::clone(&unsent), 0);
        let (one, two) = (share.send_chunk(bytes(100), 50), share.send_chunk(bytes(50), 0));
        assert_eq!((unsent.bytes.get(), all.bytes.get()), (150 + 2 * CHUNK_OVERHEAD, 150 + 2 * CHUNK_OVERHEAD));
        drop(one);
        assert_eq!(unsent.bytes.get(), 50 + CHUNK_OVERHEAD);
        drop((share, two));
        assert_eq!((unsent.bytes.get(), all.bytes.get()), (0, 0));
    }
}
