//! The queue of interim responses on an HTTP/2 connection, and the streams that may have one.
//!
//! Guarantees:
//!
//! - Queued frames belong to open streams. A stream is open from the caller's HEADERS until h2 writes the final HEADERS
//!   or RST_STREAM, or the caller resets the stream.
//! - [`InterimStream`] names a stream that was open once. Every push checks again whether the stream is open.
//! - At most [`BYTES_MAX`] bytes wait, and at most [`OPEN_MAX`] streams are tracked.
//! - Nothing is written between a smaller SETTINGS_HEADER_TABLE_SIZE of the caller and h2's next header block, which
//!   must begin with that size (RFC 7541 section 4.2).
//!
//! Leaves to others: the positions in h2's output where a frame may stand (`proxy::downstream::h2_frame_budget`), and
//! the stream of each request (`proxy::downstream::h2_stream_number`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::HeaderName;

use super::{BYTES_MAX, InterimResponse, headers_frame};

/// The most open streams that are tracked: the streams of a connection, those that h2 has yet to refuse, and a reserve.
const OPEN_MAX: usize = 256;
/// The size of the compression table before the first SETTINGS (RFC 9113 section 6.5.2).
const TABLE_SIZE: u32 = 4096;
/// Identifiers of settings (RFC 9113 section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A setting of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerSetting {
    pub(crate) number: u16,
    pub(crate) value: u32,
}

/// The queue of one connection. Shared by the frame layer, which observes the streams, and the commands of the
/// connection.
pub(crate) struct Http2InterimQueue {
    /// In ascending order.
    open_streams: RefCell<Vec<u32>>,
    /// The highest stream number so far.
    highest_stream: Cell<u32>,
    /// Whether interim responses are disabled on this connection.
    is_disabled: Cell<bool>,
    queued: RefCell<VecDeque<QueuedFrame>>,
    /// The number of bytes of the first frame that are already written.
    partly_written: Cell<usize>,
    table: Cell<TableLimit>,
    list_max: Cell<usize>,
    /// Wakes the task of the connection, which writes the queue.
    waker: RefCell<Option<Waker>>,
}

/// A queued frame.
struct QueuedFrame {
    stream: u32,
    frame: Vec<u8>,
    /// Wakes the command that waits for the frame to be written.
    waker: Option<Waker>,
}

/// The stream of an accepted request.
pub(crate) struct InterimStream {
    streams: Rc<Http2InterimQueue>,
    number: u32,
}

impl InterimStream {
    /// Queues an interim response, if the stream is still open and the queue has room.
    pub(crate) fn push(&self, interim: &InterimResponse, is_removed: impl Fn(&HeaderName) -> bool) {
        let streams = &self.streams;
        if streams.is_open(self.number)
            && streams.table.get().is_acknowledged()
            && let Some(frame) = headers_frame::headers_frame(self.number, interim, is_removed, streams.list_max.get())
        {
            streams.enqueue(QueuedFrame { stream: self.number, frame, waker: None });
        }
    }

