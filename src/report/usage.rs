//! Grouping rows of usage: pure, exact, ordered.

use std::collections::BTreeMap;
use std::fmt;

use crate::ledger::{AdjustmentRow, OutcomeTotals, UsageRow};
use crate::model::{CalendarOffset, Month, Window};

use super::Range;
use super::query::{Coverage, LedgerFacts, UsageQuery};

/// A correction's period begins with its month, also where it is a day.
const MONTH_LENGTH: usize = "YYYY-MM".len();

/// What rows may be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Who.
    Department,
    /// Of which subsystem.
    Subsystem,
    /// What.
    Command,
    /// How it ended.
    Outcome,
    /// Whose doing the outcome was: `none`, `caller`, `us`, `upstream`.
    Blame,
    /// The calendar month of admission.
    Month,
    /// The date of admission in the ledger's calendar.
    Day,
    /// The UTC hour of admission.
    Hour,
}

impl Key {
    const ALL: [Self; 8] = [
        Self::Department,
        Self::Subsystem,
        Self::Command,
        Self::Outcome,
        Self::Blame,
        Self::Month,
        Self::Day,
        Self::Hour,
    ];

    /// The column's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Department => "department",
            Self::Subsystem => "subsystem",
            Self::Command => "command",
            Self::Outcome => "outcome",
            Self::Blame => "blame",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    fn of(self, row: &UsageRow, calendar: CalendarOffset) -> String {
        match self {
            Self::Department => row.department.to_string(),
            Self::Subsystem => row.subsystem.to_string(),
            Self::Command => row.command.to_string(),
            Self::Outcome => row.outcome.to_string(),
            Self::Blame => row.outcome.blame().name().to_owned(),
            Self::Month => calendar.month_of(row.window).to_string(),
            Self::Day => calendar.date_of(row.window).to_string(),
            Self::Hour => row.window.to_string(),
        }
    }
}

/// How fine the ledger's rows must be for a report; coarser rows are read faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportGrain {
    /// The range as a whole.
    Whole,
    /// Whole days.
    Day,
    /// Hours.
    Hour,
}

/// The keys of a report, in the order of its columns, each at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(Vec<Key>);

/// Why a text is not a [`By`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not a key.
    #[error(
        "cannot group by {0:?}; write one or more of department, subsystem, command, outcome, blame, month, day, hour"
    )]
    Unknown(String),
    /// The same key again.
    #[error("{0} stands twice in what to group by; write it once")]
    Twice(&'static str),
}

impl By {
    /// Reads keys separated by commas.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let mut keys = Vec::new();
        for word in text.split(',').map(str::trim) {
            let key = Key::ALL.into_iter().find(|key| key.name() == word);
            let key = key.ok_or_else(|| BadKey::Unknown(word.to_owned()))?;
            if keys.contains(&key) {
                return Err(BadKey::Twice(key.name()));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// How fine the ledger's rows must be.
    pub fn grain(&self) -> ReportGrain {
        if self.0.contains(&Key::Hour) {
            return ReportGrain::Hour;
        }
        match self.0.contains(&Key::Day) || self.0.contains(&Key::Month) {
            true => ReportGrain::Day,
            false => ReportGrain::Whole,
        }
    }

    /// The keys in order.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl Default for By {
    fn default() -> Self {
        Self(vec![Key::Department, Key::Subsystem, Key::Command, Key::Outcome])
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|key| key.name()).collect();
        f.write_str(&names.join(","))
    }
}

/// A sum left the range of 64 bits; nothing shorter than centuries of use does that, so the ledger is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sums of this range do not fit 64 bits; the ledger is damaged, so nothing of it is shown")]
pub struct TooLarge;

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The values of the keys, in their order.
    pub keys: Vec<String>,
    /// The sums.
    pub totals: OutcomeTotals,
}

/// Usage of a range, grouped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What it covers.
    pub range: Range,
    /// In which calendar days are meant.
    pub calendar: CalendarOffset,
    /// What it is grouped by.
    pub by: By,
    /// The lines, ordered by their keys.
    pub rows: Vec<Row>,
    /// The sum of all lines.
    pub total: OutcomeTotals,
    /// Corrections of periods that lie in the range. They are in no line and no sum.
    pub adjustments: Vec<AdjustmentRow>,
    /// How many corrections are of periods that lie in the range in part only.
    pub cut_adjustments: usize,
    /// What people call the departments, by id; an id without a name is shown as it is.
    pub names: BTreeMap<String, String>,
    /// What the ledger says about the period as a whole; nothing where the rows are not from a ledger.
    pub coverage: Option<Coverage>,
}

