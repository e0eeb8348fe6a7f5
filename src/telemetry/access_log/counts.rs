//! What became of the lines of the access log, for `/metrics`.

use crate::telemetry::counters::EventCounter;

/// Why lines were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full: the disk or the reader is too slow.
    QueueFull,
    /// The disk has no space.
    DiskFull,
    /// No program reads the pipe.
    ReaderGone,
    /// Another error of the output.
    WriteFailed,
}

impl DropReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::DiskFull, Self::ReaderGone, Self::WriteFailed];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::DiskFull => "disk_full",
            Self::ReaderGone => "reader_gone",
            Self::WriteFailed => "write_failed",
        }
    }
}

/// The lines of the access log since the process started.
///
/// While the access log is on, each command that ends is counted once: as a line that was written, or dropped, or that
/// the sample left out.
#[derive(Debug, Default)]
pub struct AccessCounts {
    written: EventCounter,
    left_out: EventCounter,
    dropped: [EventCounter; DropReason::ALL.len()],
}

impl AccessCounts {
    /// Lines that were written.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Commands without a line, because of `accessLog.sample`.
    pub fn left_out(&self) -> u64 {
        self.left_out.get()
    }

    /// Lines that were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].get()
    }

    /// Lines that were dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        DropReason::ALL.into_iter().map(|reason| self.dropped(reason)).sum()
    }

    pub(crate) fn add_written(&self, lines: u64) {
        self.written.add(lines);
    }

    pub(crate) fn add_left_out(&self, commands: u64) {
        self.left_out.add(commands);
    }

    pub(crate) fn add_dropped(&self, reason: DropReason, lines: u64) {
        self.dropped[reason as usize].add(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_count() {
        let counts = AccessCounts::default();
        for (position, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
            counts.add_dropped(reason, 1 << position);
        }
        assert_eq!(DropReason::ALL.map(|reason| counts.dropped(reason)), [1, 2, 4, 8]);
        assert_eq!(counts.dropped_total(), 15);
    }
}
