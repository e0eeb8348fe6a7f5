//! Parses where a caller's HTTP/2 frames and header blocks begin and end, and charges them to the frame budget.
//!
//! Guarantees:
//! - Pure: no I/O and no shared state.
//! - The events do not depend on how the bytes are split.

use crate::proxy::downstream::hpack::{HeaderBlockWalk, UnexpectedSizeUpdate};
use crate::proxy::message::h2_frame::{
    CONTINUATION_FRAME, DATA_FRAME, FRAME_HEAD_LENGTH, HEADERS_FRAME, PADDED_FLAG, PRIORITY_FLAG, SETTINGS_FRAME,
};
use crate::proxy::message::interim_response::PeerSetting;

/// The initial and maximum budget of frames without effect. A browser opens with about ten; a careful gRPC client sends
/// two pings per response.
const FRAMES_INITIAL: u64 = 1_000;
/// The budget that a request or a frame of data earns. Envoy allows ten window updates per frame of data.
const FRAMES_PER_REQUEST: u64 = 10;
/// Response bytes that earn one frame. A caller that updates both windows after each 16 KiB uses two of the sixteen.
const BYTES_PER_FRAME: u64 = 1_024;
/// The connection preface, which is not a frame (RFC 9113 section 3.4).
const PREFACE_LENGTH: usize = 24;
/// An identifier and a value (section 6.5.1).
const SETTING_LENGTH: usize = 6;

/// The lengths of the fields that the flags PADDED and PRIORITY announce.
const PAD_LENGTH: usize = 1;
const PRIORITY_LENGTH: usize = 5;

/// An event of the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanEvent {
    /// The head of a frame is complete.
    Frame(FrameHead),
    /// The part of a header block in this frame is complete. `is_between_fields` if a field could follow.
    BlockEnds { is_between_fields: bool },
    /// One setting of the caller is complete.
    Setting(PeerSetting),
    /// The next byte exceeds the budget.
    BudgetExceeded(BudgetExceeded),
}

/// The head of a frame (RFC 9113 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) payload: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    /// The maximum number of header block bytes in this frame.
    pub(crate) fn block_max(self) -> usize {
        let pad_length = if self.flags & PADDED_FLAG > 0 { PAD_LENGTH } else { 0 };
        let priority = if self.flags & PRIORITY_FLAG > 0 { PRIORITY_LENGTH } else { 0 };
        self.payload.saturating_sub(match self.kind {
            HEADERS_FRAME => pad_length + priority,
            _ => 0,
        })
    }
}

/// Why a byte exceeds the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetExceeded {
    /// A frame without effect begins.
    Frame,
    /// A dynamic table size update that is not allowed.
    SizeUpdate,
}

/// One step of the scanner: the bytes it took, and its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanStep {
    pub(crate) taken: usize,
    pub(crate) event: Option<ScanEvent>,
}

impl ScanStep {
    fn without_event(taken: usize) -> Self {
        Self { taken, event: None }
    }

    fn with_event(taken: usize, event: ScanEvent) -> Self {
        Self { taken, event: Some(event) }
    }
}

/// Scans the frames of one connection and keeps their budget.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    /// The remaining bytes to skip: of the preface, or of a frame's payload.
    skip: usize,
    /// Set if the next byte is the pad length; the value is the length of the payload.
    padded: Option<usize>,
    /// The remaining bytes of a header block, and of the padding after it.
    block_left: usize,
    padding_left: usize,
    block_walk: HeaderBlockWalk,
    /// The remaining bytes of settings, and the incomplete setting.
    settings: usize,
    setting: [u8; SETTING_LENGTH],
    head: [u8; FRAME_HEAD_LENGTH],
    /// Bytes of `head`, or of `setting`, that have arrived.
    head_read: usize,
    budget: u64,
    /// Response bytes that have not earned a frame yet.
    written: u64,
}

impl FrameScanner {
    pub(crate) fn new() -> Self {
        Self {
            skip: PREFACE_LENGTH,
            padded: None,
            block_left: 0,
            padding_left: 0,
            block_walk: HeaderBlockWalk::default(),
            settings: 0,
            setting: [0; SETTING_LENGTH],
            head: [0; FRAME_HEAD_LENGTH],
            head_read: 0,
            budget: FRAMES_INITIAL,
            written: 0,
        }
    }

