//! Rate limits, concurrency limits and quotas of days and months, on a clock that only the test moves.

use std::time::Duration;

use serde_json::{Value, json};
use tallygate::clock::Clock;

use crate::world::{Plan, READ, World, until};

fn noon() -> Clock {
    Clock::manual("2026-10-31T12:00:00Z".parse().expect("a time"))
}

fn limited(limits: Value) -> Plan {
    World::city().clock(noon()).edit(|document| document["departments"][0]["limits"] = limits)
}

fn with_quota(quota: Value) -> Plan {
    World::city().clock(noon()).edit(|document| document["departments"][0]["quota"] = quota)
}

#[tokio::test]
async fn commands_over_the_rate_are_refused_with_retry_after() {
    let world = limited(json!({ "rate": "1/s", "burst": 2 })).start().await;
    let client = world.client("traffic-police");
    let first = client.get(READ).await;
    assert!(first.header("ratelimit").contains("r=1"), "{:?}", first.headers);
    assert!(first.header("ratelimit-policy").contains("q="), "{:?}", first.headers);
    assert_eq!(client.get(READ).await.status, 200);

    let refused = client.get(READ).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_deref()), (429, Some("rate_limited")));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.header("ratelimit").contains("r=0"), "{:?}", refused.headers);

    world.clock.advance(Duration::from_secs(1));
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(client.get(READ).await.status, 429);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "rate_limited")), (3, 2));
}

#[tokio::test]
async fn rate_of_one_department_does_not_limit_another() {
    let world = limited(json!({ "rate": "1/h", "burst": 1 })).start().await;
    let (hasty, calm) = (world.client("traffic-police"), world.client("logistics"));
    assert_eq!(hasty.get(READ).await.status, 200);
    for _ in 0..5 {
        assert_eq!(hasty.get(READ).await.status, 429);
        assert_eq!(calm.get(READ).await.status, 200);
    }
    world.close().await;
}

#[tokio::test]
async fn command_limit_is_separate_for_each_department() {
    let slow = |document: &mut Value| {
        document["subsystems"][0]["commands"][1]["limits"] = json!({ "rate": "1/h", "burst": 1 });
    };
    let world = World::city().clock(noon()).edit(slow).start().await;
    for department in ["traffic-police", "logistics"] {
        let client = world.client(department);
        assert_eq!(client.get(READ).await.status, 200);
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("rate_limited"));
    }
    assert_eq!(world.client("traffic-police").post("/cameras/v1/snapshots", "x").await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn gateway_has_a_global_limit() {
    let total = |document: &mut Value| document["limits"] = json!({ "total": { "rate": "1/h", "burst": 2 } });
    let world = World::city().clock(noon()).edit(total).start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    assert_eq!(world.client("logistics").get(READ).await.status, 200);
    let refused = world.client("traffic-police").get(READ).await;
    assert_eq!(refused.status, 429);
    world.close().await;
}

#[tokio::test]
async fn concurrent_commands_are_limited() {
    let world = limited(json!({ "concurrent": 1 })).start().await;
    let slow = world.client("traffic-police");
    let slow = tokio::spawn(async move { slow.get("/cameras/do/wait-a").await.status });
    let server = world.server("cameras");
    until("the slow command is in flight", async || (!server.log.all().is_empty()).then_some(())).await;

    let client = world.client("traffic-police");
    let refused = client.get(READ).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_deref()), (429, Some("too_many_concurrent")));
    assert_ne!(refused.header("retry-after"), "");
    server.release("a");
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(client.get(READ).await.status, 200);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "too_many_concurrent"), 1);
}

#[tokio::test]
async fn exhausted_quota_refuses_until_the_month_ends_even_after_a_restart() {
    let mut world = with_quota(json!({ "per": "month", "units": 4, "exceeded": "refuse" })).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(client.get("/cameras/do/status-200").await.status, 200, "three units, the exact remainder of the quota");
    let refused = client.get(READ).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_deref()), (429, Some("quota_exceeded")));
    assert_ne!(refused.header("retry-after"), "");

    world.stop().await;
    world.start_here().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("quota_exceeded"), "the usage survives the restart");

    world.clock.advance(Duration::from_secs(4 * 3600)); // 16:00 UTC: November begins at +08:00
    assert_eq!(client.get(READ).await.status, 200);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "quota_exceeded"), 2);
    assert_eq!(usage.admitted("traffic-police").units, 5);
}

/// In a cluster the first configuration has no departments at all.
#[tokio::test]
async fn quota_of_a_department_that_a_reload_brings_counts_the_use_before_the_start() {
    let mut world = with_quota(json!({ "per": "month", "units": 4, "exceeded": "refuse" })).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/status-200").await.status, 200, "three of four units");

    world.stop().await;
    let mut before = Value::Null;
    world.write(|document| {
        before = document.clone();
        let without_police = |list: &mut Value, key: &str| {
            list.as_array_mut().unwrap().retain(|item| item[key] != "traffic-police");
        };
        without_police(&mut document["departments"], "id");
        without_police(&mut document["grants"], "department");
    });
    world.start_here().await;
    world.reload(|document| *document = before).await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200, "the fourth unit");
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("quota_exceeded"), "the use survives the restart");
    let usage = world.close().await;
    assert_eq!((usage.admitted("traffic-police").units, usage.of("traffic-police", "quota_exceeded")), (4, 1));
}

