//! The comparison: differences by department and day, causes, and the rest.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range, Sub};

use jiff::civil::Date;
use serde::Serialize;

use crate::ledger::{AdjustmentRow, UsageSums};
use crate::model::{CalendarOffset, Name, Window};
use crate::report::ReportRange;

use super::hour_cause::HourCause;
use super::subsystem_comparison::SubsystemComparison;

/// The most values that differ which are listed; of further ones only the number.
const DIFFERING_MAX: usize = 100;

/// Commands and units by department and subsystem.
pub type UsageTable<'a> = BTreeMap<(&'a str, &'a str), UsageSums>;

/// Commands and units, or a difference of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SignedUsage {
    /// The commands.
    pub commands: i128,
    /// Their units.
    pub units: i128,
}

impl From<UsageSums> for SignedUsage {
    fn from(sums: UsageSums) -> Self {
        Self { commands: sums.commands.into(), units: sums.units.into() }
    }
}

impl AddAssign for SignedUsage {
    fn add_assign(&mut self, more: Self) {
        self.commands += more.commands;
        self.units += more.units;
    }
}

impl Sub for SignedUsage {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self { commands: self.commands - less.commands, units: self.units - less.units }
    }
}

impl SignedUsage {
    /// Whether both are 0.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Whether neither is more than 0.
    fn is_at_most_zero(self) -> bool {
        self.commands <= 0 && self.units <= 0
    }
}

/// Both sides of an hour, or of a day of which the ledger has only the sum.
#[derive(Debug)]
pub struct SpanFacts<'a> {
    /// The hour, or the hours of the day.
    pub windows: Range<Window>,
    /// The usage according to the ledger.
    pub ledger: UsageTable<'a>,
    /// The usage according to the Prometheus, of the samples that can be used.
    pub scraped: UsageTable<'a>,
    /// The hours that are not simply there, each with the cause.
    pub causes: BTreeMap<Window, HourCause>,
    /// Whether its series contradict each other, and none of them is that of the ledger.
    pub is_contradictory: bool,
}

/// The part of a difference that a cause explains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseShare {
    /// The hours, in their order.
    pub windows: Vec<Window>,
    /// Prometheus - ledger.
    pub difference: SignedUsage,
}

/// A department's day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayReconciliation {
    /// The usage according to the ledger.
    pub ledger: SignedUsage,
    /// The usage according to the Prometheus.
    pub scraped: SignedUsage,
    /// What is explained.
    pub causes: BTreeMap<HourCause, CauseShare>,
    /// What is not explained. It can be 0 although values differ: `differing`.
    pub rest: SignedUsage,
    /// The values that differ and have no cause.
    pub differing: u64,
}

impl DayReconciliation {
    /// Prometheus - ledger.
    pub fn difference(&self) -> SignedUsage {
        self.scraped - self.ledger
    }
}

/// The hours of a cause, and what they explain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseHours {
    /// The hours, in their order; also those without usage.
    pub windows: Vec<Window>,
    /// Prometheus - ledger.
    pub difference: SignedUsage,
}

/// A value that differs from the ledger and has no cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferingValue {
    /// The hour, or the first hour of a day of which the ledger has only the sum.
    #[serde(serialize_with = "as_text")]
    pub hour: Window,
    /// The department.
    pub department: String,
    /// The subsystem.
    pub subsystem: String,
    /// The usage according to the ledger.
    pub ledger: SignedUsage,
    /// The usage according to the Prometheus.
    pub prometheus: SignedUsage,
}

fn as_text<S: serde::Serializer>(window: &Window, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(window)
}

