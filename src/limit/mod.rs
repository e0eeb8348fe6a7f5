//! Limits: rate limits (GCRA by governor), concurrency limits, and monthly quotas.
//!
//! Guarantees:
//!
//! - Limits are checked from the narrowest to the widest. A refused command has spent nothing: a refusal by a wider
//!   limit returns the tokens and permits of the narrower ones at once (`docs/limits.md`).
//! - Every map is bounded.
//! - A reload never refills a bucket.
//!
//! Leaves to others: the count of commands and refusals (`ledger`). This module only decides.

mod atomic_semaphore;
mod keyed_limiters;
mod monthly_usage;
mod quota_plan;
mod token_bucket;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::{CalendarOffset, Month, Name, Refused, TrafficLimits, Window};
use crate::policy::{Command, DepartmentPolicy, PolicySnapshot};

use keyed_limiters::{KeyLimiter, KeyedLimiters, LimitersFull};
use monthly_usage::MonthlyUsage;
use quota_plan::QuotaPlan;
use token_bucket::{BucketEmpty, TokenBucket};

pub use monthly_usage::QUOTA_UNITS_MAX;

/// The limiters of a gateway, shared by its workers. They outlive every configuration.
#[derive(Debug)]
pub struct LimiterRegistry {
    clock: Clock,
    /// The UTC offset that defines months. Constant for the life of the process, as for the ledger.
    calendar: CalendarOffset,
    /// The limiter of the whole gateway, under the only key.
    total: KeyedLimiters<()>,
    /// By department number.
    departments: KeyedLimiters<u32>,
    /// By department number and command number.
    commands: KeyedLimiters<(u32, u32)>,
    /// By department number. Never removed, because a department may come back within its month. Bounded like
    /// [`crate::model::NameInterner`]: by the configurations that the process has loaded.
    usage: DashMap<u32, Arc<MonthlyUsage>, RandomState>,
    /// The quotas by department number, for metrics and for the detection of changes on a reload.
    quotas: arc_swap::ArcSwap<HashMap<u32, QuotaPlan>>,
}

/// A department's quota and its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// The department.
    pub department: Name,
    /// Units used in the current month.
    pub used: u64,
    /// Units per month.
    pub units: u64,
    /// The highest threshold reached in the current month, in percent. 0 below the first threshold; 100 also after a
    /// command was refused.
    pub warned_percent: u8,
}

/// All limits of one department on one command, resolved once: a check uses no map and no lock. A gate belongs to one
/// worker and one snapshot; a new snapshot needs a new gate.
#[derive(Debug)]
pub struct CommandGate {
    /// The limiters of the command and of the department, the narrower first.
    narrow_limiters: [Option<Arc<KeyLimiter>>; 2],
    total: Option<Arc<KeyLimiter>>,
    usage: Arc<MonthlyUsage>,
    quota: Option<QuotaPlan>,
    /// The used units at which the next warning may be due. An estimate of this gate.
    next_warning: Cell<u64>,
    units: u64,
    calendar: CalendarOffset,
    /// The month of the last command, cached for the next command of the same window.
    month: Cell<(Window, Month)>,
    clock: Clock,
}

/// Evidence that a command is within every limit. Holds the concurrency permits of the command until dropped.
#[derive(Debug)]
pub struct LimitPermit {
    gate: Rc<CommandGate>,
    rate_limit: Option<RateLimitInfo>,
    taken_units: Option<monthly_usage::TakenUnits>,
    /// Whether the units stay used when the permit is dropped.
    keeps_units: bool,
    /// Whether concurrency permits are held: of the command, and of the department.
    held_permits: [bool; 2],
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

/// The state of a department's tightest limit, for the response headers (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitInfo {
    /// `q`: commands per window.
    pub quota: u32,
    /// `w`: the window in seconds.
    pub window_seconds: u32,
    /// `r`: commands left now.
    pub remaining: u32,
    /// `t`: seconds until the bucket is full again.
    pub reset_seconds: u32,
}

/// `Retry-After` when all concurrency permits are in use. The time until a permit is released is unknown.
const RETRY_CONCURRENT: Duration = Duration::from_secs(1);

impl LimiterRegistry {
    /// A registry without limiters.
    pub fn new(clock: Clock, calendar: CalendarOffset) -> Self {
        Self {
            clock,
            calendar,
            total: KeyedLimiters::new(),
            departments: KeyedLimiters::new(),
            commands: KeyedLimiters::new(),
            usage: DashMap::with_hasher(RandomState::default()),
            quotas: arc_swap::ArcSwap::default(),
        }
    }

    /// Applies the limits of `snapshot`. Tokens, permits and units used under the previous limits stay used.
    pub fn enforce(&self, snapshot: &PolicySnapshot) {
        let departments: HashMap<u32, TrafficLimits> =
            snapshot.departments.iter().map(|policy| (policy.department.number, policy.limits)).collect();
        let commands = command_limits(snapshot);
        self.total.enforce(|()| snapshot.total_rate.map(rate_only), &self.clock);
        self.departments.enforce(|department| departments.get(department).copied().filter(has_limits), &self.clock);
        let of_command = |(department, command): &(u32, u32)| {
            departments.get(department).and_then(|_| commands.get(command)).copied()
        };
        self.commands.enforce(of_command, &self.clock);
        self.enforce_quotas(snapshot);
    }

