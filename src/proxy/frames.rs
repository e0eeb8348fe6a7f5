//! A caller's HTTP/2 frames, as far as they do nothing: settings, pings, priorities, window updates, resets, empty data, unknown
//! kinds (RFC 9113 section 10.5). h2 answers or ignores each, so a caller that sends nothing else costs a whole core. The same
//! holds for updates of the compression table's size ([`super::hpack`]).
//!
//! Guarantees: such frames come out of a budget that grows with what is worth something (a request, data, bytes of answers, time);
//! a caller that has used it up is told ENHANCE_YOUR_CALM and its connection ends. Reads frame heads, and header blocks as far as fields begin; every frame that is
//! let through is passed on byte for byte. Tells [`Heads`] which streams are opened, answered and reset. Notes in the connection's pulse whether its caller takes what is written. Leaves
//! everything that frames say to h2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::telemetry::LimitHit;

use super::heads::{Heads, OwnFrames};
use super::hpack::{BlockWalk, OddUpdate};
use super::pulse::Pulse;
use super::worker::Worker;

/// Frames that do nothing, at once: a browser opens with some ten, a careful gRPC client sends two pings for each answer.
const BUDGET: u64 = 1_000;
/// What a request or a frame of data earns: Envoy allows ten window updates for each frame of data.
const EARNED: u64 = 10;
/// Bytes of answers that earn a frame: a caller that updates both windows after each 16 KiB uses two of sixteen.
const BYTES_EARN: u64 = 1_024;
/// The preface, which is no frame (section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Flags of HEADERS (section 6.2), and what the fields take that they announce.
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PAD_LENGTH: usize = 1;
const PRIORITY_LENGTH: usize = 5;

/// A head that never ends: h2 answers it with ENHANCE_YOUR_CALM, and has no other door through which we could ask it to.
const ENDLESS: [[u8; HEAD]; 2] = [[0, 0, 0, HEADERS, 0, 0, 0, 0, 1], [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1]];
/// What follows the beginning of a header block that is not to be decoded: an integer without end (RFC 7541 section 5.1), and
/// where the frame is over, a length beyond all frames. h2 ends the connection with PROTOCOL_ERROR or FRAME_SIZE_ERROR.
const NONSENSE: u8 = 0xff;

/// See the module.
pub(super) struct Frames<S> {
    stream: S,
    scanner: Scanner,
    over: Option<Over>,
    heads: Rc<Heads>,
    own: OwnFrames,
    pulse: Rc<Pulse>,
    seen: Instant,
    worker: Rc<Worker>,
}

/// What h2 reads in the place of its caller, once that has sent too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// So many bytes of [`ENDLESS`] have been read.
    Endless(usize),
    /// [`NONSENSE`], to the end.
    Nonsense,
}

/// The first byte that is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooMuch {
    /// A frame that does nothing begins there.
    Frame(usize),
    /// A size update that may not be there.
    SizeUpdate(usize),
}

/// Where frames and header blocks begin, and what they have cost.
#[derive(Debug)]
struct Scanner {
    /// Bytes that belong to no head: of the preface, or of a frame's payload.
    skip: usize,
    /// Whether the next byte is the length of a padding, in a payload of so many bytes.
    padded: Option<usize>,
    /// Bytes of a header block, and of the padding after it.
    block: usize,
    padding: usize,
    walk: BlockWalk,
    head: [u8; HEAD],
    read: usize,
    budget: u64,
    /// Bytes of answers that have earned nothing yet.
    written: u64,
}

impl Scanner {
    fn new() -> Self {
        Self {
            skip: PREFACE,
            padded: None,
            block: 0,
            padding: 0,
            walk: BlockWalk::default(),
            head: [0; HEAD],
            read: 0,
            budget: BUDGET,
            written: 0,
        }
    }

    /// Looks at what came; where it is too much, if it is. Tells the stream of each frame, and whether it is HEADERS.
    fn scan(&mut self, bytes: &[u8], mut came: impl FnMut(u32, bool)) -> Option<TooMuch> {
        let mut at = 0;
        while at < bytes.len() {
            if self.budget == 0 && self.is_between() {
                return Some(TooMuch::Frame(at));
            }
            match self.step(&bytes[at..], &mut came) {
                Ok(taken) => at += taken,
                Err(OddUpdate(further)) => return Some(TooMuch::SizeUpdate(at + further)),
            }
        }
        None
    }

    /// Whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.skip + self.block + self.padding + self.read == 0 && self.padded.is_none()
    }

    /// Takes some bytes, at least one.
    fn step(&mut self, bytes: &[u8], came: &mut impl FnMut(u32, bool)) -> Result<usize, OddUpdate> {
        if let Some(payload) = self.padded.take() {
            self.begin_block(payload.saturating_sub(PAD_LENGTH), usize::from(bytes[0]));
            return Ok(PAD_LENGTH);
        }
        if self.skip > 0 {
            return Ok(less(&mut self.skip, bytes.len()));
        }
        if self.block > 0 {
            let taken = less(&mut self.block, bytes.len());
            return self.walk.walk(&bytes[..taken]).map(|()| taken);
        }
        if self.padding > 0 {
            return Ok(less(&mut self.padding, bytes.len()));
        }
        Ok(self.frame_head(bytes, came))
    }

    fn frame_head(&mut self, bytes: &[u8], came: &mut impl FnMut(u32, bool)) -> usize {
        let taken = (HEAD - self.read).min(bytes.len());
        self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if self.read == HEAD {
            self.begin_frame(came);
        }
        taken
    }

    fn begin_frame(&mut self, came: &mut impl FnMut(u32, bool)) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        let payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.read = 0;
        match (kind, payload) {
            (HEADERS, _) | (DATA, 1..) => self.earn(EARNED),
            (CONTINUATION, _) => {} // h2 has its own limit
            _ => self.budget = self.budget.saturating_sub(1),
        }
        came(u32::from_be_bytes(stream) & 0x7fff_ffff, kind == HEADERS);
        match kind {
            HEADERS => {
                self.walk = BlockWalk::default();
                match flags & PADDED {
                    0 => self.begin_block(payload, 0),
                    _ => self.padded = Some(payload).filter(|payload| *payload > 0),
                }
            }
            CONTINUATION => self.block = payload,
            _ => self.skip = payload,
        }
    }

    /// The rest of a payload of HEADERS: the priority if there is one, the block, the padding. What does not fit h2 refuses.
    fn begin_block(&mut self, rest: usize, padding: usize) {
        let priority = if self.head[4] & PRIORITY > 0 { PRIORITY_LENGTH } else { 0 };
        self.skip = priority.min(rest);
        self.padding = padding.min(rest - self.skip);
        self.block = rest - self.skip - self.padding;
    }

    fn earn(&mut self, frames: u64) {
        self.budget = self.budget.saturating_add(frames).min(BUDGET);
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.earn(self.written / BYTES_EARN);
        self.written %= BYTES_EARN;
    }
}

