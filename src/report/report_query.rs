//! The query of a usage report and the ledger data that answers it, shared by the command line and the admin listener.
//!
//! Pure. Leaves to `cli` and `admin`: reading the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ledger::audit::PeriodCompleteness;
use crate::ledger::{AdjustmentRow, UsageRow};
use crate::model::{CalendarOffset, Name};

use super::ReportRange;
use super::grouping::GroupKeys;

/// The query of a usage report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportQuery {
    /// The range of windows.
    pub range: ReportRange,
    /// The group keys.
    pub group_by: GroupKeys,
    /// The departments to report. If empty, all departments.
    pub departments: Vec<Name>,
}

impl ReportQuery {
    /// Whether the report includes a department's usage.
    pub fn selects(&self, department: &str) -> bool {
        self.departments.is_empty() || self.departments.iter().any(|name| name.as_str() == department)
    }
}

/// The data of a ledger for the range of a query.
#[derive(Clone, Debug)]
pub struct LedgerFacts {
    /// The rows of the range, at the resolution of [`GroupKeys::resolution`].
    pub rows: Vec<UsageRow>,
    /// The calendar of the ledger's days and months.
    pub calendar: CalendarOffset,
    /// All corrections.
    pub adjustments: Vec<AdjustmentRow>,
    /// The display names of departments, by id.
    pub names: BTreeMap<String, String>,
    /// The coverage of the whole period.
    pub coverage: ReportCoverage,
}

/// Whether the usage of the period can still change, and when that was determined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportCoverage {
    /// The time of the report, UTC.
    pub made_at: String,
    /// The completeness of the period according to the ledger.
    pub completeness: PeriodCompleteness,
}

/// A timestamp in the format of reports: UTC, whole seconds.
pub fn utc_seconds_text(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
