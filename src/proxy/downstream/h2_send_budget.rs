//! The send budget of one HTTP/2 connection (send-side backpressure).
//!
//! It bounds the response bytes that the caller has not read. They are bytes read ahead from a subsystem, and bytes in
//! hyper and h2 that are not written yet.
//!
//! Guarantees:
//! - The count is exact, and includes the overhead of h2 per chunk ([`CHUNK_OVERHEAD`]). A byte counts from its read
//!   until its buffer is dropped, also after the end of its stream.
//! - Bound = [`BUDGET_MAX`] + one read + streams * (the send buffer of h2 per stream + [`READ_MIN`]).
//! - A chunk keeps a buffer of at most twice the length of its read. A chunk of less than half of that is copied, and
//!   keeps only its own length (`upstream/h1/connection`).
//! - No deadlock: a stream that has read ahead may always send those bytes. If stalled streams hold the whole budget,
//!   the other streams take turns and read [`READ_MIN`] bytes each.
//!
//! Leaves to [`super::response_stream`]: whether the socket is writable.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::Timer as _;
use tokio::time::Instant;

use crate::proxy::io::tick_timer::CoarseTimer;
use crate::proxy::io::waker_queue::{WaiterId, WakerQueue};

/// The budget of all responses of a connection, in bytes.
const BUDGET_MAX: usize = 192 * 1024;
/// The smallest free budget that is worth a read. Streams wait for this size while other streams release bytes.
const READ_SIZE: usize = 16 * 1024;
/// The read size if no stream releases bytes.
const READ_MIN: usize = 4 * 1024;
/// Bytes that h2 and hyper keep per chunk, whatever its length (tests/http2/http2_abuse.rs: 64 KiB in frames of 1 KiB
/// took 100).
const CHUNK_OVERHEAD: usize = 600;

/// The send budget of one HTTP/2 connection.
pub(crate) struct SendBudget {
    clock: CoarseTimer,
    bytes: Cell<usize>,
    /// The number of releases so far.
    releases: Cell<u64>,
    /// Streams that wait for free budget, or for their turn.
    blocked_streams: WakerQueue,
}

/// The bytes that one stream has passed to hyper and its caller has not read.
#[derive(Debug, Default)]
pub(crate) struct UnsentBytes {
    bytes: Cell<usize>,
    last_sent: Cell<Option<Instant>>,
}

/// The share of one stream in the connection's send budget.
pub(crate) struct StreamBudget {
    budget: Rc<SendBudget>,
    /// The unsent bytes of this stream.
    unsent: Rc<UnsentBytes>,
    /// The size of the last read, while a part of it has not been sent.
    last_read: usize,
    /// The value of `releases` when the stream last found no budget.
    releases_seen: Cell<u64>,
    /// The place in the queue while the stream waits.
    waiter: WaiterId,
}

/// A chunk of a response body; its bytes are counted until it is dropped.
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
    /// When the caller last read something of this stream, to the tick. `None` if nothing is unsent.
    pub(crate) fn unsent_since(&self) -> Option<Instant> {
        self.last_sent.get().filter(|_| self.bytes.get() > 0)
    }

    /// Whether the caller has read everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.get() == 0
    }

    /// Notes progress: the caller has read something, or another stream is what blocks this one.
    pub(crate) fn note_sent(&self, now: Instant) {
        self.last_sent.set(Some(now));
    }
}

impl SendBudget {
    /// An empty budget that uses the connection's clock.
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

    /// Wakes one waiting stream at a time, so that each sees the budget that the previous one left. While streams wait,
    /// one of them always has the turn.
    fn wake_next(&self) {
        if self.available().is_some() || !self.blocked_streams.has_unused_release() {
            self.blocked_streams.release_first();
        }
    }
}

impl StreamBudget {
    /// The share of a stream that has already read `ahead` bytes. Counts the bytes it sends in `unsent`.
    pub(crate) fn new(all: Rc<SendBudget>, unsent: Rc<UnsentBytes>, ahead: usize) -> Self {
        all.charge(ahead);
        Self { budget: all, unsent, last_read: ahead, releases_seen: Cell::new(0), waiter: WaiterId::default() }
    }

    /// Ready with the maximum number of bytes that the stream may read.
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

    /// Whether budget was released since the last check. If so, more will follow, and the stream waits for it.
    fn has_recent_release(&self) -> bool {
        let taken = self.budget.releases.get();
        self.releases_seen.replace(taken) != taken
    }

    /// Sends these bytes; `ahead` bytes of the same read remain unsent.
    pub(crate) fn send_chunk(&mut self, bytes: Bytes, ahead: usize) -> CountedChunk {
        let read = if self.last_read > 0 { self.last_read } else { bytes.len() + ahead };
        // A small part of a read is copied, so that it does not keep the whole read in memory.
        let bytes = if bytes.len() < read / 2 { Bytes::copy_from_slice(&bytes) } else { bytes };
        let held = ChunkCharge::new(&self.budget, &self.unsent, bytes.len() + CHUNK_OVERHEAD);
        self.update_charge(read, ahead);
        CountedChunk { bytes, charge: Some(held) }
    }

    /// Nothing is sent; `ahead` bytes have been read ahead.
    pub(crate) fn release_unused(&mut self, ahead: usize) {
        self.update_charge(self.last_read.max(ahead), ahead);
    }

