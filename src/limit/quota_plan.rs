//! A department's quotas: the units or commands of a day or a month, and the percentages at which operators are warned.
//!
//! Guarantees:
//!
//! - 100 % is always a threshold.
//! - A threshold of p % of a quota of N is reached at a use of ceil(N x p / 100).
//!
//! Leaves to others: the record of the lines logged in a period (`period_usage`). This module writes the log lines.

use crate::model::{Name, PeriodLength, Quota, QuotaAction, QuotaKind};
use crate::policy::DepartmentPolicy;

use super::period_usage::OpenUse;

/// The whole quota, in percent.
pub(crate) const FULL_PERCENT: u8 = 100;

/// The quotas of a department, at most one of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaPlans([Option<QuotaPlan>; QuotaKind::COUNT]);

/// A quota with its thresholds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QuotaPlan {
    department: Name,
    kind: QuotaKind,
    amount: u64,
    exceeded: QuotaAction,
    /// Ascending; the last is [`FULL_PERCENT`].
    thresholds: Box<[QuotaThreshold]>,
}

#[derive(Debug, PartialEq, Eq)]
struct QuotaThreshold {
    percent: u8,
    /// The smallest use that reaches the threshold.
    used: u64,
}

impl QuotaPlans {
    /// The quotas of a department.
    pub(crate) fn for_department(policy: &DepartmentPolicy) -> Self {
        let mut plans = Self::default();
        for quota in &policy.quotas {
            plans.0[quota.kind.index()] = Some(QuotaPlan::new(policy.department.id.clone(), quota));
        }
        plans
    }

    /// The quota of a kind.
    pub(crate) fn of(&self, kind: QuotaKind) -> Option<&QuotaPlan> {
        self.0[kind.index()].as_ref()
    }

    /// The quotas that the department has, in the order of [`QuotaKind::ALL`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QuotaKind, &QuotaPlan)> {
        QuotaKind::ALL.into_iter().zip(&self.0).filter_map(|(kind, plan)| Some((kind, plan.as_ref()?)))
    }
}

impl QuotaPlan {
    fn new(department: Name, quota: &Quota) -> Self {
        let amount = quota.amount.get();
        let percentages = quota.warn.iter().copied().filter(|percent| *percent < FULL_PERCENT).chain([FULL_PERCENT]);
        let thresholds =
            percentages.map(|percent| QuotaThreshold { percent, used: rounded_share(amount, percent) }).collect();
        Self { department, kind: quota.kind, amount, exceeded: quota.exceeded, thresholds }
    }

    /// The department of the quota.
    pub(crate) fn department(&self) -> &Name {
        &self.department
    }

    /// Units or commands per period.
    pub(crate) fn amount(&self) -> u64 {
        self.amount
    }

    /// Whether the quota refuses a command that would raise the use to `used`.
    pub(crate) fn is_exceeded_by(&self, used: u64) -> bool {
        self.exceeded == QuotaAction::Refuse && used > self.amount
    }

    /// The highest threshold that `used` reaches, in percent; 0 below the first.
    pub(crate) fn percent_reached(&self, used: u64) -> u8 {
        self.thresholds.iter().rev().find(|threshold| threshold.used <= used).map_or(0, |threshold| threshold.percent)
    }

    /// The use that reaches the next threshold.
    pub(crate) fn next_threshold(&self, used: u64) -> u64 {
        self.thresholds.iter().map(|threshold| threshold.used).find(|next| *next > used).unwrap_or(u64::MAX)
    }

    /// Logs the thresholds above `before` percent, up to `reached`.
    pub(crate) fn warn_between(&self, (before, reached): (u8, u8), OpenUse { period, used }: OpenUse) {
        let (period, measure) = (self.kind.per.period_of_number(period), self.kind.measure.name());
        for threshold in
            self.thresholds.iter().filter(|one| (before.saturating_add(1)..=reached).contains(&one.percent))
        {
            let percent = threshold.percent;
            let message = self.message(percent);
            tracing::warn!(department = %self.department, percent, used, quota = self.amount, measure, %period, "{message}");
        }
    }

    fn message(&self, percent: u8) -> &'static str {
        match (percent, self.exceeded, self.kind.per) {
            (FULL_PERCENT, QuotaAction::Refuse, PeriodLength::Day) => {
                "quota used up; further commands are refused until the day ends"
            }
            (FULL_PERCENT, QuotaAction::Refuse, PeriodLength::Month) => {
                "quota used up; further commands are refused until the month ends"
            }
            (FULL_PERCENT, QuotaAction::Allow, _) => "quota used up; further commands are admitted (exceeded: allow)",
            _ => "quota threshold reached",
        }
    }

    /// Logs that a command was refused although a part of the quota is left.
    pub(crate) fn warn_of_refusal(&self, OpenUse { period, used }: OpenUse) {
        let (period, measure) = (self.kind.per.period_of_number(period), self.kind.measure.name());
        tracing::warn!(
            department = %self.department, used, quota = self.amount, measure, %period,
            "command refused: it would exceed the quota"
        );
    }
}

/// `percent` of an amount, rounded up. No overflow: a quota has at most 2^48 - 1.
fn rounded_share(amount: u64, percent: u8) -> u64 {
    (amount * u64::from(percent)).div_ceil(u64::from(FULL_PERCENT))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn plan(amount: u64, warn: &[u8]) -> QuotaPlan {
        let (amount, warn) = (NonZeroU64::new(amount).expect("not zero"), warn.to_vec());
        let quota = Quota { kind: QuotaKind::ALL[0], amount, warn, exceeded: QuotaAction::Refuse };
        QuotaPlan::new(Name::unknown(), &quota)
    }

    #[test]
    fn threshold_is_reached_at_the_rounded_up_unit_of_its_share() {
        let plan = plan(10, &[50, 85]);
        for (used, reached, next) in
            [(0, 0, 5), (4, 0, 5), (5, 50, 9), (8, 50, 9), (9, 85, 10), (10, 100, u64::MAX), (99, 100, u64::MAX)]
        {
            assert_eq!((plan.percent_reached(used), plan.next_threshold(used)), (reached, next), "{used} units");
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
