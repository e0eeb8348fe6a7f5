//! Counts the heads of an HTTP/2 connection that h2 refuses by itself.
//!
//! h2 makes no request of a malformed head (RFC 9113 section 8.1.1) or of a head above its limit. It responds with
//! `RST_STREAM`, or with a bare 431, and has no API for their number. The frames of both directions show them: a stream
//! that the caller opened, that never became a request, and that is reset or gets a response nevertheless.
//!
//! Guarantees:
//! - Each such head is counted once, as received and refused (`malformed`), under the department of the connection.
//! - A stream above the limit of streams (`REFUSED_STREAM`) was not processed, and is not counted. Neither is a head
//!   that ends its connection.
//! - Memory: at most [`PENDING_MAX`] heads.
//!
//! A stream that is reset after more than its head arrived is in doubt. Either its head was malformed, or its body was,
//! and then it is a command. h2 hands over all complete requests before hyper's connection future returns pending, in
//! the order of their streams. So a doubtful head that is still here at the next poll of the connection never became a
//! request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::proxy::exchange::refuse::count_malformed;
use crate::proxy::message::h2_frame::{
    ACK_FLAG, CONTINUATION_FRAME, END_HEADERS_FLAG, FRAME_HEAD_LENGTH, HEADERS_FRAME, RST_STREAM_FRAME, SETTINGS_FRAME,
};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

/// The maximum number of pending heads: the streams of a connection, the streams that h2 has yet to reset, and a
/// reserve.
const PENDING_MAX: usize = 256;
/// The head of a frame and the error code of `RST_STREAM` (RFC 9113 section 6.4).
const RESET_LENGTH: usize = FRAME_HEAD_LENGTH + 4;
/// The error code of a stream that was not processed, so that the caller may retry (RFC 9113 section 8.7).
const REFUSED_STREAM: u32 = 7;

/// The pending heads of one connection. Shared by the frame layer, which sees streams open and close, and the service,
/// which accepts requests.
pub(crate) struct PendingHeads {
    queue: HeadQueue,
    worker: Rc<TrafficWorker>,
    peer: Rc<DownstreamPeer>,
}

impl PendingHeads {
    pub(crate) fn new(worker: &Rc<TrafficWorker>, peer: &Rc<DownstreamPeer>) -> Self {
        Self { queue: HeadQueue::default(), worker: Rc::clone(worker), peer: Rc::clone(peer) }
    }

    /// The caller has sent a frame of a stream: its head, or a later frame.
    pub(crate) fn note_received(&self, stream: u32, is_head: bool) {
        self.queue.note_received(stream, is_head);
    }

    /// A head has become a request: the head of `stream`, or the next one if `stream` is `None`, because h2 keeps their
    /// order.
    pub(crate) fn note_accepted(&self, stream: Option<u32>) {
        self.queue.note_accepted(stream);
    }

    /// A frame to the caller was written.
    pub(crate) fn note_sent(&self, frame: SentFrame) {
        if self.queue.note_sent(frame) {
            count_malformed(&self.worker, &self.peer);
        }
    }

    /// Counts the doubtful heads. Called before each poll of hyper's connection.
    pub(crate) fn resolve_doubtful(&self) {
        for _ in 0..self.queue.take_refused() {
            count_malformed(&self.worker, &self.peer);
        }
    }
}

impl Drop for PendingHeads {
    fn drop(&mut self) {
        self.resolve_doubtful();
    }
}

#[derive(Debug, Default)]
struct HeadQueue {
    /// The highest stream number so far.
    highest_stream: Cell<u32>,
    heads: RefCell<VecDeque<PendingHead>>,
}

#[derive(Clone, Copy, Debug)]
struct PendingHead {
    stream: u32,
    /// Whether a frame after the head has arrived.
    has_more: bool,
    /// Whether the stream was reset, so that the head is in doubt.
    is_reset: bool,
}

impl HeadQueue {
    fn note_received(&self, stream: u32, is_head: bool) {
        let mut streams = self.heads.borrow_mut();
        if stream <= self.highest_stream.get() {
            let known = streams.iter_mut().find(|head| head.stream == stream);
            known.into_iter().for_each(|head| head.has_more = true);
        } else if is_head && streams.len() < PENDING_MAX {
            self.highest_stream.set(stream);
            streams.push_back(PendingHead { stream, has_more: false, is_reset: false });
        }
    }

    fn note_accepted(&self, stream: Option<u32>) {
        let mut streams = self.heads.borrow_mut();
        let position = match stream {
            Some(stream) => streams.iter().position(|head| head.stream == stream),
            None => Some(0),
        };
        position.and_then(|position| streams.remove(position));
    }

