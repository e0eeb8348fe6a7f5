//! How fast and how much: rates (GCRA by governor), commands at once, and monthly quotas.
//!
//! Guarantees: narrowest first, and a refused command has spent nothing: what a narrower limit had already given is
//! given back at once (`docs/limits.md`); every map is bounded; a reload never refills a bucket. Decides; counts nothing.

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

/// The limiters of a gateway, shared by its workers; they outlive every configuration.
#[derive(Debug)]
pub struct LimiterRegistry {
    clock: Clock,
    /// In which months are read; the same for the life of the process, as for the ledger.
    calendar: CalendarOffset,
    /// The whole gateway, under the one key there is.
    total: KeyedLimiters<()>,
    /// By department number.
    departments: KeyedLimiters<u32>,
    /// By department number and command number.
    commands: KeyedLimiters<(u32, u32)>,
    /// By department number; never dropped, because a department may come back within its month. Bounded as
    /// [`crate::model::Numbers`] is: by the configurations the process has seen.
    usage: DashMap<u32, Arc<MonthlyUsage>, RandomState>,
    /// The quotas by department number, for metrics and for what a reload changes.
    quotas: arc_swap::ArcSwap<HashMap<u32, QuotaPlan>>,
}

/// A department's quota and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// Who.
    pub department: Name,
    /// Units used in the current month.
    pub used: u64,
    /// Units per month.
    pub units: u64,
    /// The highest threshold that was reached in the current month, in percent; 100 as well once a command was refused, 0 below
    /// the first.
    pub warned_percent: u8,
}

/// Everything that limits one department on one command, found once: asking it takes no map and no lock. Belongs to one
/// worker and one snapshot; a new snapshot needs a new gate.
#[derive(Debug)]
pub struct CommandGate {
    /// Narrowest first: the command's, the department's.
    narrow_limiters: [Option<Arc<KeyLimiter>>; 2],
    total: Option<Arc<KeyLimiter>>,
    usage: Arc<MonthlyUsage>,
    quota: Option<QuotaPlan>,
    /// Used units at which the next warning may be due, as far as this gate knows.
    next_warning: Cell<u64>,
    units: u64,
    calendar: CalendarOffset,
    /// The month of the last command, for the next one of the same window.
    month: Cell<(Window, Month)>,
    clock: Clock,
}

/// Evidence that every limit let a command pass. Holds the department's place among its concurrent commands until dropped.
#[derive(Debug)]
pub struct LimitPermit {
    gate: Rc<CommandGate>,
    rate_limit: Option<RateLimitInfo>,
    taken_units: Option<monthly_usage::TakenUnits>,
    /// Whether the units stay used when the pass is dropped.
    keeps_units: bool,
    /// Whether a place was taken on the command, and of the department.
    held_permits: [bool; 2],
}

/// A limit's "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// Which kind of limit.
    pub refused: Refused,
    /// When it is worth trying again.
    pub retry_after: Duration,
    /// For the `RateLimit` headers.
    pub rate_limit: Option<RateLimitInfo>,
}

/// What a limited department is told about its tightest limit (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitInfo {
    /// `q`: commands per window.
    pub quota: u32,
    /// `w`: the window in seconds.
    pub window_seconds: u32,
    /// `r`: commands left now.
    pub remaining: u32,
    /// `t`: seconds until the budget is whole again.
    pub reset_seconds: u32,
}

/// How soon a caller should try again when all its places are taken; nobody knows when one will be free.
const RETRY_CONCURRENT: Duration = Duration::from_secs(1);

impl LimiterRegistry {
    /// No limiters yet.
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

    /// Makes the limits those of `snapshot`. What was used under the previous ones stays used.
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

    /// A quota that has changed warns anew.
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

    /// Sets a department's use of its quota so far, and whether the quota has refused commands: called at start for each
    /// department with what the ledger holds. Warns of nothing: what is reached was reached before this start.
    pub fn restore_quota(&self, department: u32, month: Month, (units, has_refused): (u64, bool)) {
        let used = self.usage_of(department);
        used.set_used(month, units);
        if let Some(plan) = self.quotas.load().get(&department) {
            used.restore_warnings(month, plan, has_refused);
        }
    }

    /// Every quota and its use, for metrics; in no order.
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

    /// Finds what limits a department on a command. Refuses when there are more limiters than may be.
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

    /// Finds the gate and asks it: for whoever asks once.
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
    /// Asks every limit, narrowest first. A refusal has spent nothing.
    pub fn admit(self: &Rc<Self>, window: Window) -> Result<LimitPermit, LimitRefusal> {
        self.admit_for(self.units, window)
    }

    /// As [`CommandGate::admit`], for a command that counts other units than its kind does.
    pub fn admit_for(self: &Rc<Self>, units: u64, window: Window) -> Result<LimitPermit, LimitRefusal> {
        let mut permit = LimitPermit {
            gate: Rc::clone(self),
            rate_limit: None,
            taken_units: None,
            keeps_units: false,
            held_permits: [false; 2],
        };
        for (limiter, place) in self.narrow_limiters.iter().zip(&mut permit.held_permits) {
            *place = acquire_concurrency(limiter.as_deref())?; // dropping the pass gives back what it has
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
            self.next_warning.set(0); // the month may have turned, and its thresholds with it
        }
        month
    }

    fn until_month_ends(&self, month: Month) -> Duration {
        let end = self.calendar.windows_of(month).end.start_unix_seconds();
        Duration::from_secs(u64::try_from(end - self.clock.unix_seconds()).unwrap_or(0).max(1))
    }
}

/// The tokens taken for one command so far; given back when dropped, unless kept.
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

    /// What the tightest limit has left.
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

/// Without a quota there is nothing to warn of; with one, the first command looks where the thresholds are.
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

/// The limiter of a key, if there is anything to limit; a full map refuses.
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

/// Takes a place, if places are limited; whether one was taken.
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
    /// What to tell the department.
    pub fn rate_limit_info(&self) -> Option<RateLimitInfo> {
        self.rate_limit
    }

    /// The command was admitted: its units are used. Without this call, dropping the pass gives them back.
    pub fn keep_units(&mut self) {
        self.keeps_units = true;
    }

    /// The command costs no units after all: dropping the pass gives them back, unless their month is over.
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
