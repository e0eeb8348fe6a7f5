//! A table for people: each department and day with both numbers, difference, causes and rest; below it the causes with
//! their hours and what to do, and a sentence with the result.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::Date;

use crate::model::Window;
use crate::report::render::fitted_table::{ColumnHeading, FittedTable, TableTarget};
use crate::report::render::human_units::{grouped_digits, grouped_signed, signed_digits};
use crate::report::render::table::period_text;
use crate::report::{
    DayReconciliation, DifferingValue, HourCause, SubsystemDay, UsageReconciliation, window_ranges, window_ranges_text,
};

/// The columns of a day before those of subsystems.
const DAY_COLUMNS: [ColumnHeading; 8] = [
    ColumnHeading::text("department"),
    ColumnHeading::text("day"),
    ColumnHeading::number("ledger"),
    ColumnHeading::number("Prometheus"),
    ColumnHeading::number("difference"),
    ColumnHeading::number("ledger units").droppable(3),
    ColumnHeading::number("Prometheus units").droppable(4),
    ColumnHeading::number("units difference").droppable(2),
];

/// Renders the whole report.
pub fn render_reconciliation_table(both: &UsageReconciliation, look: TableTarget) -> String {
    let mut text = heading(both);
    text += &day_table(both, look);
    if !both.causes.is_empty() {
        text += &format!("\nHours that are not simply there:\n{}", cause_table(both, look));
        for cause in both.causes.keys() {
            text += &format!("{}: {}\n", cause.title(), cause.advice());
        }
    }
    if !both.contradictory.is_empty() {
        let hours = window_ranges_text(&window_ranges(both.contradictory.iter().copied()));
        text += &format!(
            "\nSeries that contradict each other, and none of them is that of the ledger: {hours}\n\
             Choose the series of this ledger with --matcher; if there is only one gateway, one of them was edited.\n"
        );
    }
    if !both.differing.is_empty() {
        text += &format!("\nValues that differ, and have no cause:\n{}", differing_table(both, look));
        text += "One of the two was changed after the hour was sealed, or these are two gateways: `tallygate ledger verify \
                 --prometheus URL` compares the heads of the hash chain.\n";
    }
    text += &corrections_text(both);
    if let Some(calendar) = both.subsystems.as_ref().and_then(|subsystems| subsystems.calendar) {
        text +=
            &format!("\nThe days of the subsystem's counts are those of UTC{calendar}, not of UTC{}.\n", both.calendar);
    }
    text += &format!("\n{}\n", explanation(both));
    text
}

/// The result in one sentence.
pub fn explanation(both: &UsageReconciliation) -> String {
    let (equal, hours) = (grouped_digits(both.equal_hours), grouped_digits(both.hours));
    let open = if both.is_complete() { "" } else { "; the period is open" };
    if !both.is_explained() {
        return format!("NOT explained: {}; {equal} of {hours} hours are equal{open}", unexplained_text(both));
    }
    let has_subsystem_differences =
        both.subsystems.as_ref().is_some_and(|all| all.days.values().any(|day| day.difference() != 0));
    match both.equal_hours == both.hours && !has_subsystem_differences {
        true => format!("Prometheus and the ledger agree: {equal} of {hours} hours, rest 0{open}"),
        false => format!("Every difference is explained: {equal} of {hours} hours are equal, rest 0{open}"),
    }
}

/// What is not explained, in numbers.
fn unexplained_text(both: &UsageReconciliation) -> String {
    let mut parts = Vec::new();
    let total = both.total();
    if total.differing > 0 {
        let (commands, units) = (signed_digits(total.rest.commands), signed_digits(total.rest.units));
        let values = counted_text(total.differing, "value");
        parts.push(format!("rest {commands} commands and {units} units in {values} that differ from their hour"));
    }
    if !both.contradictory.is_empty() {
        let hours = counted_text(both.contradictory.len() as u64, "hour");
        parts.push(format!("{hours} with contradictory series"));
    }
    let rests = both.subsystems.iter().flat_map(|all| all.days.values()).map(|day| day.rest).filter(|rest| *rest != 0);
    let rests: Vec<_> = rests.collect();
    if !rests.is_empty() {
        let (sum, days) = (signed_digits(rests.iter().sum()), counted_text(rests.len() as u64, "day"));
        parts.push(format!("rest {sum} commands of subsystems on {days} of departments"));
    }
    parts.join(", ")
}

