//! A department's quota: its units per month, and the percentages at which operators are warned.
//!
//! Guarantees:
//!
//! - 100 % is always a threshold.
//! - A threshold of p % of a quota of U units is reached at ceil(U x p / 100) used units.
//!
//! Leaves to others: the record of the lines logged in a month (`monthly_usage`). This module writes the log lines.

use crate::model::{Month, Name, QuotaAction};
use crate::policy::DepartmentPolicy;

/// The whole quota, in percent.
pub(crate) const FULL_PERCENT: u8 = 100;

/// A department's quota with its thresholds in units.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QuotaPlan {
    department: Name,
    units: u64,
    exceeded: QuotaAction,
    /// Ascending; the last is [`FULL_PERCENT`].
    thresholds: Box<[QuotaThreshold]>,
}

#[derive(Debug, PartialEq, Eq)]
struct QuotaThreshold {
    percent: u8,
    /// The smallest number of used units that reaches the threshold.
    units: u64,
}

impl QuotaPlan {
    /// The quota of a department, if it has one.
    pub(crate) fn for_department(policy: &DepartmentPolicy) -> Option<Self> {
        let quota = policy.quota.as_ref()?;
        let units = quota.units.get();
        let percentages = quota.warn.iter().copied().filter(|percent| *percent < FULL_PERCENT).chain([FULL_PERCENT]);
        let thresholds =
            percentages.map(|percent| QuotaThreshold { percent, units: rounded_share(units, percent) }).collect();
        Some(Self { department: policy.department.id.clone(), units, exceeded: quota.exceeded, thresholds })
    }

    /// The department of the quota.
    pub(crate) fn department(&self) -> &Name {
        &self.department
    }

    /// Units per month.
    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    /// Whether the quota refuses a command that would raise the use to `used` units.
    pub(crate) fn is_exceeded_by(&self, used: u64) -> bool {
        self.exceeded == QuotaAction::Refuse && used > self.units
    }

    /// The highest threshold that `used` units reach, in percent; 0 below the first.
    pub(crate) fn percent_reached(&self, used: u64) -> u8 {
        self.thresholds.iter().rev().find(|threshold| threshold.units <= used).map_or(0, |threshold| threshold.percent)
    }

    /// The number of used units that reaches the next threshold.
    pub(crate) fn next_threshold_units(&self, used: u64) -> u64 {
        self.thresholds.iter().map(|threshold| threshold.units).find(|units| *units > used).unwrap_or(u64::MAX)
    }

    /// Logs the thresholds above `before` percent, up to `reached`.
    pub(crate) fn warn_between(&self, (before, reached): (u8, u8), used: u64, month: Month) {
        for threshold in
            self.thresholds.iter().filter(|one| (before.saturating_add(1)..=reached).contains(&one.percent))
        {
            let percent = threshold.percent;
            let message = match (percent, self.exceeded) {
                (FULL_PERCENT, QuotaAction::Refuse) => {
                    "quota used up; further commands are refused until the month ends"
                }
                (FULL_PERCENT, QuotaAction::Allow) => "quota used up; further commands are admitted (exceeded: allow)",
                _ => "quota threshold reached",
            };
            tracing::warn!(department = %self.department, percent, used, units = self.units, %month, "{message}");
        }
    }

    /// Logs that a command was refused although some units are left.
    pub(crate) fn warn_of_refusal(&self, used: u64, month: Month) {
        tracing::warn!(
            department = %self.department, used, units = self.units, %month,
            "command refused: its units would exceed the quota"
        );
    }
}

/// `percent` of `units`, rounded up. No overflow: a quota has at most 2^48 - 1 units.
fn rounded_share(units: u64, percent: u8) -> u64 {
    (units * u64::from(percent)).div_ceil(u64::from(FULL_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(units: u64, warn: &[u8]) -> QuotaPlan {
        let percentages = warn.iter().copied().chain([FULL_PERCENT]);
        let thresholds =
            percentages.map(|percent| QuotaThreshold { percent, units: rounded_share(units, percent) }).collect();
        QuotaPlan { department: Name::unknown(), units, exceeded: QuotaAction::Refuse, thresholds }
    }

    #[test]
    fn threshold_is_reached_at_the_rounded_up_unit_of_its_share() {
        let plan = plan(10, &[50, 85]);
        for (used, reached, next) in
            [(0, 0, 5), (4, 0, 5), (5, 50, 9), (8, 50, 9), (9, 85, 10), (10, 100, u64::MAX), (99, 100, u64::MAX)]
        {
            assert_eq!((plan.percent_reached(used), plan.next_threshold_units(used)), (reached, next), "{used} units");
        }
    }

    #[test]
    fn smallest_and_largest_quota_have_thresholds() {
        let small = plan(1, &[1, 99]);
        assert_eq!([0, 1].map(|used| small.percent_reached(used)), [0, 100]);
        let largest = plan(super::super::QUOTA_UNITS_MAX, &[99]);
        assert_eq!(largest.percent_reached(super::super::QUOTA_UNITS_MAX), 100);
    }
}
