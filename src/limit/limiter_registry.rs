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
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::{
    AddressLimits, CalendarOffset, CalendarPeriod, Name, QuotaKind, QuotaMeasure, RateLimit, Refused, TrafficLimits,
    Window,
};
use crate::policy::{Command, DepartmentPolicy, PolicySnapshot};

use super::address_limiters::{AddressLimiters, AddressPermit};
use super::command_gate::{CommandGate, LimitPermit, LimitRefusal, RETRY_CONCURRENT};
use super::keyed_limiters::{KeyLimiter, KeyedLimiters, LimitersFull};
use super::quota_plan::QuotaPlans;
use super::quota_usage::{NextWarnings, PeriodNumbers, QuotaUsage};

/// The limiters of a gateway, shared by its workers. They outlive every configuration.
#[derive(Debug)]
pub struct LimiterRegistry {
    clock: Clock,
    /// The UTC offset that defines days and months. Constant for the life of the process, as for the ledger.
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
    usage: DashMap<u32, Arc<QuotaUsage>, RandomState>,
    /// The quotas by department number, for metrics and for the detection of changes on a reload.
    quotas: arc_swap::ArcSwap<HashMap<u32, QuotaPlans>>,
    /// The units of the most expensive command of the configuration.
    largest_command: AtomicU64,
}

/// A department's quota and its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// The department.
    pub department: Name,
    /// What the quota counts, and for how long.
    pub kind: QuotaKind,
    /// What is used in the current period.
    pub used: u64,
    /// Units or commands per period.
    pub amount: u64,
    /// The highest threshold reached in the current period, in percent. 0 below the first threshold; 100 also after a
    /// command was refused.
    pub warned_percent: u8,
}

/// What a department has used in a period, according to the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredUse {
    /// Units of ended commands.
    pub units: u64,
    /// Admitted commands.
    pub commands: u64,
    /// Whether commands were refused because of a quota.
    pub has_refused: bool,
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
            largest_command: AtomicU64::new(0),
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
        let plans: HashMap<u32, QuotaPlans> = snapshot
            .departments
            .iter()
            .filter(|policy| !policy.quotas.is_empty())
            .map(|policy| (policy.department.number, QuotaPlans::for_department(policy)))
            .collect();
        self.largest_command.store(largest_command(snapshot), Ordering::Relaxed);
        let (before, periods) = (self.quotas.load(), PeriodNumbers::of(self.clock.window(), self.calendar));
        for (department, plans) in &plans {
            for (kind, plan) in plans.iter() {
                if before.get(department).and_then(|before| before.of(kind)) == Some(plan) {
                    continue;
                }
                let (period, largest) = (periods.of_length(kind.per), self.largest_amount(kind.measure));
                self.usage_of(*department).of(kind).begin_plan(period, plan, largest);
            }
        }
        self.quotas.store(Arc::new(plans));
    }

    /// Restores what a department has used in a day or a month. Called at the start for each department of the ledger,
    /// also for those that only a later configuration has. Logs no warning: the thresholds were reached before this
    /// start.
    pub fn restore_use(&self, department: u32, period: CalendarPeriod, restored: RestoredUse) {
        let (usage, quotas, number) = (self.usage_of(department), self.quotas.load(), period.number());
        for kind in QuotaKind::ALL.into_iter().filter(|kind| kind.per == period.length()) {
            let used = usage.of(kind);
            used.set_used(number, restored.amount_of(kind.measure));
            match quotas.get(&department).and_then(|plans| plans.of(kind)) {
                Some(plan) => {
                    let refused = (restored.has_refused, self.largest_amount(kind.measure));
                    used.restore_warnings(number, plan, refused);
                }
                None => used.restore_without_plan(number, restored.has_refused),
            }
        }
    }

    /// The most that one command takes of a quota.
    fn largest_amount(&self, measure: QuotaMeasure) -> u64 {
        match measure {
            QuotaMeasure::Units => self.largest_command.load(Ordering::Relaxed),
            QuotaMeasure::Commands => 1,
        }
    }

    /// Every quota and its use, for metrics, in no order of departments.
    pub fn quotas(&self, window: Window) -> Vec<QuotaState> {
        let quotas = self.quotas.load();
        quotas.iter().flat_map(|(number, plans)| self.states(*number, plans, window)).collect()
    }

    /// The quotas of one department and their use.
    pub fn quotas_of(&self, department: u32, window: Window) -> Vec<QuotaState> {
        self.quotas.load().get(&department).map_or_else(Vec::new, |plans| self.states(department, plans, window))
    }

    fn states(&self, department: u32, plans: &QuotaPlans, window: Window) -> Vec<QuotaState> {
        let (usage, periods) = (self.usage_of(department), PeriodNumbers::of(window, self.calendar));
        let states = plans.iter().map(|(kind, plan)| {
            let (used, period) = (usage.of(kind), periods.of_length(kind.per));
            QuotaState {
                department: plan.department().clone(),
                kind,
                used: used.used(period),
                amount: plan.amount(),
                warned_percent: used.warned_percent(period),
            }
        });
        states.collect()
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
        // The gateway's own commands have only their own limits: a department whose quota is used up may read why.
        let is_own = command.key.subsystem.is_gateway();
        let quotas = if is_own { QuotaPlans::default() } else { QuotaPlans::for_department(department) };
        let (department_limits, total_rate) =
            if is_own { (TrafficLimits::default(), None) } else { (department.limits, snapshot.total_rate) };
        let total = total_rate.map_or(TrafficLimits::default(), rate_only);
        Ok(Rc::new(CommandGate {
            narrow_limiters: [
                limiter_or_refusal(
                    &self.commands,
                    (number, command.key.number),
                    snapshot.limits_on(department, command),
                    &self.clock,
                )?,
                limiter_or_refusal(&self.departments, number, department_limits, &self.clock)?,
            ],
            total: limiter_or_refusal(&self.total, (), total, &self.clock)?,
            usage: if is_own { Arc::default() } else { self.usage_of(number) },
            next_warnings: NextWarnings::new(&quotas),
            quotas,
            units: command.units,
            calendar: self.calendar,
            periods: Cell::new((window, PeriodNumbers::of(window, self.calendar))),
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

    fn usage_of(&self, department: u32) -> Arc<QuotaUsage> {
        if let Some(used) = self.usage.get(&department) {
            return Arc::clone(&used);
        }
        Arc::clone(&self.usage.entry(department).or_default())
    }
}

impl RestoredUse {
    fn amount_of(&self, measure: QuotaMeasure) -> u64 {
        match measure {
            QuotaMeasure::Units => self.units,
            QuotaMeasure::Commands => self.commands,
        }
    }
}

fn largest_command(snapshot: &PolicySnapshot) -> u64 {
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
    commands.map(|command| command.units).max().unwrap_or(0)
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
    let commands = commands.chain(snapshot.usage_page.iter().map(|page| &page.command));
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
        quota: None,
    })
}
