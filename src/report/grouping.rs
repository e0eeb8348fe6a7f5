//! The group keys of a report, and the resolution of ledger rows that they need.

use std::fmt;

use crate::ledger::UsageRow;
use crate::model::CalendarOffset;

/// A key by which rows may be grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// The department.
    Department,
    /// The namespace in Kubernetes: the part of the subsystem before its first dot. Empty for one without a dot.
    Namespace,
    /// The subsystem.
    Subsystem,
    /// The command.
    Command,
    /// The outcome.
    Outcome,
    /// The party to blame for the outcome: `none`, `caller`, `us`, `upstream`.
    Blame,
    /// The calendar month of admission.
    Month,
    /// The date of admission in the ledger's calendar.
    Day,
    /// The UTC hour of admission.
    Hour,
}

impl GroupKey {
    const ALL: [Self; 9] = [
        Self::Department,
        Self::Namespace,
        Self::Subsystem,
        Self::Command,
        Self::Outcome,
        Self::Blame,
        Self::Month,
        Self::Day,
        Self::Hour,
    ];

    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Department => "department",
            Self::Namespace => "namespace",
            Self::Subsystem => "subsystem",
            Self::Command => "command",
            Self::Outcome => "outcome",
            Self::Blame => "blame",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    pub(crate) fn value_of(self, row: &UsageRow, calendar: CalendarOffset) -> String {
        match self {
            Self::Department => row.department.to_string(),
            Self::Namespace => namespace_of(row.subsystem.as_str()).to_owned(),
            Self::Subsystem => row.subsystem.to_string(),
            Self::Command => row.command.to_string(),
            Self::Outcome => row.outcome.to_string(),
            Self::Blame => row.outcome.blame().name().to_owned(),
            Self::Month => calendar.month_of(row.window).to_string(),
            Self::Day => calendar.date_of(row.window).to_string(),
            Self::Hour => row.window.to_string(),
        }
    }
}

/// The namespace of a subsystem that is a route in Kubernetes: names of namespaces have no dot.
pub(crate) fn namespace_of(subsystem: &str) -> &str {
    subsystem.split_once('.').map_or("", |(namespace, _)| namespace)
}

/// The resolution of the ledger's rows that a report needs. Coarser rows are read faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportResolution {
    /// One row for the whole range.
    Whole,
    /// Rows of days.
    Day,
    /// Rows of hours.
    Hour,
}

/// The group keys of a report, in the order of its columns. Each key occurs at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKeys(Vec<GroupKey>);

/// Why a text is not a [`GroupKeys`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGroupKey {
    /// The word is not a key.
    #[error(
        "cannot group by {0:?}; write one or more of department, namespace, subsystem, command, outcome, blame, month, day, \
         hour"
    )]
    Unknown(String),
    /// The key occurs twice.
    #[error("{0} is repeated in the grouping; write it once")]
    Twice(&'static str),
}

impl GroupKeys {
    /// Parses keys separated by commas.
    pub fn parse(text: &str) -> Result<Self, BadGroupKey> {
        let mut keys = Vec::new();
        for word in text.split(',').map(str::trim) {
            let key = GroupKey::ALL.into_iter().find(|key| key.name() == word);
            let key = key.ok_or_else(|| BadGroupKey::Unknown(word.to_owned()))?;
            if keys.contains(&key) {
                return Err(BadGroupKey::Twice(key.name()));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// The resolution of the ledger's rows that these keys need.
    pub fn resolution(&self) -> ReportResolution {
        if self.0.contains(&GroupKey::Hour) {
            return ReportResolution::Hour;
        }
        match self.0.contains(&GroupKey::Day) || self.0.contains(&GroupKey::Month) {
            true => ReportResolution::Day,
            false => ReportResolution::Whole,
        }
    }

    /// The keys in their order.
    pub fn keys(&self) -> &[GroupKey] {
        &self.0
    }
}

impl Default for GroupKeys {
    fn default() -> Self {
        Self(vec![GroupKey::Department, GroupKey::Subsystem, GroupKey::Command, GroupKey::Outcome])
    }
}

impl fmt::Display for GroupKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|key| key.name()).collect();
        f.write_str(&names.join(","))
    }
}
