//! What a department may read about its own usage: today, the month, refusals, limits, quotas, forecast.
//!
//! Guarantees:
//! - Pure: the facts of one department make its page.
//! - JSON and HTML show the same numbers. Those of a period are the numbers of `report usage`.
//!
//! Leaves to others: who may read it, and reading the ledger (`proxy`).

mod page;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::UsageRow;
use crate::ledger::audit::{CoverageGap, LedgerCoverage, LostCounts};
use crate::model::{
    CalendarPeriod, Department, Name, Outcome, PeriodLength, Quota, QuotaAction, QuotaKind, RateUnit, Refused,
    TrafficLimits, Window,
};

use super::forecast::{BASIS_HOURS_MAX, DepartmentForecast, DepartmentHours, Forecast, ForecastBasis, ForecastMoment};
use super::forecast::{PeriodUse, UseRange, used_percent};
use super::utc_seconds_text;

pub use self::page::USAGE_PAGE_POLICY;

/// The format of a usage page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsagePageFormat {
    /// For programs.
    Json,
    /// For browsers.
    Html,
}

impl UsagePageFormat {
    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

/// The facts that a page is made from.
#[derive(Clone, Debug)]
pub struct OwnUsageFacts {
    /// The department.
    pub department: Department,
    /// The moment.
    pub moment: ForecastMoment,
    /// How long the page is shown.
    pub valid_for: Duration,
    /// How far the ledger reaches.
    pub coverage: LedgerCoverage,
    /// The horizon of the ledger.
    pub compacted_before: Window,
    /// The usage of the department by hour: of the month, and of the four weeks before the moment.
    pub rows: Vec<UsageRow>,
    /// The limits of the department, and of its commands.
    pub limits: Vec<OwnLimit>,
    /// The quotas of the department.
    pub quotas: Vec<Quota>,
    /// What is used of the quotas, commands in flight included.
    pub quotas_used: Vec<QuotaUsed>,
}

/// What is used of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUsed {
    /// Of which quota.
    pub kind: QuotaKind,
    /// Units or commands.
    pub used: u64,
}

/// Limits that hold for a department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLimit {
    /// Where they hold.
    pub scope: OwnLimitScope,
    /// The limits.
    pub limits: TrafficLimits,
}

/// Where limits hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnLimitScope {
    /// For all commands of the department together.
    Department,
    /// For one command of a subsystem.
    Command(Name, Name),
}

/// The usage of a department, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct OwnUsage {
    department: String,
    department_name: String,
    made_at: String,
    valid_for_s: u64,
    calendar: String,
    data: DataReach,
    today: PeriodSummary,
    month: PeriodSummary,
    /// The days of the month so far.
    days: Vec<DayUsage>,
    refused: Vec<RefusedUsage>,
    limits: Vec<LimitRow>,
    quotas: Vec<QuotaRow>,
    forecast: MonthForecast,
    #[serde(skip)]
    moment: ForecastMoment,
}

/// How far the numbers are complete.
#[derive(Clone, Debug, Serialize)]
struct DataReach {
    gateway: String,
    begins: Option<String>,
    complete_to: Option<String>,
    /// Parts of the month in which the gateway counted nothing, because it did not run.
    gaps: Vec<CoverageGap>,
    lost_counts: Vec<LostCounts>,
}

/// The usage of a day or month so far.
#[derive(Clone, Debug, Serialize)]
struct PeriodSummary {
    period: String,
    from: String,
    to: String,
    /// All commands, refused ones included, as in `report usage`.
    commands: u64,
    refused: u64,
    units: u64,
    rows: Vec<CommandUsage>,
}

/// The commands of one kind that ended in one way.
#[derive(Clone, Debug, Serialize)]
struct CommandUsage {
    subsystem: String,
    command: String,
    outcome: &'static str,
    blame: &'static str,
    commands: u64,
    units: u64,
}

/// A day of the month.
#[derive(Clone, Debug, Serialize)]
struct DayUsage {
    day: String,
    commands: u64,
    refused: u64,
    units: u64,
}

/// Refused commands of one outcome.
#[derive(Clone, Debug, Serialize)]
struct RefusedUsage {
    outcome: &'static str,
    /// What it means, and what helps.
    why: &'static str,
    today: u64,
    month: u64,
}

/// A limit, and how many commands were refused by limits of its kind.
#[derive(Clone, Debug, Serialize)]
struct LimitRow {
    /// `department`, or subsystem and command.
    scope: String,
    limit: &'static str,
    value: String,
    refused_today: u64,
    refused_month: u64,
}

