//! Compiles `limits`, `bandwidthLimit`, `quota` and `quotas`: rate limits, concurrency limits, bandwidth limits, and
//! quotas of days and months.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use crate::config::document::{
    AddressLimitsDocument, BandwidthLimitDocument, DepartmentDocument, GatewayLimitsDocument, LimitsDocument,
    QuotaDocument, SourcesDocument,
};
use crate::limit::QUOTA_UNITS_MAX;
use crate::model::{
    AddressLimits, BandwidthLimit, CommandKey, NameInterner, PeriodLength, Quota, QuotaAction, QuotaKind, QuotaMeasure,
    RateLimit, TrafficLimits,
};
use crate::policy::{SourceRanges, Subsystem};

use super::doc_path::DocPath;
use super::listeners::compile_networks;
use super::scalars;

/// The longest time in which a burst may refill: a year. For more than that, a quota is the right setting.
const REFILL_SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Compiles the limit of the whole gateway.
pub(crate) fn compile_total_limit(limits: Option<&GatewayLimitsDocument>, place: &DocPath<'_>) -> Option<RateLimit> {
    let total = limits?.total.as_ref()?;
    compile_rate(Some(&total.rate), total.burst, &place.key("total"))
}

/// Compiles the limits of a department or a command.
pub(crate) fn compile_limits(limits: Option<&LimitsDocument>, place: &DocPath<'_>) -> TrafficLimits {
    let Some(limits) = limits else { return TrafficLimits::default() };
    TrafficLimits {
        rate: compile_rate(limits.rate.as_deref(), limits.burst, place),
        concurrent: limits.concurrent.and_then(|count| nonzero_count(count, &place.key("concurrent"))),
    }
}

/// Compiles the limits of each client address on a command.
pub(crate) fn compile_address_limits(
    written: Option<&AddressLimitsDocument>,
    (command, interner): (&CommandKey, &NameInterner),
    place: &DocPath<'_>,
) -> Option<Arc<AddressLimits>> {
    let written = written?;
    if written.rates.len() > AddressLimits::PARTS {
        place.key("rates").problem(format!("{} rates; write at most {}", written.rates.len(), AddressLimits::PARTS));
    }
    if written.rates.is_empty() && written.concurrent.is_none() {
        place.problem("limits nothing; write rates, concurrent, or both");
    }
    let mut limits = [TrafficLimits::default(); AddressLimits::PARTS];
    for ((index, one), limits) in written.rates.iter().enumerate().zip(&mut limits) {
        limits.rate = compile_rate(Some(&one.rate), one.burst, &place.key("rates").item(index));
    }
    limits[0].concurrent = written.concurrent.and_then(|count| nonzero_count(count, &place.key("concurrent")));
    if !matches!(written.status, None | Some(429 | 503)) {
        place.key("status").problem("is not the status of a limit; write 429 or 503");
    }
    let (zone, key) = match &written.zone {
        Some(zone) => {
            let zone = place.key("zone").parse_name(zone);
            (zone.clone(), format!("z/{zone}"))
        }
        None => (command.command.clone(), format!("z/{}/{}", command.subsystem, command.command)),
    };
    let except = compile_networks(&written.except, &place.key("except"));
    let number = interner.intern(&key);
    Some(Arc::new(AddressLimits { zone, number, limits, except, is_unavailable: written.status == Some(503) }))
}

/// Compiles the bandwidth limit of responses. A rate of 0 means none.
pub(crate) fn compile_bandwidth(written: &BandwidthLimitDocument, place: &DocPath<'_>) -> Option<BandwidthLimit> {
    let size = |key: &str, text: &str| place.key(key).value_or_problem(scalars::parse_size(text));
    let after = written.after.as_deref().map_or(Some(0), |text| size("after", text));
    let rate = NonZeroU64::new(size("rate", &written.rate)?)?;
    Some(BandwidthLimit { rate, after: after? })
}

/// Compiles `sources`.
pub(crate) fn compile_sources(written: Option<&SourcesDocument>, place: &DocPath<'_>) -> Option<Arc<SourceRanges>> {
    let written = written?;
    let allow = compile_networks(&written.allow, &place.key("allow"));
    let deny = compile_networks(&written.deny, &place.key("deny"));
    if allow.is_empty() && deny.is_empty() {
        place.problem("restricts nothing; write allow, deny, or both");
    }
    Some(Arc::new(SourceRanges { allow, deny }))
}

/// Checks that commands with the same zone have the same limits.
pub(crate) fn check_zones<'a>(subsystems: impl Iterator<Item = (usize, &'a Subsystem)>, root: &DocPath<'_>) {
    let mut known: HashMap<u32, &AddressLimits> = HashMap::new();
    for (position, subsystem) in subsystems {
        for (index, command) in subsystem.commands.iter().enumerate() {
            let Some(limits) = &command.address_limits else { continue };
            if **known.entry(limits.number).or_insert(limits) != **limits {
                let place = root.key("subsystems").item(position).key("commands").item(index).key("addressLimits");
                place.problem(format!("another command has other limits for the zone {}; write the same", limits.zone));
            }
        }
    }
}

