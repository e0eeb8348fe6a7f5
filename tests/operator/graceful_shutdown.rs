//! Graceful shutdown: the gateway first reports not ready and still accepts connections (drain), then sends GOAWAY or
//! `Connection: close`. Commands in flight finish within the grace. The last count is on the disk.

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::world::h2_frames::{GOAWAY, frames_in, get, open_http2, say};
use crate::world::{READ, World, empty, let_time_pass, request, until, within};

#[tokio::test]
async fn sigterm_lets_commands_in_flight_finish_and_exits_0() {
    let slow = |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "1s", "grace": "15s" });
    let mut world = World::city().edit(slow).start_process().await;
    let clients = world.clients("traffic-police");
    let mut streams = Vec::new();
    for client in &clients {
        let mut stream = client.open(request("GET", "/cameras/do/hold-drain", empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        streams.push(stream);
    }
    world.process().signal("TERM");
    until("the gateway reports not ready", async || (world.admin("/readyz").await.0 == 503).then_some(())).await;
    for (client, connection) in world.clients("traffic-police").iter().zip(["close", ""]) {
        let during = client.get(READ).await;
        assert_eq!(during.status, 200, "the listener accepts connections during the delay");
        assert_eq!(during.header("connection"), connection, "HTTP/1.1 closes with the response, HTTP/2 with GOAWAY");
    }
    let address = world.gateway_address();
    until("the listener is closed", async || tokio::net::TcpStream::connect(address).await.err()).await;
    world.server("cameras").release("drain");
    for stream in streams {
        assert_eq!(stream.whole().await.text(), "first last");
    }
    let status = world.take_process().ended().await;
    assert_eq!(status.code(), Some(0), "{}", world.log_of_process());
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}

#[tokio::test]
async fn gateway_leaves_when_no_new_connection_comes() {
    let patient = |document: &mut serde_json::Value| {
        document["shutdown"] = json!({ "delay": "15s", "quiet": "1500ms", "grace": "5s" });
    };
    let mut world = World::city().edit(patient).start_process().await;
    world.process().signal("TERM");
    let asked = std::time::Instant::now();
    until("the gateway reports not ready", async || (world.admin("/readyz").await.0 == 503).then_some(())).await;
    while asked.elapsed() < std::time::Duration::from_secs(4) {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "connections come, so it stays");
        let_time_pass(std::time::Duration::from_millis(300)).await;
    }
    let last = std::time::Instant::now();
    let status = world.take_process().ended().await;
    let took = last.elapsed();
    assert_eq!(status.code(), Some(0));
    let (least, most) = (std::time::Duration::from_secs(1), std::time::Duration::from_secs(8));
    assert!(took > least && took < most, "it left {took:?} after the last connection");
    let log = world.log_of_process();
    assert!(log.contains("no new connections; the listeners close"), "{log}");
    world.close().await;
}

#[tokio::test]
async fn delay_is_the_longest_wait_while_connections_come() {
    let busy = |document: &mut serde_json::Value| {
        document["shutdown"] = json!({ "delay": "2s", "quiet": "1s", "grace": "5s" });
    };
    let mut world = World::city().edit(busy).start_process().await;
    let address = world.gateway_address();
    let asked = std::time::Instant::now();
    world.process().signal("TERM");
    until("the listener is closed", async || tokio::net::TcpStream::connect(address).await.err()).await;
    let took = asked.elapsed();
    assert!(took < std::time::Duration::from_secs(8), "{took:?}");
    assert_eq!(world.take_process().ended().await.code(), Some(0));
    let log = world.log_of_process();
    assert!(log.contains("shutdown.delay is over"), "{log}");
    world.close().await;
}

