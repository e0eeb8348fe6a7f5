//! Checks sums: each day is the sum of its sealed hours, and the totals are the sum of all days.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::ledger::values::measures::{Measures, StoredMeasures, WAIVED_CODE};
use crate::model::Window;

use super::calendar_days::CalendarDays;
use super::findings::{AuditCheck, AuditReport};
use super::hour_reader::HourRows;
use super::name_table::NameTable;

/// Series and outcome; outcome 0 holds the admitted commands.
type DaySumKey = (i64, i64);
/// Sums that cannot overflow, whatever values an edit has put into the rows.
type WideMeasures = Measures<i128>;

/// Adds up hours, and compares each day when the next day begins.
#[derive(Debug)]
pub(crate) struct DaySums<'a> {
    book: &'a Connection,
    days: &'a CalendarDays,
    /// The day that is being added up.
    day: Option<Window>,
    sums: BTreeMap<DaySumKey, WideMeasures>,
}

impl<'a> DaySums<'a> {
    pub(crate) fn new(book: &'a Connection, days: &'a CalendarDays) -> Self {
        Self { book, days, day: None, sums: BTreeMap::new() }
    }

    /// Adds the sealed rows of an hour; hours must come in order.
    pub(crate) fn add_hour(
        &mut self,
        hour: &HourRows,
        (names, report): (&NameTable, &mut AuditReport),
    ) -> rusqlite::Result<()> {
        let day = self.days.kept_day(hour.window).start;
        if self.day != Some(day) {
            self.end_day((names, report))?;
            self.day = Some(day);
        }
        for row in hour.admissions.iter().filter(|row| hour.sealed.contains(&row.epoch)) {
            add_measures(&mut self.sums, (row.series, 0), usage_alone(row.numbers));
        }
        for row in hour.waived.iter().filter(|row| hour.sealed.contains(&row.epoch)) {
            add_measures(&mut self.sums, (row.series, i64::from(WAIVED_CODE)), usage_alone(row.numbers));
        }
        for row in hour.ends.iter().filter(|row| hour.sealed.contains(&row.epoch)) {
            add_measures(&mut self.sums, (row.series, row.outcome), row.numbers);
        }
        Ok(())
    }

    /// Compares the completed day.
    pub(crate) fn end_day(&mut self, (names, report): (&NameTable, &mut AuditReport)) -> rusqlite::Result<()> {
        let sums = std::mem::take(&mut self.sums);
        let Some(day) = self.day else { return Ok(()) };
        report.checked.days += 1;
        let stored = stored_sums(
            self.book,
            "SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns
                                        FROM day_sum WHERE day = ?1",
            Some(day),
        )?;
        let place = format!("day {}", self.days.calendar.date_of(day));
        compare_sums(&sums, &stored, |key, what| {
            report.add_finding(
                AuditCheck::Sums,
                describe_sum(&place, names, key),
                format!("{what} of its sealed hours"),
            );
        });
        Ok(())
    }
}

/// Reports days in the book that have no hours, or were compacted without a seal.
pub(crate) fn check_stray_days(
    book: &Connection,
    days: &CalendarDays,
    known: impl Fn(Window) -> bool,
    report: &mut AuditReport,
) -> rusqlite::Result<()> {
    let mut query = book.prepare("SELECT DISTINCT day FROM day_sum ORDER BY day")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let day = Window(row.get(0)?);
        let (stands, why) = match day < days.compacted_before {
            true => (days.is_compacted(day), "it was rolled up without a seal"),
            false => (known(day), "it has sums, and none of its hours has rows"),
        };
        if !stands {
            report.add_finding(AuditCheck::Sums, format!("day {}", days.calendar.date_of(day)), why);
        }
    }
    Ok(())
}

