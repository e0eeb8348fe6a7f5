//! Where a caller's frames and header blocks begin and end, and what they have cost.
//!
//! Guarantees: pure; however the bytes are cut, the events are the same.

use crate::proxy::hpack::{BlockWalk, OddUpdate};
use crate::proxy::interim::Setting;

/// Frames that do nothing, at once: a browser opens with some ten, a careful gRPC client sends two pings for each
/// answer.
const BUDGET: u64 = 1_000;
/// What a request or a frame of data earns: Envoy allows ten window updates for each frame of data.
const EARNED: u64 = 10;
/// Bytes of answers that earn a frame: a caller that updates both windows after each 16 KiB uses two of sixteen.
const BYTES_EARN: u64 = 1_024;
/// The preface, which is no frame (section 3.4).
const PREFACE: usize = 24;
pub(super) const HEAD: usize = 9;
/// A number and a value (section 6.5.1).
const SETTING: usize = 6;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const CONTINUATION: u8 = 9;
/// Flags (section 6), and what the fields take that they announce.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PAD_LENGTH: usize = 1;
const PRIORITY_LENGTH: usize = 5;

/// What came to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The head of a frame is whole.
    Frame(FrameHead),
    /// What a frame has of a header block is whole. Whether a field could follow.
    BlockEnds { is_between_fields: bool },
    /// One of the caller's settings is whole.
    Setting(Setting),
    /// The next byte is too much.
    TooMuch(TooMuch),
}

/// See RFC 9113 section 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) payload: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    /// The most that it can have of a header block.
    pub(super) fn block_max(self) -> usize {
        let pad_length = if self.flags & PADDED > 0 { PAD_LENGTH } else { 0 };
        let priority = if self.flags & PRIORITY > 0 { PRIORITY_LENGTH } else { 0 };
        self.payload.saturating_sub(match self.kind {
            HEADERS => pad_length + priority,
            _ => 0,
        })
    }
}

/// Why a byte is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// A frame that does nothing begins there.
    Frame,
    /// A size update that may not be there.
    SizeUpdate,
}

/// Some bytes were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) taken: usize,
    pub(super) event: Option<Event>,
}

impl Step {
    fn quiet(taken: usize) -> Self {
        Self { taken, event: None }
    }

    fn to(taken: usize, event: Event) -> Self {
        Self { taken, event: Some(event) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Bytes that belong to no head: of the preface, or of a frame's payload.
    skip: usize,
    /// Whether the next byte is the length of a padding, in a payload of so many bytes.
    padded: Option<usize>,
    /// Bytes of a header block, and of the padding after it.
    block: usize,
    padding: usize,
    walk: BlockWalk,
    /// Bytes of settings, and the one that is under way.
    settings: usize,
    setting: [u8; SETTING],
    head: [u8; HEAD],
    /// Bytes of `head`, or of `setting`, that have come.
    read: usize,
    budget: u64,
    /// Bytes of answers that have earned nothing yet.
    written: u64,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE,
            padded: None,
            block: 0,
            padding: 0,
            walk: BlockWalk::default(),
            settings: 0,
            setting: [0; SETTING],
            head: [0; HEAD],
            read: 0,
            budget: BUDGET,
            written: 0,
        }
    }