/// The usage of a ledger and of a Prometheus, compared.
#[derive(Clone, Debug)]
pub struct UsageReconciliation {
    /// The period.
    pub range: ReportRange,
    /// The calendar of the days.
    pub calendar: CalendarOffset,
    /// The departments; empty for all.
    departments: Vec<Name>,
    /// By department and day; of those with usage.
    pub days: BTreeMap<(String, Date), DayReconciliation>,
    /// The hours that are not simply there.
    pub causes: BTreeMap<HourCause, CauseHours>,
    /// The hours that were compared.
    pub hours: u64,
    /// Of those, the hours in which both sides are equal.
    pub equal_hours: u64,
    /// Whether the period is over.
    pub is_over: bool,
    /// The hours whose series contradict each other, and none of them is that of the ledger.
    pub contradictory: Vec<Window>,
    /// Values that differ and have no cause: the first hundred.
    pub differing: Vec<DifferingValue>,
    /// The number of further ones.
    pub more_differing: u64,
    /// Corrections whose period lies in the range. Neither side contains them.
    pub corrections: Vec<AdjustmentRow>,
    /// The comparison with the counts of subsystems, if there are any.
    pub subsystems: Option<SubsystemComparison>,
}

impl UsageReconciliation {
    /// A comparison of nothing yet. `now` is the present hour.
    pub fn new(range: ReportRange, calendar: CalendarOffset, departments: Vec<Name>, now: Window) -> Self {
        let is_over = range.to <= now;
        Self {
            range,
            calendar,
            departments,
            days: BTreeMap::new(),
            causes: BTreeMap::new(),
            hours: 0,
            equal_hours: 0,
            is_over,
            contradictory: Vec::new(),
            differing: Vec::new(),
            more_differing: 0,
            corrections: Vec::new(),
            subsystems: None,
        }
    }

    /// Whether the report has a department.
    pub fn selects(&self, department: &str) -> bool {
        self.departments.is_empty() || self.departments.iter().any(|name| name.as_str() == department)
    }

    /// Whether every hour of the period is sealed, so that no number can change any more.
    pub fn is_complete(&self) -> bool {
        self.is_over && !self.causes.contains_key(&HourCause::NotFinal)
    }

    /// Whether nothing is unexplained.
    pub fn is_explained(&self) -> bool {
        self.differing.is_empty()
            && self.contradictory.is_empty()
            && self.subsystems.as_ref().is_none_or(SubsystemComparison::is_explained)
    }

    /// The sums of all days.
    pub fn total(&self) -> DayReconciliation {
        let mut total = DayReconciliation::default();
        for day in self.days.values() {
            total.ledger += day.ledger;
            total.scraped += day.scraped;
            total.rest += day.rest;
            total.differing += day.differing;
        }
        total.causes = self
            .causes
            .iter()
            .map(|(cause, hours)| (*cause, CauseShare { windows: hours.windows.clone(), difference: hours.difference }))
            .collect();
        total
    }

    /// Compares both sides of an hour, or of a day.
    pub fn add(&mut self, span: &SpanFacts<'_>) {
        let hours = u64::from(span.windows.end.0 - span.windows.start.0);
        self.hours += hours;
        for (window, cause) in &span.causes {
            self.causes.entry(*cause).or_default().windows.push(*window);
        }
        if span.is_contradictory {
            self.contradictory.push(span.windows.start);
        }
        let (mut shares, mut differing) = (BTreeMap::<&str, SpanShare>::new(), Vec::new());
        let only_scraped = span.scraped.keys().filter(|key| !span.ledger.contains_key(*key));
        for labels in span.ledger.keys().chain(only_scraped).filter(|(department, _)| self.selects(department)) {
            let share = shares.entry(labels.0).or_default();
            differing.extend(share.compare(span, *labels));
        }
        differing.into_iter().for_each(|value| self.add_differing(value));
        if !span.is_contradictory && shares.values().all(|share| share.differing == 0) {
            self.equal_hours += hours - span.causes.len() as u64;
        }
        for (department, share) in shares.into_iter().filter(|(_, share)| !share.is_empty()) {
            self.add_share(department, &share, span);
        }
    }

    fn add_differing(&mut self, value: DifferingValue) {
        match self.differing.len() {
            DIFFERING_MAX => self.more_differing += 1,
            _ => self.differing.push(value),
        }
    }

