//! Real Prometheus servers that scrape one gateway in different ways: two replicas, a job that takes hours late with
//! and without an out-of-order window, and a window that is too short, which fails that job and no other.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tallygate::clock::Clock;
use tallygate::ledger::LedgerFiles;
use tallygate::model::Window;

use super::reconciliation::reconcile;
use super::sealed_hours::moment_after_an_hour;
use super::third_party_tools::{query_at, value_of};
use crate::world::{Process, READ, World, reserve_address, run, stderr, stdout, tool, until};

/// The sealed hours of the gateway. The newest one can be scraped now.
const HOURS: u32 = 6;

/// A Prometheus with a job for `/metrics`, and one for `/metrics/hours` with parameters.
struct ScrapingServer {
    process: Process,
    address: SocketAddr,
}

impl ScrapingServer {
    /// Starts one. `window` is its out-of-order window, `back` the parameter of the page of hours.
    fn start(world: &World, name: &str, (window, back): (Option<&str>, Option<u32>)) -> Self {
        let target = world.admin_address();
        let storage = window.map(|window| format!("storage: {{ tsdb: {{ out_of_order_time_window: {window} }} }}\n"));
        let params = back.map(|back| format!("    params: {{ back: ['{back}'] }}\n"));
        let targets = format!("    static_configs: [{{ targets: ['{target}'] }}]\n");
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n{}scrape_configs:\n  - job_name: tallygate\n{targets}  \
             - job_name: tallygate-hours\n    metrics_path: /metrics/hours\n{}{targets}",
            storage.unwrap_or_default(),
            params.unwrap_or_default(),
        );
        let file = world.folder().join(format!("{name}.yml"));
        std::fs::write(&file, config).unwrap();
        let address = reserve_address();
        let mut command = tool("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", world.folder().join(name).display()));
        command.arg(format!("--web.listen-address={address}"));
        Self { process: Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null())), address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The only value of a query now; `None` without one.
    async fn value(&self, query: &str) -> Option<u64> {
        let result = query_at(self.address, query, None).await?;
        value_of(result.as_array()?.first()?)
    }

    /// Waits until a query has this value: on a busy machine a single scrape can take longer than its second.
    async fn until_value(&self, query: &str, expected: u64) {
        until(query, async || self.value(query).await.filter(|value| *value == expected)).await;
    }

    /// Waits until both jobs have been scraped three times, so that what they refuse is known.
    async fn until_scraped(&self) {
        for job in ["tallygate", "tallygate-hours"] {
            let scrapes = format!("count_over_time(up{{job=\"{job}\"}}[5m])");
            until("three scrapes", async || self.value(&scrapes).await.filter(|scrapes| *scrapes >= 3)).await;
        }
    }

    /// The number of hours that it has.
    async fn hours(&self, end: Window) -> u64 {
        let query = "count_over_time(tallygate_usage_hour_series[20h])";
        let result = query_at(self.address, query, Some(end.start_unix_seconds())).await.unwrap();
        result.as_array().unwrap().iter().filter_map(value_of).sum()
    }

    async fn stop(mut self) {
        self.process.signal("TERM");
        self.process.ended().await;
    }
}

/// Makes traffic in six hours, each of which the gateway seals. Returns the first hour.
async fn six_hours(world: &World) -> Window {
    let first = world.clock.window();
    let files = LedgerFiles::open(&world.book()).unwrap();
    until("the departments are in the book", async || (files.department_names().unwrap().len() == 3).then_some(()))
        .await;
    for hour in 0..HOURS {
        for _ in 0..=hour {
            assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
        }
        world.clock.advance(Duration::from_secs(3600));
        let at = (Window(first.0 + hour).start_unix_seconds() + 3540) * 1000;
        until("the hour is sealed", async || {
            let (_, page) = world.admin("/metrics/hours?back=12").await;
            page.contains(&format!("tallygate_usage_hour_series 4 {at}\n")).then_some(())
        })
        .await;
    }
    first
}

