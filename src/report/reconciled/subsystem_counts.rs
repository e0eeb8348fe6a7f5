//! A subsystem's own counts: a CSV file with a header and the columns `department`, `day` and `commands`, and on wish
//! `subsystem`. Other columns are ignored.
//!
//! Guarantees:
//! - Lines of the same department and day are added up: a subsystem may have several servers.
//! - A line that cannot be read is an error with its number. None is left out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::model::Name;

/// The commands that subsystems have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubsystemCounts {
    /// By department and day.
    pub commands: BTreeMap<(String, Date), u64>,
    /// The subsystems that counted; `None` if the file does not name them, so that it is about all of them.
    pub subsystems: Option<BTreeSet<String>>,
}

/// Why a file is not [`SubsystemCounts`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSubsystemCounts {
    /// A column is missing.
    #[error(
        "it has no column {0}; its first line must be department,day,commands or department,subsystem,day,commands"
    )]
    NoColumn(&'static str),
    /// A line is not CSV.
    #[error("{0}")]
    NotCsv(String),
    /// A value cannot be read.
    #[error("line {line}: {value:?} is not {expected}")]
    BadValue {
        /// The number of the line, from 1.
        line: u64,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A sum does not fit.
    #[error("line {0}: the sum of its department and day does not fit 64 bits")]
    TooMany(u64),
    /// The file is too large.
    #[error("it has more than {0} MiB; sum it by department and day first")]
    TooLarge(u64),
    /// There is no line.
    #[error("it has no line below its header")]
    Empty,
}

/// The positions of the columns.
struct CountColumns {
    department: usize,
    day: usize,
    commands: usize,
    subsystem: Option<usize>,
}

impl SubsystemCounts {
    /// The most bytes of a file: a year of 300 departments and 100 subsystems has half of it.
    pub const BYTES_MAX: u64 = 1 << 30;

    /// Parses the content of a file. A byte order mark at its start is skipped.
    pub fn parse(text: &[u8]) -> Result<Self, BadSubsystemCounts> {
        if text.len() as u64 > Self::BYTES_MAX {
            return Err(BadSubsystemCounts::TooLarge(Self::BYTES_MAX >> 20));
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let not_csv = |error: csv::Error| BadSubsystemCounts::NotCsv(error.to_string());
        let columns = CountColumns::find(reader.headers().map_err(not_csv)?)?;
        let mut counts = Self { commands: BTreeMap::new(), subsystems: columns.subsystem.map(|_| BTreeSet::new()) };
        for record in reader.records() {
            counts.add(&record.map_err(not_csv)?, &columns)?;
        }
        if counts.commands.is_empty() { Err(BadSubsystemCounts::Empty) } else { Ok(counts) }
    }

    fn add(&mut self, record: &csv::StringRecord, columns: &CountColumns) -> Result<(), BadSubsystemCounts> {
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |position: usize| record.get(position).unwrap_or_default();
        let bad = |value: &str, expected| BadSubsystemCounts::BadValue { line, value: value.to_owned(), expected };
        let department = cell(columns.department);
        if Name::parse(department).is_err() {
            return Err(bad(department, "the id of a department"));
        }
        let day = cell(columns.day);
        let day: Date = day.parse().map_err(|_| bad(day, "a day such as 2026-10-05"))?;
        let commands = cell(columns.commands);
        let commands: u64 = commands.parse().map_err(|_| bad(commands, "a whole number"))?;
        let sum = self.commands.entry((department.to_owned(), day)).or_default();
        *sum = sum.checked_add(commands).ok_or(BadSubsystemCounts::TooMany(line))?;
        if let (Some(subsystems), Some(position)) = (&mut self.subsystems, columns.subsystem) {
            let subsystem = cell(position);
            if Name::parse(subsystem).is_err() {
                return Err(bad(subsystem, "the id of a subsystem"));
            }
            subsystems.insert(subsystem.to_owned());
        }
        Ok(())
    }

    /// Whether the counts are about a subsystem.
    pub fn covers(&self, subsystem: &str) -> bool {
        self.subsystems.as_ref().is_none_or(|subsystems| subsystems.contains(subsystem))
    }
}

impl CountColumns {
    fn find(header: &csv::StringRecord) -> Result<Self, BadSubsystemCounts> {
        let position = |name: &str| header.iter().position(|found| found.eq_ignore_ascii_case(name));
        let needed = |name: &'static str| position(name).ok_or(BadSubsystemCounts::NoColumn(name));
        Ok(Self {
            department: needed("department")?,
            day: needed("day")?,
            commands: needed("commands")?,
            subsystem: position("subsystem"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(text: &str) -> Result<String, String> {
        let counts = SubsystemCounts::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let lines =
            counts.commands.iter().map(|((department, day), commands)| format!("{department} {day} {commands}"));
        let subsystems = counts.subsystems.map(|all| all.into_iter().collect::<Vec<_>>().join("+"));
        Ok(lines.chain(subsystems).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn lines_of_a_department_and_day_are_added_up() {
        let plain = "department,day,commands\nparking,2026-10-05,7\nfire,2026-10-05,1\nparking,2026-10-05,3\n";
        assert_eq!(brief(plain).as_deref(), Ok("fire 2026-10-05 1, parking 2026-10-05 10"));
        let named = "\u{feff}Day, Subsystem,host,Department,Commands\r\n2026-10-05,cameras,a,parking,7\r\n\
                     2026-10-05,gates,b,parking,1\r\n";
        assert_eq!(brief(named).as_deref(), Ok("parking 2026-10-05 8, cameras+gates"));
        let counts = SubsystemCounts::parse(named.as_bytes()).expect("counts");
        assert_eq!(["cameras", "lights"].map(|subsystem| counts.covers(subsystem)), [true, false]);
    }

    #[test]
    fn line_that_cannot_be_read_is_named() {
        let head = "department,day,commands\nparking,2026-10-05,1\n";
        for (text, expected) in [
            ("", "it has no column department"),
            ("department;day;commands\n", "it has no column department"),
            ("department,day,commands\n", "it has no line below its header"),
            ("department,commands\na,1\n", "it has no column day"),
            (&format!("{head}parking,05.10.2026,1\n"), "line 3: \"05.10.2026\" is not a day such as 2026-10-05"),
            (&format!("{head}parking,2026-10-05,1.5\n"), "line 3: \"1.5\" is not a whole number"),
            (&format!("{head}parking,2026-10-05,-1\n"), "line 3: \"-1\" is not a whole number"),
            (&format!("{head}a b,2026-10-05,1\n"), "line 3: \"a b\" is not the id of a department"),
            (
                &format!("{head}parking,2026-10-05\n"),
                "CSV error: record 2 (line: 3, byte: 45): found record with 2 fields",
            ),
            (&format!("{head}parking,2026-10-05,{}\n", u64::MAX), "line 3: the sum of its department and day"),
            ("department,day,commands,subsystem\na,2026-10-05,1,\n", "line 2: \"\" is not the id of a subsystem"),
        ] {
            let refusal = brief(text).expect_err(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }
}
