//! Interim answers on their way to a caller over HTTP/2: which streams may have one, and what waits to be written.
//!
//! Guarantees: what waits is for an open stream: one that the caller has opened, of which h2 has written neither the
//! final HEADERS nor RST_STREAM, and that the caller has not reset. [`OpenStream`] names a stream that was open once;
//! whatever it pushes is looked at again. At most [`BYTES_MAX`] bytes wait, and at most [`OPEN_MAX`] streams are known.
//! Nothing is written between a smaller SETTINGS_HEADER_TABLE_SIZE of the caller and the next block of h2, which has to
//! begin with that size (RFC 7541 section 4.2). Leaves to [`crate::proxy::frames`] where in h2's bytes a frame may
//! stand, and to [`crate::proxy::numbers`] which stream a request has.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::HeaderName;

use super::{BYTES_MAX, Interim, block};

/// Open streams that are known: those of a connection, those that h2 has yet to refuse, and some.
const OPEN_MAX: usize = 256;
/// The size of the compression table before the first SETTINGS (RFC 9113 section 6.5.2).
const TABLE_SIZE: u32 = 4096;
/// Numbers of settings (RFC 9113 section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A setting of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Setting {
    pub(in crate::proxy) number: u16,
    pub(in crate::proxy) value: u32,
}

/// See the module. Shared by the frames, which see streams come and go, and the commands of the connection.
pub(in crate::proxy) struct InterimStreams {
    /// In their order.
    open: RefCell<VecDeque<u32>>,
    /// The highest number of a stream so far.
    last: Cell<u32>,
    /// Whether the connection has no interim answers any more.
    is_off: Cell<bool>,
    waiting: RefCell<VecDeque<Waiting>>,
    /// Bytes of the first frame that waits, as far as they are written.
    begun: Cell<usize>,
    table: Cell<Table>,
    list_max: Cell<usize>,
    /// Polls the connection, which writes what waits.
    connection: RefCell<Option<Waker>>,
}

/// A frame that waits.
struct Waiting {
    stream: u32,
    frame: Vec<u8>,
    /// Whoever waits until it is written.
    command: Option<Waker>,
}

/// A stream that was open when its request was taken up.
pub(in crate::proxy) struct OpenStream {
    streams: Rc<InterimStreams>,
    number: u32,
}

impl OpenStream {
    /// Passes an interim answer on, if there is room and the stream is still open.
    pub(super) fn push(&self, interim: &Interim, goes: impl Fn(&HeaderName) -> bool) {
        let streams = &self.streams;
        if streams.is_open(self.number)
            && streams.table.get().is_in_step()
            && let Some(frame) = block::frame(self.number, interim, goes, streams.list_max.get())
        {
            streams.enqueue(Waiting { stream: self.number, frame, command: None });
        }
    }

