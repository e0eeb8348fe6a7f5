//! A caller's HTTP/2 frames, as far as they do nothing: settings, pings, priorities, window updates, resets, empty data, unknown
//! kinds (RFC 9113 section 10.5). h2 answers or ignores each, so a caller that sends nothing else costs a whole core.
//!
//! Guarantees: such frames come out of a budget that grows with what is worth something (a request, data, bytes of answers, time);
//! a caller that has used it up is told ENHANCE_YOUR_CALM and its connection ends. Reads frame heads only; every frame that is
//! let through is passed on byte for byte. Notes in the connection's pulse whether its caller takes what is written. Leaves
//! everything that frames say to h2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::telemetry::LimitHit;

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

/// A head that never ends: h2 answers it with ENHANCE_YOUR_CALM, and has no other door through which we could ask it to.
const ENDLESS: [[u8; HEAD]; 2] = [[0, 0, 0, HEADERS, 0, 0, 0, 0, 1], [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1]];

/// See the module.
pub(super) struct Frames<S> {
    stream: S,
    scanner: Scanner,
    /// Bytes of [`ENDLESS`] that h2 has heard in place of its caller.
    over: Option<usize>,
    pulse: Rc<Pulse>,
    seen: Instant,
    worker: Rc<Worker>,
}

/// Where frames begin, and what they have cost.
#[derive(Debug)]
struct Scanner {
    /// Bytes that belong to no head: of the preface, or of a frame's payload.
    skip: usize,
    head: [u8; HEAD],
    read: usize,
    budget: u64,
    /// Bytes of answers that have earned nothing yet.
    written: u64,
}

impl Scanner {
    fn new() -> Self {
        Self { skip: PREFACE, head: [0; HEAD], read: 0, budget: BUDGET, written: 0 }
    }

    /// Looks at what came; where the first frame begins that is too much, if there is one.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip == 0 && self.read == 0 && self.budget == 0 {
                return Some(at);
            }
            at += self.step(&bytes[at..]);
        }
        None
    }

    /// Takes some bytes, at least one.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.skip > 0 {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            return skipped;
        }
        let taken = (HEAD - self.read).min(bytes.len());
        self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if self.read == HEAD {
            self.begin_frame();
        }
        taken
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, ..] = self.head;
        (self.read, self.skip) = (0, u32::from_be_bytes([0, high, middle, low]) as usize);
        match (kind, self.skip) {
            (HEADERS, _) | (DATA, 1..) => self.earn(EARNED),
            (CONTINUATION, _) => {} // h2 has its own limit
            _ => self.budget = self.budget.saturating_sub(1),
        }
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

impl<S: Unpin> Frames<S> {
    pub(super) fn new(stream: S, worker: &Rc<Worker>, pulse: &Rc<Pulse>) -> Self {
        let (seen, worker, pulse) = (pulse.now(), Rc::clone(worker), Rc::clone(pulse));
        Self { stream, scanner: Scanner::new(), over: None, pulse, seen, worker }
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
    fn say(&mut self, said: usize, out: &mut ReadBuf<'_>) {
        let endless = ENDLESS[0].iter().chain(ENDLESS[1].iter().cycle());
        let room = out.remaining().min(HEAD * 64);
        let from = if said < HEAD { said } else { HEAD + said % HEAD };
        endless.skip(from).take(room).for_each(|byte| out.put_slice(&[*byte]));
        self.over = Some(said + room);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        if let Some(said) = frames.over {
            frames.say(said, out);
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut frames.stream).poll_read(context, out))?;
        frames.earn_by_time();
        if let Some(end) = frames.scanner.scan(&out.filled()[before..]) {
            frames.worker.recorder.limit_hit(LimitHit::IdleFrames);
            out.set_filled(before + end);
            frames.say(0, out);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        let polled = Pin::new(&mut frames.stream).poll_write(context, bytes);
        let wrote = ready!(frames.pulse.wrote_some(polled))?;
        frames.scanner.wrote(wrote);
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
        frames.scanner.wrote(wrote);
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
        assert_eq!(scanner.scan(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), None);
        scanner
    }

    /// The whole frames that are let through, if so many bytes come at a time.
    fn let_through(scanner: &mut Scanner, bytes: &[u8], at_a_time: usize) -> usize {
        let mut passed = 0;
        for piece in bytes.chunks(at_a_time) {
            match scanner.scan(piece) {
                None => passed += piece.len(),
                Some(end) => return passed + end,
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
            assert_eq!(download.scan(&updates), None);
        }
    }

    #[test]
    fn empty_data_and_unknown_kinds_do_nothing() {
        for kind in [DATA, 99] {
            let frames = frame(kind, 0).repeat(5000);
            assert_eq!(let_through(&mut opened(), &frames, 999), BUDGET as usize * HEAD);
        }
    }
}
