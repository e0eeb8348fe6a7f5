//! One scrape: turns a snapshot of the ledger, the measurements and the runtime view into the families of `metrics`.
//!
//! Guarantees:
//! - All families backed by the ledger come from the same snapshot, so they agree with each other.
//! - A scrape sends no requests. The caller fetches the ledger's snapshot first, because that is asynchronous and a
//!   collector is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;

use crate::ledger::{LedgerView, SeriesTotals};
use crate::model::{Month, Name, PeriodLength, RateLimit};

use super::family_spec::{MetricSample, to_float};
use super::histogram::DurationDistribution;
use super::label_cap::{KeptLabels, visible_outcomes};
use super::process_metrics::ProcessMetrics;
use super::text_page::TextPage;
use super::{DepartmentLimits, QuotaUse, RuntimeView, Telemetry, metric_families};

/// The input of a scrape.
#[derive(Debug)]
pub struct ScrapeInput {
    /// The ledger at one moment, with the usage of departments in the [`RuntimeView::shown_months`].
    pub ledger: LedgerView,
    /// The data that only the composition root has.
    pub view: RuntimeView,
}

/// The data from which the families are built.
struct ScrapeSnapshot<'a> {
    telemetry: &'a Telemetry,
    scrape: ScrapeInput,
    kept_labels: KeptLabels,
}

impl Telemetry {
    /// The text of `/metrics`.
    pub fn render(self: &Arc<Self>, scrape: ScrapeInput) -> Result<String, prometheus::Error> {
        let kept = KeptLabels::within(&scrape.ledger.totals, scrape.view.series_max);
        let mut snapshot = ScrapeSnapshot { telemetry: self, scrape, kept_labels: kept };
        let mut page = TextPage::default();
        snapshot.ledger_families(&mut page)?;
        snapshot.scrape.ledger.totals.series = Vec::new(); // most of the memory; later families do not need it
        page.add_families(snapshot.period_families())?;
        page.add_families(snapshot.sync_families())?;
        page.add_families(snapshot.telemetry.runtime_families(snapshot.scrape.view.series_max))?;
        page.add_families(snapshot.config_families())?;
        page.add_families(snapshot.cluster_families())?;
        page.add_families(ProcessMetrics::read_kernel().families())?;
        Ok(page.into_text())
    }
}

