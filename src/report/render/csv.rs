//! CSV (RFC 4180): a header, plain integers, no total, safe to open in a spreadsheet.

use crate::report::Usage;

/// The rows as CSV.
pub fn csv(usage: &Usage) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(usage.columns())?;
    for row in &usage.rows {
        let keys = row.keys.iter().map(|key| cell(key));
        let numbers = Usage::numbers(&row.totals).map(|number| number.to_string());
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
    use crate::report::usage::tests::usage;

    #[test]
    fn rows_are_plain_integers_below_a_header() {
        assert_eq!(
            csv(&usage("department,day")).expect("it renders"),
            "department,day,commands,units,request_bytes,response_bytes,duration_ns\n\
             parking,2026-01-01,12,24,12000,120,12000000\n\
             police,2026-01-01,1,2,1000,10,1000000\n\
             police,2026-01-02,2,4,2000,20,2000000\n"
        );
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