    /// Looks at the next bytes, as far as the next event.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Step {
        let mut taken = 0;
        while taken < bytes.len() {
            let step = self.step(&bytes[taken..]);
            taken += step.taken;
            if step.event.is_some() {
                return Step { taken, ..step };
            }
        }
        Step::quiet(taken)
    }

    /// Bytes of a frame's head that have come, if it is not whole.
    pub(super) fn part_of_head(&self) -> usize {
        if self.settings > 0 { 0 } else { self.read }
    }

    /// Whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.skip + self.block + self.padding + self.settings + self.read == 0 && self.padded.is_none()
    }

    /// Takes some bytes, at least one, unless they are too much.
    fn step(&mut self, bytes: &[u8]) -> Step {
        if self.budget == 0 && self.is_between() {
            return Step::to(0, Event::TooMuch(TooMuch::Frame));
        }
        if let Some(payload) = self.padded.take() {
            self.begin_block(payload.saturating_sub(PAD_LENGTH), usize::from(bytes[0]));
            let is_empty = self.block == 0;
            return Step {
                taken: PAD_LENGTH,
                event: is_empty.then_some(Event::BlockEnds { is_between_fields: false }),
            };
        }
        if self.skip > 0 {
            return Step::quiet(less(&mut self.skip, bytes.len()));
        }
        if self.block > 0 {
            return self.walk(bytes);
        }
        if self.padding > 0 {
            return Step::quiet(less(&mut self.padding, bytes.len()));
        }
        if self.settings > 0 { self.take_setting(bytes) } else { self.frame_head(bytes) }
    }

    fn walk(&mut self, bytes: &[u8]) -> Step {
        let taken = less(&mut self.block, bytes.len());
        match self.walk.walk(&bytes[..taken]) {
            Err(OddUpdate(at)) => Step::to(at, Event::TooMuch(TooMuch::SizeUpdate)),
            Ok(()) if self.block > 0 => Step::quiet(taken),
            Ok(()) => Step::to(taken, Event::BlockEnds { is_between_fields: self.walk.is_between_fields() }),
        }
    }

    fn take_setting(&mut self, bytes: &[u8]) -> Step {
        let taken = (SETTING - self.read).min(bytes.len());
        self.setting[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        self.settings -= taken;
        if self.read < SETTING {
            return Step::quiet(taken);
        }
        self.read = 0;
        let [high, low, value @ ..] = self.setting;
        let setting = Setting { number: u16::from_be_bytes([high, low]), value: u32::from_be_bytes(value) };
        Step::to(taken, Event::Setting(setting))
    }

    fn frame_head(&mut self, bytes: &[u8]) -> Step {
        let taken = (HEAD - self.read).min(bytes.len());
        self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if self.read < HEAD {
            return Step::quiet(taken);
        }
        self.read = 0;
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        let head = FrameHead { payload, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff };
        self.pay_for(head);
        self.begin_frame(head);
        Step::to(taken, Event::Frame(head))
    }

    fn pay_for(&mut self, head: FrameHead) {
        match (head.kind, head.payload) {
            (HEADERS, _) | (DATA, 1..) => self.earn(EARNED),
            (CONTINUATION, _) => {} // h2 has its own limit
            _ => self.budget = self.budget.saturating_sub(1),
        }
    }

    fn begin_frame(&mut self, FrameHead { payload, kind, flags, .. }: FrameHead) {
        match kind {
            HEADERS => {
                self.walk = BlockWalk::default();
                match flags & PADDED {
                    0 => self.begin_block(payload, 0),
                    _ => self.padded = Some(payload).filter(|payload| *payload > 0),
                }
            }
            CONTINUATION => self.block = payload,
            SETTINGS if payload.is_multiple_of(SETTING) => self.settings = payload,
            _ => self.skip = payload,
        }
    }

    /// The rest of a payload of HEADERS: the priority if there is one, the block, the padding. What does not fit h2
    /// refuses.
    fn begin_block(&mut self, rest: usize, padding: usize) {
        let priority = if self.head[4] & PRIORITY > 0 { PRIORITY_LENGTH } else { 0 };
        self.skip = priority.min(rest);
        self.padding = padding.min(rest - self.skip);
        self.block = rest - self.skip - self.padding;
    }

    pub(super) fn earn(&mut self, frames: u64) {
        self.budget = self.budget.saturating_add(frames).min(BUDGET);
    }

    /// So many bytes of answers were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.earn(self.written / BYTES_EARN);
        self.written %= BYTES_EARN;
    }
}

