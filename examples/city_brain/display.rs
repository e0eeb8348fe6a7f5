//! The demo's output: what runs at which address, a live table of commands per department, and commands to try next.
#![expect(clippy::print_stdout, reason = "showing is this file's job")]

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use tallygate::model::Refused;
use tallygate::report::render::TableTarget;
use tallygate::report::render::fitted_table::{ColumnHeading, FittedTable};
use tokio::time::Instant;

use crate::books::Comparison;
use crate::gateway::Gateway;
use crate::morning::Reconciliation;
use crate::options::{ADMIN_PORT, Home, PORT};
use crate::pki::{Pki, YOU};
use crate::prometheus::Prometheus;
use crate::scrape::{Sample, scrape};

const REDRAW: Duration = Duration::from_secs(1);
/// Interval of the lines that replace the table when stdout is a pipe.
const LINE_EVERY: u64 = 5;
/// Lines of the live table that are not departments: borders, heading, number of omitted departments, time, cursor
/// line.
const LINES_AROUND: usize = 8;
/// The height of a terminal that does not report it.
const USUAL_LINES: u16 = 24;

fn rows_of_stdout() -> u16 {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map(|size| size.ws_row).ok().filter(|rows| *rows > 0).unwrap_or(USUAL_LINES)
}

/// Prints the running parts and their addresses.
pub(crate) fn introduce(gateway: &Gateway, home: &Home, prometheus: Option<&Prometheus>) {
    println!("The city is open. Departments call https://{} with client certificates.", gateway.traffic);
    println!("Metrics:       http://{}/metrics", gateway.admin);
    match prometheus {
        Some(prometheus) => println!("Prometheus:    {}", prometheus.url()),
        None => println!("Prometheus:    not installed (Debian: apt-get install prometheus), so it is left out"),
    }
    println!("Clock:         one to two hours behind, so that the hours of the day are over, and sealed, at its end");
    println!("Configuration: {}/city.yaml   Log: {0}/gateway.log", home.path().display());
}

/// Shows the live table until the future is dropped.
pub(crate) async fn watch(gateway: &Gateway) {
    let mut screen = Screen::new();
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        ticks.tick().await;
        match scrape(gateway.admin).await {
            Ok(samples) => screen.show(&departments(&samples)),
            Err(problem) => println!("no metrics: {problem:#}"),
        }
    }
}

/// The commands of one department so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Department {
    ok: u64,
    otherwise: u64,
    refused: BTreeMap<String, u64>,
}

impl Department {
    fn total(&self) -> u64 {
        self.ok + self.otherwise + self.refused.values().sum::<u64>()
    }
}

type Departments = BTreeMap<String, Department>;

fn departments(samples: &[Sample]) -> Departments {
    let mut departments = Departments::new();
    for sample in samples.iter().filter(|sample| sample.commands > 0) {
        let department = departments.entry(sample.line.department.clone()).or_default();
        match sample.outcome.as_str() {
            "ok" => department.ok += sample.commands,
            outcome if is_refusal(outcome) => *department.refused.entry(outcome.into()).or_default() += sample.commands,
            _ => department.otherwise += sample.commands,
        }
    }
    departments
}

fn is_refusal(outcome: &str) -> bool {
    Refused::ALL.iter().any(|refused| refused.name() == outcome)
}

/// The state of the last drawing, for rates and for drawing over it.
struct Screen {
    opened: Instant,
    terminal: bool,
    drawn_lines: usize,
    frames: u64,
    before: Departments,
}

