//! How fast and how much: rates (GCRA by governor), commands at once, and monthly quotas.
//!
//! Guarantees: narrowest first, and a refused command has spent nothing: what a narrower limit had already given is
//! given back at once (`docs/limits.md`); every map is bounded; a reload never refills a bucket. Decides; counts nothing.

mod bucket;
mod keyed;
mod places;
mod quota;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::{CalendarOffset, Limits, Month, Refused, Window};
use crate::policy::{Command, DepartmentPolicy, Snapshot};

use bucket::{Bucket, Empty};
use keyed::{Full, Keyed, Limiter};
use places::Taken;
use quota::MonthUse;

pub use quota::QUOTA_UNITS_MAX;

/// The limiters of a gateway, shared by its workers; they outlive every configuration.
#[derive(Debug)]
pub struct Limiters {
    clock: Clock,
    /// The whole gateway, under the one key there is.
    total: Keyed<()>,
    /// By department number.
    departments: Keyed<u32>,
    /// By department number and command number.
    commands: Keyed<(u32, u32)>,
    /// By department number; never dropped, because a department may come back within its month. Bounded as
    /// [`crate::model::Numbers`] is: by the configurations the process has seen.
    used: DashMap<u32, Arc<MonthUse>, RandomState>,
    /// The granted units of departments with a quota, and the calendar, for metrics.
    quotas: arc_swap::ArcSwap<Quotas>,
}

#[derive(Debug, Default)]
struct Quotas {
    calendar: CalendarOffset,
    units: Vec<(u32, u64)>,
}

/// Evidence that every limit let a command pass. Holds the department's place among its concurrent commands until dropped.
#[derive(Debug)]
pub struct Pass {
    budget: Option<Budget>,
    units: Option<(Arc<MonthUse>, quota::Taken)>,
    /// On the command and of the department.
    _places: [Option<Taken>; 2],
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
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
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
        let granted =
            |policy: &Arc<DepartmentPolicy>| Some((policy.department.number, policy.quota.as_ref()?.units.get()));
        let units = snapshot.departments.iter().filter_map(granted).collect();
        self.quotas.store(Arc::new(Quotas { calendar: snapshot.calendar, units }));
    }

    /// Tells a department's use of its quota so far: called at start for each department with what the ledger holds.
    pub fn set_quota_used(&self, department: u32, month: Month, units: u64) {
        self.used_of(department).set(month, units);
    }

    /// Used and granted units of every department with a quota, for metrics: (department number, used, quota).
    pub fn quotas(&self, window: Window) -> Vec<(u32, u64, u64)> {
        let quotas = self.quotas.load();
        let month = quotas.calendar.month_of(window);
        quotas.units.iter().map(|(number, granted)| (*number, self.used_of(*number).used(month), *granted)).collect()
    }

    /// Asks every limit, narrowest first. A refusal has spent nothing.
    pub fn admit(
        &self,
        snapshot: &Snapshot,
        department: &DepartmentPolicy,
        command: &Command,
        window: Window,
    ) -> Result<Pass, Limited> {
        let number = department.department.number;
        let of_command = limited(&self.commands, (number, command.key.number), command.limits, &self.clock)?;
        let of_department = limited(&self.departments, number, department.limits, &self.clock)?;
        let of_total = limited(&self.total, (), snapshot.total.map_or(Limits::default(), only_rate), &self.clock)?;

        let places =
            [place(of_command.as_deref(), command.limits)?, place(of_department.as_deref(), department.limits)?];
        let mut tokens = Tokens::default();
        tokens.take(of_command.as_deref())?;
        tokens.take(of_department.as_deref())?;
        let budget = tokens.tightest;
        tokens.take(of_total.as_deref()).map_err(|limited| Limited { budget, ..limited })?;
        let units = self.take_units(snapshot, department, command.units, window)?;
        tokens.keep();
        Ok(Pass { budget, units: Some(units), _places: places })
    }

    fn take_units(
        &self,
        snapshot: &Snapshot,
        department: &DepartmentPolicy,
        units: u64,
        window: Window,
    ) -> Result<(Arc<MonthUse>, quota::Taken), Limited> {
        let month = snapshot.calendar.month_of(window);
        let used = self.used_of(department.department.number);
        match used.take(month, units, department.quota.as_ref()) {
            Ok(taken) => Ok((used, taken)),
            Err(quota::UsedUp) => Err(Limited {
                refused: Refused::QuotaExceeded,
                retry_after: self.until_month_ends(snapshot.calendar, month),
                budget: None,
            }),
        }
    }

    fn until_month_ends(&self, calendar: CalendarOffset, month: Month) -> Duration {
        let end = calendar.windows_of(month).end.start_unix_seconds();
        Duration::from_secs(u64::try_from(end - self.clock.unix_seconds()).unwrap_or(0).max(1))
    }

    fn used_of(&self, department: u32) -> Arc<MonthUse> {
        if let Some(used) = self.used.get(&department) {
            return Arc::clone(&used);
        }
        Arc::clone(&self.used.entry(department).or_default())
    }
}

/// The tokens taken for one command so far; given back when dropped, unless kept.
#[derive(Default)]
struct Tokens<'a> {
    taken: [Option<&'a Bucket>; 3],
    tightest: Option<Budget>,
}

impl<'a> Tokens<'a> {
    fn take(&mut self, limiter: Option<&'a Limiter>) -> Result<(), Limited> {
        let Some(bucket) = limiter.and_then(|limiter| limiter.bucket.as_deref()) else { return Ok(()) };
        let budget = bucket.take().map_err(rate_limited)?;
        if let Some(free) = self.taken.iter_mut().find(|taken| taken.is_none()) {
            *free = Some(bucket);
        }
        if self.tightest.is_none_or(|tightest| budget.remaining < tightest.remaining) {
            self.tightest = Some(budget);
        }
        Ok(())
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

fn place(limiter: Option<&Limiter>, limits: Limits) -> Result<Option<Taken>, Limited> {
    let (Some(limiter), Some(cap)) = (limiter, limits.concurrent) else { return Ok(None) };
    match limiter.places.take(cap) {
        Some(taken) => Ok(Some(taken)),
        None => Err(Limited { refused: Refused::TooManyConcurrent, retry_after: RETRY_CONCURRENT, budget: None }),
    }
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
        self.units = None;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((used, taken)) = self.units.take() {
            used.give_back(taken);
        }
    }
}

#[cfg(test)]
mod tests;
