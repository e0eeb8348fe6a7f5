//! The limits of one department on one command, and the permit of a command within all of them.
//!
//! Guarantees:
//! - Limits are checked from the narrowest to the widest: concurrency, rates, quota.
//! - A refused command has spent nothing.
//!
//! Leaves to others: the limiters and their maps (`keyed_limiters`), the quotas (`quota_plan`, `quota_usage`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{CalendarOffset, QuotaKind, Refused, Window};

use super::address_limiters::AddressPermit;
use super::keyed_limiters::KeyLimiter;
use super::period_usage::QuotaExhausted;
use super::quota_plan::QuotaPlans;
use super::quota_usage::{NextWarnings, PeriodNumbers, QuotaUsage, TakenUse};
use super::token_bucket::{BucketEmpty, RateLimitInfo, TokenBucket};

/// All limits of one department on one command, resolved once: a check uses no map and no lock. A gate belongs to one
/// worker and one snapshot; a new snapshot needs a new gate.
#[derive(Debug)]
pub struct CommandGate {
    /// The limiters of the command and of the department, the narrower first.
    pub(crate) narrow_limiters: [Option<Arc<KeyLimiter>>; 2],
    pub(crate) total: Option<Arc<KeyLimiter>>,
    pub(crate) usage: Arc<QuotaUsage>,
    pub(crate) quotas: QuotaPlans,
    pub(crate) next_warnings: NextWarnings,
    pub(crate) units: u64,
    pub(crate) calendar: CalendarOffset,
    /// The day and the month of the last command, cached for the next command of the same window.
    pub(crate) periods: Cell<(Window, PeriodNumbers)>,
    pub(crate) clock: Clock,
}

/// Evidence that a command is within every limit. Holds the concurrency permits of the command until dropped.
#[derive(Debug)]
pub struct LimitPermit {
    gate: Rc<CommandGate>,
    rate_limit: Option<RateLimitInfo>,
    taken: Option<TakenUse>,
    /// What stays used when the permit is dropped.
    kept: KeptUse,
    /// Whether concurrency permits are held: of the command, and of the department.
    held_permits: [bool; 2],
    /// The permit of the client's address.
    address: Option<AddressPermit>,
}

/// What stays used of the quotas when a permit is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptUse {
    /// Nothing: the command was not admitted.
    Nothing,
    /// The command without its units.
    Command,
    /// The command and its units.
    Units,
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
    /// The quota that refused.
    pub quota: Option<QuotaKind>,
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
            taken: None,
            kept: KeptUse::Nothing,
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
        permit.taken = Some(self.take_quotas(units, window)?);
        tokens.commit();
        Ok(permit)
    }

    fn take_quotas(&self, units: u64, window: Window) -> Result<TakenUse, LimitRefusal> {
        let taken = self.usage.take(units, self.periods_of(window), (&self.quotas, &self.next_warnings));
        taken.map_err(|(kind, exhausted)| self.quota_refusal(kind, exhausted))
    }

    #[cold]
    fn quota_refusal(&self, kind: QuotaKind, exhausted: QuotaExhausted) -> LimitRefusal {
        if let Some(plan) = self.quotas.of(kind) {
            self.usage.of(kind).warn_of_refusal(exhausted, plan);
        }
        let end = kind.per.period_of_number(exhausted.0.period).windows(self.calendar).end.start_unix_seconds();
        let left = u64::try_from(end - self.clock.unix_seconds()).unwrap_or(0).max(1);
        let retry_after = Duration::from_secs(left);
        LimitRefusal { refused: Refused::QuotaExceeded, retry_after, rate_limit: None, quota: Some(kind) }
    }

    fn periods_of(&self, window: Window) -> PeriodNumbers {
        let (known, periods) = self.periods.get();
        if known == window {
            return periods;
        }
        let periods = PeriodNumbers::of(window, self.calendar);
        self.periods.set((window, periods));
        self.next_warnings.look_again(&self.quotas); // a period may have begun, and with it the thresholds
        periods
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
        if let Some(free) = self.taken.iter_mut().find(|place| place.is_none()) {
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
    Err(LimitRefusal {
        refused: Refused::TooManyConcurrent,
        retry_after: RETRY_CONCURRENT,
        rate_limit: None,
        quota: None,
    })
}

pub(crate) fn rate_refusal(empty: BucketEmpty) -> LimitRefusal {
    LimitRefusal {
        refused: Refused::RateLimited,
        retry_after: empty.retry_after,
        rate_limit: Some(empty.info),
        quota: None,
    }
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

    /// Keeps the command and its units used, for an admitted command. Without this call the drop of the permit returns
    /// them.
    pub fn keep_units(&mut self) {
        self.kept = KeptUse::Units;
    }

    /// Lets the drop of the permit return the units, for an admitted command that costs none. Units of a past day or
    /// month are not returned. The command stays counted.
    pub fn return_units(&mut self) {
        self.kept = KeptUse::Command;
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            match self.kept {
                KeptUse::Nothing => self.gate.usage.give_back(taken),
                KeptUse::Command => self.gate.usage.give_back_units(taken),
                KeptUse::Units => {}
            }
        }
        for (limiter, is_held) in self.gate.narrow_limiters.iter().zip(self.held_permits) {
            if let (Some(limiter), true) = (limiter, is_held) {
                limiter.semaphore.release();
            }
        }
    }
}
