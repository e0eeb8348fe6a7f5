//! The audit: callers' log = subsystems' logs = ledger = the SQL view for finance = `/metrics` = access log.

use std::collections::BTreeMap;
use std::path::Path;

use tallygate::ledger::LedgerFiles;
use tallygate::model::{Finished, Window};

use super::client::{Seen, Sent};
use super::subsystem::Received;

/// The dimensions of one row of usage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub department: String,
    pub subsystem: String,
    pub command: String,
    pub outcome: String,
}

/// The counts of one row of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub commands: u64,
    pub units: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// All usage of a ledger, over all windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage(pub BTreeMap<Key, Count>);

impl Usage {
    /// Reads usage from the ledger's files, book and tally, live or not.
    pub fn of_files(book: &Path) -> Self {
        let files = LedgerFiles::open(book).expect("the ledger opens");
        let mut usage = Self::default();
        for row in files.usage_by_hour(Window(0)..Window(u32::MAX)).expect("the ledger is read") {
            let key = Key {
                department: row.department.to_string(),
                subsystem: row.subsystem.to_string(),
                command: row.command.to_string(),
                outcome: row.outcome.to_string(),
            };
            usage.add(
                key,
                Count {
                    commands: row.totals.commands,
                    units: row.totals.units,
                    request_bytes: row.totals.request_bytes,
                    response_bytes: row.totals.response_bytes,
                },
            );
        }
        usage
    }

    /// Reads usage from the SQL view for finance.
    pub fn of_view(book: &Path) -> Self {
        let book = rusqlite::Connection::open_with_flags(book, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut select = book
            .prepare(
                "SELECT department, subsystem, command, outcome, commands, units, request_bytes, response_bytes \
                 FROM usage_hourly",
            )
            .expect("the view is there");
        let mut usage = Self::default();
        let mut rows = select.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let key = Key {
                department: row.get(0).unwrap(),
                subsystem: row.get(1).unwrap(),
                command: row.get(2).unwrap(),
                outcome: row.get(3).unwrap(),
            };
            let number = |column: usize| u64::try_from(row.get::<_, i64>(column).unwrap()).unwrap();
            usage.add(
                key,
                Count { commands: number(4), units: number(5), request_bytes: number(6), response_bytes: number(7) },
            );
        }
        usage
    }

    fn add(&mut self, key: Key, count: Count) {
        if count == Count::default() {
            return;
        }
        let sum = self.0.entry(key).or_default();
        sum.commands += count.commands;
        sum.units += count.units;
        sum.request_bytes += count.request_bytes;
        sum.response_bytes += count.response_bytes;
    }

    /// Returns the number of commands of a department with this outcome.
    pub fn of(&self, department: &str, outcome: &str) -> u64 {
        self.sum(|key| key.department == department && key.outcome == outcome)
    }

    /// Returns the number of commands in the rows that match.
    pub fn sum(&self, fits: impl Fn(&Key) -> bool) -> u64 {
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, count)| count.commands).sum()
    }

    /// Returns the sums of a department over admitted commands.
    pub fn admitted(&self, department: &str) -> Count {
        let mut sum = Count::default();
        for (key, count) in self.0.iter().filter(|(key, _)| key.department == department && is_admitted(&key.outcome)) {
            let _ = key;
            sum.commands += count.commands;
            sum.units += count.units;
            sum.request_bytes += count.request_bytes;
            sum.response_bytes += count.response_bytes;
        }
        sum
    }

    fn departments(&self) -> Vec<&str> {
        let mut departments: Vec<_> = self.0.keys().map(|key| key.department.as_str()).collect();
        departments.dedup();
        departments
    }

    /// Returns only the numbers of commands, as `/metrics` shows them.
    pub fn commands(&self) -> BTreeMap<Key, u64> {
        let commands = self.0.iter().map(|(key, count)| (key.clone(), count.commands));
        commands.filter(|(_, commands)| *commands > 0).collect()
    }
}

fn is_admitted(outcome: &str) -> bool {
    Finished::ALL.iter().any(|finished| finished.name() == outcome)
}

/// Compares the callers' log with the ledger.
pub fn callers_agree(sent: &[Sent], ledger: &Usage) {
    let mut departments: Vec<&str> = sent.iter().map(|sent| sent.department.as_str()).collect();
    departments.extend(ledger.departments());
    departments.sort_unstable();
    departments.dedup();
    refusals_without_room_agree(sent, ledger);
    for department in departments {
        let sent: Vec<_> = sent.iter().filter(|sent| sent.department == department).collect();
        callers_of_one_department_agree(department, &sent, ledger);
    }
}

/// The outcome of a command for which the ledger has no space. If there is no space for the department's name, the
/// command is counted under `unknown`.
const NO_ROOM: &str = "ledger_unavailable";

fn refusals_without_room_agree(sent: &[Sent], ledger: &Usage) {
    let open = sent.iter().filter(|sent| sent.seen == Seen::Open).count() as u64;
    let seen = sent.iter().filter(|sent| sent.seen == Seen::Outcome(NO_ROOM)).count() as u64;
    let counted = ledger.sum(|key| key.outcome == NO_ROOM);
    assert!((seen..=seen + open).contains(&counted), "{seen} saw {NO_ROOM}, the ledger holds {counted}: {ledger:#?}");
}

