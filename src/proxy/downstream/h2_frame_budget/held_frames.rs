//! The bytes that a caller sent and h2 has not read yet: frames that get the number of their stream.
//!
//! Guarantees:
//! - A frame that ends the header block of a new stream goes on whole, with the number as its last field
//!   ([`crate::proxy::downstream::h2_stream_number`]). Every other byte goes on unchanged.
//! - Two kinds of frames get no number: a frame that the number would enlarge beyond the maximum frame size, and a
//!   frame whose block does not end with a complete field.
//! - At most one such frame is held, with the bytes that were read after other frames. h2 would hold the same amount.

use tokio::io::ReadBuf;

use crate::proxy::downstream::h2_stream_number::{NUMBER_FIELD_MAX, put_number};
use crate::proxy::message::h2_frame::{CONTINUATION_FRAME, END_HEADERS_FLAG, FRAME_HEAD_LENGTH, HEADERS_FRAME};

use super::frame_scanner::FrameHead;

/// The maximum payload of a frame (`FRAME_MAX` of the connection).
const PAYLOAD_MAX: usize = 16 * 1024;
/// The capacity that is kept for the next head.
const KEPT_MAX: usize = 1024;

/// The held bytes, and the state of the frame that waits for its number.
#[derive(Debug, Default)]
pub(crate) struct HeldFrames {
    bytes: Vec<u8>,
    /// How many bytes may go on, and how many have gone on.
    passable: usize,
    passed: usize,
    /// The new stream whose head is incomplete.
    stream: Option<u32>,
    /// The position of the frame that ends this head.
    frame: Option<usize>,
}

impl HeldFrames {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A frame begins; `is_new` if it is the head of a new stream. Returns true if the frame must be held from its
    /// first byte.
    pub(crate) fn begin_frame(&mut self, head: FrameHead, is_new: bool) -> bool {
        self.frame = None; // The previous frame had no block.
        match head.kind {
            HEADERS_FRAME => self.stream = is_new.then_some(head.stream),
            CONTINUATION_FRAME => {}
            _ => self.stream = None,
        }
        let has_room = head.block_max() > 0 && head.payload <= PAYLOAD_MAX - NUMBER_FIELD_MAX;
        self.stream.is_some() && ends_head(head) && has_room
    }

    /// Whether the frame ends the head of a new stream and is not held, so that the head gets no number.
    pub(crate) fn lacks_number(&self, head: FrameHead) -> bool {
        self.stream.is_some() && self.frame.is_none() && ends_head(head)
    }

    /// Notes that the last bytes appended are the head of the frame.
    pub(crate) fn note_frame(&mut self) {
        self.frame = Some(self.bytes.len() - FRAME_HEAD_LENGTH);
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Notes that the whole block of the frame is appended. Returns true if the head now has its number.
    pub(crate) fn end_block(&mut self, is_between_fields: bool) -> bool {
        let frame = self.frame.take().filter(|_| is_between_fields);
        let Some((frame, stream)) = frame.zip(self.stream.take()) else { return false };
        let before = self.bytes.len();
        put_number(&mut self.bytes, stream);
        let more = self.bytes.len() - before;
        let length = &mut self.bytes[frame..frame + 3];
        let payload = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize + more;
        length.copy_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_be_bytes()[1..]);
        true
    }

    /// Whether a frame that must go on whole is incomplete.
    pub(crate) fn awaits_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Releases everything except an incomplete held frame and the last `part_of_head` bytes.
    pub(crate) fn release(&mut self, part_of_head: usize) {
        self.passable = self.frame.unwrap_or(self.bytes.len() - part_of_head);
    }

    /// Releases everything unchanged.
    pub(crate) fn release_all(&mut self) {
        (self.frame, self.stream) = (None, None);
        self.passable = self.bytes.len();
    }

    /// Passes released bytes on. Returns true if there were any.
    pub(crate) fn pass_released(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let rest = &self.bytes[self.passed..self.passable];
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        self.passed += count;
        if self.passed == self.passable {
            self.discard_passed();
        }
        count > 0
    }

    fn discard_passed(&mut self) {
        self.frame = self.frame.map(|frame| frame - self.passed);
        self.bytes.drain(..self.passed);
        (self.passed, self.passable) = (0, 0);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
    }
}

fn ends_head(head: FrameHead) -> bool {
    matches!(head.kind, HEADERS_FRAME | CONTINUATION_FRAME) && head.flags & END_HEADERS_FLAG > 0
}