impl Usage {
    /// The names of the number columns, in the order of [`Usage::numbers`].
    pub const NUMBERS: [&'static str; 5] = ["commands", "units", "request_bytes", "response_bytes", "duration_ns"];

    /// Groups the ledger's rows of `range`.
    pub fn group(rows: &[UsageRow], range: Range, calendar: CalendarOffset, by: By) -> Result<Self, TooLarge> {
        let mut groups: BTreeMap<Vec<String>, OutcomeTotals> = BTreeMap::new();
        let mut total = OutcomeTotals::default();
        for row in rows {
            let keys = by.keys().iter().map(|key| key.of(row, calendar)).collect();
            add(groups.entry(keys).or_default(), &row.totals)?;
            add(&mut total, &row.totals)?;
        }
        let rows = groups.into_iter().map(|(keys, totals)| Row { keys, totals }).collect();
        Ok(Self {
            range,
            calendar,
            by,
            rows,
            total,
            adjustments: Vec::new(),
            cut_adjustments: 0,
            names: BTreeMap::new(),
            coverage: None,
        })
    }

    /// The answer to a query, from what a ledger holds of its range.
    pub fn answer(query: UsageQuery, facts: LedgerFacts) -> Result<Self, TooLarge> {
        let LedgerFacts { mut rows, calendar, mut adjustments, names, coverage } = facts;
        rows.retain(|row| query.selects(row.department.as_str()));
        adjustments.retain(|row| query.selects(&row.department));
        let usage = Self::group(&rows, query.range, calendar, query.by)?.with_adjustments(adjustments);
        Ok(Self { names, coverage: Some(coverage), ..usage })
    }

    /// What people call a department.
    pub fn name_of<'a>(&'a self, department: &'a str) -> &'a str {
        self.names.get(department).map_or(department, String::as_str)
    }

    /// The id of the department that a line is about, if the report is grouped by department.
    pub(super) fn department_of<'a>(&self, keys: &'a [String]) -> Option<&'a str> {
        let position = self.by.keys().iter().position(|key| *key == Key::Department)?;
        keys.get(position).map(String::as_str)
    }

    /// Usage and corrections together: one sum for the whole report.
    pub fn net_units(&self) -> i128 {
        i128::from(self.total.units) + self.adjustments.iter().map(|row| i128::from(row.units)).sum::<i128>()
    }

    /// Adds those corrections whose whole period lies in the range.
    pub fn with_adjustments(mut self, adjustments: Vec<AdjustmentRow>) -> Self {
        let range = self.range.windows();
        let touches = |period: &std::ops::Range<Window>| period.start < range.end && range.start < period.end;
        let (mut whole, mut cut) = (Vec::new(), 0);
        for row in adjustments {
            match row.windows(self.calendar).filter(touches) {
                Some(period) if range.start <= period.start && period.end <= range.end => whole.push(row),
                Some(_) => cut += 1,
                None => {}
            }
        }
        (self.adjustments, self.cut_adjustments) = (whole, cut);
        self
    }

    /// The value of a key for a correction; nothing if it is of all.
    pub(super) fn key_of(key: Key, row: &AdjustmentRow) -> &str {
        match key {
            Key::Department => &row.department,
            Key::Subsystem => row.subsystem.as_deref().unwrap_or_default(),
            Key::Command => row.command.as_deref().unwrap_or_default(),
            Key::Outcome | Key::Blame | Key::Hour => "",
            Key::Month => row.period.get(..MONTH_LENGTH).unwrap_or_default(),
            Key::Day => {
                if Month::parse(&row.period).is_some() {
                    ""
                } else {
                    &row.period
                }
            }
        }
    }

    /// The names of all columns.
    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.by.keys().iter().map(|key| key.name()).chain(Self::NUMBERS)
    }

    /// The number columns of a line.
    pub fn numbers(totals: &OutcomeTotals) -> [u64; 5] {
        [totals.commands, totals.units, totals.request_bytes, totals.response_bytes, totals.duration_ns]
    }
}