/// A quota, its pace and its forecast.
#[derive(Clone, Debug, Serialize)]
struct QuotaRow {
    per: &'static str,
    period: String,
    measure: &'static str,
    granted: u64,
    used: u64,
    used_percent: u64,
    elapsed_percent: u64,
    /// Whether it is used faster than the period passes: by more than a fifth, from a fifth of the quota on.
    is_ahead: bool,
    exceeded: &'static str,
    warn_percent: Vec<u8>,
    forecast: Option<u64>,
    is_met: bool,
    met_at: Option<String>,
}

/// The forecast of the month.
#[derive(Clone, Debug, Serialize)]
struct MonthForecast {
    basis_hours: usize,
    basis_hours_max: u32,
    commands: MeasureForecast,
    units: MeasureForecast,
}

/// The forecast of a measure.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct MeasureForecast {
    used: u64,
    forecast: Option<u64>,
    least: Option<u64>,
    greatest: Option<u64>,
}

impl OwnUsage {
    /// Sums up the facts.
    pub fn new(facts: OwnUsageFacts) -> Self {
        let (moment, now) = (facts.moment, facts.moment.window());
        let period = |length: PeriodLength| length.containing(now, moment.calendar);
        let today = PeriodRows::of(&facts, period(PeriodLength::Day));
        let month = PeriodRows::of(&facts, period(PeriodLength::Month));
        let forecasts = forecasts_of(&facts);
        let (begins, gaps) = (facts.coverage.begins.clone(), gaps_of_month(&facts));
        let coverage = facts.coverage.clone();
        Self {
            department: facts.department.id.to_string(),
            department_name: facts.department.name.clone(),
            made_at: utc_seconds_text(moment.now),
            valid_for_s: facts.valid_for.as_secs(),
            calendar: moment.calendar.to_string(),
            data: DataReach {
                gateway: coverage.completeness.gateway,
                begins,
                complete_to: coverage.complete_to,
                gaps,
                lost_counts: coverage.completeness.lost_counts,
            },
            days: month.days(&facts),
            refused: refused_usage(&today, &month),
            limits: facts.limits.iter().flat_map(|limit| limit_rows(limit, (&today, &month))).collect(),
            quotas: facts.quotas.iter().map(|quota| quota_row(quota, &facts, &forecasts)).collect(),
            forecast: month_forecast(&facts, &forecasts),
            today: today.usage(&facts),
            month: month.usage(&facts),
            moment,
        }
    }

    /// The page for programs. `certificate_ends` is the end of the certificate that asked.
    pub fn to_json(&self, certificate_ends: Option<Timestamp>) -> String {
        let page = JsonPage { usage: self, certificate: self.certificate(certificate_ends) };
        // A structure of texts and integers has no value that JSON lacks.
        serde_json::to_string_pretty(&page).unwrap_or_default() + "\n"
    }

    fn certificate(&self, ends: Option<Timestamp>) -> Option<OwnCertificateEnd> {
        let ends = ends?;
        let days_left = ends.duration_since(self.moment.now).as_hours() / 24;
        Some(OwnCertificateEnd { ends_at: utc_seconds_text(ends), days_left })
    }
}

#[derive(Serialize)]
struct JsonPage<'a> {
    #[serde(flatten)]
    usage: &'a OwnUsage,
    certificate: Option<OwnCertificateEnd>,
}

/// The end of the certificate that asked.
#[derive(Clone, Debug, Serialize)]
struct OwnCertificateEnd {
    ends_at: String,
    /// Whole days, rounded down; negative once it has ended.
    days_left: i64,
}

/// The rows of a period, by command and outcome.
struct PeriodRows {
    period: CalendarPeriod,
    sums: BTreeMap<(Name, Name, Outcome), (u64, u64)>,
}

impl PeriodRows {
    fn of(facts: &OwnUsageFacts, period: CalendarPeriod) -> Self {
        let windows = period.windows(facts.moment.calendar);
        let mut sums: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for row in facts.rows.iter().filter(|row| windows.contains(&row.window)) {
            let sum = sums.entry((row.subsystem.clone(), row.command.clone(), row.outcome)).or_default();
            *sum = (sum.0.saturating_add(row.totals.commands), sum.1.saturating_add(row.totals.units));
        }
        Self { period, sums }
    }