#[tokio::test]
async fn http2_connection_gets_a_goaway_with_its_next_command() {
    let slow = |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "4s", "grace": "5s" });
    let mut world = World::city().edit(slow).start_process().await;
    let mut opened = open_http2(&world, &[]).await;
    world.process().signal("TERM");
    until("the gateway reports not ready", async || (world.admin("/readyz").await.0 == 503).then_some(())).await;
    let asked = std::time::Instant::now();
    say(&mut opened, &get(1, READ)).await.unwrap();
    world.log.note("traffic-police", crate::world::Seen::Outcome("ok"));
    let mut received = Vec::new();
    let goaway = async {
        while !frames_in(&received).iter().any(|(kind, ..)| *kind == GOAWAY) {
            assert_ne!(opened.read_buf(&mut received).await.unwrap(), 0, "closed without GOAWAY");
        }
    };
    within("GOAWAY", goaway).await;
    assert!(asked.elapsed() < std::time::Duration::from_secs(3), "it comes with the command, not after the delay");
    let rest = async { while opened.read_buf(&mut received).await.is_ok_and(|bytes| bytes > 0) {} };
    within("the end of the connection", rest).await;
    assert_eq!(world.take_process().ended().await.code(), Some(0));
    world.close().await;
}

#[tokio::test]
async fn idle_connections_get_a_goaway() {
    let mut world = World::city().start().await;
    let clients = world.clients("traffic-police");
    for client in &clients {
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.stop().await; // bounded: a kept connection must not delay the stop by the grace
    for client in &clients {
        assert!(client.try_send(request("GET", READ, empty())).await.is_err());
    }
    world.close().await;
}

#[tokio::test]
async fn command_over_the_grace_is_interrupted_and_counted() {
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

#[tokio::test]
async fn connection_without_a_command_neither_delays_the_shutdown_nor_counts_as_one() {
    let patient = |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "1ms", "grace": "15s" });
    let mut world = World::city().edit(patient).start_process().await;
    let silent = tokio::net::TcpStream::connect(world.gateway_address()).await.unwrap();
    let secured = world.client("traffic-police").connect().await.unwrap();
    let unopened = world.client("traffic-police").h2().connect().await.unwrap();
    let mut opened = open_http2(&world, &[]).await;
    let mut settings = [0; 9];
    opened.read_exact(&mut settings).await.unwrap(); // later frames are not read: pings get no response
    let idle = world.client("traffic-police");
    assert_eq!(idle.get(READ).await.status, 200);
    let asked = std::time::Instant::now();
    world.process().signal("TERM");
    let status = world.take_process().ended().await;
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < std::time::Duration::from_secs(8), "the stop took {took:?}");
    let log = world.log_of_process();
    assert!(!log.contains("still in flight"), "{log}");
    drop((silent, secured, unopened, opened));
    world.close().await;
}

#[tokio::test]
async fn end_of_the_grace_logs_the_interrupted_commands() {
    for (commands, expected) in [(0, ""), (2, "commands=2")] {
        let short =
            |document: &mut serde_json::Value| document["shutdown"] = json!({ "delay": "1ms", "grace": "300ms" });
        let mut world = World::city().edit(short).start_process().await;
        let mut opened = open_http2(&world, &[]).await;
        opened.read_exact(&mut [0; 9]).await.unwrap(); // the connection is held longer than the grace
        let mut held = Vec::new();
        for _ in 0..commands {
            let client = world.client("traffic-police");
            held.push(tokio::spawn(async move {
                client.try_send(request("GET", "/cameras/do/never", empty())).await.is_ok()
            }));
        }
        let log = world.server("cameras").log.clone();
        until("the commands are in flight", async || (log.all().len() == commands).then_some(())).await;
        world.process().signal("TERM");
        assert_eq!(world.take_process().ended().await.code(), Some(0));
        for held in held {
            let _ = held.await.unwrap();
        }
        let log = world.log_of_process();
        assert_eq!((log.contains("still in flight"), log.contains(expected)), (commands > 0, true), "{log}");
        drop(opened);
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "interrupted"), commands as u64);
    }
}
