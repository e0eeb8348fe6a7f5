//! Request smuggling by early responses: if a response is sent before its request is complete, the rest of the request
//! is never parsed as the next request.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

use crate::world::{Client, FragmentingStream, GATEWAY, Seen, World, within};

/// Returns text that is a valid request at any position in the stream.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /cameras/v1/snapshots HTTP/1.1\r\nHost: {GATEWAY}\r\n{fields}\r\n{body}")
}

/// Sends raw bytes, and reads until the connection ends.
async fn say(client: &Client, bytes: &str) -> String {
    let mut stream = client.connect().await.unwrap();
    let _ = stream.write_all(bytes.as_bytes()).await; // the gateway may close before all bytes are sent
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TlsStream<FragmentingStream>) -> String {
    let mut answer = Vec::new();
    let _ = within("the connection is closed", stream.read_to_end(&mut answer)).await; // a reset is an end, too
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the statuses of all responses in the received text.
fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answers.get(at + 9..at + 12)).collect()
}

#[tokio::test]
async fn body_of_a_refused_command_is_not_parsed_as_a_command() {
    let world = World::city().start().await;
    let archive = world.client("archive");
    let hidden = get("/cameras/v1/snapshots/hidden");
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for refused in [
        post(&format!("Content-Length: {}\r\n", hidden.len()), &hidden),
        post("Transfer-Encoding: chunked\r\n", &chunked),
    ] {
        world.log.note("archive", Seen::Outcome("forbidden"));
        world.log.note("archive", Seen::Outcome("forbidden"));
        let answers = say(&archive, &format!("{refused}{}", get("/cameras/v1/snapshots/next"))).await;
        assert_eq!(statuses(&answers), ["403", "403"], "{answers}");
    }
    assert!(world.server("cameras").log.all().is_empty());
    let usage = world.close().await;
    assert_eq!(usage.of("archive", "forbidden"), 4);
}

#[tokio::test]
async fn unread_body_ends_its_connection_after_a_timeout() {
    let small = |document: &mut serde_json::Value| {
        document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "1KiB" });
    };
    let world = World::city().edit(small).start().await;
    let police = world.client("traffic-police");
    let hidden = get("/cameras/v1/snapshots/hidden").repeat(40_000);
    world.log.note("traffic-police", Seen::Outcome("too_large"));
    let answers = say(&police, &post(&format!("Content-Length: {}\r\n", hidden.len()), &hidden)).await;
    assert!(matches!(statuses(&answers)[..], ["413"] | []), "{answers}");
    assert!(world.server("cameras").log.all().is_empty());
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "too_large"), 1);
}

#[tokio::test]
async fn limited_command_with_a_body_keeps_the_connection_usable() {
    let slow = |document: &mut serde_json::Value| {
        document["subsystems"][0]["commands"][0]["limits"] = json!({ "rate": "1/h", "burst": 1 });
    };
    let world = World::city().edit(slow).start().await;
    let police = world.client("traffic-police");
    let submit = post("Content-Length: 5\r\n", "hello");
    for outcome in ["ok", "rate_limited", "rate_limited", "ok"] {
        world.log.note("traffic-police", Seen::Outcome(outcome));
    }
    let answers = say(&police, &format!("{}{}", submit.repeat(3), get("/cameras/v1/snapshots/1"))).await;
    assert_eq!(statuses(&answers), ["200", "429", "429", "200"], "{answers}");
    world.close().await;
}

#[tokio::test]
async fn accepted_expectation_gets_100_continue() {
    let world = World::city().start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    world.log.note("traffic-police", Seen::Outcome("ok"));
    let head = post("Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n", "");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    within("100 Continue", stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(statuses(&read_to_end(&mut stream).await), ["200"]);
    assert_eq!(world.server("cameras").log.only().bytes(), 5);
    world.close().await;
}

#[tokio::test]
async fn refused_expectation_sends_no_body_and_bills_nothing() {
    let world = World::city().start().await;
    let hidden = get("/cameras/v1/snapshots/hidden");
    world.log.note("archive", Seen::Outcome("forbidden"));
    let head = post(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", hidden.len()), "");
    let mut stream = world.client("archive").connect().await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    within("the refusal arrives", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 403");
    let _ = stream.write_all(hidden.as_bytes()).await; // the connection may be closed already
    assert_eq!(statuses(&read_to_end(&mut stream).await), [""; 0]);
    let usage = world.close().await;
    assert_eq!(usage.of("archive", "forbidden"), 1);
}

#[tokio::test]
async fn unknown_expectation_fails() {
    let world = World::city().start().await;
    world.log.note("traffic-police", Seen::Outcome("malformed"));
    let answers =
        say(&world.client("traffic-police"), &post("Content-Length: 5\r\nExpect: a-miracle\r\n", "hello")).await;
    assert_eq!(statuses(&answers), ["417"], "{answers}");
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn requests_before_a_malformed_head_are_answered_first() {
    let world = World::city().start().await;
    let good = format!("GET /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n");
    let bad = format!("GET /cameras/v1/snapshots/2 HTTP/1.1\nHost: {GATEWAY}\r\n\r\n");
    for outcome in ["ok", "ok", "malformed"] {
        world.log.note("traffic-police", Seen::Outcome(outcome));
    }
    let answers = say(&world.client("traffic-police"), &format!("{good}{good}{bad}{good}")).await;
    assert_eq!(statuses(&answers), ["200", "200", "400"], "{answers}");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "malformed")), (2, 1));
}

#[tokio::test]
async fn malformed_body_never_looks_complete() {
    let world = World::city().start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    world.log.note("traffic-police", Seen::Open);
    stream.write_all(post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n").as_bytes()).await.unwrap();
    let log = &world.server("cameras").log;
    let got = crate::world::until("the first chunk arrives", async || log.all().first().cloned()).await;
    stream
        .write_all(format!("5;x\r\nhello\r\n0\r\n\r\n{}", get("/cameras/v1/snapshots/next")).as_bytes())
        .await
        .unwrap();
    let answers = read_to_end(&mut stream).await;
    assert!(matches!(statuses(&answers)[..], ["400"] | []), "{answers}");
    assert!(!got.body.complete.load(std::sync::atomic::Ordering::Acquire));
    assert_eq!(log.all().len(), 1);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 1);
}