#[tokio::test]
async fn each_quota_threshold_is_logged_once_even_over_a_restart() {
    let quota = json!({ "per": "month", "units": 4, "warn": [50, 75], "exceeded": "allow" });
    let plan = World::city().edit(|document| document["departments"][0]["quota"] = quota);
    let mut world = plan.start_process().await;
    let thresholds = |world: &World| -> Vec<String> {
        let log = world.log_of_process();
        let lines = log.lines().filter(|line| line.contains("WARN") && line.contains("quota "));
        lines
            .map(|line| line.split_once("percent=").expect("a percentage").1.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let warned = async |world: &World| {
        let labels = [("department", "traffic-police")];
        world.metrics().await.value("tallygate_quota_warned_percent", &labels)
    };
    let client = world.client("traffic-police");
    assert_eq!((client.get(READ).await.status.as_u16(), warned(&world).await), (200, Some(0.0)));
    assert_eq!((client.get(READ).await.status.as_u16(), warned(&world).await), (200, Some(50.0)));
    assert_eq!(thresholds(&world), ["50"]);

    world.stop().await;
    world.start_process().await;
    assert_eq!(warned(&world).await, Some(50.0), "the threshold survives the restart");
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/status-200").await.status, 200, "three units");
    assert_eq!(warned(&world).await, Some(100.0));
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(thresholds(&world), ["50", "75", "100"]);
    world.close().await;
}

/// The used part of a quota of the police as the metrics show it.
async fn used_part(world: &World, per: &str, measure: &str) -> Option<f64> {
    let labels = [("department", "traffic-police"), ("per", per), ("measure", measure)];
    world.metrics().await.value("tallygate_quota_used_ratio", &labels)
}

#[tokio::test]
async fn quotas_of_the_day_and_of_the_month_hold_beside_each_other_even_after_a_restart() {
    let quotas = json!([
        { "per": "day", "commands": 2 },
        { "per": "day", "units": 100, "exceeded": "allow" },
        { "per": "month", "commands": 4 },
    ]);
    let plan = World::city().clock(noon()).edit(|document| document["departments"][0]["quotas"] = quotas);
    let mut world = plan.start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/status-200").await.status, 200, "three units, one command");
    assert_eq!(client.get("/cameras/nothing-here").await.status, 404, "a refused command takes no quota");
    world.stop().await;
    world.start_here().await;
    let client = world.client("traffic-police");
    assert_eq!(used_part(&world, "day", "commands").await, Some(0.5), "one command before the restart");
    assert_eq!(used_part(&world, "day", "units").await, Some(0.03));
    assert_eq!(client.get(READ).await.status, 200);
    let refused = client.get(READ).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_deref()), (429, Some("quota_exceeded")));
    assert!(refused.text().contains("the quota of this day is used up"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), "14400", "16:00 UTC, the next day in +08:00");

    // 31 October at noon in UTC is still October in +08:00; four hours later it is November.
    world.clock.advance(Duration::from_secs(4 * 3600));
    assert_eq!(used_part(&world, "day", "commands").await, Some(0.0));
    assert_eq!(used_part(&world, "month", "commands").await, Some(0.0));
    for expected in [200, 200, 429] {
        assert_eq!(client.get(READ).await.status, expected);
    }
    world.clock.advance(Duration::from_secs(24 * 3600));
    for expected in [200, 200, 429] {
        assert_eq!(client.get(READ).await.status, expected);
    }
    world.clock.advance(Duration::from_secs(24 * 3600));
    let refused = client.get(READ).await;
    assert!(refused.text().contains("the quota of this month is used up"), "four commands: {}", refused.text());
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "quota_exceeded")), (6, 4));
}

/// Nothing of these commands reached a subsystem: they cost no units, and are commands all the same.
#[tokio::test]
async fn unreachable_command_counts_in_a_quota_of_commands_and_not_in_one_of_units() {
    let unused_address = crate::world::reserve_address();
    let quotas = json!([{ "per": "day", "commands": 2 }, { "per": "day", "units": 1 }]);
    let plan = World::city().clock(noon()).cameras_at(unused_address);
    let mut world = plan.edit(|document| document["departments"][0]["quotas"] = quotas).start().await;
    let client = world.client("traffic-police");
    for expected in ["unreachable", "unreachable", "quota_exceeded"] {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some(expected));
    }
    let both =
        async |world: &World| (used_part(world, "day", "commands").await, used_part(world, "day", "units").await);
    assert_eq!(both(&world).await, (Some(1.0), Some(0.0)));
    world.stop().await;
    world.start_here().await;
    assert_eq!(both(&world).await, (Some(1.0), Some(0.0)), "the same after a restart");
    world.close().await;
}

#[tokio::test]
async fn quota_that_allows_excess_lets_commands_pass_and_counts() {
    let world = with_quota(json!({ "per": "month", "units": 1, "exceeded": "allow" })).start().await;
    let client = world.client("traffic-police");
    for _ in 0..3 {
        assert_eq!(client.get(READ).await.status, 200);
    }
    let metrics = world.metrics().await;
    let ratio = metrics.value("tallygate_quota_used_ratio", &[("department", "traffic-police")]);
    assert_eq!(ratio, Some(3.0));
    world.close().await;
}

#[tokio::test]
async fn refused_command_consumes_no_quota() {
    let world = with_quota(json!({ "per": "month", "units": 2, "exceeded": "refuse" }))
        .edit(|document| document["departments"][0]["limits"] = json!({ "rate": "1/s", "burst": 1 }))
        .start()
        .await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    for _ in 0..3 {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("rate_limited"));
    }
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(client.get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn reload_never_refills_a_bucket() {
    let mut world = limited(json!({ "rate": "1/h", "burst": 2 })).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(client.get(READ).await.status, 200);
    world.reload(|document| document["departments"][0]["name"] = json!("The Traffic Police")).await;
    assert_eq!(client.get(READ).await.status, 429);
    world.reload(|document| document["departments"][0]["limits"]["burst"] = json!(1)).await;
    assert_eq!(client.get(READ).await.status, 429);
    world.close().await;
}
