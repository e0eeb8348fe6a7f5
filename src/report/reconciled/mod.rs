//! Compares the usage of a ledger with that of a Prometheus, hour by hour, and names the cause of every difference.
//!
//! Guarantees:
//! - Prometheus - ledger = the sum of the causes + the rest, for every department and day, commands and units.
//! - A cause explains only what it can cause: a missing hour explains that a Prometheus has less, never that it has
//!   more.
//! - A value that differs from that of its hour is in the rest, and is listed. It has no harmless cause.
//! - Differences of opposite sign do not cancel each other: each hour, department and subsystem is compared by itself.
//!
//! Source of the causes and of their order: issue 15, "causes with their numbers".
//!
//! Pure. Leaves to `cli`: reading the ledger and the Prometheus. Leaves to `render`: the text.

mod contradictory_hour;
mod hour_cause;
mod subsystem_comparison;
mod subsystem_counts;
mod up_history;
mod usage_reconciliation;

pub use self::contradictory_hour::{ContradictoryHour, source_labels};
pub use self::hour_cause::HourCause;
pub use self::subsystem_comparison::{DayOutcomes, SubsystemCause, SubsystemComparison, SubsystemDay};
pub use self::subsystem_counts::{BadSubsystemCounts, SubsystemCounts};
pub use self::up_history::UpHistory;
pub use self::usage_reconciliation::{
    CauseHours, CauseShare, DayReconciliation, DifferingValue, SignedUsage, SpanFacts, UsageReconciliation, UsageTable,
};

#[cfg(test)]
pub(crate) use self::usage_reconciliation::tests;