    fn usage(&self, facts: &OwnUsageFacts) -> PeriodSummary {
        let windows = self.period.windows(facts.moment.calendar);
        let rows = self.sums.iter().map(|((subsystem, command, outcome), (commands, units))| CommandUsage {
            subsystem: subsystem.to_string(),
            command: command.to_string(),
            outcome: outcome.name(),
            blame: outcome.blame().name(),
            commands: *commands,
            units: *units,
        });
        PeriodSummary {
            period: self.period.to_string(),
            from: windows.start.to_string(),
            to: windows.end.to_string(),
            commands: self.sums.values().map(|(commands, _)| commands).sum(),
            refused: self.refused(|_, _| true),
            units: self.sums.values().map(|(_, units)| units).sum(),
            rows: rows.collect(),
        }
    }

    /// The refused commands that `fits` selects by subsystem and command, and outcome.
    fn refused(&self, fits: impl Fn((&Name, &Name), Refused) -> bool) -> u64 {
        let counts = self.sums.iter().filter_map(|((subsystem, command, outcome), (commands, _))| match outcome {
            Outcome::Refused(refused) if fits((subsystem, command), *refused) => Some(commands),
            _ => None,
        });
        counts.sum()
    }

    /// The days of a month, up to the present one.
    fn days(&self, facts: &OwnUsageFacts) -> Vec<DayUsage> {
        let (calendar, now) = (facts.moment.calendar, facts.moment.window());
        let mut day = self.period.windows(calendar).start;
        let mut days = Vec::new();
        while day <= now {
            let period = PeriodLength::Day.containing(day, calendar);
            let PeriodSummary { period: text, commands, refused, units, .. } = Self::of(facts, period).usage(facts);
            days.push(DayUsage { day: text, commands, refused, units });
            day = period.windows(calendar).end;
        }
        days
    }
}

/// The gaps of the month. That before the first start is said by `begins`.
fn gaps_of_month(facts: &OwnUsageFacts) -> Vec<CoverageGap> {
    let month = PeriodLength::Month.containing(facts.moment.window(), facts.moment.calendar);
    let begin = month.windows(facts.moment.calendar).start.start_unix_seconds();
    let seconds = |time: &str| time.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_second);
    let is_shown = |gap: &&CoverageGap| {
        seconds(&gap.to) > begin
            && facts.coverage.begins.as_ref().is_none_or(|begins| seconds(&gap.from) >= seconds(begins))
    };
    facts.coverage.gaps.iter().filter(is_shown).cloned().collect()
}

fn refused_usage(today: &PeriodRows, month: &PeriodRows) -> Vec<RefusedUsage> {
    let of = |refused: Refused| {
        let count = |rows: &PeriodRows| rows.refused(|_, one| one == refused);
        let (today, month) = (count(today), count(month));
        RefusedUsage { outcome: refused.name(), why: why_refused(refused), today, month }
    };
    Refused::ALL.into_iter().map(of).filter(|one| one.month > 0 || one.today > 0).collect()
}

/// What an outcome means for the program of a department, and what helps.
const fn why_refused(refused: Refused) -> &'static str {
    match refused {
        Refused::Malformed => "the request was not HTTP that the gateway accepts: mend the client",
        Refused::Unauthenticated => {
            "the certificate was not accepted: check the department and the end of the certificate"
        }
        Refused::Misdirected => "the host does not belong to the connection: open one for each host",
        Refused::UnknownCommand => "no command has this method and path: check the URL",
        Refused::Forbidden => "the department has no grant for the command: ask the operator for one",
        Refused::RateLimited => "faster than the rate allows: wait for Retry-After, spread the calls",
        Refused::TooManyConcurrent => "too many commands at a time: wait for earlier ones",
        Refused::QuotaExceeded => "the quota of the day or month is used up: wait for its end, or ask for more",
        Refused::Overloaded => "the gateway was busy: try again after Retry-After",
        Refused::LedgerUnavailable => "the gateway could not count: try again after Retry-After",
        Refused::TooLarge => "the request body is larger than the command allows",
    }
}

