//! What `tallygate top` shows: two readings of a gateway as rates, states and tables.
//!
//! Guarantees:
//! - Whole numbers only; rates are cut off, not rounded.
//! - Departments and subsystems are in the order of their commands per second, then of their names.
//!
//! Leaves to `overview_text`: what fits on a screen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::model::{Blame, Outcome, Refused};

use super::exposition::{ExposedSample, Exposition, ONE, parse_millionths};
use super::per_second::PerSecond;
use super::reading::Reading;

/// The state of a gateway, and what it did between two readings.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Overview {
    pub(super) admin: String,
    pub(super) at: Timestamp,
    /// The time between the readings, which the rates are of.
    pub(super) over_milliseconds: u64,
    pub(super) version: String,
    pub(super) up_seconds: u64,
    pub(super) ready: bool,
    /// Why it is not ready, or which subsystems are not served.
    pub(super) notes: Vec<String>,
    pub(super) configuration: ConfigurationState,
    pub(super) traffic: TrafficState,
    pub(super) ledger: LedgerState,
    pub(super) process: ProcessState,
    /// Limits met: those of commands by outcome, and those of connections and waits.
    pub(super) limits: Vec<LimitMet>,
    pub(super) departments: Vec<DepartmentRow>,
    pub(super) subsystems: Vec<SubsystemRow>,
    /// By their end, the earliest first.
    pub(super) certificates: Vec<CertificateEnd>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ConfigurationState {
    pub(super) version: String,
    pub(super) since: String,
    pub(super) rejected: bool,
    pub(super) excluded_sources: usize,
    pub(super) settings_waiting_for_restart: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct TrafficState {
    pub(super) commands_per_second: PerSecond,
    pub(super) errors_per_second: PerSecond,
    pub(super) refused_per_second: PerSecond,
    pub(super) in_flight: u64,
    pub(super) duration: Quantiles,
}

/// Bounds of a histogram that half and 99 % of the durations do not exceed; `None` without durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) half_within_microseconds: Option<u64>,
    pub(super) most_within_microseconds: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LedgerState {
    /// Received - refused - finished - in flight.
    pub(super) imbalance: i64,
    pub(super) mended_windows: u64,
    pub(super) synced_milliseconds_ago: Option<u64>,
    pub(super) folded_milliseconds_ago: Option<u64>,
    pub(super) sync_duration: Quantiles,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ProcessState {
    pub(super) connections: u64,
    pub(super) connections_per_second: PerSecond,
    pub(super) failed_handshakes_per_second: PerSecond,
    /// Seconds of CPU per second: 1 is one core.
    pub(super) cpu: PerSecond,
    pub(super) memory_bytes: u64,
    pub(super) descriptors: u64,
    pub(super) descriptors_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LimitMet {
    pub(super) limit: String,
    pub(super) per_second: PerSecond,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DepartmentRow {
    pub(super) department: String,
    pub(super) commands_per_second: PerSecond,
    pub(super) errors_per_second: PerSecond,
    pub(super) refused_per_second: PerSecond,
    /// The part of the refused ones that met a limit.
    pub(super) limited_per_second: PerSecond,
    pub(super) in_flight: u64,
    /// The used part of the quota that is used most, of those per day and per month, in units and in commands.
    pub(super) quota_used_percent: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct SubsystemRow {
    pub(super) subsystem: String,
    pub(super) commands_per_second: PerSecond,
    pub(super) errors_per_second: PerSecond,
    pub(super) duration: Quantiles,
    pub(super) in_flight: u64,
    pub(super) queued: u64,
    pub(super) servers: u64,
    /// Servers that are out of rotation.
    pub(super) servers_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CertificateEnd {
    pub(super) role: String,
    pub(super) name: String,
    /// Seconds until it ends; negative after its end.
    pub(super) seconds_left: i64,
}

/// The growth between two readings.
struct Growth<'r> {
    earlier: &'r Exposition,
    later: &'r Exposition,
    time: Duration,
}

impl Overview {
    /// The overview of two readings of the gateway at `admin`, the earlier one first.
    pub(super) fn new(admin: &str, earlier: &Reading, later: &Reading) -> Self {
        let time = later.time.since(earlier.time);
        let growth = Growth { earlier: &earlier.metrics, later: &later.metrics, time };
        let metrics = &later.metrics;
        Self {
            admin: admin.to_owned(),
            at: later.at,
            over_milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            version: metrics.label("tallygate_build_info", "version").unwrap_or_default().to_owned(),
            up_seconds: whole_seconds_since(metrics.sum("process_start_time_seconds"), later.at),
            ready: later.is_ready,
            notes: later.notes.clone(),
            configuration: configuration_state(&later.config),
            traffic: traffic(&growth),
            ledger: ledger_state(&growth, later.at),
            process: process_state(&growth),
            limits: limits_met(&growth),
            departments: department_rows(&growth),
            subsystems: subsystem_rows(&growth),
            certificates: certificate_ends(metrics, later.at),
        }
    }
}

fn configuration_state(config: &Value) -> ConfigurationState {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let count = |key: &str| config[key].as_array().map_or(0, Vec::len);
    ConfigurationState {
        version: text("/live/version"),
        since: text("/live/since"),
        rejected: !config["rejected"].is_null(),
        excluded_sources: count("excluded"),
        settings_waiting_for_restart: count("restart_needed"),
    }
}

fn traffic(growth: &Growth<'_>) -> TrafficState {
    let (mut commands, mut errors, mut refused) = Default::default();
    for (sample, rate) in growth.rates("tallygate_commands_total") {
        add_command(sample, rate, (&mut commands, &mut errors, &mut refused));
    }
    TrafficState {
        commands_per_second: commands,
        errors_per_second: errors,
        refused_per_second: refused,
        in_flight: whole(growth.later.sum("tallygate_commands_in_flight")),
        duration: growth.quantiles("tallygate_command_duration_seconds", |_| true),
    }
}

/// Adds the rate of a series of commands to the sums of commands, errors and refused ones.
fn add_command(
    sample: &ExposedSample,
    rate: PerSecond,
    (commands, errors, refused): (&mut PerSecond, &mut PerSecond, &mut PerSecond),
) {
    *commands = commands.plus(rate);
    let outcome = Outcome::all().find(|outcome| outcome.name() == sample.label("outcome"));
    match outcome.map(Outcome::blame) {
        Some(Blame::Us | Blame::Upstream) => *errors = errors.plus(rate),
        Some(Blame::Caller) if matches!(outcome, Some(Outcome::Refused(_))) => *refused = refused.plus(rate),
        _ => {}
    }
}

fn ledger_state(growth: &Growth<'_>, now: Timestamp) -> LedgerState {
    let later = growth.later;
    LedgerState {
        imbalance: i64::try_from(later.sum("tallygate_ledger_imbalance").unwrap_or_default() / ONE).unwrap_or(i64::MAX),
        mended_windows: whole(later.sum("tallygate_ledger_mended_windows_total")),
        synced_milliseconds_ago: milliseconds_since(later.sum("tallygate_ledger_synced_timestamp_seconds"), now),
        folded_milliseconds_ago: milliseconds_since(later.sum("tallygate_ledger_folded_timestamp_seconds"), now),
        sync_duration: growth.quantiles("tallygate_ledger_sync_duration_seconds", |_| true),
    }
}

fn process_state(growth: &Growth<'_>) -> ProcessState {
    let later = growth.later;
    ProcessState {
        connections: whole(later.sum("tallygate_connections_open")),
        connections_per_second: growth.rate("tallygate_connections_accepted_total"),
        failed_handshakes_per_second: growth.rate("tallygate_tls_handshakes_failed_total"),
        cpu: growth.rate("process_cpu_seconds_total"),
        memory_bytes: whole(later.sum("process_resident_memory_bytes")),
        descriptors: whole(later.sum("process_open_fds")),
        descriptors_max: whole(later.sum("process_max_fds")),
    }
}

/// Whether a refused command met a limit.
fn is_limit(outcome: &str) -> bool {
    [Refused::RateLimited, Refused::TooManyConcurrent, Refused::QuotaExceeded, Refused::Overloaded]
        .iter()
        .any(|refused| refused.name() == outcome)
}

fn limits_met(growth: &Growth<'_>) -> Vec<LimitMet> {
    let mut met: BTreeMap<&str, PerSecond> = BTreeMap::new();
    let commands = growth.rates("tallygate_commands_total").map(|(sample, rate)| (sample.label("outcome"), rate));
    let waits = growth.rates("tallygate_limit_hits_total").map(|(sample, rate)| (sample.label("limit"), rate));
    for (limit, rate) in commands.filter(|(outcome, _)| is_limit(outcome)).chain(waits) {
        let sum = met.entry(limit).or_default();
        *sum = sum.plus(rate);
    }
    let mut met: Vec<_> = met
        .into_iter()
        .filter(|(_, rate)| rate.0 > 0)
        .map(|(limit, per_second)| LimitMet { limit: limit.to_owned(), per_second })
        .collect();
    met.sort_by_key(|one| std::cmp::Reverse(one.per_second));
    met
}

fn department_rows(growth: &Growth<'_>) -> Vec<DepartmentRow> {
    let mut rows: BTreeMap<&str, DepartmentRow> = BTreeMap::new();
    for (sample, rate) in growth.rates("tallygate_commands_total") {
        let row =
            rows.entry(sample.label("department")).or_insert_with_key(|department| DepartmentRow::new(department));
        let sums = (&mut row.commands_per_second, &mut row.errors_per_second, &mut row.refused_per_second);
        add_command(sample, rate, sums);
        if is_limit(sample.label("outcome")) {
            row.limited_per_second = row.limited_per_second.plus(rate);
        }
    }
    let later = growth.later;
    for (department, in_flight) in later.sums_by("tallygate_department_commands_in_flight", "department") {
        rows.entry(department).or_insert_with_key(|department| DepartmentRow::new(department)).in_flight =
            whole(Some(in_flight));
    }
    for quota in later.samples("tallygate_quota_used_ratio") {
        let row = rows.entry(quota.label("department")).or_insert_with_key(|department| DepartmentRow::new(department));
        row.quota_used_percent = row.quota_used_percent.max(Some(whole(Some(quota.millionths * 100))));
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.commands_per_second)); // equal ones stay in the order of their names
    rows
}

impl DepartmentRow {
    fn new(department: &str) -> Self {
        Self {
            department: department.to_owned(),
            commands_per_second: PerSecond::default(),
            errors_per_second: PerSecond::default(),
            refused_per_second: PerSecond::default(),
            limited_per_second: PerSecond::default(),
            in_flight: 0,
            quota_used_percent: None,
        }
    }
}

fn subsystem_rows(growth: &Growth<'_>) -> Vec<SubsystemRow> {
    let later = growth.later;
    // Commands name subsystems, servers and queues name backends: most have the same id.
    let ids: BTreeSet<&str> = ["tallygate_commands_total", "tallygate_upstream_ejected", "tallygate_commands_queued"]
        .iter()
        .flat_map(|family| later.samples(family))
        .map(|sample| sample.label("subsystem"))
        .collect();
    let (in_flight, queued) = (
        later.sums_by("tallygate_commands_in_flight", "subsystem"),
        later.sums_by("tallygate_commands_queued", "subsystem"),
    );
    let mut rates: BTreeMap<&str, [PerSecond; 3]> = BTreeMap::new();
    for (sample, rate) in growth.rates("tallygate_commands_total") {
        let [commands, errors, refused] = rates.entry(sample.label("subsystem")).or_default();
        add_command(sample, rate, (commands, errors, refused));
    }
    let row = |id: &str| {
        let [commands_per_second, errors_per_second, _] = rates.get(id).copied().unwrap_or_default();
        let servers =
            later.samples("tallygate_upstream_ejected").iter().filter(|sample| sample.label("subsystem") == id);
        let out = servers.clone().filter(|sample| sample.millionths > 0);
        SubsystemRow {
            subsystem: id.to_owned(),
            commands_per_second,
            errors_per_second,
            duration: growth.quantiles("tallygate_command_duration_seconds", |sample| sample.label("subsystem") == id),
            in_flight: whole(in_flight.get(id).copied()),
            queued: whole(queued.get(id).copied()),
            servers_out: out.map(|sample| sample.label("upstream").to_owned()).collect(),
            servers: u64::try_from(servers.count()).unwrap_or(u64::MAX),
        }
    };
    let mut rows: Vec<_> = ids.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((!row.servers_out.is_empty(), row.commands_per_second)));
    rows
}

fn certificate_ends(metrics: &Exposition, now: Timestamp) -> Vec<CertificateEnd> {
    let end = |sample: &ExposedSample| CertificateEnd {
        role: sample.label("role").to_owned(),
        name: sample.label("name").to_owned(),
        seconds_left: i64::try_from(sample.millionths / ONE).unwrap_or(i64::MAX) - now.as_second(),
    };
    let mut ends: Vec<_> = metrics.samples("tallygate_certificate_expiry_timestamp_seconds").iter().map(end).collect();
    ends.sort_by_key(|end| end.seconds_left);
    ends
}

impl<'r> Growth<'r> {
    /// The samples of a counter, with their rates. One that is new began at zero.
    fn rates(&self, name: &'r str) -> impl Iterator<Item = (&'r ExposedSample, PerSecond)> {
        let before: BTreeMap<_, _> =
            self.earlier.samples(name).iter().map(|sample| (&sample.labels, sample.millionths)).collect();
        let time = self.time;
        self.later.samples(name).iter().map(move |sample| {
            let growth = sample.millionths - before.get(&sample.labels).copied().unwrap_or_default();
            (sample, PerSecond::of(growth, time))
        })
    }

    /// The rate of all samples of a counter together.
    fn rate(&self, name: &'r str) -> PerSecond {
        self.rates(name).fold(PerSecond::default(), |sum, (_, rate)| sum.plus(rate))
    }

    /// The quantiles of the durations between the readings, of the samples of a histogram that `fits` accepts.
    fn quantiles(&self, histogram: &str, fits: impl Fn(&ExposedSample) -> bool) -> Quantiles {
        let name = format!("{histogram}_bucket");
        let mut buckets: BTreeMap<i128, i128> = BTreeMap::new();
        for (page, sign) in [(self.earlier, -1), (self.later, 1)] {
            for sample in page.samples(&name).iter().filter(|sample| fits(sample)) {
                let bound = parse_millionths(sample.label("le")).unwrap_or(i128::MAX); // +Inf
                *buckets.entry(bound).or_default() += sign * sample.millionths;
            }
        }
        let count = buckets.get(&i128::MAX).copied().unwrap_or_default();
        let within = |part_of_100: i128| {
            let enough = |(_, seen): &(&i128, &i128)| **seen * 100 >= count * part_of_100;
            let bound = *buckets.iter().find(enough)?.0;
            u64::try_from(bound).ok()
        };
        if count <= 0 {
            return Quantiles::default();
        }
        // Millionths of a second are microseconds. Above the last bound there is no number.
        Quantiles {
            half_within_microseconds: Some(within(50).unwrap_or(u64::MAX)),
            most_within_microseconds: Some(within(99).unwrap_or(u64::MAX)),
        }
    }
}

/// The whole part of a value; 0 for one that is absent or negative.
fn whole(millionths: Option<i128>) -> u64 {
    u64::try_from(millionths.unwrap_or_default().max(0) / ONE).unwrap_or(u64::MAX)
}

/// Milliseconds from a moment in Unix time to `now`; 0 if it is ahead.
fn milliseconds_since(moment_millionths: Option<i128>, now: Timestamp) -> Option<u64> {
    let now_millis = i128::from(now.as_millisecond());
    moment_millionths.map(|moment| u64::try_from((now_millis - moment / 1000).max(0)).unwrap_or(u64::MAX))
}

fn whole_seconds_since(moment_millionths: Option<i128>, now: Timestamp) -> u64 {
    milliseconds_since(moment_millionths, now).unwrap_or_default() / 1000
}

#[cfg(test)]
pub(super) mod tests {
    use crate::clock::Clock;

    use super::*;

    const HEAD: &str = "tallygate_build_info{version=\"0.1.0\"} 1\n";

    /// Two readings, two seconds apart.
    pub(in crate::cli::inspect) fn readings(earlier: &str, later: &str) -> [Reading; 2] {
        let clock = Clock::manual("2026-11-24T04:00:00Z".parse().expect("a time"));
        [earlier, later].map(|page| {
            clock.advance(Duration::from_secs(2));
            Reading {
                at: clock.wall(),
                time: clock.monotonic(),
                metrics: Exposition::parse(&format!("{HEAD}{page}")).expect("a page"),
                is_ready: true,
                notes: Vec::new(),
                config: serde_json::json!({
                    "live": { "version": "0123456789ab", "since": "2026-11-24T03:00:00Z" },
                    "restart_needed": [], "rejected": null,
                }),
            }
        })
    }

    fn overview(earlier: &str, later: &str) -> Overview {
        let [earlier, later] = readings(earlier, later);
        Overview::new("gate:9090", &earlier, &later)
    }

    fn commands(department: &str, subsystem: &str, outcome: &str, count: u32) -> String {
        format!(
            "tallygate_commands_total{{department=\"{department}\",subsystem=\"{subsystem}\",command=\"c\",outcome=\"{outcome}\"}} {count}\n"
        )
    }

    #[test]
    fn rates_are_of_commands_between_the_readings() {
        let earlier = commands("a", "s", "ok", 100) + &commands("b", "s", "ok", 10);
        let later = commands("a", "s", "ok", 110)
            + &commands("b", "s", "ok", 50)
            + &commands("b", "s", "rate_limited", 6)
            + &commands("b", "t", "server_error", 2)
            + &commands("b", "t", "client_error", 2);
        let shown = overview(&earlier, &later);
        assert_eq!((shown.version.as_str(), shown.over_milliseconds), ("0.1.0", 2000));
        let traffic = &shown.traffic;
        let rates = [traffic.commands_per_second, traffic.errors_per_second, traffic.refused_per_second];
        assert_eq!(rates, [30_000, 1_000, 3_000].map(PerSecond));
        let departments: Vec<_> = shown.departments.iter().map(|row| row.department.as_str()).collect();
        assert_eq!(departments, ["b", "a"]);
        assert_eq!(shown.departments[0].limited_per_second, PerSecond(3_000));
        let subsystems: Vec<_> =
            shown.subsystems.iter().map(|row| (row.subsystem.as_str(), row.errors_per_second.0)).collect();
        assert_eq!(subsystems, [("s", 0), ("t", 1_000)]);
        assert_eq!(shown.limits, [LimitMet { limit: "rate_limited".to_owned(), per_second: PerSecond(3_000) }]);
        // A restart begins at zero: no rate, and no panic.
        assert_eq!(overview(&later, &earlier).traffic.commands_per_second, PerSecond(0));
    }

    #[test]
    fn quantiles_are_bounds_of_the_new_durations() {
        let buckets = |counts: [u32; 3]| -> String {
            let bounds = ["0.005", "0.05", "+Inf"].into_iter().zip(counts);
            let line = |(bound, count)| {
                format!("tallygate_command_duration_seconds_bucket{{subsystem=\"s\",le=\"{bound}\"}} {count}\n")
            };
            bounds.map(line).collect()
        };
        let none = commands("a", "s", "ok", 1);
        let of = |earlier, later| {
            overview(&(none.clone() + &buckets(earlier)), &(none.clone() + &buckets(later))).subsystems[0].duration
        };
        let quantiles = |half, most| Quantiles { half_within_microseconds: half, most_within_microseconds: most };
        assert_eq!(of([1000, 1000, 1000], [1060, 1100, 1100]), quantiles(Some(5_000), Some(50_000)));
        assert_eq!(of([0, 0, 0], [0, 40, 100]), quantiles(Some(u64::MAX), Some(u64::MAX)));
        assert_eq!(of([7, 7, 7], [7, 7, 7]), quantiles(None, None));
    }

    #[test]
    fn states_are_those_of_the_later_reading() {
        let page = "tallygate_ledger_imbalance -3\ntallygate_ledger_synced_timestamp_seconds 1795492803.5\n\
                    tallygate_certificate_expiry_timestamp_seconds{role=\"server\",name=\"gateway\"} 1795492904\n\
                    tallygate_certificate_expiry_timestamp_seconds{role=\"crl\",name=\"city\"} 1795492799\n\
                    tallygate_quota_used_ratio{department=\"a\",per=\"day\",measure=\"units\"} 0.31\n\
                    tallygate_quota_used_ratio{department=\"a\",per=\"month\",measure=\"units\"} 0.8249\n\
                    tallygate_quota_used_ratio{department=\"a\",per=\"month\",measure=\"commands\"} 0.5\n\
                    tallygate_upstream_ejected{subsystem=\"s\",upstream=\"10.0.0.1:80\"} 1\n\
                    tallygate_upstream_ejected{subsystem=\"s\",upstream=\"10.0.0.2:80\"} 0\n";
        let shown = overview("", page);
        assert_eq!((shown.ledger.imbalance, shown.ledger.synced_milliseconds_ago), (-3, Some(500)));
        let ends: Vec<_> = shown.certificates.iter().map(|end| (end.role.as_str(), end.seconds_left)).collect();
        assert_eq!(ends, [("crl", -5), ("server", 100)]);
        assert_eq!(shown.departments[0].quota_used_percent, Some(82));
        let subsystem = &shown.subsystems[0];
        assert_eq!((subsystem.servers, &subsystem.servers_out[..]), (2, &["10.0.0.1:80".to_owned()][..]));
    }
}