/// Compiles a department's quotas. Each kind may appear once.
pub(crate) fn compile_quotas(department: &DepartmentDocument, place: &DocPath<'_>) -> Vec<Quota> {
    if department.quota.is_some() && !department.quotas.is_empty() {
        place.key("quota").problem("stands beside quotas; write all of them as entries of quotas");
    }
    let (list, short) = (place.key("quotas"), place.key("quota"));
    let mut compiled: Vec<Quota> = Vec::new();
    let short_form = department.quota.as_ref().and_then(|quota| compile_quota(quota, &short));
    compiled.extend(short_form);
    for (index, quota) in department.quotas.iter().enumerate() {
        let Some(quota) = compile_quota(quota, &list.item(index)) else { continue };
        let QuotaKind { per, measure } = quota.kind;
        if compiled.iter().any(|other| other.kind == quota.kind) {
            let message = format!("another quota counts {} per {}, too; write one of them", measure.name(), per.name());
            list.item(index).problem(message);
        }
        compiled.push(quota);
    }
    compiled
}

fn compile_quota(quota: &QuotaDocument, place: &DocPath<'_>) -> Option<Quota> {
    let periods = [PeriodLength::Day, PeriodLength::Month].map(|period| (period.name(), period));
    let per = place.key("per").value_or_problem(scalars::parse_keyword(&quota.per, &periods));
    let amount = compile_quota_amount(quota, place);
    let words = [("refuse", QuotaAction::Refuse), ("allow", QuotaAction::Allow)];
    let exceeded = place
        .key("exceeded")
        .value_or_problem(scalars::parse_keyword(quota.exceeded.as_deref().unwrap_or("refuse"), &words));
    let warn = compile_warn_levels(&quota.warn, &place.key("warn"));
    let (measure, amount) = amount?;
    Some(Quota { kind: QuotaKind { per: per?, measure }, amount, warn, exceeded: exceeded? })
}

/// Compiles `units` or `commands`, of which a quota has exactly one.
fn compile_quota_amount(quota: &QuotaDocument, place: &DocPath<'_>) -> Option<(QuotaMeasure, NonZeroU64)> {
    let (measure, amount) = match (quota.units, quota.commands) {
        (Some(units), None) => (QuotaMeasure::Units, units),
        (None, Some(commands)) => (QuotaMeasure::Commands, commands),
        (None, None) => {
            place.problem("limits nothing; write units or commands");
            return None;
        }
        (Some(_), Some(_)) => {
            place.problem("has units and commands; write two entries of quotas, one for each");
            return None;
        }
    };
    let place = place.key(measure.name());
    if amount > QUOTA_UNITS_MAX {
        place.problem(format!("{amount} is more than {QUOTA_UNITS_MAX}"));
    }
    let nonzero = NonZeroU64::new(amount);
    if nonzero.is_none() {
        place.problem_with_hint("0 would refuse everything", "remove the department's grants instead");
    }
    Some((measure, nonzero?))
}

fn compile_rate(text: Option<&str>, burst: Option<u64>, place: &DocPath<'_>) -> Option<RateLimit> {
    let Some(text) = text else {
        if burst.is_some() {
            place.key("burst").problem_with_hint("requires a rate", "write rate: N/s");
        }
        return None;
    };
    let read = place.key("rate").value_or_problem(scalars::parse_rate(text));
    let burst = burst.map(|burst| nonzero_count(burst, &place.key("burst")));
    let (count, unit) = read?;
    let rate = RateLimit { count, unit, burst: burst.unwrap_or(Some(count))? };
    let refill = u64::from(rate.burst.get()) * u64::from(unit.seconds()) / u64::from(count.get());
    if refill > REFILL_SECONDS_MAX {
        place.key("burst").problem("at this rate, refilling the burst would take more than a year");
    }
    Some(rate)
}

fn nonzero_count(count: u64, place: &DocPath<'_>) -> Option<NonZeroU32> {
    let count = place.value_or_problem(u32::try_from(count).map_err(|_| format!("{count} is too many")))?;
    let some = NonZeroU32::new(count);
    if some.is_none() {
        place.problem("0 would refuse everything; write at least 1");
    }
    some
}

fn compile_warn_levels(percentages: &[u64], place: &DocPath<'_>) -> Vec<u8> {
    let mut read: Vec<u8> = Vec::with_capacity(percentages.len());
    for (index, percentage) in percentages.iter().enumerate() {
        let place = place.item(index);
        match u8::try_from(*percentage) {
            Ok(percent @ 1..=100) => {
                if read.last().is_some_and(|last| *last >= percent) {
                    place.problem(format!(
                        "{percent} is not greater than the value before it; sort them in ascending order"
                    ));
                }
                read.push(percent);
            }
            _ => place.problem(format!("{percentage} is not a percentage between 1 and 100")),
        }
    }
    read
}
