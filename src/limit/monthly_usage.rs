//! A department's units in the current calendar month, and the quota thresholds logged in that month.
//!
//! One atomic word holds month and units, so that a new month begins and units are taken in one step. A second word
//! holds the logged thresholds.
//!
//! Guarantees: while a quota stays the same, each threshold is logged at most once a month, for any number of workers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Month;

use super::quota_plan::{FULL_PERCENT, QuotaPlan};

/// The most units of a quota: 2^48 - 1, about 281 million million.
pub const QUOTA_UNITS_MAX: u64 = (1 << UNIT_BITS) - 1;

const UNIT_BITS: u32 = 48;
/// A flag in the lower half of `warned`: the quota refused a command, and the refusal was logged.
const REFUSED_FLAG: u64 = 1 << 8;

/// The units used in one month, and the logged thresholds. Each word has the month in its upper 16 bits.
#[derive(Debug, Default)]
pub(crate) struct MonthlyUsage {
    /// The units are in the lower 48 bits.
    used: AtomicU64,
    /// The lower 8 bits hold the highest logged threshold in percent. [`REFUSED_FLAG`] is the bit above them.
    warned: AtomicU64,
}

/// A refusal: the month's units are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuotaExhausted {
    month: u64,
    /// Units used.
    used: u64,
}

impl MonthlyUsage {
    /// Takes units, or refuses if the quota is exceeded. Late commands of a past month count in the month that is open.
    /// Units are counted without a quota too, because a reload may add one.
    pub(crate) fn take_units(
        &self,
        month: Month,
        units: u64,
        quota: Option<&QuotaPlan>,
    ) -> Result<TakenUnits, QuotaExhausted> {
        let mut before = self.used.load(Ordering::Acquire);
        loop {
            let (month, used) = current_month_units(before, month);
            let after = used.saturating_add(units).min(QUOTA_UNITS_MAX);
            if quota.is_some_and(|quota| quota.is_exceeded_by(after)) {
                return Err(QuotaExhausted { month, used });
            }
            match self.used.compare_exchange_weak(before, pack(month, after), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(TakenUnits { month, units: after - used, used: after }),
                Err(now) => before = now,
            }
        }
    }

    /// Returns taken units, unless their month is over.
    pub(crate) fn return_units(&self, taken_units: TakenUnits) {
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            let (open, used) = unpack(packed);
            (open == taken_units.month).then(|| pack(open, used.saturating_sub(taken_units.units)))
        });
    }

    /// The units used in a month.
    pub(crate) fn used(&self, month: Month) -> u64 {
        value_in_month(self.used.load(Ordering::Acquire), month_number(month))
    }

    /// Sets the units used in a month, unless a later month is open.
    pub(crate) fn set_used(&self, month: Month, units: u64) {
        let set = pack(month_number(month), units.min(QUOTA_UNITS_MAX));
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            (unpack(packed).0 <= month_number(month)).then_some(set)
        });
    }

    /// Logs the thresholds that a command has reached, unless another command has already logged them.
    pub(crate) fn warn_thresholds(&self, taken_units: &TakenUnits, plan: &QuotaPlan) {
        self.raise((taken_units.month, taken_units.used), plan);
    }

    /// Logs the first refusal of a month, unless the threshold of 100 % was already logged.
    pub(crate) fn warn_of_refusal(&self, QuotaExhausted { month, used }: QuotaExhausted, plan: &QuotaPlan) {
        let first = |warned: u64| {
            let state = value_in_month(warned, month);
            (unpack(warned).0 <= month && state & REFUSED_FLAG == 0 && warned_percent_of(state) < FULL_PERCENT)
                .then(|| pack(month, state | REFUSED_FLAG))
        };
        if self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, first).is_ok() {
            plan.warn_of_refusal(used, month_of(month));
        }
    }

    /// Begins a new quota: forgets logged thresholds above the current use, and logs those that the use has reached.
    pub(crate) fn begin_plan(&self, month: Month, plan: &QuotaPlan) {
        let used = self.used(month);
        let reached = u64::from(plan.percent_reached(used));
        let lower = |warned: u64| {
            let state = value_in_month(warned, month_number(month));
            (unpack(warned).0 <= month_number(month))
                .then(|| pack(month_number(month), reached.min(u64::from(warned_percent_of(state)))))
        };
        let _ = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        self.raise((month_number(month), used), plan);
    }

    /// Restores the logged state at the start: reached thresholds, and a refusal, were logged before it.
    pub(crate) fn restore_warnings(&self, month: Month, plan: &QuotaPlan, has_refused: bool) {
        let refused = if has_refused { REFUSED_FLAG } else { 0 };
        let state = u64::from(plan.percent_reached(self.used(month))) | refused;
        self.warned.store(pack(month_number(month), state), Ordering::Release);
    }

    /// The highest threshold logged in a month, in percent. [`FULL_PERCENT`] after a command was refused.
    pub(crate) fn warned_percent(&self, month: Month) -> u8 {
        let state = value_in_month(self.warned.load(Ordering::Acquire), month_number(month));
        if state & REFUSED_FLAG == 0 { warned_percent_of(state) } else { FULL_PERCENT }
    }

    fn raise(&self, (month, used): (u64, u64), plan: &QuotaPlan) {
        let reached = plan.percent_reached(used);
        let higher = |warned: u64| {
            let state = value_in_month(warned, month);
            let is_news = unpack(warned).0 <= month && warned_percent_of(state) < reached;
            is_news.then(|| pack(month, (state & REFUSED_FLAG) | u64::from(reached)))
        };
        if let Ok(before) = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, higher) {
            plan.warn_between((warned_percent_of(value_in_month(before, month)), reached), used, month_of(month));
        }
    }
}

/// Units that were taken from a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenUnits {
    month: u64,
    units: u64,
    /// The used units, including these.
    pub(crate) used: u64,
}

/// The lower half of a word, or 0 if the word is of another month.
fn value_in_month(packed: u64, month: u64) -> u64 {
    let (open, value) = unpack(packed);
    if open == month { value } else { 0 }
}

/// The percentage in the lower half of `warned`.
fn warned_percent_of(state: u64) -> u8 {
    state.to_le_bytes()[0]
}

/// The inverse of [`month_number`].
fn month_of(number: u64) -> Month {
    let (year, month) = (number / 12, number % 12 + 1);
    Month { year: i16::try_from(year).unwrap_or(i16::MAX), month: i8::try_from(month).unwrap_or(1) }
}

fn current_month_units(packed: u64, month: Month) -> (u64, u64) {
    let (open, used) = unpack(packed);
    if month_number(month) > open { (month_number(month), 0) } else { (open, used) }
}

/// Months since the year 0. 16 bits last until the year 5461.
fn month_number(month: Month) -> u64 {
    let number = i64::from(month.year) * 12 + i64::from(month.month) - 1;
    u64::try_from(number).unwrap_or(0).min(u64::from(u16::MAX))
}

fn pack(month: u64, units: u64) -> u64 {
    (month << UNIT_BITS) | units
}

fn unpack(packed: u64) -> (u64, u64) {
    (packed >> UNIT_BITS, packed & QUOTA_UNITS_MAX)
}
