//! What came of a caller and has not gone on to h2: heads that get the number of their stream.
//!
//! Guarantees: a frame that ends the header block of a new stream goes on whole, with the number as its last field
//! ([`crate::proxy::downstream::h2_stream_number`]); everything else goes on byte for byte. A frame that the number would make larger than
//! frames may be, and one whose block does not end with a field, goes on without. At most one such frame is held, and
//! what was read behind others; h2 would hold as much of it.

use tokio::io::ReadBuf;

use crate::proxy::downstream::h2_stream_number::{NUMBER_FIELD_MAX, put_number};

use super::frame_scanner::{CONTINUATION_FRAME, END_HEADERS_FLAG, FRAME_HEAD_LENGTH, FrameHead, HEADERS_FRAME};

/// The largest payload of a frame (`FRAME_MAX` of the connection).
const PAYLOAD_MAX: usize = 16 * 1024;
/// Memory that is kept for the next head.
const KEPT_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HeldFrames {
    bytes: Vec<u8>,
    /// How many of them may go on, and how many have.
    passable: usize,
    passed: usize,
    /// The stream whose head is under way, if it is new.
    stream: Option<u32>,
    /// Where the frame begins that ends this head.
    frame: Option<usize>,
}

impl HeldFrames {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A frame begins. `is_new` says that it is the head of a new stream. Whether it is to be held from its beginning
    /// on.
    pub(crate) fn begin_frame(&mut self, head: FrameHead, is_new: bool) -> bool {
        self.frame = None; // of a frame without a block
        match head.kind {
            HEADERS_FRAME => self.stream = is_new.then_some(head.stream),
            CONTINUATION_FRAME => {}
            _ => self.stream = None,
        }
        let has_room = head.block_max() > 0 && head.payload <= PAYLOAD_MAX - NUMBER_FIELD_MAX;
        self.stream.is_some() && ends_head(head) && has_room
    }

    /// Whether the frame that has begun ends a head which is not to be held, so that it has no number.
    pub(crate) fn lacks_number(&self, head: FrameHead) -> bool {
        self.stream.is_some() && self.frame.is_none() && ends_head(head)
    }

    /// The head of the frame has just been put here.
    pub(crate) fn note_frame(&mut self) {
        self.frame = Some(self.bytes.len() - FRAME_HEAD_LENGTH);
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The block of the frame has been put here. Whether its head has its number now.
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

    /// Whether a frame is waited for that is to go on whole.
    pub(crate) fn awaits_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// All may go on but a frame that is not whole, and so many bytes of a frame's head.
    pub(crate) fn release(&mut self, part_of_head: usize) {
        self.passable = self.frame.unwrap_or(self.bytes.len() - part_of_head);
    }

    /// All may go on as it is.
    pub(crate) fn release_all(&mut self) {
        (self.frame, self.stream) = (None, None);
        self.passable = self.bytes.len();
    }

    /// Hands on what may go on; whether there was anything.
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
