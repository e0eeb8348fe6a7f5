//! Heads of one HTTP/2 connection that are not taken up yet, so that those are counted which h2 refuses by itself.
//!
//! h2 makes no request of a malformed head (RFC 9113 section 8.1.1) or of one beyond its limit: it answers with RST_STREAM, or
//! with a bare 431, and has no call that tells how many there were. The frames of both directions tell: a stream that its
//! caller opened, that was never taken up as a request, and that is reset or answered all the same.
//!
//! Guarantees: each such head is counted once, as received and refused (`malformed`), under the department of the connection.
//! A stream that is refused because there are too many (REFUSED_STREAM) was not looked at, and is not counted; neither is a
//! head that ends its connection. Memory: at most [`WAITING_MAX`] heads.
//!
//! A stream that is reset after more than its head came is in doubt: its head was malformed, or its body was, and then it is a
//! command. h2 hands over all requests that it has before hyper's connection goes to sleep, in the order of their streams; so what
//! is still here when the connection is polled again was never one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::peer::Peer;
use super::refuse::count_malformed;
use super::worker::Worker;

/// Heads that may wait: the streams of a connection, those that h2 has yet to reset, and some.
const WAITING_MAX: usize = 256;
const FRAME_HEAD: usize = 9;
/// A frame's head and the code of RST_STREAM (RFC 9113 section 6.4).
const RESET: usize = FRAME_HEAD + 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// Nothing was processed, so the stream may be sent again (RFC 9113 section 8.7).
const REFUSED_STREAM: u32 = 7;

/// See the module. Shared by the frames, which see streams come and go, and the service, which takes requests up.
pub(super) struct Heads {
    waiting: Waiting,
    worker: Rc<Worker>,
    peer: Rc<Peer>,
}

impl Heads {
    pub(super) fn new(worker: &Rc<Worker>, peer: &Rc<Peer>) -> Self {
        Self { waiting: Waiting::default(), worker: Rc::clone(worker), peer: Rc::clone(peer) }
    }

    /// The caller has sent a frame of a stream: its head, or something after it.
    pub(super) fn came(&self, stream: u32, is_head: bool) {
        self.waiting.came(stream, is_head);
    }

    /// A head has become a request: that of this stream, or the next one, for h2 hands them over in their order.
    pub(super) fn taken_up(&self, stream: Option<u32>) {
        self.waiting.taken_up(stream);
    }

    /// A frame to the caller was written.
    pub(super) fn wrote(&self, frame: OwnFrame) {
        if self.waiting.ended(frame) {
            count_malformed(&self.worker, &self.peer);
        }
    }

    /// hyper's connection is polled again: what was in doubt is decided.
    pub(super) fn next_turn(&self) {
        for _ in 0..self.waiting.decided() {
            count_malformed(&self.worker, &self.peer);
        }
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        self.next_turn();
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// The highest number of a stream so far.
    last: Cell<u32>,
    streams: RefCell<VecDeque<Head>>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    stream: u32,
    /// Whether more than the head came.
    has_more: bool,
    /// Whether it was reset, and it is in doubt whether it is a command.
    is_reset: bool,
}

impl Waiting {
    fn came(&self, stream: u32, is_head: bool) {
        let mut streams = self.streams.borrow_mut();
        if stream <= self.last.get() {
            let known = streams.iter_mut().find(|head| head.stream == stream);
            known.into_iter().for_each(|head| head.has_more = true);
        } else if is_head && streams.len() < WAITING_MAX {
            self.last.set(stream);
            streams.push_back(Head { stream, has_more: false, is_reset: false });
        }
    }

    fn taken_up(&self, stream: Option<u32>) {
        let mut streams = self.streams.borrow_mut();
        let position = match stream {
            Some(stream) => streams.iter().position(|head| head.stream == stream),
            None => Some(0),
        };
        position.and_then(|position| streams.remove(position));
    }

