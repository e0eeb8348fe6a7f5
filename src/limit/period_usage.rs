//! What one quota of a department counts in its current period, and the thresholds logged in that period.
//!
//! One atomic word holds period and use, so that a new period begins and use is taken in one step. A second word holds
//! the logged thresholds.
//!
//! Guarantees: while a quota stays the same, each threshold is logged at most once a period, for any number of workers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::quota_plan::{FULL_PERCENT, QuotaPlan};

/// The most units or commands of a quota: 2^48 - 1, about 281 million million.
pub const QUOTA_UNITS_MAX: u64 = (1 << USE_BITS) - 1;

const USE_BITS: u32 = 48;
/// A flag in the lower half of `warned`: the quota refused a command, and the refusal was logged.
const REFUSED_FLAG: u64 = 1 << 8;
/// A flag in the lower half of `warned`: the use was restored before the department had this quota. Thresholds that it
/// reaches were logged before the start.
const RESTORED_FLAG: u64 = 1 << 9;

/// The use of one period, and the logged thresholds. Each word has the number of the period in its upper 16 bits.
#[derive(Debug, Default)]
pub(crate) struct PeriodUsage {
    /// The use is in the lower 48 bits.
    used: AtomicU64,
    /// The lower 8 bits hold the highest logged threshold in percent. [`REFUSED_FLAG`] and [`RESTORED_FLAG`] are the
    /// bits above them.
    warned: AtomicU64,
}

/// The use of an open period, after something was taken or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenUse {
    /// The number of the period that is open, which may be later than that of the command.
    pub(crate) period: u16,
    /// What is used: after taking, with what was taken.
    pub(crate) used: u64,
}

/// A refusal: the quota has not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuotaExhausted(pub(crate) OpenUse);

impl PeriodUsage {
    /// Takes an amount, or refuses if the quota is exceeded. Late commands of a past period count in the period that is
    /// open. The use is counted without a quota too, because a reload may add one.
    pub(crate) fn take(&self, period: u16, amount: u64, quota: Option<&QuotaPlan>) -> Result<OpenUse, QuotaExhausted> {
        let mut before = self.used.load(Ordering::Acquire);
        loop {
            let (open, used) = current_use(before, period);
            let after = used.saturating_add(amount).min(QUOTA_UNITS_MAX);
            if quota.is_some_and(|quota| quota.is_exceeded_by(after)) {
                return Err(QuotaExhausted(OpenUse { period: open, used }));
            }
            match self.used.compare_exchange_weak(before, pack(open, after), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(OpenUse { period: open, used: after }),
                Err(now) => before = now,
            }
        }
    }

