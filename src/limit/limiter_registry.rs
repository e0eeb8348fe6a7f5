//! The limiters of a gateway: shared by its workers, and kept over every reload.
//!
//! Guarantees:
//! - A reload never refills a bucket: tokens, permits and used units carry over.
//! - Every map is bounded.
//!
//! Leaves to others: the check of one command (`command_gate`).

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::{AddressLimits, CalendarOffset, Month, Name, RateLimit, Refused, TrafficLimits, Window};
use crate::policy::{Command, DepartmentPolicy, PolicySnapshot};

use super::address_limiters::{AddressLimiters, AddressPermit};
use super::command_gate::{CommandGate, LimitPermit, LimitRefusal, RETRY_CONCURRENT};
use super::keyed_limiters::{KeyLimiter, KeyedLimiters, LimitersFull};
use super::monthly_usage::MonthlyUsage;
use super::quota_plan::QuotaPlan;

/// The limiters of a gateway, shared by its workers. They outlive every configuration.
#[derive(Debug)]
pub struct LimiterRegistry {
    clock: Clock,
    /// The UTC offset that defines months. Constant for the life of the process, as for the ledger.
    calendar: CalendarOffset,
    /// The limiter of the whole gateway, under the only key.
    total: KeyedLimiters<()>,
    /// By department number.
    pub(crate) departments: KeyedLimiters<u32>,
    /// By department number and command number.
    commands: KeyedLimiters<(u32, u32)>,
    addresses: AddressLimiters,
    /// By department number. Never removed, because a department may come back within its month. Bounded like
    /// [`crate::model::NameInterner`]: by the configurations that the process has loaded, and by the departments of the
    /// ledger.
    usage: DashMap<u32, Arc<MonthlyUsage>, RandomState>,
    /// The quotas by department number, for metrics and for the detection of changes on a reload.
    quotas: arc_swap::ArcSwap<HashMap<u32, QuotaPlan>>,
    /// The departments whose use was restored, and whose quota a later configuration may bring: whether it has refused
    /// commands in this month.
    restored: DashMap<u32, (Month, bool), RandomState>,
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

impl LimiterRegistry {
    /// A registry without limiters.
    pub fn new(clock: Clock, calendar: CalendarOffset) -> Self {
        Self {
            clock,
            calendar,
            total: KeyedLimiters::new(),
            departments: KeyedLimiters::new(),
            commands: KeyedLimiters::new(),
            addresses: AddressLimiters::new(),
            usage: DashMap::with_hasher(RandomState::default()),
            quotas: arc_swap::ArcSwap::default(),
            restored: DashMap::with_hasher(RandomState::default()),
        }
    }

    /// Applies the limits of `snapshot`. Tokens, permits and units used under the previous limits stay used.
    pub fn enforce(&self, snapshot: &PolicySnapshot) {
        let departments: HashMap<u32, TrafficLimits> =
            snapshot.departments.iter().map(|policy| (policy.department.number, policy.limits)).collect();
        // A visit to every command: only for limiters that exist.
        let commands = if self.commands.is_empty() { HashMap::new() } else { command_limits(snapshot) };
        let zones = if self.addresses.is_empty() { HashMap::new() } else { zone_limits(snapshot) };
        self.total.enforce(|()| snapshot.total_rate.map(rate_only), &self.clock);
        self.departments.enforce(|department| departments.get(department).copied().filter(has_limits), &self.clock);
        let of_command = |(department, command): &(u32, u32)| {
            let granted = || snapshot.granted_limits(*department, *command);
            let limits = departments.get(department).and_then(|_| granted().or_else(|| commands.get(command).copied()));
            limits.filter(has_limits)
        };
        self.commands.enforce(of_command, &self.clock);
        self.addresses.enforce(&zones, &self.clock);
        self.enforce_quotas(snapshot);
    }

    /// Applies the quotas. A changed quota logs its thresholds again.
    fn enforce_quotas(&self, snapshot: &PolicySnapshot) {
        let planned =
            |policy: &Arc<DepartmentPolicy>| Some((policy.department.number, QuotaPlan::for_department(policy)?));
        let plans: HashMap<u32, QuotaPlan> = snapshot.departments.iter().filter_map(planned).collect();
        let (before, month) = (self.quotas.load(), self.calendar.month_of(self.clock.window()));
        for (department, plan) in plans.iter().filter(|(department, plan)| before.get(department) != Some(plan)) {
            let used = self.usage_of(*department);
            match self.restored.remove(department) {
                Some((_, (of, has_refused))) if of == month => used.restore_warnings(month, plan, has_refused),
                _ => used.begin_plan(month, plan),
            }
        }
        self.quotas.store(Arc::new(plans));
    }

    /// Restores a department's use of its quota, and whether the quota has refused commands. Called at the start for
    /// each department of the ledger, also for those that only a later configuration has. Logs no warning: the
    /// thresholds were reached before this start.
    pub fn restore_quota(&self, department: u32, month: Month, (units, has_refused): (u64, bool)) {
        let used = self.usage_of(department);
        used.set_used(month, units);
        if let Some(plan) = self.quotas.load().get(&department) {
            used.restore_warnings(month, plan, has_refused);
        } else {
            self.restored.insert(department, (month, has_refused));
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
                limiter_or_refusal(
                    &self.commands,
                    (number, command.key.number),
                    snapshot.limits_on(department, command),
                    &self.clock,
                )?,
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

    /// Checks the limits of a client's address.
    ///
    /// # Errors
    /// A refusal, which has spent nothing.
    pub fn admit_address(&self, limits: &AddressLimits, address: IpAddr) -> Result<AddressPermit, LimitRefusal> {
        self.addresses.admit(limits, address, &self.clock)
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

/// The first value of `next_warning`: never without a quota, else the first command looks up the thresholds.
fn first_warning(department: &DepartmentPolicy) -> u64 {
    if department.quota.is_some() { 0 } else { u64::MAX }
}

fn rate_only(rate: RateLimit) -> TrafficLimits {
    TrafficLimits { rate: Some(rate), concurrent: None }
}

fn has_limits(limits: &TrafficLimits) -> bool {
    limits.rate.is_some() || limits.concurrent.is_some()
}

/// The limits of each zone, by its number.
fn zone_limits(snapshot: &PolicySnapshot) -> HashMap<u32, [TrafficLimits; AddressLimits::PARTS]> {
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| &subsystem.commands);
    let limits = commands.filter_map(|command| command.address_limits.as_ref());
    limits.map(|limits| (limits.number, limits.limits)).collect()
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