fn heading(both: &UsageReconciliation) -> String {
    let state = if both.is_complete() { "complete" } else { "open" };
    let (equal, hours) = (grouped_digits(both.equal_hours), grouped_digits(both.hours));
    let period = period_text(&both.range, both.calendar);
    let lines =
        [("period", period), ("state", state.to_owned()), ("hours", format!("{hours}, of which {equal} are equal"))];
    let mut text = String::new();
    for (label, value) in lines {
        let _ = writeln!(text, "{label:<9} {value}"); // writing to a String cannot fail
    }
    text.push('\n');
    text
}

fn day_table(both: &UsageReconciliation, look: TableTarget) -> String {
    let of_subsystems = both.subsystems.as_ref().map(|subsystems| &subsystems.days);
    let has_counts = of_subsystems.is_some();
    let counts = [ColumnHeading::number("subsystem"), ColumnHeading::number("subsystem difference")];
    let last = [ColumnHeading::number("rest"), ColumnHeading::text("why").droppable(1)];
    let counts = counts.into_iter().filter(|_| has_counts);
    let mut table = FittedTable::new(DAY_COLUMNS.into_iter().chain(counts).chain(last));
    let keys: BTreeSet<_> = both.days.keys().chain(of_subsystems.into_iter().flat_map(|days| days.keys())).collect();
    let mut rows = 0;
    for key in keys {
        let (department, date): &(String, Date) = key;
        let counted = of_subsystems.and_then(|days| days.get(key));
        let none = DayReconciliation::default();
        let day = both.days.get(key).unwrap_or(&none);
        table.add_row(day_cells([department, &date.to_string()], day, (has_counts, counted)));
        rows += 1;
    }
    if rows == 0 {
        return "There is no usage in this period, on either side.\n".to_owned();
    }
    if rows > 1 {
        let counted = of_subsystems.map(|days| total_counted(days.values()));
        table.add_row(day_cells(["total", ""], &both.total(), (has_counts, counted.as_ref())));
    }
    table.render(look)
}

/// The sum of the days of subsystems. A cause is shown by day only.
fn total_counted<'a>(days: impl Iterator<Item = &'a SubsystemDay>) -> SubsystemDay {
    days.fold(SubsystemDay::default(), |mut sum, day| {
        sum.counted = sum.counted.saturating_add(day.counted);
        sum.ledger += day.ledger;
        sum.rest += day.rest;
        for (cause, number) in &day.causes {
            *sum.causes.entry(*cause).or_default() += number;
        }
        sum
    })
}

fn day_cells(
    keys: [&str; 2],
    day: &DayReconciliation,
    (has_counts, counted): (bool, Option<&SubsystemDay>),
) -> Vec<String> {
    let difference = day.difference();
    let mut cells: Vec<String> = keys.map(str::to_owned).into();
    cells.extend([day.ledger.commands, day.scraped.commands].map(grouped_signed));
    cells.push(difference_text(difference.commands));
    cells.extend([day.ledger.units, day.scraped.units].map(grouped_signed));
    cells.push(difference_text(difference.units));
    if has_counts {
        cells.push(counted.map_or_else(String::new, |counted| grouped_digits(counted.counted)));
        cells.push(counted.map_or_else(String::new, |counted| difference_text(counted.difference())));
    }
    cells.push(rest_text(day, counted));
    cells.push(reasons_text(day, counted));
    cells
}

fn difference_text(number: i128) -> String {
    if number == 0 { "0".to_owned() } else { signed_digits(number) }
}

/// The rest of both comparisons; `0` only if nothing differs.
fn rest_text(day: &DayReconciliation, counted: Option<&SubsystemDay>) -> String {
    let own = (day.differing > 0).then(|| match day.rest.units {
        _ if day.rest.is_zero() => format!("0 in {}", counted_text(day.differing, "value")),
        0 => signed_digits(day.rest.commands),
        units => format!("{} ({} units)", signed_digits(day.rest.commands), signed_digits(units)),
    });
    let of_subsystem = counted.filter(|counted| counted.rest != 0);
    let of_subsystem = of_subsystem.map(|counted| format!("subsystem {}", signed_digits(counted.rest)));
    let parts: Vec<_> = own.into_iter().chain(of_subsystem).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(", ") }
}