    /// Applies the quotas. A changed quota logs its thresholds again.
    fn enforce_quotas(&self, snapshot: &PolicySnapshot) {
        let planned =
            |policy: &Arc<DepartmentPolicy>| Some((policy.department.number, QuotaPlan::for_department(policy)?));
        let plans: HashMap<u32, QuotaPlan> = snapshot.departments.iter().filter_map(planned).collect();
        let (before, month) = (self.quotas.load(), self.calendar.month_of(self.clock.window()));
        for (department, plan) in plans.iter().filter(|(department, plan)| before.get(department) != Some(plan)) {
            self.usage_of(*department).begin_plan(month, plan);
        }
        self.quotas.store(Arc::new(plans));
    }

    /// Restores a department's use of its quota, and whether the quota has refused commands. Called at the start for
    /// each department with the values of the ledger. Logs no warning: the thresholds were reached before this start.
    pub fn restore_quota(&self, department: u32, month: Month, (units, has_refused): (u64, bool)) {
        let used = self.usage_of(department);
        used.set_used(month, units);
        if let Some(plan) = self.quotas.load().get(&department) {
            used.restore_warnings(month, plan, has_refused);
        }
    }

    /// Every quota and its use, for metrics, in no order.
    pub fn quotas(&self, window: Window) -> Vec<QuotaState> {
        let month = self.calendar.month_of(window);
        let state = |(number, plan): (&u32, &QuotaPlan)| {
            let used = self.usage_of(*number);
            QuotaState {
                department: plan.department().clone(),
                used: used.used(month),
                units: plan.units(),
                warned_percent: used.warned_percent(month),
            }
        };
        self.quotas.load().iter().map(state).collect()
    }

    /// Resolves the limits of a department on a command. Refuses if the maximum number of limiters is reached.
    pub fn gate(
        &self,
        snapshot: &PolicySnapshot,
        department: &DepartmentPolicy,
        command: &Command,
    ) -> Result<Rc<CommandGate>, LimitRefusal> {
        let number = department.department.number;
        let window = self.clock.window();
        Ok(Rc::new(CommandGate {
            narrow_limiters: [
                limiter_or_refusal(&self.commands, (number, command.key.number), command.limits, &self.clock)?,
                limiter_or_refusal(&self.departments, number, department.limits, &self.clock)?,
            ],
            total: limiter_or_refusal(
                &self.total,
                (),
                snapshot.total_rate.map_or(TrafficLimits::default(), rate_only),
                &self.clock,
            )?,
            usage: self.usage_of(number),
            quota: QuotaPlan::for_department(department),
            next_warning: Cell::new(first_warning(department)),
            units: command.units,
            calendar: self.calendar,
            month: Cell::new((window, self.calendar.month_of(window))),
            clock: self.clock.clone(),
        }))
    }

    /// Resolves a gate and checks it, for callers that check only once.
    pub fn admit(
        &self,
        snapshot: &PolicySnapshot,
        department: &DepartmentPolicy,
        command: &Command,
        window: Window,
    ) -> Result<LimitPermit, LimitRefusal> {
        self.gate(snapshot, department, command)?.admit(window)
    }

    fn usage_of(&self, department: u32) -> Arc<MonthlyUsage> {
        if let Some(used) = self.usage.get(&department) {
            return Arc::clone(&used);
        }
        Arc::clone(&self.usage.entry(department).or_default())
    }
}

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

    fn take_units(&self, units: u64, window: Window) -> Result<monthly_usage::TakenUnits, LimitRefusal> {
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
    fn warn_thresholds(&self, taken_units: &monthly_usage::TakenUnits) {
        let Some(plan) = &self.quota else { return };
        self.next_warning.set(plan.next_threshold_units(taken_units.used));
        self.usage.warn_thresholds(taken_units, plan);
    }

    #[cold]
    fn quota_refusal(&self, exhausted: monthly_usage::QuotaExhausted, month: Month) -> LimitRefusal {
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

/// The first value of `next_warning`: never without a quota, else the first command looks up the thresholds.
fn first_warning(department: &DepartmentPolicy) -> u64 {
    if department.quota.is_some() { 0 } else { u64::MAX }
}

fn rate_only(rate: crate::model::RateLimit) -> TrafficLimits {
    TrafficLimits { rate: Some(rate), concurrent: None }
}

fn has_limits(limits: &TrafficLimits) -> bool {
    limits.rate.is_some() || limits.concurrent.is_some()
}

fn command_limits(snapshot: &PolicySnapshot) -> HashMap<u32, TrafficLimits> {
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
    commands.map(|command| (command.key.number, command.limits)).filter(|(_, limits)| has_limits(limits)).collect()
}

/// The limiter of a key, or `None` if the limits are empty. A full map refuses.
fn limiter_or_refusal<K: Eq + std::hash::Hash + Copy>(
    keyed: &KeyedLimiters<K>,
    key: K,
    limits: TrafficLimits,
    clock: &Clock,
) -> Result<Option<Arc<KeyLimiter>>, LimitRefusal> {
    if !has_limits(&limits) {
        return Ok(None);
    }
    keyed.limiter_for(key, limits, clock).map(Some).map_err(|LimitersFull| LimitRefusal {
        refused: Refused::Overloaded,
        retry_after: RETRY_CONCURRENT,
        rate_limit: None,
    })
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

fn rate_refusal(empty: BucketEmpty) -> LimitRefusal {
    LimitRefusal { refused: Refused::RateLimited, retry_after: empty.retry_after, rate_limit: Some(empty.info) }
}

impl LimitPermit {
    /// The state of the tightest limit, for the response headers.
    pub fn rate_limit_info(&self) -> Option<RateLimitInfo> {
        self.rate_limit
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

#[cfg(test)]
mod tests;