fn add(sum: &mut OutcomeTotals, more: &OutcomeTotals) -> Result<(), TooLarge> {
    *sum = OutcomeTotals {
        commands: sum.commands.checked_add(more.commands).ok_or(TooLarge)?,
        units: sum.units.checked_add(more.units).ok_or(TooLarge)?,
        request_bytes: sum.request_bytes.checked_add(more.request_bytes).ok_or(TooLarge)?,
        response_bytes: sum.response_bytes.checked_add(more.response_bytes).ok_or(TooLarge)?,
        duration_ns: sum.duration_ns.checked_add(more.duration_ns).ok_or(TooLarge)?,
    };
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ledger::audit::{Completeness, LostCounts, PeriodState};
    use crate::model::{Finished, Name, Outcome, Refused};

    fn row(department: &str, window: u32, outcome: Outcome, commands: u64) -> UsageRow {
        let name = |text| Name::parse(text).expect("a name");
        UsageRow {
            window: Window(window),
            department: name(department),
            subsystem: name("cameras"),
            command: name("snapshot.submit"),
            outcome,
            totals: OutcomeTotals {
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

    pub(in crate::report) fn usage(by: &str) -> Usage {
        let range = Range { from: Window(0), to: Window(500_000) };
        Usage::group(&rows(), range, CalendarOffset::default(), By::parse(by).expect("keys")).expect("it fits")
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
            assert_eq!(Usage::numbers(&usage.total), [15, 30, 15_000, 150, 15_000_000]);
        }
    }

    #[test]
    fn a_sum_beyond_64_bits_is_told_and_not_wrapped() {
        let ok = Outcome::Finished(Finished::Ok);
        let mut rows = vec![row("a", 1, ok, 1), row("b", 1, ok, 1)];
        rows[0].totals.duration_ns = u64::MAX;
        let range = Range { from: Window(0), to: Window(2) };
        assert_eq!(Usage::group(&rows, range, CalendarOffset::default(), By::default()), Err(TooLarge));
    }

    pub(in crate::report) fn adjustment(period: &str, units: i64) -> AdjustmentRow {
        AdjustmentRow {
            number: 1,
            department: "police".to_owned(),
            subsystem: None,
            command: None,
            period: period.to_owned(),
            units,
            reason: "a test of the new cameras".to_owned(),
            who: "finance".to_owned(),
            made_at: "2026-11-24T03:10:00Z".to_owned(),
        }
    }

    #[test]
    fn corrections_are_shown_where_their_whole_period_is() {
        let calendar = CalendarOffset::default();
        let all = ["2026-10", "2026-10-01", "2026-10-31", "2026-11-01", "2026-09-30"];
        for (from, to, expected, cut) in [
            ("2026-10-01", "2026-11-01", &all[..3], 0),
            ("2026-10-01", "2026-10-31", &all[1..2], 1),
            ("2026-10-01T00:00:00Z", "2026-11-02", &all[2..4], 2), // eight hours after the day began
        ] {
            let range = Range::parse(Some(from), Some(to), calendar, Window(0)).expect("a range");
            let usage = Usage::group(&[], range, calendar, By::default()).expect("it fits");
            let usage = usage.with_adjustments(all.iter().map(|period| adjustment(period, -5)).collect());
            assert_eq!(usage.cut_adjustments, cut, "{from} {to}");
            let shown = usage.adjustments;
            assert_eq!(shown.iter().map(|row| row.period.as_str()).collect::<Vec<_>>(), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_query_for_one_department_leaves_out_the_others_and_their_corrections() {
        let mut elsewhere = adjustment("2026-01", 100);
        elsewhere.department = "parking".to_owned();
        let facts = LedgerFacts {
            rows: rows(),
            calendar: CalendarOffset::default(),
            adjustments: vec![adjustment("2026-01", -2), elsewhere],
            names: BTreeMap::from([("police".to_owned(), "Police Bureau".to_owned())]),
            coverage: coverage(),
        };
        let query = UsageQuery {
            range: Range { from: Window(0), to: Window(500_000) },
            by: By::parse("department").expect("keys"),
            departments: vec![Name::parse("police").expect("a name")],
        };
        let usage = Usage::answer(query, facts).expect("it fits");
        assert_eq!(usage.rows.iter().map(|row| row.keys[0].as_str()).collect::<Vec<_>>(), ["police"]);
        assert_eq!((usage.total.units, usage.adjustments.len(), usage.net_units()), (6, 1, 4));
        assert_eq!((usage.name_of("police"), usage.name_of("parking")), ("Police Bureau", "parking"));
    }

    pub(in crate::report) fn coverage() -> Coverage {
        Coverage {
            made_at: "2026-11-29T22:00:00Z".to_owned(),
            completeness: Completeness {
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
    fn rows_are_asked_for_as_coarse_as_the_keys_allow() {
        for (by, grain) in [
            ("department,outcome,blame", ReportGrain::Whole),
            ("department,month", ReportGrain::Day),
            ("day", ReportGrain::Day),
            ("day,hour", ReportGrain::Hour),
        ] {
            assert_eq!(By::parse(by).expect("keys").grain(), grain, "{by}");
        }
    }

    #[test]
    fn keys_are_known_and_stand_once() {
        assert_eq!(By::parse("department,subsystem,command,outcome"), Ok(By::default()));
        assert_eq!(By::parse("day, outcome").map(|by| by.to_string()).as_deref(), Ok("day,outcome"));
        assert_eq!(By::parse("price"), Err(BadKey::Unknown("price".to_owned())));
        assert_eq!(By::parse(""), Err(BadKey::Unknown(String::new())));
        assert_eq!(By::parse("day,day"), Err(BadKey::Twice("day")));
    }
}
