//! JSON: one object, with the sums, causes and hours as numbers and ranges.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::Serialize;

use crate::ledger::AdjustmentRow;
use crate::model::Window;
use crate::report::{
    CauseShare, DayReconciliation, DifferingValue, HourCause, SignedUsage, SubsystemDay, UsageReconciliation,
    window_ranges,
};

#[derive(Serialize)]
struct JsonReconciliation<'a> {
    from: String,
    to: String,
    calendar: String,
    state: &'static str,
    explained: bool,
    hours: u64,
    equal_hours: u64,
    rows: Vec<JsonDay<'a>>,
    total: JsonSums,
    causes: Vec<JsonCause>,
    contradictory_hours: Vec<JsonRange>,
    differing_values: &'a [DifferingValue],
    more_differing_values: u64,
    adjustments: &'a [AdjustmentRow],
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystem_calendar: Option<String>,
}

#[derive(Serialize)]
struct JsonDay<'a> {
    department: &'a str,
    day: String,
    #[serde(flatten)]
    sums: JsonSums,
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystem: Option<JsonSubsystemDay>,
}

#[derive(Serialize)]
struct JsonSums {
    ledger: SignedUsage,
    prometheus: SignedUsage,
    difference: SignedUsage,
    causes: Vec<JsonShare>,
    rest: SignedUsage,
    differing_values: u64,
}

#[derive(Serialize)]
struct JsonShare {
    cause: &'static str,
    hours: usize,
    #[serde(flatten)]
    difference: SignedUsage,
}

#[derive(Serialize)]
struct JsonSubsystemDay {
    commands: u64,
    ledger_commands: i128,
    difference: i128,
    causes: Vec<JsonSubsystemCause>,
    rest: i128,
}

#[derive(Serialize)]
struct JsonSubsystemCause {
    cause: &'static str,
    commands: i128,
}

#[derive(Serialize)]
struct JsonCause {
    #[serde(flatten)]
    share: JsonShare,
    ranges: Vec<JsonRange>,
    advice: &'static str,
}

#[derive(Serialize)]
struct JsonRange {
    from: String,
    to: String,
}

/// Renders one object: `from`, `to`, `calendar`, `state`, `explained`, `hours`, `equal_hours`, `rows`, `total`,
/// `causes`, `contradictory_hours`, `differing_values`, `more_differing_values`, `adjustments`.
pub fn render_reconciliation_json(both: &UsageReconciliation) -> Result<String, serde_json::Error> {
    let subsystems = both.subsystems.as_ref();
    let of_subsystems = subsystems.map(|subsystems| &subsystems.days);
    let keys: BTreeSet<_> = both.days.keys().chain(of_subsystems.into_iter().flat_map(|days| days.keys())).collect();
    let none = DayReconciliation::default();
    let row = |key| json_day(key, both.days.get(key).unwrap_or(&none), of_subsystems.and_then(|days| days.get(key)));
    let report = JsonReconciliation {
        from: both.range.from.to_string(),
        to: both.range.to.to_string(),
        calendar: both.calendar.to_string(),
        state: if both.is_complete() { "complete" } else { "open" },
        explained: both.is_explained(),
        hours: both.hours,
        equal_hours: both.equal_hours,
        rows: keys.into_iter().map(row).collect(),
        total: JsonSums::of(&both.total()),
        causes: both
            .causes
            .iter()
            .map(|(cause, hours)| JsonCause::of(*cause, &hours.windows, hours.difference))
            .collect(),
        contradictory_hours: json_ranges(&both.contradictory),
        differing_values: &both.differing,
        more_differing_values: both.more_differing,
        adjustments: &both.corrections,
        subsystem_calendar: subsystems.and_then(|subsystems| subsystems.calendar).map(|calendar| calendar.to_string()),
    };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    Ok(text)
}

fn json_day<'a>(
    (department, day): &'a (String, Date),
    sums: &DayReconciliation,
    subsystem: Option<&SubsystemDay>,
) -> JsonDay<'a> {
    JsonDay {
        department,
        day: day.to_string(),
        sums: JsonSums::of(sums),
        subsystem: subsystem.map(JsonSubsystemDay::of),
    }
}

impl JsonSums {
    fn of(day: &DayReconciliation) -> Self {
        let share = |(cause, share): (&HourCause, &CauseShare)| JsonShare {
            cause: cause.name(),
            hours: share.windows.len(),
            difference: share.difference,
        };
        Self {
            ledger: day.ledger,
            prometheus: day.scraped,
            difference: day.difference(),
            causes: day.causes.iter().map(share).collect(),
            rest: day.rest,
            differing_values: day.differing,
        }
    }
}

impl JsonSubsystemDay {
    fn of(day: &SubsystemDay) -> Self {
        let causes = day.causes.iter();
        let causes = causes.map(|(cause, commands)| JsonSubsystemCause { cause: cause.name(), commands: *commands });
        Self {
            commands: day.counted,
            ledger_commands: day.ledger,
            difference: day.difference(),
            causes: causes.collect(),
            rest: day.rest,
        }
    }
}

impl JsonCause {
    fn of(cause: HourCause, windows: &[Window], difference: SignedUsage) -> Self {
        Self {
            share: JsonShare { cause: cause.name(), hours: windows.len(), difference },
            ranges: json_ranges(windows),
            advice: cause.advice(),
        }
    }
}

fn json_ranges(windows: &[Window]) -> Vec<JsonRange> {
    let ranges = window_ranges(windows.iter().copied());
    ranges.iter().map(|range| JsonRange { from: range.start.to_string(), to: range.end.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::render::reconciled::table::tests::with_subsystems;

    #[test]
    fn object_has_sums_causes_and_ranges() {
        let text = render_reconciliation_json(&with_subsystems()).expect("it renders");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        for (pointer, expected) in [
            ("/state", Value::from("complete")),
            ("/explained", Value::from(false)),
            ("/hours", Value::from(6)),
            ("/equal_hours", Value::from(1)),
            ("/rows/3/department", Value::from("parking")),
            ("/rows/3/day", Value::from("2026-10-05")),
            ("/rows/3/ledger/commands", Value::from(21)),
            ("/rows/3/prometheus/units", Value::from(10)),
            ("/rows/3/causes/0/cause", Value::from("gateway_unreachable")),
            ("/rows/3/causes/0/hours", Value::from(2)),
            ("/rows/3/causes/0/commands", Value::from(-16)),
            ("/rows/3/subsystem/causes/0/commands", Value::from(-2)),
            ("/rows/2/subsystem/rest", Value::from(3)),
            ("/rows/1/rest/commands", Value::from(-1)),
            ("/total/difference/commands", Value::from(984)),
            ("/causes/1/ranges/0/to", Value::from("2026-10-04T19:00:00Z")),
            ("/differing_values/0/hour", Value::from("2026-10-05T17:00:00Z")),
            ("/differing_values/0/prometheus/commands", Value::from(2)),
        ] {
            assert_eq!(found.pointer(pointer), Some(&expected), "{pointer}: {text}");
        }
    }
}
