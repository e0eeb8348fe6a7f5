//! Counting across restarts, hours and months; one owner of a ledger; readers during writes.

use std::time::Duration;

use serde_json::json;
use tallygate::clock::Clock;
use tallygate::ledger::LedgerFiles;
use tallygate::model::{Month, Window};

use crate::world::{READ, World, until};

#[tokio::test]
async fn counters_continue_after_a_restart() {
    let mut world = World::city().start().await;
    for _ in 0..3 {
        for _ in 0..5 {
            assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
            assert_eq!(world.client("archive").get(READ).await.status, 403);
        }
        world.stop().await;
        world.start_here().await;
    }
    let metrics = world.metrics().await;
    let labels = [("department", "traffic-police"), ("command", "snapshot.read"), ("outcome", "ok")];
    assert_eq!(metrics.value("tallygate_commands_total", &labels), Some(15.0));
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("archive", "forbidden")), (15, 15));
}

#[tokio::test]
async fn command_belongs_to_the_hour_and_month_of_its_admission() {
    let edge = "2026-10-31T15:59:59Z"; // the last second of October at +08:00
    let world = World::city().clock(Clock::manual(edge.parse().unwrap())).start().await;
    let client = world.client("traffic-police");
    let held = world.client("traffic-police");
    let held = tokio::spawn(async move { held.get("/cameras/do/wait-month").await.status });
    let log = &world.server("cameras").log;
    until("the held command is admitted", async || (log.all().len() == 1).then_some(())).await;
    assert_eq!(client.get(READ).await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(client.get(READ).await.status, 200);
    world.server("cameras").release("month");
    assert_eq!(held.await.unwrap(), 200);

    let book = world.book();
    world
        .close_into(|folder| {
            let files = LedgerFiles::open(&book).unwrap();
            let october = files.calendar().windows_of(Month::parse("2026-10").unwrap());
            let november = files.calendar().windows_of(Month::parse("2026-11").unwrap());
            let commands = |windows: std::ops::Range<Window>| {
                files.usage_by_hour(windows).unwrap().iter().map(|row| row.totals.commands).sum::<u64>()
            };
            assert_eq!((commands(october), commands(november)), (2, 1), "{}", folder.display());
            let book = rusqlite::Connection::open(&book).unwrap();
            let mut hours =
                book.prepare("SELECT window_start, SUM(commands) FROM usage_hourly GROUP BY 1 ORDER BY 1").unwrap();
            let hours: Vec<(String, i64)> =
                hours.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
            assert_eq!(hours, [("2026-10-31T15:00:00Z".to_owned(), 2), ("2026-10-31T16:00:00Z".to_owned(), 1)]);
        })
        .await;
}

#[tokio::test]
async fn current_month_is_in_the_metrics() {
    let world = World::city().clock(Clock::manual("2026-10-31T15:59:59Z".parse().unwrap())).start().await;
    let client = world.client("traffic-police");
    client.get("/cameras/do/status-200").await;
    world.clock.advance(Duration::from_secs(1));
    client.get(READ).await;
    client.get(READ).await;
    let labels = |period| [("department", "traffic-police"), ("period", period)];
    let metrics = world.metrics().await;
    for (period, commands, units) in [("2026-10", 1.0, 3.0), ("2026-11", 2.0, 2.0)] {
        assert_eq!(
            metrics.value("tallygate_usage_period_commands", &labels(period)),
            Some(commands),
            "{}",
            metrics.text
        );
        assert_eq!(metrics.value("tallygate_usage_period_units", &labels(period)), Some(units));
    }
    world.close().await;
}

#[tokio::test]
async fn clock_stepped_back_loses_no_counts() {
    let world = World::city().clock(Clock::manual("2026-10-31T15:00:00Z".parse().unwrap())).start().await;
    let client = world.client("traffic-police");
    client.get(READ).await;
    world.clock.step_wall("2026-10-31T14:59:00Z".parse().unwrap());
    client.get(READ).await;
    world.clock.step_wall("2026-10-31T15:01:00Z".parse().unwrap());
    client.get(READ).await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 3);
}

#[tokio::test]
async fn responses_wait_for_the_sync_with_machine_durability() {
    let machine = |document: &mut serde_json::Value| document["ledger"]["durability"] = json!("machine");
    let world = World::city().edit(machine).start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let metrics = world.metrics().await;
    assert!(metrics.value("tallygate_ledger_sync_duration_seconds_count", &[]).is_some_and(|syncs| syncs >= 20.0));
    world.close().await;
}

#[tokio::test]
async fn ledger_has_one_owner_and_names_it() {
    let world = World::city().start_process().await;
    let pid = world.process_id();
    let mut second = world.document.clone();
    second["listeners"][0]["address"] = json!(crate::world::reserve_address().to_string());
    second["admin"]["address"] = json!(crate::world::reserve_address().to_string());
    std::fs::write(world.folder().join("second.yaml"), second.to_string()).unwrap();
    let refused = crate::world::run(world.tallygate(&["serve", "--config", "second.yaml"])).await;
    let words = crate::world::stderr(&refused);
    assert_eq!(refused.status.code(), Some(74), "{words}");
    assert!(words.contains(&pid.to_string()), "the process id {pid} of the owner is reported: {words}");
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the first gateway continues");
    world.close().await;
}

#[tokio::test]
async fn several_workers_share_one_ledger() {
    let world = World::city().edit(|document| document["workers"] = json!(2)).start().await;
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let department = ["traffic-police", "logistics"][n % 2];
            let client = world.client(department);
            if n % 4 < 2 { client.h2() } else { client }
        })
        .collect();
    let load = callers.iter().map(|client| async move {
        for _ in 0..250 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    });
    futures_util::future::join_all(load).await;
    let usage = world.close().await;
    assert_eq!(usage.sum(|key| key.outcome == "ok"), 2000);
}