    /// Scans bytes up to the next event.
    pub(crate) fn next_event(&mut self, bytes: &[u8]) -> ScanStep {
        let mut taken = 0;
        while taken < bytes.len() {
            let step = self.scan_step(&bytes[taken..]);
            taken += step.taken;
            if step.event.is_some() {
                return ScanStep { taken, ..step };
            }
        }
        ScanStep::without_event(taken)
    }

    /// The bytes of an incomplete frame head that have arrived.
    pub(crate) fn partial_head_length(&self) -> usize {
        if self.settings > 0 { 0 } else { self.head_read }
    }

    /// Whether the next byte begins a frame.
    fn is_frame_boundary(&self) -> bool {
        self.skip + self.block_left + self.padding_left + self.settings + self.head_read == 0 && self.padded.is_none()
    }

    /// Takes at least one byte, unless the next byte exceeds the budget.
    fn scan_step(&mut self, bytes: &[u8]) -> ScanStep {
        if self.budget == 0 && self.is_frame_boundary() {
            return ScanStep::with_event(0, ScanEvent::BudgetExceeded(BudgetExceeded::Frame));
        }
        if let Some(payload) = self.padded.take() {
            self.begin_block(payload.saturating_sub(PAD_LENGTH), usize::from(bytes[0]));
            let is_empty = self.block_left == 0;
            return ScanStep {
                taken: PAD_LENGTH,
                event: is_empty.then_some(ScanEvent::BlockEnds { is_between_fields: false }),
            };
        }
        if self.skip > 0 {
            return ScanStep::without_event(consume_up_to(&mut self.skip, bytes.len()));
        }
        if self.block_left > 0 {
            return self.walk_block(bytes);
        }
        if self.padding_left > 0 {
            return ScanStep::without_event(consume_up_to(&mut self.padding_left, bytes.len()));
        }
        if self.settings > 0 { self.take_setting(bytes) } else { self.read_frame_head(bytes) }
    }

    fn walk_block(&mut self, bytes: &[u8]) -> ScanStep {
        let taken = consume_up_to(&mut self.block_left, bytes.len());
        match self.block_walk.walk(&bytes[..taken]) {
            Err(UnexpectedSizeUpdate(at)) => {
                ScanStep::with_event(at, ScanEvent::BudgetExceeded(BudgetExceeded::SizeUpdate))
            }
            Ok(()) if self.block_left > 0 => ScanStep::without_event(taken),
            Ok(()) => ScanStep::with_event(
                taken,
                ScanEvent::BlockEnds { is_between_fields: self.block_walk.is_between_fields() },
            ),
        }
    }

    fn take_setting(&mut self, bytes: &[u8]) -> ScanStep {
        let taken = (SETTING_LENGTH - self.head_read).min(bytes.len());
        self.setting[self.head_read..self.head_read + taken].copy_from_slice(&bytes[..taken]);
        self.head_read += taken;
        self.settings -= taken;
        if self.head_read < SETTING_LENGTH {
            return ScanStep::without_event(taken);
        }
        self.head_read = 0;
        let [high, low, value @ ..] = self.setting;
        let setting = PeerSetting { number: u16::from_be_bytes([high, low]), value: u32::from_be_bytes(value) };
        ScanStep::with_event(taken, ScanEvent::Setting(setting))
    }

    fn read_frame_head(&mut self, bytes: &[u8]) -> ScanStep {
        let taken = (FRAME_HEAD_LENGTH - self.head_read).min(bytes.len());
        self.head[self.head_read..self.head_read + taken].copy_from_slice(&bytes[..taken]);
        self.head_read += taken;
        if self.head_read < FRAME_HEAD_LENGTH {
            return ScanStep::without_event(taken);
        }
        self.head_read = 0;
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        let head = FrameHead { payload, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff };
        self.charge_frame(head);
        self.begin_frame(head);
        ScanStep::with_event(taken, ScanEvent::Frame(head))
    }

    fn charge_frame(&mut self, head: FrameHead) {
        match (head.kind, head.payload) {
            (HEADERS_FRAME, _) | (DATA_FRAME, 1..) => self.credit(FRAMES_PER_REQUEST),
            (CONTINUATION_FRAME, _) => {} // h2 has its own limit.
            _ => self.budget = self.budget.saturating_sub(1),
        }
    }

