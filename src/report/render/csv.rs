//! CSV (RFC 4180): a header, plain integers, no total, safe to open in a spreadsheet.
//!
//! Corrections are lines of their own at the end: they have 0 in the columns of usage, and their units, which may be negative, in
//! `adjustment_units`, where usage has 0. So each column sums up to what its name says.

use crate::report::Usage;

/// The rows as CSV.
pub fn csv(usage: &Usage) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(usage.columns().chain(["adjustment_units"]))?;
    for row in &usage.rows {
        let keys = row.keys.iter().map(|key| cell(key));
        let numbers = Usage::numbers(&row.totals).map(|number| number.to_string());
        writer.write_record(keys.chain(numbers).chain(["0".to_owned()]))?;
    }
    for row in &usage.adjustments {
        let keys = usage.by.keys().iter().map(|key| cell(Usage::key_of(*key, row)));
        let numbers = [0; Usage::NUMBERS.len()].iter().chain([&row.units]).map(ToString::to_string);
        writer.write_record(keys.chain(numbers))?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A spreadsheet takes a cell that begins so for a formula; an apostrophe makes it text (OWASP, "CSV injection").
fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage::tests::{adjustment, usage};

    #[test]
    fn rows_are_plain_integers_below_a_header() {
        assert_eq!(
            csv(&usage("department,day")).expect("it renders"),
            "department,day,commands,units,request_bytes,response_bytes,duration_ns,adjustment_units\n\
             parking,2026-01-01,12,24,12000,120,12000000,0\n\
             police,2026-01-01,1,2,1000,10,1000000,0\n\
             police,2026-01-02,2,4,2000,20,2000000,0\n"
        );
    }

    #[test]
    fn corrections_are_lines_of_their_own_with_a_column_of_their_own() {
        for (by, first, second) in [
            ("department,day", "police,,0,0,0,0,0,-5", "police,2026-01-02,0,0,0,0,0,7"),
            ("subsystem,outcome", ",,0,0,0,0,0,-5", ",,0,0,0,0,0,7"),
        ] {
            let mut usage = usage(by);
            usage.adjustments = vec![adjustment("2026-01", -5), adjustment("2026-01-02", 7)];
            let text = csv(&usage).expect("it renders");
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines[lines.len() - 2..], [first, second], "{text}");
        }
    }

    #[test]
    fn a_cell_is_never_a_formula() {
        for (text, shown) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            ("police", "police"),
        ] {
            assert_eq!(cell(text), shown);
        }
    }
}
