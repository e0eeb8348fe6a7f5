//! A table for people: the coverage at the top, a total at the end, corrections and net units below. Thousands are
//! separated; sizes and durations have units.
//!
//! Leaves to csv and json: exact bytes and nanoseconds. Leaves to [`super::fitted_table`]: widths.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ledger::Measures;
use crate::ledger::audit::{LedgerCoverage, LostCounts};
use crate::model::CalendarOffset;
use crate::report::{GroupKey, ReportAdjustment, ReportLedger, ReportRange, UsageReport};

use super::fitted_table::{ColumnHeading, FittedTable, TableTarget};
use super::human_units::{grouped_digits, grouped_signed, human_duration, human_size, signed_digits};

/// The number columns, in the order of [`number_cells`].
const NUMBER_COLUMNS: [ColumnHeading; 5] = [
    ColumnHeading::number("commands"),
    ColumnHeading::number("units"),
    ColumnHeading::number("request").droppable(2),
    ColumnHeading::number("response").droppable(3),
    ColumnHeading::number("duration").droppable(4),
];

/// The most gaps of one ledger in the heading.
const SHOWN_GAPS_MAX: usize = 3;

/// Renders the whole report: heading, rows and total, then corrections and net units if there are corrections.
pub fn render_table(usage: &UsageReport, look: TableTarget) -> String {
    let mut text = report_heading(usage);
    if usage.ledgers.len() > 1 {
        text += &format!("{}\n", ledger_table(&usage.ledgers, look));
    }
    text += &usage_lines(usage, look);
    if usage.rows.is_empty() {
        text += &empty_report(usage);
    }
    if !usage.adjustments.is_empty() {
        text += &format!("\nCorrections, not included in the lines above:\n{}", adjustment_table(usage, look));
        text += &format!("\nNet units, usage and corrections together:\n{}", net_units_table(usage, look));
    }
    text
}

/// The heading: the coverage of the report, and whether the usage can still change.
fn report_heading(usage: &UsageReport) -> String {
    let Some(coverage) = &usage.coverage else { return chosen_heading(usage) };
    let completeness = &coverage.completeness;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:<9} {value}"); // writing to a String cannot fail
    };
    line("gateway", &completeness.gateway);
    line("period", &period_text(&usage.range, usage.calendar));
    let state = completeness.state.name();
    match completeness.open_because.is_empty() {
        true => line("state", state),
        false => line("state", &format!("{state}: {}", completeness.open_because.join("; "))),
    }
    match usage.ledgers.as_slice() {
        [] => completeness.lost_counts.iter().for_each(|lost| line("missing?", &lost_text(lost))),
        [only] => {
            line("reaches", &reach_text(&only.coverage));
            missing_lines(only, "", &mut line);
        }
        several => {
            line("ledgers", &several.len().to_string());
            several.iter().for_each(|ledger| missing_lines(ledger, &format!("{}: ", ledger.path), &mut line));
        }
    }
    line("made at", &coverage.made_at);
    text.push('\n');
    text
}

/// The heading of a report of chosen measures: what a ledger and a Prometheus know.
fn chosen_heading(usage: &UsageReport) -> String {
    let Some(chosen) = &usage.chosen else { return String::new() };
    format!("{:<9} {}\n{:<9} {}\n\n", "period", period_text(&usage.range, usage.calendar), "state", chosen.state.name())
}

/// Passes the losses and gaps of a ledger to `line`: its label and its text.
fn missing_lines(ledger: &ReportLedger, prefix: &str, line: &mut impl FnMut(&str, &str)) {
    let coverage = &ledger.coverage;
    for lost in &coverage.completeness.lost_counts {
        line("missing?", &format!("{prefix}{}", lost_text(lost)));
    }
    for gap in coverage.gaps.iter().take(SHOWN_GAPS_MAX) {
        line("no counts", &format!("{prefix}{} to {}: {}", gap.from, gap.to, gap.why));
    }
    let more = coverage.gaps.len().saturating_sub(SHOWN_GAPS_MAX) + coverage.gaps_left_out;
    if more > 0 {
        line("no counts", &format!("{prefix}and {more} more times; --format json lists them"));
    }
}

