//! A caller's HTTP/2 frames, as far as they do nothing: settings, pings, priorities, window updates, resets, empty
//! data, unknown kinds (RFC 9113 section 10.5). h2 answers or ignores each, so a caller that sends nothing else costs a
//! whole core. The same holds for updates of the compression table's size ([`super::hpack`]). And the frames of interim
//! answers, which h2 does not write.
//!
//! Guarantees: such frames come out of a budget that grows with what is worth something (a request, data, bytes of
//! answers, time); a caller that has used it up is told ENHANCE_YOUR_CALM and its connection ends. Reads frame heads,
//! settings, and header blocks as far as fields begin; what is let through is passed on byte for byte, but for the
//! number of its stream in the head of a request ([`held`]). Tells [`Heads`] and [`InterimStreams`] which streams are
//! opened, answered and reset. An interim answer is written between whole frames of h2, and never within a header
//! block; it earns nothing. Notes in the connection's pulse whether its caller takes what is written. Leaves everything
//! that frames say to h2.

mod held;
mod intake;
mod scanner;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::telemetry::LimitHit;

use super::heads::{Heads, OwnFrame, OwnFrames};
use super::interim::{InterimStreams, Setting};
use super::pulse::Pulse;
use super::worker::Worker;

use intake::{Intake, Watch};
use scanner::{ACK, CONTINUATION, FrameHead, HEAD, HEADERS, RST_STREAM, SETTINGS, TooMuch, less};

/// A head that never ends: h2 answers it with ENHANCE_YOUR_CALM, and has no other door through which we could ask it
/// to.
const ENDLESS: [[u8; HEAD]; 2] = [[0, 0, 0, HEADERS, 0, 0, 0, 0, 1], [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1]];
/// What follows the beginning of a header block that is not to be decoded: an integer without end (RFC 7541 section
/// 5.1), and where the frame is over, a length beyond all frames. h2 ends the connection with PROTOCOL_ERROR or
/// FRAME_SIZE_ERROR.
const NONSENSE: u8 = 0xff;
/// How much is read at once while a frame is waited for that is to go on whole.
const PIECE: usize = 4096;

/// See the module.
pub(super) struct Frames<S> {
    stream: S,
    intake: Intake,
    over: Option<Over>,
    watchers: Watchers,
    own: OwnFrames,
    pulse: Rc<Pulse>,
    seen: Instant,
    worker: Rc<Worker>,
}

/// Whoever is told which streams come and go.
pub(super) struct Watchers {
    pub(super) heads: Rc<Heads>,
    pub(super) interim: Rc<InterimStreams>,
}

/// What h2 reads in the place of its caller, once that has sent too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// So many bytes of [`ENDLESS`] have been read.
    Endless(usize),
    /// [`NONSENSE`], to the end.
    Nonsense,
}

impl Watch for Watchers {
    fn came(&self, head: FrameHead) -> bool {
        self.heads.came(head.stream, head.kind == HEADERS);
        match head.kind {
            HEADERS => return self.interim.came(head.stream),
            RST_STREAM => self.interim.closed(head.stream),
            SETTINGS if head.flags & ACK == 0 => self.interim.settings_came(),
            _ => {}
        }
        false
    }

    fn set(&self, setting: Setting) {
        self.interim.set(setting);
    }

    fn has_no_number(&self) {
        self.interim.switch_off();
    }
}

impl Watchers {
    /// A frame was written by h2.
    fn wrote(&self, frame: OwnFrame) {
        match frame {
            OwnFrame::Answer { stream } => {
                self.interim.block_written();
                self.interim.closed(stream);
            }
            OwnFrame::Reset { stream, .. } => self.interim.closed(stream),
            OwnFrame::Acknowledged => return self.interim.acknowledged(),
        }
        self.heads.wrote(frame);
    }
}

impl<S: Unpin> Frames<S> {
    pub(super) fn new(stream: S, watchers: Watchers, pulse: &Rc<Pulse>, worker: &Rc<Worker>) -> Self {
        Self {
            stream,
            intake: Intake::new(),
            over: None,
            watchers,
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
            self.intake.earn(seconds);
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

    /// Looks at what came. How many of the first bytes go on from where they are; the others are held, or too much.
    fn look(&mut self, came: &[u8]) -> usize {
        self.earn_by_time();
        let (straight, too_much) = self.intake.look(came, &self.watchers);
        if let Some(too_much) = too_much {
            self.worker.recorder.limit_hit(LimitHit::IdleFrames);
            self.over = Some(match too_much {
                TooMuch::Frame => Over::Endless(0),
                TooMuch::SizeUpdate => Over::Nonsense,
            });
        }
        straight
    }

    /// Reads into h2's own buffer. Ready with whether anything came.
    fn read_straight(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead,
    {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, out))?;
        let came = out.filled().len() - before;
        let straight = self.look(&out.filled()[before..]);
        out.set_filled(before + straight);
        Poll::Ready(Ok(came > 0))
    }

    /// Reads beside h2's buffer, because something is held. Ready with whether anything came.
    fn read_beside(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead,
    {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.look(piece.filled());
        Poll::Ready(Ok(!piece.filled().is_empty()))
    }

    /// Writes interim answers, where they may stand.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite,
    {
        let Self { stream, watchers, pulse, own, .. } = self;
        watchers.interim.poll_write(!own.is_between(), |bytes: &[u8]| {
            let polled = Pin::new(&mut *stream).poll_write(context, bytes);
            if polled.is_pending() { pulse.wrote_some(polled) } else { polled }
        })
    }

    /// Looks at what the caller was sent of these pieces.
    fn wrote(&mut self, bytes: usize, pieces: &[IoSlice<'_>]) {
        self.intake.wrote(bytes);
        let mut left = bytes;
        for piece in pieces {
            let written = less(&mut left, piece.len());
            self.own.scan(&piece[..written], |frame| self.watchers.wrote(frame));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        let before = out.filled().len();
        loop {
            if frames.intake.held.hand_on(out) || out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(over) = frames.over {
                frames.say(over, out);
                return Poll::Ready(Ok(()));
            }
            let is_more = match frames.intake.held.is_empty() {
                true => ready!(frames.read_straight(context, out))?,
                false => ready!(frames.read_beside(context))?,
            };
            if !is_more && frames.intake.held.is_empty() {
                return Poll::Ready(Ok(())); // the end
            } else if !is_more {
                frames.intake.held.release_all();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        ready!(frames.poll_interim(context))?;
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
        ready!(frames.poll_interim(context))?;
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
        ready!(frames.poll_interim(context))?;
        frames.pulse.wrote(Pin::new(&mut frames.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