impl ScrapeSnapshot<'_> {
    fn ledger_families(&self, page: &mut TextPage) -> Result<(), prometheus::Error> {
        let department = |one: &SeriesTotals| self.kept_labels.department_label(&one.department);
        let command = |one: &SeriesTotals| [department(one), one.subsystem.to_string(), one.command.to_string()];
        let place = |one: &SeriesTotals| [department(one), one.subsystem.to_string()];
        let subsystem = |one: &SeriesTotals| [one.subsystem.to_string()];
        page.add_family(self.command_family())?;
        page.add_family(metric_families::COMMAND_UNITS.family_of(self.sum_series(|one| (command(one), one.units))))?;
        page.add_family(
            metric_families::REQUEST_BYTES.family_of(self.sum_series(|one| (place(one), one.request_bytes))),
        )?;
        page.add_family(
            metric_families::RESPONSE_BYTES.family_of(self.sum_series(|one| (place(one), one.response_bytes))),
        )?;
        page.add_family(
            metric_families::IN_FLIGHT.family_of(self.sum_series(|one| (subsystem(one), one.in_flight()))),
        )?;
        page.add_family(
            metric_families::DEPARTMENT_IN_FLIGHT
                .family_of(self.sum_series(|one| ([department(one)], one.in_flight()))),
        )
    }

    fn command_family(&self) -> MetricFamily {
        let lines = self.scrape.ledger.totals.series.iter().flat_map(|one| {
            let [department, subsystem, command] = [
                self.kept_labels.department_label(&one.department),
                one.subsystem.to_string(),
                one.command.to_string(),
            ];
            visible_outcomes(one).map(move |(outcome, commands)| {
                ([department.clone(), subsystem.clone(), command.clone(), outcome.to_string()], commands)
            })
        });
        metric_families::COMMANDS.family_of(sum_samples(lines))
    }

    /// Sums one number of every series, grouped by the labels under which it is shown.
    fn sum_series<const N: usize>(&self, line: impl Fn(&SeriesTotals) -> ([String; N], u64)) -> Vec<MetricSample<N>> {
        sum_samples(self.scrape.ledger.totals.series.iter().map(line))
    }

    fn period_families(&self) -> Vec<MetricFamily> {
        let months = self.scrape.view.shown_months().into_iter().zip(&self.scrape.ledger.department_usage);
        let uses =
            months.flat_map(|(month, uses)| uses.iter().map(move |(department, sums)| (department, month, sums)));
        let rows: Vec<_> =
            uses.map(|(department, month, sums)| (self.period_labels(department, month), sums)).collect();
        let commands = rows.iter().map(|(labels, totals)| (labels.clone(), totals.commands));
        let units = rows.iter().map(|(labels, totals)| (labels.clone(), totals.units));
        vec![
            metric_families::PERIOD_COMMANDS.family_of(sum_samples(commands)),
            metric_families::PERIOD_UNITS.family_of(sum_samples(units)),
        ]
    }

    fn period_labels(&self, department: &Name, month: Month) -> [String; 2] {
        [self.kept_labels.department_label(department), month.to_string()]
    }

    fn sync_families(&self) -> Vec<MetricFamily> {
        let totals = &self.scrape.ledger.totals;
        let times = &totals.times;
        let syncs = DurationDistribution {
            buckets: times.sync_buckets.iter().copied().filter(|(bound, _)| !bound.is_zero()).collect(),
            count: times.syncs,
            sum: times.sync_time,
        };
        vec![
            metric_families::IMBALANCE.single_family(totals.imbalance as f64),
            metric_families::MENDED.single_family(totals.mended as f64),
            metric_families::SYNCED.single_family(unix_seconds(times.synced_at)),
            metric_families::FOLDED.single_family(unix_seconds(times.folded_at)),
            metric_families::SYNC_DURATION.histogram_family([([], syncs)]),
        ]
    }

    fn config_families(&self) -> Vec<MetricFamily> {
        let view = &self.scrape.view;
        let believing = view.accepts_expired_crl.iter().map(|listener| ([listener.to_string()], 1.0));
        let used = view.quotas.iter().map(|quota| (quota_labels(quota), ratio(quota.used, quota.granted)));
        let granted = view.quotas.iter().map(|quota| (quota_labels(quota), to_float(quota.granted)));
        let warned = view.quotas.iter().map(|quota| (quota_labels(quota), quota.warned_percent.into()));
        let elapsed = [PeriodLength::Day, PeriodLength::Month].map(|length| self.elapsed_part(length));
        let restart = if view.config.restart_needed.is_empty() { 0.0 } else { 1.0 };
        vec![
            metric_families::QUOTA_USED.family_of(used),
            metric_families::QUOTA_GRANTED.family_of(granted),
            metric_families::QUOTA_ELAPSED.family_of(elapsed),
            metric_families::QUOTA_WARNED.family_of(warned),
            metric_families::DEPARTMENT_LIMIT.family_of(view.limits.iter().flat_map(limit_samples)),
            metric_families::CONFIG_RESTART.single_family(restart),
            metric_families::CONFIG_EXCLUDED.single_family(to_float(view.config.excluded.len() as u64)),
            metric_families::CERTIFICATE_EXPIRY.family_of(self.expiry_samples()),
            metric_families::EXPIRED_LISTS_ACCEPTED.family_of(believing),
            metric_families::CONFIG_INFO.family_of([([view.config.live.version.clone()], 1.0)]),
            metric_families::CONFIG_REJECTED
                .family_of(view.config.rejected.iter().map(|rejected| ([rejected.version.clone()], 1.0))),
            metric_families::BUILD_INFO.family_of([([env!("CARGO_PKG_VERSION").to_owned()], 1.0)]),
        ]
    }

    /// The part of the current day or month that has passed.
    fn elapsed_part(&self, length: PeriodLength) -> MetricSample<2> {
        let view = &self.scrape.view;
        let period = length.containing(view.window, view.calendar);
        let windows = period.windows(view.calendar);
        let (start, end) = (windows.start.start_unix_seconds(), windows.end.start_unix_seconds());
        let elapsed = view.now.as_second().clamp(start, end).abs_diff(start);
        ([length.name().to_owned(), period.to_string()], ratio(elapsed, end.abs_diff(start)))
    }

    /// The families of the Kubernetes controller, if there is one.
    fn cluster_families(&self) -> Vec<MetricFamily> {
        let view = &self.scrape.view;
        view.cluster.as_ref().map(|cluster| cluster.families(&view.config, view.now)).unwrap_or_default()
    }

    /// The earliest expiry for each pair of role and name. Two listeners with one authority share such a pair.
    fn expiry_samples(&self) -> Vec<MetricSample<2>> {
        let mut earliest: BTreeMap<[String; 2], Timestamp> = BTreeMap::new();
        for expiry in &self.scrape.view.expiries {
            let at = earliest.entry([expiry.role.to_owned(), expiry.name.clone()]).or_insert(expiry.expires_at);
            *at = expiry.expires_at.min(*at);
        }
        earliest.into_iter().map(|(labels, at)| (labels, unix_seconds(at))).collect()
    }
}