fn lost_text(lost: &LostCounts) -> String {
    format!("counts of epoch {} after {} ({})", lost.epoch, lost.after, lost.ending)
}

fn reach_text(coverage: &LedgerCoverage) -> String {
    match (&coverage.begins, &coverage.complete_to) {
        (Some(begins), Some(complete_to)) => format!("from {begins}, complete to {complete_to}"),
        (Some(begins), None) => format!("from {begins}, no hour complete yet"),
        (None, _) => "no gateway has run on this ledger yet".to_owned(),
    }
}

/// The table of the ledgers: how far each of them reaches.
fn ledger_table(ledgers: &[ReportLedger], look: TableTarget) -> String {
    let mut table = FittedTable::new([
        ColumnHeading::text("ledger"),
        ColumnHeading::text("gateway").droppable(2),
        ColumnHeading::text("begins").droppable(1),
        ColumnHeading::text("complete to"),
        ColumnHeading::text("state"),
    ]);
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for ReportLedger { path, coverage } in ledgers {
        let completeness = &coverage.completeness;
        let (gateway, state) = (completeness.gateway.clone(), completeness.state.name().to_owned());
        table.add_row([path.clone(), gateway, text(&coverage.begins), text(&coverage.complete_to), state]);
    }
    table.render(look)
}

/// The first day, and the first day after the range. Hours in UTC if the period is not of whole days.
pub(super) fn period_text(range: &ReportRange, calendar: CalendarOffset) -> String {
    let is_day = |window| calendar.day_of(window) == window;
    match is_day(range.from) && is_day(range.to) {
        true => format!(
            "{} to {}, exclusive (calendar {calendar})",
            calendar.date_of(range.from),
            calendar.date_of(range.to)
        ),
        false => format!("{} to {} (calendar {calendar})", range.from, range.to),
    }
}

fn empty_report(usage: &UsageReport) -> String {
    let bounds = usage.coverage.as_ref().map(|coverage| &coverage.completeness);
    match bounds.and_then(|bounds| bounds.first_usage.as_ref().zip(bounds.last_usage.as_ref())) {
        Some((first, last)) => format!(
            "There is no usage in this period. The ledger has usage from the hour of {first} to that of {last}: give --from and --to, or --period.\n"
        ),
        None => "There is no usage in this period.\n".to_owned(),
    }
}

fn usage_lines(usage: &UsageReport, look: TableTarget) -> String {
    let named = usage.group_by.keys().contains(&GroupKey::Department) && !usage.names.is_empty();
    let shown = usage.shown_measures();
    let mut table = FittedTable::new(headings(usage, named).into_iter().chain(shown.select(NUMBER_COLUMNS)));
    for row in &usage.rows {
        let name = usage.department_of(&row.keys).filter(|_| named).map(|id| usage.department_name(id).to_owned());
        table.add_row(
            with_name(usage, row.keys.clone(), name).into_iter().chain(shown.select(number_cells(&row.totals))),
        );
    }
    let labels = usage.group_by.keys().iter().enumerate().map(|(at, _)| if at == 0 { "total" } else { "" }.to_owned());
    let name = named.then(String::new);
    table.add_row(with_name(usage, labels.collect(), name).into_iter().chain(shown.select(number_cells(&usage.total))));
    table.render(look)
}

fn headings(usage: &UsageReport, named: bool) -> Vec<ColumnHeading> {
    let mut headings = Vec::new();
    for key in usage.group_by.keys() {
        headings.push(ColumnHeading::text(key.name()));
        if named && *key == GroupKey::Department {
            headings.push(ColumnHeading::text("name").droppable(1));
        }
    }
    headings
}

/// The keys, with the department's name after its id.
fn with_name(usage: &UsageReport, mut keys: Vec<String>, name: Option<String>) -> Vec<String> {
    let position = usage.group_by.keys().iter().position(|key| *key == GroupKey::Department);
    if let Some((position, name)) = position.zip(name) {
        keys.insert(position + 1, name);
    }
    keys
}

