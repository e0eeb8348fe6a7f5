//! The end of a message: a whole response is counted under its own outcome, whatever form its end takes, and its stream
//! ends normally.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::h2_frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame, frames_in, get, literal, open_http2, say,
};
use crate::world::raw_h2_server::{Answering, StreamServer};
use crate::world::{
    GATEWAY, Process, READ, Reply, Seen, World, empty, let_time_pass, request, reserve_address, run, stderr, stdout,
    tool, until, whole, within,
};

/// `:status` in the static table (RFC 7541 appendix A).
const OK: u8 = 0x88;
const NO_CONTENT: u8 = 0x89;
const NOT_MODIFIED: u8 = 0x8b;

/// Returns a head without END_STREAM, with a `Content-Length` if `length` is not empty.
fn head(stream: u32, status: u8, length: &str) -> Vec<u8> {
    let length = if length.is_empty() { Vec::new() } else { literal("content-length", length) };
    frame(HEADERS, END_HEADERS, stream, &[&[status][..], &length].concat())
}

fn data(stream: u32, content: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, content)
}

fn end(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &[])
}

fn trailers(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &literal("x-sum", "42"))
}

/// Ends of whole responses with a length of 6, as Node, Go, hypercorn and nginx write them.
const ENDS: [(&str, Answering); 5] = [
    ("in a frame of its own", |n| vec![[head(n, OK, "6"), data(n, b"hello\n"), end(n)].concat()]),
    ("later", |n| vec![[head(n, OK, "6"), data(n, b"hello\n")].concat(), end(n)]),
    ("later, and apart from the head", |n| vec![head(n, OK, "6"), data(n, b"hel"), data(n, b"lo\n"), end(n)]),
    ("in trailers", |n| vec![[head(n, OK, "6"), data(n, b"hello\n"), trailers(n)].concat()]),
    ("in trailers, later", |n| vec![[head(n, OK, "6"), data(n, b"hello\n")].concat(), trailers(n)]),
];

/// Ends of responses that consist of only a head, and the request method.
const BARE_ENDS: [(&str, &str, Answering); 5] = [
    ("GET", "204", |n| vec![[head(n, NO_CONTENT, ""), end(n)].concat()]),
    ("GET", "204, later", |n| vec![head(n, NO_CONTENT, ""), end(n)]),
    ("GET", "304, later", |n| vec![head(n, NOT_MODIFIED, ""), end(n)]),
    ("GET", "length 0, later", |n| vec![head(n, OK, "0"), end(n)]),
    ("HEAD", "HEAD, later", |n| vec![head(n, OK, "6"), end(n)]),
];

async fn replies_of_both_protocols(world: &World, method: &str) -> [Reply; 2] {
    let [http1, http2] = world.clients("traffic-police");
    let path = if method == "HEAD" { "/cameras/do/anything" } else { READ };
    let asked = || request(method, path, empty());
    [http1.send(asked()).await, http2.send(asked()).await]
}

/// Waits until no frame of a command is on its way. Returns the codes of the resets that the subsystem received.
async fn resets(server: &StreamServer) -> Vec<u32> {
    let_time_pass(Duration::from_millis(300)).await; // the absence of frames shows only after a wait
    let resets = server.got(RST_STREAM);
    resets.iter().map(|reset| u32::from_be_bytes(reset.3[..].try_into().unwrap())).collect()
}

#[tokio::test]
async fn complete_response_is_ok_wherever_its_end_arrives_and_its_stream_is_not_reset() {
    for (name, answering) in ENDS {
        let server = StreamServer::start(answering, Duration::from_millis(50));
        let mut world = server.in_a_city().start().await;
        let replies = replies_of_both_protocols(&world, "GET").await;
        assert!(replies.iter().all(|reply| reply.text() == "hello\n"), "{name}: {replies:?}");
        let sum = replies[1].trailers.as_ref().and_then(|trailers| trailers.get("x-sum").cloned());
        assert_eq!(sum.is_some(), name.contains("trailers"), "{name}: trailers are forwarded over HTTP/2");
        assert_eq!(resets(&server).await, [0; 0], "{name}");
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "ok"), 2, "{name}");
    }
}

