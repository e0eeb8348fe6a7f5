//! Truncated messages: a message that stops before its end never looks whole to the other side, and is counted as
//! broken, whatever the code of a reset.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::h2_frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, POST, RST_STREAM, fields, frame,
    literal, open_http2, say,
};
use crate::world::raw_h2_server::{Answering, StreamServer};
use crate::world::{
    ANY_PORT, IN_FLIGHT, READ, SUBMIT, Seen, World, empty, listen, pause_as_slow_server, request, until,
};

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn forwarded(document: &mut Value) {
    document["subsystems"][0]["commands"][0]["mirror"] = json!({ "subsystem": "lab" });
}

/// Sends half an upload and resets its stream, at once or after the half has arrived. The upload must arrive broken, or
/// not at all.
async fn reset_upload(world: &World, (code, length, at_once): (u32, &str, bool)) {
    let mut caller = open_http2(world, &[]).await;
    let length = if length.is_empty() { Vec::new() } else { literal("content-length", length) };
    let head = frame(HEADERS, END_HEADERS, 1, &[fields(POST, SUBMIT), length].concat());
    let half = [head, frame(DATA, 0, 1, b"half of it")].concat();
    let before = world.server("cameras").log.all().len();
    world.log.note("traffic-police", Seen::Open);
    if at_once {
        say(&mut caller, &[half, reset(1, code)].concat()).await.unwrap();
    } else {
        say(&mut caller, &half).await.unwrap();
        let log = &world.server("cameras").log;
        until("half of the body arrives", async || log.all().get(before).filter(|got| got.bytes() == 10).cloned())
            .await;
        say(&mut caller, &reset(1, code)).await.unwrap();
    }
    until("nothing is in flight", async || (world.metrics().await.sum(IN_FLIGHT) == 0).then_some(())).await;
}

#[tokio::test]
async fn reset_upload_never_looks_complete_whatever_the_code() {
    for protocol in ["http1", "http2"] {
        let plan = World::city().subsystem("lab").edit(forwarded);
        let plan = plan.edit(|document| document["subsystems"][0]["protocol"] = json!(protocol));
        let world = plan.start().await;
        let mut uploads = 0;
        for code in [NO_ERROR, INTERNAL_ERROR, CANCEL] {
            for (length, at_once) in [("", false), ("", true), ("9000", false), ("9000", true)] {
                reset_upload(&world, (code, length, at_once)).await;
                uploads += 1;
            }
        }
        let whole = |world: &World, server: &str| {
            let log = world.server(server).log.all();
            log.iter().filter(|got| got.body.complete.load(Ordering::Acquire)).count()
        };
        assert_eq!(whole(&world, "cameras"), 0, "{protocol}");
        assert!(world.server("lab").log.all().is_empty(), "{protocol}: a truncated request is not mirrored");
        assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0, "{protocol}");
        let usage = world.close().await;
        // A stream that is reset together with its head may never become a command.
        assert!((uploads / 2..=uploads).contains(&usage.of("traffic-police", "aborted")), "{protocol}: {usage:?}");
        assert_eq!(usage.of("traffic-police", "aborted"), usage.sum(|_| true), "{protocol}");
    }
}

