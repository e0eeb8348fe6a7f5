//! Incoming HTTP/2 bytes on their way to h2: parsed by the [`FrameScanner`], and held where a head gets its number
//! ([`HeldFrames`]).
//!
//! Guarantees:
//! - The bytes that h2 reads do not depend on how the incoming bytes are split.
//! - A head that opens a stream has its number when it goes on, or [`FrameObserver::note_unnumbered`] was called
//!   before.

use crate::proxy::message::h2_frame::FRAME_HEAD_LENGTH;
use crate::proxy::message::interim_response::PeerSetting;

use super::frame_scanner::{BudgetExceeded, FrameHead, FrameScanner, ScanEvent};
use super::held_frames::HeldFrames;

/// Receives the events of the scanner.
pub(crate) trait FrameObserver {
    /// A frame begins. Returns true if it is the head of a new stream, which gets its number.
    fn note_received(&self, head: FrameHead) -> bool;
    /// The caller has sent one setting.
    fn note_setting(&self, setting: PeerSetting);
    /// The head of a new stream goes on without its number.
    fn note_unnumbered(&self);
}

/// The scanner of incoming frames and the frames that it holds back.
pub(crate) struct FrameIntake {
    scanner: FrameScanner,
    pub(crate) held: HeldFrames,
}

impl FrameIntake {
    pub(crate) fn new() -> Self {
        Self { scanner: FrameScanner::new(), held: HeldFrames::default() }
    }

    /// Adds `frames` to the budget of frames without effect.
    pub(crate) fn credit(&mut self, frames: u64) {
        self.scanner.credit(frames);
    }

    /// Response bytes were written; they earn budget.
    pub(crate) fn credit_written(&mut self, bytes: usize) {
        self.scanner.credit_written(bytes);
    }

    /// Scans incoming bytes. Returns how many of the first bytes go on in place. The others are held, or dropped if
    /// they exceed the budget.
    pub(crate) fn scan_received(
        &mut self,
        input: &[u8],
        observer: &impl FrameObserver,
    ) -> (usize, Option<BudgetExceeded>) {
        let mut received = ReceivedBytes::new(input, self.held.is_empty());
        while received.scanned < input.len() {
            let step = self.scanner.next_event(&input[received.scanned..]);
            received.scanned += step.taken;
            match step.event {
                Some(ScanEvent::Frame(head)) => self.note_frame(head, &mut received, observer),
                Some(ScanEvent::BlockEnds { is_between_fields }) => {
                    self.end_block(is_between_fields, &mut received, observer)
                }
                Some(ScanEvent::Setting(setting)) => observer.note_setting(setting),
                Some(ScanEvent::BudgetExceeded(too_much)) => {
                    received.pass_rest(&mut self.held);
                    self.held.release_all();
                    return (received.straight_length(), Some(too_much));
                }
                None => {}
            }
        }
        self.release(&mut received);
        (received.straight_length(), None)
    }

    fn note_frame(&mut self, head: FrameHead, received: &mut ReceivedBytes<'_>, observer: &impl FrameObserver) {
        let is_new = observer.note_received(head);
        if self.held.begin_frame(head, is_new) {
            received.hold_scanned(&mut self.held, FRAME_HEAD_LENGTH);
            self.held.note_frame();
        } else if self.held.lacks_number(head) {
            observer.note_unnumbered();
        }
    }

    fn end_block(&mut self, is_between_fields: bool, received: &mut ReceivedBytes<'_>, observer: &impl FrameObserver) {
        if !self.held.awaits_frame() {
            return;
        }
        received.hold_scanned(&mut self.held, 0);
        if !self.held.end_block(is_between_fields) {
            observer.note_unnumbered();
        }
    }

    /// Releases everything that was scanned, except an incomplete held frame and an incomplete frame head.
    fn release(&mut self, received: &mut ReceivedBytes<'_>) {
        let part = self.scanner.partial_head_length();
        if part > 0 {
            received.hold_scanned(&mut self.held, part);
        } else {
            received.pass_rest(&mut self.held);
        }
        self.held.release(part);
    }
}

/// Incoming bytes, and how far they have been processed.
struct ReceivedBytes<'a> {
    bytes: &'a [u8],
    scanned: usize,
    /// How many of them are held or go on in place.
    handled: usize,
    /// How many go on in place; set once something is held.
    straight: Option<usize>,
}

impl<'a> ReceivedBytes<'a> {
    fn new(input: &'a [u8], may_go_straight: bool) -> Self {
        Self { bytes: input, scanned: 0, handled: 0, straight: (!may_go_straight).then_some(0) }
    }

    /// Holds the scanned bytes. Of bytes that could go on in place, only the last `tail`.
    fn hold_scanned(&mut self, held: &mut HeldFrames, tail: usize) {
        if self.straight.is_none() {
            self.handled = self.scanned.saturating_sub(tail);
            self.straight = Some(self.handled);
        }
        held.append(&self.bytes[self.handled..self.scanned]);
        self.handled = self.scanned;
    }

    /// Passes the scanned bytes on, after the held bytes.
    fn pass_rest(&mut self, held: &mut HeldFrames) {
        if self.straight.is_some() {
            self.hold_scanned(held, 0);
        }
    }