    /// Ready when nothing waits for this stream.
    pub(super) fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.streams.waiting.borrow_mut();
        match waiting.iter_mut().rfind(|waiting| waiting.stream == self.number) {
            Some(last) => {
                last.command = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Default for InterimStreams {
    fn default() -> Self {
        Self {
            open: RefCell::default(),
            last: Cell::default(),
            is_off: Cell::default(),
            waiting: RefCell::default(),
            begun: Cell::default(),
            table: Cell::default(),
            list_max: Cell::new(usize::MAX),
            connection: RefCell::default(),
        }
    }
}

impl InterimStreams {
    /// The caller sends the head of a message on a stream. Whether the stream is new, and its request is to be
    /// numbered.
    pub(in crate::proxy) fn came(&self, stream: u32) -> bool {
        if stream <= self.last.get() || self.is_off.get() {
            return false;
        }
        self.last.set(stream);
        let mut open = self.open.borrow_mut();
        if open.len() == OPEN_MAX {
            drop(open);
            self.switch_off();
            return false;
        }
        open.push_back(stream);
        true
    }

    /// The stream is answered or reset, by either side.
    pub(in crate::proxy) fn closed(&self, stream: u32) {
        let mut open = self.open.borrow_mut();
        if let Ok(position) = open.binary_search(&stream) {
            open.remove(position);
            self.forget(|waiting| waiting.stream == stream);
        }
    }

    /// A head goes to h2 without its number: whatever its caller wrote in the number's place would be believed. So
    /// nothing is believed from now on, and no stream has interim answers.
    pub(in crate::proxy) fn switch_off(&self) {
        self.is_off.set(true);
        self.open.take();
        self.forget(|_| true);
    }

    /// Whether requests have no numbers any more.
    pub(in crate::proxy) fn is_off(&self) -> bool {
        self.is_off.get()
    }

    /// The stream of a request that is taken up, if it is open.
    pub(in crate::proxy) fn stream(self: &Rc<Self>, number: u32) -> Option<OpenStream> {
        self.is_open(number).then(|| OpenStream { streams: Rc::clone(self), number })
    }

    fn is_open(&self, stream: u32) -> bool {
        self.open.borrow().binary_search(&stream).is_ok()
    }

    /// The caller sends SETTINGS, which are not an acknowledgement.
    pub(in crate::proxy) fn settings_came(&self) {
        let table = self.table.get();
        self.table.set(Table { came: table.came + 1, ..table });
    }

    /// One of the settings.
    pub(in crate::proxy) fn set(&self, setting: Setting) {
        match setting.number {
            HEADER_TABLE_SIZE => {
                self.table.set(self.table.get().resized(setting.value));
                if !self.table.get().is_in_step() {
                    self.forget(|_| true);
                }
            }
            MAX_HEADER_LIST_SIZE => self.list_max.set(setting.value as usize),
            _ => {}
        }
    }

    /// h2 has acknowledged SETTINGS.
    pub(in crate::proxy) fn acknowledged(&self) {
        let table = self.table.get();
        self.table.set(Table { acknowledged: table.acknowledged + 1, ..table });
    }

    /// h2 has begun a header block.
    pub(in crate::proxy) fn block_written(&self) {
        self.table.set(self.table.get().after_block());
    }

    /// The task that polls the connection.
    pub(in crate::proxy) fn polled_by(&self, connection: &Waker) {
        let mut known = self.connection.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(connection)) {
            *known = Some(connection.clone());
        }
    }

    fn enqueue(&self, frame: Waiting) {
        let mut waiting = self.waiting.borrow_mut();
        let bytes: usize = waiting.iter().map(|waiting| waiting.frame.len()).sum();
        if bytes + frame.frame.len() <= BYTES_MAX {
            waiting.push_back(frame);
            self.connection.borrow().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Leaves out what waits and is not begun.
    fn forget(&self, goes: impl Fn(&Waiting) -> bool) {
        let begun = usize::from(self.begun.get() > 0);
        let mut position = 0;
        self.waiting.borrow_mut().retain_mut(|waiting| {
            position += 1;
            let stays = position <= begun || !goes(waiting);
            if !stays {
                waiting.wake();
            }
            stays
        });
    }

    /// Writes what waits, by `write`, which says how much it has written; or only the rest of a frame that is being
    /// written.
    pub(in crate::proxy) fn poll_write<E>(
        &self,
        only_begun: bool,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.front_mut()
            && (self.begun.get() > 0 || !only_begun)
        {
            let begun = self.begun.get();
            match write(&first.frame[begun..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())), // the connection ends; whoever flushes it finds out
                Poll::Ready(Ok(wrote)) => self.begun.set(begun + wrote),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if self.begun.get() >= first.frame.len() {
                self.begun.set(0);
                waiting.pop_front().into_iter().for_each(|mut written| written.wake());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Waiting {
    fn wake(&mut self) {
        self.command.take().into_iter().for_each(Waker::wake);
    }
}

/// The compression table of what is written, as its caller has limited it.
#[derive(Clone, Copy, Debug)]
struct Table {
    size: u32,
    /// SETTINGS that have come, and those of them that are acknowledged.
    came: u64,
    acknowledged: u64,
    /// The SETTINGS that made the table smaller, as long as no block has followed their acknowledgement.
    smaller_since: Option<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self { size: TABLE_SIZE, came: 0, acknowledged: 0, smaller_since: None }
    }
}

impl Table {
    fn resized(self, size: u32) -> Self {
        let smaller_since = if size < self.size { Some(self.came) } else { self.smaller_since };
        Self { size, smaller_since, ..self }
    }

    fn after_block(self) -> Self {
        Self { smaller_since: self.smaller_since.filter(|since| self.acknowledged < *since), ..self }
    }

    fn is_in_step(self) -> bool {
        self.smaller_since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::super::interim;
    use super::*;
    use crate::proxy::waiters::Woken;

    /// A connection with these streams open.
    fn opened(numbers: &[u32]) -> (Rc<InterimStreams>, Vec<OpenStream>) {
        let streams = Rc::new(InterimStreams::default());
        assert!(numbers.iter().all(|number| streams.came(*number)));
        let open = numbers.iter().map(|number| streams.stream(*number).expect("it is open")).collect();
        (streams, open)
    }

    fn hint(stream: &OpenStream) {
        stream.push(&interim(103, &[("link", "</a>")]), |_| false);
    }

    /// Streams of the frames that are written, if so many bytes are taken at a time.
    fn written(streams: &InterimStreams, at_a_time: usize) -> Vec<u32> {
        let mut out = Vec::new();
        let done = streams.poll_write(false, |bytes: &[u8]| {
            let count = bytes.len().min(at_a_time);
            out.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok::<_, Infallible>(count))
        });
        assert!(done.is_ready());
        let one =
            block::frame(0, &interim(103, &[("link", "</a>")]), |_| false, usize::MAX).expect("it is small").len();
        assert_eq!(out.len() % one, 0, "whole frames");
        out.chunks(one).map(|frame| u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]])).collect()
    }

    fn left(stream: &OpenStream, woken: &Arc<Woken>) -> bool {
        stream.poll_left(&Context::from_waker(&Waker::from(Arc::clone(woken)))).is_ready()
    }

    #[test]
    fn each_frame_is_written_on_its_own_stream_and_its_command_goes_on() {
        for at_a_time in [1, 5, 4096] {
            let (streams, open) = opened(&[1, 3, 5]);
            let woken = Arc::new(Woken::default());
            [&open[2], &open[0], &open[2]].into_iter().for_each(hint);
            assert!(left(&open[1], &woken) && !left(&open[2], &woken));
            assert_eq!(written(&streams, at_a_time), [5, 1, 5]);
            assert_eq!(woken.times(), 1);
            assert!(left(&open[2], &woken));
        }
    }

    #[test]
    fn a_stream_that_is_answered_or_reset_gets_nothing_any_more() {
        let (streams, open) = opened(&[1, 3, 5]);
        let woken = Arc::new(Woken::default());
        open.iter().for_each(hint);
        assert!(!left(&open[1], &woken));
        streams.closed(3);
        assert_eq!(woken.times(), 1, "nothing is left of it");
        hint(&open[1]);
        assert!(left(&open[1], &woken) && streams.stream(3).is_none());
        assert_eq!(written(&streams, 4096), [1, 5]);
        assert!(!streams.came(3) && !streams.came(5), "trailers open nothing");
        assert!(streams.came(9));
    }

    #[test]
    fn a_frame_that_is_begun_is_written_to_its_end_before_anything_else() {
        let (streams, open) = opened(&[1, 3]);
        open.iter().for_each(hint);
        let mut room = 5;
        let begun = streams.poll_write(false, |bytes: &[u8]| match std::mem::take(&mut room) {
            0 => Poll::Pending,
            some => Poll::Ready(Ok::<_, Infallible>(some.min(bytes.len()))),
        });
        assert!(begun.is_pending());
        streams.closed(1);
        let mut rest = 0;
        let done = streams.poll_write(true, |bytes: &[u8]| {
            rest += bytes.len();
            Poll::Ready(Ok::<_, Infallible>(bytes.len()))
        });
        assert!(done.is_ready() && rest > 0, "the rest of the first, and nothing of the second");
        assert_eq!(written(&streams, 4096), [3]);
    }

    #[test]
    fn a_smaller_table_is_told_by_h2_before_anything_else_is_written() {
        let (streams, open) = opened(&[1]);
        let resize = |value: u32| {
            streams.settings_came();
            streams.set(Setting { number: HEADER_TABLE_SIZE, value });
        };
        resize(65_536);
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [1], "a larger one need not be used");
        hint(&open[0]);
        resize(0);
        hint(&open[0]);
        streams.acknowledged(); // the larger one
        streams.block_written();
        hint(&open[0]);
        streams.acknowledged();
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
        streams.block_written();
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [1]);
    }

    #[test]
    fn what_a_caller_has_no_room_for_and_what_is_too_much_is_left_out() {
        let (streams, open) = opened(&[1]);
        let large = Interim {
            status: http::StatusCode::EARLY_HINTS,
            headers: [(http::header::LINK, "x".repeat(16_000).parse().expect("a value"))].into_iter().collect(),
        };
        (0..9).for_each(|_| open[0].push(&large, |_| false));
        let bytes: usize = streams.waiting.borrow().iter().map(|waiting| waiting.frame.len()).sum();
        assert!(bytes <= BYTES_MAX && streams.waiting.borrow().len() == 4, "{bytes}");
        let (streams, open) = opened(&[1]);
        streams.set(Setting { number: MAX_HEADER_LIST_SIZE, value: 64 });
        hint(&open[0]);
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
    }

    #[test]
    fn without_numbers_and_beyond_the_known_streams_there_are_none() {
        let (streams, open) = opened(&[1]);
        hint(&open[0]);
        streams.switch_off();
        hint(&open[0]);
        assert!(!streams.came(3) && streams.stream(1).is_none());
        assert_eq!(written(&streams, 4096), [0_u32; 0]);
        let streams = InterimStreams::default();
        let numbered = (1..).step_by(2).take(1000).filter(|stream| streams.came(*stream)).count();
        assert_eq!((numbered, streams.is_off()), (OPEN_MAX, true));
    }
}
