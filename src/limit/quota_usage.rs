//! What a department has used of its quotas, and what one command takes of them.
//!
//! Guarantees:
//! - A command takes from all kinds of quotas or from none. A refusal returns what it had taken.
//! - All four kinds are counted, also without quotas, because a reload may add one.
//!
//! Leaves to others: the count of one kind (`period_usage`), the quotas (`quota_plan`).

use std::cell::Cell;

use crate::model::{CalendarOffset, PeriodLength, QuotaKind, QuotaMeasure, Window};

use super::period_usage::{OpenUse, PeriodUsage, QuotaExhausted};
use super::quota_plan::QuotaPlans;

/// A department's use, by kind of quota.
#[derive(Debug, Default)]
pub(crate) struct QuotaUsage {
    /// In the order of [`QuotaKind::ALL`].
    kinds: [PeriodUsage; QuotaKind::COUNT],
}

/// The numbers of the day and the month of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeriodNumbers {
    day: u16,
    month: u16,
}

/// What a command has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenUse {
    /// The number of the period that each kind was taken from.
    periods: [u16; QuotaKind::COUNT],
    units: u64,
}

/// The use at which each kind may have its next warning. An estimate of one gate: a cell that is too low costs a look,
/// and none is too high.
#[derive(Debug)]
pub(crate) struct NextWarnings([Cell<u64>; QuotaKind::COUNT]);

impl PeriodNumbers {
    pub(crate) fn of(window: Window, calendar: CalendarOffset) -> Self {
        let number = |length: PeriodLength| length.containing(window, calendar).number();
        Self { day: number(PeriodLength::Day), month: number(PeriodLength::Month) }
    }

    pub(crate) fn of_length(self, length: PeriodLength) -> u16 {
        match length {
            PeriodLength::Day => self.day,
            PeriodLength::Month => self.month,
        }
    }
}

impl NextWarnings {
    /// Never without a quota. With one, the first command looks up the thresholds.
    pub(crate) fn new(plans: &QuotaPlans) -> Self {
        let next = Self(QuotaKind::ALL.map(|_| Cell::new(u64::MAX)));
        next.look_again(plans);
        next
    }

    /// Lets the next command look up the thresholds of all quotas.
    pub(crate) fn look_again(&self, plans: &QuotaPlans) {
        plans.iter().for_each(|(kind, _)| self.0[kind.index()].set(0));
    }
}

impl QuotaUsage {
    /// The use of one kind.
    pub(crate) fn of(&self, kind: QuotaKind) -> &PeriodUsage {
        &self.kinds[kind.index()]
    }

    /// Takes one command and its units, or refuses with the kind of the quota that is exceeded. Logs the thresholds
    /// that the command reaches.
    pub(crate) fn take(
        &self,
        units: u64,
        periods: PeriodNumbers,
        (plans, next): (&QuotaPlans, &NextWarnings),
    ) -> Result<TakenUse, (QuotaKind, QuotaExhausted)> {
        let mut taken = TakenUse { periods: [0; QuotaKind::COUNT], units };
        let mut open = [OpenUse { period: 0, used: 0 }; QuotaKind::COUNT];
        for (index, kind) in QuotaKind::ALL.into_iter().enumerate() {
            let (number, amount) = (periods.of_length(kind.per), amount(kind.measure, units));
            match self.kinds[index].take(number, amount, plans.of(kind)) {
                Ok(now) => {
                    open[index] = now;
                    taken.periods[index] = now.period;
                }
                Err(exhausted) => {
                    self.give_back_kinds(&taken, &QuotaKind::ALL[..index]);
                    return Err((kind, exhausted));
                }
            }
        }
        if open.iter().zip(&next.0).any(|(now, next)| now.used >= next.get()) {
            self.warn_thresholds(open, plans, next);
        }
        Ok(taken)
    }

    #[cold]
    fn warn_thresholds(&self, open: [OpenUse; QuotaKind::COUNT], plans: &QuotaPlans, next: &NextWarnings) {
        for (kind, plan) in plans.iter() {
            let now = open[kind.index()];
            next.0[kind.index()].set(plan.next_threshold(now.used));
            self.of(kind).warn_thresholds(now, plan);
        }
    }

    /// Returns everything that a command has taken: it was not admitted.
    pub(crate) fn give_back(&self, taken: &TakenUse) {
        self.give_back_kinds(taken, &QuotaKind::ALL);
    }

    /// Returns the units of an admitted command that costs none. It still counts as a command.
    pub(crate) fn give_back_units(&self, taken: &TakenUse) {
        for kind in QuotaKind::ALL.into_iter().filter(|kind| kind.measure == QuotaMeasure::Units) {
            self.give_back_kinds(taken, &[kind]);
        }
    }

    fn give_back_kinds(&self, taken: &TakenUse, kinds: &[QuotaKind]) {
        for kind in kinds {
            self.of(*kind).give_back(taken.periods[kind.index()], amount(kind.measure, taken.units));
        }
    }
}

fn amount(measure: QuotaMeasure, units: u64) -> u64 {
    match measure {
        QuotaMeasure::Units => units,
        QuotaMeasure::Commands => 1,
    }
}
