//! Forecasts of known hours: exact sums, the fallbacks, and the hour in which a quota is met.

use std::num::NonZeroU64;

use super::*;
use crate::ledger::Measures;
use crate::model::{Finished, PeriodLength, QuotaKind, Refused};

const OK: Outcome = Outcome::Finished(Finished::Ok);
/// 2026-11-20T04:00:00Z, a Friday noon in +08:00.
const NOW: u32 = 498_652;
const NO_COMPACTION: Window = Window(0);

fn row(window: u32, outcome: Outcome, commands: u64) -> UsageRow {
    let name = |text| Name::parse(text).expect("a name");
    UsageRow {
        window: Window(window),
        department: name("police"),
        subsystem: name("cameras"),
        command: name("read"),
        outcome,
        totals: Measures { commands, units: 2 * commands, ..Measures::default() },
    }
}

fn moment() -> ForecastMoment {
    let now = Timestamp::from_second(Window(NOW).start_unix_seconds() + 1800).expect("a time");
    ForecastMoment { now, calendar: CalendarOffset::default() }
}

fn month() -> CalendarPeriod {
    PeriodLength::Month.containing(Window(NOW), CalendarOffset::default())
}

/// The complete hours since `begin`.
fn since(begin: u32) -> ForecastBasis {
    ForecastBasis::new(&(Window(begin)..Window(NOW)), &[], Window(NOW))
}

fn hours(basis: &ForecastBasis, rows: &[UsageRow]) -> DepartmentHours {
    let mut hours = DepartmentHours::new(basis);
    rows.iter().for_each(|row| hours.add(row, (Window(NOW), NO_COMPACTION)));
    hours
}

fn commands(basis: &ForecastBasis, rows: &[UsageRow], used: u64, quotas: &[Quota]) -> Forecast {
    hours(basis, rows).forecast(basis, (month(), moment()), (QuotaMeasure::Commands, used), quotas)
}

fn quota(amount: u64) -> Quota {
    let kind = QuotaKind { per: PeriodLength::Month, measure: QuotaMeasure::Commands };
    let amount = NonZeroU64::new(amount).expect("not zero");
    Quota { kind, amount, warn: Vec::new(), exceeded: QuotaAction::Refuse }
}

#[test]
fn the_moment_is_noon_and_252_hours_are_to_come() {
    assert_eq!(moment().now.to_string(), "2026-11-20T04:30:00Z");
    assert_eq!(month().windows(CalendarOffset::default()).end.0 - NOW, 252);
}

#[test]
fn forecast_is_the_mean_of_the_same_hours_of_four_weeks() {
    let basis = since(0);
    assert_eq!(basis.hours(), 672);
    // In the hour after the present one, four weeks in a row: 1, 2, 4, 10. It comes twice more in this month.
    let rows: Vec<_> =
        [(4, 1), (3, 2), (2, 4), (1, 10)].map(|(weeks, used)| row(NOW + 1 - weeks * 168, OK, used)).into();
    let end = commands(&basis, &rows, 100, &[]).end.expect("hours are known");
    assert_eq!(end, UseRange { least: 102, expected: 109, greatest: 120 }, "4.25 twice is 8.5, rounded up once");
}

#[test]
fn present_hour_counts_with_the_larger_of_its_use_and_its_mean() {
    let basis = since(0);
    let past: Vec<_> = (1..=4).map(|weeks| row(NOW - weeks * 168, OK, 10)).collect();
    for (used_now, expected) in [(0, 120), (4, 116), (15, 110)] {
        let rows: Vec<_> = past.iter().cloned().chain([row(NOW, OK, used_now)]).collect();
        let end = commands(&basis, &rows, 100, &[]).end.expect("hours are known");
        assert_eq!(end.expected, expected, "{used_now} of the usual 10: this Friday, and the next one");
    }
}

#[test]
fn refused_commands_are_in_no_forecast() {
    let rows = [row(NOW + 1 - 168, Outcome::Refused(Refused::Forbidden), 1000)];
    assert_eq!(commands(&since(0), &rows, 7, &[]).end.expect("hours are known").greatest, 7);
    let mut used = PeriodUse::default();
    [&rows[0], &row(NOW, OK, 3)].into_iter().for_each(|row| used.add(PeriodLength::Day, row));
    let of = |length| [QuotaMeasure::Commands, QuotaMeasure::Units].map(|measure| used.of(length, measure));
    assert_eq!((of(PeriodLength::Day), of(PeriodLength::Month)), ([3, 6], [0, 0]));
}

#[test]
fn young_ledger_uses_the_same_hour_of_the_day_and_then_all_hours() {
    // One day and no more: each of 252 hours to come has its hour of the day.
    let rows: Vec<_> = (1..=24).map(|back| row(NOW - back, OK, 5)).collect();
    assert_eq!(commands(&since(NOW - 24), &rows, 0, &[]).end.expect("a day").expected, 252 * 5);
    // Two hours with 3 and 4: their mean for all hours but those of the same hour of the day.
    let rows = [row(NOW - 2, OK, 3), row(NOW - 1, OK, 4)];
    let end = commands(&since(NOW - 2), &rows, 0, &[]).end.expect("two hours");
    assert_eq!((end.least, end.greatest), (232 * 3 + 10 * 3 + 10 * 4, 232 * 4 + 10 * 3 + 10 * 4));
    assert_eq!(end.expected, 882, "252 x 3.5");
    assert_eq!(commands(&since(NOW), &[], 9, &[quota(5)]).end, None, "no hour is complete");
}

