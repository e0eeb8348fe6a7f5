//! CSV (RFC 4180): a header and plain integers, without a total, and safe to open in a spreadsheet.
//!
//! - Every line states its coverage: period, calendar, gateway, whether the period can still change, and the time of
//!   the report.
//! - Corrections are separate lines at the end. They have 0 in the usage columns. Their units, which may be negative,
//!   are in `adjustment_units`, where usage lines have 0.
//! - The last columns describe one ledger. Of several ledgers each has a separate line at the very end, with 0 in all
//!   number columns.
//! - A report of chosen measures has the keys, these measures, and [`CHOSEN_COLUMNS`].
//! - So each column sums up to the total that its name states, and `net_units` sums up to the net units.

use crate::ledger::Measures;
use crate::ledger::audit::LedgerCoverage;
use crate::report::{ChosenMeasures, ReportAdjustment, ReportLedger, ReportRow, UsageReport};

/// The columns of a correction, after the keys and numbers.
const ADJUSTMENT_COLUMNS: [&str; 6] =
    ["adjustment_units", "net_units", "adjustment_number", "adjustment_period", "adjustment_reason", "adjustment_who"];
/// The columns of the coverage of the line.
const COVERAGE_COLUMNS: [&str; 7] = ["department_name", "from", "to", "calendar", "gateway", "state", "made_at"];
/// The last columns: the ledger of the line, and how far it reaches. Empty for the sum of several ledgers.
const LEDGER_COLUMNS: [&str; 5] = ["ledger", "ledger_id", "ledger_begins", "ledger_complete_to", "ledger_gaps"];

/// The columns after the measures of a report of chosen measures.
const CHOSEN_COLUMNS: [&str; 4] = ["from", "to", "calendar", "state"];

