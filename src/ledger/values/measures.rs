//! What a reader of the ledger gets: plain sums, already exact.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Finished, Name, Outcome, Refused, Window};

/// Sums of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeTotals {
    /// Commands that ended so.
    pub commands: u64,
    /// Their units; refused commands have none, nor have those of which nothing reached a subsystem.
    pub units: u64,
    /// Bytes of their request bodies.
    pub request_bytes: u64,
    /// Bytes of their response bodies.
    pub response_bytes: u64,
    /// From admission to end, summed.
    pub duration_ns: u64,
}

impl OutcomeTotals {
    /// Adds another's sums; they stop at the greatest number rather than wrap.
    pub fn add(&mut self, other: &Self) {
        self.commands = self.commands.saturating_add(other.commands);
        self.units = self.units.saturating_add(other.units);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.duration_ns = self.duration_ns.saturating_add(other.duration_ns);
    }
}

/// One department's use of one command since the ledger began, over all epochs, up to this moment.
#[derive(Clone, Debug)]
pub struct SeriesTotals {
    /// Who.
    pub department: Name,
    /// Of which subsystem.
    pub subsystem: Name,
    /// What.
    pub command: Name,
    /// Commands let in.
    pub admitted: u64,
    /// Units of commands that have ended. Commands of which nothing reached a subsystem cost none.
    pub units: u64,
    /// Bytes of request bodies, those of commands in flight included.
    pub request_bytes: u64,
    /// Bytes of response bodies, those of commands in flight included.
    pub response_bytes: u64,
    /// Commands by how they ended.
    pub finished: [u64; Finished::ALL.len()],
    /// Commands by why they were refused.
    pub refused: [u64; Refused::ALL.len()],
}

impl SeriesTotals {
    /// Admitted and not yet ended.
    pub fn in_flight(&self) -> u64 {
        self.admitted.saturating_sub(self.finished.iter().sum())
    }
}

/// What departments used in a range of windows, by their ids.
pub type DepartmentUsage = BTreeMap<Name, UsageSums>;

/// Commands and units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Commands that ended.
    pub commands: u64,
    /// Their units.
    pub units: u64,
}

impl UsageSums {
    /// Adds more; the sums stop at the greatest number rather than wrap.
    pub(crate) fn add(&mut self, commands: u64, units: u64) {
        self.commands = self.commands.saturating_add(commands);
        self.units = self.units.saturating_add(units);
    }
}

/// What a page of metrics shows of the ledger, all of it at one moment.
#[derive(Clone, Debug)]
pub struct LedgerView {
    /// Everything the ledger holds.
    pub totals: LedgerTotals,
    /// What departments used in the ranges that were asked for, in the order of the question.
    pub department_usage: Vec<DepartmentUsage>,
}

/// When the disk last had everything, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncTimes {
    /// End of the last successful fdatasync of the tally.
    pub synced_at: Timestamp,
    /// End of the last fold into the book.
    pub folded_at: Timestamp,
    /// Number of syncs in this epoch.
    pub syncs: u64,
    /// Their durations, summed.
    pub sync_time: Duration,
    /// Upper bounds and counts of a cumulative histogram of sync durations.
    pub sync_buckets: [(Duration, u64); 8],
}

/// Everything the ledger holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct LedgerTotals {
    /// One entry per (department, subsystem, command) ever seen.
    pub series: Vec<SeriesTotals>,
    /// Received - refused - finished - in flight, over all workers; anything but 0 is a defect.
    pub imbalance: i64,
    /// Hours and tables of names in the book that were written anew before they were sealed, in this epoch: somebody else had
    /// changed them.
    pub mended: u64,
    /// The disk's part.
    pub times: SyncTimes,
}

/// A row of usage: one window, series and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The UTC hour of admission.
    pub window: Window,
    /// Who.
    pub department: Name,
    /// Of which subsystem.
    pub subsystem: Name,
    /// What.
    pub command: Name,
    /// How it ended.
    pub outcome: Outcome,
    /// The sums.
    pub totals: OutcomeTotals,
}

/// SQLite's integers end at 2^63 - 1; a sum that reaches it stays there.
pub(crate) fn saturating_i64(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

/// Commands, units, request bytes, response bytes, nanoseconds: as they are stored, so that a number that cannot be shows.
pub(crate) type StoredMeasures = [i64; 5];

/// The code under which sums hold the commands and units that were admitted.
pub(crate) const ADMITTED_CODE: u32 = 0;

/// The code under which sums hold commands that cost no units, and those units. No outcome has it: outcomes of what was
/// admitted begin at 1, refusals at 101.
pub(crate) const WAIVED_CODE: u32 = 100;
