//! CSV (RFC 4180): a header and plain integers, without a total, and safe to open in a spreadsheet.
//!
//! - Every line states its coverage: period, calendar, gateway, whether the period can still change, and the time of
//!   the report.
//! - Corrections are separate lines at the end. They have 0 in the usage columns. Their units, which may be negative,
//!   are in `adjustment_units`, where usage lines have 0.
//! - So each column sums up to the total that its name states, and `net_units` sums up to the net units.

use crate::ledger::{AdjustmentRow, Measures};
use crate::report::{ReportRow, UsageReport};

/// The columns of a correction, after the keys and numbers.
const ADJUSTMENT_COLUMNS: [&str; 6] =
    ["adjustment_units", "net_units", "adjustment_number", "adjustment_period", "adjustment_reason", "adjustment_who"];
/// The last columns: the coverage of the line.
const COVERAGE_COLUMNS: [&str; 7] = ["department_name", "from", "to", "calendar", "gateway", "state", "made_at"];

/// Renders the rows as CSV.
pub fn render_csv(usage: &UsageReport) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(usage.columns().chain(ADJUSTMENT_COLUMNS).chain(COVERAGE_COLUMNS))?;
    for row in &usage.rows {
        writer.write_record(usage_line(usage, row))?;
    }
    for row in &usage.adjustments {
        writer.write_record(adjustment_line(usage, row))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn usage_line(usage: &UsageReport, row: &ReportRow) -> Vec<String> {
    let mut cells: Vec<String> = row.keys.iter().map(|key| safe_cell(key)).collect();
    cells.extend(row.totals.as_array().map(|number| number.to_string()));
    cells.extend(["0".to_owned(), row.totals.units.to_string()]);
    cells.extend(std::iter::repeat_n(String::new(), 4));
    cells.extend(coverage_columns(usage, usage.department_of(&row.keys)));
    cells
}

fn adjustment_line(usage: &UsageReport, AdjustmentRow { number, adjustment: row, .. }: &AdjustmentRow) -> Vec<String> {
    let mut cells: Vec<String> =
        usage.group_by.keys().iter().map(|key| safe_cell(UsageReport::adjustment_key(*key, row))).collect();
    cells.extend(Measures::<u64>::NAMES.map(|_| "0".to_owned()));
    cells.extend([row.units, row.units, *number].map(|number| number.to_string()));
    cells.extend([&row.period, &row.reason, &row.who].map(|text| safe_cell(text)));
    let is_grouped = usage.group_by.keys().contains(&crate::report::GroupKey::Department);
    cells.extend(coverage_columns(usage, is_grouped.then_some(row.department.as_str())));
    cells
}

fn coverage_columns(usage: &UsageReport, department: Option<&str>) -> [String; 7] {
    let name = department.map_or("", |id| usage.department_name(id));
    let (from, to, calendar) =
        (usage.range.from.to_string(), usage.range.to.to_string(), format!("UTC{}", usage.calendar));
    let [gateway, state, made_at] = usage.coverage.as_ref().map_or(["", "", ""], |coverage| {
        [coverage.completeness.gateway.as_str(), coverage.completeness.state.name(), coverage.made_at.as_str()]
    });
    [safe_cell(name), from, to, calendar, gateway.to_owned(), state.to_owned(), made_at.to_owned()]
}

/// Prevents CSV injection (OWASP). A spreadsheet takes a cell with such a first character for a formula; an apostrophe
/// makes the cell text.
fn safe_cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage_report::tests::{adjustment, coverage, usage};

    #[test]
    fn rows_are_plain_integers_below_a_header() {
        let mut usage = usage("department,day");
        usage.coverage = Some(coverage());
        usage.names = [("police".to_owned(), "Police Bureau".to_owned())].into();
        assert_eq!(
            render_csv(&usage).expect("it renders"),
            "department,day,commands,units,request_bytes,response_bytes,duration_ns,adjustment_units,net_units,\
             adjustment_number,adjustment_period,adjustment_reason,adjustment_who,\
             department_name,from,to,calendar,gateway,state,made_at\n\
             parking,2026-01-01,12,24,12000,120,12000000,0,24,,,,,parking,FROM,TO,UTC+08:00,tallygate,open,MADE\n\
             police,2026-01-01,1,2,1000,10,1000000,0,2,,,,,Police Bureau,FROM,TO,UTC+08:00,tallygate,open,MADE\n\
             police,2026-01-02,2,4,2000,20,2000000,0,4,,,,,Police Bureau,FROM,TO,UTC+08:00,tallygate,open,MADE\n"
                .replace("FROM", "1970-01-01T00:00:00Z")
                .replace("TO", "2027-01-15T08:00:00Z")
                .replace("MADE", "2026-11-29T22:00:00Z")
        );
    }

    #[test]
    fn adjustments_are_separate_rows_with_a_separate_column() {
        for (by, first, second) in [
            ("department,day", "police,,0,0,0,0,0,-5,-5,1,2026-01,", "police,2026-01-02,0,0,0,0,0,7,7,1,2026-01-02,"),
            ("subsystem,month", ",2026-01,0,0,0,0,0,-5,-5,1,2026-01,", ",2026-01,0,0,0,0,0,7,7,1,2026-01-02,"),
        ] {
            let mut usage = usage(by);
            usage.adjustments = vec![adjustment("2026-01", -5), adjustment("2026-01-02", 7)];
            let text = render_csv(&usage).expect("it renders");
            let lines: Vec<_> = text.lines().collect();
            let reason = "a test of the new cameras,finance,";
            for (line, begins) in lines[lines.len() - 2..].iter().zip([first, second]) {
                assert!(line.starts_with(&format!("{begins}{reason}")), "{begins}\n{text}");
            }
        }
    }

    #[test]
    fn cell_is_never_a_formula() {
        for (text, shown) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("police", "police"),
        ] {
            assert_eq!(safe_cell(text), shown);
        }
    }
}
