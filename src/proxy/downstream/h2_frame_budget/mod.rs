//! Bounds HTTP/2 frames without effect, and writes the frames of interim responses, which h2 does not support.
//!
//! Frames without effect are SETTINGS, PING, PRIORITY, `WINDOW_UPDATE`, `RST_STREAM`, empty DATA and unknown types (RFC
//! 9113 section 10.5). h2 answers or ignores each such frame, so a caller that sends nothing else (a ping flood, a
//! settings flood) costs a whole core. The same holds for HPACK dynamic table size updates ([`super::hpack`]).
//!
//! Guarantees:
//! - Frames without effect are charged to a budget. Requests, data, response bytes and time earn budget.
//! - A caller that has used up its budget gets GOAWAY with `ENHANCE_YOUR_CALM`, and its connection ends.
//! - The parser reads frame heads, settings, and header blocks as far as needed to find the fields. Bytes pass
//!   unchanged, except for the stream number in the head of a request ([`held_frames`]).
//! - [`PendingHeads`] and [`Http2InterimQueue`] are notified of streams that are opened, answered or reset.
//! - An interim response is written between whole frames of h2, never inside a header block. It earns no budget.
//! - [`ConnectionActivity`] notes whether the caller reads what is written (backpressure).
//!
//! Leaves to h2: the meaning of all frames.

mod frame_intake;
mod frame_scanner;
mod held_frames;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::message::h2_frame::{
    ACK_FLAG, CONTINUATION_FRAME, FRAME_HEAD_LENGTH, HEADERS_FRAME, RST_STREAM_FRAME, SETTINGS_FRAME,
};
use crate::proxy::message::interim_response::{Http2InterimQueue, PeerSetting};
use crate::proxy::worker::TrafficWorker;
use crate::telemetry::LimitHit;

use super::h2_refused_heads::{PendingHeads, SentFrame, SentFrameScanner};
use frame_intake::{FrameIntake, FrameObserver};
use frame_scanner::{BudgetExceeded, FrameHead, consume_up_to};

/// A header block that never ends. h2 has no API to send GOAWAY with `ENHANCE_YOUR_CALM`; an endless header block
/// triggers it.
const ENDLESS_HEADERS: [[u8; FRAME_HEAD_LENGTH]; 2] =
    [[0, 0, 0, HEADERS_FRAME, 0, 0, 0, 0, 1], [0, 0, 0, CONTINUATION_FRAME, 0, 0, 0, 0, 1]];
/// The filler after the beginning of a header block that must not be decoded. It is an integer without end (RFC 7541
/// section 5.1). After the end of the frame it is a frame length above every maximum. h2 ends the connection with
/// `PROTOCOL_ERROR` or `FRAME_SIZE_ERROR`.
const INVALID_BYTE: u8 = 0xff;
/// The read size while a held frame is incomplete.
const READ_SIZE: usize = 4096;

/// A stream whose HTTP/2 frames are scanned in both directions and charged to the frame budget.
pub(crate) struct FrameBudget<S> {
    stream: S,
    intake: FrameIntake,
    goaway_trigger: Option<GoawayTrigger>,
    observers: FrameObservers,
    sent_frames: SentFrameScanner,
    activity: Rc<ConnectionActivity>,
    credited_at: Instant,
    worker: Rc<TrafficWorker>,
}

/// The receivers of stream events.
pub(crate) struct FrameObservers {
    pub(crate) pending_heads: Rc<PendingHeads>,
    pub(crate) interim: Rc<Http2InterimQueue>,
}

/// The substitute that h2 reads after the caller has exceeded its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoawayTrigger {
    /// The number of bytes of [`ENDLESS_HEADERS`] that h2 has read.
    EndlessHeaders(usize),
    /// [`INVALID_BYTE`], until h2 ends the connection.
    InvalidBlock,
}

impl FrameObserver for FrameObservers {
    fn note_received(&self, head: FrameHead) -> bool {
        self.pending_heads.note_received(head.stream, head.kind == HEADERS_FRAME);
        match head.kind {
            HEADERS_FRAME => return self.interim.note_opened(head.stream),
            RST_STREAM_FRAME => self.interim.note_closed(head.stream),
            SETTINGS_FRAME if head.flags & ACK_FLAG == 0 => self.interim.note_settings(),
            _ => {}
        }
        false
    }

    fn note_setting(&self, setting: PeerSetting) {
        self.interim.apply_setting(setting);
    }

    fn note_unnumbered(&self) {
        self.interim.disable();
    }
}

impl FrameObservers {
    /// h2 has written a frame.
    fn note_sent(&self, frame: SentFrame) {
        match frame {
            SentFrame::Headers { stream } => {
                self.interim.note_block();
                self.interim.note_closed(stream);
            }
            SentFrame::Reset { stream, .. } => self.interim.note_closed(stream),
            SentFrame::Acknowledged => return self.interim.note_acknowledged(),
        }
        self.pending_heads.note_sent(frame);
    }
}

