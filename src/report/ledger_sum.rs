//! Adds up several ledgers into one report: pure, one ledger after the other.
//!
//! Guarantees:
//! - Sums are exact; a sum that does not fit 64 bits is an error and no report.
//! - The sum holds the groups of the report, and of each ledger its coverage and its corrections of the range: the rows
//!   of a ledger are dropped once they are added.
//! - The order of the ledgers changes no number and no name.
//!
//! Leaves to `cli`: finding and reading the ledgers, and refusing those that must not be added.

use std::collections::BTreeMap;

use crate::ledger::audit::{LedgerCoverage, PeriodCompleteness, PeriodState};
use crate::ledger::{AdjustmentRow, DatedName, UsageRow};
use crate::model::CalendarOffset;

use super::report_query::{ReportCoverage, ReportQuery};
use super::usage_report::{AdjustmentPlace, GroupSums, ReportAdjustment, ReportLedger, SumOverflow, UsageReport};

/// The most names that a sentence about several ledgers lists.
const LISTED_MAX: usize = 3;

/// The data of one ledger for the range of a query.
#[derive(Clone, Debug)]
pub struct LedgerPart {
    /// The path, as given or found.
    pub path: String,
    /// The rows of the range, at the resolution of [`super::GroupKeys::resolution`].
    pub rows: Vec<UsageRow>,
    /// All corrections of the ledger.
    pub adjustments: Vec<AdjustmentRow>,
    /// The display names of departments, by id.
    pub names: BTreeMap<String, DatedName>,
    /// How far the ledger reaches.
    pub coverage: LedgerCoverage,
}

/// The sum of the ledgers so far. All of them have one calendar.
#[derive(Debug)]
pub struct LedgerSum {
    query: ReportQuery,
    calendar: CalendarOffset,
    sums: GroupSums,
    adjustments: Vec<ReportAdjustment>,
    partial_adjustments: usize,
    names: BTreeMap<String, DatedName>,
    ledgers: Vec<ReportLedger>,
}

impl LedgerSum {
    /// The sum of no ledger.
    pub fn new(query: ReportQuery, calendar: CalendarOffset) -> Self {
        Self {
            query,
            calendar,
            sums: GroupSums::default(),
            adjustments: Vec::new(),
            partial_adjustments: 0,
            names: BTreeMap::new(),
            ledgers: Vec::new(),
        }
    }

    /// Adds a ledger.
    pub fn add(&mut self, part: LedgerPart) -> Result<(), SumOverflow> {
        for row in part.rows.iter().filter(|row| self.query.selects(row.department.as_str())) {
            self.sums.add(row, self.calendar, &self.query.group_by)?;
        }
        self.add_adjustments(&part.path, part.adjustments);
        part.names.into_iter().for_each(|(department, name)| self.add_name(department, name));
        self.ledgers.push(ReportLedger { path: part.path, coverage: part.coverage });
        Ok(())
    }

    fn add_adjustments(&mut self, path: &str, adjustments: Vec<AdjustmentRow>) {
        for row in adjustments.into_iter().filter(|row| self.query.selects(&row.adjustment.department)) {
            match AdjustmentPlace::of(&row, &self.query.range, self.calendar) {
                AdjustmentPlace::Inside => {
                    self.adjustments.push(ReportAdjustment { row, ledger: Some(path.to_owned()) });
                }
                AdjustmentPlace::Cut => self.partial_adjustments += 1,
                AdjustmentPlace::Outside => {}
            }
        }
    }

    /// Keeps the newest name of a department. Of two names of the same moment, the one that sorts first stays.
    fn add_name(&mut self, department: String, found: DatedName) {
        let known = self.names.entry(department).or_insert_with(|| found.clone());
        if (found.since, &known.name) > (known.since, &found.name) {
            *known = found;
        }
    }

    /// The report of all ledgers, made at `made_at`.
    pub fn finish(mut self, made_at: String) -> UsageReport {
        if self.ledgers.len() == 1 {
            self.adjustments.iter_mut().for_each(|one| one.ledger = None);
        }
        let (rows, total) = self.sums.into_rows();
        let completeness = combined_completeness(&self.ledgers);
        UsageReport {
            range: self.query.range,
            calendar: self.calendar,
            group_by: self.query.group_by,
            rows,
            total,
            adjustments: self.adjustments,
            partial_adjustments: self.partial_adjustments,
            names: self.names.into_iter().map(|(department, name)| (department, name.name)).collect(),
            coverage: Some(ReportCoverage { made_at, completeness }),
            chosen: None,
            ledgers: self.ledgers,
        }
    }
}

