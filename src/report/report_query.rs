//! What is asked of a ledger, and what it holds for the answer: the same for the command line and the admin listener.
//!
//! Pure: who reads the ledger is for `cli` and `admin`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ledger::audit::PeriodCompleteness;
use crate::ledger::{AdjustmentRow, UsageRow};
use crate::model::{CalendarOffset, Name};

use super::ReportRange;
use super::grouping::GroupKeys;

/// Which usage is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportQuery {
    /// The period.
    pub range: ReportRange,
    /// What to group by.
    pub group_by: GroupKeys,
    /// Only of these departments; of all, if there are none.
    pub departments: Vec<Name>,
}

impl ReportQuery {
    /// Whether a department's usage belongs to the answer.
    pub fn selects(&self, department: &str) -> bool {
        self.departments.is_empty() || self.departments.iter().any(|name| name.as_str() == department)
    }
}

/// What a ledger holds of the range of a query.
#[derive(Clone, Debug)]
pub struct LedgerFacts {
    /// The rows of the range, as fine as [`GroupKeys::resolution`] says.
    pub rows: Vec<UsageRow>,
    /// The calendar of its days and months.
    pub calendar: CalendarOffset,
    /// All corrections.
    pub adjustments: Vec<AdjustmentRow>,
    /// What people call departments, by id.
    pub names: BTreeMap<String, String>,
    /// The period as a whole.
    pub coverage: ReportCoverage,
}

/// Whether the usage of the period can still change, and when that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportCoverage {
    /// When the report was made, UTC.
    pub made_at: String,
    /// What the ledger says about the period.
    pub completeness: PeriodCompleteness,
}

/// A moment as reports write it: UTC, whole seconds.
pub fn utc_seconds_text(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