    /// Whether the frame refuses a head beyond doubt.
    fn note_sent(&self, frame: SentFrame) -> bool {
        let mut streams = self.heads.borrow_mut();
        let Some(position) = streams.iter().position(|head| head.stream == frame.stream_id()) else { return false };
        match frame {
            SentFrame::Reset { code, .. } if code != REFUSED_STREAM && streams[position].has_more => {
                streams[position].is_reset = true;
                false
            }
            _ => {
                streams.remove(position);
                !matches!(frame, SentFrame::Reset { code: REFUSED_STREAM, .. })
            }
        }
    }

    /// Removes the doubtful heads that never became requests, and returns their number.
    fn take_refused(&self) -> usize {
        let mut streams = self.heads.borrow_mut();
        let before = streams.len();
        streams.retain(|head| !head.is_reset);
        before - streams.len()
    }
}

/// A frame from the gateway that ends a stream, begins a response, or acknowledges settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentFrame {
    /// HEADERS.
    Headers {
        /// The stream of the frame.
        stream: u32,
    },
    /// RST_STREAM.
    Reset {
        /// The stream of the frame.
        stream: u32,
        /// The error code.
        code: u32,
    },
    /// SETTINGS with the ACK flag, for the settings of the caller.
    Acknowledged,
}

impl SentFrame {
    fn stream_id(self) -> u32 {
        match self {
            Self::Headers { stream } | Self::Reset { stream, .. } => stream,
            Self::Acknowledged => 0, // the connection itself
        }
    }
}

/// Finds the [`SentFrame`]s in written bytes.
#[derive(Debug, Default)]
pub(crate) struct SentFrameScanner {
    partial: [u8; RESET_LENGTH],
    read: usize,
    /// The remaining bytes of a payload to skip.
    skip: usize,
    /// Whether a header block is incomplete; only CONTINUATION may follow (RFC 9113 section 6.10).
    is_in_block: bool,
}

impl SentFrameScanner {
    /// Scans bytes that were written.
    pub(crate) fn scan(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(SentFrame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            bytes = &bytes[self.take_head_bytes(bytes)..];
            if let Some(frame) = self.complete_frame() {
                on_frame(frame);
            }
        }
    }

    /// Whether another frame may be inserted after the written bytes.
    pub(crate) fn is_frame_boundary(&self) -> bool {
        self.read == 0 && self.skip == 0 && !self.is_in_block
    }

