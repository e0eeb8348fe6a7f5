//! Checks that no count is negative: commands, units, bytes and times grow from 0. Only corrections may subtract.

use rusqlite::Connection;

use crate::model::Window;

use super::findings::{AuditCheck, AuditReport, FINDINGS_MAX};

/// The tables with counts, each with its columns and the expression that describes its place.
const COUNTING_TABLES: [(&str, &str, &str); 6] = [
    ("admission", "min(admitted, units)", "window"),
    ("usage", "min(late, commands, units, request_bytes, response_bytes, duration_ns)", "window"),
    ("waived", "min(late, commands, units)", "window"),
    ("in_flight", "min(commands, units, request_bytes, response_bytes, duration_ns)", "window"),
    ("day_sum", "min(commands, units, request_bytes, response_bytes, duration_ns)", "day"),
    ("ever_sum", "min(commands, units, request_bytes, response_bytes, duration_ns)", "0"),
];

/// Checks every row with counts.
pub(crate) fn check_negative_counts(book: &Connection, report: &mut AuditReport) -> rusqlite::Result<()> {
    for (table, least, hour) in COUNTING_TABLES {
        let place = if hour == "0" { "0".to_owned() } else { format!("\"{hour}\"") };
        let query = format!("SELECT {place}, series, {least} FROM {table} WHERE {least} < 0 LIMIT {FINDINGS_MAX}");
        let mut query = book.prepare(&query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (window, series, least): (u32, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = match hour {
                "0" => format!("{table}, series {series}"),
                _ => format!("{table}, {hour} {}, series {series}", Window(window)),
            };
            report.add_finding(AuditCheck::Negative, place, format!("the value is {least}; counts are never negative"));
        }
    }
    Ok(())
}
