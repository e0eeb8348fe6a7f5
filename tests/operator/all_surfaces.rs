//! One traffic, and every number of every surface: `/metrics`, `/metrics/hours`, `/api/v1/usage`, `report usage` in its
//! formats, the SQL view, the access log, the callers' log and the subsystems' logs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tallygate::clock::Clock;
use tallygate::ledger::LedgerFiles;

use crate::world::{READ, SUBMIT, Seen, Usage, World, empty, request, run, stderr, stdout, tool, until, whole};

/// Commands and units by department, subsystem, command and outcome.
type Numbers = BTreeMap<[String; 4], (u64, u64)>;

/// The same by department and subsystem.
fn by_subsystem(numbers: &Numbers) -> BTreeMap<[String; 2], (u64, u64)> {
    let mut sums: BTreeMap<[String; 2], (u64, u64)> = BTreeMap::new();
    for ([department, subsystem, ..], (commands, units)) in numbers {
        let sum = sums.entry([department.clone(), subsystem.clone()]).or_default();
        *sum = (sum.0 + commands, sum.1 + units);
    }
    sums
}

fn of_usage(usage: &Usage) -> Numbers {
    let names =
        |key: &crate::world::UsageKey| [&key.department, &key.subsystem, &key.command, &key.outcome].map(Clone::clone);
    usage.0.iter().map(|(key, count)| (names(key), (count.commands, count.units))).collect()
}

/// The rows of a usage report in JSON.
fn of_report(report: &Value) -> Numbers {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let rows = report["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let names = ["department", "subsystem", "command", "outcome"].map(|name| text(row, name));
        (names, (number(row, "commands"), number(row, "units")))
    })
    .collect()
}

/// The rows of a usage report in CSV.
fn of_csv(text: &str) -> Numbers {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let position = |name: &str| header.iter().position(|found| *found == name).unwrap();
    lines
        .map(|cells| {
            let number = |name: &str| cells[position(name)].parse().unwrap();
            let names = ["department", "subsystem", "command", "outcome"].map(|name| cells[position(name)].to_owned());
            (names, (number("commands"), number("units")))
        })
        .collect()
}

/// The rows of a usage report as a table for people, whose numbers have no thousands here.
fn of_table(text: &str) -> Numbers {
    let rows = text.lines().skip_while(|line| !line.starts_with(" department")).skip(1);
    let rows = rows.map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.take_while(|cells| cells.first() != Some(&"total"))
        .map(|cells| {
            // The department's name is between its id and the subsystem.
            let at = cells.iter().position(|cell| *cell == "cameras" || *cell == "unknown").unwrap();
            let names = [cells[0], cells[at], cells[at + 1], cells[at + 2]].map(str::to_owned);
            (names, (cells[at + 3].parse().unwrap(), cells[at + 4].parse().unwrap()))
        })
        .collect()
}

/// The samples of a page of hours, summed over its hours.
fn of_hours(page: &str) -> BTreeMap<[String; 2], (u64, u64)> {
    let mut sums: BTreeMap<[String; 2], (u64, u64)> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("tallygate_usage_hour_") && line.contains("subsystem=")) {
        let label =
            |name: &str| line.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let value: u64 = line.rsplit(' ').nth(1).unwrap().parse().unwrap();
        let sum = sums.entry([label("department"), label("subsystem")]).or_default();
        match line.starts_with("tallygate_usage_hour_commands{") {
            true => sum.0 += value,
            false => sum.1 += value,
        }
    }
    sums
}