fn reasons_text(day: &DayReconciliation, counted: Option<&SubsystemDay>) -> String {
    let causes = day.causes.iter().filter(|(_, share)| !share.difference.is_zero());
    let causes = causes.map(|(cause, share)| {
        format!(
            "{} {} ({})",
            cause.title(),
            signed_digits(share.difference.commands),
            counted_text(share.windows.len() as u64, "hour")
        )
    });
    let differing =
        (day.differing > 0).then(|| format!("differs from the sealed hour ({})", counted_text(day.differing, "value")));
    let of_subsystem = counted.into_iter().flat_map(|counted| &counted.causes);
    let of_subsystem =
        of_subsystem.map(|(cause, number)| format!("subsystem: {} {}", cause.title(), signed_digits(*number)));
    causes.chain(differing).chain(of_subsystem).collect::<Vec<_>>().join(", ")
}

/// A number with its noun: `1 hour`, `1,234 hours`.
fn counted_text(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped_digits(count)) }
}

fn cause_table(both: &UsageReconciliation, look: TableTarget) -> String {
    let mut table = FittedTable::new([
        ColumnHeading::text("cause"),
        ColumnHeading::number("hours"),
        ColumnHeading::number("commands"),
        ColumnHeading::number("units").droppable(1),
        ColumnHeading::text("which hours").droppable(2),
    ]);
    for cause in HourCause::ALL {
        let Some(hours) = both.causes.get(&cause) else { continue };
        let numbers = [hours.difference.commands, hours.difference.units].map(difference_text);
        let count = grouped_digits(hours.windows.len() as u64);
        let which = window_ranges_text(&window_ranges(hours.windows.iter().copied()));
        table.add_row([cause.title().to_owned(), count].into_iter().chain(numbers).chain([which]));
    }
    table.render(look)
}

fn differing_table(both: &UsageReconciliation, look: TableTarget) -> String {
    let mut table = FittedTable::new([
        ColumnHeading::text("hour"),
        ColumnHeading::text("department"),
        ColumnHeading::text("subsystem"),
        ColumnHeading::number("ledger"),
        ColumnHeading::number("Prometheus"),
        ColumnHeading::number("ledger units").droppable(1),
        ColumnHeading::number("Prometheus units").droppable(2),
    ]);
    for DifferingValue { hour, department, subsystem, ledger, prometheus } in &both.differing {
        let numbers = [ledger.commands, prometheus.commands, ledger.units, prometheus.units].map(grouped_signed);
        table.add_row([Window::to_string(hour), department.clone(), subsystem.clone()].into_iter().chain(numbers));
    }
    let text = table.render(look);
    match both.more_differing {
        0 => text,
        more => format!("{text}and {} more\n", grouped_digits(more)),
    }
}