    /// Copies bytes of a frame head, or of the error code of a reset.
    fn take_head_bytes(&mut self, bytes: &[u8]) -> usize {
        let wanted = if self.read < FRAME_HEAD_LENGTH { FRAME_HEAD_LENGTH } else { RESET_LENGTH };
        let taken = (wanted - self.read).min(bytes.len());
        self.partial[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if self.read == FRAME_HEAD_LENGTH && self.partial[3] != RST_STREAM_FRAME {
            let [high, middle, low, ..] = self.partial;
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        }
        taken
    }

    /// Returns the frame once its head (for a reset, its code) is complete, and prepares for the next frame.
    fn complete_frame(&mut self) -> Option<SentFrame> {
        let [_, _, _, kind, flags, stream @ .., a, b, c, d] = self.partial;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if matches!((kind, self.read), (HEADERS_FRAME | CONTINUATION_FRAME, FRAME_HEAD_LENGTH)) {
            self.is_in_block = flags & END_HEADERS_FLAG == 0;
        }
        let frame = match (kind, self.read) {
            (RST_STREAM_FRAME, RESET_LENGTH) => {
                Some(SentFrame::Reset { stream, code: u32::from_be_bytes([a, b, c, d]) })
            }
            (HEADERS_FRAME, FRAME_HEAD_LENGTH) => Some(SentFrame::Headers { stream }),
            (SETTINGS_FRAME, FRAME_HEAD_LENGTH) if flags & ACK_FLAG > 0 => Some(SentFrame::Acknowledged),
            (RST_STREAM_FRAME, _) => return None,
            (_, FRAME_HEAD_LENGTH) => None,
            _ => return None,
        };
        self.read = 0;
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn responses_and_resets_are_found_for_every_split() {
        let bytes = [
            frame(4, 0, &[0; 6]),
            frame(HEADERS_FRAME, 1, b"block"),
            frame(0, 1, &[RST_STREAM_FRAME; 40]),
            frame(RST_STREAM_FRAME, 3, &8_u32.to_be_bytes()),
            frame(HEADERS_FRAME, 5, b""),
            frame(4, 0, b""),
            frame(RST_STREAM_FRAME, 7, &1_u32.to_be_bytes()),
        ]
        .concat();
        for at_a_time in 1..=bytes.len() {
            let (mut frames, mut on_frame) = (SentFrameScanner::default(), Vec::new());
            bytes.chunks(at_a_time).for_each(|piece| frames.scan(piece, |frame| on_frame.push(frame)));
            let expected = [
                SentFrame::Headers { stream: 1 },
                SentFrame::Reset { stream: 3, code: 8 },
                SentFrame::Headers { stream: 5 },
                SentFrame::Reset { stream: 7, code: 1 },
            ];
            assert_eq!(on_frame, expected, "{at_a_time} bytes at a time");
        }
    }

    #[test]
    fn other_frames_can_be_between_whole_frames_but_not_in_a_header_block() {
        let mut frames = SentFrameScanner::default();
        let mut after = |bytes: &[u8]| {
            frames.scan(bytes, |_| ());
            frames.is_frame_boundary()
        };
        assert!(after(&frame(4, 0, &[0; 6])));
        let [begun, part, ended] =
            [(HEADERS_FRAME, 0), (CONTINUATION_FRAME, 0), (CONTINUATION_FRAME, END_HEADERS_FLAG)].map(
                |(kind, flags)| {
                    let mut bytes = frame(kind, 1, b"block");
                    bytes[4] = flags;
                    bytes
                },
            );
        assert!(!after(&begun) && !after(&part) && !after(&ended[..12]) && after(&ended[12..]));
        let reset = frame(RST_STREAM_FRAME, 1, &8_u32.to_be_bytes());
        assert!(!after(&reset[..9]) && after(&reset[9..]));
        assert!(!after(&frame(0, 1, b"data")[..12]) && after(b"a"));
    }

    #[test]
    fn acknowledged_settings_are_found() {
        let mut acknowledged = frame(SETTINGS_FRAME, 0, b"");
        acknowledged[4] = ACK_FLAG;
        let (mut frames, mut on_frame) = (SentFrameScanner::default(), Vec::new());
        frames.scan(&[frame(SETTINGS_FRAME, 0, &[0; 6]), acknowledged].concat(), |frame| on_frame.push(frame));
        assert_eq!(on_frame, [SentFrame::Acknowledged]);
    }

    #[test]
    fn numbered_head_is_accepted_in_any_order() {
        let pending_heads = HeadQueue::default();
        [1, 3, 5].into_iter().for_each(|stream| pending_heads.note_received(stream, true));
        pending_heads.note_accepted(Some(3));
        assert!(pending_heads.note_sent(reset(1, 1)), "the head was refused");
        assert!(!pending_heads.note_sent(reset(3, 1)), "the head is a command");
        pending_heads.note_accepted(None);
        assert!(!pending_heads.note_sent(reset(5, 1)));
    }

    fn reset(stream: u32, code: u32) -> SentFrame {
        SentFrame::Reset { stream, code }
    }

    #[test]
    fn head_refused_before_it_is_accepted_is_counted_once() {
        let pending_heads = HeadQueue::default();
        [1, 3, 5, 7].into_iter().for_each(|stream| pending_heads.note_received(stream, true));
        assert!(pending_heads.note_sent(reset(1, 1)) && !pending_heads.note_sent(reset(1, 1)));
        pending_heads.note_accepted(None); // 3
        assert!(!pending_heads.note_sent(reset(3, 1)), "the head is a command, and counted as one");
        assert!(
            pending_heads.note_sent(SentFrame::Headers { stream: 5 }) && !pending_heads.note_sent(reset(5, 1)),
            "a 431 and its reset"
        );
        assert!(!pending_heads.note_sent(reset(7, REFUSED_STREAM)) && !pending_heads.note_sent(reset(7, 1)));
        pending_heads.note_received(9, true);
        assert!(pending_heads.note_sent(reset(9, 1)));
        assert_eq!(pending_heads.take_refused(), 0);
    }

    #[test]
    fn reset_after_the_head_is_a_command_if_it_is_accepted_in_the_same_poll() {
        let pending_heads = HeadQueue::default();
        for stream in [1, 3] {
            pending_heads.note_received(stream, true);
            pending_heads.note_received(stream, false);
            assert!(!pending_heads.note_sent(reset(stream, 1)), "not decided yet");
        }
        pending_heads.note_accepted(Some(1)); // its body was malformed
        assert_eq!((pending_heads.take_refused(), pending_heads.take_refused()), (1, 0));
        pending_heads.note_received(5, true);
        pending_heads.note_received(5, true); // a trailer
        assert!(!pending_heads.note_sent(reset(5, 1)) && pending_heads.take_refused() == 1);
    }

    #[test]
    fn pending_heads_are_bounded() {
        let pending_heads = HeadQueue::default();
        (1..=1000).for_each(|stream| pending_heads.note_received(stream, true));
        assert_eq!(pending_heads.heads.borrow().len(), PENDING_MAX);
    }
}