/// The completeness of all ledgers together: that of the one ledger, or a summary of several.
fn combined_completeness(ledgers: &[ReportLedger]) -> PeriodCompleteness {
    if let [only] = ledgers {
        return only.coverage.completeness.clone();
    }
    let parts = || ledgers.iter().map(|ledger| &ledger.coverage.completeness);
    let is_complete = parts().all(|part| part.state == PeriodState::Complete);
    PeriodCompleteness {
        gateway: gateway_names(ledgers),
        state: if is_complete { PeriodState::Complete } else { PeriodState::Open },
        open_because: combined_reasons(ledgers),
        lost_counts: parts().flat_map(|part| part.lost_counts.clone()).collect(),
        first_usage: parts().filter_map(|part| part.first_usage.clone()).min(),
        last_usage: parts().filter_map(|part| part.last_usage.clone()).max(),
    }
}

/// The distinct names of the gateways, in the order of the ledgers.
fn gateway_names(ledgers: &[ReportLedger]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for ledger in ledgers {
        let name = ledger.coverage.completeness.gateway.as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    listed(&names)
}

/// The reasons of all ledgers, each once. A reason that is not one of all ledgers names those whose it is.
fn combined_reasons(ledgers: &[ReportLedger]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ledger in ledgers {
        for reason in &ledger.coverage.completeness.open_because {
            reasons.entry(reason).or_default().push(&ledger.path);
        }
    }
    let of = |(reason, paths): (&str, Vec<&str>)| match paths.len() == ledgers.len() {
        true => reason.to_owned(),
        false => format!("{reason} ({})", listed(&paths)),
    };
    reasons.into_iter().map(of).collect()
}

/// The first names, and how many more there are.
pub fn listed(names: &[&str]) -> String {
    match names.len().checked_sub(LISTED_MAX).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", names[..LISTED_MAX].join(", ")),
        None => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finished, Name, Outcome, Window};
    use crate::report::usage_report::tests::{adjustment, ledger, row};
    use crate::report::{GroupKeys, ReportRange};

    const OK: Outcome = Outcome::Finished(Finished::Ok);
    const HOUR: u32 = 20_454 * 24;

    fn query(by: &str, departments: &[&str]) -> ReportQuery {
        ReportQuery {
            range: ReportRange { from: Window(HOUR), to: Window(HOUR + 31 * 24) },
            group_by: GroupKeys::parse(by).expect("keys"),
            departments: departments.iter().map(|id| Name::parse(id).expect("a name")).collect(),
        }
    }

    fn part(path: &str, rows: Vec<UsageRow>) -> LedgerPart {
        LedgerPart {
            path: path.to_owned(),
            rows,
            adjustments: Vec::new(),
            names: BTreeMap::new(),
            coverage: ledger(path, "tallygate").coverage,
        }
    }

    fn sum(query: ReportQuery, parts: &[LedgerPart]) -> Result<UsageReport, SumOverflow> {
        let mut sum = LedgerSum::new(query, CalendarOffset::default());
        parts.iter().cloned().try_for_each(|part| sum.add(part))?;
        Ok(sum.finish("2026-11-29T22:00:00Z".to_owned()))
    }

    fn brief(usage: &UsageReport) -> String {
        let rows = usage.rows.iter().map(|row| format!("{}={}", row.keys.join("/"), row.totals.commands));
        rows.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ledgers_are_added_group_by_group_in_any_order() {
        let parts = [
            part("a.db", vec![row("police", HOUR, OK, 1), row("parking", HOUR, OK, 2)]),
            part("b.db", vec![row("police", HOUR, OK, 10), row("fire", HOUR + 24, OK, 20)]),
            part("c.db", vec![]),
        ];
        for (by, departments, expected) in [
            ("department", &[][..], "fire=20 parking=2 police=11"),
            ("day", &[], "2026-01-01=13 2026-01-02=20"),
            ("department,day", &["police"], "police/2026-01-01=11"),
            ("month", &["parking", "fire"], "2026-01=22"),
        ] {
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                let ordered = order.map(|at: usize| parts[at].clone());
                let usage = sum(query(by, departments), &ordered).expect("it fits");
                assert_eq!(brief(&usage), expected, "{by} {order:?}");
                let rows = usage.rows.iter().map(|row| row.totals.commands).sum::<u64>();
                assert_eq!(usage.total.commands, rows, "{by}");
                assert_eq!(usage.ledgers.len(), 3);
            }
        }
    }

    #[test]
    fn sum_of_ledgers_over_64_bits_is_an_error() {
        let mut large = row("police", HOUR, OK, 1);
        large.totals.request_bytes = u64::MAX - 999;
        for (other, fits) in [(0, true), (1, false)] {
            let parts = [part("a.db", vec![large.clone()]), part("b.db", vec![row("fire", HOUR, OK, other)])];
            assert_eq!(sum(query("department", &[]), &parts).is_ok(), fits, "the total, of {other} more");
        }
    }

    #[test]
    fn corrections_of_every_ledger_count_and_name_their_ledger() {
        let mut parts = [part("a.db", vec![row("police", HOUR, OK, 10)]), part("b.db", vec![])];
        parts[0].adjustments = vec![adjustment("2026-01-02", -2), adjustment("2026-01", 50)];
        parts[1].adjustments = vec![adjustment("2026-01-03", 7), adjustment("2025-12-01", 9)];
        let usage = sum(query("department", &[]), &parts).expect("it fits");
        let shown: Vec<_> =
            usage.adjustments.iter().map(|one| (one.ledger.as_deref(), one.row.adjustment.units)).collect();
        assert_eq!(shown, [(Some("a.db"), -2), (Some("b.db"), 7)]);
        assert_eq!((usage.partial_adjustments, usage.net_units()), (1, 20 - 2 + 7));
        let usage = sum(query("department", &["fire"]), &parts).expect("it fits");
        assert_eq!((usage.adjustments.len(), usage.net_units()), (0, 0));
    }

    #[test]
    fn newest_name_of_a_department_stays() {
        let named = |path: &str, name: &str, since: &str| {
            let name = DatedName { name: name.to_owned(), since: since.parse().expect("a time") };
            LedgerPart { names: BTreeMap::from([("police".to_owned(), name)]), ..part(path, vec![]) }
        };
        // As texts, the first of these two times would be the newer one.
        let old = named("a.db", "Police", "2026-01-01T00:00:00Z");
        let new = named("b.db", "Police Bureau", "2026-01-01T00:00:00.5Z");
        let equal = named("c.db", "Police Bureau 2", "2026-01-01T00:00:00.5Z");
        for parts in [[&old, &new, &equal], [&equal, &new, &old], [&new, &old, &equal]] {
            let usage = sum(query("department", &[]), &parts.map(Clone::clone)).expect("it fits");
            assert_eq!(usage.department_name("police"), "Police Bureau");
        }
    }

    #[test]
    fn completeness_of_several_ledgers_is_that_of_the_least_complete() {
        let mut parts = [part("a.db", vec![]), part("b.db", vec![]), part("c.db", vec![])];
        let all = "the period ends at 2026-02-01T00:00:00Z".to_owned();
        for (part, gateway) in parts.iter_mut().zip(["edge-0", "edge-1", "edge-0"]) {
            let state = &mut part.coverage.completeness;
            (state.gateway, state.open_because, state.lost_counts) = (gateway.to_owned(), vec![all.clone()], vec![]);
        }
        parts[1].coverage.completeness.open_because.push("1 hour is not sealed yet".to_owned());
        parts[2].coverage.completeness.first_usage = Some("2025-12-01T00:00:00Z".to_owned());
        parts[2].coverage.completeness.last_usage = None;
        let completeness = |parts: &[LedgerPart]| {
            sum(query("department", &[]), parts).expect("it fits").coverage.expect("ledgers").completeness
        };
        let found = completeness(&parts);
        assert_eq!((found.gateway.as_str(), found.state), ("edge-0, edge-1", PeriodState::Open));
        assert_eq!(found.open_because, ["1 hour is not sealed yet (b.db)".to_owned(), all]);
        assert_eq!(found.first_usage.as_deref(), Some("2025-12-01T00:00:00Z"));
        assert_eq!(found.last_usage.as_deref(), Some("2026-01-01T16:00:00Z"));
        for part in &mut parts {
            (part.coverage.completeness.state, part.coverage.completeness.open_because) =
                (PeriodState::Complete, vec![]);
        }
        assert_eq!(completeness(&parts).state, PeriodState::Complete);
        assert_eq!(completeness(&parts[..1]), parts[0].coverage.completeness, "one ledger is shown as it is");
    }

    #[test]
    fn long_lists_are_cut_off() {
        for (names, expected) in [
            (&["a"][..], "a"),
            (&["a", "b", "c"], "a, b, c"),
            (&["a", "b", "c", "d"], "a, b, c and 1 more"),
            (&["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
        ] {
            assert_eq!(listed(names), expected);
        }
    }
}
