//! The manual agrees with the program: log lines, fields and outcomes.

use std::fs;
use std::path::{Path, PathBuf};

use tallygate::model::Outcome;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the cells of every row of the table with this heading.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let rows = text.lines().skip_while(|line| *line != heading).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {heading}");
    rows
}

/// Returns the texts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns all source text, with string literals that span several lines joined.
fn source() -> String {
    fn add(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                add(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    text
}

#[test]
fn every_log_line_of_the_manual_is_in_the_program() {
    let (manual, source) = (read("docs/operations.md"), source());
    for row in table(&manual, "| level | message | what to do |") {
        for message in quoted(&row[1]) {
            assert!(source.contains(&format!("\"{message}\"")), "{message:?} is in no source file");
        }
    }
}

#[test]
fn every_log_field_of_the_manual_is_in_the_program() {
    let (manual, source) = (read("docs/operations.md"), source());
    for row in table(&manual, "| field | meaning |") {
        for field in quoted(&row[0]) {
            let is_written = [" = ", ", ", ",\n"].iter().any(|after| {
                ["%", "?", " ", "("].iter().any(|before| source.contains(&format!("{before}{field}{after}")))
            });
            assert!(is_written, "{field:?} is in no log line");
        }
    }
}

#[test]
fn every_outcome_is_explained_with_its_status_and_its_blame() {
    let manual = read("docs/outcomes.md");
    let refused =
        "| outcome and `urn:tallygate:problem:*` | status | gRPC | blame | what it means | what the caller should do |";
    let finished = "| outcome | status | gRPC | blame | costs units | what it means | what the caller should do |";
    let rows = [table(&manual, refused), table(&manual, finished)].concat();
    assert_eq!(rows.len(), Outcome::all().count());
    for outcome in Outcome::all() {
        let row = rows.iter().find(|row| row[0] == format!("`{outcome}`"));
        let row = row.unwrap_or_else(|| panic!("docs/outcomes.md lacks {outcome}"));
        assert_eq!(row[3], outcome.blame().name(), "{outcome}");
    }
    let statuses = [
        ("malformed", "400"),
        ("unauthenticated", "401"),
        ("misdirected", "421"),
        ("unknown_command", "404"),
        ("forbidden", "403"),
        ("rate_limited", "429"),
        ("too_many_concurrent", "429"),
        ("quota_exceeded", "429"),
        ("overloaded", "503"),
        ("ledger_unavailable", "503"),
        ("too_large", "413"),
        ("unreachable", "502"),
        ("upstream_failed", "502"),
        ("timeout", "504"),
    ];
    for (outcome, status) in statuses {
        let row = rows.iter().find(|row| row[0] == format!("`{outcome}`")).unwrap();
        assert!(row[1].starts_with(status), "{outcome}: {}", row[1]);
    }
}

/// An invalid configuration needs a correction by an operator, so a restart does not help. Other failures may be
/// temporary.
#[test]
fn systemd_unit_restarts_unless_the_command_line_is_invalid() {
    let unit = read("deploy/systemd/tallygate.service");
    let key = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(key("Restart"), Some("on-failure"));
    assert_eq!(key("RestartPreventExitStatus"), Some("2"));
    assert_eq!(key("StartLimitIntervalSec"), Some("0"));
}
