//! What a caller sends on its way to h2: looked at ([`Scanner`]), and held where a head gets its number ([`Held`]).
//!
//! Guarantees: however the bytes are cut, h2 gets the same; a head that opens a stream has its number when it goes on,
//! or [`Watch::has_no_number`] was called before.

use crate::proxy::interim::Setting;

use super::held::Held;
use super::scanner::{Event, FrameHead, HEAD, Scanner, TooMuch};

/// Is told what comes to light.
pub(super) trait Watch {
    /// A frame begins. Whether it is the head of a new stream, which gets its number.
    fn came(&self, head: FrameHead) -> bool;
    /// One of the caller's settings.
    fn set(&self, setting: Setting);
    /// The head of a new stream goes on without its number.
    fn has_no_number(&self);
}

/// See the module.
pub(super) struct Intake {
    scanner: Scanner,
    pub(super) held: Held,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { scanner: Scanner::new(), held: Held::default() }
    }

    /// What the caller may do in vain grows by so many frames.
    pub(super) fn earn(&mut self, frames: u64) {
        self.scanner.earn(frames);
    }

    /// So many bytes of answers were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.scanner.wrote(bytes);
    }

    /// Looks at what came. How many of the first bytes go on from where they are; the others are held, or left out as
    /// too much.
    pub(super) fn look(&mut self, came: &[u8], watch: &impl Watch) -> (usize, Option<TooMuch>) {
        let mut cut = Cut::new(came, self.held.is_empty());
        while cut.looked < came.len() {
            let step = self.scanner.next(&came[cut.looked..]);
            cut.looked += step.taken;
            match step.event {
                Some(Event::Frame(head)) => self.begin_frame(head, &mut cut, watch),
                Some(Event::BlockEnds { is_between_fields }) => self.end_block(is_between_fields, &mut cut, watch),
                Some(Event::Setting(setting)) => watch.set(setting),
                Some(Event::TooMuch(too_much)) => {
                    cut.rest(&mut self.held);
                    self.held.release_all();
                    return (cut.straight(), Some(too_much));
                }
                None => {}
            }
        }
        self.release(&mut cut);
        (cut.straight(), None)
    }

    fn begin_frame(&mut self, head: FrameHead, cut: &mut Cut<'_>, watch: &impl Watch) {
        let is_new = watch.came(head);
        if self.held.begin(head, is_new) {
            cut.hold(&mut self.held, HEAD);
            self.held.note_frame();
        } else if self.held.has_no_number(head) {
            watch.has_no_number();
        }
    }

    fn end_block(&mut self, is_between_fields: bool, cut: &mut Cut<'_>, watch: &impl Watch) {
        if !self.held.waits() {
            return;
        }
        cut.hold(&mut self.held, 0);
        if !self.held.end_block(is_between_fields) {
            watch.has_no_number();
        }
    }

    /// All was looked at: it goes on, but for a frame that is not whole, and for a part of a frame's head.
    fn release(&mut self, cut: &mut Cut<'_>) {
        let part = self.scanner.part_of_head();
        if part > 0 {
            cut.hold(&mut self.held, part);
        } else {
            cut.rest(&mut self.held);
        }
        self.held.release(part);
    }
}

/// Bytes that came, and how far they are dealt with.
struct Cut<'a> {
    came: &'a [u8],
    looked: usize,
    /// How many of them are held, or go on from where they are.
    done: usize,
    /// How many go on from where they are, once something is held.
    straight: Option<usize>,
}

impl<'a> Cut<'a> {
    fn new(came: &'a [u8], may_go_straight: bool) -> Self {
        Self { came, looked: 0, done: 0, straight: (!may_go_straight).then_some(0) }
    }

    /// Holds what was looked at: of bytes that go straight, the last `tail` only.
    fn hold(&mut self, held: &mut Held, tail: usize) {
        if self.straight.is_none() {
            self.done = self.looked.saturating_sub(tail);
            self.straight = Some(self.done);
        }
        held.put(&self.came[self.done..self.looked]);
        self.done = self.looked;
    }

    /// What was looked at goes on, behind what is held.
    fn rest(&mut self, held: &mut Held) {
        if self.straight.is_some() {
            self.hold(held, 0);
        }
    }