#[tokio::test]
async fn response_without_content_is_ok_wherever_its_end_arrives() {
    for (method, name, answering) in BARE_ENDS {
        let server = StreamServer::start(answering, Duration::from_millis(50));
        let mut world = server.in_a_city().start().await;
        let replies = replies_of_both_protocols(&world, method).await;
        assert!(replies.iter().all(|reply| reply.body.is_empty()), "{name}: {replies:?}");
        if method == "HEAD" {
            assert!(replies.iter().all(|reply| reply.header("content-length") == "6"), "{replies:?}");
        }
        assert_eq!(resets(&server).await, [0; 0], "{name}");
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "ok"), 2, "{name}");
    }
}

/// A 304 may carry the length that the response to a GET would have (RFC 9110 section 8.6). If END_STREAM comes later,
/// h2 treats the length as a contradiction and resets the stream. The response is whole all the same.
#[tokio::test]
async fn not_modified_with_a_content_length_is_ok() {
    for pause in [0, 50] {
        let answering: Answering = |n| vec![head(n, NOT_MODIFIED, "5"), end(n)];
        let server = StreamServer::start(answering, Duration::from_millis(pause));
        let mut world = server.in_a_city().start().await;
        assert!(
            replies_of_both_protocols(&world, "GET")
                .await
                .iter()
                .all(|reply| reply.status == 304 && reply.body.is_empty())
        );
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "ok"), 2);
    }
}

#[tokio::test]
async fn missing_end_stream_is_awaited_for_a_bounded_time() {
    let server = StreamServer::start(|n| vec![[head(n, OK, "6"), data(n, b"hello\n")].concat()], Duration::ZERO);
    let mut world = server.in_a_city().start().await;
    let replies = replies_of_both_protocols(&world, "GET").await;
    assert!(replies.iter().all(|reply| reply.text() == "hello\n"), "{replies:?}");
    world.usage_when("both commands are settled", |usage| usage.of("traffic-police", "ok") == 2).await;
    until("both streams are reset", async || (server.got(RST_STREAM).len() == 2).then_some(())).await;
    assert_eq!(resets(&server).await, [CANCEL; 2]);
    world.note_foreign_server();
    assert_eq!(world.close().await.of("traffic-police", "ok"), 2);
}

