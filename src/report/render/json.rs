//! JSON: the output of `report usage --format json` and of `/api/v1/usage`.
//!
//! Numbers are integers of up to 64 bits, as in the ledger.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::ledger::Measures;
use crate::report::{GroupKey, ReportRow, UsageReport};

/// Renders one object:
/// - `from`, `to`, `calendar`, `by`, `rows`, `total`;
/// - of chosen measures `state`, otherwise `adjustments` and `net_units`;
/// - for a ledger also `made_at` and `completeness`: gateway, state, the reason why the period is open, lost counts,
///   first and last usage;
/// - for ledgers of the command line also `ledgers`: path, identity, reach, gaps and completeness of each.
pub fn render_json(usage: &UsageReport) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&JsonReport(usage))?;
    text.push('\n');
    Ok(text)
}

struct JsonReport<'a>(&'a UsageReport);
struct JsonRow<'a>(&'a UsageReport, &'a ReportRow);
struct JsonMeasures<'a>(&'a UsageReport, &'a Measures);

impl Serialize for JsonReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let usage = self.0;
        let by: Vec<_> = usage.group_by.keys().iter().map(|key| key.name()).collect();
        let rows: Vec<_> = usage.rows.iter().map(|row| JsonRow(usage, row)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("from", &usage.range.from.to_string())?;
        map.serialize_entry("to", &usage.range.to.to_string())?;
        map.serialize_entry("calendar", &usage.calendar.to_string())?;
        map.serialize_entry("by", &by)?;
        map.serialize_entry("rows", &rows)?;
        map.serialize_entry("total", &JsonMeasures(usage, &usage.total))?;
        match usage.chosen {
            Some(chosen) => map.serialize_entry("state", chosen.state.name())?,
            None => {
                map.serialize_entry("adjustments", &usage.adjustments)?;
                map.serialize_entry("net_units", &usage.net_units())?;
            }
        }
        if let Some(coverage) = &usage.coverage {
            map.serialize_entry("made_at", &coverage.made_at)?;
            map.serialize_entry("completeness", &coverage.completeness)?;
        }
        if !usage.ledgers.is_empty() {
            map.serialize_entry("ledgers", &usage.ledgers)?;
        }
        map.end()
    }
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(usage, row) = self;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in usage.group_by.keys().iter().zip(&row.keys) {
            map.serialize_entry(key.name(), value)?;
            if *key == GroupKey::Department && !usage.names.is_empty() {
                map.serialize_entry("department_name", usage.department_name(value))?;
            }
        }
        let shown = usage.shown_measures();
        for (name, number) in shown.names().zip(shown.select(row.totals.as_array())) {
            map.serialize_entry(name, &number)?;
        }
        map.end()
    }
}

impl Serialize for JsonMeasures<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(usage, totals) = self;
        let shown = usage.shown_measures();
        serializer.collect_map(shown.names().zip(shown.select(totals.as_array())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage_report::tests::{correction, ledger, usage};

    #[test]
    fn document_says_what_it_covers() {
        let text = render_json(&usage("outcome")).expect("it renders");
        let expected = r#"{
  "from": "1970-01-01T00:00:00Z",
  "to": "2027-01-15T08:00:00Z",
  "calendar": "+08:00",
  "by": [
    "outcome"
  ],
  "rows": [
    {
      "outcome": "forbidden",
      "commands": 8,
      "units": 16,
      "request_bytes": 8000,
      "response_bytes": 80,
      "duration_ns": 8000000
    },
    {
      "outcome": "ok",
      "commands": 7,
      "units": 14,
      "request_bytes": 7000,
      "response_bytes": 70,
      "duration_ns": 7000000
    }
  ],
  "total": {
    "commands": 15,
    "units": 30,
    "request_bytes": 15000,
    "response_bytes": 150,
    "duration_ns": 15000000
  },
  "adjustments": [],
  "net_units": 30
}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn document_says_whether_the_period_can_still_change() {
        let mut usage = usage("department");
        usage.coverage = Some(crate::report::usage_report::tests::coverage());
        usage.names = [("police".to_owned(), "Police Bureau".to_owned())].into();
        let text = render_json(&usage).expect("it renders");
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(document.get("ledgers").is_none(), "the gateway's own ledger: {text}");
        assert_eq!(document["completeness"]["state"], "open", "{text}");
        assert_eq!(document["completeness"]["lost_counts"][0]["epoch"], 3, "{text}");
        assert_eq!(document["made_at"], "2026-11-29T22:00:00Z", "{text}");
        assert_eq!(document["rows"][1]["department_name"], "Police Bureau", "{text}");
    }

    #[test]
    fn document_says_how_far_each_ledger_reaches() {
        let mut usage = usage("department");
        usage.ledgers = vec![ledger("a.db", "edge-0"), ledger("b.db", "edge-1")];
        usage.adjustments = vec![correction("2026-01", -5)];
        usage.adjustments[0].ledger = Some("b.db".to_owned());
        let text = render_json(&usage).expect("it renders");
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for (pointer, expected) in [
            ("/ledgers/0/path", "a.db"),
            ("/ledgers/1/path", "b.db"),
            ("/ledgers/1/id", "id-of-b.db"),
            ("/ledgers/1/begins", "2026-01-01T15:00:00Z"),
            ("/ledgers/1/complete_to", "2026-01-01T16:00:00Z"),
            ("/ledgers/1/gaps/0/why", "closed"),
            ("/ledgers/1/completeness/gateway", "edge-1"),
            ("/adjustments/0/ledger", "b.db"),
            ("/adjustments/0/period", "2026-01"),
        ] {
            assert_eq!(document.pointer(pointer).and_then(|found| found.as_str()), Some(expected), "{pointer} {text}");
        }
    }
}
