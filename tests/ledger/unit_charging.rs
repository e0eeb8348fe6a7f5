//! Unit charging: only commands that reached a subsystem are charged. A command of which nothing was sent is counted
//! and free (waived), in the ledger, in the metrics and in the quota.

use serde_json::json;

use crate::world::{Plan, QUEUED, READ, Usage, World, empty, request, reserve_address, until};

/// A command of three units. The response comes when the test releases it.
const HELD: &str = "/cameras/do/wait-held";

/// Cameras that accept one command at a time, with a queue.
fn one_at_a_time() -> Plan {
    World::city().edit(|document| {
        document["subsystems"][0]["upstreams"][0]["maxRequests"] = json!(1);
        document["subsystems"][0]["queue"] = json!({ "length": 10, "timeout": "30s" });
    })
}

/// Returns commands and units of the police with this outcome.
fn of(usage: &Usage, outcome: &str) -> (u64, u64) {
    let rows = usage.0.iter().filter(|(key, _)| key.department == "traffic-police" && key.outcome == outcome);
    rows.fold((0, 0), |sum, (_, count)| (sum.0 + count.commands, sum.1 + count.units))
}

async fn until_queued(world: &World) {
    until("a command waits for a server", async || (world.metrics().await.sum(QUEUED) == 1).then_some(())).await;
}

async fn until_received(world: &World, count: usize) {
    until("the server has received the command", async || {
        (world.server("cameras").log.all().len() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn commands_that_never_reach_a_subsystem_cost_no_units_and_no_quota() {
    let unused_address = reserve_address();
    let world = World::city().cameras_at(unused_address).edit(|document| {
        document["departments"][0]["quota"] = json!({ "per": "month", "units": 2, "exceeded": "refuse" });
    });
    let mut world = world.start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..5 {
            assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"));
        }
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum("tallygate_command_units_total"), metrics.sum("tallygate_usage_period_units")), (0, 0));
    let used = metrics.value("tallygate_quota_used_ratio", &[("department", "traffic-police")]);
    assert_eq!(used, Some(0.0), "ten commands of two units take no quota");
    world.stop().await;
    world.start_here().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"), "unreachable after a restart as well");
    let usage = world.close().await;
    assert_eq!(of(&usage, "unreachable"), (11, 0));
}

#[tokio::test]
async fn caller_that_leaves_the_queue_is_not_charged_and_one_that_was_forwarded_is() {
    let world = one_at_a_time().start().await;
    let client = world.client("traffic-police");
    let held = tokio::spawn(async move { client.try_send(request("GET", HELD, empty())).await.is_err() });
    until_received(&world, 1).await;
    for client in world.clients("traffic-police") {
        let waiting = tokio::spawn(async move { client.try_send(request("GET", HELD, empty())).await.is_err() });
        until_queued(&world).await;
        waiting.abort();
        until("the caller has left", async || (world.metrics().await.sum(QUEUED) == 0).then_some(())).await;
    }
    held.abort();
    let usage = world.usage_when("all commands have ended", |usage| usage.of("traffic-police", "aborted") == 3).await;
    assert_eq!(of(&usage, "aborted"), (3, 3), "the command that reached the subsystem cost its three units");
    let usage = world.close().await;
    assert_eq!(of(&usage, "aborted"), (3, 3));
}

#[tokio::test]
async fn deadline_in_the_queue_is_free_and_deadline_at_the_subsystem_is_charged() {
    let world = one_at_a_time().start().await;
    let client = world.client("traffic-police");
    let first = tokio::spawn(async move { client.get(HELD).await.status.as_u16() });
    until_received(&world, 1).await;
    let call = |timeout: &'static str| {
        let mut call = request("POST", HELD, empty());
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        call
    };
    let client = world.client("traffic-police").h2();
    assert_eq!(client.send(call("300m")).await.header("grpc-status"), "4");
    assert_eq!(world.server("cameras").log.all().len(), 1, "the command never left the queue");
    assert_eq!(of(&world.usage(), "timeout"), (1, 0));
    world.server("cameras").release("held");
    assert_eq!(first.await.unwrap(), 200);
    let usage = world.close().await;
    assert_eq!((of(&usage, "ok"), of(&usage, "timeout")), ((1, 3), (1, 0)));
}

#[tokio::test]
async fn commands_that_a_subsystem_leaves_unanswered_or_breaks_are_charged() {
    let world = World::city().edit(|document| document["subsystems"][0]["timeouts"]["response"] = json!("300ms"));
    let world = world.start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/never").await.problem().as_deref(), Some("timeout"));
    assert_eq!(client.get("/cameras/do/cut").await.problem().as_deref(), Some("upstream_failed"));
    let usage = world.close().await;
    assert_eq!((of(&usage, "timeout"), of(&usage, "upstream_failed")), ((1, 3), (1, 3)));
}

/// A command that is in the queue when the grace of the shutdown ends is interrupted, and free.
#[tokio::test]
async fn commands_queued_at_shutdown_are_free() {
    let plan = one_at_a_time().edit(|document| document["shutdown"] = json!({ "delay": "0s", "grace": "200ms" }));
    let mut world = plan.start().await;
    let begin = || {
        let client = world.client("traffic-police");
        tokio::spawn(async move { client.try_send(request("GET", HELD, empty())).await.is_err() })
    };
    let first = begin();
    until_received(&world, 1).await;
    let second = begin();
    until_queued(&world).await;
    world.stop().await;
    assert!(first.await.unwrap() && second.await.unwrap(), "both commands are interrupted");
    let usage = world.close().await;
    assert_eq!(of(&usage, "interrupted"), (2, 3), "one of the two commands had reached the subsystem");
}
