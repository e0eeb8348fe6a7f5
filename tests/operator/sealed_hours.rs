//! Exact usage in a real Prometheus: `/metrics/hours` scraped, and what can be exported for promtool. Every number is
//! compared with the ledger.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tallygate::clock::Clock;
use tallygate::ledger::{Adjustment, Ledger, LedgerFiles, LedgerSettings, Meter, add_adjustment};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Refused, Window};

use super::third_party_tools::{prometheus, query_at, value_of};
use crate::world::{Process, READ, SUBMIT, World, empty, request, reserve_address, run, stderr, stdout, tool, until};

const HOUR: Duration = Duration::from_secs(3600);
const COMPLETE: &str = "sum(count_over_time(tallygate_usage_hour_commands[800h])) == \
                        sum(sum_over_time(tallygate_usage_hour_series[800h]))";

/// Returns the values of a query by one label; `""` for samples without it.
async fn values(address: SocketAddr, (query, label): (&str, &str), at: i64) -> Option<BTreeMap<String, u64>> {
    let result = query_at(address, query, Some(at)).await?;
    let samples = result.as_array()?.iter();
    let labelled = |sample: &Value| sample["metric"][label].as_str().unwrap_or_default().to_owned();
    samples.map(|sample| Some((labelled(sample), value_of(sample)?))).collect()
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn seconds(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_second()
}

/// Returns a moment shortly after the end of an hour whose samples a Prometheus takes now: they are at most 51 minutes
/// old, or at most 9 minutes ahead.
pub(super) fn moment_after_an_hour() -> jiff::Timestamp {
    let now = Clock::system().unix_seconds();
    let end = if now % 3600 < 50 * 60 { now - now % 3600 } else { now - now % 3600 + 3600 };
    jiff::Timestamp::from_second(end + 120).unwrap()
}

#[tokio::test]
async fn prometheus_sums_of_sealed_hours_equal_the_ledger() {
    let after = moment_after_an_hour();
    let clock = Clock::manual(after - jiff::SignedDuration::from_mins(30));
    let world = World::city().clock(clock).start().await;
    let clients = [world.client("traffic-police"), world.client("logistics").h2(), world.client("archive")];
    for (times, client) in [(7, &clients[0]), (5, &clients[1]), (3, &clients[2])] {
        for _ in 0..times {
            client.get(READ).await;
        }
    }
    assert_eq!(clients[0].send(request("POST", SUBMIT, empty())).await.status, 200);
    let files = LedgerFiles::open(&world.book()).unwrap();
    until("the departments are in the book", async || (files.department_names().unwrap().len() == 3).then_some(()))
        .await;
    world.clock.advance(HOUR / 2);
    assert_eq!(clients[0].get(READ).await.status, 200); // in the next hour
    let address = reserve_address();
    let mut prometheus = prometheus(&world, address);
    let at = after.as_second().max(Clock::system().unix_seconds()) + 600;
    let by_department = "sum by (department) (sum_over_time(tallygate_usage_hour_commands[800h]))";
    let sums = until("the sealed hour is scraped", async || {
        values(address, (by_department, "department"), at).await.filter(|sums| !sums.is_empty())
    })
    .await;
    let expected = [("archive", 3), ("logistics", 5), ("traffic-police", 8)];
    assert_eq!(sums, expected.map(|(department, commands)| (department.to_owned(), commands)).into());
    let units = "sum by (department) (sum_over_time(tallygate_usage_hour_units[800h]))";
    let units = values(address, (units, "department"), at).await.unwrap();
    let hour = Window::of_unix_seconds(after.as_second() - 3600);
    let mut counted = BTreeMap::<String, u64>::new();
    for row in files.usage_by_hour(hour..hour.next()).unwrap() {
        *counted.entry(row.department.to_string()).or_default() += row.totals.units;
    }
    assert_eq!(units, counted);
    let complete = values(address, (COMPLETE, ""), at).await.unwrap();
    assert_eq!(complete, [(String::new(), 6)].into(), "three departments, and three pairs");
    let own = "count_over_time(tallygate_usage_hour_commands{subsystem=\"\"}[800h])";
    assert_eq!(values(address, (own, "department"), at).await.unwrap().into_values().collect::<Vec<_>>(), [1, 1, 1]);
    // The page and the ledger's own tool agree on the head of the chain.
    let head = values(address, ("last_over_time(tallygate_ledger_head_part[800h])", "part"), at).await.unwrap();
    let hash = format!("{:013x}{:013x}{:013x}{:013x}{:012x}", head["0"], head["1"], head["2"], head["3"], head["4"]);
    let number = values(address, ("last_over_time(tallygate_ledger_head_number[800h])", ""), at).await.unwrap()[""];
    let noted = format!("{number}:{hash}");
    let verified = run(world.tallygate(&["ledger", "verify", "--ledger", "data/ledger.db", "--head", &noted])).await;
    assert!(verified.status.success(), "{noted}: {}{}", stdout(&verified), stderr(&verified));
    assert!(!world.metrics().await.text.contains("usage_hour"), "hours are not on /metrics");
    prometheus.signal("TERM");
    prometheus.ended().await;
    world.close().await;
}

/// Runs curl on the admin listener with an `Accept` field. Returns the head and the body.
async fn page(world: &World, target: &str, accept: &str) -> (String, String) {
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-i", "-H"]).arg(format!("Accept: {accept}"));
    curl.arg(format!("http://{}{target}", world.admin_address()));
    let answer = stdout(&run(curl).await);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn page_of_hours_has_both_formats_and_parameters() {
    let clock = Clock::manual("2026-10-31T14:30:00Z".parse().unwrap());
    let world = World::city().clock(clock).start().await;
    let (head, body) = page(&world, "/metrics/hours", "*/*").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && body.contains("No hour of this ledger is sealed yet."),
        "{head} {body}"
    );
    for _ in 0..2 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
        world.clock.advance(HOUR);
    }
    let [first, second] = ["1793458740000", "1793462340000"]; // 14:59 and 15:59
    let body = until("both hours are sealed", async || {
        let (_, body) = page(&world, "/metrics/hours?back=2", "*/*").await;
        body.contains(second).then_some(body)
    })
    .await;
    let line = |labels: &str, time: &str| format!("\ntallygate_usage_hour_commands{{{labels}}} 1 {time}\n");
    let pair = r#"department="traffic-police",subsystem="cameras""#;
    assert!(body.contains(&line(pair, first)) && body.contains(&line(pair, second)), "{body}");
    let (head, body) = page(&world, "/metrics/hours", "text/plain").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains(&line(pair, second)) && !body.contains(first), "the newest hour only: {body}");
    check_metrics(&body);
    let open = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let (head, body) = page(&world, "/metrics/hours?by=department,subsystem,command", open).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let command = format!("{pair},command=\"snapshot.read\"");
    assert!(body.contains(&line(&command, "1793462340")) && body.ends_with("\n# EOF\n"), "{body}");
    for (query, reason) in [("by=command", "cannot group hours by"), ("back=0", "from 1 to 168"), ("x=1", "unknown")] {
        let (head, body) = page(&world, &format!("/metrics/hours?{query}"), "*/*").await;
        assert!(head.starts_with("HTTP/1.1 400") && body.contains(reason), "{query}: {body}");
    }
    world.clock.advance(Duration::from_secs(21 * 60)); // 16:51; the next hour is not over
    let (_, body) = page(&world, "/metrics/hours", "*/*").await;
    assert!(body.contains("the newest sealed hour ended at 2026-10-31T16:00:00Z, more than 50 minutes ago"), "{body}");
    assert_eq!(body.lines().filter(|line| !line.starts_with('#')).count(), 0, "{body}");
    check_metrics(&body);
    world.close().await;
}