fn limit_rows(limit: &OwnLimit, (today, month): (&PeriodRows, &PeriodRows)) -> impl Iterator<Item = LimitRow> + use<> {
    let scope = match &limit.scope {
        OwnLimitScope::Department => "department".to_owned(),
        OwnLimitScope::Command(subsystem, command) => format!("{subsystem}/{command}"),
    };
    let fits = |at: (&Name, &Name)| match &limit.scope {
        OwnLimitScope::Department => true,
        OwnLimitScope::Command(subsystem, command) => at == (subsystem, command),
    };
    let row = |name, value: String, refused: Refused| {
        let count = |rows: &PeriodRows| rows.refused(|at, one| one == refused && fits(at));
        let (refused_today, refused_month) = (count(today), count(month));
        LimitRow { scope: scope.clone(), limit: name, value, refused_today, refused_month }
    };
    let rate = limit.limits.rate.map(|rate| {
        let unit = match rate.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "m",
            RateUnit::Hour => "h",
        };
        row("rate", format!("{}/{unit}, burst {}", rate.count, rate.burst), Refused::RateLimited)
    });
    let concurrent = limit.limits.concurrent;
    let concurrent = concurrent.map(|count| row("concurrent", count.to_string(), Refused::TooManyConcurrent));
    rate.into_iter().chain(concurrent)
}

fn forecasts_of(facts: &OwnUsageFacts) -> Vec<Forecast> {
    let now = facts.moment.window();
    let basis = ForecastBasis::of_ledger(&facts.coverage, now);
    let (mut hours, mut used) = (DepartmentHours::new(&basis), PeriodUse::default());
    let [month, day] = [PeriodLength::Month, PeriodLength::Day]
        .map(|length| length.containing(now, facts.moment.calendar).windows(facts.moment.calendar));
    for row in &facts.rows {
        hours.add(row, (now, facts.compacted_before));
        if month.contains(&row.window) {
            used.add(PeriodLength::Month, row);
        }
        if day.contains(&row.window) {
            used.add(PeriodLength::Day, row);
        }
    }
    let department = facts.department.id.clone();
    DepartmentForecast::new(department, (&hours, &basis), (&used, &facts.quotas), facts.moment).forecasts
}

fn quota_row(quota: &Quota, facts: &OwnUsageFacts, forecasts: &[Forecast]) -> QuotaRow {
    let QuotaKind { per, measure } = quota.kind;
    let period = per.containing(facts.moment.window(), facts.moment.calendar);
    let forecast = forecasts.iter().find(|one| (one.period, one.measure) == (period, measure));
    let counted = facts.quotas_used.iter().find(|used| used.kind == quota.kind).map(|used| used.used);
    let used = counted.or_else(|| forecast.map(|one| one.used)).unwrap_or(0);
    let (granted, elapsed_percent) = (quota.amount.get(), elapsed_percent(period, facts.moment));
    let used_percent = used_percent(used, granted);
    QuotaRow {
        per: per.name(),
        period: period.to_string(),
        measure: measure.name(),
        granted,
        used,
        used_percent,
        elapsed_percent,
        is_ahead: used_percent > 20 && used_percent.saturating_mul(10) > elapsed_percent.saturating_mul(12),
        exceeded: match quota.exceeded {
            QuotaAction::Refuse => "refuse",
            QuotaAction::Allow => "allow",
        },
        warn_percent: quota.warn.clone(),
        forecast: forecast.and_then(|one| one.end).map(|end| end.expected),
        is_met: used >= granted,
        met_at: forecast.and_then(|one| one.quota?.met_in).filter(|_| used < granted).map(|window| window.to_string()),
    }
}

/// The passed part of a period in percent, rounded down.
fn elapsed_percent(period: CalendarPeriod, moment: ForecastMoment) -> u64 {
    let windows = period.windows(moment.calendar);
    let (start, end) = (windows.start.start_unix_seconds(), windows.end.start_unix_seconds());
    let elapsed = moment.now.as_second().clamp(start, end).abs_diff(start);
    elapsed * 100 / end.abs_diff(start).max(1)
}

fn month_forecast(facts: &OwnUsageFacts, forecasts: &[Forecast]) -> MonthForecast {
    let of = |measure: &str| {
        let of_month = |one: &&Forecast| one.period.length() == PeriodLength::Month && one.measure.name() == measure;
        let Some(one) = forecasts.iter().find(of_month) else { return MeasureForecast::default() };
        let end = |part: fn(UseRange) -> u64| one.end.map(part);
        MeasureForecast {
            used: one.used,
            forecast: end(|end| end.expected),
            least: end(|end| end.least),
            greatest: end(|end| end.greatest),
        }
    };
    MonthForecast {
        basis_hours: ForecastBasis::of_ledger(&facts.coverage, facts.moment.window()).hours(),
        basis_hours_max: BASIS_HOURS_MAX,
        commands: of("commands"),
        units: of("units"),
    }
}

#[cfg(test)]
mod tests;
