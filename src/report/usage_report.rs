//! Groups usage rows into a report: pure, exact, ordered.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ledger::audit::{LedgerCoverage, PeriodState};
use crate::ledger::{Adjustment, AdjustmentRow, Measures, UsageRow};
use crate::model::{CalendarOffset, Month, Window};

use super::ReportRange;
use super::grouping::{GroupKey, GroupKeys, namespace_of};
use super::measure_columns::{ChosenMeasures, MeasureColumns};
use super::report_query::{LedgerFacts, ReportCoverage, ReportQuery};

/// Length of the month prefix of a correction's period. The period of a day starts with its month as well.
const MONTH_LENGTH: usize = "YYYY-MM".len();

/// A sum exceeded 64 bits. Only centuries of use would reach that, so the ledger must be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sums of this range do not fit 64 bits; the ledger is damaged, so no result is shown")]
pub struct SumOverflow;

/// One row of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// The values of the group keys, in their order.
    pub keys: Vec<String>,
    /// The sums of the row.
    pub totals: Measures,
}

/// A correction of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportAdjustment {
    /// The correction. Its number is that of its ledger.
    #[serde(flatten)]
    pub row: AdjustmentRow,
    /// The path of its ledger; `None` if the report is of one ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
}

/// A ledger of a report, and how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportLedger {
    /// The path, as given or found.
    pub path: String,
    /// How far it reaches.
    #[serde(flatten)]
    pub coverage: LedgerCoverage,
}

impl ReportLedger {
    /// Whether counts of the range may be missing: no gateway ran for a part of it, or an epoch lost counts.
    pub fn has_gaps(&self) -> bool {
        !self.coverage.gaps.is_empty() || !self.coverage.completeness.lost_counts.is_empty()
    }
}

/// Sums of rows by the values of their keys.
#[derive(Debug, Default)]
pub(crate) struct GroupSums {
    groups: BTreeMap<Vec<String>, Measures>,
    total: Measures,
}

impl GroupSums {
    /// Adds a row to its group and to the total.
    pub(crate) fn add(&mut self, row: &UsageRow, calendar: CalendarOffset, by: &GroupKeys) -> Result<(), SumOverflow> {
        let keys = by.keys().iter().map(|key| key.value_of(row, calendar)).collect();
        self.add_to_group(keys, &row.totals)
    }

    /// Adds measures to the group with these values of its keys, and to the total.
    pub(crate) fn add_to_group(&mut self, keys: Vec<String>, totals: &Measures) -> Result<(), SumOverflow> {
        let sum = self.groups.entry(keys).or_default();
        *sum = sum.checked_add(totals).ok_or(SumOverflow)?;
        self.total = self.total.checked_add(totals).ok_or(SumOverflow)?;
        Ok(())
    }

    /// The rows, sorted by their keys, and the sum of all rows.
    pub(crate) fn into_rows(self) -> (Vec<ReportRow>, Measures) {
        (self.groups.into_iter().map(|(keys, totals)| ReportRow { keys, totals }).collect(), self.total)
    }
}

/// The usage of a range, grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReport {
    /// The range that the report covers.
    pub range: ReportRange,
    /// The calendar of the days and months.
    pub calendar: CalendarOffset,
    /// The group keys.
    pub group_by: GroupKeys,
    /// The rows, sorted by their keys.
    pub rows: Vec<ReportRow>,
    /// The sum of all rows.
    pub total: Measures,
    /// Corrections whose period lies in the range. No row and no sum includes them.
    pub adjustments: Vec<ReportAdjustment>,
    /// The number of corrections whose period lies only partly in the range.
    pub partial_adjustments: usize,
    /// The display names of departments, by id. An id without a name is shown as it is.
    pub names: BTreeMap<String, String>,
    /// The coverage of the period according to the ledger; `None` if the rows are not from a ledger, or if only chosen
    /// measures are shown.
    pub coverage: Option<ReportCoverage>,
    /// The choice of a report that shows chosen measures only; `None` if it shows all that is known.
    pub chosen: Option<ChosenMeasures>,
    /// The ledgers that were added up, in their order, each with its coverage. Empty for the gateway's own ledger.
    pub ledgers: Vec<ReportLedger>,
}

