//! Streaming bodies in both directions. The gateway notices a caller or subsystem that leaves early, and the books
//! still balance.

use std::io;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::world::{Client, World, empty, fed, request, until, whole};

fn both_protocols(world: &World) -> [Client; 2] {
    [world.client("traffic-police"), world.client("traffic-police").h2()]
}

#[tokio::test]
async fn the_first_piece_of_an_answer_arrives_before_the_last_is_sent() {
    let world = World::city().start().await;
    for (name, client) in ["a", "b"].into_iter().zip(both_protocols(&world)) {
        let mut stream = client.open(request("GET", &format!("/cameras/do/hold-{name}"), empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        world.server("cameras").release(name);
        assert_eq!(stream.whole().await.text(), "first last");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn an_upload_streams_while_it_is_sent() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        let (feed, body) = fed();
        feed.send(Ok("one ".into())).unwrap();
        let mut stream = client.open(request("POST", "/cameras/do/echo", body)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "one ");
        feed.send(Ok("two".into())).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "two");
        drop(feed);
        assert_eq!(stream.whole().await.text(), "one two");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_the_subsystem() {
    let world =
        World::city().edit(|document| document["subsystems"][0]["commands"][2]["body"] = json!({ "max": "256MiB" }));
    let world = world.start().await;
    let client = world.client("traffic-police");
    let (feed, body) = fed();
    let stream = client.open(request("POST", "/cameras/do/echo", body)).await.unwrap();
    let piece = vec![1_u8; 1 << 20];
    let received = || world.server("cameras").log.only().bytes();
    for _ in 0..128 {
        feed.send(Ok(piece.clone().into())).unwrap();
    }
    // The echo stops when the caller does not read it (backpressure): the bytes on the way fit the sockets' buffers.
    // Only two readings can show that the count has stopped.
    let mut last = 0;
    until("the upload stands still", async || {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let before = std::mem::replace(&mut last, received());
        (before == last && last > 0).then_some(())
    })
    .await;
    assert!(last < 64 << 20, "{last} bytes went somewhere");
    drop(feed);
    assert_eq!(stream.whole().await.body.len(), 128 << 20);
    world.close().await;
}

#[tokio::test]
async fn server_sent_events_pass() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        let reply = client.get("/cameras/do/events-3").await;
        assert_eq!(reply.header("content-type"), "text/event-stream");
        assert_eq!(reply.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    }
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_cancels_the_command() {
    let world = World::city().start().await;
    for (n, client) in both_protocols(&world).into_iter().enumerate() {
        let task = tokio::spawn(async move { client.get("/cameras/do/never").await.status });
        let log = &world.server("cameras").log;
        let received = until("the command arrives", async || log.all().get(n).cloned()).await;
        task.abort();
        until("the subsystem's work is cancelled", async || received.cancelled.load(Ordering::Acquire).then_some(()))
            .await;
        world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_leaves_mid_answer_is_counted_as_aborted() {
    let world = World::city().start().await;
    for (n, client) in both_protocols(&world).into_iter().enumerate() {
        let mut stream = client.open(request("GET", "/cameras/do/hold-never", empty())).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop((stream, client));
        let aborted = |usage: &crate::world::Usage| usage.of("traffic-police", "aborted") == n as u64 + 1;
        world.usage_when("the command is settled", aborted).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_leaves_mid_upload_is_counted_as_aborted() {
    let world = World::city().start().await;
    for (n, client) in both_protocols(&world).into_iter().enumerate() {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let task =
            tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
        let log = &world.server("cameras").log;
        until("half of it arrives", async || log.all().get(n).filter(|got| got.bytes() == 4).cloned()).await;
        task.abort();
        let usage = world
            .usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1)
            .await;
        assert_eq!(usage.admitted("traffic-police").request_bytes, 4 * (n as u64 + 1));
    }
    world.close().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_whole_to_the_subsystem() {
    let world = World::city().start().await;
    for (n, client) in both_protocols(&world).into_iter().enumerate() {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let answer = tokio::spawn(async move { client.try_send(request("POST", "/cameras/v1/snapshots", body)).await });
        let log = &world.server("cameras").log;
        let got = until("half of it arrives", async || log.all().get(n).filter(|got| got.bytes() == 4).cloned()).await;
        feed.send(Err(io::Error::other("the disk is gone"))).unwrap();
        assert!(answer.await.unwrap().map_or(true, |reply| reply.status != 200));
        world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1).await;
        assert!(!got.body.complete.load(Ordering::Acquire));
    }
    world.close().await;
}

#[tokio::test]
async fn a_body_beyond_the_commands_limit_is_too_large() {
    let small = |document: &mut serde_json::Value| {
        document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "64KiB" });
    };
    let world = World::city().edit(small).start().await;
    for client in both_protocols(&world) {
        let exact = client.post("/cameras/v1/snapshots", vec![1; 64 * 1024]).await;
        assert_eq!(exact.status, 200);
        let declared = client.try_send(request("POST", "/cameras/v1/snapshots", whole(vec![1; 64 * 1024 + 1]))).await;
        if let Ok(reply) = declared {
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (413, Some("too_large")));
        }
    }
    let (feed, body) = fed();
    for _ in 0..5 {
        feed.send(Ok(vec![1; 16 * 1024].into())).unwrap();
    }
    let streamed = world.client("traffic-police").h2().send(request("POST", "/cameras/v1/snapshots", body)).await;
    assert_eq!((streamed.status.as_u16(), streamed.problem().as_deref()), (413, Some("too_large")));
    drop(feed);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "too_large"), 2, "refused before anything was forwarded");
    assert_eq!(usage.of("traffic-police", "aborted"), 1, "found while it was forwarded");
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn many_commands_share_one_http2_connection() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let first = client.get("/cameras/v1/snapshots/0").await;
    assert_eq!(first.status, 200);
    let all = (0..100).map(|n| {
        let client = &client;
        async move { client.get(&format!("/cameras/v1/snapshots/{n}")).await.status }
    });
    assert!(futures_util::future::join_all(all).await.into_iter().all(|status| status == 200));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 101);
}

#[tokio::test]
async fn an_offered_body_goes_to_the_subsystem_that_asks_for_it_and_to_no_other() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        for path in ["/cameras/v1/snapshots", "/cameras/do/unread"] {
            let mut offer = request("POST", path, whole("12345"));
            offer.headers_mut().insert("expect", "100-continue".parse().unwrap());
            assert_eq!(client.send(offer).await.status, 200);
        }
    }
    let bytes: Vec<u64> = world.server("cameras").log.all().iter().map(|received| received.bytes()).collect();
    assert_eq!(bytes, [5, 0, 5, 0]);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.admitted("traffic-police").request_bytes), (4, 10));
}