impl Screen {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { opened: Instant::now(), terminal, drawn_lines: 0, frames: 0, before: Departments::new() }
    }

    fn show(&mut self, now: &Departments) {
        self.frames += 1;
        if self.terminal {
            self.redraw(now);
        } else if self.frames.is_multiple_of(LINE_EVERY) {
            println!("{}", self.summary(now));
        }
        self.before = now.clone();
    }

    fn redraw(&mut self, now: &Departments) {
        if self.drawn_lines > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn_lines); // cursor up, clear to the end; no line is wrapped
        }
        let text = format!("{}{} s; Ctrl-C ends the day.", self.table(now), self.opened.elapsed().as_secs());
        println!("{text}");
        self.drawn_lines = text.lines().count();
    }

    /// The table of the departments with the most commands, at most as many as fit into the terminal.
    fn table(&self, now: &Departments) -> String {
        let mut table = FittedTable::new([
            ColumnHeading::text("department"),
            ColumnHeading::number("commands"),
            ColumnHeading::number("per second").droppable(2),
            ColumnHeading::number("ok"),
            ColumnHeading::number("failed").droppable(1),
            ColumnHeading::text("refused").droppable(3),
        ]);
        let mut busiest: Vec<_> = now.iter().collect();
        busiest.sort_by_key(|(_, department)| std::cmp::Reverse(department.total()));
        let room = usize::from(rows_of_stdout()).saturating_sub(LINES_AROUND).max(1);
        let left_out = busiest.len().saturating_sub(room);
        for (name, department) in busiest.into_iter().take(room) {
            let before = self.before.get(name).map_or(0, Department::total);
            let numbers = [department.total(), department.total() - before, department.ok, department.otherwise];
            let cells = std::iter::once(name.clone()).chain(numbers.map(|number| number.to_string()));
            table.add_row(cells.chain([reasons(department)]));
        }
        match left_out {
            0 => table.render(TableTarget::from_stdout()),
            _ => format!("{}and {left_out} more departments\n", table.render(TableTarget::from_stdout())),
        }
    }

    fn summary(&self, now: &Departments) -> String {
        let each: Vec<_> = now.iter().map(|(name, department)| format!("{name} {}", department.total())).collect();
        let total: u64 = now.values().map(Department::total).sum();
        format!("{:>4} s  {total} commands: {}", self.opened.elapsed().as_secs(), each.join(", "))
    }
}

fn reasons(department: &Department) -> String {
    let reasons: Vec<_> = department.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.join(", ")
}

/// Prints commands to try in another terminal while the city is open.
pub(crate) fn invite(gateway: &Gateway, pki: &Pki) {
    println!("\nTry it yourself in another terminal; the certificate says that the department is `{YOU}`:");
    println!("{}\n", commands_to_try(gateway.traffic.port(), gateway.admin.port(), pki));
}

fn commands_to_try(port: u16, admin_port: u16, pki: &Pki) -> String {
    let (authority, certificate, key) = (pki.authority(), pki.certificate(YOU), pki.key(YOU));
    let (authority, certificate, key) = (authority.display(), certificate.display(), key.display());
    let curl = format!("  curl --cacert {authority} --cert {certificate} --key {key} https://localhost:{port}");
    format!(
        "{curl}/parking/v1/lots/7\n{curl}/cameras/v1/snapshots/1   # no grant: 403\n  \
         curl http://127.0.0.1:{admin_port}/metrics | grep '\"{YOU}\"'"
    )
}

/// Prints the final tables and the result.
pub(crate) fn conclude(usage: &str, comparison: &Comparison) {
    println!("\nUsage, from the ledger:\n{usage}");
    println!("Counted by the ledger, received by the subsystems, answered to the departments:");
    println!("{}", comparison.table());
    if comparison.is_balanced() {
        println!("The books balance: all three counted the same.");
    } else {
        println!("THE BOOKS DO NOT BALANCE: see the lines marked DIFFERENT, and gateway.log.");
    }
}

/// Prints the comparison of Prometheus and ledger. Returns whether they agree.
pub(crate) fn show_reconciliation(reconciliation: &Reconciliation) -> bool {
    println!("\nThe hours of the city are over. The gateway has started once more and sealed them, and Prometheus has");
    println!("scraped them. Compared by: {}", reconciliation.command);
    print!("{}", reconciliation.report);
    if !reconciliation.is_agreed {
        println!("PROMETHEUS AND THE LEDGER DO NOT AGREE: see prometheus.log and gateway.log.");
    }
    reconciliation.is_agreed
}

/// Prints suggestions for next steps.
pub(crate) fn say_next(home: &Home) {
    if home.is_kept() {
        let ledger = home.ledger();
        println!("\nThe ledger stays: sqlite3 {} 'SELECT * FROM usage_hourly'", ledger.display());
        return;
    }
    let folder = Path::new("/tmp/my-city");
    println!("\nNext: make demo ARGS=\"--dir {}\"", folder.display());
    println!("It stays open until Ctrl-C. Meanwhile, in another terminal, be the department `{YOU}`:");
    println!("{}", commands_to_try(PORT, ADMIN_PORT, &Pki::of(folder)));
}