/// Checks that the totals are the sum of all days.
pub(crate) fn check_total_sums(
    book: &Connection,
    (names, report): (&NameTable, &mut AuditReport),
) -> rusqlite::Result<()> {
    const COLUMNS: &str = "series, outcome, commands, units, request_bytes, response_bytes, duration_ns";
    let days = stored_sums(book, &format!("SELECT {COLUMNS} FROM day_sum"), None)?;
    let ever = stored_sums(book, &format!("SELECT {COLUMNS} FROM ever_sum"), None)?;
    report.checked.series +=
        days.keys().map(|(series, _)| series).collect::<std::collections::BTreeSet<_>>().len() as u64;
    compare_sums(&days, &ever, |key, what| {
        report.add_finding(
            AuditCheck::Sums,
            describe_sum("all days (ever_sum)", names, key),
            format!("{what} of its days"),
        );
    });
    Ok(())
}

fn describe_sum(whole: &str, names: &NameTable, (series, outcome): DaySumKey) -> String {
    format!("{whole}, {}, {}", names.series_text(series), names.outcome_text(outcome))
}

fn stored_sums(
    book: &Connection,
    query: &str,
    day: Option<Window>,
) -> rusqlite::Result<BTreeMap<DaySumKey, WideMeasures>> {
    let mut sums = BTreeMap::new();
    let mut query = book.prepare_cached(query)?;
    let mut rows = query.query(rusqlite::params_from_iter(day.map(|day| day.0)))?;
    while let Some(row) = rows.next()? {
        add_measures(&mut sums, (row.get(0)?, row.get(1)?), StoredMeasures::from_row(row, 2)?);
    }
    Ok(sums)
}

fn add_measures(sums: &mut BTreeMap<DaySumKey, WideMeasures>, key: DaySumKey, numbers: StoredMeasures) {
    let sum = sums.entry(key).or_default();
    *sum = sum.zip(numbers, |sum, number| sum + i128::from(number));
}

/// Returns the measures of a row that has no others than commands and units.
fn usage_alone([commands, units]: [i64; 2]) -> StoredMeasures {
    StoredMeasures { commands, units, ..StoredMeasures::default() }
}

/// Calls `differs` with each key whose computed and stored sums differ. A stored sum at the end of SQLite's integers is
/// saturated.
fn compare_sums(
    sums: &BTreeMap<DaySumKey, WideMeasures>,
    stored: &BTreeMap<DaySumKey, WideMeasures>,
    mut differs: impl FnMut(DaySumKey, String),
) {
    const FIELDS: [&str; 5] = ["commands", "units", "request bytes", "response bytes", "nanoseconds"];
    let keys: std::collections::BTreeSet<_> = sums.keys().chain(stored.keys()).copied().collect();
    for key in keys {
        let [sums, stored] = [sums, stored].map(|map| map.get(&key).copied().unwrap_or_default().as_array());
        let limit = i128::from(i64::MAX);
        let field = (0..FIELDS.len()).find(|field| sums[*field].min(limit) != stored[*field]);
        if let Some(field) = field {
            let name = FIELDS[field];
            differs(key, format!("{} {name} are in the book, the sum is {}", stored[field], sums[field]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_names_its_first_field_and_a_saturated_sum_is_no_difference() {
        let full = i128::from(i64::MAX);
        let rows = |rows: &[(DaySumKey, [i128; 5])]| {
            rows.iter().map(|(key, numbers)| (*key, WideMeasures::from(*numbers))).collect::<BTreeMap<_, _>>()
        };
        let sums = rows(&[((1, 1), [1, 2, 3, 4, 5]), ((2, 1), [1, 1, 0, 0, full + 9])]);
        let stored = rows(&[((1, 1), [1, 2, 3, 5, 6]), ((2, 1), [1, 1, 0, 0, full]), ((3, 0), [7, 7, 0, 0, 0])]);
        let mut found = Vec::new();
        compare_sums(&sums, &stored, |key, what| found.push((key, what)));
        let expected = [
            ((1, 1), "5 response bytes are in the book, the sum is 4".to_owned()),
            ((3, 0), "7 commands are in the book, the sum is 0".to_owned()),
        ];
        assert_eq!(found, expected);
    }
}