    fn begin_frame(&mut self, FrameHead { payload, kind, flags, .. }: FrameHead) {
        match kind {
            HEADERS_FRAME => {
                self.block_walk = HeaderBlockWalk::default();
                match flags & PADDED_FLAG {
                    0 => self.begin_block(payload, 0),
                    _ => self.padded = Some(payload).filter(|payload| *payload > 0),
                }
            }
            CONTINUATION_FRAME => self.block_left = payload,
            SETTINGS_FRAME if payload.is_multiple_of(SETTING_LENGTH) => self.settings = payload,
            _ => self.skip = payload,
        }
    }

    /// Begins the rest of a HEADERS payload: the priority if present, the block, the padding. h2 rejects a block that
    /// does not fit.
    fn begin_block(&mut self, rest: usize, padding: usize) {
        let priority = if self.head[4] & PRIORITY_FLAG > 0 { PRIORITY_LENGTH } else { 0 };
        self.skip = priority.min(rest);
        self.padding_left = padding.min(rest - self.skip);
        self.block_left = rest - self.skip - self.padding_left;
    }

    pub(crate) fn credit(&mut self, frames: u64) {
        self.budget = self.budget.saturating_add(frames).min(FRAMES_INITIAL);
    }

    /// Response bytes were written; they earn budget.
    pub(crate) fn credit_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.credit(self.written / BYTES_PER_FRAME);
        self.written %= BYTES_PER_FRAME;
    }
}

