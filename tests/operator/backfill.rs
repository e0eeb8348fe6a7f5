//! The history of a ledger in a real Prometheus: thirteen months of 300 departments and 10 subsystems, loaded with
//! promtool; every day and month equals the ledger. Then the same again from what a user keeps of it: only the samples
//! of hours, and one sample a day.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tallygate::ledger::LedgerFiles;
use tallygate::model::{CalendarOffset, Month, Window};

use super::reconciliation::{load, prometheus, reconcile, stop};
use super::sealed_hours::History;
use super::third_party_tools::{query_at, value_of};
use crate::world::{run, stderr, stdout, tool, tools_folder};

const DEPARTMENTS: u32 = 300;
const SUBSYSTEMS: u32 = 10;
const MONTHS: usize = 13;
/// The pairs of department and subsystem that are used on a day.
const PAIRS_A_DAY: u32 = 60;

/// Commands and units, or one of them, by labels.
type Sums = BTreeMap<Vec<String>, u64>;

/// The first windows of thirteen months in +08:00, from October 2025 on, and that after them.
fn month_starts() -> Vec<Window> {
    let mut month = Month::parse("2025-10").unwrap();
    let mut starts = Vec::new();
    for _ in 0..=MONTHS {
        starts.push(CalendarOffset::default().windows_of(month).start);
        month = month.next();
    }
    starts
}

/// A ledger of thirteen months. Each day has usage in one hour, which moves through the day; the first and the last day
/// of a month have it in their first and last hour.
async fn thirteen_months(starts: &[Window]) -> History {
    let history = History::open("2025-09-30T16:00:00Z", None).await;
    let days = (starts[MONTHS].0 - starts[0].0) / 24;
    for day in 0..days {
        let start = starts[0].0 + day * 24;
        let begins = starts.contains(&Window(start));
        let ends = starts.contains(&Window(start + 24));
        let hour = if begins {
            0
        } else if ends {
            23
        } else {
            day * 7 % 24
        };
        // The first second of the hour, or the last one.
        let second = if ends { 3599 } else { 0 };
        history
            .pass_to((Window(start + hour).start_unix_seconds() + second).max(Window(start).start_unix_seconds() + 1))
            .await;
        for pair in day * PAIRS_A_DAY..(day + 1) * PAIRS_A_DAY {
            let pair = pair % (DEPARTMENTS * SUBSYSTEMS);
            history.count(pair / SUBSYSTEMS, pair % SUBSYSTEMS, pair % 3 + 1);
        }
    }
    history.pass_to(starts[MONTHS].start_unix_seconds() + 3600).await;
    history
}

/// The commands of the ledger by department, subsystem and the end of the day, in Unix seconds.
fn days_of_ledger(history: &History, starts: &[Window]) -> Sums {
    let mut sums = Sums::new();
    for row in LedgerFiles::open(&history.book()).unwrap().usage_by_day(starts[0]..starts[MONTHS]).unwrap() {
        let end = CalendarOffset::default().day_of(row.window).start_unix_seconds() + 86_400;
        let key = vec![row.department.to_string(), row.subsystem.to_string(), end.to_string()];
        *sums.entry(key).or_default() += row.totals.commands;
    }
    sums
}

/// The values of a query at the end of every day, by department, subsystem and moment; without zeros.
async fn days_of(address: SocketAddr, query: &str, starts: &[Window]) -> Sums {
    let (first, last) = (starts[0].start_unix_seconds() + 86_400, starts[MONTHS].start_unix_seconds());
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "60", "-G", "-dstep=86400", "--data-urlencode"]).arg(format!("query={query}"));
    curl.args([format!("-dstart={first}"), format!("-dend={last}"), format!("http://{address}/api/v1/query_range")]);
    let ended = run(curl).await;
    let answer: Value =
        serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&ended)));
    let mut sums = Sums::new();
    for series in answer.pointer("/data/result").and_then(Value::as_array).unwrap() {
        let label = |name: &str| series["metric"][name].as_str().unwrap_or_default().to_owned();
        for sample in series["values"].as_array().unwrap() {
            let value: u64 = sample[1].as_str().unwrap().parse().unwrap();
            let key = vec![label("department"), label("subsystem"), sample[0].to_string()];
            assert!(value == 0 || sums.insert(key, value).is_none(), "a series is there twice: {series}");
        }
    }
    sums
}

/// The sum of a query at a moment.
async fn sum_at(address: SocketAddr, query: &str, at: i64) -> u64 {
    let result = query_at(address, query, Some(at)).await.unwrap();
    value_of(&result[0]).unwrap_or_else(|| panic!("{query}: {result}"))
}

