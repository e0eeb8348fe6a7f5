//! The measures of commands, and what readers of the ledger get: plain, exact sums.
//!
//! Guarantees: the five measures are added in one place ([`Measures::zip`]), and no sum wraps unless its caller says
//! so.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Finished, Name, Outcome, Refused, Window};

/// The outcome code of admitted commands and units in stored sums.
pub(crate) const ADMITTED_CODE: u32 = 0;

/// The outcome code of waived commands and units in stored sums. No outcome has this code: outcomes of admitted
/// commands begin at 1, refusals at 101.
pub(crate) const WAIVED_CODE: u32 = 100;

/// The five measures of a number of commands.
///
/// - `u64`: counts and sums, in the tally, in rows and in reports. Sums saturate.
/// - `i64`: as stored in the book (`StoredMeasures`).
/// - `i128`: sums of stored numbers that cannot overflow, in the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures<N = u64> {
    /// The number of commands.
    pub commands: N,
    /// Units of the commands. Refused commands have none; commands of which nothing reached a subsystem have none
    /// either.
    pub units: N,
    /// Bytes of their request bodies.
    pub request_bytes: N,
    /// Bytes of their response bodies.
    pub response_bytes: N,
    /// Durations from admission to end, summed. For commands in flight the time so far.
    pub duration_ns: N,
}

/// Measures as SQLite stores them: signed, so that an impossible number stays visible.
pub(crate) type StoredMeasures = Measures<i64>;

impl<N: Copy> Measures<N> {
    /// The names of the measures, in the order of [`Measures::as_array`].
    pub const NAMES: [&'static str; 5] = ["commands", "units", "request_bytes", "response_bytes", "duration_ns"];

    /// Returns the measures in the order of their fields, which is the order of all stored and exported rows.
    pub fn as_array(&self) -> [N; 5] {
        [self.commands, self.units, self.request_bytes, self.response_bytes, self.duration_ns]
    }

    /// Returns the measures, each converted by `convert`.
    pub(crate) fn map<M>(self, convert: impl Fn(N) -> M) -> Measures<M> {
        Measures::from(self.as_array().map(convert))
    }

    /// Returns the measures, each combined with the same measure of `other`. All sums of measures are made here.
    pub fn zip<M: Copy, R>(self, other: Measures<M>, combine: impl Fn(N, M) -> R) -> Measures<R> {
        Measures {
            commands: combine(self.commands, other.commands),
            units: combine(self.units, other.units),
            request_bytes: combine(self.request_bytes, other.request_bytes),
            response_bytes: combine(self.response_bytes, other.response_bytes),
            duration_ns: combine(self.duration_ns, other.duration_ns),
        }
    }
}

impl<N> From<[N; 5]> for Measures<N> {
    fn from([commands, units, request_bytes, response_bytes, duration_ns]: [N; 5]) -> Self {
        Self { commands, units, request_bytes, response_bytes, duration_ns }
    }
}

impl Measures {
    /// Adds another's sums; they saturate at the greatest number and never wrap.
    pub fn add(&mut self, more: &Self) {
        *self = self.zip(*more, u64::saturating_add);
    }

    /// Returns the sums, or `None` if one of them does not fit.
    pub fn checked_add(&self, more: &Self) -> Option<Self> {
        let sums = self.zip(*more, u64::checked_add);
        Some(Self {
            commands: sums.commands?,
            units: sums.units?,
            request_bytes: sums.request_bytes?,
            response_bytes: sums.response_bytes?,
            duration_ns: sums.duration_ns?,
        })
    }

    /// Returns the commands and their units.
    pub(crate) fn usage(&self) -> UsageSums {
        UsageSums { commands: self.commands, units: self.units }
    }

    /// Converts the measures for SQLite. Numbers beyond its integers saturate.
    pub(crate) fn to_stored(self) -> StoredMeasures {
        self.map(saturating_i64)
    }
}

impl StoredMeasures {
    /// Reads five columns of a row, the first of them at `from`.
    pub(crate) fn from_row(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            commands: row.get(from)?,
            units: row.get(from + 1)?,
            request_bytes: row.get(from + 2)?,
            response_bytes: row.get(from + 3)?,
            duration_ns: row.get(from + 4)?,
        })
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

/// Commands and units: those of the [`Measures`] that are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// The number of commands.
    pub commands: u64,
    /// Their units.
    pub units: u64,
}

impl UsageSums {
    /// Adds commands and units; the sums saturate at the greatest number and never wrap.
    pub(crate) fn add(&mut self, more: Self) {
        self.commands = self.commands.saturating_add(more.commands);
        self.units = self.units.saturating_add(more.units);
    }

    /// Returns the difference to a part of these sums.
    pub(crate) fn without(self, part: Self) -> Self {
        Self { commands: self.commands.saturating_sub(part.commands), units: self.units.saturating_sub(part.units) }
    }

    /// Converts the sums for SQLite, as [`Measures::to_stored`] does.
    pub(crate) fn to_stored(self) -> [i64; 2] {
        [self.commands, self.units].map(saturating_i64)
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
    pub totals: Measures,
}

/// Converts a sum for SQLite, whose integers end at 2^63 - 1; a greater sum saturates there.
pub(crate) fn saturating_i64(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_or_are_refused_and_never_wrap() {
        let (used, full) = (Measures::from([1, 2, 3, 4, 5]), Measures::from([0, 0, 0, 0, u64::MAX]));
        let mut sum = used;
        sum.add(&full);
        assert_eq!(sum, Measures::from([1, 2, 3, 4, u64::MAX]));
        assert_eq!(used.checked_add(&used), Some(Measures::from([2, 4, 6, 8, 10])));
        assert_eq!(used.checked_add(&full), None);
        assert_eq!(sum.to_stored(), StoredMeasures::from([1, 2, 3, 4, i64::MAX]));
        assert_eq!(sum.usage().to_stored(), [1, 2]);
    }

    #[test]
    fn an_array_has_the_order_of_the_names() {
        let Measures { commands, units, request_bytes, response_bytes, duration_ns } =
            Measures::from([1_u64, 2, 3, 4, 5]);
        assert_eq!([commands, units, request_bytes, response_bytes, duration_ns], [1, 2, 3, 4, 5]);
        assert_eq!(Measures::<u64>::NAMES, ["commands", "units", "request_bytes", "response_bytes", "duration_ns"]);
    }
}