fn number_cells(totals: &Measures) -> [String; 5] {
    let Measures { commands, units, request_bytes, response_bytes, duration_ns } = *totals;
    [
        grouped_digits(commands),
        grouped_digits(units),
        human_size(request_bytes),
        human_size(response_bytes),
        human_duration(duration_ns),
    ]
}

/// The table of corrections. With several ledgers it has a column of their paths: each numbers its own corrections.
fn adjustment_table(usage: &UsageReport, look: TableTarget) -> String {
    let has_ledger = usage.ledgers.len() > 1;
    let headings = [
        ColumnHeading::number("no."),
        ColumnHeading::text("department"),
        ColumnHeading::text("subsystem").droppable(2),
        ColumnHeading::text("command").droppable(3),
        ColumnHeading::text("period"),
        ColumnHeading::number("units"),
        ColumnHeading::text("reason"),
        ColumnHeading::text("who").droppable(1),
        ColumnHeading::text("made at").droppable(4),
    ];
    let mut table = FittedTable::new(has_ledger.then_some(ColumnHeading::text("ledger")).into_iter().chain(headings));
    let every = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    for ReportAdjustment { row: stored, ledger } in &usage.adjustments {
        let (number, row, made_at) = (stored.number, &stored.adjustment, &stored.made_at);
        let (subsystem, command) = (every(&row.subsystem), every(&row.command));
        let (number, units) = (number.to_string(), signed_digits(i128::from(row.units)));
        let [department, period, reason, who, made_at] =
            [&row.department, &row.period, &row.reason, &row.who, made_at].map(Clone::clone);
        let ledger = has_ledger.then(|| ledger.clone().unwrap_or_default());
        let cells = [number, department, subsystem, command, period, units, reason, who, made_at];
        table.add_row(ledger.into_iter().chain(cells));
    }
    table.render(look)
}