    /// Returns an amount that was taken in a period, unless that period is over.
    pub(crate) fn give_back(&self, period: u16, amount: u64) {
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| {
            let (open, used) = unpack(packed);
            (open == period).then(|| pack(open, used.saturating_sub(amount)))
        });
    }

    /// What is used in a period.
    pub(crate) fn used(&self, period: u16) -> u64 {
        value_in_period(self.used.load(Ordering::Acquire), period)
    }

    /// Sets what is used in a period, unless a later period is open.
    pub(crate) fn set_used(&self, period: u16, used: u64) {
        let set = pack(period, used.min(QUOTA_UNITS_MAX));
        let _ = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |packed| (unpack(packed).0 <= period).then_some(set));
    }

    /// Logs the thresholds that a command has reached, unless another command has already logged them.
    pub(crate) fn warn_thresholds(&self, open: OpenUse, plan: &QuotaPlan) {
        let reached = plan.percent_reached(open.used);
        let higher = |warned: u64| {
            let state = value_in_period(warned, open.period);
            let is_news = unpack(warned).0 <= open.period && warned_percent_of(state) < reached;
            is_news.then(|| pack(open.period, (state & REFUSED_FLAG) | u64::from(reached)))
        };
        if let Ok(before) = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, higher) {
            plan.warn_between((warned_percent_of(value_in_period(before, open.period)), reached), open);
        }
    }

    /// Logs the first refusal of a period, unless the threshold of 100 % was already logged.
    pub(crate) fn warn_of_refusal(&self, QuotaExhausted(open): QuotaExhausted, plan: &QuotaPlan) {
        let period = open.period;
        let first = |warned: u64| {
            let state = value_in_period(warned, period);
            (unpack(warned).0 <= period && state & REFUSED_FLAG == 0 && warned_percent_of(state) < FULL_PERCENT)
                .then(|| pack(period, state | REFUSED_FLAG))
        };
        if self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, first).is_ok() {
            plan.warn_of_refusal(open);
        }
    }

    /// Begins a new quota. If the use was restored before the department had this quota, nothing is logged: the
    /// thresholds were reached before the start. Otherwise forgets logged thresholds above the current use, and logs
    /// those that the use has reached.
    ///
    /// `largest_command` is what the most expensive command costs: a quota with at least so much left has refused
    /// nothing.
    pub(crate) fn begin_plan(&self, period: u16, plan: &QuotaPlan, largest_command: u64) {
        let state = value_in_period(self.warned.load(Ordering::Acquire), period);
        if state & RESTORED_FLAG != 0 {
            return self.restore_warnings(period, plan, (state & REFUSED_FLAG != 0, largest_command));
        }
        let used = self.used(period);
        let reached = u64::from(plan.percent_reached(used));
        let lower = |warned: u64| {
            let state = value_in_period(warned, period);
            (unpack(warned).0 <= period).then(|| pack(period, reached.min(u64::from(warned_percent_of(state)))))
        };
        let _ = self.warned.fetch_update(Ordering::AcqRel, Ordering::Acquire, lower);
        self.warn_thresholds(OpenUse { period, used }, plan);
    }

    /// Restores the logged state at the start: reached thresholds, and a refusal, were logged before it.
    pub(crate) fn restore_warnings(&self, period: u16, plan: &QuotaPlan, (has_refused, largest_command): (bool, u64)) {
        let used = self.used(period);
        let can_have_refused = plan.is_exceeded_by(used.saturating_add(largest_command));
        let refused = if has_refused && can_have_refused { REFUSED_FLAG } else { 0 };
        let state = u64::from(plan.percent_reached(used)) | refused;
        self.warned.store(pack(period, state), Ordering::Release);
    }

    /// Notes for [`PeriodUsage::begin_plan`] that the use was restored while the department has no such quota.
    pub(crate) fn restore_without_plan(&self, period: u16, has_refused: bool) {
        let refused = if has_refused { REFUSED_FLAG } else { 0 };
        self.warned.store(pack(period, RESTORED_FLAG | refused), Ordering::Release);
    }

    /// The highest threshold logged in a period, in percent. [`FULL_PERCENT`] after a command was refused.
    pub(crate) fn warned_percent(&self, period: u16) -> u8 {
        let state = value_in_period(self.warned.load(Ordering::Acquire), period);
        if state & REFUSED_FLAG == 0 { warned_percent_of(state) } else { FULL_PERCENT }
    }
}

/// The lower half of a word, or 0 if the word is of another period.
fn value_in_period(packed: u64, period: u16) -> u64 {
    let (open, value) = unpack(packed);
    if open == period { value } else { 0 }
}

/// The percentage in the lower half of `warned`.
fn warned_percent_of(state: u64) -> u8 {
    state.to_le_bytes()[0]
}

/// The period that is open for a command of `period`, and its use.
fn current_use(packed: u64, period: u16) -> (u16, u64) {
    let (open, used) = unpack(packed);
    if period > open { (period, 0) } else { (open, used) }
}

fn pack(period: u16, value: u64) -> u64 {
    (u64::from(period) << USE_BITS) | value
}

fn unpack(packed: u64) -> (u16, u64) {
    let [.., low, high] = packed.to_le_bytes();
    (u16::from_le_bytes([low, high]), packed & QUOTA_UNITS_MAX)
}
