//! The measures that readers of the ledger get: plain, exact sums.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Finished, Name, Outcome, Refused, Window};

/// Commands, units, request bytes, response bytes, nanoseconds: signed as stored, so that an impossible number stays
/// visible.
pub(crate) type StoredMeasures = [i64; 5];

/// The outcome code of admitted commands and units in stored sums.
pub(crate) const ADMITTED_CODE: u32 = 0;

/// The outcome code of waived commands and units in stored sums. No outcome has this code: outcomes of admitted
/// commands begin at 1, refusals at 101.
pub(crate) const WAIVED_CODE: u32 = 100;

/// Sums of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeTotals {
    /// Commands with this outcome.
    pub commands: u64,
    /// Units of the commands. Refused commands have none; commands of which nothing reached a subsystem have none
    /// either.
    pub units: u64,
    /// Bytes of their request bodies.
    pub request_bytes: u64,
    /// Bytes of their response bodies.
    pub response_bytes: u64,
    /// Durations from admission to end, summed.
    pub duration_ns: u64,
}

impl OutcomeTotals {
    /// Adds another's sums; they saturate at the greatest number and never wrap.
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
    /// The department.
    pub department: Name,
    /// The subsystem.
    pub subsystem: Name,
    /// The command.
    pub command: Name,
    /// Admitted commands.
    pub admitted: u64,
    /// Units of commands that have ended. Commands of which nothing reached a subsystem cost none.
    pub units: u64,
    /// Bytes of request bodies, including commands in flight.
    pub request_bytes: u64,
    /// Bytes of response bodies, including commands in flight.
    pub response_bytes: u64,
    /// Ended commands by outcome.
    pub finished: [u64; Finished::ALL.len()],
    /// Refused commands by reason.
    pub refused: [u64; Refused::ALL.len()],
}

impl SeriesTotals {
    /// Returns the number of commands that were admitted and have not ended.
    pub fn in_flight(&self) -> u64 {
        self.admitted.saturating_sub(self.finished.iter().sum())
    }
}

/// The usage of departments in a range of windows, by department id.
pub type DepartmentUsage = BTreeMap<Name, UsageSums>;

/// A number of commands and a number of units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Commands that ended.
    pub commands: u64,
    /// Their units.
    pub units: u64,
}

impl UsageSums {
    /// Adds commands and units; the sums saturate at the greatest number and never wrap.
    pub(crate) fn add(&mut self, commands: u64, units: u64) {
        self.commands = self.commands.saturating_add(commands);
        self.units = self.units.saturating_add(units);
    }
}

/// The ledger's data of a metrics page, all of one moment.
#[derive(Clone, Debug)]
pub struct LedgerView {
    /// All totals of the ledger.
    pub totals: LedgerTotals,
    /// The usage of departments in the requested ranges, in the order of the request.
    pub department_usage: Vec<DepartmentUsage>,
}

/// The times of the last sync and fold, and statistics of syncs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncTimes {
    /// The end of the last successful fdatasync of the tally.
    pub synced_at: Timestamp,
    /// The end of the last fold into the book.
    pub folded_at: Timestamp,
    /// The number of syncs in this epoch.
    pub syncs: u64,
    /// Their durations, summed.
    pub sync_time: Duration,
    /// Upper bounds and counts of a cumulative histogram of sync durations.
    pub sync_buckets: [(Duration, u64); 8],
}

/// All totals of the ledger at one moment.
#[derive(Clone, Debug, Default)]
pub struct LedgerTotals {
    /// One entry per (department, subsystem, command) ever seen.
    pub series: Vec<SeriesTotals>,
    /// Received - refused - finished - in flight, over all workers; any value other than 0 is a defect.
    pub imbalance: i64,
    /// Hours and tables of names in the book that were rewritten before they were sealed, in this epoch. Each is a
    /// change by another process.
    pub mended: u64,
    /// The times of syncs and folds.
    pub times: SyncTimes,
}

/// A row of usage: one window, series and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The UTC hour of admission.
    pub window: Window,
    /// The department.
    pub department: Name,
    /// The subsystem.
    pub subsystem: Name,
    /// The command.
    pub command: Name,
    /// The outcome.
    pub outcome: Outcome,
    /// The sums.
    pub totals: OutcomeTotals,
}

/// Converts a sum for SQLite, whose integers end at 2^63 - 1; a greater sum saturates there.
pub(crate) fn saturating_i64(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}