    /// Whether the frame refuses a head, without doubt.
    fn ended(&self, frame: OwnFrame) -> bool {
        let mut streams = self.streams.borrow_mut();
        let Some(position) = streams.iter().position(|head| head.stream == frame.stream()) else { return false };
        match frame {
            OwnFrame::Reset { code, .. } if code != REFUSED_STREAM && streams[position].has_more => {
                streams[position].is_reset = true;
                false
            }
            _ => {
                streams.remove(position);
                !matches!(frame, OwnFrame::Reset { code: REFUSED_STREAM, .. })
            }
        }
    }

    /// How many that were in doubt were not taken up.
    fn decided(&self) -> usize {
        let mut streams = self.streams.borrow_mut();
        let before = streams.len();
        streams.retain(|head| !head.is_reset);
        before - streams.len()
    }
}

/// A frame of ours that ends or answers a stream, or answers settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnFrame {
    /// HEADERS.
    Answer {
        /// Its stream.
        stream: u32,
    },
    /// RST_STREAM.
    Reset {
        /// Its stream.
        stream: u32,
        /// Why.
        code: u32,
    },
    /// SETTINGS that acknowledge those of the caller.
    Acknowledged,
}

impl OwnFrame {
    fn stream(self) -> u32 {
        match self {
            Self::Answer { stream } | Self::Reset { stream, .. } => stream,
            Self::Acknowledged => 0, // the connection
        }
    }
}

/// Finds the [`OwnFrame`]s in what is written.
#[derive(Debug, Default)]
pub(super) struct OwnFrames {
    begun: [u8; RESET],
    read: usize,
    /// Bytes of a payload that are of no interest.
    skip: usize,
    /// Whether a header block is under way, which only CONTINUATION may follow (RFC 9113 section 6.10).
    is_in_block: bool,
}