impl UsageReport {
    /// Groups the ledger's rows of `range`.
    pub fn group(
        rows: &[UsageRow],
        range: ReportRange,
        calendar: CalendarOffset,
        by: GroupKeys,
    ) -> Result<Self, SumOverflow> {
        let mut sums = GroupSums::default();
        rows.iter().try_for_each(|row| sums.add(row, calendar, &by))?;
        let (rows, total) = sums.into_rows();
        Ok(Self {
            range,
            calendar,
            group_by: by,
            rows,
            total,
            adjustments: Vec::new(),
            partial_adjustments: 0,
            names: BTreeMap::new(),
            coverage: None,
            chosen: None,
            ledgers: Vec::new(),
        })
    }

    /// The same report with chosen measures only, and nothing that only a ledger knows.
    pub fn limited_to(self, columns: MeasureColumns, state: PeriodState) -> Self {
        Self {
            adjustments: Vec::new(),
            partial_adjustments: 0,
            names: BTreeMap::new(),
            coverage: None,
            chosen: Some(ChosenMeasures { columns, state }),
            ledgers: Vec::new(),
            ..self
        }
    }

    /// The measures that are shown.
    pub(crate) fn shown_measures(&self) -> MeasureColumns {
        self.chosen.map_or(MeasureColumns::ALL, |chosen| chosen.columns)
    }

    /// Builds the report of a query from the ledger data of its range.
    pub fn from_facts(query: ReportQuery, facts: LedgerFacts) -> Result<Self, SumOverflow> {
        let LedgerFacts { mut rows, calendar, mut adjustments, names, coverage } = facts;
        rows.retain(|row| query.selects(row.department.as_str()));
        adjustments.retain(|row| query.selects(&row.adjustment.department));
        let adjustments = adjustments.into_iter().map(|row| ReportAdjustment { row, ledger: None }).collect();
        let usage = Self::group(&rows, query.range, calendar, query.group_by)?.with_adjustments(adjustments);
        Ok(Self { names, coverage: Some(coverage), ..usage })
    }

    /// The display name of a department.
    pub fn department_name<'a>(&'a self, department: &'a str) -> &'a str {
        self.names.get(department).map_or(department, String::as_str)
    }

    /// The department id of a row, if the report is grouped by department.
    pub(crate) fn department_of<'a>(&self, keys: &'a [String]) -> Option<&'a str> {
        let position = self.group_by.keys().iter().position(|key| *key == GroupKey::Department)?;
        keys.get(position).map(String::as_str)
    }

    /// Net units of the whole report: usage plus corrections.
    pub fn net_units(&self) -> i128 {
        i128::from(self.total.units)
            + self.adjustments.iter().map(|one| i128::from(one.row.adjustment.units)).sum::<i128>()
    }

    /// Adds the corrections whose whole period lies in the range. Counts those whose period lies in it only partly.
    pub fn with_adjustments(mut self, adjustments: Vec<ReportAdjustment>) -> Self {
        for one in adjustments {
            match AdjustmentPlace::of(&one.row, &self.range, self.calendar) {
                AdjustmentPlace::Inside => self.adjustments.push(one),
                AdjustmentPlace::Cut => self.partial_adjustments += 1,
                AdjustmentPlace::Outside => {}
            }
        }
        self
    }

    /// The value of a key for a correction. Empty if the correction applies to all values of the key.
    pub(crate) fn adjustment_key(key: GroupKey, row: &Adjustment<String>) -> &str {
        match key {
            GroupKey::Department => &row.department,
            GroupKey::Namespace => namespace_of(row.subsystem.as_deref().unwrap_or_default()),
            GroupKey::Subsystem => row.subsystem.as_deref().unwrap_or_default(),
            GroupKey::Command => row.command.as_deref().unwrap_or_default(),
            GroupKey::Outcome | GroupKey::Blame | GroupKey::Hour => "",
            GroupKey::Month => row.period.get(..MONTH_LENGTH).unwrap_or_default(),
            GroupKey::Day => {
                if Month::parse(&row.period).is_some() {
                    ""
                } else {
                    &row.period
                }
            }
        }
    }

    /// The names of all columns: keys, then numbers.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.group_by.keys().iter().map(|key| key.name()).chain(self.shown_measures().names())
    }
}

/// Where the period of a correction lies relative to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdjustmentPlace {
    /// The whole period lies in the range.
    Inside,
    /// A part of the period lies in the range.
    Cut,
    /// No part of the period lies in the range.
    Outside,
}

