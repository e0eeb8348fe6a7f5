//! `report reconcile` on a real Prometheus with a known history: hours that it lacks for every cause, over midnight and
//! over the edge of a month, hours of two gateways, and an edited value. Every number is compared with the ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tallygate::ledger::LedgerFiles;
use tallygate::model::Window;

use super::scraped_usage::fake_prometheus;
use super::sealed_hours::{History, prometheus_on, seconds};
use super::third_party_tools::{query_at, value_of};
use crate::world::{Process, reserve_address, run, stderr, stdout, tool, until};

/// The labels that the scrapes of the gateway add.
const LABELS: [&str; 4] = ["--label", "job=tallygate-hours", "--label", "instance=g:9090"];
/// The first hour of the ledgers: 2026-09-30 00:00 in +08:00.
const START: &str = "2026-09-29T16:10:00Z";
/// The hours with usage: four days in +08:00, and one hour.
const HOURS: u32 = 97;

/// Runs `tallygate report reconcile`. Returns exit code, stdout and stderr.
pub(super) async fn reconcile(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    command.args(["report", "reconcile"]).args(arguments);
    let ended = run(command).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// Loads samples into the folder of a Prometheus.
pub(super) async fn load(samples: &Path, blocks: &Path) {
    let mut promtool = tool("promtool");
    promtool.args(["tsdb", "create-blocks-from", "--max-block-duration=768h", "openmetrics", "-q"]);
    promtool.arg(samples).arg(blocks);
    let ended = run(promtool).await;
    assert!(ended.status.success(), "{}{}", stdout(&ended), stderr(&ended));
}

/// The hour at a position, as text.
fn hour_text(position: u32) -> String {
    hour(position).to_string()
}

fn hour(position: u32) -> Window {
    Window(Window::of_unix_seconds(seconds(START)).0 + position)
}

/// Loads the hours of a range of positions.
async fn load_hours(history: &History, (from, to): (u32, u32), blocks: &Path) {
    let file = history.folder.path().join(format!("{from}.om"));
    let (from, to) = (hour_text(from), hour_text(to));
    let range = ["--format", "openmetrics", "--from", &from, "--to", &to, "--output", file.to_str().unwrap()];
    let (code, _, err) = history.export(&[&range[..], &LABELS].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    load(&file, blocks).await;
}

/// Loads samples of `up`, one a minute, from one moment to another in minutes since the first hour, with a value.
async fn load_up(history: &History, ranges: &[(u32, u32, u8)], blocks: &Path) {
    let mut text = "# TYPE up gauge\n".to_owned();
    for (from, to, value) in ranges {
        for minute in *from..*to {
            let at = hour(0).start_unix_seconds() + i64::from(minute) * 60;
            writeln!(text, "up{{job=\"tallygate-hours\",instance=\"g:9090\"}} {value} {at}").unwrap();
        }
    }
    let file = history.folder.path().join("up.om");
    std::fs::write(&file, text + "# EOF\n").unwrap();
    load(&file, blocks).await;
}

/// A ledger with usage in every hour, on a clock that has passed it.
async fn history() -> History {
    let history = History::open(START, None).await;
    for position in 0..HOURS {
        history.count(position % 3, position % 2, position % 7 + 1);
        history.pass_to(seconds(START) + i64::from(position + 1) * 3600).await;
    }
    history
}

/// A Prometheus on a folder of blocks, and its URL.
pub(super) async fn prometheus(blocks: &Path) -> (Process, SocketAddr, String) {
    let address = reserve_address();
    let process = prometheus_on(blocks, address);
    until("Prometheus answers", async || query_at(address, "vector(1)", None).await).await;
    (process, address, format!("http://{address}"))
}

pub(super) async fn stop(mut process: Process) {
    process.signal("TERM");
    process.ended().await;
}

/// The commands of some hours by department and day, from the ledger.
fn commands_of(history: &History, positions: &[u32]) -> i64 {
    let files = LedgerFiles::open(&history.book()).unwrap();
    let rows = positions.iter().flat_map(|at| files.usage_by_hour(hour(*at)..hour(at + 1)).unwrap());
    rows.map(|row| i64::try_from(row.totals.commands).unwrap()).sum()
}

/// The hours that the Prometheus lacks, by cause. Prometheus was down over the edge of a month, and the gateway was not
/// reachable over a midnight.
const ABSENT: [(&str, &[u32]); 4] = [
    ("no_data", &[0, 1, 2]),
    ("prometheus_down", &[23, 24]),
    ("gateway_unreachable", &[47, 48]),
    ("sample_refused", &[60]),
];

/// Loads all hours but those of [`ABSENT`], and `up` as it was then.
async fn load_with_gaps(history: &History, blocks: &Path) {
    for range in [(3, 23), (25, 47), (49, 60), (61, HOURS)] {
        load_hours(history, range, blocks).await;
    }
    let at = |hours: u32, minutes: u32| hours * 60 + minutes;
    let end = at(HOURS + 4, 0);
    let up = [
        (at(4, 0), at(23, 10), 1), // the first scrape is after hour 2 was offered
        (at(25, 55), at(47, 30), 1),
        (at(47, 30), at(49, 55), 0),
        (at(49, 55), end, 1),
    ];
    load_up(history, &up, blocks).await;
}

/// Every line of a CSV: its cells by column.
fn csv_lines(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|line| names.iter().map(|name| (*name).to_owned()).zip(line.split(',').map(str::to_owned)).collect())
        .collect()
}

#[tokio::test]
async fn every_missing_hour_has_its_cause_and_is_loaded_afterwards() {
    let history = history().await;
    history.count(0, 0, 4); // in the hour that is open
    history.pass_to(seconds(START) + i64::from(HOURS) * 3600 + 60).await;
    let blocks = history.folder.path().join("blocks");
    load_with_gaps(&history, &blocks).await;
    let (process, address, url) = prometheus(&blocks).await;
    let book = history.book();
    let ledger = ["--ledger", book.to_str().unwrap(), "--prometheus", url.as_str()];
    let (from, to) = (hour_text(0), hour_text(HOURS + 2));
    let all = [&ledger[..], &["--from", &from, "--to", &to]].concat();

    let (code, json, err) = reconcile(&[&all[..], &["--format", "json"]].concat()).await;
    let result = "Every difference is explained: 89 of 99 hours are equal, rest 0; the period is open\n";
    assert_eq!((code, err.as_str()), (0, result));
    let report: Value = serde_json::from_str(&json).unwrap();
    let found: BTreeMap<_, _> = report["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| {
            let number = |name: &str| cause[name].as_i64().unwrap();
            (cause["cause"].as_str().unwrap().to_owned(), (number("hours"), number("commands")))
        })
        .collect();
    let mut expected: BTreeMap<_, _> = ABSENT
        .iter()
        .map(|(cause, hours)| ((*cause).to_owned(), (hours.len() as i64, -commands_of(&history, hours))))
        .collect();
    expected.insert("not_final".to_owned(), (2, -5));
    assert_eq!(found, expected, "{json}");
    assert!(ABSENT.iter().all(|(_, hours)| commands_of(&history, hours) > 0), "each cause has a number");

    // Each line adds up, and all lines together are the ledger and the Prometheus.
    let (_, csv, _) = reconcile(&[&all[..], &["--format", "csv"]].concat()).await;
    let mut sums = BTreeMap::<String, i64>::new();
    for line in csv_lines(&csv) {
        let number = |name: &str| line[name].parse::<i64>().unwrap();
        for measure in ["commands", "units"] {
            let causes =
                ["not_final", "no_data", "prometheus_down", "gateway_unreachable", "sample_refused", "several_sources"];
            let explained: i64 = causes.iter().map(|cause| number(&format!("{cause}_{measure}"))).sum();
            let difference = number(&format!("prometheus_{measure}")) - number(&format!("ledger_{measure}"));
            assert_eq!(number(&format!("difference_{measure}")), difference, "{line:?}");
            assert_eq!(explained + number(&format!("rest_{measure}")), difference, "{line:?}");
        }
        *sums.entry("ledger".to_owned()).or_default() += number("ledger_commands");
        *sums.entry("prometheus".to_owned()).or_default() += number("prometheus_commands");
    }
    let positions: Vec<u32> = (0..=HOURS).collect();
    assert_eq!(sums["ledger"], commands_of(&history, &positions));
    let query = format!("sum(sum_over_time(tallygate_usage_hour_commands[{HOURS}h]))");
    let of_prometheus = query_at(address, &query, Some(hour(HOURS).start_unix_seconds())).await.unwrap();
    assert_eq!(u64::try_from(sums["prometheus"]).unwrap(), value_of(&of_prometheus[0]).unwrap());

    let (code, table, err) = reconcile(&all).await;
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "state     open\n",
        "hours     99, of which 89 are equal\n",
        "2026-09-30T15:00:00Z to 2026-09-30T17:00:00Z\n", // 23:00 on the last day of September to 01:00 in October
        "Prometheus was down: no sample of `up` while they were offered; load them with --missing\n",
        result,
    ] {
        assert!(table.contains(line), "{line}{table}");
    }

    // Just the missing hours, with the labels of the others.
    let missing = history.folder.path().join("missing.om");
    let to = hour_text(HOURS);
    let sealed = [&ledger[..], &["--from", &from, "--to", &to]].concat();
    let (code, _, err) = reconcile(&[&sealed[..], &["--missing", missing.to_str().unwrap()]].concat()).await;
    assert!(code == 0 && err.starts_with("8 hours written to "), "{err}");
    let samples = std::fs::read_to_string(&missing).unwrap();
    let own = r#"tallygate_usage_hour_series{instance="g:9090",job="tallygate-hours"} "#;
    let times: Vec<i64> =
        samples.lines().filter_map(|line| line.strip_prefix(own)?.split(' ').nth(1)?.parse().ok()).collect();
    let absent = ABSENT.iter().flat_map(|(_, hours)| hours.iter());
    assert_eq!(times, absent.map(|at| hour(*at).start_unix_seconds() + 3540).collect::<Vec<_>>());
    let (code, _, err) = reconcile(&[&sealed[..], &["--missing", missing.to_str().unwrap()]].concat()).await;
    assert!(code == 2 && err.contains("name a new file in an existing folder"), "{err}");
    stop(process).await;

    load(&missing, &blocks).await;
    let (process, address, url) = prometheus(&blocks).await;
    let ledger = ["--ledger", book.to_str().unwrap(), "--prometheus", url.as_str()];
    let none = history.folder.path().join("none.om");
    let sealed = [&ledger[..], &["--from", &from, "--to", &to, "--missing", none.to_str().unwrap()]].concat();
    let (code, table, err) = reconcile(&sealed).await;
    assert!(code == 0 && table.ends_with("\nPrometheus and the ledger agree: 97 of 97 hours, rest 0\n"), "{table}");
    assert!(err.starts_with("note: --missing: there is no hour to load") && !none.exists(), "{err}");
    assert!(table.contains("state     complete\n") && !table.contains("Hours that are not"), "{table}");
    // Days and months that meet at an edge share no hour.
    let mut by_day = 0;
    for (period, hours, positions) in
        [("2026-09", 24, 0..24), ("2026-09-30", 24, 0..24), ("2026-10-01", 24, 24..48), ("2026-10-02", 24, 48..72)]
    {
        let (code, table, _) = reconcile(&[&ledger[..], &["--period", period]].concat()).await;
        let agree = format!("agree: {hours} of {hours} hours, rest 0\n");
        assert!(code == 0 && table.ends_with(&agree), "{period}: {table}");
        let positions: Vec<u32> = positions.collect();
        let at = hour(positions.last().unwrap() + 1).start_unix_seconds();
        let sum = query_at(address, "sum(sum_over_time(tallygate_usage_hour_commands[24h]))", Some(at)).await.unwrap();
        let commands = commands_of(&history, &positions);
        assert_eq!(value_of(&sum[0]), u64::try_from(commands).ok(), "{period}");
        by_day += commands;
    }
    assert_eq!(by_day, commands_of(&history, &(0..24).chain(0..72).collect::<Vec<_>>()));
    stop(process).await;
}