    fn straight_length(&self) -> usize {
        self.straight.unwrap_or(self.scanned)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::io::ReadBuf;

    use super::*;
    use crate::proxy::message::h2_frame::{CONTINUATION_FRAME, END_HEADERS_FLAG, HEADERS_FRAME};

    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// Gives a number to every stream that is higher than all before it.
    #[derive(Default)]
    struct Numbering {
        last: Cell<u32>,
        without: Cell<usize>,
        settings: RefCell<Vec<PeerSetting>>,
    }

    impl FrameObserver for Numbering {
        fn note_received(&self, head: FrameHead) -> bool {
            let is_new = head.kind == HEADERS_FRAME && head.stream > self.last.get();
            self.last.set(self.last.get().max(head.stream));
            is_new
        }

        fn note_setting(&self, setting: PeerSetting) {
            self.settings.borrow_mut().push(setting);
        }

        fn note_unnumbered(&self) {
            self.without.set(self.without.get() + 1);
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The bytes that h2 reads if `come` bytes arrive and `go` bytes are read at a time, and how many heads had no
    /// number.
    fn passed(bytes: &[u8], come: usize, go: usize) -> (Vec<u8>, usize) {
        let (mut intake, observer, mut got) = (FrameIntake::new(), Numbering::default(), Vec::new());
        for piece in [PREFACE, bytes].concat().chunks(come) {
            let (straight, too_much) = intake.scan_received(piece, &observer);
            assert_eq!(too_much, None);
            got.extend_from_slice(&piece[..straight]);
            let mut out = vec![0; go];
            loop {
                let mut out = ReadBuf::new(&mut out);
                if !intake.held.pass_released(&mut out) {
                    break;
                }
                got.extend_from_slice(out.filled());
            }
        }
        (got.split_off(PREFACE.len()), observer.without.get())
    }

    fn numbered(digits: &[u8]) -> Vec<u8> {
        [&[0x1f, 0x21, digits.len().to_le_bytes()[0]], digits].concat()
    }

    #[test]
    fn new_streams_get_their_number_field_for_every_split() {
        let block = b"\x82\x87\x84\x01\x01h";
        let (one, two) = (numbered(b"1"), numbered(b"300"));
        let with = |field: &[u8]| [block, field].concat();
        let data = frame(0, 0, 1, &[7; 20]);
        let priority = [0, 0, 0, 0, 16];
        let padded = |fields: &[u8]| [&[3][..], &priority, fields, &[0; 3]].concat();
        for (sent, expected) in [
            (frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, block), frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, &with(&one))),
            (
                frame(HEADERS_FRAME, END_HEADERS_FLAG | PADDED | PRIORITY, 300, &padded(block)),
                frame(HEADERS_FRAME, END_HEADERS_FLAG | PADDED | PRIORITY, 300, &padded(&with(&two))),
            ),
            (
                [frame(HEADERS_FRAME, 0, 1, &block[..1]), frame(CONTINUATION_FRAME, 0, 1, &block[1..4])].concat(),
                [frame(HEADERS_FRAME, 0, 1, &block[..1]), frame(CONTINUATION_FRAME, 0, 1, &block[1..4])].concat(),
            ),
            (
                [frame(HEADERS_FRAME, 0, 1, &block[..4]), frame(CONTINUATION_FRAME, END_HEADERS_FLAG, 1, &block[4..])]
                    .concat(),
                [
                    frame(HEADERS_FRAME, 0, 1, &block[..4]),
                    frame(CONTINUATION_FRAME, END_HEADERS_FLAG, 1, &[&block[4..], &one].concat()),
                ]
                .concat(),
            ),
            (
                [
                    frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, block),
                    data.clone(),
                    frame(HEADERS_FRAME, END_HEADERS_FLAG | 1, 1, block),
                ]
                .concat(),
                [
                    frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, &with(&one)),
                    data.clone(),
                    frame(HEADERS_FRAME, END_HEADERS_FLAG | 1, 1, block),
                ]
                .concat(),
            ),
        ] {
            let sent = [&frame(4, 0, 0, &[0; 6]), &sent[..], &data].concat();
            let expected = [&frame(4, 0, 0, &[0; 6]), &expected[..], &data].concat();
            for come in 1..=sent.len() + PREFACE.len() {
                for go in [1, 7, 4096] {
                    assert_eq!(passed(&sent, come, go), (expected.clone(), 0), "{come} bytes in, {go} bytes out");
                }
            }
        }
    }

    #[test]
    fn unnumberable_heads_pass_unchanged_and_are_counted() {
        let large = vec![0x82; 16 * 1024];
        for (sent, without) in [
            (frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, &large), 1),
            (frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, b""), 1),
            (frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, b"\x82\x01\x0aend"), 1),
            (frame(HEADERS_FRAME, END_HEADERS_FLAG | PADDED, 1, b"\x09\x82"), 1),
            (frame(HEADERS_FRAME, END_HEADERS_FLAG | PADDED, 1, b"\x02\0\0"), 1),
            (frame(HEADERS_FRAME, END_HEADERS_FLAG | PRIORITY, 1, b"\0\0"), 1),
            ([frame(HEADERS_FRAME, 0, 1, b"\x82"), frame(CONTINUATION_FRAME, END_HEADERS_FLAG, 1, b"")].concat(), 1),
            ([frame(HEADERS_FRAME, 0, 1, b"\x82"), frame(HEADERS_FRAME, END_HEADERS_FLAG, 1, b"\x82")].concat(), 0),
            (frame(CONTINUATION_FRAME, END_HEADERS_FLAG, 1, b"\x82"), 0),
        ] {
            for come in [1, 10, 11, 100_000] {
                assert_eq!(passed(&sent, come, 4096), (sent.clone(), without), "{sent:?}, {come} bytes in");
            }
        }
    }
}
