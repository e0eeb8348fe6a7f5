//! CSV: a line for each department and day, with one column for each cause, so that every column sums up.

use std::collections::BTreeSet;

use crate::report::render::csv::{safe_cell, written_text};
use crate::report::{DayReconciliation, HourCause, SignedUsage, SubsystemCause, SubsystemDay, UsageReconciliation};

/// The columns before those of the causes.
const DAY_COLUMNS: [&str; 8] = [
    "department",
    "day",
    "ledger_commands",
    "ledger_units",
    "prometheus_commands",
    "prometheus_units",
    "difference_commands",
    "difference_units",
];
/// The columns after those of the causes.
const REST_COLUMNS: [&str; 3] = ["rest_commands", "rest_units", "differing_values"];
/// The columns of a subsystem's own counts; empty without them. Those of its causes and its rest are after them.
const SUBSYSTEM_COLUMNS: [&str; 3] = ["subsystem_commands", "subsystem_ledger_commands", "subsystem_difference"];
/// The last columns.
const PERIOD_COLUMNS: [&str; 4] = ["from", "to", "calendar", "state"];

/// Renders the days as CSV.
pub fn render_reconciliation_csv(both: &UsageReconciliation) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header())?;
    let state = if both.is_complete() { "complete" } else { "open" };
    let period = [both.range.from.to_string(), both.range.to.to_string(), format!("UTC{}", both.calendar)];
    let of_subsystems = both.subsystems.as_ref().map(|subsystems| &subsystems.days);
    let keys: BTreeSet<_> = both.days.keys().chain(of_subsystems.into_iter().flat_map(|days| days.keys())).collect();
    for key in keys {
        let mut cells = vec![safe_cell(&key.0), key.1.to_string()];
        cells.extend(day_cells(both.days.get(key).unwrap_or(&DayReconciliation::default())));
        cells.extend(subsystem_cells(of_subsystems.and_then(|days| days.get(key))));
        cells.extend(period.iter().cloned().chain([state.to_owned()]));
        writer.write_record(cells)?;
    }
    written_text(writer)
}

fn header() -> Vec<String> {
    let mut names: Vec<String> = DAY_COLUMNS.map(str::to_owned).into();
    let causes = HourCause::ALL.into_iter();
    names.extend(causes.flat_map(|cause| ["commands", "units"].map(|measure| format!("{}_{measure}", cause.name()))));
    names.extend(REST_COLUMNS.into_iter().chain(SUBSYSTEM_COLUMNS).map(str::to_owned));
    names.extend(SubsystemCause::ALL.map(|cause| format!("subsystem_{}", cause.name())));
    names.extend(["subsystem_rest"].into_iter().chain(PERIOD_COLUMNS).map(str::to_owned));
    names
}

fn day_cells(day: &DayReconciliation) -> Vec<String> {
    let of_cause = |cause: HourCause| day.causes.get(&cause).map(|share| share.difference).unwrap_or_default();
    let causes = HourCause::ALL.into_iter().map(of_cause);
    let sums = [day.ledger, day.scraped, day.difference()].into_iter().chain(causes).chain([day.rest]);
    let numbers = sums.flat_map(|SignedUsage { commands, units }| [commands, units].map(|number| number.to_string()));
    numbers.chain([day.differing.to_string()]).collect()
}

fn subsystem_cells(day: Option<&SubsystemDay>) -> Vec<String> {
    let Some(day) = day else {
        return vec![String::new(); SUBSYSTEM_COLUMNS.len() + SubsystemCause::ALL.len() + 1];
    };
    let causes = SubsystemCause::ALL.map(|cause| day.causes.get(&cause).copied().unwrap_or_default());
    let numbers = [day.counted.into(), day.ledger, day.difference()].into_iter().chain(causes).chain([day.rest]);
    numbers.map(|number| number.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::render::reconciled::table::tests::with_subsystems;

    #[test]
    fn columns_sum_up_and_lines_without_counts_are_empty_there() {
        let text = render_reconciliation_csv(&with_subsystems()).expect("it renders");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        let column = |name: &str| lines[0].iter().position(|found| *found == name).expect("a column");
        let cells = |name: &str| lines[1..].iter().map(|line| line[column(name)]).collect::<Vec<_>>();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert_eq!(cells("department"), ["fire", "fire", "lights", "parking", "parking"]);
        assert_eq!(cells("difference_commands"), ["0", "999", "0", "-16", "1"]);
        assert_eq!(cells("gateway_unreachable_units"), ["0", "0", "0", "-32", "0"]);
        assert_eq!(cells("rest_commands"), ["0", "-1", "0", "0", "1"]);
        assert_eq!(cells("subsystem_commands"), ["", "", "3", "19", ""]);
        assert_eq!(cells("subsystem_refused"), ["", "", "0", "-2", ""]);
        assert_eq!(cells("subsystem_rest"), ["", "", "3", "0", ""]);
        assert_eq!(cells("state"), ["complete"; 5]);
    }
}
