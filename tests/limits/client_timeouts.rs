//! Timeouts of downstream connections, with short timeouts and real sockets: slowloris (slow heads and slow bodies),
//! idle timeout, write timeout (callers that do not read), connection age, and the maximum number of commands of a
//! connection. Each test waits for the event, never for a time.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::h2_frames::{
    DATA, END_STREAM, GOAWAY, WINDOW_UPDATE, code_at, frame, frames_in, get, open_http2, say, streams, window_of,
};
use crate::world::{
    GATEWAY, Plan, Seen, World, empty, fed, let_time_pass, pause_as_slow_client, pause_as_slow_server, request, within,
};

fn short_timeouts(capacity: Value) -> Plan {
    World::city().edit(move |document| document["capacity"] = capacity)
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n")
}

#[tokio::test]
async fn late_head_is_refused() {
    let world = short_timeouts(json!({ "headTime": "300ms" })).start().await;
    for part in ["G", "GET /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: "] {
        world.log.note("traffic-police", Seen::Outcome("malformed"));
        let mut stream = world.client("traffic-police").connect().await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the refusal arrives", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(world.metrics().await.sum("tallygate_limit_hits_total"), 2);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "malformed"), 2);
}

#[tokio::test]
async fn byte_by_byte_head_is_bounded_by_the_head_timeout() {
    let world = short_timeouts(json!({ "headTime": "300ms" })).start().await;
    world.log.note("traffic-police", Seen::Open);
    let stream = world.client("traffic-police").connect().await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let dripping = async {
        let endless = std::iter::once("GET / HTTP/1.1\r\nX: ").chain(std::iter::repeat("x"));
        for piece in endless {
            if say(&mut writer, piece.as_bytes()).await.is_err() {
                return;
            }
            pause_as_slow_client(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = within("the refusal arrives", reader.read_to_end(&mut answer)) => {}
        () = dripping => {}
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "malformed"), 1);
}

#[tokio::test]
async fn silent_connection_is_closed_and_counted_nowhere() {
    let world = short_timeouts(json!({ "headTime": "300ms" })).start().await;
    for client in world.clients("traffic-police") {
        let mut stream = client.connect().await.unwrap();
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await; // with or without close_notify of TLS
        // Over HTTP/2 the gateway sends first: its settings.
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let usage = world.close().await;
    assert_eq!(usage.sum(|_| true), 0);
}

#[tokio::test]
async fn connection_without_a_command_is_closed_after_the_idle_timeout() {
    let world = short_timeouts(json!({ "idle": "300ms" })).start().await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    stream.write_all(head("/cameras/v1/snapshots/1").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the connection is closed", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let client = world.client("traffic-police").h2();
    assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
    until_no_connections(&world).await;
    world.close().await;
}

/// Waits until every downstream connection has ended.
async fn until_no_connections(world: &World) {
    crate::world::until("all connections are closed", async || {
        (world.metrics().await.sum("tallygate_connections_open") == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn slow_subsystem_does_not_make_its_caller_idle() {
    let world = short_timeouts(json!({ "idle": "200ms", "headTime": "200ms", "responseIdle": "200ms" })).start().await;
    for (name, client) in [("a", world.client("traffic-police")), ("b", world.client("traffic-police").h2())] {
        let mut stream = client.open(request("GET", &format!("/cameras/do/hold-{name}"), empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        pause_as_slow_server(std::time::Duration::from_millis(700)).await;
        world.server("cameras").release(name);
        assert_eq!(stream.whole().await.text(), "first last");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn slow_body_is_aborted() {
    let world = short_timeouts(json!({ "bodyIdle": "300ms", "bodyRate": "1MiB" })).start().await;
    for client in world.clients("traffic-police") {
        let (feed, body) = fed();
        let answer = client.try_send(request("POST", "/cameras/v1/snapshots", body));
        let dripping = async {
            while feed.send(Ok("x".into())).is_ok() {
                pause_as_slow_client(std::time::Duration::from_millis(50)).await;
            }
            std::future::pending().await
        };
        let answer = tokio::select! { answer = answer => answer, () = dripping => unreachable!() };
        assert!(answer.is_err() || answer.is_ok_and(|reply| reply.status == 400));
    }
    assert_eq!(world.metrics().await.sum("tallygate_limit_hits_total"), 2);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 2);
}

#[tokio::test]
async fn caller_that_stops_reading_is_disconnected() {
    let world = short_timeouts(json!({ "responseIdle": "300ms" })).start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let stream = client.open(request("GET", "/cameras/do/bytes-67108864", empty())).await.unwrap();
        let settled = |usage: &crate::world::Usage| usage.of("traffic-police", "aborted") == n as u64 + 1;
        world.usage_when("the command is settled", settled).await;
        drop(stream);
    }
    assert_eq!(world.metrics().await.sum("tallygate_limit_hits_total"), 2);
    world.close().await;
}

#[tokio::test]
async fn stalled_stream_does_not_end_its_connection() {
    let world = short_timeouts(json!({ "responseIdle": "300ms" })).start().await;
    let client = world.client("traffic-police").h2();
    let stalled = client.open(request("GET", "/cameras/do/bytes-67108864", empty())).await.unwrap();
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == 1).await;
    assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
    assert_eq!(world.metrics().await.sum("tallygate_connections_accepted_total"), 1);
    drop(stalled);
    world.close().await;
}

#[tokio::test]
async fn caller_that_reads_nothing_is_disconnected_although_its_subsystem_is_silent() {
    let world = short_timeouts(json!({ "responseIdle": "300ms" })).start().await;
    let mut caller = open_http2(&world, &window_of(1)).await;
    say(&mut caller, &get(1, "/cameras/do/hold-for-ever")).await.unwrap();
    world.log.note("traffic-police", Seen::Outcome("aborted"));
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == 1).await;
    drop(caller);
    world.close().await;
}

/// Returns a WINDOW_UPDATE for a stream.
fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// Reads until `streams` streams have ended.
async fn until_ended(caller: &mut (impl tokio::io::AsyncRead + Unpin), received: &mut Vec<u8>, streams: usize) {
    let ended = |received: &[u8]| {
        frames_in(received).iter().filter(|frame| frame.0 == DATA && frame.1 & END_STREAM != 0).count()
    };
    within("the streams end", async {
        while ended(received) < streams {
            assert!(caller.read_buf(received).await.unwrap() > 0, "closed after {} streams", ended(received));
        }
    })
    .await;
}

#[tokio::test]
async fn caller_that_reads_slowly_is_not_disconnected() {
    let world = short_timeouts(json!({ "responseIdle": "600ms" })).start().await;
    let mut caller = open_http2(&world, &window_of(1)).await;
    say(&mut caller, &get(1, "/cameras/do/bytes-4096")).await.unwrap();
    world.log.note("traffic-police", Seen::Outcome("ok"));
    for _ in 0..20 {
        say(&mut caller, &window_update(1, 10)).await.unwrap();
        pause_as_slow_client(std::time::Duration::from_millis(100)).await;
    }
    say(&mut caller, &window_update(1, 4096)).await.unwrap();
    until_ended(&mut caller, &mut Vec::new(), 1).await;
    drop(caller);
    world.close().await;
}

/// Each of many streams waits for its turn on a slow connection, longer than `responseIdle` (the write timeout).
#[tokio::test]
async fn streams_that_share_a_slow_connection_are_not_reset() {
    const STREAMS: usize = 40;
    let world = short_timeouts(json!({ "responseIdle": "500ms" })).start().await;
    let mut caller = open_http2(&world, &window_of(0x7fff_ffff)).await;
    let asked: Vec<u8> = streams().take(STREAMS).flat_map(|n| get(n, "/cameras/do/bytes-500000")).collect();
    say(&mut caller, &[window_update(0, 0x7fff_0000), asked].concat()).await.unwrap();
    let mut received = Vec::new();
    let began = std::time::Instant::now();
    while began.elapsed().as_secs() < 4 {
        let mut piece = vec![0; 16 * 1024];
        let read = within("a piece", caller.read(&mut piece)).await.unwrap();
        assert!(read > 0, "closed");
        received.extend_from_slice(&piece[..read]);
        pause_as_slow_client(std::time::Duration::from_millis(50)).await;
    }
    until_ended(&mut caller, &mut received, STREAMS).await;
    (0..STREAMS).for_each(|_| world.log.note("traffic-police", Seen::Outcome("ok")));
    drop(caller);
    world.close().await;
}

#[tokio::test]
async fn connection_that_reads_nothing_is_disconnected_with_all_its_streams() {
    let world = short_timeouts(json!({ "responseIdle": "500ms" })).start().await;
    let mut caller = open_http2(&world, &window_of(0x7fff_ffff)).await;
    let asked: Vec<u8> = streams().take(4).flat_map(|n| get(n, "/cameras/do/bytes-67108864")).collect();
    say(&mut caller, &[window_update(0, 0x7fff_0000), asked].concat()).await.unwrap();
    (0..4).for_each(|_| world.log.note("traffic-police", Seen::Outcome("aborted")));
    world.usage_when("all commands are settled", |usage| usage.of("traffic-police", "aborted") == 4).await;
    drop(caller);
    world.close().await;
}

/// Like [`caller_that_reads_nothing_is_disconnected_although_its_subsystem_is_silent`], but the caller has read all sent
/// bytes.
#[tokio::test]
async fn caller_that_reads_everything_may_wait_for_its_subsystem() {
    let world = short_timeouts(json!({ "responseIdle": "100ms" })).start().await;
    let client = world.client("traffic-police").h2();
    let mut stream = client.open(request("GET", "/cameras/do/hold-a", empty())).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
    pause_as_slow_server(std::time::Duration::from_millis(400)).await; // longer than the write timeout
    world.server("cameras").release("a");
    assert_eq!(stream.whole().await.text(), "first last");
    world.close().await;
}

#[tokio::test]
async fn connection_over_its_maximum_age_takes_no_commands() {
    let world = short_timeouts(json!({ "connectionAge": "300ms" })).start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
        until_no_connections(&world).await;
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200, "on a new connection");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}

#[tokio::test]
async fn response_in_flight_outlives_the_maximum_age_of_its_connection() {
    let world = short_timeouts(json!({ "connectionAge": "100ms" })).start().await;
    for (name, client) in [("a", world.client("traffic-police")), ("b", world.client("traffic-police").h2())] {
        let mut stream = client.open(request("GET", &format!("/cameras/do/hold-{name}"), empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        let_time_pass(std::time::Duration::from_millis(300)).await; // longer than the maximum age
        world.server("cameras").release(name);
        assert_eq!(stream.whole().await.text(), "first last");
    }
    world.close().await;
}

#[tokio::test]
async fn connection_has_a_maximum_number_of_commands_and_its_caller_reconnects() {
    let world = short_timeouts(json!({ "connectionCommands": 3 })).start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..2 {
            assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
            assert_eq!(client.get("/cameras/unknown").await.status, 404, "refused commands count as well");
            assert_eq!(client.post("/cameras/v1/snapshots", "a body").await.status, 200);
            until_no_connections(&world).await;
        }
    }
    assert_eq!(world.metrics().await.sum("tallygate_connections_accepted_total"), 4);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unknown_command")), (8, 4));
}

#[tokio::test]
async fn last_http1_response_has_connection_close_and_later_bytes_are_no_command() {
    let world = short_timeouts(json!({ "connectionCommands": 2 })).start().await;
    for last in ["/cameras/do/bytes-4", "/cameras/unknown"] {
        let mut stream = world.client("traffic-police").connect().await.unwrap();
        let asked = [head("/cameras/do/bytes-4"), head(last), head("/cameras/do/bytes-4")].concat();
        world.log.note("traffic-police", Seen::Open);
        world.log.note("traffic-police", Seen::Open);
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let _ = within("the connection ends", stream.read_to_end(&mut answers)).await; // a reset is an end, too
        let answers = String::from_utf8_lossy(&answers).to_lowercase();
        let heads: Vec<_> = answers.match_indices("http/1.1 ").map(|(at, _)| at).collect();
        assert_eq!(heads.len(), 2, "{answers}");
        let (first, second) = answers.split_at(heads[1]);
        assert!(!first.contains("connection: close") && second.contains("\r\nconnection: close\r\n"), "{answers}");
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unknown_command")), (3, 1));
}

#[tokio::test]
async fn last_http2_command_is_followed_by_a_goaway_and_all_are_answered() {
    let world = short_timeouts(json!({ "connectionCommands": 3 })).start().await;
    let mut stream = open_http2(&world, &[]).await;
    let asked: Vec<u8> = streams().take(3).flat_map(|stream| get(stream, "/cameras/do/bytes-4")).collect();
    (0..3).for_each(|_| world.log.note("traffic-police", Seen::Open));
    say(&mut stream, &asked).await.unwrap();
    let mut received = Vec::new();
    let goaway_code = async {
        loop {
            stream.read_buf(&mut received).await.unwrap();
            let frames = frames_in(&received);
            let ended = frames.iter().filter(|(kind, flags, ..)| *kind == DATA && flags & END_STREAM != 0).count();
            if let Some((.., payload)) = frames.iter().find(|(kind, ..)| *kind == GOAWAY)
                && ended == 3
            {
                return code_at(payload, 4);
            }
        }
    };
    assert_eq!(within("three answers and a GOAWAY", goaway_code).await, 0, "NO_ERROR");
    drop(stream);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 3);
}
