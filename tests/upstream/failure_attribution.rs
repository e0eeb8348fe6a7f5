//! Failure attribution: a caller that breaks its own request must not cause the outlier ejection of a healthy server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::world::h2_frames::{DATA, END_HEADERS, HEADERS, POST, RST_STREAM, fields, frame, literal, open_http2, say};
use crate::world::{
    ANY_PORT, GATEWAY, IN_FLIGHT, SUBMIT, Seen, World, fed, listen, pause_as_slow_client, pause_as_slow_server,
    request, until,
};

/// More failures than an ejection needs (`FAILURES_MAX` in `proxy/upstream/endpoint/health`).
const TIMES: u64 = 6;

/// One way to break an upload.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// An HTTP/2 stream with a `Content-Length`, reset with this code.
    Reset(u32),
    /// The same reset, sent together with the head.
    ResetAtOnce(u32),
    /// A malformed chunk over HTTP/1.1.
    Chunk,
    /// A lost connection over HTTP/1.1.
    Lost,
    /// A body over the limit of the command.
    TooLarge,
    /// No further bytes, for longer than the limit.
    Slow,
}

impl Break {
    const ALL: [Self; 8] = [
        Self::Reset(0),
        Self::Reset(8),
        Self::ResetAtOnce(0),
        Self::ResetAtOnce(8),
        Self::Chunk,
        Self::Lost,
        Self::TooLarge,
        Self::Slow,
    ];

    async fn run(self, world: &World) {
        match self {
            Self::Reset(code) | Self::ResetAtOnce(code) => {
                world.log.note("traffic-police", Seen::Open);
                let mut caller = open_http2(world, &[]).await;
                let block = [fields(POST, SUBMIT), literal("content-length", "9000")].concat();
                let upload = [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, 0, 1, b"half of it")].concat();
                let reset = frame(RST_STREAM, 0, 1, &code.to_be_bytes());
                if matches!(self, Self::Reset(_)) {
                    say(&mut caller, &upload).await.unwrap();
                    in_flight(world, 1).await;
                    say(&mut caller, &reset).await.unwrap();
                } else {
                    say(&mut caller, &[upload, reset].concat()).await.unwrap();
                }
                in_flight(world, 0).await;
            }
            Self::Chunk | Self::Lost => {
                world.log.note("traffic-police", Seen::Open);
                let mut caller = world.client("traffic-police").connect().await.unwrap();
                let head = format!("POST {SUBMIT} HTTP/1.1\r\nHost: {GATEWAY}\r\nTransfer-Encoding: chunked\r\n\r\n");
                say(&mut caller, format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
                in_flight(world, 1).await;
                match self {
                    Self::Chunk => drop(caller.write_all(b"no size\r\n").await),
                    _ => drop(caller),
                }
                in_flight(world, 0).await;
            }
            Self::TooLarge | Self::Slow => {
                let (feed, body) = fed();
                feed.send(Ok(vec![7; 10].into())).unwrap();
                let large = if matches!(self, Self::TooLarge) { 128 * 1024 } else { 1 };
                feed.send(Ok(vec![7; large].into())).unwrap();
                let _ = world.client("traffic-police").h2().try_send(request("POST", SUBMIT, body)).await;
                in_flight(world, 0).await;
            }
        }
    }
}

async fn in_flight(world: &World, commands: i64) {
    until("the commands are in flight", async || (world.metrics().await.sum(IN_FLIGHT) == commands).then_some(()))
        .await;
}

fn short_timeouts(document: &mut Value, way: Break) {
    let idle = if matches!(way, Break::Slow) { "200ms" } else { "20s" };
    document["capacity"] = json!({ "bodyIdle": idle });
    document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "64KiB" });
}

#[tokio::test]
async fn broken_upload_is_blamed_on_its_caller_however_it_breaks() {
    for protocol in ["http1", "http2"] {
        for way in Break::ALL {
            let plan = World::city().edit(|document| short_timeouts(document, way));
            let world = plan.edit(|document| document["subsystems"][0]["protocol"] = json!(protocol)).start().await;
            for _ in 0..TIMES {
                way.run(&world).await;
            }
            let metrics = world.metrics().await;
            assert_eq!(metrics.sum("tallygate_upstream_ejected"), 0, "{way:?}, {protocol}");
            assert_eq!(metrics.sum("tallygate_upstream_failures_total"), 0, "{way:?}, {protocol}");
            assert_eq!(world.client("traffic-police").get("/cameras/v1/snapshots/1").await.status, 200);
            let usage = world.close().await;
            assert_eq!(usage.of("traffic-police", "upstream_failed"), 0, "{way:?}, {protocol}");
            if !matches!(way, Break::ResetAtOnce(_)) {
                assert_eq!(usage.of("traffic-police", "aborted"), TIMES, "{way:?}, {protocol}");
            }
        }
    }
}

/// A subsystem that closes a connection if the rest of a request does not arrive in time, as many servers do.
#[tokio::test]
async fn server_that_closes_on_a_slow_caller_is_not_ejected() {
    let listener = listen(ANY_PORT);
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.readable().await.unwrap();
            pause_as_slow_server(Duration::from_millis(100)).await; // the server's own timeout
            drop(stream);
        }
    });
    let mut world = World::city().cameras_at(address).start().await;
    let client = world.client("traffic-police");
    for _ in 0..TIMES {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let reply = client.send(request("POST", SUBMIT, body)).await;
        assert_eq!(reply.problem().as_deref(), Some("upstream_failed"));
        drop(feed);
    }
    assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn deadline_set_by_the_caller_is_no_failure_of_a_server() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..TIMES {
            let mut call = request("POST", "/cameras/do/never", crate::world::empty());
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            call.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
            assert_eq!(client.send(call).await.problem().as_deref(), Some("timeout"));
        }
    }
    assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0);
    assert_eq!(world.client("traffic-police").get("/cameras/v1/snapshots/1").await.status, 200);
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2 * TIMES);
}

/// An echo is silent while its caller is silent. The caller causes this silence, and `bodyIdle` bounds it.
#[tokio::test]
async fn subsystem_that_waits_for_its_caller_is_not_timed_out() {
    let quick = json!({ "connect": "1s", "response": "5s", "idle": "150ms" });
    let world = World::city().edit(|document| document["subsystems"][0]["timeouts"] = quick).start().await;
    for client in world.clients("traffic-police") {
        let (feed, body) = fed();
        feed.send(Ok("one ".into())).unwrap();
        let mut stream = client.open(request("POST", "/cameras/do/echo", body)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "one ");
        pause_as_slow_client(Duration::from_millis(500)).await;
        feed.send(Ok("two".into())).unwrap();
        drop(feed);
        assert_eq!(stream.whole().await.text(), "one two");
    }
    assert_eq!(world.close().await.of("traffic-police", "ok"), 2);
}