impl OwnFrames {
    /// Looks at bytes that were written.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(OwnFrame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            bytes = &bytes[self.take(bytes)..];
            if let Some(frame) = self.whole() {
                found(frame);
            }
        }
    }

    /// Whether another frame may stand behind what was written.
    pub(super) fn is_between(&self) -> bool {
        self.read == 0 && self.skip == 0 && !self.is_in_block
    }

    /// Takes bytes of a frame's head, or of the code of a reset.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let wanted = if self.read < FRAME_HEAD { FRAME_HEAD } else { RESET };
        let taken = (wanted - self.read).min(bytes.len());
        self.begun[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if self.read == FRAME_HEAD && self.begun[3] != RST_STREAM {
            let [high, middle, low, ..] = self.begun;
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        }
        taken
    }

    /// The frame that has been read as far as it is read, once: then the next one begins.
    fn whole(&mut self) -> Option<OwnFrame> {
        let [_, _, _, kind, flags, stream @ .., a, b, c, d] = self.begun;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if matches!((kind, self.read), (HEADERS | CONTINUATION, FRAME_HEAD)) {
            self.is_in_block = flags & END_HEADERS == 0;
        }
        let frame = match (kind, self.read) {
            (RST_STREAM, RESET) => Some(OwnFrame::Reset { stream, code: u32::from_be_bytes([a, b, c, d]) }),
            (HEADERS, FRAME_HEAD) => Some(OwnFrame::Answer { stream }),
            (SETTINGS, FRAME_HEAD) if flags & ACK > 0 => Some(OwnFrame::Acknowledged),
            (RST_STREAM, _) => return None,
            (_, FRAME_HEAD) => None,
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
    fn answers_and_resets_are_found_however_they_are_cut() {
        let bytes = [
            frame(4, 0, &[0; 6]),
            frame(HEADERS, 1, b"block"),
            frame(0, 1, &[RST_STREAM; 40]),
            frame(RST_STREAM, 3, &8_u32.to_be_bytes()),
            frame(HEADERS, 5, b""),
            frame(4, 0, b""),
            frame(RST_STREAM, 7, &1_u32.to_be_bytes()),
        ]
        .concat();
        for at_a_time in 1..=bytes.len() {
            let (mut frames, mut found) = (OwnFrames::default(), Vec::new());
            bytes.chunks(at_a_time).for_each(|piece| frames.scan(piece, |frame| found.push(frame)));
            let expected = [
                OwnFrame::Answer { stream: 1 },
                OwnFrame::Reset { stream: 3, code: 8 },
                OwnFrame::Answer { stream: 5 },
                OwnFrame::Reset { stream: 7, code: 1 },
            ];
            assert_eq!(found, expected, "{at_a_time} bytes at a time");
        }
    }

    #[test]
    fn other_frames_may_stand_between_whole_frames_but_not_in_a_header_block() {
        let mut frames = OwnFrames::default();
        let mut after = |bytes: &[u8]| {
            frames.scan(bytes, |_| ());
            frames.is_between()
        };
        assert!(after(&frame(4, 0, &[0; 6])));
        let [begun, part, ended] =
            [(HEADERS, 0), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)].map(|(kind, flags)| {
                let mut bytes = frame(kind, 1, b"block");
                bytes[4] = flags;
                bytes
            });
        assert!(!after(&begun) && !after(&part) && !after(&ended[..12]) && after(&ended[12..]));
        let reset = frame(RST_STREAM, 1, &8_u32.to_be_bytes());
        assert!(!after(&reset[..9]) && after(&reset[9..]));
        assert!(!after(&frame(0, 1, b"data")[..12]) && after(b"a"));
    }

    #[test]
    fn acknowledged_settings_are_found() {
        let mut acknowledged = frame(SETTINGS, 0, b"");
        acknowledged[4] = ACK;
        let (mut frames, mut found) = (OwnFrames::default(), Vec::new());
        frames.scan(&[frame(SETTINGS, 0, &[0; 6]), acknowledged].concat(), |frame| found.push(frame));
        assert_eq!(found, [OwnFrame::Acknowledged]);
    }

    #[test]
    fn a_head_with_a_known_number_is_taken_up_whatever_stands_before_it() {
        let heads = Waiting::default();
        [1, 3, 5].into_iter().for_each(|stream| heads.came(stream, true));
        heads.taken_up(Some(3));
        assert!(heads.ended(reset(1, 1)), "it was refused");
        assert!(!heads.ended(reset(3, 1)), "it is a command");
        heads.taken_up(None);
        assert!(!heads.ended(reset(5, 1)));
    }

    fn reset(stream: u32, code: u32) -> OwnFrame {
        OwnFrame::Reset { stream, code }
    }

    #[test]
    fn a_head_that_is_refused_before_it_is_taken_up_is_counted_once() {
        let heads = Waiting::default();
        [1, 3, 5, 7].into_iter().for_each(|stream| heads.came(stream, true));
        assert!(heads.ended(reset(1, 1)) && !heads.ended(reset(1, 1)));
        heads.taken_up(None); // 3
        assert!(!heads.ended(reset(3, 1)), "it is a command, and counted as one");
        assert!(heads.ended(OwnFrame::Answer { stream: 5 }) && !heads.ended(reset(5, 1)), "a 431 and its reset");
        assert!(!heads.ended(reset(7, REFUSED_STREAM)) && !heads.ended(reset(7, 1)));
        heads.came(9, true);
        assert!(heads.ended(reset(9, 1)));
        assert_eq!(heads.decided(), 0);
    }

    #[test]
    fn what_is_reset_after_its_head_is_a_command_if_it_is_taken_up_in_the_same_turn() {
        let heads = Waiting::default();
        for stream in [1, 3] {
            heads.came(stream, true);
            heads.came(stream, false);
            assert!(!heads.ended(reset(stream, 1)), "in doubt");
        }
        heads.taken_up(Some(1)); // its body was at fault
        assert_eq!((heads.decided(), heads.decided()), (1, 0));
        heads.came(5, true);
        heads.came(5, true); // a trailer
        assert!(!heads.ended(reset(5, 1)) && heads.decided() == 1);
    }

    #[test]
    fn what_waits_is_bounded() {
        let heads = Waiting::default();
        (1..=1000).for_each(|stream| heads.came(stream, true));
        assert_eq!(heads.streams.borrow().len(), WAITING_MAX);
    }
}