/// Takes at most `available` from `left`, and returns the amount.
pub(crate) fn consume_up_to(left: &mut usize, available: usize) -> usize {
    let taken = available.min(*left);
    *left -= taken;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::message::h2_frame::END_HEADERS_FLAG;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(FRAME_HEAD_LENGTH + usize::from(length), 7);
        frame
    }

    fn opened() -> FrameScanner {
        let mut scanner = FrameScanner::new();
        assert_eq!(scanner.next_event(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ScanStep::without_event(PREFACE_LENGTH));
        scanner
    }

    /// The events, and how many bytes pass, if `at_a_time` bytes arrive at a time.
    fn scanned(scanner: &mut FrameScanner, bytes: &[u8], at_a_time: usize) -> (Vec<ScanEvent>, usize) {
        let (mut events, mut passed) = (Vec::new(), 0);
        for mut piece in bytes.chunks(at_a_time) {
            while !piece.is_empty() {
                let step = scanner.next_event(piece);
                passed += step.taken;
                piece = &piece[step.taken..];
                events.extend(step.event);
                if matches!(step.event, Some(ScanEvent::BudgetExceeded(_))) {
                    return (events, passed);
                }
            }
        }
        (events, passed)
    }

    fn bytes_until_exhausted(scanner: &mut FrameScanner, bytes: &[u8], at_a_time: usize) -> usize {
        scanned(scanner, bytes, at_a_time).1
    }

    #[test]
    fn control_frames_pass_until_the_budget_is_exhausted_for_every_split() {
        for at_a_time in [1, 5, 17, 100, 4096] {
            let pings = frame(PING, 8).repeat(5000);
            let passed = bytes_until_exhausted(&mut opened(), &pings, at_a_time);
            assert_eq!(passed, FRAMES_INITIAL as usize * 17, "{at_a_time} bytes at a time");
        }
    }

    #[test]
    fn requests_data_and_responses_earn_the_budget_of_normal_clients() {
        let upload = [frame(DATA_FRAME, 100), frame(PING, 8), frame(WINDOW_UPDATE, 4)].concat().repeat(5000);
        assert_eq!(bytes_until_exhausted(&mut opened(), &upload, 999), upload.len());
        let calls = [frame(HEADERS_FRAME, 20), frame(PING, 8), frame(PING, 8)].concat().repeat(5000);
        assert_eq!(bytes_until_exhausted(&mut opened(), &calls, 999), calls.len());
        let (mut download, updates) = (opened(), frame(WINDOW_UPDATE, 4).repeat(2));
        for _ in 0..5000 {
            download.credit_written(16 * 1024);
            assert_eq!(bytes_until_exhausted(&mut download, &updates, 999), updates.len());
        }
    }

    #[test]
    fn empty_data_and_unknown_frame_types_have_no_event() {
        for kind in [DATA_FRAME, 99] {
            let frames = frame(kind, 0).repeat(5000);
            assert_eq!(bytes_until_exhausted(&mut opened(), &frames, 999), FRAMES_INITIAL as usize * FRAME_HEAD_LENGTH);
        }
    }

    /// HEADERS or CONTINUATION with this payload and these flags.
    fn head(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn size_updates_are_found_behind_padding_and_priority_and_in_continuations() {
        let begun = [0x20, 0x20, 0x82];
        let three = [0x20, 0x20, 0x20];
        for (frames, at) in [
            (head(HEADERS_FRAME, 0, &three), FRAME_HEAD_LENGTH + 2),
            (head(HEADERS_FRAME, PRIORITY_FLAG, &[&[0x20; 5][..], &three].concat()), FRAME_HEAD_LENGTH + 7),
            (head(HEADERS_FRAME, PADDED_FLAG, &[&[4][..], &three, &[0x20; 4]].concat()), FRAME_HEAD_LENGTH + 3),
            (
                head(HEADERS_FRAME, PADDED_FLAG | PRIORITY_FLAG, &[&[1][..], &[0x20; 5], &three, &[0]].concat()),
                FRAME_HEAD_LENGTH + 8,
            ),
            (
                [head(HEADERS_FRAME, 0, &begun), head(CONTINUATION_FRAME, 0, &[0x20])].concat(),
                2 * FRAME_HEAD_LENGTH + 3,
            ),
            (
                [head(HEADERS_FRAME, 0, &[0x20]), head(CONTINUATION_FRAME, 0, &[0x20, 0x20])].concat(),
                2 * FRAME_HEAD_LENGTH + 2,
            ),
        ] {
            for at_a_time in 1..=frames.len() {
                assert_eq!(
                    bytes_until_exhausted(&mut opened(), &frames, at_a_time),
                    at,
                    "{frames:?}, {at_a_time} at a time"
                );
            }
        }
        let twice = [
            head(HEADERS_FRAME, PADDED_FLAG, &[&[9][..], &begun, &[0x20; 9]].concat()),
            head(HEADERS_FRAME, 0, &begun),
        ];
        let good = [
            &twice[..],
            &[head(HEADERS_FRAME, PADDED_FLAG, &[200]), head(HEADERS_FRAME, PADDED_FLAG, &[]), frame(PING, 8)],
        ]
        .concat();
        for at_a_time in 1..=60 {
            assert_eq!(bytes_until_exhausted(&mut opened(), &good.concat(), at_a_time), good.concat().len());
        }
    }

    #[test]
    fn headers_blocks_and_settings_are_reported_for_every_split() {
        let settings =
            [&[0, 0, 12, SETTINGS_FRAME, 0, 0, 0, 0, 0][..], &[0, 1, 0, 0, 16, 0], &[0, 6, 0, 0, 0, 64]].concat();
        let frames = [
            settings,
            head(HEADERS_FRAME, END_HEADERS_FLAG | PADDED_FLAG, &[2, 0x82, 0, 0]),
            frame(DATA_FRAME, 20),
            head(CONTINUATION_FRAME, 0, &[0x40]),
            head(HEADERS_FRAME, 0, &[]),
        ]
        .concat();
        let frame_event = |payload, kind, flags, stream| ScanEvent::Frame(FrameHead { payload, kind, flags, stream });
        for at_a_time in 1..=frames.len() {
            let expected = [
                frame_event(12, SETTINGS_FRAME, 0, 0),
                ScanEvent::Setting(PeerSetting { number: 1, value: 4096 }),
                ScanEvent::Setting(PeerSetting { number: 6, value: 64 }),
                frame_event(4, HEADERS_FRAME, END_HEADERS_FLAG | PADDED_FLAG, 1),
                ScanEvent::BlockEnds { is_between_fields: true },
                frame_event(20, DATA_FRAME, 0, 0),
                frame_event(1, CONTINUATION_FRAME, 0, 1),
                ScanEvent::BlockEnds { is_between_fields: false },
                frame_event(0, HEADERS_FRAME, 0, 1),
            ];
            assert_eq!(scanned(&mut opened(), &frames, at_a_time).0, expected, "{at_a_time} at a time");
        }
    }
}