/// Requires a ledger row with the same outcome for every whole response. Further ledger rows must be covered by
/// requests whose end the caller did not see.
fn callers_of_one_department_agree(department: &str, sent: &[&Sent], ledger: &Usage) {
    let open = sent.iter().filter(|sent| sent.seen == Seen::Open).count() as u64;
    let mut beyond = 0;
    let outcomes = tallygate::model::Outcome::all().map(tallygate::model::Outcome::name);
    for outcome in outcomes.into_iter().filter(|outcome| *outcome != NO_ROOM) {
        let seen = sent.iter().filter(|sent| sent.seen == Seen::Outcome(outcome)).count() as u64;
        let counted = ledger.of(department, outcome);
        assert!(
            counted >= seen,
            "{department} saw {seen} commands end with {outcome}, the ledger holds {counted}: {ledger:#?}"
        );
        beyond += counted - seen;
    }
    assert!(
        beyond <= open,
        "the ledger holds {beyond} commands of {department} without a response, only {open} were left open: \
         {ledger:#?} {sent:#?}"
    );
    if open == 0 && sent.iter().all(|sent| sent.request_bytes.is_some()) {
        bytes_agree(department, sent, ledger);
    }
}

/// Requires exact bytes if every response was whole and came from the subsystem.
fn bytes_agree(department: &str, sent: &[&Sent], ledger: &Usage) {
    let from_subsystem = |sent: &&&Sent| matches!(sent.seen, Seen::Outcome("ok" | "client_error" | "server_error"));
    let ours = ["unreachable", "upstream_failed", "timeout", "aborted", "interrupted"];
    if ours.iter().any(|outcome| ledger.of(department, outcome) > 0) {
        return;
    }
    let admitted = ledger.admitted(department);
    let up: u64 = sent.iter().filter(from_subsystem).filter_map(|sent| sent.request_bytes).sum();
    let down: u64 = sent.iter().filter(from_subsystem).map(|sent| sent.response_bytes).sum();
    assert_eq!((admitted.request_bytes, admitted.response_bytes), (up, down), "bytes of {department}: {ledger:#?}");
}

/// Compares the subsystems' logs with the ledger. A request arrives once, except safe requests that were sent again;
/// the test gives their number.
pub fn subsystems_agree(
    received: &[Received],
    (answered_here, sent_again): (&BTreeMap<(String, String), u64>, u64),
    ledger: &Usage,
) {
    let mut ids = std::collections::HashSet::new();
    let mut counted = answered_here.clone();
    let mut again = 0;
    for request in received {
        let id = request.header("x-request-id");
        assert!(!id.is_empty(), "a request without an id reached a subsystem: {request:#?}");
        if !ids.insert(id) {
            again += 1;
            let is_safe = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS") && request.bytes() == 0;
            assert!(is_safe && again <= sent_again, "{id} reached its subsystem twice: {request:#?}");
            continue;
        }
        *counted.entry((request.department().to_owned(), request.command().to_owned())).or_default() += 1;
    }
    assert_eq!(again, sent_again, "requests that reached their subsystem twice");
    for ((department, command), arrived) in &counted {
        let of = |outcomes: &[&str]| {
            ledger.sum(|key| {
                key.department == *department
                    && format!("{}/{}", key.subsystem, key.command) == *command
                    && outcomes.contains(&key.outcome.as_str())
            })
        };
        let answered = of(&["ok", "client_error", "server_error"]);
        let sent_on = answered + of(&["upstream_failed", "timeout", "aborted", "interrupted"]);
        assert!(
            (answered..=sent_on).contains(arrived),
            "{department} {command}: {arrived} reached the subsystem, the ledger holds {answered} answered and {sent_on} \
             sent on: {ledger:#?}"
        );
    }
    let unsent = ledger.0.iter().filter(|(key, _)| key.outcome == "unreachable");
    let unsent: u64 = unsent.map(|(_, count)| count.units).sum();
    assert_eq!(unsent, 0, "units were charged for commands that never reached a subsystem: {ledger:#?}");
    let answered = ledger.sum(|key| matches!(key.outcome.as_str(), "ok" | "client_error" | "server_error"));
    let arrived: u64 = counted.values().sum();
    assert!(arrived >= answered, "{answered} were answered but only {arrived} reached a subsystem");
}

/// Compares the lines of the access log with the ledger: commands, units and bytes of each series and outcome.
pub fn access_log_agrees(text: &str, ledger: &Usage) {
    if ledger.sum(|key| key.outcome == NO_ROOM) > 0 {
        return; // the ledger may have counted them under other names
    }
    assert_eq!(Usage::of_access_log(text), *ledger, "the access log and the ledger differ");
}

impl Usage {
    /// Reads usage from the lines of an access log in JSON. Every command must have a line.
    pub fn of_access_log(text: &str) -> Self {
        let mut usage = Self::default();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let name = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key} is missing: {line}")).to_owned();
            let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} is missing: {line}"));
            let key = Key {
                department: name("department"),
                subsystem: name("subsystem"),
                command: name("command"),
                outcome: name("outcome"),
            };
            usage.add(
                key,
                Count {
                    commands: 1,
                    units: number("units"),
                    request_bytes: number("request_bytes"),
                    response_bytes: number("response_bytes"),
                },
            );
        }
        usage
    }
}