#[test]
fn gaps_do_not_count() {
    let gap = Window(NOW + 1 - 168)..Window(NOW + 2 - 168);
    let basis = ForecastBasis::new(&(Window(0)..Window(NOW)), &[gap], Window(NOW));
    let rows: Vec<_> = [4, 3, 2].map(|weeks| row(NOW + 1 - weeks * 168, OK, 6)).into();
    assert_eq!(basis.hours(), 671);
    assert_eq!(commands(&basis, &rows, 0, &[]).end.expect("hours are known").expected, 12, "the mean of three is 6");
}

/// Hours that a start or a gap cuts are not whole.
#[test]
fn basis_of_a_ledger_has_whole_hours() {
    let mut coverage = crate::report::usage_report::tests::ledger("a", "b").coverage;
    coverage.begins = Some("2026-11-19T22:10:00Z".to_owned());
    coverage.complete_to = Some("2026-11-20T03:00:00Z".to_owned());
    coverage.gaps[0].from = "2026-11-20T00:59:00Z".to_owned();
    coverage.gaps[0].to = "2026-11-20T01:01:00Z".to_owned();
    let basis = ForecastBasis::of_ledger(&coverage, Window(NOW));
    assert_eq!(basis.windows(), Window(NOW - 5)..Window(NOW - 1));
    assert_eq!(basis.is_present, [true, false, false, true]);
    coverage.complete_to = None;
    assert_eq!(ForecastBasis::of_ledger(&coverage, Window(NOW)).hours(), 0);
}

#[test]
fn compacted_day_is_spread_over_its_hours() {
    let basis = since(0);
    let mut hours = DepartmentHours::new(&basis);
    hours.add(&row(NOW - 168 - 12, OK, 50), (Window(NOW), Window(NOW - 24)));
    assert_eq!(hours.hours.iter().map(|sums| sums.commands).sum::<u64>(), 50);
    assert_eq!(hours.hours.iter().map(|sums| sums.commands).max(), Some(3));
}

#[test]
fn quota_is_met_in_the_hour_that_reaches_it() {
    let rows: Vec<_> = (1..=672).map(|back| row(NOW - back, OK, 10)).collect();
    for (granted, is_met, met_in) in [
        (100, true, None),
        (101, false, Some(NOW)), // the present hour has none of its 10 yet
        (110, false, Some(NOW)),
        (111, false, Some(NOW + 1)),
        (100 + 2520, false, Some(NOW + 251)),
        (100 + 2521, false, None),
    ] {
        let forecast = commands(&since(0), &rows, 100, &[quota(granted)]);
        let quota = forecast.quota.expect("a quota");
        assert_eq!((quota.is_met, quota.met_in), (is_met, met_in.map(Window)), "{granted}");
    }
}

#[test]
fn every_format_has_the_same_rows() {
    let basis = since(0);
    let rows: Vec<_> = (1..=672).map(|back| row(NOW - back, OK, 10)).collect();
    let forecasts = vec![commands(&basis, &rows, 100, &[quota(111)]), commands(&since(NOW), &[], 7, &[])];
    let department = Name::parse("police").expect("a name");
    let departments = vec![DepartmentForecast { department, forecasts }];
    let report = ForecastReport { moment: moment(), basis, complete_to: Some(Window(NOW)), departments };
    let table = render_forecast_table(&report, crate::report::render::TableTarget::Pipe);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let first =
        ["police", "2026-11", "commands", "100", "2,620", "2,620", "2,620", "111", "90", "2026-11-20T05:00:00Z"];
    assert_eq!(lines[lines.len() - 2], first, "{table}");
    assert_eq!(lines[lines.len() - 1], ["police", "2026-11", "commands", "7", "-", "-", "-", "-", "-", "-"], "{table}");
    assert!(table.contains("stands on   672 complete hours of the last 672 (four weeks)"), "{table}");
    let csv = render_forecast_csv(&report).expect("it renders");
    let first = "police,month,2026-11,commands,100,2620,2620,2620,111,refuse,expected,2026-11-20T05:00:00Z,UTC+08:00,\
                 2026-11-20T04:00:00Z,672,2026-11-20T04:30:00Z";
    assert_eq!(csv.lines().nth(1), Some(first));
    let json: serde_json::Value =
        serde_json::from_str(&render_forecast_json(&report).expect("it renders")).expect("JSON");
    assert_eq!(json["forecasts"][0]["quota_met"], "expected");
    assert_eq!(json["forecasts"][0]["forecast"], 2620);
    assert_eq!((&json["forecasts"][1]["forecast"], &json["basis"]["hours"]), (&serde_json::Value::Null, &672.into()));
}