    fn add_share(&mut self, department: &str, share: &SpanShare, span: &SpanFacts<'_>) {
        let date = self.calendar.date_of(span.windows.start);
        let day = self.days.entry((department.to_owned(), date)).or_default();
        day.ledger += share.ledger;
        day.scraped += share.scraped;
        day.rest += share.rest;
        day.differing += share.differing;
        if let Some(cause) = span.cause().filter(|_| share.is_explained) {
            let of_day = day.causes.entry(cause).or_default();
            of_day.difference += share.explained;
            of_day.windows.extend(span.causes.keys());
            self.causes.entry(cause).or_default().difference += share.explained;
        }
    }
}

impl SpanFacts<'_> {
    /// The first of its causes.
    fn cause(&self) -> Option<HourCause> {
        self.causes.values().min().copied()
    }
}

/// A department's part of a span.
#[derive(Debug, Default)]
struct SpanShare {
    ledger: SignedUsage,
    scraped: SignedUsage,
    explained: SignedUsage,
    /// Whether a subsystem differs, and the cause explains it.
    is_explained: bool,
    rest: SignedUsage,
    differing: u64,
}

impl SpanShare {
    fn is_empty(&self) -> bool {
        self.ledger.is_zero() && self.scraped.is_zero()
    }

    /// Adds a subsystem. Returns its value, if it differs and has no cause.
    fn compare(&mut self, span: &SpanFacts<'_>, (department, subsystem): (&str, &str)) -> Option<DifferingValue> {
        let of = |table: &UsageTable<'_>| table.get(&(department, subsystem)).copied().unwrap_or_default().into();
        let (ledger, scraped): (SignedUsage, SignedUsage) = (of(&span.ledger), of(&span.scraped));
        self.ledger += ledger;
        self.scraped += scraped;
        let difference = scraped - ledger;
        if difference.is_zero() {
            return None;
        }
        let explains = |cause: &HourCause| *cause == HourCause::SeveralSources || difference.is_at_most_zero();
        if span.cause().filter(explains).is_some() {
            self.explained += difference;
            self.is_explained = true;
            return None;
        }
        self.rest += difference;
        self.differing += 1;
        let (department, subsystem) = (department.to_owned(), subsystem.to_owned());
        Some(DifferingValue { hour: span.windows.start, department, subsystem, ledger, prometheus: scraped })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const DAY: u32 = 20_731 * 24 - 8; // 2026-10-05 in +08:00

    fn sums(commands: u64, units: u64) -> UsageSums {
        UsageSums { commands, units }
    }

    fn table<'a>(rows: &[(&'a str, u64)]) -> UsageTable<'a> {
        rows.iter().map(|(department, commands)| ((*department, "cameras"), sums(*commands, 2 * commands))).collect()
    }

    fn span<'a>(
        hour: u32,
        ledger: &[(&'a str, u64)],
        scraped: &[(&'a str, u64)],
        cause: Option<HourCause>,
    ) -> SpanFacts<'a> {
        let windows = Window(DAY + hour)..Window(DAY + hour + 1);
        let causes = cause.map(|cause| (windows.start, cause)).into_iter().collect();
        SpanFacts { windows, ledger: table(ledger), scraped: table(scraped), causes, is_contradictory: false }
    }

    pub(crate) fn reconciliation(departments: &[&str]) -> UsageReconciliation {
        let range = ReportRange { from: Window(DAY), to: Window(DAY + 48) };
        let departments = departments.iter().map(|id| Name::parse(id).expect("a name")).collect();
        UsageReconciliation::new(range, CalendarOffset::default(), departments, Window(DAY + 100))
    }

    /// Two days with equal hours, missing hours, and hours that differ.
    pub(crate) fn two_days() -> UsageReconciliation {
        let mut both = reconciliation(&[]);
        both.add(&span(0, &[("fire", 1), ("parking", 5)], &[("fire", 1), ("parking", 5)], None));
        both.add(&span(1, &[("parking", 7)], &[], Some(HourCause::GatewayUnreachable)));
        both.add(&span(2, &[("parking", 9)], &[], Some(HourCause::GatewayUnreachable)));
        both.add(&span(3, &[], &[], Some(HourCause::ServerDown)));
        both.add(&span(24, &[("fire", 3)], &[("fire", 1003)], Some(HourCause::SeveralSources)));
        both.add(&span(25, &[("fire", 3), ("parking", 4)], &[("fire", 2), ("parking", 5)], None));
        both
    }

    fn text(both: &UsageReconciliation) -> Vec<String> {
        let day = |((department, date), day): (&(String, Date), &DayReconciliation)| {
            let causes = day.causes.iter();
            let causes: Vec<_> = causes
                .map(|(cause, share)| format!("{} {}x{}", cause.name(), share.difference.commands, share.windows.len()))
                .collect();
            let (ledger, scraped, rest) = (day.ledger.commands, day.scraped.commands, day.rest.commands);
            format!("{department} {date}: {ledger} {scraped} [{}] {rest}", causes.join(", "))
        };
        both.days.iter().map(day).collect()
    }

    #[test]
    fn difference_is_the_sum_of_its_causes_and_the_rest() {
        let both = two_days();
        assert_eq!(
            text(&both),
            [
                "fire 2026-10-05: 1 1 [] 0",
                "fire 2026-10-06: 6 1005 [several_sources 1000x1] -1",
                "parking 2026-10-05: 21 5 [gateway_unreachable -16x2] 0",
                "parking 2026-10-06: 4 5 [] 1",
            ]
        );
        for day in both.days.values() {
            let mut explained = day.rest;
            day.causes.values().for_each(|share| explained += share.difference);
            assert_eq!(explained, day.difference());
        }
        let total = both.total();
        assert_eq!((total.ledger.units, total.scraped.units, total.rest.units), (64, 2032, 0), "the rests cancel out");
        assert!(!both.is_explained() && both.is_complete());
        assert_eq!((both.hours, both.equal_hours, both.differing.len()), (6, 1, 2));
        let hours: Vec<_> = both.causes.iter().map(|(cause, hours)| (cause.name(), hours.windows.len())).collect();
        assert_eq!(hours, [("prometheus_down", 1), ("gateway_unreachable", 2), ("several_sources", 1)]);
    }

    #[test]
    fn missing_hour_explains_less_and_never_more() {
        let mut both = reconciliation(&[]);
        // One of two gateways is missing, and the other has more than both ledgers.
        both.add(&span(0, &[("parking", 5)], &[("parking", 4)], Some(HourCause::ServerDown)));
        assert!(both.is_explained());
        both.add(&span(1, &[("parking", 5)], &[("parking", 6)], Some(HourCause::ServerDown)));
        assert_eq!(text(&both), ["parking 2026-10-05: 10 10 [prometheus_down -1x1] 1"]);
        assert!(!both.is_explained());
    }

    #[test]
    fn subsystems_are_compared_apart_and_departments_are_chosen() {
        let mut both = reconciliation(&["parking"]);
        let mut swapped = span(0, &[("fire", 1)], &[("fire", 2)], None);
        swapped.ledger.insert(("parking", "cameras"), sums(1, 1));
        swapped.scraped.insert(("parking", "gates"), sums(1, 1));
        both.add(&swapped);
        assert_eq!(text(&both), ["parking 2026-10-05: 1 1 [] 0"]);
        assert_eq!((both.differing.len(), both.is_explained(), both.equal_hours), (2, false, 0));
    }

    #[test]
    fn open_hours_and_periods_are_not_complete() {
        let mut both = reconciliation(&[]);
        both.add(&span(0, &[("parking", 5)], &[], Some(HourCause::NotFinal)));
        assert!(both.is_explained() && !both.is_complete());
        let early = UsageReconciliation::new(both.range.clone(), both.calendar, Vec::new(), Window(DAY + 47));
        assert!(!early.is_complete());
    }

    #[test]
    fn long_list_of_differing_values_is_cut_off() {
        let mut both = reconciliation(&[]);
        for hour in 0..48 {
            both.add(&span(hour, &[("a", 1), ("b", 1), ("c", 1)], &[], None));
        }
        assert_eq!((both.differing.len() as u64, both.more_differing), (100, 44));
        assert_eq!(both.total().rest, SignedUsage { commands: -144, units: -288 });
    }
}
