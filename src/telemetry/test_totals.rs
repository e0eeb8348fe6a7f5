//! Totals for the tests of this module.

use jiff::Timestamp;

use crate::ledger::{LedgerTotals, Measures, SeriesTotals, UsageRow};
use crate::model::{Finished, Name, Outcome, Refused, Window};

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A series of `cameras/snapshot.submit` with three admitted commands, of which two succeeded, and one refused command.
pub(crate) fn series(department: &str) -> SeriesTotals {
    let mut finished = [0; Finished::ALL.len()];
    finished[Finished::Ok.index()] = 2;
    let mut refused = [0; Refused::ALL.len()];
    refused[Refused::RateLimited.index()] = 1;
    SeriesTotals {
        department: name(department),
        subsystem: name("cameras"),
        command: name("snapshot.submit"),
        admitted: 3,
        units: 6,
        request_bytes: 100,
        response_bytes: 10,
        finished,
        refused,
    }
}

pub(crate) fn totals(departments: &[&str]) -> LedgerTotals {
    LedgerTotals { series: departments.iter().map(|one| series(one)).collect(), ..LedgerTotals::default() }
}

pub(crate) fn usage(department: &str, hour: &str, commands: u64) -> UsageRow {
    let start: Timestamp = hour.parse().expect("a time");
    UsageRow {
        window: Window::of_unix_seconds(start.as_second()),
        department: name(department),
        subsystem: name("cameras"),
        command: name("snapshot.submit"),
        outcome: Outcome::Finished(Finished::Ok),
        totals: Measures { commands, units: 2 * commands, ..Measures::default() },
    }
}
