//! The thread that formats and writes the lines of the access log.
//!
//! Guarantees:
//! - A line that was taken from the queue is written once, as a whole. After an error its bytes wait, and are tried
//!   again every [`RETRY_PAUSE`]; meanwhile records wait in the queue, within its limits.
//! - A file that is opened again begins with a whole line. The line that an error had cut is the last one of the file
//!   before.
//! - The log has one line when writing fails, one when the first line is dropped (`AccessLog`), and one when the writer
//!   has caught up, however many commands come meanwhile.
//!
//! Leaves to others: the limits of the queue (`queue`), and the errors of an output (`sink`).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, MonotonicTime};
use crate::config::AccessLogFormat;
use crate::model::Name;

use super::counts::{AccessCounts, DropReason};
use super::line::append_line;
use super::queue::{AccessQueue, WriterOrder, WriterWork};
use super::record::BoxedRecord;
use super::sink::{AccessSink, drop_reason};

/// The pause after an error before the output is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The same pause while the reader of a pipe is only slow.
const STALL_PAUSE: Duration = Duration::from_millis(20);
/// How often the end of the process waits for a slow reader: two seconds together.
const LAST_STALLS_MAX: usize = 100;
/// The time without a dropped line after which the writer counts as caught up.
const CALM_TIME: Duration = Duration::from_secs(1);
/// How long the output stays open after the access log was switched off: workers hand over their last records.
const SWITCH_OFF_DELAY: Duration = Duration::from_secs(1);

/// The writer and what it owns.
pub(crate) struct AccessWriter {
    queue: Arc<AccessQueue>,
    counts: Arc<AccessCounts>,
    clock: Clock,
    /// The name of the gateway, which each line has.
    gateway: Name,
    target: Option<(AccessSink, AccessLogFormat)>,
    /// When the access log was switched off. The output is closed after [`SWITCH_OFF_DELAY`].
    switched_off_at: Option<MonotonicTime>,
    lines: UnwrittenLines,
    failure: Option<WriteFailure>,
    recovery: PendingRecovery,
}

/// Lines that were formatted and not written yet.
#[derive(Debug, Default)]
struct UnwrittenLines {
    bytes: Vec<u8>,
    /// The first byte that was not written.
    position: usize,
}

/// A failure that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WriteFailure {
    reason: DropReason,
    /// Whether the log has a line about it. A slow reader is no failure of its own.
    is_logged: bool,
}

/// What is logged once the writer has caught up.
#[derive(Debug, Default)]
struct PendingRecovery {
    /// Whether a failure was logged.
    had_failure: bool,
    /// Dropped lines that the log has reported.
    reported: u64,
    /// Dropped lines at the last look, and the time since which there are no more.
    calm_since: (u64, MonotonicTime),
}

impl AccessWriter {
    pub(crate) fn new((queue, counts): (Arc<AccessQueue>, Arc<AccessCounts>), (clock, gateway): (Clock, Name)) -> Self {
        Self {
            queue,
            counts,
            clock,
            gateway,
            target: None,
            switched_off_at: None,
            lines: UnwrittenLines::default(),
            failure: None,
            recovery: PendingRecovery::default(),
        }
    }

    /// Writes until the order to end.
    pub(crate) fn run(mut self) {
        let mut buffer = Vec::new();
        loop {
            let work = match self.lines.is_empty() {
                true => self.queue.take(&mut buffer, self.idle_timeout()),
                false => self.queue.take_order(self.pause()),
            };
            match work {
                WriterWork::Records => {
                    self.format(&mut buffer);
                    self.write_lines();
                }
                WriterWork::Order(WriterOrder::End) => break,
                WriterWork::Order(order) => self.follow(order),
                WriterWork::Nothing => self.try_again(),
            }
            self.report_recovery();
        }
        self.finish();
        drop(self.target.take()); // a reader of a pipe sees the end before this process is seen to end
        self.queue.end();
    }

    /// The wait for work: without an end, unless something is due.
    fn idle_timeout(&self) -> Option<Duration> {
        let is_due = self.switched_off_at.is_some() || self.recovery.is_pending(&self.counts);
        is_due.then_some(CALM_TIME)
    }

    fn pause(&self) -> Duration {
        match self.failure {
            Some(WriteFailure { is_logged: false, .. }) => STALL_PAUSE,
            _ => RETRY_PAUSE,
        }
    }

    fn follow(&mut self, order: WriterOrder) {
        match order {
            WriterOrder::Switch(sink, format) => {
                self.write_lines(); // a last try
                self.give_up_unwritten();
                (self.target, self.switched_off_at) = (Some((sink, format)), None);
                self.set_failure(None);
            }
            WriterOrder::SwitchOff => self.switched_off_at = Some(self.clock.monotonic()),
            WriterOrder::Reopen => self.reopen(),
            WriterOrder::End => {} // `run` has seen it
        }
    }

    /// Opens the file again because an operator asks for it.
    fn reopen(&mut self) {
        let Some((sink, _)) = &mut self.target else { return };
        let output = sink.output().to_text();
        match sink.reopen() {
            Ok(()) => {
                self.lines.begin_line_again();
                tracing::info!(output, "the access log was opened again");
                self.write_lines();
            }
            Err(error) => {
                tracing::error!(
                    output, %error, "the access log could not be opened again; its lines go on to the open file"
                );
            }
        }
    }

