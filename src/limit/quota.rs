//! A department's units in the current calendar month: one atomic word, so that the month turns over and units are
//! taken in the same step; and one more for the thresholds that operators were warned of in that month.
//!
//! Guarantees: a threshold is logged at most once a month as long as the quota stays the same, however many workers use it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Month;

use super::thresholds::{QuotaPlan, WHOLE};

/// The most units a quota can hold: 48 bits, some 281 million million.
pub const QUOTA_UNITS_MAX: u64 = (1 << UNIT_BITS) - 1;

const UNIT_BITS: u32 = 48;
/// In the lower half of the word of warnings: a command was refused by the quota, and that was logged.
const REFUSED: u64 = 1 << 8;

/// Units used in one month, and what operators were warned of: each has the month in its upper 16 bits.
#[derive(Debug, Default)]
pub(super) struct MonthUse {
    /// The units are in the lower 48 bits.
    used: AtomicU64,
    /// The highest threshold in percent is in the lower 8 bits, then comes [`REFUSED`].
    warned: AtomicU64,
}

/// No: the month's units are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp {
    month: u64,
    /// Units used.
    used: u64,
}

impl MonthUse {
    /// Takes units, or refuses when the quota says so. A month that has passed is not counted any more: its stragglers
    /// count in the month that is open. Without a quota units are counted all the same, for a reload may bring one.
    pub(super) fn take(&self, month: Month, units: u64, quota: Option<&QuotaPlan>) -> Result<Taken, UsedUp> {
        let mut before = self.used.load(Ordering::Acquire);
        loop {
            let (month, used) = opened(before, month);
            let after = used.saturating_add(units).min(QUOTA_UNITS_MAX);
            if quota.is_some_and(|quota| quota.refuses(after)) {
                return Err(UsedUp { month, used });
            }
            match self.used.compare_exchange_weak(before, pack(month, after), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Taken { month, units: after - used, used: after }),
                Err(now) => before = now,
            }
        }
    }

    /// Gives back what was taken, unless its month is over.
    pub(super) fn give_back(&self, taken: Taken) {
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            let (open, used) = unpack(packed);
            (open == taken.month).then(|| pack(open, used.saturating_sub(taken.units)))
        });
    }

    /// Units used in a month.
    pub(super) fn used(&self, month: Month) -> u64 {
        of_month(self.used.load(Ordering::Acquire), number(month))
    }

    /// Sets the units used in a month, unless a later one is open.
    pub(super) fn set(&self, month: Month, units: u64) {
        let set = pack(number(month), units.min(QUOTA_UNITS_MAX));
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            (unpack(packed).0 <= number(month)).then_some(set)
        });
    }

    /// Logs the thresholds that a command has reached, unless another command was first.
    pub(super) fn warn(&self, taken: &Taken, plan: &QuotaPlan) {
        self.raise((taken.month, taken.used), plan);
    }

    /// Logs the first refusal of a month, unless the quota was told to be used up already.
    pub(super) fn warn_of_refusal(&self, UsedUp { month, used }: UsedUp, plan: &QuotaPlan) {
        let first = |warned: u64| {
            let told = of_month(warned, month);
            (unpack(warned).0 <= month && told & REFUSED == 0 && percent(told) < WHOLE)
                .then(|| pack(month, told | REFUSED))
        };
        if self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, first).is_ok() {
            plan.warn_of_refusal(used, month_of(month));
        }
    }

    /// A new quota holds from now on: what it was not exceeded by is forgotten, what it is exceeded by is logged.
    pub(super) fn begin_plan(&self, month: Month, plan: &QuotaPlan) {
        let used = self.used(month);
        let reached = u64::from(plan.reached_by(used));
        let lower = |warned: u64| {
            let told = of_month(warned, number(month));
            (unpack(warned).0 <= number(month)).then(|| pack(number(month), reached.min(u64::from(percent(told)))))
        };
        let _ = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        self.raise((number(month), used), plan);
    }

    /// What a start finds in the ledger: thresholds that are reached, and a refusal, were logged before it.
    pub(super) fn recall(&self, month: Month, plan: &QuotaPlan, has_refused: bool) {
        let refused = if has_refused { REFUSED } else { 0 };
        let told = u64::from(plan.reached_by(self.used(month))) | refused;
        self.warned.store(pack(number(month), told), Ordering::Release);
    }

    /// The highest threshold that was logged in a month, in percent; [`WHOLE`] once a command was refused.
    pub(super) fn warned_percent(&self, month: Month) -> u8 {
        let told = of_month(self.warned.load(Ordering::Acquire), number(month));
        if told & REFUSED == 0 { percent(told) } else { WHOLE }
    }

    fn raise(&self, (month, used): (u64, u64), plan: &QuotaPlan) {
        let reached = plan.reached_by(used);
        let higher = |warned: u64| {
            let told = of_month(warned, month);
            let is_news = unpack(warned).0 <= month && percent(told) < reached;
            is_news.then(|| pack(month, (told & REFUSED) | u64::from(reached)))
        };
        if let Ok(before) = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, higher) {
            plan.warn_between((percent(of_month(before, month)), reached), used, month_of(month));
        }
    }
}

/// What was taken from a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    month: u64,
    units: u64,
    /// Units used with it.
    pub(super) used: u64,
}

/// The lower half of a word, if it is of that month.
fn of_month(packed: u64, month: u64) -> u64 {
    let (open, value) = unpack(packed);
    if open == month { value } else { 0 }
}

/// The percentage in the lower half of a word of warnings.
fn percent(told: u64) -> u8 {
    told.to_le_bytes()[0]
}

/// The inverse of [`number`].
fn month_of(number: u64) -> Month {
    let (year, month) = (number / 12, number % 12 + 1);
    Month { year: i16::try_from(year).unwrap_or(i16::MAX), month: i8::try_from(month).unwrap_or(1) }
}

fn opened(packed: u64, month: Month) -> (u64, u64) {
    let (open, used) = unpack(packed);
    if number(month) > open { (number(month), 0) } else { (open, used) }
}

/// Months since the year 0; 16 bits last until the year 5461.
fn number(month: Month) -> u64 {
    let number = i64::from(month.year) * 12 + i64::from(month.month) - 1;
    u64::try_from(number).unwrap_or(0).min(u64::from(u16::MAX))
}

fn pack(month: u64, units: u64) -> u64 {
    (month << UNIT_BITS) | units
}

fn unpack(packed: u64) -> (u64, u64) {
    (packed >> UNIT_BITS, packed & QUOTA_UNITS_MAX)
}