impl AdjustmentPlace {
    pub(crate) fn of(row: &AdjustmentRow, range: &ReportRange, calendar: CalendarOffset) -> Self {
        let range = range.windows();
        let touches = |period: &std::ops::Range<Window>| period.start < range.end && range.start < period.end;
        match row.adjustment.windows(calendar).filter(touches) {
            Some(period) if range.start <= period.start && period.end <= range.end => Self::Inside,
            Some(_) => Self::Cut,
            None => Self::Outside,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ledger::audit::{CoverageGap, LostCounts, PeriodCompleteness};
    use crate::model::{Finished, Name, Outcome, Refused};
    use crate::report::BadGroupKey;
    use crate::report::ReportResolution;

    pub(crate) fn row(department: &str, window: u32, outcome: Outcome, commands: u64) -> UsageRow {
        let name = |text| Name::parse(text).expect("a name");
        UsageRow {
            window: Window(window),
            department: name(department),
            subsystem: name("cameras"),
            command: name("snapshot.submit"),
            outcome,
            totals: Measures {
                commands,
                units: 2 * commands,
                request_bytes: 1000 * commands,
                response_bytes: 10 * commands,
                duration_ns: 1_000_000 * commands,
            },
        }
    }

    fn rows() -> Vec<UsageRow> {
        const DAY_END: u32 = 20_454 * 24 + 15; // 2026-01-01T15:00:00Z is 23:00 in +08:00
        let ok = Outcome::Finished(Finished::Ok);
        vec![
            row("police", DAY_END, ok, 1),
            row("police", DAY_END + 1, ok, 2),
            row("parking", DAY_END, ok, 4),
            row("parking", DAY_END, Outcome::Refused(Refused::Forbidden), 8),
        ]
    }

    pub(crate) fn usage(by: &str) -> UsageReport {
        let range = ReportRange { from: Window(0), to: Window(500_000) };
        UsageReport::group(&rows(), range, CalendarOffset::default(), GroupKeys::parse(by).expect("keys"))
            .expect("it fits")
    }

    #[test]
    fn rows_are_grouped_exactly_and_ordered() {
        for (by, expected) in [
            ("department", "parking=12 police=3"),
            ("outcome", "forbidden=8 ok=7"),
            ("day", "2026-01-01=13 2026-01-02=2"),
            ("month", "2026-01=15"),
            ("hour", "2026-01-01T15:00:00Z=13 2026-01-01T16:00:00Z=2"),
            ("blame", "caller=8 none=7"),
            ("day,department", "2026-01-01/parking=12 2026-01-01/police=1 2026-01-02/police=2"),
            ("subsystem,command", "cameras/snapshot.submit=15"),
        ] {
            let usage = usage(by);
            let lines = usage.rows.iter().map(|row| format!("{}={}", row.keys.join("/"), row.totals.commands));
            assert_eq!(lines.collect::<Vec<_>>().join(" "), expected);
            assert_eq!(usage.total.as_array(), [15, 30, 15_000, 150, 15_000_000]);
        }
    }

    #[test]
    fn sum_over_64_bits_is_an_error_and_does_not_wrap() {
        let ok = Outcome::Finished(Finished::Ok);
        let mut rows = vec![row("a", 1, ok, 1), row("b", 1, ok, 1)];
        rows[0].totals.duration_ns = u64::MAX;
        let range = ReportRange { from: Window(0), to: Window(2) };
        assert_eq!(UsageReport::group(&rows, range, CalendarOffset::default(), GroupKeys::default()), Err(SumOverflow));
    }

    pub(crate) fn adjustment(period: &str, units: i64) -> AdjustmentRow {
        AdjustmentRow {
            number: 1,
            adjustment: Adjustment {
                department: "police".to_owned(),
                subsystem: None,
                command: None,
                period: period.to_owned(),
                units,
                reason: "a test of the new cameras".to_owned(),
                who: "finance".to_owned(),
            },
            made_at: "2026-11-24T03:10:00Z".to_owned(),
        }
    }

    pub(crate) fn correction(period: &str, units: i64) -> ReportAdjustment {
        ReportAdjustment { row: adjustment(period, units), ledger: None }
    }

    #[test]
    fn adjustments_are_shown_if_their_whole_period_is_in_range() {
        let calendar = CalendarOffset::default();
        let all = ["2026-10", "2026-10-01", "2026-10-31", "2026-11-01", "2026-09-30"];
        for (from, to, expected, cut) in [
            ("2026-10-01", "2026-11-01", &all[..3], 0),
            ("2026-10-01", "2026-10-31", &all[1..2], 1),
            ("2026-10-01T00:00:00Z", "2026-11-02", &all[2..4], 2), // eight hours after the start of the day
        ] {
            let range = ReportRange::parse(Some(from), Some(to), calendar, Window(0)).expect("a range");
            let usage = UsageReport::group(&[], range, calendar, GroupKeys::default()).expect("it fits");
            let usage = usage.with_adjustments(all.iter().map(|period| correction(period, -5)).collect());
            assert_eq!(usage.partial_adjustments, cut, "{from} {to}");
            let shown = usage.adjustments;
            assert_eq!(
                shown.iter().map(|one| one.row.adjustment.period.as_str()).collect::<Vec<_>>(),
                expected,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn query_for_one_department_excludes_others_and_their_adjustments() {
        let mut elsewhere = adjustment("2026-01", 100);
        elsewhere.adjustment.department = "parking".to_owned();
        let facts = LedgerFacts {
            rows: rows(),
            calendar: CalendarOffset::default(),
            adjustments: vec![adjustment("2026-01", -2), elsewhere],
            names: BTreeMap::from([("police".to_owned(), "Police Bureau".to_owned())]),
            coverage: coverage(),
        };
        let query = ReportQuery {
            range: ReportRange { from: Window(0), to: Window(500_000) },
            group_by: GroupKeys::parse("department").expect("keys"),
            departments: vec![Name::parse("police").expect("a name")],
        };
        let usage = UsageReport::from_facts(query, facts).expect("it fits");
        assert_eq!(usage.rows.iter().map(|row| row.keys[0].as_str()).collect::<Vec<_>>(), ["police"]);
        assert_eq!((usage.total.units, usage.adjustments.len(), usage.net_units()), (6, 1, 4));
        assert_eq!((usage.department_name("police"), usage.department_name("parking")), ("Police Bureau", "parking"));
    }

    /// A ledger that ends within the range.
    pub(crate) fn ledger(path: &str, gateway: &str) -> ReportLedger {
        let gap = |from: &str, to: &str, why: &str| CoverageGap {
            from: from.to_owned(),
            to: to.to_owned(),
            why: why.to_owned(),
        };
        ReportLedger {
            path: path.to_owned(),
            coverage: LedgerCoverage {
                id: Some(format!("id-of-{path}")),
                begins: Some("2026-01-01T15:00:00Z".to_owned()),
                complete_to: Some("2026-01-01T16:00:00Z".to_owned()),
                ended_at: Some("2026-01-01T16:00:00Z".to_owned()),
                gaps: vec![gap("2026-01-01T16:00:00Z", "2026-01-02T00:00:00Z", "closed")],
                gaps_left_out: 0,
                completeness: PeriodCompleteness { gateway: gateway.to_owned(), ..coverage().completeness },
            },
        }
    }

    pub(crate) fn coverage() -> ReportCoverage {
        ReportCoverage {
            made_at: "2026-11-29T22:00:00Z".to_owned(),
            completeness: PeriodCompleteness {
                gateway: "tallygate".to_owned(),
                state: PeriodState::Open,
                open_because: vec!["1 hour is not sealed yet".to_owned()],
                lost_counts: vec![LostCounts {
                    epoch: 3,
                    after: "2026-11-02T01:00:00Z".to_owned(),
                    ending: "machine died".to_owned(),
                }],
                first_usage: Some("2026-01-01T15:00:00Z".to_owned()),
                last_usage: Some("2026-01-01T16:00:00Z".to_owned()),
            },
        }
    }

    #[test]
    fn rows_are_queried_as_coarsely_as_the_keys_allow() {
        for (by, grain) in [
            ("department,outcome,blame", ReportResolution::Whole),
            ("department,month", ReportResolution::Day),
            ("day", ReportResolution::Day),
            ("day,hour", ReportResolution::Hour),
        ] {
            assert_eq!(GroupKeys::parse(by).expect("keys").resolution(), grain, "{by}");
        }
    }

    #[test]
    fn group_keys_are_known_and_unique() {
        assert_eq!(GroupKeys::parse("department,subsystem,command,outcome"), Ok(GroupKeys::default()));
        assert_eq!(GroupKeys::parse("day, outcome").map(|by| by.to_string()).as_deref(), Ok("day,outcome"));
        assert_eq!(["shop.cart", "a.b.c", "cameras"].map(namespace_of), ["shop", "a", ""]);
        assert_eq!(GroupKeys::parse("price"), Err(BadGroupKey::Unknown("price".to_owned())));
        assert_eq!(GroupKeys::parse(""), Err(BadGroupKey::Unknown(String::new())));
        assert_eq!(GroupKeys::parse("day,day"), Err(BadGroupKey::Twice("day")));
    }
}