    /// Something that waits is tried again, or is due.
    fn try_again(&mut self) {
        let is_over = |at| self.clock.monotonic().since(at) >= SWITCH_OFF_DELAY;
        if self.switched_off_at.is_some_and(is_over) && self.lines.is_empty() {
            (self.target, self.switched_off_at) = (None, None);
        }
        let needs_reopen =
            matches!(self.failure, Some(WriteFailure { reason: DropReason::ReaderGone | DropReason::WriteFailed, .. }));
        if needs_reopen && let Some((sink, _)) = &mut self.target {
            match sink.reopen() {
                Ok(()) => self.lines.begin_line_again(),
                Err(error) => {
                    let reason = drop_reason(error.error());
                    return self.set_failure(Some(WriteFailure { reason, is_logged: true }));
                }
            }
        }
        self.write_lines();
    }

    fn format(&mut self, records: &mut Vec<BoxedRecord>) {
        let format = self.target.as_ref().map_or(AccessLogFormat::default(), |(_, format)| *format);
        for record in records.drain(..) {
            append_line(&mut self.lines.bytes, &record, format, self.gateway.as_str());
        }
    }

    /// Writes the lines, as far as the output takes them.
    fn write_lines(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let Some((sink, _)) = &mut self.target else { return self.give_up_unwritten() };
        let begin = self.lines.position;
        let written = sink.write_lines(&self.lines.bytes, &mut self.lines.position);
        self.counts.add_written(count_lines(&self.lines.bytes[begin..self.lines.position]));
        match written {
            Ok(()) => {
                self.lines.clear();
                self.set_failure(None);
            }
            Err(error) => self.note_error(&error),
        }
    }

    fn note_error(&mut self, error: &std::io::Error) {
        let reason = drop_reason(error);
        let was_logged = self.failure.is_some_and(|failure| failure.is_logged);
        let is_stall = error.kind() == std::io::ErrorKind::WouldBlock;
        if !is_stall && !was_logged {
            let output = self.target.as_ref().map(|(sink, _)| sink.output().to_text());
            tracing::error!(
                output,
                reason = reason.name(),
                %error,
                "the access log cannot be written; its lines wait, and are dropped when too many wait; traffic goes on"
            );
        }
        self.recovery.had_failure |= !is_stall;
        self.set_failure(Some(WriteFailure { reason, is_logged: !is_stall || was_logged }));
    }

    fn set_failure(&mut self, failure: Option<WriteFailure>) {
        if self.failure != failure {
            self.failure = failure;
            self.queue.set_failure(failure.map(|failure| failure.reason));
        }
    }

    /// Logs once that the writer has caught up after a failure, or after lines were dropped.
    fn report_recovery(&mut self) {
        if !self.recovery.is_pending(&self.counts) || self.failure.is_some() {
            return;
        }
        let (dropped, now) = (self.counts.dropped_total(), self.clock.monotonic());
        if self.recovery.calm_since.0 != dropped {
            self.recovery.calm_since = (dropped, now);
        }
        let lines = dropped - self.recovery.reported;
        if lines > 0 && now.since(self.recovery.calm_since.1) < CALM_TIME {
            return;
        }
        let output = self.target.as_ref().map(|(sink, _)| sink.output().to_text());
        tracing::info!(output, dropped = lines, "the access log is written again");
        self.recovery = PendingRecovery { had_failure: false, reported: dropped, calm_since: (dropped, now) };
        self.queue.end_dropping();
    }

    /// Drops the lines that could not be written: their output is gone for good.
    fn give_up_unwritten(&mut self) {
        let reason = self.failure.map_or(DropReason::WriteFailed, |failure| failure.reason);
        self.counts.add_dropped(reason, count_lines(&self.lines.bytes[self.lines.position..]));
        self.lines.clear();
    }

    /// The end of the process: tries once more to write what is left, and counts the rest. A slow reader has more time.
    fn finish(&mut self) {
        let mut buffer = Vec::new();
        let mut stalls = 0;
        loop {
            self.write_lines();
            match self.failure.map(|failure| failure.reason) {
                None => match self.queue.take(&mut buffer, Some(Duration::ZERO)) {
                    WriterWork::Records => self.format(&mut buffer),
                    _ => return,
                },
                Some(DropReason::QueueFull) if stalls < LAST_STALLS_MAX => {
                    stalls += 1;
                    thread::sleep(STALL_PAUSE);
                }
                Some(_) => break,
            }
        }
        let reason = self.failure.map_or(DropReason::WriteFailed, |failure| failure.reason);
        let before = self.counts.dropped_total();
        self.give_up_unwritten();
        self.counts.add_dropped(reason, self.queue.discard());
        let lines = self.counts.dropped_total() - before;
        tracing::error!(lines, reason = reason.name(), "the last lines of the access log could not be written");
    }
}

impl PendingRecovery {
    fn is_pending(&self, counts: &AccessCounts) -> bool {
        self.had_failure || counts.dropped_total() > self.reported
    }
}

impl UnwrittenLines {
    fn is_empty(&self) -> bool {
        self.position == self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.position = 0;
    }

    /// Moves back to the beginning of a line that was written in part: another file must not begin within a line.
    fn begin_line_again(&mut self) {
        let before = &self.bytes[..self.position];
        self.position = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_begins_with_a_whole_line() {
        for (position, begin) in [(0, 0), (2, 0), (4, 4), (6, 4), (8, 8)] {
            let mut lines = UnwrittenLines { bytes: b"one\ntwo\n".to_vec(), position };
            lines.begin_line_again();
            assert_eq!(lines.position, begin);
        }
    }
}
