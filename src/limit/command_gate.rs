//! The limits of one department on one command, and the permit of a command within all of them.
//!
//! Guarantees:
//! - Limits are checked from the narrowest to the widest: concurrency, rates, quota.
//! - A refused command has spent nothing.
//!
//! Leaves to others: the limiters and their maps (`keyed_limiters`), the quotas (`quota_plan`, `monthly_usage`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{CalendarOffset, Month, Refused, Window};

use super::address_limiters::AddressPermit;
use super::keyed_limiters::KeyLimiter;
use super::monthly_usage::{MonthlyUsage, QuotaExhausted, TakenUnits};
use super::quota_plan::QuotaPlan;
use super::token_bucket::{BucketEmpty, RateLimitInfo, TokenBucket};

/// All limits of one department on one command, resolved once: a check uses no map and no lock. A gate belongs to one
/// worker and one snapshot; a new snapshot needs a new gate.
#[derive(Debug)]
pub struct CommandGate {
    /// The limiters of the command and of the department, the narrower first.
    pub(crate) narrow_limiters: [Option<Arc<KeyLimiter>>; 2],
    pub(crate) total: Option<Arc<KeyLimiter>>,
    pub(crate) usage: Arc<MonthlyUsage>,
    pub(crate) quota: Option<QuotaPlan>,
    /// The used units at which the next warning may be due. An estimate of this gate.
    pub(crate) next_warning: Cell<u64>,
    pub(crate) units: u64,
    pub(crate) calendar: CalendarOffset,
    /// The month of the last command, cached for the next command of the same window.
    pub(crate) month: Cell<(Window, Month)>,
    pub(crate) clock: Clock,
}

/// Evidence that a command is within every limit. Holds the concurrency permits of the command until dropped.
#[derive(Debug)]
pub struct LimitPermit {
    gate: Rc<CommandGate>,
    rate_limit: Option<RateLimitInfo>,
    taken_units: Option<TakenUnits>,
    /// Whether the units stay used when the permit is dropped.
    keeps_units: bool,
    /// Whether concurrency permits are held: of the command, and of the department.
    held_permits: [bool; 2],
    /// The permit of the client's address.
    address: Option<AddressPermit>,
}

/// A refusal by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// The kind of the limit.
    pub refused: Refused,
    /// The wait before a retry can succeed.
    pub retry_after: Duration,
    /// For the `RateLimit` headers.
    pub rate_limit: Option<RateLimitInfo>,
}

/// `Retry-After` when all concurrency permits are in use. The time until a permit is released is unknown.
pub(crate) const RETRY_CONCURRENT: Duration = Duration::from_secs(1);

impl CommandGate {
    /// Checks every limit, the narrowest first. A refusal has spent nothing.
    pub fn admit(self: &Rc<Self>, window: Window) -> Result<LimitPermit, LimitRefusal> {
        self.admit_for(self.units, window)
    }

    /// Like [`CommandGate::admit`], for a command that costs other units than its kind does.
    pub fn admit_for(self: &Rc<Self>, units: u64, window: Window) -> Result<LimitPermit, LimitRefusal> {
        let mut permit = LimitPermit {
            gate: Rc::clone(self),
            rate_limit: None,
            taken_units: None,
            keeps_units: false,
            held_permits: [false; 2],
            address: None,
        };
        for (limiter, place) in self.narrow_limiters.iter().zip(&mut permit.held_permits) {
            *place = acquire_concurrency(limiter.as_deref())?; // an early return drops `permit`, which releases them
        }
        let mut tokens = TakenTokens::default();
        for limiter in &self.narrow_limiters {
            tokens.take_token(limiter.as_deref())?;
        }
        permit.rate_limit = tokens.rate_limit_info();
        tokens
            .take_token(self.total.as_deref())
            .map_err(|limited| LimitRefusal { rate_limit: permit.rate_limit, ..limited })?;
        permit.taken_units = Some(self.take_units(units, window)?);
        tokens.commit();
        Ok(permit)
    }

    fn take_units(&self, units: u64, window: Window) -> Result<TakenUnits, LimitRefusal> {
        let month = self.month_of(window);
        let taken_units = self
            .usage
            .take_units(month, units, self.quota.as_ref())
            .map_err(|exhausted| self.quota_refusal(exhausted, month))?;
        if taken_units.used >= self.next_warning.get() {
            self.warn_thresholds(&taken_units);
        }
        Ok(taken_units)
    }