/// A caller that leaves after it has received the announced length, as curl does over HTTP/2.
#[tokio::test]
async fn caller_that_leaves_at_the_content_length_has_a_complete_response() {
    let server = StreamServer::start(ENDS[1].1, Duration::from_millis(300));
    let mut world = server.in_a_city().start().await;
    let mut caller = open_http2(&world, &[]).await;
    say(&mut caller, &get(1, READ)).await.unwrap();
    let mut received = Vec::new();
    within("the content", async {
        while !frames_in(&received).iter().any(|frame| (frame.0, frame.3) == (DATA, b"hello\n")) {
            assert!(caller.read_buf(&mut received).await.unwrap() > 0, "closed");
        }
    })
    .await;
    say(&mut caller, &frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await.unwrap();

    let mut other = world.client("traffic-police").connect().await.unwrap();
    other.write_all(format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"hello\n") {
        assert!(within("the content", other.read_buf(&mut received)).await.unwrap() > 0, "closed");
    }
    drop(other);
    for _ in 0..2 {
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    world.usage_when("both commands are settled", |usage| usage.of("traffic-police", "ok") == 2).await;
    assert_eq!(resets(&server).await, [0; 0]);
    drop(caller);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn caller_that_leaves_before_the_content_length_is_aborted() {
    let server = StreamServer::start(|n| vec![[head(n, OK, "60"), data(n, b"hello\n")].concat()], Duration::ZERO);
    let mut world = server.in_a_city().start().await;
    for client in world.clients("traffic-police") {
        let mut stream = client.open(request("GET", READ, empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "hello\n");
        drop((stream, client));
    }
    world.usage_when("both commands are settled", |usage| usage.of("traffic-police", "aborted") == 2).await;
    world.note_foreign_server();
    world.close().await;
}

/// An upload whose END_STREAM is a separate frame is whole at its length. Over HTTP/2 trailers may follow, so the
/// gateway waits for the end for a moment.
#[tokio::test]
async fn upload_is_complete_at_its_content_length() {
    for protocol in ["http1", "http2"] {
        let world =
            World::city().edit(|document| document["subsystems"][0]["protocol"] = json!(protocol)).start().await;
        let mut caller = open_http2(&world, &[]).await;
        for (n, length) in [(1, "5"), (3, "0")] {
            let block =
                [crate::world::h2_frames::fields(0x83, "/cameras/v1/snapshots"), literal("content-length", length)];
            let content = if length == "5" { data(n, b"whole") } else { Vec::new() };
            say(&mut caller, &[frame(HEADERS, END_HEADERS, n, &block.concat()), content].concat()).await.unwrap();
            let log = &world.server("cameras").log;
            let which = usize::try_from(n / 2).unwrap();
            let got = until("the request arrives", async || log.all().get(which).cloned()).await;
            let is_whole = async || got.body.complete.load(Ordering::Acquire).then_some(());
            if protocol == "http1" {
                until("it is complete", is_whole).await;
            }
            say(&mut caller, &end(n)).await.unwrap();
            until("it is complete", is_whole).await;
            world.log.note("traffic-police", Seen::Outcome("ok"));
        }
        let settled = |usage: &crate::world::Usage| usage.of("traffic-police", "ok") == 2;
        world.usage_when("both commands are settled", settled).await;
        let mut received = Vec::new();
        within("both answers", async {
            let ended = |received: &[u8], n| {
                frames_in(received).iter().any(|frame| frame.0 <= HEADERS && frame.2 == n && frame.1 & END_STREAM != 0)
            };
            while !(ended(&received, 1) && ended(&received, 3)) {
                assert!(caller.read_buf(&mut received).await.unwrap() > 0, "closed");
            }
        })
        .await;
        assert!(frames_in(&received).iter().all(|frame| frame.0 != RST_STREAM), "{protocol}: no stream was reset");
        drop(caller);
        world.close().await;
    }
}

/// Returns a city whose cameras are a foreign server that uses HTTP/2 without TLS.
/// Tests callers over both protocols, and curl, which leaves at the length.
async fn assert_all_ok(mut world: World, text: &str) {
    let clients = world.clients("traffic-police");
    for client in &clients {
        for _ in 0..5 {
            assert_eq!(client.get(READ).await.text(), text);
            let submitted = client.send(request("POST", "/cameras/v1/snapshots", whole("a body"))).await;
            assert_eq!(submitted.status, 200);
        }
    }
    let identity = world.identity("traffic-police");
    let port = world.gateway_address().port();
    for version in ["--http1.1", "--http2"] {
        for _ in 0..5 {
            let mut curl = tool("curl");
            curl.args(["-sS", "--max-time", "10", version]).arg("--cacert").arg(world.pki.authority_file());
            curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
            curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1"));
            let ended = run({
                curl.arg(format!("https://{GATEWAY}:{port}{READ}"));
                curl
            })
            .await;
            assert_eq!(stdout(&ended), text, "{}", stderr(&ended));
            world.log.note("traffic-police", Seen::Outcome("ok"));
        }
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.sum(|_| true), 30);
    assert_eq!(usage.of("traffic-police", "ok"), 30);
}

#[tokio::test]
async fn responses_of_node_are_ok() {
    const SERVER: &str = "require('http2').createServer((q, s) => { q.resume(); q.on('end', () => { \
        const b = Buffer.from('hello\\n'); s.setHeader('content-length', b.length); s.end(b) }) })\
        .listen(Number(process.argv[1]), '127.0.0.1')";
    let address = reserve_address();
    let mut node = tool("node");
    node.args(["-e", SERVER]).arg(address.port().to_string()).stdout(Stdio::null());
    let node = Process::spawn(&mut node);
    until("Node listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    assert_all_ok(World::city().cameras_at(address).http2_cameras().start().await, "hello\n").await;
    drop(node);
}

#[tokio::test]
async fn responses_of_hypercorn_are_ok() {
    let address = reserve_address();
    let mut hypercorn = crate::grpc::grpcio::python("http2_server.py");
    hypercorn.arg(address.port().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let hypercorn = Process::spawn(&mut hypercorn);
    until("hypercorn listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    assert_all_ok(World::city().cameras_at(address).http2_cameras().start().await, "hello\n").await;
    drop(hypercorn);
}

#[tokio::test]
async fn responses_proxied_by_nginx_are_ok() {
    let address = reserve_address();
    let mut world = World::city().cameras_at(address).http2_cameras().build();
    let mut nginx = crate::operator::third_party_tools::nginx(world.folder(), &format!("{address} http2"));
    until("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    world.start_here().await;
    assert_all_ok(world, "nginx\n").await;
    nginx.signal("QUIT");
    nginx.ended().await;
}