/// Traffic of every department over both protocols, with answers, refusals, errors and units.
async fn traffic(world: &World) {
    let [first, second] = world.clients("traffic-police");
    for client in [&first, &second] {
        for _ in 0..5 {
            assert_eq!(client.get(READ).await.status, 200);
        }
        assert_eq!(client.send(request("POST", SUBMIT, whole("a snapshot"))).await.status, 200);
        assert_eq!(client.get("/cameras/do/status-404").await.status, 404);
    }
    for _ in 0..3 {
        assert_eq!(world.client("logistics").get(READ).await.status, 200);
    }
    assert_eq!(world.client("logistics").send(request("POST", SUBMIT, empty())).await.status, 403);
    assert_eq!(world.client("archive").get(READ).await.status, 403);
    assert_eq!(world.client("archive").get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn every_surface_shows_the_same_numbers() {
    let plan = World::city().clock(Clock::manual("2026-10-31T14:30:00Z".parse().unwrap()));
    let plan = plan.edit(|document| document["subsystems"][0]["commands"][0]["units"] = json!(3));
    let world = plan.start().await;
    let files = LedgerFiles::open(&world.book()).unwrap();
    until("the departments are in the book", async || (files.department_names().unwrap().len() == 3).then_some(()))
        .await;
    traffic(&world).await;
    world.clock.advance(Duration::from_secs(3600)); // 23:30 in +08:00 on the last day of the month
    traffic(&world).await;
    world.clock.advance(Duration::from_secs(3600)); // in the next month, with nothing in it
    let hours = until("both hours are sealed", async || {
        let (_, page) = world.admin("/metrics/hours?back=4").await;
        page.contains(" 1793462340000\n").then_some(page)
    })
    .await;

    // The ledger by its own reader is what everything is compared with.
    let usage = world.usage();
    let numbers = of_usage(&usage);
    let callers = world.log.all();
    assert_eq!(callers.len() as u64, usage.sum(|_| true), "one line of a caller for each command");
    assert!(
        numbers.values().any(|(commands, units)| units > commands),
        "some commands cost several units: {numbers:?}"
    );

    assert_eq!(of_usage(&Usage::of_view(&world.book())), numbers, "the SQL view");
    let mut sqlite3 = tool("sqlite3");
    sqlite3.args(["-readonly", "-separator", ","]).arg(world.book()).arg(
        "SELECT department, subsystem, command, outcome, sum(commands), sum(units) FROM usage_hourly GROUP BY 1, 2, 3, 4",
    );
    let lines = stdout(&run(sqlite3).await);
    let header = "department,subsystem,command,outcome,commands,units\n";
    assert_eq!(of_csv(&format!("{header}{lines}")), numbers, "sqlite3 on the view");

    let metrics = world.metrics().await;
    assert_eq!(metrics.commands(), usage.commands(), "/metrics");
    let mut units: BTreeMap<String, i64> = BTreeMap::new();
    for ([department, ..], (_, more)) in &numbers {
        *units.entry(department.clone()).or_default() += i64::try_from(*more).unwrap();
    }
    assert_eq!(metrics.sum("tallygate_command_units_total"), units.values().sum::<i64>(), "units in /metrics");

    assert_eq!(of_hours(&hours), by_subsystem(&numbers), "/metrics/hours");

    let (status, api) = world.admin("/api/v1/usage?period=2026-10").await;
    assert_eq!(status, 200, "{api}");
    assert_eq!(of_report(&serde_json::from_str(&api).unwrap()), numbers, "/api/v1/usage");
    let report = async |format: &str| {
        let arguments = ["report", "usage", "--ledger", "data/ledger.db", "--period", "2026-10", "--format", format];
        let ended = run(world.tallygate(&arguments)).await;
        assert!(ended.status.success(), "{}", stderr(&ended));
        stdout(&ended)
    };
    assert_eq!(of_report(&serde_json::from_str(&report("json").await).unwrap()), numbers, "report usage, json");
    assert_eq!(of_csv(&report("csv").await), numbers, "report usage, csv");
    let table = report("table").await;
    assert_eq!(of_table(&table), numbers, "report usage, table:\n{table}");

    let access_log = until("the access log is written", async || {
        let lines = world.access_log();
        (lines.len() == callers.len()).then(|| lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    })
    .await;
    assert_eq!(of_usage(&Usage::of_access_log(&access_log)), numbers, "the access log");

    let outcomes = |department: &str| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for sent in callers.iter().filter(|sent| sent.department == department) {
            let Seen::Outcome(outcome) = sent.seen else { panic!("an open end: {sent:?}") };
            *counts.entry(outcome).or_default() += 1;
        }
        counts
    };
    for department in ["traffic-police", "logistics", "archive"] {
        for (outcome, commands) in outcomes(department) {
            assert_eq!(usage.of(department, outcome), commands, "the callers' log: {department} {outcome}");
        }
    }
    let mut received: BTreeMap<[String; 2], u64> = BTreeMap::new();
    for one in world.server("cameras").log.all() {
        *received.entry([one.department().to_owned(), one.command().to_owned()]).or_default() += 1;
    }
    let mut answered: BTreeMap<[String; 2], u64> = BTreeMap::new();
    for ([department, subsystem, command, outcome], (commands, _)) in &numbers {
        if matches!(outcome.as_str(), "ok" | "client_error" | "server_error") {
            *answered.entry([department.clone(), format!("{subsystem}/{command}")]).or_default() += commands;
        }
    }
    assert_eq!(received, answered, "the subsystem's log");
    world.close().await;
}
