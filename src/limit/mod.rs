//! How fast and how much: rates (GCRA by governor), commands at once, and monthly quotas.
//!
//! Guarantees: narrowest first, and a refused command has spent nothing: what a narrower limit had already given is
//! given back at once (`docs/limits.md`); every map is bounded; a reload never refills a bucket. Decides; counts nothing.

mod bucket;
mod keyed;
mod places;
mod quota;
mod thresholds;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::{CalendarOffset, Limits, Month, Name, Refused, Window};
use crate::policy::{Command, DepartmentPolicy, Snapshot};

use bucket::{Bucket, Empty};
use keyed::{Full, Keyed, Limiter};
use quota::MonthUse;
use thresholds::QuotaPlan;

pub use quota::QUOTA_UNITS_MAX;

/// The limiters of a gateway, shared by its workers; they outlive every configuration.
#[derive(Debug)]
pub struct Limiters {
    clock: Clock,
    /// In which months are read; the same for the life of the process, as for the ledger.
    calendar: CalendarOffset,
    /// The whole gateway, under the one key there is.
    total: Keyed<()>,
    /// By department number.
    departments: Keyed<u32>,
    /// By department number and command number.
    commands: Keyed<(u32, u32)>,
    /// By department number; never dropped, because a department may come back within its month. Bounded as
    /// [`crate::model::Numbers`] is: by the configurations the process has seen.
    used: DashMap<u32, Arc<MonthUse>, RandomState>,
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
pub struct Gate {
    /// Narrowest first: the command's, the department's.
    own: [Option<Arc<Limiter>>; 2],
    total: Option<Arc<Limiter>>,
    used: Arc<MonthUse>,
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
pub struct Pass {
    gate: Rc<Gate>,
    budget: Option<Budget>,
    units: Option<quota::Taken>,
    /// Whether the units stay used when the pass is dropped.
    keeps_units: bool,
    /// Whether a place was taken on the command, and of the department.
    places: [bool; 2],
}

/// A limit's "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which kind of limit.
    pub refused: Refused,
    /// When it is worth trying again.
    pub retry_after: Duration,
    /// For the `RateLimit` headers.
    pub budget: Option<Budget>,
}

/// What a limited department is told about its tightest limit (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
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

impl Limiters {
    /// No limiters yet.
    pub fn new(clock: Clock, calendar: CalendarOffset) -> Self {
        Self {
            clock,
            calendar,
            total: Keyed::new(),
            departments: Keyed::new(),
            commands: Keyed::new(),
            used: DashMap::with_hasher(RandomState::default()),
            quotas: arc_swap::ArcSwap::default(),
        }
    }

    /// Makes the limits those of `snapshot`. What was used under the previous ones stays used.
    pub fn enforce(&self, snapshot: &Snapshot) {
        let departments: HashMap<u32, Limits> =
            snapshot.departments.iter().map(|policy| (policy.department.number, policy.limits)).collect();
        let commands = command_limits(snapshot);
        self.total.enforce(|()| snapshot.total.map(only_rate), &self.clock);
        self.departments.enforce(|department| departments.get(department).copied().filter(any), &self.clock);
        let of_command = |(department, command): &(u32, u32)| {
            departments.get(department).and_then(|_| commands.get(command)).copied()
        };
        self.commands.enforce(of_command, &self.clock);
        self.enforce_quotas(snapshot);
    }

    /// A quota that has changed warns anew.
    fn enforce_quotas(&self, snapshot: &Snapshot) {
        let planned = |policy: &Arc<DepartmentPolicy>| Some((policy.department.number, QuotaPlan::of(policy)?));
        let plans: HashMap<u32, QuotaPlan> = snapshot.departments.iter().filter_map(planned).collect();
        let (before, month) = (self.quotas.load(), self.calendar.month_of(self.clock.window()));
        for (department, plan) in plans.iter().filter(|(department, plan)| before.get(department) != Some(plan)) {
            self.used_of(*department).begin_plan(month, plan);
        }
        self.quotas.store(Arc::new(plans));
    }

    /// Sets a department's use of its quota so far, and whether the quota has refused commands: called at start for each
    /// department with what the ledger holds. Warns of nothing: what is reached was reached before this start.
    pub fn recall_quota(&self, department: u32, month: Month, (units, has_refused): (u64, bool)) {
        let used = self.used_of(department);
        used.set(month, units);
        if let Some(plan) = self.quotas.load().get(&department) {
            used.recall(month, plan, has_refused);
        }
    }