/// Renders the rows as CSV.
pub fn render_csv(usage: &UsageReport) -> Result<String, csv::Error> {
    if let Some(chosen) = &usage.chosen {
        return render_chosen(usage, chosen);
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    let columns = usage.columns().chain(ADJUSTMENT_COLUMNS).chain(COVERAGE_COLUMNS).chain(LEDGER_COLUMNS);
    writer.write_record(columns)?;
    for row in &usage.rows {
        writer.write_record(usage_line(usage, row))?;
    }
    for row in &usage.adjustments {
        writer.write_record(adjustment_line(usage, row))?;
    }
    for ledger in usage.ledgers.iter().filter(|_| usage.ledgers.len() > 1) {
        writer.write_record(ledger_line(usage, ledger))?;
    }
    written_text(writer)
}

pub(super) fn written_text(writer: csv::Writer<Vec<u8>>) -> Result<String, csv::Error> {
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn render_chosen(usage: &UsageReport, chosen: &ChosenMeasures) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(usage.columns().chain(CHOSEN_COLUMNS))?;
    let (from, to) = (usage.range.from.to_string(), usage.range.to.to_string());
    let coverage = [from, to, format!("UTC{}", usage.calendar), chosen.state.name().to_owned()];
    for row in &usage.rows {
        let keys = row.keys.iter().map(|key| safe_cell(key));
        let numbers = chosen.columns.select(row.totals.as_array()).map(|number| number.to_string());
        writer.write_record(keys.chain(numbers).chain(coverage.clone()))?;
    }
    written_text(writer)
}

fn usage_line(usage: &UsageReport, row: &ReportRow) -> Vec<String> {
    let mut cells: Vec<String> = row.keys.iter().map(|key| safe_cell(key)).collect();
    cells.extend(row.totals.as_array().map(|number| number.to_string()));
    cells.extend(["0".to_owned(), row.totals.units.to_string()]);
    cells.extend(std::iter::repeat_n(String::new(), 4));
    let ledger = only_ledger(usage);
    cells.extend(coverage_columns(usage, usage.department_of(&row.keys), ledger));
    cells.extend(ledger_columns(ledger));
    cells
}

fn adjustment_line(usage: &UsageReport, one: &ReportAdjustment) -> Vec<String> {
    let (number, row) = (&one.row.number, &one.row.adjustment);
    let named = usage.ledgers.iter().find(|ledger| Some(&ledger.path) == one.ledger.as_ref());
    let ledger = named.or_else(|| only_ledger(usage));
    let mut cells: Vec<String> =
        usage.group_by.keys().iter().map(|key| safe_cell(UsageReport::adjustment_key(*key, row))).collect();
    cells.extend(Measures::<u64>::NAMES.map(|_| "0".to_owned()));
    cells.extend([row.units, row.units, *number].map(|number| number.to_string()));
    cells.extend([&row.period, &row.reason, &row.who].map(|text| safe_cell(text)));
    let is_grouped = usage.group_by.keys().contains(&crate::report::GroupKey::Department);
    cells.extend(coverage_columns(usage, is_grouped.then_some(row.department.as_str()), ledger));
    cells.extend(ledger_columns(ledger));
    cells
}

fn ledger_line(usage: &UsageReport, ledger: &ReportLedger) -> Vec<String> {
    let mut cells = vec![String::new(); usage.group_by.keys().len()];
    cells.extend(Measures::<u64>::NAMES.map(|_| "0".to_owned()));
    cells.extend(["0", "0", "", "", "", ""].map(str::to_owned));
    cells.extend(coverage_columns(usage, None, Some(ledger)));
    cells.extend(ledger_columns(Some(ledger)));
    cells
}

/// The ledger of a report of one.
fn only_ledger(usage: &UsageReport) -> Option<&ReportLedger> {
    usage.ledgers.first().filter(|_| usage.ledgers.len() == 1)
}

fn ledger_columns(ledger: Option<&ReportLedger>) -> [String; 5] {
    let Some(ReportLedger { path, coverage }) = ledger else { return [const { String::new() }; 5] };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [safe_cell(path), text(&coverage.id), text(&coverage.begins), text(&coverage.complete_to), gaps_text(coverage)]
}

/// The gaps and losses of a ledger in one cell.
fn gaps_text(coverage: &LedgerCoverage) -> String {
    let gaps = coverage.gaps.iter().map(|gap| format!("{}/{} {}", gap.from, gap.to, gap.why));
    let more = (coverage.gaps_left_out > 0).then(|| format!("{} more", coverage.gaps_left_out));
    let lost = coverage.completeness.lost_counts.iter();
    let lost = lost.map(|lost| format!("counts of epoch {} after {} missing?", lost.epoch, lost.after));
    gaps.chain(more).chain(lost).collect::<Vec<_>>().join("; ")
}

/// The coverage of a line of one ledger, or of the sum of all.
fn coverage_columns(usage: &UsageReport, department: Option<&str>, ledger: Option<&ReportLedger>) -> [String; 7] {
    let name = department.map_or("", |id| usage.department_name(id));
    let (from, to, calendar) =
        (usage.range.from.to_string(), usage.range.to.to_string(), format!("UTC{}", usage.calendar));
    let [gateway, state, made_at] = usage.coverage.as_ref().map_or(["", "", ""], |coverage| {
        let completeness = ledger.map_or(&coverage.completeness, |ledger| &ledger.coverage.completeness);
        [completeness.gateway.as_str(), completeness.state.name(), coverage.made_at.as_str()]
    });
    [safe_cell(name), from, to, calendar, gateway.to_owned(), state.to_owned(), made_at.to_owned()]
}

/// Prevents CSV injection (OWASP). A spreadsheet takes a cell with such a first character for a formula; an apostrophe
/// makes the cell text.
pub(super) fn safe_cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage_report::tests::{correction, coverage, ledger, usage};

    #[test]
    fn rows_are_plain_integers_below_a_header() {
        let mut usage = usage("department,day");
        usage.coverage = Some(coverage());
        usage.names = [("police".to_owned(), "Police Bureau".to_owned())].into();
        assert_eq!(
            render_csv(&usage).expect("it renders"),
            "department,day,commands,units,request_bytes,response_bytes,duration_ns,adjustment_units,net_units,\
             adjustment_number,adjustment_period,adjustment_reason,adjustment_who,\
             department_name,from,to,calendar,gateway,state,made_at,\
             ledger,ledger_id,ledger_begins,ledger_complete_to,ledger_gaps\n\
             parking,2026-01-01,12,24,12000,120,12000000,0,24,,,,,parking,FROM,TO,UTC+08:00,tallygate,open,MADE,,,,,\n\
             police,2026-01-01,1,2,1000,10,1000000,0,2,,,,,Police Bureau,FROM,TO,UTC+08:00,tallygate,open,MADE,,,,,\n\
             police,2026-01-02,2,4,2000,20,2000000,0,4,,,,,Police Bureau,FROM,TO,UTC+08:00,tallygate,open,MADE,,,,,\n"
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
            usage.adjustments = vec![correction("2026-01", -5), correction("2026-01-02", 7)];
            let text = render_csv(&usage).expect("it renders");
            let lines: Vec<_> = text.lines().collect();
            let reason = "a test of the new cameras,finance,";
            for (line, begins) in lines[lines.len() - 2..].iter().zip([first, second]) {
                assert!(line.starts_with(&format!("{begins}{reason}")), "{begins}\n{text}");
            }
        }
    }

    /// The cells of the named columns of every line.
    fn cells(text: &str, names: &[&str]) -> Vec<String> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("a header").clone();
        let positions = names.iter().map(|name| header.iter().position(|found| found == *name).expect("a column"));
        let positions: Vec<_> = positions.collect();
        let line =
            |row: csv::StringRecord| positions.iter().map(|at| row[*at].to_owned()).collect::<Vec<_>>().join(" ");
        reader.records().map(|row| line(row.expect("a line"))).collect()
    }

    #[test]
    fn each_ledger_has_its_reach_in_columns_or_in_a_line_of_its_own() {
        let mut usage = usage("subsystem");
        usage.coverage = Some(coverage());
        usage.ledgers = vec![ledger("a.db", "edge-0")];
        usage.adjustments = vec![correction("2026-01", -5)];
        let names = ["commands", "units", "adjustment_units", "gateway", "ledger", "ledger_id", "ledger_complete_to"];
        let of_a = "edge-0 a.db id-of-a.db 2026-01-01T16:00:00Z";
        let one = render_csv(&usage).expect("it renders");
        assert_eq!(cells(&one, &names), [format!("15 30 0 {of_a}"), format!("0 0 -5 {of_a}")]);

        usage.ledgers.push(ledger("b.db", "edge-1"));
        usage.adjustments[0].ledger = Some("a.db".to_owned());
        let several = render_csv(&usage).expect("it renders");
        assert_eq!(
            cells(&several, &names),
            [
                "15 30 0 tallygate   ".to_owned(),
                format!("0 0 -5 {of_a}"),
                format!("0 0 0 {of_a}"),
                "0 0 0 edge-1 b.db id-of-b.db 2026-01-01T16:00:00Z".to_owned(),
            ]
        );
        let gaps = "2026-01-01T16:00:00Z/2026-01-02T00:00:00Z closed; \
                    counts of epoch 3 after 2026-11-02T01:00:00Z missing?";
        assert_eq!(cells(&several, &["ledger_gaps"])[3], gaps);
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