impl<S: Unpin> FrameBudget<S> {
    pub(crate) fn new(
        stream: S,
        observers: FrameObservers,
        activity: &Rc<ConnectionActivity>,
        worker: &Rc<TrafficWorker>,
    ) -> Self {
        Self {
            stream,
            intake: FrameIntake::new(),
            goaway_trigger: None,
            observers,
            sent_frames: SentFrameScanner::default(),
            credited_at: activity.now(),
            activity: Rc::clone(activity),
            worker: Rc::clone(worker),
        }
    }

    /// Time also earns budget: for the keep-alive pings of an old connection.
    fn credit_elapsed_time(&mut self) {
        let seconds = self.activity.now().saturating_duration_since(self.credited_at).as_secs();
        if seconds > 0 {
            self.credited_at = self.activity.now();
            self.intake.credit(seconds);
        }
    }

    /// Gives h2 the bytes that make it end the connection.
    fn inject_goaway_trigger(&mut self, over: GoawayTrigger, out: &mut ReadBuf<'_>) {
        let room = out.remaining().min(FRAME_HEAD_LENGTH * 64);
        self.goaway_trigger = Some(match over {
            GoawayTrigger::EndlessHeaders(sent) => {
                let endless = ENDLESS_HEADERS[0].iter().chain(ENDLESS_HEADERS[1].iter().cycle());
                let from = if sent < FRAME_HEAD_LENGTH { sent } else { FRAME_HEAD_LENGTH + sent % FRAME_HEAD_LENGTH };
                endless.skip(from).take(room).for_each(|byte| out.put_slice(&[*byte]));
                GoawayTrigger::EndlessHeaders(sent + room)
            }
            GoawayTrigger::InvalidBlock => {
                out.put_slice(&[INVALID_BYTE; FRAME_HEAD_LENGTH * 64][..room]);
                over
            }
        });
    }

    /// Scans incoming bytes. Returns how many of the first bytes go on in place. The others are held, or exceed the
    /// budget.
    fn scan_received(&mut self, input: &[u8]) -> usize {
        self.credit_elapsed_time();
        let (straight, too_much) = self.intake.scan_received(input, &self.observers);
        if let Some(too_much) = too_much {
            self.worker.recorder.count_limit_hit(LimitHit::IdleFrames);
            self.goaway_trigger = Some(match too_much {
                BudgetExceeded::Frame => GoawayTrigger::EndlessHeaders(0),
                BudgetExceeded::SizeUpdate => GoawayTrigger::InvalidBlock,
            });
        }
        straight
    }

    /// Reads into h2's own buffer. Ready with whether any bytes arrived.
    fn read_into_h2(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead,
    {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, out))?;
        let received = out.filled().len() - before;
        let straight = self.scan_received(&out.filled()[before..]);
        out.set_filled(before + straight);
        Poll::Ready(Ok(received > 0))
    }

    /// Reads into a side buffer, because bytes are held. Ready with whether any bytes arrived.
    fn read_to_side_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncRead,
    {
        let mut piece = [MaybeUninit::uninit(); READ_SIZE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.scan_received(piece.filled());
        Poll::Ready(Ok(!piece.filled().is_empty()))
    }

    /// Writes interim responses where a frame may be inserted.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite,
    {
        let Self { stream, observers, activity, sent_frames, .. } = self;
        observers.interim.poll_write(!sent_frames.is_frame_boundary(), |bytes: &[u8]| {
            let polled = Pin::new(&mut *stream).poll_write(context, bytes);
            if polled.is_pending() { activity.note_partial_write(polled) } else { polled }
        })
    }

    /// Scans the bytes of `pieces` that were written to the caller.
    fn scan_written(&mut self, bytes: usize, pieces: &[IoSlice<'_>]) {
        self.intake.credit_written(bytes);
        let mut left = bytes;
        for piece in pieces {
            let written = consume_up_to(&mut left, piece.len());
            self.sent_frames.scan(&piece[..written], |frame| self.observers.note_sent(frame));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameBudget<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        let before = out.filled().len();
        loop {
            if frames.intake.held.pass_released(out) || out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(over) = frames.goaway_trigger {
                frames.inject_goaway_trigger(over, out);
                return Poll::Ready(Ok(()));
            }
            let is_more = match frames.intake.held.is_empty() {
                true => ready!(frames.read_into_h2(context, out))?,
                false => ready!(frames.read_to_side_buffer(context))?,
            };
            if !is_more && frames.intake.held.is_empty() {
                return Poll::Ready(Ok(())); // The end of the stream.
            } else if !is_more {
                frames.intake.held.release_all();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameBudget<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let frames = self.get_mut();
        ready!(frames.poll_interim(context))?;
        let polled = Pin::new(&mut frames.stream).poll_write(context, bytes);
        let wrote = ready!(frames.activity.note_partial_write(polled))?;
        frames.scan_written(wrote, &[IoSlice::new(bytes)]);
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
        let wrote = ready!(frames.activity.note_partial_write(polled))?;
        frames.scan_written(wrote, pieces);
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let frames = self.get_mut();
        ready!(frames.poll_interim(context))?;
        frames.activity.note_flush(Pin::new(&mut frames.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