    /// Every quota and its use, for metrics; in no order.
    pub fn quotas(&self, window: Window) -> Vec<QuotaState> {
        let month = self.calendar.month_of(window);
        let state = |(number, plan): (&u32, &QuotaPlan)| {
            let used = self.used_of(*number);
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
        snapshot: &Snapshot,
        department: &DepartmentPolicy,
        command: &Command,
    ) -> Result<Rc<Gate>, Limited> {
        let number = department.department.number;
        let window = self.clock.window();
        Ok(Rc::new(Gate {
            own: [
                limited(&self.commands, (number, command.key.number), command.limits, &self.clock)?,
                limited(&self.departments, number, department.limits, &self.clock)?,
            ],
            total: limited(&self.total, (), snapshot.total.map_or(Limits::default(), only_rate), &self.clock)?,
            used: self.used_of(number),
            quota: QuotaPlan::of(department),
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
        snapshot: &Snapshot,
        department: &DepartmentPolicy,
        command: &Command,
        window: Window,
    ) -> Result<Pass, Limited> {
        self.gate(snapshot, department, command)?.admit(window)
    }

    fn used_of(&self, department: u32) -> Arc<MonthUse> {
        if let Some(used) = self.used.get(&department) {
            return Arc::clone(&used);
        }
        Arc::clone(&self.used.entry(department).or_default())
    }
}

impl Gate {
    /// Asks every limit, narrowest first. A refusal has spent nothing.
    pub fn admit(self: &Rc<Self>, window: Window) -> Result<Pass, Limited> {
        self.admit_for(self.units, window)
    }

    /// As [`Gate::admit`], for a command that counts other units than its kind does.
    pub fn admit_for(self: &Rc<Self>, units: u64, window: Window) -> Result<Pass, Limited> {
        let mut pass =
            Pass { gate: Rc::clone(self), budget: None, units: None, keeps_units: false, places: [false; 2] };
        for (limiter, place) in self.own.iter().zip(&mut pass.places) {
            *place = take_place(limiter.as_deref())?; // dropping the pass gives back what it has
        }
        let mut tokens = Tokens::default();
        for limiter in &self.own {
            tokens.take(limiter.as_deref())?;
        }
        pass.budget = tokens.budget();
        tokens.take(self.total.as_deref()).map_err(|limited| Limited { budget: pass.budget, ..limited })?;
        pass.units = Some(self.take_units(units, window)?);
        tokens.keep();
        Ok(pass)
    }

    fn take_units(&self, units: u64, window: Window) -> Result<quota::Taken, Limited> {
        let month = self.month_of(window);
        let taken =
            self.used.take(month, units, self.quota.as_ref()).map_err(|used_up| self.used_up(used_up, month))?;
        if taken.used >= self.next_warning.get() {
            self.warn(&taken);
        }
        Ok(taken)
    }

    #[cold]
    fn warn(&self, taken: &quota::Taken) {
        let Some(plan) = &self.quota else { return };
        self.next_warning.set(plan.next_after(taken.used));
        self.used.warn(taken, plan);
    }

    #[cold]
    fn used_up(&self, used_up: quota::UsedUp, month: Month) -> Limited {
        if let Some(plan) = &self.quota {
            self.used.warn_of_refusal(used_up, plan);
        }
        let retry_after = self.until_month_ends(month);
        Limited { refused: Refused::QuotaExceeded, retry_after, budget: None }
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
struct Tokens<'a> {
    taken: [Option<&'a Bucket>; 3],
    tightest: Option<(&'a Bucket, u32)>,
}

impl<'a> Tokens<'a> {
    fn take(&mut self, limiter: Option<&'a Limiter>) -> Result<(), Limited> {
        let Some(bucket) = limiter.and_then(|limiter| limiter.bucket.as_deref()) else { return Ok(()) };
        let remaining = bucket.take().map_err(rate_limited)?;
        if let Some(free) = self.taken.iter_mut().find(|taken| taken.is_none()) {
            *free = Some(bucket);
        }
        if self.tightest.is_none_or(|(_, tightest)| remaining < tightest) {
            self.tightest = Some((bucket, remaining));
        }
        Ok(())
    }

    /// What the tightest limit has left.
    fn budget(&self) -> Option<Budget> {
        self.tightest.map(|(bucket, remaining)| bucket.budget(remaining))
    }

    fn keep(mut self) {
        self.taken = [None; 3];
    }
}

impl Drop for Tokens<'_> {
    fn drop(&mut self) {
        self.taken.iter().flatten().for_each(|bucket| bucket.give_back());
    }
}

/// Without a quota there is nothing to warn of; with one, the first command looks where the thresholds are.
fn first_warning(department: &DepartmentPolicy) -> u64 {
    if department.quota.is_some() { 0 } else { u64::MAX }
}

fn only_rate(rate: crate::model::Rate) -> Limits {
    Limits { rate: Some(rate), concurrent: None }
}

fn any(limits: &Limits) -> bool {
    limits.rate.is_some() || limits.concurrent.is_some()
}

fn command_limits(snapshot: &Snapshot) -> HashMap<u32, Limits> {
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
    commands.map(|command| (command.key.number, command.limits)).filter(|(_, limits)| any(limits)).collect()
}

/// The limiter of a key, if there is anything to limit; a full map refuses.
fn limited<K: Eq + std::hash::Hash + Copy>(
    keyed: &Keyed<K>,
    key: K,
    limits: Limits,
    clock: &Clock,
) -> Result<Option<Arc<Limiter>>, Limited> {
    if !any(&limits) {
        return Ok(None);
    }
    keyed.under(key, limits, clock).map(Some).map_err(|Full| Limited {
        refused: Refused::Overloaded,
        retry_after: RETRY_CONCURRENT,
        budget: None,
    })
}

/// Takes a place, if places are limited; whether one was taken.
fn take_place(limiter: Option<&Limiter>) -> Result<bool, Limited> {
    let Some((limiter, cap)) = limiter.and_then(|limiter| Some((limiter, limiter.limits.concurrent?))) else {
        return Ok(false);
    };
    if limiter.places.take(cap) {
        return Ok(true);
    }
    Err(Limited { refused: Refused::TooManyConcurrent, retry_after: RETRY_CONCURRENT, budget: None })
}

fn rate_limited(empty: Empty) -> Limited {
    Limited { refused: Refused::RateLimited, retry_after: empty.wait, budget: Some(empty.budget) }
}

impl Pass {
    /// What to tell the department.
    pub fn budget(&self) -> Option<Budget> {
        self.budget
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

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(taken) = self.units.take().filter(|_| !self.keeps_units) {
            self.gate.used.give_back(taken);
        }
        for (limiter, taken) in self.gate.own.iter().zip(self.places) {
            if let (Some(limiter), true) = (limiter, taken) {
                limiter.places.give_back();
            }
        }
    }
}

#[cfg(test)]
mod tests;