/// Takes as much as there is, and leaves the rest.
fn less(left: &mut usize, come: usize) -> usize {
    let taken = come.min(*left);
    *left -= taken;
    taken
}

impl<S: Unpin> Frames<S> {
    pub(super) fn new(stream: S, (worker, heads): (&Rc<Worker>, &Rc<Heads>), pulse: &Rc<Pulse>) -> Self {
        Self {
            stream,
            scanner: Scanner::new(),
            over: None,
            heads: Rc::clone(heads),
            own: OwnFrames::default(),
            seen: pulse.now(),
            pulse: Rc::clone(pulse),
            worker: Rc::clone(worker),
        }
    }

    /// Time earns, too: keep-alive pings on a connection that is old.
    fn earn_by_time(&mut self) {
        let seconds = self.pulse.now().saturating_duration_since(self.seen).as_secs();
        if seconds > 0 {
            self.seen = self.pulse.now();
            self.scanner.earn(seconds);
        }
    }

    /// Says in the caller's place what ends the connection.
    fn say(&mut self, over: Over, out: &mut ReadBuf<'_>) {
        let room = out.remaining().min(HEAD * 64);
        self.over = Some(match over {
            Over::Endless(said) => {
                let endless = ENDLESS[0].iter().chain(ENDLESS[1].iter().cycle());
                let from = if said < HEAD { said } else { HEAD + said % HEAD };
                endless.skip(from).take(room).for_each(|byte| out.put_slice(&[*byte]));
                Over::Endless(said + room)
            }
            Over::Nonsense => {
                out.put_slice(&[NONSENSE; HEAD * 64][..room]);
                over
            }
        });
    }

    /// Looks at what came into `out` behind `before`, and takes back what is too much.
    fn look(&mut self, before: usize, out: &mut ReadBuf<'_>) {
        let heads = &self.heads;
        let Some(too_much) = self.scanner.scan(&out.filled()[before..], |stream, is_head| heads.came(stream, is_head))
        else {
            return;
        };
        self.worker.recorder.limit_hit(LimitHit::IdleFrames);
        let (end, over) = match too_much {
            TooMuch::Frame(end) => (end, Over::Endless(0)),
            TooMuch::SizeUpdate(end) => (end, Over::Nonsense),
        };
        out.set_filled(before + end);
        self.say(over, out);
    }

    /// Looks at what the caller was sent of these pieces.
    fn wrote(&mut self, bytes: usize, pieces: &[IoSlice<'_>]) {
        self.scanner.wrote(bytes);
        let mut left = bytes;
        for piece in pieces {
            let written = less(&mut left, piece.len());
            self.own.scan(&piece[..written], |frame| self.heads.wrote(frame));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        if let Some(over) = frames.over {
            frames.say(over, out);
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut frames.stream).poll_read(context, out))?;
        frames.earn_by_time();
        frames.look(before, out);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        let polled = Pin::new(&mut frames.stream).poll_write(context, bytes);
        let wrote = ready!(frames.pulse.wrote_some(polled))?;
        frames.wrote(wrote, &[IoSlice::new(bytes)]);
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        let polled = Pin::new(&mut frames.stream).poll_write_vectored(context, pieces);
        let wrote = ready!(frames.pulse.wrote_some(polled))?;
        frames.wrote(wrote, pieces);
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        frames.pulse.wrote(Pin::new(&mut frames.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
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
        assert_eq!(scanner.scan(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", |_, _| ()), None);
        scanner
    }

    /// The whole frames that are let through, if so many bytes come at a time.
    fn let_through(scanner: &mut Scanner, bytes: &[u8], at_a_time: usize) -> usize {
        let mut passed = 0;
        for piece in bytes.chunks(at_a_time) {
            match scanner.scan(piece, |_, _| ()) {
                None => passed += piece.len(),
                Some(TooMuch::Frame(end) | TooMuch::SizeUpdate(end)) => return passed + end,
            }
        }
        passed
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
            assert_eq!(download.scan(&updates, |_, _| ()), None);
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
    fn streams_are_told_as_their_heads_come() {
        let mut told = Vec::new();
        let frames =
            [head(HEADERS, 0, &[0x82]), frame(DATA, 20), head(CONTINUATION, 0, &[0x82]), head(HEADERS, 0, &[])];
        assert_eq!(opened().scan(&frames.concat(), |stream, is_head| told.push((stream, is_head))), None);
        assert_eq!(told, [(1, true), (0, false), (1, false), (1, true)]);
    }
}
