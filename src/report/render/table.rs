//! A table for people: thousands separated, numbers to the right, a total at the end.

use comfy_table::{CellAlignment, Table, presets};

use crate::ledger::{AdjustmentRow, OutcomeTotals};
use crate::report::Usage;

/// Where the table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// On a terminal: with borders.
    Terminal,
    /// In a file or a pipe: columns only.
    Plain,
}

/// The rows and their total as a table; below it, if there are any, the corrections as another.
pub fn table(usage: &Usage, look: Look) -> String {
    let mut table = empty(look);
    table.set_header(usage.columns());
    for row in &usage.rows {
        table.add_row(row.keys.iter().cloned().chain(numbers(&row.totals)));
    }
    table.add_row(total_labels(usage.by.keys().len()).chain(numbers(&usage.total)));
    for column in table.column_iter_mut().skip(usage.by.keys().len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    match usage.adjustments.is_empty() {
        true => text(&table),
        false => format!("{}\n{}", text(&table), corrections(&usage.adjustments, look)),
    }
}

/// What finance added; it is in none of the lines above.
fn corrections(rows: &[AdjustmentRow], look: Look) -> String {
    const UNITS: usize = 4;
    let mut table = empty(look);
    table.set_header(["correction of", "subsystem", "command", "period", "units", "reason", "who", "made at"]);
    let every = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    for row in rows {
        let AdjustmentRow { department, period, units, reason, who, made_at, .. } = row;
        let (subsystem, command, units) = (every(&row.subsystem), every(&row.command), signed(*units));
        table.add_row([department, &subsystem, &command, period, &units, reason, who, made_at]);
    }
    if let Some(column) = table.column_mut(UNITS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text(&table)
}

fn empty(look: Look) -> Table {
    let mut table = Table::new();
    table.load_style(match look {
        Look::Terminal => presets::UTF8_FULL_CONDENSED,
        Look::Plain => presets::NOTHING,
    });
    table
}

fn text(table: &Table) -> String {
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "+" };
    format!("{sign}{}", separated(number.unsigned_abs()))
}

fn total_labels(keys: usize) -> impl Iterator<Item = String> {
    (0..keys).map(|position| if position == 0 { "total".to_owned() } else { String::new() })
}

fn numbers(totals: &OutcomeTotals) -> [String; 5] {
    Usage::numbers(totals).map(separated)
}

/// Digits in groups of three: `1,234,567`.
fn separated(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage::tests::{adjustment, usage};

    #[test]
    fn numbers_are_separated_by_thousands() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(separated(number), shown);
        }
    }

    #[test]
    fn a_plain_table_has_a_total_and_numbers_to_the_right() {
        assert_eq!(
            table(&usage("department,outcome"), Look::Plain),
            " department  outcome    commands  units  request_bytes  response_bytes  duration_ns
 parking     forbidden         8     16          8,000              80    8,000,000
 parking     ok                4      8          4,000              40    4,000,000
 police      ok                3      6          3,000              30    3,000,000
 total                        15     30         15,000             150   15,000,000
"
        );
    }

    #[test]
    fn corrections_stand_below_the_total_and_are_not_in_it() {
        let mut usage = usage("department");
        usage.adjustments = vec![adjustment("2026-01", -1500)];
        let shown = table(&usage, Look::Plain);
        let (above, below) = shown.split_once("\n\n").expect("two tables");
        assert!(above.lines().last().is_some_and(|total| total.contains("15     30")), "{above}");
        assert_eq!(below.lines().count(), 2, "{below}");
        assert!(
            below.lines().last().is_some_and(|line| line.contains(" all ") && line.contains(" -1,500 ")),
            "{below}"
        );
    }
}