#[tokio::test]
async fn jobs_of_several_servers_take_what_they_can_and_reconcile_names_the_rest() {
    let after = moment_after_an_hour();
    let clock = Clock::manual(after - jiff::SignedDuration::from_hours(i64::from(HOURS)));
    let world = World::city().clock(clock).start().await;
    // These have samples of now when the hours come late, as after a gap. An empty server takes hours of any age.
    let no_window = ScrapingServer::start(&world, "no-window", (None, Some(8)));
    let short_window = ScrapingServer::start(&world, "short-window", (Some("2h"), Some(8)));
    no_window.until_scraped().await;
    short_window.until_scraped().await;
    let first = six_hours(&world).await;
    let end = Window(first.0 + HOURS);
    let replicas = [
        ScrapingServer::start(&world, "replica-a", (None, None)),
        ScrapingServer::start(&world, "replica-b", (None, None)),
    ];
    let late = ScrapingServer::start(&world, "late", (Some("12h"), Some(8)));
    for server in replicas.iter().chain([&late]) {
        server.until_scraped().await;
    }
    let book = world.book().display().to_string();
    let (from, to) = (first.to_string(), end.to_string());
    let compared = async |server: &ScrapingServer, format: &str| {
        let url = server.url();
        let range = ["--prometheus", &url, "--from", &from, "--to", &to, "--format", format];
        reconcile(&[&["--ledger", book.as_str()][..], &range].concat()).await
    };
    let heads = async |server: &ScrapingServer| {
        let verified =
            run(world.tallygate(&["ledger", "verify", "--ledger", &book, "--prometheus", &server.url()])).await;
        assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
        stdout(&verified).lines().last().unwrap().to_owned()
    };

    // The newest hour, and with a window all of them, late.
    let (code, table, err) = compared(&late, "table").await;
    assert!(code == 0 && table.contains("agree: 6 of 6 hours, rest 0"), "{table}{err}");
    assert_eq!(heads(&late).await, "the Prometheus remembers the heads of all 6 hours");

    // Two servers that scrape the same gateway have the same samples, and the same is missing.
    let (code, one, _) = compared(&replicas[0], "json").await;
    let (_, other, _) = compared(&replicas[1], "json").await;
    assert_eq!((code, &one), (0, &other));
    let report: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&report["hours"], &report["equal_hours"]), (&6.into(), &1.into()), "{one}");
    assert_eq!(report["total"]["ledger"]["commands"], 21, "{one}");
    assert_eq!(report["total"]["prometheus"]["commands"], 6, "{one}");
    assert!(heads(&replicas[0]).await.starts_with("the Prometheus remembers the heads of 1 hour, and not of 5 hours"));

    let up = "up{job=\"tallygate-hours\"}";
    // Without a window the server takes the newest hour, perhaps the one before it, and drops the rest without a word.
    let kept = until("the newest hour is scraped", async || Some(no_window.hours(end).await).filter(|kept| *kept > 0));
    let kept = kept.await;
    assert!((1..u64::from(HOURS)).contains(&kept), "{kept} hours");
    no_window.until_value(up, 1).await;
    let (code, table, _) = compared(&no_window, "table").await;
    assert!(code == 0 && table.contains(&format!("explained: {kept} of 6 hours are equal, rest 0")), "{table}");

    // A window that is too short fails every scrape of the hours, and none of /metrics.
    short_window.until_value(up, 0).await;
    short_window.until_value("up{job=\"tallygate\"}", 1).await;
    short_window.until_value("sum(tallygate_commands_total)", 21).await;
    assert_eq!(short_window.hours(end).await, 0);
    let (code, table, _) = compared(&short_window, "table").await;
    assert!(code == 0 && table.contains("explained: 0 of 6 hours are equal, rest 0"), "{table}");
    for server in replicas.into_iter().chain([late, no_window, short_window]) {
        server.stop().await;
    }
    world.close().await;
}