/// Runs the commands of a section of the manual as they stand there, in a folder.
async fn run_manual(section: &str, folder: &Path, database: &str) {
    let manual = include_str!("../../docs/reports.md");
    let (_, text) = manual.split_once(section).unwrap_or_else(|| panic!("no {section:?} in the manual"));
    let commands = text.split("```").nth(1).unwrap().replace("PROMETHEUS-DATA", database);
    let mut shell = Command::new("sh");
    shell.args(["-ec", &commands]).current_dir(folder);
    if let Some(tools) = tools_folder() {
        shell.env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap()));
    }
    let ended = run(shell).await;
    assert!(ended.status.success(), "{commands}: {}{}", stdout(&ended), stderr(&ended));
}

#[tokio::test]
async fn thirteen_months_of_a_city_loaded_into_prometheus_equal_the_ledger_on_every_day() {
    let starts = month_starts();
    assert_eq!(starts[0].to_string(), "2025-09-30T16:00:00Z");
    let history = thirteen_months(&starts).await;
    let folder = history.folder.path();
    let file = folder.join("hours.om");
    let range = ["--format", "openmetrics", "--from", "2025-10", "--to", "2026-11", "--label", "job=hours"];
    let (code, _, err) = history.export(&[&range[..], &["--output", file.to_str().unwrap()]].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    // Other series beside them, as in every Prometheus.
    let up = format!("# TYPE up gauge\nup{{job=\"hours\"}} 1 {}\n# EOF\n", starts[1].start_unix_seconds());
    std::fs::write(folder.join("up.om"), up).unwrap();
    let blocks = folder.join("data");
    load(&file, &blocks).await;
    load(&folder.join("up.om"), &blocks).await;
    let (process, address, url) = prometheus(&blocks).await;

    let expected = days_of_ledger(&history, &starts);
    let pairs: std::collections::BTreeSet<_> = expected.keys().map(|key| key[..2].to_vec()).collect();
    assert_eq!(pairs.len() as u32, DEPARTMENTS * SUBSYSTEMS, "every pair is used");
    let by_day = "sum by (department, subsystem) (sum_over_time(tallygate_usage_hour_commands[24h]))";
    assert_eq!(days_of(address, by_day, &starts).await, expected);
    for pair in starts.windows(2) {
        let (at, hours) = (pair[1].start_unix_seconds(), pair[1].0 - pair[0].0);
        let inside = |key: &[String]| (pair[0].start_unix_seconds() + 1..=at).contains(&key[2].parse().unwrap());
        let commands: u64 = expected.iter().filter(|(key, _)| inside(key)).map(|(_, commands)| commands).sum();
        let of_month = format!("sum(sum_over_time(tallygate_usage_hour_commands[{hours}h]))");
        assert_eq!(sum_at(address, &of_month, at).await, commands, "the month from {}", pair[0]);
        let complete = format!(
            "sum(count_over_time(tallygate_usage_hour_commands[{hours}h])) == \
             bool sum(sum_over_time(tallygate_usage_hour_series[{hours}h]))"
        );
        assert_eq!(sum_at(address, &complete, at).await, 1, "complete: the month from {}", pair[0]);
    }
    let book = history.book();
    let month = ["--ledger", book.to_str().unwrap(), "--prometheus", &url, "--period", "2026-02"];
    let (code, table, err) = reconcile(&month).await;
    assert!(code == 0 && table.ends_with("agree: 672 of 672 hours, rest 0\n"), "{table}{err}");

    // One sample a day, as a user writes it from the query of days: months are still exact.
    let mut text = "# TYPE usage_day_commands gauge\n".to_owned();
    for ([department, subsystem, end], commands) in
        expected.iter().map(|(key, commands)| (<[String; 3]>::try_from(key.clone()).unwrap(), commands))
    {
        let at = end.parse::<i64>().unwrap() - 60;
        writeln!(text, "usage_day_commands{{department=\"{department}\",subsystem=\"{subsystem}\"}} {commands} {at}")
            .unwrap();
    }
    std::fs::write(folder.join("days.om"), text + "# EOF\n").unwrap();
    stop(process).await;

    // Only the samples of hours, in another Prometheus.
    run_manual("**Keeping only the hours.**", folder, "data").await;
    let kept = folder.join("kept");
    load(&folder.join("days.om"), &kept).await;
    let (process, address, _) = prometheus(&kept).await;
    assert_eq!(days_of(address, by_day, &starts).await, expected, "only the hours");
    for pair in starts.windows(2) {
        let (at, hours) = (pair[1].start_unix_seconds(), pair[1].0 - pair[0].0);
        let of_hours =
            sum_at(address, &format!("sum(sum_over_time(tallygate_usage_hour_commands[{hours}h]))"), at).await;
        let of_days = sum_at(address, &format!("sum(sum_over_time(usage_day_commands[{hours}h]))"), at).await;
        assert_eq!(of_days, of_hours, "the month from {}", pair[0]);
    }
    let ups = query_at(address, "count_over_time(up[800h])", Some(starts[2].start_unix_seconds())).await.unwrap();
    assert_eq!(ups, serde_json::json!([]), "nothing else is kept");
    stop(process).await;
}
