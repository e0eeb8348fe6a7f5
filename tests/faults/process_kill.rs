//! Crash safety: SIGKILL of the real binary under load. No acknowledged command is lost, and no command is counted
//! twice.

use serde_json::{Value, json};

use crate::world::{Client, World, empty, request, until};

/// Sends commands one after the other until the gateway has ended. The callers' log holds the responses.
async fn load(client: Client) {
    for n in 0_u32.. {
        if client.try_send(request("GET", &format!("/cameras/v1/snapshots/{n}"), empty())).await.is_err() {
            return;
        }
    }
}

fn start_load(world: &World) -> Vec<tokio::task::JoinHandle<()>> {
    let departments = ["traffic-police", "logistics", "traffic-police", "logistics"];
    let clients = departments.iter().flat_map(|department| [world.client(department), world.client(department).h2()]);
    clients.map(|client| tokio::spawn(load(client))).collect()
}

/// Kills the gateway three times, each time under load. The audit then proves three facts: every response that a caller
/// saw is in the ledger; the ledger holds no command that no caller sent; no request reached the subsystem twice.
async fn kill_three_times(durability: &str) {
    let ledger = |document: &mut Value| {
        document["ledger"]["durability"] = json!(durability);
        document["workers"] = json!(2);
    };
    let mut world = World::city().edit(ledger).start_process().await;
    for life in 1..=3 {
        let before = world.log.all().len();
        let load = start_load(&world);
        until("the gateway is busy", async || (world.log.all().len() > before + 400).then_some(())).await;
        world.kill().await;
        for client in load {
            client.await.unwrap();
        }
        let dead = world.usage(); // read from the files of the dead process
        let answered = world.log.all().iter().filter(|sent| sent.seen == crate::world::Seen::Outcome("ok")).count();
        assert!(dead.sum(|key| key.outcome == "ok") >= answered as u64, "life {life}: answered commands are missing");
        world.start_process().await;
        let risen = world.usage();
        assert_eq!(dead.sum(|key| key.outcome == "ok"), risen.sum(|key| key.outcome == "ok"), "life {life}");
    }
    assert_eq!(world.client("traffic-police").get("/cameras/v1/snapshots/1").await.status, 200);
    let usage = world.close().await;
    let open = 8 * 3;
    assert!(usage.sum(|key| key.outcome == "interrupted") <= open, "{usage:#?}");
}

#[tokio::test]
async fn killed_process_loses_no_answered_command() {
    kill_three_times("process").await;
}

#[tokio::test]
async fn killed_process_loses_no_answered_command_with_durable_responses() {
    kill_three_times("machine").await;
}

#[tokio::test]
async fn command_in_flight_at_the_kill_is_interrupted_once() {
    let mut world = World::city().start_process().await;
    let client = world.client("traffic-police");
    let held =
        tokio::spawn(async move { client.try_send(request("GET", "/cameras/do/never", empty())).await.is_err() });
    let log = world.server("cameras").log.clone();
    until("the command is in flight", async || (log.all().len() == 1).then_some(())).await;
    world.kill().await;
    assert!(held.await.unwrap());
    world.start_process().await;
    world.stop().await;
    world.start_process().await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "interrupted"), 1);
}

#[tokio::test]
async fn aborted_process_loses_no_answered_command() {
    let mut world = World::city().start_process().await;
    for signal in ["ABRT", "ILL", "FPE"] {
        let before = world.log.all().len();
        let load = start_load(&world);
        until("the gateway is busy", async || (world.log.all().len() > before + 100).then_some(())).await;
        let mut process = world.take_process();
        process.signal(signal);
        assert!(!process.ended().await.success());
        for client in load {
            client.await.unwrap();
        }
        let dead = world.usage();
        world.start_process().await;
        assert_eq!(world.usage().sum(|key| key.outcome == "ok"), dead.sum(|key| key.outcome == "ok"));
    }
    world.close().await;
}