/// Requires that promtool finds no fault in a page.
fn check_metrics(page: &str) {
    let mut promtool = tool("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let words = format!("{}{}", stdout(&checked), stderr(&checked));
    assert!(checked.status.success() && words.trim().is_empty(), "{words}");
}

/// A ledger that the test keeps itself, on a clock that it moves.
pub(super) struct History {
    pub(super) folder: tempfile::TempDir,
    clock: Clock,
    ledger: Ledger,
    meter: Meter,
}

impl History {
    pub(super) async fn open(start: &str, compact_after: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(start.parse().unwrap());
        let settings = LedgerSettings {
            path: folder.path().join("ledger.db"),
            gateway: name("gateway-1"),
            sync_every: Duration::from_secs(1),
            workers: 1,
            calendar: CalendarOffset::default(),
            compact_after,
            ready: Readiness::default(),
        };
        let opened = Ledger::open(settings, clock.clone(), Box::new(|error| panic!("{error}")));
        let (ledger, mut seeds) = opened.unwrap();
        ledger.reader().update_department_names(vec![(name("archive"), "Archive".to_owned())]);
        let history = Self { folder, clock, ledger, meter: seeds.remove(0).into_meter() };
        history.fold().await; // the book has the name
        history
    }

    pub(super) fn book(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    pub(super) fn count(&self, department: u32, subsystem: u32, times: u32) {
        let id = name(&format!("department-{department}"));
        // The number 0 belongs to what is not known.
        let who = Department { number: department + 1, id, name: String::new() };
        let subsystem_id = name(&format!("subsystem-{subsystem}"));
        let what = CommandKey { number: subsystem + 1, subsystem: subsystem_id, command: name("read") };
        for _ in 0..times {
            self.meter.received();
            self.meter.open(&who, &what, department.into(), self.clock.window()).unwrap().settle(Finished::Ok);
        }
        self.meter.received();
        self.meter.refuse(&who, &what, Refused::Forbidden, self.clock.window());
    }

    async fn fold(&self) {
        self.ledger.reader().fold_now().await.unwrap();
        self.meter.tick();
    }

    pub(super) async fn pass_to(&self, moment: i64) {
        let seconds = u64::try_from(moment - self.clock.unix_seconds()).unwrap();
        self.clock.advance(Duration::from_secs(seconds));
        for _ in 0..3 {
            self.fold().await;
        }
    }

    pub(super) async fn export(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
        command.args(["ledger", "export", "--ledger"]).arg(self.book()).args(arguments);
        let ended = run(command).await;
        (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
    }
}

/// Starts a Prometheus on blocks, without anything to scrape.
pub(super) fn prometheus_on(blocks: &Path, address: SocketAddr) -> Process {
    let config = blocks.with_extension("yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let mut command = tool("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", blocks.display())).arg("--storage.tsdb.retention.time=20y");
    command.arg(format!("--web.listen-address={address}"));
    Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[tokio::test]
async fn export_of_hours_refuses_ranges_that_are_not_whole_and_sealed() {
    let history = History::open("2026-10-01T00:30:00Z", None).await;
    history.count(1, 1, 1);
    history.pass_to(seconds("2026-10-01T03:30:00Z")).await;
    let correction = Adjustment {
        department: name("department-1"),
        subsystem: None,
        command: None,
        period: "2026-10".to_owned(),
        units: -1,
        reason: "a test".to_owned(),
        who: "finance".to_owned(),
    };
    add_adjustment(&history.book(), &correction, &history.clock).unwrap();
    history.pass_to(seconds("2026-10-01T04:30:00Z")).await;
    for (range, reason) in [
        (["--from", "2026-10-01T00:00:00Z", "--to", "2026-10-01T02:30:00Z"], "is not a whole hour"),
        (
            ["--from", "2026-10-01T00:00:00Z", "--to", "2026-10-01T05:00:00Z"],
            "the range ends at 2026-10-01T05:00:00Z, and only hours that are sealed and ended 3 hours ago can be exported: \
             end it with --to 2026-10-01T04:00:00Z, or before",
        ),
        (["--from", "2026-10-01T04:00:00Z", "--by", "department,subsystem"], "the range is empty"),
        (["--from", "2026-10-01T00:00:00Z", "--by", "command"], "--by: cannot group hours by"),
        (["--from", "2026-10-01T00:00:00Z", "--label", "job"], "--label: \"job\" is not a label; write NAME=VALUE"),
    ] {
        let (code, out, err) = history.export(&[&["--format", "openmetrics"][..], &range].concat()).await;
        assert!(code == 2 && out.is_empty() && err.contains(reason), "{range:?}: {code} {out}{err}");
    }
    let (code, _, err) = history.export(&["--from", "2026-10-01"]).await;
    assert!(code == 2 && err.contains("--from is an option of --format openmetrics"), "{err}");
    let (code, out, _) = history.export(&["--format", "openmetrics", "--label", "job=hours"]).await;
    let labelled = r#"tallygate_usage_hour_commands{job="hours",department="archive"} 0 1790816340"#;
    assert!(code == 0 && out.lines().any(|line| line == labelled), "{out}");
    let (code, out, err) = history.export(&["--format", "openmetrics"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<_> = out.lines().filter(|line| line.contains("_units{")).collect();
    assert_eq!(
        lines,
        [
            r#"tallygate_adjustment_units{department="department-1",period="2026-10"} -1 1790827140"#, // 03:59
            r#"tallygate_usage_hour_units{department="archive"} 0 1790816340"#,                        // 00:59
            r#"tallygate_usage_hour_units{department="department-1",subsystem="subsystem-1"} 1 1790816340"#,
            r#"tallygate_usage_hour_units{department="archive"} 0 1790819940"#,
            r#"tallygate_usage_hour_units{department="archive"} 0 1790823540"#,
            r#"tallygate_usage_hour_units{department="archive"} 0 1790827140"#,
        ]
    );
    assert!(out.ends_with("\n# EOF\n"), "{out}");
    let (code, out, err) = history.export(&["--format", "openmetrics", "--from", "2026-09"]).await;
    let note = "note: the ledger begins at 2026-10-01T00:00:00Z: there are no samples of earlier hours\n";
    assert_eq!((code, err.as_str(), out.lines().count() > 10), (0, note, true));
}

#[tokio::test]
async fn compacted_days_are_exported_on_request_only() {
    let history = History::open("2026-10-01T00:30:00Z", Some(48 * HOUR)).await;
    for hour in 0..(5 * 24) {
        history.count(1, 1, 2);
        history.pass_to(seconds("2026-10-01T00:30:00Z") + (hour + 1) * 3600).await;
    }
    let openmetrics = ["--format", "openmetrics"];
    let all = [&openmetrics[..], &["--from", "2026-10-01", "--to", "2026-10-05"]].concat();
    let (code, _, err) = history.export(&all).await;
    let refusal = "hours before 2026-10-03T16:00:00Z are kept only as sums of days: begin the range with --from \
                   2026-10-03T16:00:00Z, or add --compacted-days";
    assert!(code == 2 && err.contains(refusal), "{code} {err}");
    let (code, out, err) = history.export(&[&all[..], &["--compacted-days"]].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let pair = r#"tallygate_usage_hour_commands{department="department-1",subsystem="subsystem-1"} "#;
    let values: Vec<u64> =
        out.lines().filter_map(|line| line.strip_prefix(pair)?.split(' ').next()?.parse().ok()).collect();
    let hours = [48, 72, 72].into_iter().chain([3; 24]);
    assert_eq!(values, hours.collect::<Vec<_>>(), "16 hours, two days, and the hours of a day");
    let cut = [&openmetrics[..], &["--from", "2026-10-02T00:00:00Z", "--compacted-days"]].concat();
    let (code, _, err) = history.export(&cut).await;
    assert!(code == 74 && err.contains("splits the day"), "{code} {err}");
    let (code, _, err) = history.export(&openmetrics).await;
    let note = "note: hours before 2026-10-03T16:00:00Z are kept only as sums of days: left out\n";
    assert_eq!((code, err.as_str()), (0, note));
}