#[tokio::test]
async fn hours_of_another_gateway_are_named_and_an_edited_value_stays_unexplained() {
    // Ledgers are told apart by the moment of their first start.
    let (history, other) = (history().await, History::open("2026-09-29T16:10:01Z", None).await);
    other.count(2, 0, 1000);
    other.pass_to(seconds(START) + 4 * 3600 + 60).await;
    let blocks = history.folder.path().join("blocks");
    load_hours(&history, (0, 10), &blocks).await;
    // A second gateway under the same job, of which the Prometheus has one hour.
    let file = other.folder.path().join("other.om");
    let (from, to) = (hour_text(0), hour_text(1));
    let range = ["--format", "openmetrics", "--from", &from, "--to", &to, "--output", file.to_str().unwrap()];
    let labels = ["--label", "job=tallygate-hours", "--label", "instance=h:9090"];
    let (code, _, err) = other.export(&[&range[..], &labels].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    load(&file, &blocks).await;
    let (process, _, url) = prometheus(&blocks).await;
    let (book, other_book) = (history.book(), other.book());
    let [book, other_book] = [&book, &other_book].map(|book| book.to_str().unwrap());
    let to = hour_text(10);
    let range = ["--prometheus", url.as_str(), "--from", &from, "--to", &to];
    let (code, table, _) = reconcile(&[&["--ledger", book][..], &range].concat()).await;
    assert!(code == 0 && table.contains("several sources +1,001 (1 hour)"), "{code} {table}");
    assert!(table.ends_with("Every difference is explained: 9 of 10 hours are equal, rest 0\n"), "{table}");
    let chosen = ["--matcher", "instance=\"g:9090\""];
    let (code, table, _) = reconcile(&[&["--ledger", book][..], &range, &chosen].concat()).await;
    assert!(code == 0 && table.ends_with("agree: 10 of 10 hours, rest 0\n"), "{table}");
    // Both ledgers: of the second one the Prometheus has the first hour only; nothing was used in the others.
    let both = ["--ledger", book, "--ledger", other_book];
    let (code, _, err) = reconcile(&[&both[..], &range].concat()).await;
    assert!(code == 2 && err.contains("several ledgers need --sum-by LABEL"), "{err}");
    let to = hour_text(4);
    let range = ["--prometheus", url.as_str(), "--from", &from, "--to", &to, "--sum-by", "instance"];
    let (code, table, _) = reconcile(&[&both[..], &range].concat()).await;
    assert!(code == 0 && table.ends_with("explained: 1 of 4 hours are equal, rest 0\n"), "{table}");
    assert!(table.contains("no data in Prometheus      3         0"), "{table}");
    stop(process).await;

    // One value of the Prometheus is edited, as is the sum of its day.
    let folder = history.folder.path();
    let original = std::fs::read_to_string(folder.join("0.om")).unwrap();
    let at = hour(7).start_unix_seconds() + 3540;
    let end = format!(" {at}");
    let edited: Vec<_> = original
        .lines()
        .map(|line| match line.strip_prefix("tallygate_usage_hour_commands{").filter(|line| line.ends_with(&end)) {
            Some(line) if line.contains("subsystem=") => {
                let (labels, _) = line.split_once("} ").unwrap();
                format!("tallygate_usage_hour_commands{{{labels}}} 3{end}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(edited.concat(), original);
    std::fs::write(folder.join("edited.om"), edited.concat()).unwrap();
    let blocks = folder.join("edited-blocks");
    load(&folder.join("edited.om"), &blocks).await;
    let (process, _, url) = prometheus(&blocks).await;
    let to = hour_text(10);
    let range = ["--ledger", book, "--prometheus", url.as_str(), "--from", &from, "--to", &to];
    let (code, table, _) = reconcile(&range).await;
    let line = format!(" {}  department-1  subsystem-1       2           3", hour(7));
    assert!(code == 1 && table.contains(&line), "{code} {line}\n{table}");
    let result = "NOT explained: rest +1 commands and +0 units in 1 value that differ from their hour; 9 of 10 hours are equal\n";
    assert!(table.ends_with(result), "{table}");
    let (code, table, _) = reconcile(&[&range[..], &["--department", "department-2"]].concat()).await;
    assert!(code == 0 && table.ends_with("agree: 10 of 10 hours, rest 0\n"), "{table}");
    stop(process).await;
}

#[tokio::test]
async fn counts_of_a_subsystem_are_a_third_column() {
    let history = history().await;
    let blocks = history.folder.path().join("blocks");
    load_hours(&history, (0, HOURS), &blocks).await;
    let (process, _, url) = prometheus(&blocks).await;
    // The subsystem has counted what was answered: all but the refused commands, one in each hour.
    let mut answered = BTreeMap::<(String, String), u64>::new();
    let mut moved = BTreeMap::<(String, String), u64>::new();
    let files = LedgerFiles::open(&history.book()).unwrap();
    for row in files.usage_by_hour(hour(0)..hour(HOURS)).unwrap().iter().filter(|row| row.outcome.name() == "ok") {
        for (days, offset) in [(&mut answered, "+08:00"), (&mut moved, "+00:00")] {
            let calendar = tallygate::model::CalendarOffset::parse(offset).unwrap();
            let key = (row.department.to_string(), calendar.date_of(row.window).to_string());
            *days.entry(key).or_default() += row.totals.commands;
        }
    }
    let write = |name: &str, counts: &BTreeMap<(String, String), u64>| {
        let lines = counts.iter().map(|((department, day), commands)| format!("{department},{day},{commands}\n"));
        let file = history.folder.path().join(name);
        std::fs::write(&file, format!("department,day,commands\n{}", lines.collect::<String>())).unwrap();
        file
    };
    let book = history.book();
    let days = ["--ledger", book.to_str().unwrap(), "--prometheus", &url, "--from", "2026-10-01", "--to", "2026-10-04"];
    let file = write("answered.csv", &answered);
    let with = |file: &Path| [&days[..], &["--subsystem-counts", file.to_str().unwrap()]].concat().join("\n");
    let reconcile_with = async |file: &Path| {
        let arguments = with(file);
        reconcile(&arguments.split('\n').collect::<Vec<_>>()).await
    };
    let (code, table, err) = reconcile_with(&file).await;
    assert!(code == 0 && table.contains("subsystem: refused -8"), "{code} {table}{err}");
    assert!(table.ends_with("Every difference is explained: 72 of 72 hours are equal, rest 0\n"), "{table}");
    // Three departments on September 30, and one on October 4, are in the file and not in the period.
    assert!(err.contains("4 days of departments outside of the period"), "{err}");
    let (code, table, _) = reconcile_with(&write("moved.csv", &moved)).await;
    assert!(code == 0 && table.contains("The days of the subsystem's counts are those of UTC+00:00"), "{code} {table}");
    let mut wrong = answered.clone();
    *wrong.get_mut(&("department-1".to_owned(), "2026-10-02".to_owned())).unwrap() += 5;
    let (code, table, _) = reconcile_with(&write("wrong.csv", &wrong)).await;
    assert!(code == 1 && table.contains("rest +5 commands of subsystems on 1 day of departments"), "{code} {table}");
    std::fs::write(&file, "department;day;commands\n").unwrap();
    let (code, _, err) = reconcile_with(&file).await;
    assert!(code == 2 && err.contains("answered.csv: it has no column department"), "{err}");
    stop(process).await;
}

#[tokio::test]
async fn reconciliation_without_usable_sources_is_refused_with_a_sentence() {
    let history = History::open("2026-10-01T00:30:00Z", None).await;
    let (book, folder) = (history.book(), history.folder.path().display().to_string());
    let book = book.to_str().unwrap();
    let html = format!("http://me:secret@{}", fake_prometheus("<html>login</html>"));
    let away = format!("http://{}", reserve_address());
    let day = ["--period", "2026-10-01"];
    for (arguments, code, expected) in [
        (
            &["--ledger", book, "--prometheus", &html][..],
            74,
            "the answer is not that of the query API (<html>login</html>)",
        ),
        (&["--ledger", book, "--prometheus", &away], 74, "failed: no connection"),
        (&["--ledger", book, "--prometheus", "localhost:9090"], 2, "--prometheus is not the URL of a Prometheus"),
        (&["--ledger", book], 2, "--prometheus <URL>"),
        (&["--prometheus", &away], 2, "--ledger <DB>"),
        (&["--ledger", &folder, "--prometheus", &away], 2, "is a folder"),
        (&["--ledger", "none.db", "--prometheus", &away], 2, "there is no ledger at none.db"),
        (&["--ledger", book, "--prometheus", &away, "--matcher", "a"], 2, "is not a label matcher"),
        (&["--ledger", book, "--prometheus", &away, "--label", "a=b"], 2, "--missing"),
        (&["--ledger", book, "--prometheus", &away, "--subsystem-counts", "none.csv"], 2, "none.csv: No such file"),
    ] {
        let (ended, out, err) = reconcile(&[arguments, &day].concat()).await;
        let is_clean = out.is_empty() && !err.contains("secret");
        assert!(ended == code && is_clean && err.contains(expected), "{arguments:?}: {ended} {out}{err}");
    }
    let cut = ["--ledger", book, "--prometheus", &away, "--from", "2026-10-01T08:30:00+08:00", "--to", "2026-10-02"];
    let (code, _, err) = reconcile(&cut).await;
    assert!(code == 2 && err.contains("is not a whole hour"), "{err}");
}