    fn straight(&self) -> usize {
        self.straight.unwrap_or(self.looked)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::io::ReadBuf;

    use super::super::scanner::{CONTINUATION, END_HEADERS, HEADERS};
    use super::*;

    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// Numbers every stream that is higher than those before it.
    #[derive(Default)]
    struct Numbering {
        last: Cell<u32>,
        without: Cell<usize>,
        settings: RefCell<Vec<Setting>>,
    }

    impl Watch for Numbering {
        fn came(&self, head: FrameHead) -> bool {
            let is_new = head.kind == HEADERS && head.stream > self.last.get();
            self.last.set(self.last.get().max(head.stream));
            is_new
        }

        fn set(&self, setting: Setting) {
            self.settings.borrow_mut().push(setting);
        }

        fn has_no_number(&self) {
            self.without.set(self.without.get() + 1);
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// What h2 gets, if so many bytes come at a time, and it takes so many at a time; and how many heads had no number.
    fn passed(bytes: &[u8], come: usize, go: usize) -> (Vec<u8>, usize) {
        let (mut intake, watch, mut got) = (Intake::new(), Numbering::default(), Vec::new());
        for piece in [PREFACE, bytes].concat().chunks(come) {
            let (straight, too_much) = intake.look(piece, &watch);
            assert_eq!(too_much, None);
            got.extend_from_slice(&piece[..straight]);
            let mut out = vec![0; go];
            loop {
                let mut out = ReadBuf::new(&mut out);
                if !intake.held.hand_on(&mut out) {
                    break;
                }
                got.extend_from_slice(out.filled());
            }
        }
        (got.split_off(PREFACE.len()), watch.without.get())
    }

    fn numbered(digits: &[u8]) -> Vec<u8> {
        [&[0x1f, 0x21, digits.len().to_le_bytes()[0]], digits].concat()
    }

    #[test]
    fn heads_of_new_streams_get_their_number_however_they_are_cut() {
        let block = b"\x82\x87\x84\x01\x01h";
        let (one, two) = (numbered(b"1"), numbered(b"300"));
        let with = |field: &[u8]| [block, field].concat();
        let data = frame(0, 0, 1, &[7; 20]);
        let priority = [0, 0, 0, 0, 16];
        let padded = |fields: &[u8]| [&[3][..], &priority, fields, &[0; 3]].concat();
        for (sent, expected) in [
            (frame(HEADERS, END_HEADERS, 1, block), frame(HEADERS, END_HEADERS, 1, &with(&one))),
            (
                frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 300, &padded(block)),
                frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 300, &padded(&with(&two))),
            ),
            (
                [frame(HEADERS, 0, 1, &block[..1]), frame(CONTINUATION, 0, 1, &block[1..4])].concat(),
                [frame(HEADERS, 0, 1, &block[..1]), frame(CONTINUATION, 0, 1, &block[1..4])].concat(),
            ),
            (
                [frame(HEADERS, 0, 1, &block[..4]), frame(CONTINUATION, END_HEADERS, 1, &block[4..])].concat(),
                [frame(HEADERS, 0, 1, &block[..4]), frame(CONTINUATION, END_HEADERS, 1, &[&block[4..], &one].concat())]
                    .concat(),
            ),
            (
                [frame(HEADERS, END_HEADERS, 1, block), data.clone(), frame(HEADERS, END_HEADERS | 1, 1, block)]
                    .concat(),
                [frame(HEADERS, END_HEADERS, 1, &with(&one)), data.clone(), frame(HEADERS, END_HEADERS | 1, 1, block)]
                    .concat(),
            ),
        ] {
            let sent = [&frame(4, 0, 0, &[0; 6]), &sent[..], &data].concat();
            let expected = [&frame(4, 0, 0, &[0; 6]), &expected[..], &data].concat();
            for come in 1..=sent.len() + PREFACE.len() {
                for go in [1, 7, 4096] {
                    assert_eq!(passed(&sent, come, go), (expected.clone(), 0), "{come} come, {go} go");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_numbered_goes_on_as_it_is_and_is_told() {
        let large = vec![0x82; 16 * 1024];
        for (sent, without) in [
            (frame(HEADERS, END_HEADERS, 1, &large), 1),
            (frame(HEADERS, END_HEADERS, 1, b""), 1),
            (frame(HEADERS, END_HEADERS, 1, b"\x82\x01\x0aend"), 1),
            (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09\x82"), 1),
            (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x02\0\0"), 1),
            (frame(HEADERS, END_HEADERS | PRIORITY, 1, b"\0\0"), 1),
            ([frame(HEADERS, 0, 1, b"\x82"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(), 1),
            ([frame(HEADERS, 0, 1, b"\x82"), frame(HEADERS, END_HEADERS, 1, b"\x82")].concat(), 0),
            (frame(CONTINUATION, END_HEADERS, 1, b"\x82"), 0),
        ] {
            for come in [1, 10, 11, 100_000] {
                assert_eq!(passed(&sent, come, 4096), (sent.clone(), without), "{sent:?}, {come} come");
            }
        }
    }
}