fn head(stream: u32, more: &[u8]) -> Vec<u8> {
    let block = [&[0x88][..], &literal("content-type", "text/plain"), more].concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn half(stream: u32, more: &[u8]) -> Vec<u8> {
    [head(stream, more), frame(DATA, 0, stream, &[b'h'; 2000])].concat()
}

fn length(bytes: &str) -> Vec<u8> {
    literal("content-length", bytes)
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Responses that stop before their end.
const BREAKS: [(&str, Answering); 7] = [
    ("NO_ERROR", |n| vec![half(n, &[]), reset(n, NO_ERROR)]),
    ("NO_ERROR, at once", |n| vec![[half(n, &[]), reset(n, NO_ERROR)].concat()]),
    ("NO_ERROR, with a length", |n| vec![half(n, &length("9999")), reset(n, NO_ERROR)]),
    ("CANCEL", |n| vec![half(n, &[]), reset(n, CANCEL)]),
    ("CANCEL, with a length", |n| vec![half(n, &length("9999")), reset(n, CANCEL)]),
    ("END_STREAM before its length", |n| vec![half(n, &length("9999")), frame(DATA, END_STREAM, n, b"")]),
    ("a session that ends below it", |n| vec![half(n, &[]), goaway(n.saturating_sub(2), NO_ERROR)]),
];

#[tokio::test]
async fn reset_response_never_looks_complete_whatever_the_code() {
    for (name, answering) in BREAKS {
        for compressed in [false, true] {
            let server = StreamServer::start(answering, Duration::from_millis(100));
            let plan = server.in_a_city();
            let mut world =
                plan.edit(|document| document["subsystems"][0]["compress"] = json!(compressed)).start().await;
            for client in world.clients("traffic-police") {
                let mut outgoing = request("GET", READ, empty());
                outgoing.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
                match client.open(outgoing).await {
                    Ok(mut stream) => assert!(stream.read_to_end().await.is_err(), "{name}, {compressed}"),
                    Err(failure) => panic!("{name}, {compressed}: the request head was not accepted: {failure}"),
                }
            }
            let failures = world.metrics().await.sum("tallygate_upstream_failures_total");
            assert_eq!(failures, 2, "{name}, {compressed}");
            world.note_foreign_server();
            assert_eq!(world.close().await.of("traffic-police", "upstream_failed"), 2, "{name}, {compressed}");
        }
    }
}

#[tokio::test]
async fn reset_with_no_error_after_the_end_loses_nothing() {
    let server = StreamServer::start(
        |n| vec![[half(n, &[]), frame(DATA, END_STREAM, n, b"."), reset(n, NO_ERROR)].concat()],
        Duration::ZERO,
    );
    let mut world = server.in_a_city().start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.body.len(), 2001);
    }
    world.note_foreign_server();
    assert_eq!(world.close().await.of("traffic-police", "ok"), 2);
}

/// Responses that are broken by bytes that arrive with their head.
const CONTRADICTIONS: [(&str, Answering); 4] = [
    ("longer", |n| vec![[head(n, &length("5")), frame(DATA, 0, n, b"12345678")].concat()]),
    ("shorter", |n| vec![[head(n, &length("5")), frame(DATA, END_STREAM, n, b"123")].concat()]),
    ("reset", |n| vec![[head(n, &[]), reset(n, CANCEL)].concat()]),
    ("reset without an error", |n| vec![[head(n, &[]), reset(n, NO_ERROR)].concat()]),
];

#[tokio::test]
async fn response_broken_before_its_head_is_sent_is_a_502() {
    for (name, answering) in CONTRADICTIONS {
        let server = StreamServer::start(answering, Duration::ZERO);
        let mut world = server.in_a_city().start().await;
        for client in world.clients("traffic-police") {
            let reply = client.get(READ).await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")), "{name}");
        }
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "upstream_failed"), 2, "{name}");
    }
}

/// Starts a server that sends these bytes on every connection, and the rest, if not empty, after a moment.
async fn plain(first: &'static str, rest: &'static str) -> World {
    let listener = listen(ANY_PORT);
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut asked).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                stream.write_all(first.as_bytes()).await.unwrap();
                pause_as_slow_server(Duration::from_millis(100)).await; // so that the rest arrives separately
                let _ = stream.write_all(rest.as_bytes()).await;
                let _ = stream.read_to_end(&mut asked).await;
            });
        }
    });
    let mut world = World::city().cameras_at(address).start().await;
    world.note_foreign_server();
    world
}

#[tokio::test]
async fn http1_chunks_malformed_together_with_the_head_are_a_502() {
    let world = plain("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", "").await;
    for client in world.clients("traffic-police") {
        let reply = client.get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")));
    }
    assert_eq!(world.close().await.of("traffic-police", "upstream_failed"), 2);
}

/// Malformed chunks and trailers, and then silence: they are no end, and the gateway does not wait for one.
#[tokio::test]
async fn http1_chunks_malformed_later_are_no_end_and_earlier_data_arrives() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for rest in ["5\r\nhello\r\nno size\r\n", "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n"] {
        let world = plain(HEAD, rest).await;
        for client in world.clients("traffic-police") {
            let mut stream = client.open(request("GET", READ, empty())).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap(), "hello", "{rest:?}");
            assert!(stream.read_to_end().await.is_err(), "{rest:?}");
        }
        assert_eq!(world.close().await.of("traffic-police", "upstream_failed"), 2, "{rest:?}");
    }
}