/// Sums values with the same labels while they are still whole numbers.
fn sum_samples<const N: usize>(lines: impl Iterator<Item = ([String; N], u64)>) -> Vec<MetricSample<N>> {
    let mut sums: BTreeMap<[String; N], u64> = BTreeMap::new();
    for (labels, value) in lines {
        let sum = sums.entry(labels).or_default();
        *sum = sum.saturating_add(value);
    }
    sums.into_iter().map(|(labels, value)| (labels, to_float(value))).collect()
}

/// The labels of a quota.
fn quota_labels(quota: &QuotaUse) -> [String; 3] {
    [quota.department.to_string(), quota.kind.per.name().to_owned(), quota.kind.measure.name().to_owned()]
}

/// The limits of a department, one sample each.
fn limit_samples(one: &DepartmentLimits) -> impl Iterator<Item = MetricSample<2>> {
    let rate = one.limits.rate;
    let samples = [
        ("rate", rate.map(per_second)),
        ("burst", rate.map(|rate| rate.burst.get().into())),
        ("concurrent", one.limits.concurrent.map(|most| most.get().into())),
    ];
    let department = one.department.to_string();
    samples.into_iter().filter_map(move |(limit, value)| Some(([department.clone(), limit.to_owned()], value?)))
}

#[expect(clippy::float_arithmetic, reason = "a number for a dashboard; the limit itself counts whole tokens")]
fn per_second(rate: RateLimit) -> f64 {
    f64::from(rate.count.get()) / f64::from(rate.unit.seconds())
}

#[expect(clippy::float_arithmetic, reason = "a ratio for a dashboard; the limit itself compares whole units")]
fn ratio(used: u64, granted: u64) -> f64 {
    to_float(used) / to_float(granted.max(1))
}