fn corrections_text(both: &UsageReconciliation) -> String {
    let mut text = String::new();
    for row in &both.corrections {
        let one = &row.adjustment;
        let units = signed_digits(i128::from(one.units));
        let whom = one.subject_text();
        let _ = writeln!(text, "{whom} {}: {units} units, {} ({})", one.period, one.reason, one.who);
    }
    match text.is_empty() {
        true => text,
        false => format!("\nCorrections, which neither number contains:\n{text}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::reconciled::tests::{reconciliation, two_days};
    use crate::report::usage_report::tests::correction;
    use crate::report::{SubsystemCause, SubsystemComparison};

    /// Two days, and counts of subsystems: one that is explained, and one of a department without usage.
    pub(crate) fn with_subsystems() -> UsageReconciliation {
        let mut both = two_days();
        let key = |department: &str| (department.to_owned(), Date::new(2026, 10, 5).expect("a date"));
        let causes = [(SubsystemCause::Refused, -2)].into();
        let explained = SubsystemDay { counted: 19, ledger: 21, causes, rest: 0 };
        let unknown = SubsystemDay { counted: 3, ledger: 0, rest: 3, ..SubsystemDay::default() };
        let days = [(key("parking"), explained), (key("lights"), unknown)].into();
        both.subsystems = Some(SubsystemComparison { days, ..SubsystemComparison::default() });
        both
    }

    #[test]
    fn table_shows_numbers_causes_hours_and_the_result() {
        let mut both = two_days();
        both.corrections = vec![correction("2026-10", -5).row];
        assert_eq!(
            render_reconciliation_table(&both, TableTarget::Pipe),
            "period    2026-10-05 to 2026-10-07, exclusive (calendar +08:00)
state     complete
hours     6, of which 1 are equal

 department  day         ledger  Prometheus  difference  ledger units  Prometheus units  units difference           rest  why
 fire        2026-10-05       1           1           0             2                 2                 0              0
 fire        2026-10-06       6       1,005        +999            12             2,010            +1,998  -1 (-2 units)  several sources +1,000 (1 hour), differs from the sealed hour (1 value)
 parking     2026-10-05      21           5         -16            42                10               -32              0  gateway unreachable -16 (2 hours)
 parking     2026-10-06       4           5          +1             8                10                +2  +1 (+2 units)  differs from the sealed hour (1 value)
 total                       32       1,016        +984            64             2,032            +1,968  0 in 2 values  gateway unreachable -16 (2 hours), several sources +1,000 (1 hour), differs from the sealed hour (2 values)

Hours that are not simply there:
 cause                hours  commands   units  which hours
 Prometheus was down      1         0       0  2026-10-04T19:00:00Z to 2026-10-04T20:00:00Z
 gateway unreachable      2       -16     -32  2026-10-04T17:00:00Z to 2026-10-04T19:00:00Z
 several sources          1    +1,000  +2,000  2026-10-05T16:00:00Z to 2026-10-05T17:00:00Z
Prometheus was down: no sample of `up` while they were offered; load them with --missing
gateway unreachable: `up` was 0 while they were offered; load them with --missing
several sources: series of several gateways, or relabelled ones, under one name: choose those of this ledger with --matcher, or name all ledgers and --sum-by

Values that differ, and have no cause:
 hour                  department  subsystem  ledger  Prometheus  ledger units  Prometheus units
 2026-10-05T17:00:00Z  fire        cameras         3           2             6                 4
 2026-10-05T17:00:00Z  parking     cameras         4           5             8                10
One of the two was changed after the hour was sealed, or these are two gateways: `tallygate ledger verify --prometheus URL` compares the heads of the hash chain.

Corrections, which neither number contains:
police 2026-10: -5 units, a test of the new cameras (finance)

NOT explained: rest +0 commands and +0 units in 2 values that differ from their hour; 1 of 6 hours are equal
"
        );
    }

    #[test]
    fn counts_of_subsystems_are_a_third_column() {
        let text = render_reconciliation_table(&with_subsystems(), TableTarget::Pipe);
        let line = |begin: &str| {
            let line = text.lines().find(|line| line.starts_with(begin)).expect("a line");
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line(" parking     2026-10-05"),
            "parking 2026-10-05 21 5 -16 42 10 -32 19 -2 0 gateway unreachable -16 (2 hours), subsystem: refused -2"
        );
        assert_eq!(line(" lights"), "lights 2026-10-05 0 0 0 0 0 0 3 +3 subsystem +3");
        assert!(text.contains("rest +3 commands of subsystems on 1 day of departments"), "{text}");
    }

    #[test]
    fn result_is_one_sentence() {
        let mut both = reconciliation(&[]);
        (both.hours, both.equal_hours) = (744, 744);
        assert_eq!(explanation(&both), "Prometheus and the ledger agree: 744 of 744 hours, rest 0");
        both.equal_hours = 743;
        assert_eq!(explanation(&both), "Every difference is explained: 743 of 744 hours are equal, rest 0");
        both.causes.insert(HourCause::NotFinal, crate::report::CauseHours::default());
        both.contradictory = vec![both.range.from];
        assert_eq!(
            explanation(&both),
            "NOT explained: 1 hour with contradictory series; 743 of 744 hours are equal; the period is open"
        );
        let empty = render_reconciliation_table(&reconciliation(&[]), TableTarget::Pipe);
        assert!(empty.contains("There is no usage in this period, on either side."), "{empty}");
    }
}
