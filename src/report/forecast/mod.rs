//! Forecast of the use of a department at the end of a day or month, and when a quota will be met.
//!
//! A forecast is what is used, and for each hour to come the mean of the same hour of the week over the complete hours
//! of the last four weeks. Its range has the least and the greatest of these hours in place of the mean.
//!
//! Guarantees:
//! - Integers only: the means are summed in millionths and rounded once, half up.
//! - Pure: the same hours give the same forecast.
//! - Refused commands, and reads of the usage page, are in no forecast.
//!
//! Leaves to others: reading the hours (`cli`, `proxy`), the text (`render`).

mod hour_means;
mod render;

use std::ops::Range;

use jiff::Timestamp;

use crate::ledger::audit::LedgerCoverage;
use crate::ledger::{UsageRow, UsageSums};
use crate::model::{
    CalendarOffset, CalendarPeriod, Name, Outcome, PeriodLength, Quota, QuotaAction, QuotaMeasure, Window,
};

use self::hour_means::{HourMeans, MILLION};

pub(crate) use self::render::used_percent;
pub use self::render::{ForecastReport, render_forecast_csv, render_forecast_json, render_forecast_table};

/// The hours of four weeks.
pub const BASIS_HOURS_MAX: u32 = 4 * HOURS_OF_WEEK;
const HOURS_OF_WEEK: u32 = 7 * 24;

/// The hours that forecasts of a ledger stand on: the complete hours of the last four weeks in which a gateway ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForecastBasis {
    windows: Range<Window>,
    /// Whether an hour counts, by its position.
    is_present: Vec<bool>,
}

/// What a department used in each hour of a [`ForecastBasis`], and since then: admitted commands and their units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartmentHours {
    first: Window,
    hours: Vec<UsageSums>,
    /// The use of the present hour, which has not ended.
    present_hour: UsageSums,
}

/// What will be used by the end of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseRange {
    /// With the least of the same hours.
    pub least: u64,
    /// With their means.
    pub expected: u64,
    /// With the greatest of them.
    pub greatest: u64,
}

/// The forecast of one measure of a department for a day or month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The day or month.
    pub period: CalendarPeriod,
    /// What is forecast.
    pub measure: QuotaMeasure,
    /// What is used so far.
    pub used: u64,
    /// What will be used at the end of the period; `None` without any complete hour.
    pub end: Option<UseRange>,
    /// The quota of this measure and period.
    pub quota: Option<QuotaForecast>,
}

/// A quota, and when it will be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaForecast {
    /// Units or commands per period.
    pub granted: u64,
    /// The action beyond it.
    pub exceeded: QuotaAction,
    /// Whether it is used up.
    pub is_met: bool,
    /// The hour in which it will be met before the period ends; `None` if it is met, or will not be.
    pub met_in: Option<Window>,
}

/// The moment of a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForecastMoment {
    /// The time.
    pub now: Timestamp,
    /// The calendar of days and months.
    pub calendar: CalendarOffset,
}

impl ForecastMoment {
    /// The present hour.
    pub fn window(self) -> Window {
        Window::of_unix_seconds(self.now.as_second())
    }
}

impl ForecastBasis {
    /// The hours of `complete` that are within four weeks before `now` and in none of the `gaps`.
    pub fn new(complete: &Range<Window>, gaps: &[Range<Window>], now: Window) -> Self {
        let first = complete.start.max(Window(now.0.saturating_sub(BASIS_HOURS_MAX)));
        let windows = first..complete.end.min(now).max(first);
        let is_in_gap = |window: &Window| gaps.iter().any(|gap| gap.contains(window));
        let is_present = (windows.start.0..windows.end.0).map(|hour| !is_in_gap(&Window(hour))).collect();
        Self { windows, is_present }
    }

    /// The basis that a ledger has. `coverage` is that of the four weeks before `now`.
    pub fn of_ledger(coverage: &LedgerCoverage, now: Window) -> Self {
        let gaps = coverage.gaps.iter().map(|gap| hour_of(&gap.from, false)..hour_of(&gap.to, true));
        let begin = coverage.begins.as_deref().map_or(Window(u32::MAX), |begin| hour_of(begin, true));
        let end = coverage.complete_to.as_deref().map_or(begin, |end| hour_of(end, false));
        Self::new(&(begin..end), &gaps.collect::<Vec<_>>(), now)
    }