/// Net units by department if the report is grouped by department, otherwise of all departments together.
fn net_units_table(usage: &UsageReport, look: TableTarget) -> String {
    let mut sums: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
    for row in &usage.rows {
        let of = usage.department_of(&row.keys).unwrap_or("all");
        sums.entry(of).or_default().0 += i128::from(row.totals.units);
    }
    let knows_departments = usage.group_by.keys().contains(&GroupKey::Department);
    for ReportAdjustment { row: stored, .. } in &usage.adjustments {
        let row = &stored.adjustment;
        let of = if knows_departments { row.department.as_str() } else { "all" };
        sums.entry(of).or_default().1 += i128::from(row.units);
    }
    let mut table = FittedTable::new([
        ColumnHeading::text("department"),
        ColumnHeading::number("usage"),
        ColumnHeading::number("corrections"),
        ColumnHeading::number("net units"),
    ]);
    let mut add = |of: &str, used: i128, corrected: i128| {
        table.add_row([
            of.to_owned(),
            grouped_signed(used),
            signed_digits(corrected),
            grouped_signed(used + corrected),
        ]);
    };
    for (of, (used, corrected)) in &sums {
        add(of, *used, *corrected);
    }
    let used = i128::from(usage.total.units);
    if sums.len() > 1 {
        add("total", used, usage.net_units() - used);
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage_report::tests::{correction, coverage, ledger, usage};

    #[test]
    fn plain_table_has_a_total_and_right_aligned_numbers() {
        assert_eq!(
            render_table(&usage("department,outcome"), TableTarget::Pipe),
            " department  outcome    commands  units   request  response  duration
 parking     forbidden         8     16   7.8 KiB      80 B      8 ms
 parking     ok                4      8   3.9 KiB      40 B      4 ms
 police      ok                3      6   2.9 KiB      30 B      3 ms
 total                        15     30  14.6 KiB     150 B     15 ms
"
        );
    }

    #[test]
    fn heading_has_gateway_period_calendar_and_whether_it_can_still_change() {
        let mut usage = usage("department");
        usage.coverage = Some(coverage());
        let text = render_table(&usage, TableTarget::Pipe);
        for line in [
            "gateway   tallygate\n",
            "period    1970-01-01T00:00:00Z to 2027-01-15T08:00:00Z (calendar +08:00)\n",
            "state     open: 1 hour is not sealed yet\n",
            "missing?  counts of epoch 3 after 2026-11-02T01:00:00Z (machine died)\n",
            "made at   2026-11-29T22:00:00Z\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        usage.rows.clear();
        assert!(render_table(&usage, TableTarget::Pipe).contains("usage from the hour of 2026-01-01T15:00:00Z to"));
    }

    #[test]
    fn heading_says_how_far_each_ledger_reaches_and_when_it_counted_nothing() {
        let mut usage = usage("department");
        usage.coverage = Some(coverage());
        usage.ledgers = vec![ledger("a.db", "edge-0")];
        let one = render_table(&usage, TableTarget::Pipe);
        for line in [
            "reaches   from 2026-01-01T15:00:00Z, complete to 2026-01-01T16:00:00Z\n",
            "missing?  counts of epoch 3 after 2026-11-02T01:00:00Z (machine died)\n",
            "no counts 2026-01-01T16:00:00Z to 2026-01-02T00:00:00Z: closed\n",
        ] {
            assert!(one.contains(line), "{line}{one}");
        }
        usage.ledgers.push(ledger("b.db", "edge-1"));
        usage.adjustments = vec![correction("2026-01", -1500)];
        usage.adjustments[0].ledger = Some("b.db".to_owned());
        let gap = usage.ledgers[0].coverage.gaps[0].clone();
        usage.ledgers[0].coverage.gaps = vec![gap; 5];
        usage.ledgers[0].coverage.gaps_left_out = 4;
        let several = render_table(&usage, TableTarget::Pipe);
        for line in [
            "ledgers   2\n",
            "missing?  b.db: counts of epoch 3 after 2026-11-02T01:00:00Z (machine died)\n",
            "no counts b.db: 2026-01-01T16:00:00Z to 2026-01-02T00:00:00Z: closed\n",
            "no counts a.db: and 6 more times; --format json lists them\n",
            " ledger  gateway  begins                complete to           state\n",
            " b.db    edge-1   2026-01-01T15:00:00Z  2026-01-01T16:00:00Z  open\n",
            " b.db      1  police",
        ] {
            assert!(several.contains(line), "{line}{several}");
        }
    }

    #[test]
    fn names_are_beside_their_ids_and_fit_the_terminal() {
        let mut usage = usage("department,outcome");
        usage.names = [("police".to_owned(), "交通警察局".to_owned())].into();
        let text = render_table(&usage, TableTarget::Terminal(100));
        assert!(text.contains("交通警察局") && text.contains("│ parking    ┆ parking"), "{text}");
        let narrow = render_table(&usage, TableTarget::Terminal(60));
        assert!(narrow.contains("(too narrow for: duration, response, request"), "{narrow}");
    }

    #[test]
    fn adjustments_are_below_the_total_and_net_units_below_them() {
        let mut usage = usage("department");
        usage.adjustments = vec![correction("2026-01", -1500)];
        let shown = render_table(&usage, TableTarget::Pipe);
        let parts: Vec<_> = shown.split("\n\n").collect();
        let [lines, corrections, net] = parts.as_slice() else { panic!("three tables: {shown}") };
        assert!(lines.lines().last().is_some_and(|total| total.contains("15     30")), "{lines}");
        let correction = corrections.lines().last().expect("a correction");
        assert!(correction.contains(" all ") && correction.contains(" -1,500 "), "{correction}");
        assert!(correction.contains("a test of the new cameras") && correction.contains("finance"), "{correction}");
        let net: Vec<Vec<_>> = net.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            net,
            [
                vec!["parking", "24", "+0", "24"],
                vec!["police", "6", "-1,500", "-1,494"],
                vec!["total", "30", "-1,500", "-1,470"]
            ]
        );
    }
}
