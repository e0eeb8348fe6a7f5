//! A department's units in the current calendar month: one atomic word, so that the month turns over and units are
//! taken in the same step.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Exceeded, Month, Quota};

/// The most units a quota can hold: 48 bits, some 281 million million.
pub const QUOTA_UNITS_MAX: u64 = (1 << UNIT_BITS) - 1;

const UNIT_BITS: u32 = 48;

/// Units used in one month: the month in the upper 16 bits, the units in the lower 48.
#[derive(Debug, Default)]
pub(super) struct MonthUse(AtomicU64);

/// No: the month's units are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp;

impl MonthUse {
    /// Takes units, or refuses when the quota says so. A month that has passed is not counted any more: its stragglers
    /// count in the month that is open. Without a quota units are counted all the same, for a reload may bring one.
    pub(super) fn take(&self, month: Month, units: u64, quota: Option<&Quota>) -> Result<Taken, UsedUp> {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (open, used) = opened(before, month);
            let after = used.saturating_add(units).min(QUOTA_UNITS_MAX);
            if quota.is_some_and(|quota| quota.exceeded == Exceeded::Refuse && after > quota.units.get()) {
                return Err(UsedUp);
            }
            match self.0.compare_exchange_weak(before, pack(open, after), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Taken { month: open, units: after - used }),
                Err(now) => before = now,
            }
        }
    }

    /// Gives back what was taken, unless its month is over.
    pub(super) fn give_back(&self, taken: Taken) {
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            let (open, used) = unpack(packed);
            (open == taken.month).then(|| pack(open, used.saturating_sub(taken.units)))
        });
    }

    /// Units used in a month.
    pub(super) fn used(&self, month: Month) -> u64 {
        let (open, used) = unpack(self.0.load(Ordering::Acquire));
        if open == number(month) { used } else { 0 }
    }

    /// Sets the units used in a month, unless a later one is open.
    pub(super) fn set(&self, month: Month, units: u64) {
        let set = pack(number(month), units.min(QUOTA_UNITS_MAX));
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            (unpack(packed).0 <= number(month)).then_some(set)
        });
    }
}

/// What was taken from a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    month: u64,
    units: u64,
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