    /// The four weeks before a moment.
    pub fn weeks_before(now: Window) -> Range<Window> {
        Window(now.0.saturating_sub(BASIS_HOURS_MAX))..now
    }

    /// The hours to read.
    pub fn windows(&self) -> Range<Window> {
        self.windows.clone()
    }

    /// The number of hours that count.
    pub fn hours(&self) -> usize {
        self.is_present.iter().filter(|present| **present).count()
    }
}

impl DepartmentHours {
    /// No use.
    pub fn new(basis: &ForecastBasis) -> Self {
        let (first, hours) = (basis.windows.start, vec![UsageSums::default(); basis.is_present.len()]);
        Self { first, hours, present_hour: UsageSums::default() }
    }

    /// Adds a row of usage by hour. `compacted_before` is the horizon: the rows of earlier hours are those of days, and
    /// are spread evenly over the hours of their day.
    pub fn add(&mut self, row: &UsageRow, (now, compacted_before): (Window, Window)) {
        if !counts_for_quotas(row) {
            return;
        }
        let sums = UsageSums { commands: row.totals.commands, units: row.totals.units };
        if row.window == now {
            self.present_hour.add(sums);
        } else if row.window < compacted_before {
            (0..24).for_each(|hour| self.add_to(Window(row.window.0.saturating_add(hour)), share_of_day(sums, hour)));
        } else {
            self.add_to(row.window, sums);
        }
    }

    fn add_to(&mut self, window: Window, sums: UsageSums) {
        let position = window.0.checked_sub(self.first.0).and_then(|position| usize::try_from(position).ok());
        if let Some(hour) = position.and_then(|position| self.hours.get_mut(position)) {
            hour.add(sums);
        }
    }

    /// The forecast of one measure. `used` is what is used in the period so far, the present hour included.
    pub fn forecast(
        &self,
        basis: &ForecastBasis,
        (period, moment): (CalendarPeriod, ForecastMoment),
        (measure, used): (QuotaMeasure, u64),
        quotas: &[Quota],
    ) -> Forecast {
        let of = |sums: &UsageSums| match measure {
            QuotaMeasure::Units => sums.units,
            QuotaMeasure::Commands => sums.commands,
        };
        let present = self.hours.iter().zip(&basis.is_present).zip(self.first.0..);
        let means = HourMeans::of(
            present.filter(|((_, is_present), _)| **is_present).map(|((sums, _), hour)| (Window(hour), of(sums))),
        );
        let to_come = HoursToCome {
            means: &means,
            windows: moment.window()..period.windows(moment.calendar).end,
            used,
            in_present_hour: of(&self.present_hour),
        };
        let quota = quotas.iter().find(|quota| quota.kind.measure == measure && quota.kind.per == period.length());
        let quota = quota.map(|quota| {
            let (granted, is_met) = (quota.amount.get(), used >= quota.amount.get());
            let met_in = if is_met { None } else { to_come.hour_that_reaches(granted) };
            QuotaForecast { granted, exceeded: quota.exceeded, is_met, met_in }
        });
        Forecast { period, measure, used, end: to_come.end(), quota }
    }
}

/// The hour of a time in a coverage; the next one if it is not whole and `is_rounded_up`. A time that cannot be read is
/// that of the oldest hour.
fn hour_of(time: &str, is_rounded_up: bool) -> Window {
    let seconds = time.parse::<Timestamp>().map_or(0, Timestamp::as_second);
    let window = Window::of_unix_seconds(seconds);
    if is_rounded_up && window.start_unix_seconds() < seconds { window.next() } else { window }
}

/// The share that the hour of this number has in the use of a day. All shares together are the use.
fn share_of_day(sums: UsageSums, hour: u32) -> UsageSums {
    let share = |number: u64| number / 24 + u64::from(u64::from(hour) < number % 24);
    UsageSums { commands: share(sums.commands), units: share(sums.units) }
}

