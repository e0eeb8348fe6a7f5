//! The end: not ready, still accepting, then goodbye; what is in flight finishes; the last count is on the disk.

use serde_json::json;

use crate::world::{World, empty, request, until};

const READ: &str = "/cameras/v1/snapshots/1";

#[tokio::test]
async fn sigterm_lets_what_is_in_flight_finish_and_exits_0() {
    let slow = |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "1s", "grace": "15s" });
    let mut world = World::city().edit(slow).start_process().await;
    let clients = [world.client("traffic-police"), world.client("traffic-police").h2()];
    let mut streams = Vec::new();
    for client in &clients {
        let mut stream = client.open(request("GET", "/cameras/do/hold-drain", empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        streams.push(stream);
    }
    world.process().signal("TERM");
    until("readiness is off", async || (world.admin("/readyz").await.0 == 503).then_some(())).await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "still accepting for a moment");
    let address = world.gateway_address();
    until("the listener is closed", async || tokio::net::TcpStream::connect(address).await.err()).await;
    world.server("cameras").release("drain");
    for stream in streams {
        assert_eq!(stream.whole().await.text(), "first last");
    }
    let status = world.take_process().ended().await;
    assert_eq!(status.code(), Some(0), "{}", world.log_of_process());
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 3);
}

#[tokio::test]
async fn idle_connections_are_told_goodbye() {
    let mut world = World::city().start().await;
    let clients = [world.client("traffic-police"), world.client("traffic-police").h2()];
    for client in &clients {
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.stop().await; // bounded: a kept connection must not hold the gateway up for its grace
    for client in &clients {
        assert!(client.try_send(request("GET", READ, empty())).await.is_err());
    }
    world.close().await;
}

#[tokio::test]
async fn a_command_that_outlives_the_grace_is_cut_and_counted() {
    let short = |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "1ms", "grace": "300ms" });
    let mut world = World::city().edit(short).start().await;
    let client = world.client("traffic-police");
    let held = tokio::spawn(async move { client.try_send(request("GET", "/cameras/do/never", empty())).await.is_ok() });
    let log = world.server("cameras").log.clone();
    until("the command is in flight", async || (log.all().len() == 1).then_some(())).await;
    world.stop().await;
    let _ = held.await.unwrap();
    let usage = world.close().await;
    assert_eq!(usage.sum(|key| key.department == "traffic-police"), 1, "{usage:#?}");
}
