//! Weighted load balancing: each server gets its share of the commands, and a server with weight 0 gets none.

use serde_json::{Value, json};

use crate::world::{READ, Server, World, empty, request};

/// Returns a city whose cameras have two servers with these weights.
async fn weighted(weights: [u64; 2], balance: Value) -> World {
    let second = Server::start();
    let address = second.address;
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0]["url"].clone();
        document["subsystems"][0]["upstreams"] = json!([
            { "url": first, "weight": weights[0] },
            { "url": format!("http://{address}"), "weight": weights[1] },
        ]);
        document["subsystems"][0]["balance"] = balance;
    });
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    world
}

/// Sends `count` commands, each with a different key.
async fn send(world: &World, count: usize) {
    let client = world.client("traffic-police").h2();
    for n in 0..count {
        let mut outgoing = request("GET", READ, empty());
        outgoing.headers_mut().insert("x-camera", format!("camera-{n}").parse().unwrap());
        assert_eq!(client.send(outgoing).await.status, 200);
    }
}

fn received(world: &World) -> [usize; 2] {
    ["cameras", "cameras-2"].map(|server| world.server(server).log.all().len())
}

#[tokio::test]
async fn commands_are_split_by_weight_with_every_policy() {
    for (balance, count, second) in [
        (json!("roundRobin"), 100, 10..=10),
        // Expected: 40 of 400, with a standard deviation of 6. The number depends on free ports and chance.
        (json!({ "hash": { "header": "x-camera" } }), 400, 10..=75),
        (json!("leastRequest"), 400, 10..=75),
    ] {
        let world = weighted([9, 1], balance.clone()).await;
        send(&world, count).await;
        let got = received(&world);
        assert_eq!(got[0] + got[1], count);
        assert!(second.contains(&got[1]), "{got:?} by {balance}");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), count as u64);
    }
}

#[tokio::test]
async fn reload_changes_the_split_and_weight_zero_removes_a_server() {
    let mut world = weighted([1, 0], json!("roundRobin")).await;
    send(&world, 20).await;
    assert_eq!(received(&world), [20, 0]);
    world.reload(|document| document["subsystems"][0]["upstreams"][1]["weight"] = json!(3)).await;
    send(&world, 40).await;
    assert_eq!(received(&world), [30, 30]);
    world.reload(|document| document["subsystems"][0]["upstreams"][0]["weight"] = json!(0)).await;
    send(&world, 10).await;
    assert_eq!(received(&world), [30, 40]);
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum("tallygate_upstream_attempts_total"), 70);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 70);
}

#[tokio::test]
async fn server_of_weight_zero_does_not_replace_an_unreachable_one() {
    let mut world = weighted([1, 0], json!("leastRequest")).await;
    let down = world.remove_server("cameras");
    drop(down);
    let client = world.client("traffic-police");
    for _ in 0..8 {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"));
    }
    assert_eq!(world.server("cameras-2").log.all().len(), 0);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 8);
}