    /// Ready when no frame is queued for this stream.
    pub(crate) fn poll_drained(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.streams.queued.borrow_mut();
        match waiting.iter_mut().rfind(|waiting| waiting.stream == self.number) {
            Some(last) => {
                last.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Default for Http2InterimQueue {
    fn default() -> Self {
        Self {
            open_streams: RefCell::default(),
            highest_stream: Cell::default(),
            is_disabled: Cell::default(),
            queued: RefCell::default(),
            partly_written: Cell::default(),
            table: Cell::default(),
            list_max: Cell::new(usize::MAX),
            waker: RefCell::default(),
        }
    }
}

impl Http2InterimQueue {
    /// Records a HEADERS frame of the caller. Returns whether it opens a new stream, whose request must be numbered.
    pub(crate) fn note_opened(&self, stream: u32) -> bool {
        if stream <= self.highest_stream.get() || self.is_disabled.get() {
            return false;
        }
        self.highest_stream.set(stream);
        let mut open = self.open_streams.borrow_mut();
        if open.len() == OPEN_MAX {
            drop(open);
            self.disable();
            return false;
        }
        open.push(stream);
        true
    }

    /// Records that the final response has begun, or that either side has reset the stream.
    pub(crate) fn note_closed(&self, stream: u32) {
        let mut open = self.open_streams.borrow_mut();
        if let Ok(position) = open.binary_search(&stream) {
            open.remove(position);
            self.discard_queued(|waiting| waiting.stream == stream);
        }
    }

    /// Disables interim responses. Called when a head goes to h2 without its stream number: a caller could then forge
    /// the number. From then on no number is trusted.
    pub(crate) fn disable(&self) {
        self.is_disabled.set(true);
        self.open_streams.take();
        self.discard_queued(|_| true);
    }

    /// Whether stream numbers are disabled.
    pub(crate) fn is_disabled(&self) -> bool {
        self.is_disabled.get()
    }

    /// The stream of an accepted request. Each push checks whether the stream is open, because pushes are rare.
    pub(crate) fn request_stream(self: &Rc<Self>, number: u32) -> InterimStream {
        InterimStream { streams: Rc::clone(self), number }
    }

    fn is_open(&self, stream: u32) -> bool {
        self.open_streams.borrow().binary_search(&stream).is_ok()
    }

    /// Records SETTINGS of the caller that are not an acknowledgement.
    pub(crate) fn note_settings(&self) {
        let table = self.table.get();
        self.table.set(TableLimit { received: table.received + 1, ..table });
    }

    /// Applies one setting.
    pub(crate) fn apply_setting(&self, setting: PeerSetting) {
        match setting.number {
            HEADER_TABLE_SIZE => {
                self.table.set(self.table.get().resized(setting.value));
                if !self.table.get().is_acknowledged() {
                    self.discard_queued(|_| true);
                }
            }
            MAX_HEADER_LIST_SIZE => self.list_max.set(setting.value as usize),
            _ => {}
        }
    }

    /// Records that h2 has acknowledged SETTINGS.
    pub(crate) fn note_acknowledged(&self) {
        let table = self.table.get();
        self.table.set(TableLimit { acknowledged: table.acknowledged + 1, ..table });
    }

    /// Records that h2 has begun a header block.
    pub(crate) fn note_block(&self) {
        let table = self.table.get();
        if !table.is_acknowledged() {
            self.table.set(table.after_block());
        }
    }

    /// Stores the waker of the task that polls the connection.
    pub(crate) fn set_waker(&self, connection: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(connection)) {
            *known = Some(connection.clone());
        }
    }

    fn enqueue(&self, frame: QueuedFrame) {
        let mut waiting = self.queued.borrow_mut();
        let bytes: usize = waiting.iter().map(|waiting| waiting.frame.len()).sum();
        if bytes + frame.frame.len() <= BYTES_MAX {
            waiting.push_back(frame);
            self.waker.borrow().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Discards queued frames that `is_discarded` selects, except for a partly written frame.
    fn discard_queued(&self, is_discarded: impl Fn(&QueuedFrame) -> bool) {
        if self.queued.borrow().is_empty() {
            return; // nearly always
        }
        let begun = usize::from(self.partly_written.get() > 0);
        let mut position = 0;
        self.queued.borrow_mut().retain_mut(|waiting| {
            position += 1;
            let stays = position <= begun || !is_discarded(waiting);
            if !stays {
                waiting.wake();
            }
            stays
        });
    }

    /// Writes the queue with `write`, which returns the number of written bytes. With `only_begun` it writes only the
    /// rest of a partly written frame.
    pub(crate) fn poll_write<E>(
        &self,
        only_begun: bool,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        let mut waiting = self.queued.borrow_mut();
        while let Some(first) = waiting.front_mut()
            && (self.partly_written.get() > 0 || !only_begun)
        {
            let begun = self.partly_written.get();
            match write(&first.frame[begun..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())), // the connection ends; its flush reports that
                Poll::Ready(Ok(wrote)) => self.partly_written.set(begun + wrote),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if self.partly_written.get() >= first.frame.len() {
                self.partly_written.set(0);
                waiting.pop_front().into_iter().for_each(|mut written| written.wake());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl QueuedFrame {
    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// The HPACK table size of the output, as the caller limits it.
#[derive(Clone, Copy, Debug)]
struct TableLimit {
    size: u32,
    /// The number of SETTINGS received, and of those acknowledged.
    received: u64,
    acknowledged: u64,
    /// The SETTINGS that made the table smaller, until a header block has followed their acknowledgement.
    smaller_since: Option<u64>,
}

impl Default for TableLimit {
    fn default() -> Self {
        Self { size: TABLE_SIZE, received: 0, acknowledged: 0, smaller_since: None }
    }
}

impl TableLimit {
    fn resized(self, size: u32) -> Self {
        let smaller_since = if size < self.size { Some(self.received) } else { self.smaller_since };
        Self { size, smaller_since, ..self }
    }

    fn after_block(self) -> Self {
        Self { smaller_since: self.smaller_since.filter(|since| self.acknowledged < *since), ..self }
    }

    fn is_acknowledged(self) -> bool {
        self.smaller_since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::super::interim;
    use super::*;
    use crate::proxy::io::waker_queue::WakeCounter;

    /// A connection with these streams open.
    fn opened(numbers: &[u32]) -> (Rc<Http2InterimQueue>, Vec<InterimStream>) {
        let streams = Rc::new(Http2InterimQueue::default());
        assert!(numbers.iter().all(|number| streams.note_opened(*number)));
        let open = numbers.iter().map(|number| streams.request_stream(*number)).collect();
        (streams, open)
    }

    fn hint(stream: &InterimStream) {
        stream.push(&interim(103, &[("link", "</a>")]), |_| false);
    }

    /// The streams of the written frames, if the writer takes at most this number of bytes at a time.
    fn written(streams: &Http2InterimQueue, at_a_time: usize) -> Vec<u32> {
        let mut out = Vec::new();
        let done = streams.poll_write(false, |bytes: &[u8]| {
            let count = bytes.len().min(at_a_time);
            out.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok::<_, Infallible>(count))
        });
        assert!(done.is_ready());
        let one = headers_frame::headers_frame(0, &interim(103, &[("link", "</a>")]), |_| false, usize::MAX)
            .expect("a small frame")
            .len();
        assert_eq!(out.len() % one, 0, "whole frames");
        out.chunks(one).map(|frame| u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]])).collect()
    }

    fn left(stream: &InterimStream, woken: &Arc<WakeCounter>) -> bool {
        stream.poll_drained(&Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready()
    }

    #[test]
    fn each_frame_is_written_on_its_stream_and_its_command_is_woken() {
        for at_a_time in [1, 5, 4096] {
            let (streams, open) = opened(&[1, 3, 5]);
            let woken = Arc::new(WakeCounter::default());
            [&open[2], &open[0], &open[2]].into_iter().for_each(hint);
            assert!(left(&open[1], &woken) && !left(&open[2], &woken));
            assert_eq!(written(&streams, at_a_time), [5, 1, 5]);
            assert_eq!(woken.times(), 1);
            assert!(left(&open[2], &woken));
        }
    }

    #[test]
    fn answered_or_reset_stream_gets_no_interim_response() {
        let (streams, open) = opened(&[1, 3, 5]);
        let woken = Arc::new(WakeCounter::default());
        open.iter().for_each(hint);
        assert!(!left(&open[1], &woken));
        streams.note_closed(3);
        assert_eq!(woken.times(), 1, "no frame of the stream is queued");
        hint(&open[1]);
        assert!(left(&open[1], &woken) && !streams.is_open(3));
        assert_eq!(written(&streams, 4096), [1, 5]);
        assert!(!streams.note_opened(3) && !streams.note_opened(5), "trailers open no stream");
        assert!(streams.note_opened(9));
    }

    #[test]
    fn started_frame_is_completed_before_other_frames() {
        let (streams, open) = opened(&[1, 3]);
        open.iter().for_each(hint);
        let mut room = 5;
        let begun = streams.poll_write(false, |bytes: &[u8]| match std::mem::take(&mut room) {
            0 => Poll::Pending,
            some => Poll::Ready(Ok::<_, Infallible>(some.min(bytes.len()))),
        });
        assert!(begun.is_pending());
        streams.note_closed(1);
        let mut rest = 0;
        let done = streams.poll_write(true, |bytes: &[u8]| {
            rest += bytes.len();
            Poll::Ready(Ok::<_, Infallible>(bytes.len()))
        });
        assert!(done.is_ready() && rest > 0, "the rest of the first frame, and no byte of the second");
        assert_eq!(written(&streams, 4096), [3]);
    }

    #[test]
    fn smaller_header_table_is_announced_by_h2_before_a_frame_is_written() {
        let (streams, open) = opened(&[1]);
        let resize = |value: u32| {
            streams.note_settings();
            streams.apply_setting(PeerSetting { number: HEADER_TABLE_SIZE, value });
        };
        resize(65_536);
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [1], "a larger table is optional");
        hint(&open[0]);
        resize(0);
        hint(&open[0]);
        streams.note_acknowledged(); // the larger one
        streams.note_block();
        hint(&open[0]);
        streams.note_acknowledged();
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
        streams.note_block();
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [1]);
    }

    #[test]
    fn frames_over_the_list_size_or_the_queue_limit_are_omitted() {
        let (streams, open) = opened(&[1]);
        let large = InterimResponse {
            status: http::StatusCode::EARLY_HINTS,
            headers: [(http::header::LINK, "x".repeat(16_000).parse().expect("a value"))].into_iter().collect(),
        };
        (0..9).for_each(|_| open[0].push(&large, |_| false));
        let bytes: usize = streams.queued.borrow().iter().map(|waiting| waiting.frame.len()).sum();
        assert!(bytes <= BYTES_MAX && streams.queued.borrow().len() == 4, "{bytes}");
        let (streams, open) = opened(&[1]);
        streams.apply_setting(PeerSetting { number: MAX_HEADER_LIST_SIZE, value: 64 });
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
    }

    #[test]
    fn disabled_queue_and_streams_over_the_limit_get_no_interim_response() {
        let (streams, open) = opened(&[1]);
        hint(&open[0]);
        streams.disable();
        hint(&open[0]);
        assert!(!streams.note_opened(3) && !streams.is_open(1));
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
        let streams = Http2InterimQueue::default();
        let numbered = (1..).step_by(2).take(1000).filter(|stream| streams.note_opened(*stream)).count();
        assert_eq!((numbered, streams.is_disabled()), (OPEN_MAX, true));
    }
}