/// Takes as much as there is, and leaves the rest.
pub(super) fn less(left: &mut usize, come: usize) -> usize {
    let taken = come.min(*left);
    *left -= taken;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD + usize::from(length), 7);
        frame
    }

    fn opened() -> Scanner {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.next(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Step::quiet(PREFACE));
        scanner
    }

    /// All that comes to light, and how many bytes are let through, if so many come at a time.
    fn scanned(scanner: &mut Scanner, bytes: &[u8], at_a_time: usize) -> (Vec<Event>, usize) {
        let (mut events, mut passed) = (Vec::new(), 0);
        for mut piece in bytes.chunks(at_a_time) {
            while !piece.is_empty() {
                let step = scanner.next(piece);
                passed += step.taken;
                piece = &piece[step.taken..];
                events.extend(step.event);
                if matches!(step.event, Some(Event::TooMuch(_))) {
                    return (events, passed);
                }
            }
        }
        (events, passed)
    }

    fn let_through(scanner: &mut Scanner, bytes: &[u8], at_a_time: usize) -> usize {
        scanned(scanner, bytes, at_a_time).1
    }

    #[test]
    fn what_does_nothing_is_let_through_until_the_budget_is_used_up_however_it_is_cut() {
        for at_a_time in [1, 5, 17, 100, 4096] {
            let pings = frame(PING, 8).repeat(5000);
            let passed = let_through(&mut opened(), &pings, at_a_time);
            assert_eq!(passed, BUDGET as usize * 17, "{at_a_time} bytes at a time");
        }
    }

    #[test]
    fn requests_and_data_and_answers_earn_as_much_as_callers_need() {
        let upload = [frame(DATA, 100), frame(PING, 8), frame(WINDOW_UPDATE, 4)].concat().repeat(5000);
        assert_eq!(let_through(&mut opened(), &upload, 999), upload.len());
        let calls = [frame(HEADERS, 20), frame(PING, 8), frame(PING, 8)].concat().repeat(5000);
        assert_eq!(let_through(&mut opened(), &calls, 999), calls.len());
        let (mut download, updates) = (opened(), frame(WINDOW_UPDATE, 4).repeat(2));
        for _ in 0..5000 {
            download.wrote(16 * 1024);
            assert_eq!(let_through(&mut download, &updates, 999), updates.len());
        }
    }

    #[test]
    fn empty_data_and_unknown_kinds_do_nothing() {
        for kind in [DATA, 99] {
            let frames = frame(kind, 0).repeat(5000);
            assert_eq!(let_through(&mut opened(), &frames, 999), BUDGET as usize * HEAD);
        }
    }

    /// HEADERS or CONTINUATION of a block, with these flags and what they announce.
    fn head(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn size_updates_are_found_behind_padding_and_priority_and_in_continuations() {
        let begun = [0x20, 0x20, 0x82];
        let three = [0x20, 0x20, 0x20];
        for (frames, at) in [
            (head(HEADERS, 0, &three), HEAD + 2),
            (head(HEADERS, PRIORITY, &[&[0x20; 5][..], &three].concat()), HEAD + 7),
            (head(HEADERS, PADDED, &[&[4][..], &three, &[0x20; 4]].concat()), HEAD + 3),
            (head(HEADERS, PADDED | PRIORITY, &[&[1][..], &[0x20; 5], &three, &[0]].concat()), HEAD + 8),
            ([head(HEADERS, 0, &begun), head(CONTINUATION, 0, &[0x20])].concat(), 2 * HEAD + 3),
            ([head(HEADERS, 0, &[0x20]), head(CONTINUATION, 0, &[0x20, 0x20])].concat(), 2 * HEAD + 2),
        ] {
            for at_a_time in 1..=frames.len() {
                assert_eq!(let_through(&mut opened(), &frames, at_a_time), at, "{frames:?}, {at_a_time} at a time");
            }
        }
        let twice = [head(HEADERS, PADDED, &[&[9][..], &begun, &[0x20; 9]].concat()), head(HEADERS, 0, &begun)];
        let good = [&twice[..], &[head(HEADERS, PADDED, &[200]), head(HEADERS, PADDED, &[]), frame(PING, 8)]].concat();
        for at_a_time in 1..=60 {
            assert_eq!(let_through(&mut opened(), &good.concat(), at_a_time), good.concat().len());
        }
    }

    #[test]
    fn heads_blocks_and_settings_are_told_however_they_are_cut() {
        let settings = [&[0, 0, 12, SETTINGS, 0, 0, 0, 0, 0][..], &[0, 1, 0, 0, 16, 0], &[0, 6, 0, 0, 0, 64]].concat();
        let frames = [
            settings,
            head(HEADERS, END_HEADERS | PADDED, &[2, 0x82, 0, 0]),
            frame(DATA, 20),
            head(CONTINUATION, 0, &[0x40]),
            head(HEADERS, 0, &[]),
        ]
        .concat();
        let told = |payload, kind, flags, stream| Event::Frame(FrameHead { payload, kind, flags, stream });
        for at_a_time in 1..=frames.len() {
            let expected = [
                told(12, SETTINGS, 0, 0),
                Event::Setting(Setting { number: 1, value: 4096 }),
                Event::Setting(Setting { number: 6, value: 64 }),
                told(4, HEADERS, END_HEADERS | PADDED, 1),
                Event::BlockEnds { is_between_fields: true },
                told(20, DATA, 0, 0),
                told(1, CONTINUATION, 0, 1),
                Event::BlockEnds { is_between_fields: false },
                told(0, HEADERS, 0, 1),
            ];
            assert_eq!(scanned(&mut opened(), &frames, at_a_time).0, expected, "{at_a_time} at a time");
        }
    }
}
