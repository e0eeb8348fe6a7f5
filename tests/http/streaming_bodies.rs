//! Streaming bodies in both directions. The gateway notices a caller or subsystem that leaves early, and the books
//! still balance.

use std::io;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::world::{World, empty, fed, request, until, until_steady, whole};

#[tokio::test]
async fn first_data_of_a_response_arrives_before_the_last_is_sent() {
    let world = World::city().start().await;
    for (name, client) in ["a", "b"].into_iter().zip(world.clients("traffic-police")) {
        let mut stream = client.open(request("GET", &format!("/cameras/do/hold-{name}"), empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        world.server("cameras").release(name);
        assert_eq!(stream.whole().await.text(), "first last");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn upload_is_streamed_while_it_is_sent() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
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
async fn backpressure_of_a_caller_reaches_the_subsystem() {
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
    let last = until_steady("the upload stops", 0, received).await;
    assert!(last < 64 << 20, "{last} bytes were buffered");
    drop(feed);
    assert_eq!(stream.whole().await.body.len(), 128 << 20);
    world.close().await;
}

#[tokio::test]
async fn server_sent_events_pass() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let reply = client.get("/cameras/do/events-3").await;
        assert_eq!(reply.header("content-type"), "text/event-stream");
        assert_eq!(reply.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    }
    world.close().await;
}

#[tokio::test]
async fn caller_that_leaves_before_the_response_cancels_the_command() {
    let world = World::city().start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let task = tokio::spawn(async move { client.get("/cameras/do/never").await.status });
        let log = &world.server("cameras").log;
        let received = until("the command arrives", async || log.all().get(n).cloned()).await;
        task.abort();
        until("the request is cancelled at the subsystem", async || {
            received.cancelled.load(Ordering::Acquire).then_some(())
        })
        .await;
        world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1).await;
    }
    world.close().await;
}

#[tokio::test]
async fn caller_that_leaves_mid_response_is_counted_as_aborted() {
    let world = World::city().start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let mut stream = client.open(request("GET", "/cameras/do/hold-never", empty())).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop((stream, client));
        let aborted = |usage: &crate::world::Usage| usage.of("traffic-police", "aborted") == n as u64 + 1;
        world.usage_when("the command is settled", aborted).await;
    }
    world.close().await;
}

#[tokio::test]
async fn caller_that_leaves_mid_upload_is_counted_as_aborted() {
    let world = World::city().start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let task =
            tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
        let log = &world.server("cameras").log;
        until("half of the body arrives", async || log.all().get(n).filter(|got| got.bytes() == 4).cloned()).await;
        task.abort();
        let usage = world
            .usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1)
            .await;
        assert_eq!(usage.admitted("traffic-police").request_bytes, 4 * (n as u64 + 1));
    }
    world.close().await;
}

#[tokio::test]
async fn truncated_upload_never_looks_complete_to_the_subsystem() {
    let world = World::city().start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let answer = tokio::spawn(async move { client.try_send(request("POST", "/cameras/v1/snapshots", body)).await });
        let log = &world.server("cameras").log;
        let got =
            until("half of the body arrives", async || log.all().get(n).filter(|got| got.bytes() == 4).cloned()).await;
        feed.send(Err(io::Error::other("the disk is gone"))).unwrap();
        assert!(answer.await.unwrap().map_or(true, |reply| reply.status != 200));
        world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == n as u64 + 1).await;
        assert!(!got.body.complete.load(Ordering::Acquire));
    }
    world.close().await;
}

#[tokio::test]
async fn body_over_the_limit_of_its_command_is_too_large() {
    let small = |document: &mut serde_json::Value| {
        document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "64KiB" });
    };
    let world = World::city().edit(small).start().await;
    for client in world.clients("traffic-police") {
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
    assert_eq!(usage.of("traffic-police", "too_large"), 2, "refused before any byte was forwarded");
    assert_eq!(usage.of("traffic-police", "aborted"), 1, "found while the body was forwarded");
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
async fn expected_body_is_sent_only_to_the_subsystem_that_requests_it() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
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