    #[cold]
    fn warn_thresholds(&self, taken_units: &TakenUnits) {
        let Some(plan) = &self.quota else { return };
        self.next_warning.set(plan.next_threshold_units(taken_units.used));
        self.usage.warn_thresholds(taken_units, plan);
    }

    #[cold]
    fn quota_refusal(&self, exhausted: QuotaExhausted, month: Month) -> LimitRefusal {
        if let Some(plan) = &self.quota {
            self.usage.warn_of_refusal(exhausted, plan);
        }
        let retry_after = self.until_month_ends(month);
        LimitRefusal { refused: Refused::QuotaExceeded, retry_after, rate_limit: None }
    }

    fn month_of(&self, window: Window) -> Month {
        let (known, month) = self.month.get();
        if known == window {
            return month;
        }
        let month = self.calendar.month_of(window);
        self.month.set((window, month));
        if self.quota.is_some() {
            self.next_warning.set(0); // the month may have changed, and with it the thresholds
        }
        month
    }

    fn until_month_ends(&self, month: Month) -> Duration {
        let end = self.calendar.windows_of(month).end.start_unix_seconds();
        Duration::from_secs(u64::try_from(end - self.clock.unix_seconds()).unwrap_or(0).max(1))
    }
}

/// The tokens taken for one command so far. Returned on drop, unless committed.
#[derive(Default)]
struct TakenTokens<'a> {
    taken: [Option<&'a TokenBucket>; 3],
    tightest: Option<(&'a TokenBucket, u32)>,
}

impl<'a> TakenTokens<'a> {
    fn take_token(&mut self, limiter: Option<&'a KeyLimiter>) -> Result<(), LimitRefusal> {
        let Some(bucket) = limiter.and_then(|limiter| limiter.bucket.as_deref()) else { return Ok(()) };
        let remaining = bucket.take_token().map_err(rate_refusal)?;
        if let Some(free) = self.taken.iter_mut().find(|taken_units| taken_units.is_none()) {
            *free = Some(bucket);
        }
        if self.tightest.is_none_or(|(_, tightest)| remaining < tightest) {
            self.tightest = Some((bucket, remaining));
        }
        Ok(())
    }

    /// The state of the tightest limit.
    fn rate_limit_info(&self) -> Option<RateLimitInfo> {
        self.tightest.map(|(bucket, remaining)| bucket.rate_limit_info(remaining))
    }

    fn commit(mut self) {
        self.taken = [None; 3];
    }
}

impl Drop for TakenTokens<'_> {
    fn drop(&mut self) {
        self.taken.iter().flatten().for_each(|bucket| bucket.return_token());
    }
}

/// Acquires a concurrency permit, if concurrency is limited. Returns whether a permit was acquired.
fn acquire_concurrency(limiter: Option<&KeyLimiter>) -> Result<bool, LimitRefusal> {
    let Some((limiter, cap)) = limiter.and_then(|limiter| Some((limiter, limiter.limits.concurrent?))) else {
        return Ok(false);
    };
    if limiter.semaphore.try_acquire(cap) {
        return Ok(true);
    }
    Err(LimitRefusal { refused: Refused::TooManyConcurrent, retry_after: RETRY_CONCURRENT, rate_limit: None })
}

pub(crate) fn rate_refusal(empty: BucketEmpty) -> LimitRefusal {
    LimitRefusal { refused: Refused::RateLimited, retry_after: empty.retry_after, rate_limit: Some(empty.info) }
}

impl LimitPermit {
    /// The state of the tightest limit, for the response headers.
    pub fn rate_limit_info(&self) -> Option<RateLimitInfo> {
        self.rate_limit
    }

    /// Holds the permit of the client's address as long as this one. Its tokens stay taken.
    pub fn hold_address(&mut self, mut permit: AddressPermit) {
        permit.keep_tokens();
        self.address = Some(permit);
    }

    /// Keeps the units used, for an admitted command. Without this call the drop of the permit returns them.
    pub fn keep_units(&mut self) {
        self.keeps_units = true;
    }

    /// Lets the drop of the permit return the units, for a command that costs none. Units of a past month are not
    /// returned.
    pub fn return_units(&mut self) {
        self.keeps_units = false;
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        if let Some(taken_units) = self.taken_units.take().filter(|_| !self.keeps_units) {
            self.gate.usage.return_units(taken_units);
        }
        for (limiter, taken_units) in self.gate.narrow_limiters.iter().zip(self.held_permits) {
            if let (Some(limiter), true) = (limiter, taken_units) {
                limiter.semaphore.release();
            }
        }
    }
}