    fn update_charge(&mut self, read: usize, ahead: usize) {
        let read = if ahead > 0 { read } else { 0 };
        let before = std::mem::replace(&mut self.last_read, read);
        self.budget.charge(read.saturating_sub(before));
        self.budget.release(before.saturating_sub(read)); // A charge that is only renewed releases nothing.
    }
}

impl Drop for StreamBudget {
    fn drop(&mut self) {
        self.budget.blocked_streams.remove(&self.waiter);
        self.budget.release(self.last_read); // Also passes the turn on if this stream had it.
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
    /// For a connection with one response at a time: nothing is counted.
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

    /// hyper has written a part of the chunk: the caller has made room for it.
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

    fn empty_budget() -> Rc<SendBudget> {
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
    fn many_streams_hold_at_most_the_shared_budget() {
        let all = empty_budget();
        let (mut shares, mut pieces) = (shares(&all, 100), Vec::new());
        for share in &mut shares {
            let Poll::Ready(most) = room(share, Waker::noop()) else { break };
            let read = most.min(64 * 1024);
            pieces.push(share.send_chunk(bytes(1024), read - 1024));
        }
        assert_eq!(pieces.len(), 3);
        assert_eq!(all.bytes.get(), BUDGET_MAX + 1024 + CHUNK_OVERHEAD, "reads, and the bytes copied from them");
        assert!(room(&shares[99], Waker::noop()).is_pending());
        assert!(room(&shares[0], Waker::noop()).is_ready(), "the stream has read ahead");
        drop(shares);
        assert_eq!(all.bytes.get(), 3 * (1024 + CHUNK_OVERHEAD), "the streams have ended");
        drop(pieces);
        assert_eq!(all.bytes.get(), 0);
    }

    #[test]
    fn waiting_streams_are_woken_in_fifo_order_and_no_wakeup_is_lost() {
        let all = empty_budget();
        let _aside = share(&all, BUDGET_MAX);
        let woken: Vec<Arc<WakeCounter>> = std::iter::repeat_with(Arc::default).take(4).collect();
        let mut waiting = shares(&all, 4);
        let ready = |share: &StreamBudget, woken: &Arc<WakeCounter>| room(share, &Waker::from(Arc::clone(woken)));
        for (share, woken) in waiting.iter().zip(&woken) {
            assert!(ready(share, woken).is_pending());
        }
        let turns = || woken.iter().map(|woken| woken.times()).collect::<Vec<_>>();
        assert_eq!(turns(), [1, 0, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_pending(), "another stream is first");
        assert_eq!(ready(&waiting[0], &woken[0]), Poll::Ready(READ_MIN));
        let _piece = waiting[0].send_chunk(bytes(READ_MIN), 0);
        assert_eq!(turns(), [1, 1, 0, 0]);
        assert!(ready(&waiting[1], &woken[1]).is_ready());
        waiting[1].release_unused(0);
        assert_eq!(turns(), [1, 1, 1, 0]);
        drop(waiting.remove(2));
        assert_eq!(turns(), [1, 1, 1, 1]);
        assert!(ready(&waiting[0], &woken[0]).is_pending(), "the stream is last in the queue");
        assert!(ready(&waiting[2], &woken[3]).is_ready());
        let _another = waiting[2].send_chunk(bytes(READ_MIN), 0);
        assert_eq!(turns(), [2, 1, 1, 1]);
        drop(waiting);
        assert_eq!(all.blocked_streams.counts(), (0, 0));
    }

    #[test]
    fn waiting_stream_gets_released_budget() {
        let all = empty_budget();
        let (mut first, second) = (share(&all, 0), share(&all, 0));
        let piece = first.send_chunk(bytes(BUDGET_MAX), 0);
        let woken = Arc::new(WakeCounter::default());
        assert!(room(&second, &Waker::from(Arc::clone(&woken))).is_pending());
        drop((first, piece));
        assert!(woken.times() > 0);
        assert_eq!(room(&second, Waker::noop()), Poll::Ready(BUDGET_MAX));
    }

    #[test]
    fn partial_write_of_a_chunk_counts_as_sent() {
        let (all, unsent) = (empty_budget(), Rc::new(UnsentBytes::default()));
        let mut share = StreamBudget::new(Rc::clone(&all), Rc::clone(&unsent), 0);
        let mut piece = share.send_chunk(bytes(100), 0);
        let long_ago = Instant::now() - std::time::Duration::from_secs(60);
        unsent.note_sent(long_ago);
        assert_eq!(unsent.unsent_since(), Some(long_ago));
        piece.advance(1);
        assert!(unsent.unsent_since().is_some_and(|since| since > long_ago));
        drop(piece);
        assert_eq!(unsent.unsent_since(), None, "no bytes are unsent");
    }

    #[test]
    fn stream_accounts_for_the_chunks_it_has_handed_over() {
        let (all, unsent) = (empty_budget(), Rc::new(UnsentBytes::default()));
        let mut share = StreamBudget::new(Rc::clone(&all), Rc::clone(&unsent), 0);
        let (one, two) = (share.send_chunk(bytes(100), 50), share.send_chunk(bytes(50), 0));
        assert_eq!((unsent.bytes.get(), all.bytes.get()), (150 + 2 * CHUNK_OVERHEAD, 150 + 2 * CHUNK_OVERHEAD));
        drop(one);
        assert_eq!(unsent.bytes.get(), 50 + CHUNK_OVERHEAD);
        drop((share, two));
        assert_eq!((unsent.bytes.get(), all.bytes.get()), (0, 0));
    }
}