fn unix_seconds(at: Timestamp) -> f64 {
    let since = u64::try_from(at.as_nanosecond()).unwrap_or(0);
    Duration::from_nanos(since).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::clock::Clock;
    use crate::ledger::{DepartmentUsage, LedgerTotals, UsageRow};
    use crate::model::{CalendarOffset, QuotaKind, RateUnit, TrafficLimits, Window};
    use crate::telemetry::test_totals::{name, totals, usage};
    use crate::telemetry::{ConfigStatus, LiveConfig};

    fn view(series: usize) -> RuntimeView {
        let now: Timestamp = "2026-11-24T03:59:59Z".parse().expect("a time");
        let live = LiveConfig { version: "0123456789ab".to_owned(), since: now, ..LiveConfig::default() };
        RuntimeView {
            now,
            window: Clock::manual(now).window(),
            calendar: CalendarOffset::default(),
            series_max: series,
            quotas: vec![QuotaUse {
                department: name("police"),
                kind: QuotaKind::ALL[0],
                used: 1,
                granted: 4,
                warned_percent: 20,
            }],
            limits: vec![limited("parking")],
            expiries: vec![],
            accepts_expired_crl: vec![],
            config: ConfigStatus {
                live,
                weakened: vec![],
                restart_needed: vec![],
                excluded: vec![],
                changes: None,
                rejected: None,
                last_good: None,
            },
            cluster: None,
        }
    }

    /// A department limited to 30 commands a minute, a burst of 90, and 7 in flight.
    fn limited(department: &str) -> DepartmentLimits {
        let most = |count| NonZeroU32::new(count).expect("not zero");
        let rate = RateLimit { count: most(30), unit: RateUnit::Minute, burst: most(90) };
        let limits = TrafficLimits { rate: Some(rate), concurrent: Some(most(7)) };
        DepartmentLimits { department: name(department), limits }
    }

    /// A ledger with these series and no usage in any month.
    fn ledger(totals: LedgerTotals) -> LedgerView {
        LedgerView { totals, department_usage: Vec::new() }
    }

    /// The sums of the rows within a range of windows.
    fn used(rows: &[UsageRow], windows: &std::ops::Range<Window>) -> DepartmentUsage {
        let mut uses = DepartmentUsage::default();
        for row in rows.iter().filter(|row| windows.contains(&row.window)) {
            let sums = uses.entry(row.department.clone()).or_default();
            sums.commands += row.totals.commands;
            sums.units += row.totals.units;
        }
        uses
    }

    /// The lines that start with `beginning`.
    fn lines(text: &str, beginning: &str) -> Vec<String> {
        text.lines().filter(|line| line.starts_with(beginning)).map(str::to_owned).collect()
    }

    #[test]
    fn elapsed_parts_of_the_day_and_the_month_follow_the_calendar() {
        for (now, offset, day, month) in [
            ("2026-11-15T16:00:00Z", "+08:00", r#""2026-11-16"} 0"#, r#""2026-11"} 0.5"#),
            (
                "2026-11-15T16:00:00Z",
                "+00:00",
                r#""2026-11-15"} 0.6666666666666666"#,
                r#""2026-11"} 0.4888888888888889"#,
            ),
            ("2026-11-30T16:00:00Z", "+08:00", r#""2026-12-01"} 0"#, r#""2026-12"} 0"#),
            (
                "2026-11-30T15:59:59Z",
                "+08:00",
                r#""2026-11-30"} 0.999988425925926"#,
                r#""2026-11"} 0.9999996141975309"#,
            ),
        ] {
            let now: Timestamp = now.parse().expect("a time");
            let calendar = CalendarOffset::parse(offset).expect("an offset");
            let view = RuntimeView { now, window: Clock::manual(now).window(), calendar, ..view(100) };
            let scrape = ScrapeInput { ledger: ledger(totals(&["police"])), view };
            let text = Telemetry::new().render(scrape).expect("it renders");
            let expected = [("day", day), ("month", month)]
                .map(|(per, rest)| format!("tallygate_quota_elapsed_ratio{{per=\"{per}\",period={rest}"));
            assert_eq!(lines(&text, "tallygate_quota_elapsed"), expected);
        }
    }

    #[test]
    fn ledger_counters_are_exposed_unchanged() {
        let scrape = ScrapeInput { ledger: ledger(totals(&["police", "parking"])), view: view(100) };
        let text = Telemetry::new().render(scrape).expect("it renders");
        assert_eq!(
            lines(&text, "tallygate_command").join("\n"),
            r#"tallygate_command_units_total{department="parking",subsystem="cameras",command="snapshot.submit"} 6
tallygate_command_units_total{department="police",subsystem="cameras",command="snapshot.submit"} 6
tallygate_commands_in_flight{subsystem="cameras"} 2
tallygate_commands_total{department="parking",subsystem="cameras",command="snapshot.submit",outcome="ok"} 2
tallygate_commands_total{department="parking",subsystem="cameras",command="snapshot.submit",outcome="rate_limited"} 1
tallygate_commands_total{department="police",subsystem="cameras",command="snapshot.submit",outcome="ok"} 2
tallygate_commands_total{department="police",subsystem="cameras",command="snapshot.submit",outcome="rate_limited"} 1"#
        );
        assert_eq!(
            lines(&text, "tallygate_request_bytes_total{"),
            [
                r#"tallygate_request_bytes_total{department="parking",subsystem="cameras"} 100"#,
                r#"tallygate_request_bytes_total{department="police",subsystem="cameras"} 100"#,
            ]
        );
        assert_eq!(lines(&text, "tallygate_ledger_imbalance"), ["tallygate_ledger_imbalance 0"]);
        assert_eq!(
            lines(&text, "tallygate_quota"),
            [
                r#"tallygate_quota_elapsed_ratio{per="day",period="2026-11-24"} 0.4999884259259259"#,
                r#"tallygate_quota_elapsed_ratio{per="month",period="2026-11"} 0.7833329475308642"#,
                r#"tallygate_quota_granted{department="police",per="month",measure="units"} 4"#,
                r#"tallygate_quota_used_ratio{department="police",per="month",measure="units"} 0.25"#,
                r#"tallygate_quota_warned_percent{department="police",per="month",measure="units"} 20"#
            ]
        );
        assert_eq!(
            lines(&text, "tallygate_config"),
            [
                "tallygate_config_excluded_sources 0",
                r#"tallygate_config_info{version="0123456789ab"} 1"#,
                "tallygate_config_restart_needed 0"
            ]
        );
        assert_eq!(
            lines(&text, "tallygate_department_commands_in_flight{"),
            [
                r#"tallygate_department_commands_in_flight{department="parking"} 1"#,
                r#"tallygate_department_commands_in_flight{department="police"} 1"#
            ]
        );
        assert_eq!(
            lines(&text, "tallygate_department_limit{"),
            [
                r#"tallygate_department_limit{department="parking",limit="burst"} 90"#,
                r#"tallygate_department_limit{department="parking",limit="concurrent"} 7"#,
                r#"tallygate_department_limit{department="parking",limit="rate"} 0.5"#
            ]
        );
    }

    #[test]
    fn departments_over_the_cap_are_folded_and_sums_are_unchanged() {
        let scrape = ScrapeInput { ledger: ledger(totals(&["a", "b", "c"])), view: view(2) };
        let text = Telemetry::new().render(scrape).expect("it renders");
        assert_eq!(
            lines(&text, "tallygate_commands_total{"),
            [
                r#"tallygate_commands_total{department="a",subsystem="cameras",command="snapshot.submit",outcome="ok"} 2"#,
                r#"tallygate_commands_total{department="a",subsystem="cameras",command="snapshot.submit",outcome="rate_limited"} 1"#,
                r#"tallygate_commands_total{department="other",subsystem="cameras",command="snapshot.submit",outcome="ok"} 4"#,
                r#"tallygate_commands_total{department="other",subsystem="cameras",command="snapshot.submit",outcome="rate_limited"} 2"#,
            ]
        );
    }

    #[test]
    fn periods_are_months_of_the_ledger_calendar() {
        let usage = vec![
            usage("police", "2026-09-30T15:00:00Z", 1_000), // still September in +08:00
            usage("police", "2026-09-30T16:00:00Z", 1),
            usage("police", "2026-10-31T15:00:00Z", 2),
            usage("police", "2026-10-31T16:00:00Z", 4),
            usage("police", "2026-11-24T03:00:00Z", 8),
        ];
        let uses = view(100).shown_months().map(|month| used(&usage, &view(100).calendar.windows_of(month)));
        let ledger = LedgerView { totals: totals(&["police"]), department_usage: uses.to_vec() };
        let scrape = ScrapeInput { ledger, view: view(100) };
        let text = Telemetry::new().render(scrape).expect("it renders");
        assert_eq!(
            lines(&text, "tallygate_usage_period"),
            [
                r#"tallygate_usage_period_commands{department="police",period="2026-10"} 3"#,
                r#"tallygate_usage_period_commands{department="police",period="2026-11"} 12"#,
                r#"tallygate_usage_period_units{department="police",period="2026-10"} 6"#,
                r#"tallygate_usage_period_units{department="police",period="2026-11"} 24"#,
            ]
        );
    }

    #[test]
    fn large_counters_are_exact_below_two_to_the_53() {
        let mut totals = totals(&["police"]);
        totals.series[0].units = (1 << 53) - 1;
        let scrape = ScrapeInput { ledger: ledger(totals), view: view(100) };
        let text = Telemetry::new().render(scrape).expect("it renders");
        assert!(lines(&text, "tallygate_command_units_total{")[0].ends_with(" 9007199254740991"));
    }

    #[test]
    fn every_series_is_unique_and_below_its_help_and_type() {
        let scrape = ScrapeInput { ledger: ledger(totals(&["a", "b", "c"])), view: view(1) };
        let text = Telemetry::new().render(scrape).expect("it renders");
        let (mut seen, mut family) = (std::collections::HashSet::new(), "");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').expect("a help text").0;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert!(kind.starts_with(family));
            } else {
                let (series, _) = line.rsplit_once(' ').expect("a value");
                assert!(line.starts_with(family) && seen.insert(series), "{line}");
            }
        }
    }
}