/// The rest of a period: the present hour and those after it.
struct HoursToCome<'a> {
    means: &'a HourMeans,
    windows: Range<Window>,
    used: u64,
    in_present_hour: u64,
}

impl HoursToCome<'_> {
    /// The use at the end of the period; `None` if nothing is known of any hour.
    fn end(&self) -> Option<UseRange> {
        let (mut least, mut expected, mut greatest) = (0_u128, 0_u128, 0_u128);
        for window in self.hours() {
            let same = self.means.same_hour(window)?;
            // What the present hour has used already is a part of `used`.
            let had = u128::from(if window == self.windows.start { self.in_present_hour } else { 0 });
            least += u128::from(same.least).saturating_sub(had);
            expected += same.mean_millionths().saturating_sub(had * MILLION);
            greatest += u128::from(same.greatest).saturating_sub(had);
        }
        let total = |more: u128| u64::try_from(u128::from(self.used) + more).unwrap_or(u64::MAX);
        let expected = total((expected + MILLION / 2) / MILLION);
        Some(UseRange { least: total(least), expected, greatest: total(greatest) })
    }

    /// The hour in which the use reaches `granted`.
    fn hour_that_reaches(&self, granted: u64) -> Option<Window> {
        let mut left = u128::from(granted.saturating_sub(self.used)) * MILLION;
        for window in self.hours() {
            let had = u128::from(if window == self.windows.start { self.in_present_hour } else { 0 }) * MILLION;
            let more = self.means.same_hour(window)?.mean_millionths().saturating_sub(had);
            if more >= left {
                return Some(window);
            }
            left -= more;
        }
        None
    }

    fn hours(&self) -> impl Iterator<Item = Window> + use<> {
        (self.windows.start.0..self.windows.end.0).map(Window)
    }
}

/// Whether quotas count a row: commands that were admitted, and are not the gateway's own.
fn counts_for_quotas(row: &UsageRow) -> bool {
    matches!(row.outcome, Outcome::Finished(_)) && !row.subsystem.is_gateway()
}

/// What a department has used in the present month and day, refused commands left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeriodUse {
    month: UsageSums,
    day: UsageSums,
}

impl PeriodUse {
    /// Adds a row of the present month or day.
    pub fn add(&mut self, length: PeriodLength, row: &UsageRow) {
        let sums = match length {
            PeriodLength::Month => &mut self.month,
            PeriodLength::Day => &mut self.day,
        };
        if counts_for_quotas(row) {
            sums.add(UsageSums { commands: row.totals.commands, units: row.totals.units });
        }
    }

    fn of(&self, length: PeriodLength, measure: QuotaMeasure) -> u64 {
        let sums = match length {
            PeriodLength::Month => self.month,
            PeriodLength::Day => self.day,
        };
        match measure {
            QuotaMeasure::Units => sums.units,
            QuotaMeasure::Commands => sums.commands,
        }
    }
}

/// The forecasts of one department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartmentForecast {
    /// The department.
    pub department: Name,
    /// Of the month: commands and units; of the day: what a quota counts.
    pub forecasts: Vec<Forecast>,
}

impl DepartmentForecast {
    /// Forecasts the month, and the day as far as a quota counts it.
    pub fn new(
        department: Name,
        (hours, basis): (&DepartmentHours, &ForecastBasis),
        (used, quotas): (&PeriodUse, &[Quota]),
        moment: ForecastMoment,
    ) -> Self {
        let mut forecasts = Vec::new();
        for length in [PeriodLength::Month, PeriodLength::Day] {
            let period = length.containing(moment.window(), moment.calendar);
            for measure in [QuotaMeasure::Commands, QuotaMeasure::Units] {
                let has_quota = quotas.iter().any(|quota| (quota.kind.per, quota.kind.measure) == (length, measure));
                if length == PeriodLength::Month || has_quota {
                    let used = (measure, used.of(length, measure));
                    forecasts.push(hours.forecast(basis, (period, moment), used, quotas));
                }
            }
        }
        Self { department, forecasts }
    }
}

#[cfg(test)]
mod tests;
