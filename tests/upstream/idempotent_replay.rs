//! Idempotent replay: requests that are sent again although the `retries` setting of the subsystem does not permit it:
//! - A request that a server has not processed (RFC 9113 section 8.7), whatever its method.
//! - A safe request without a body whose reused connection ended before a response (RFC 9110 section 9.2.2).
//!
//! All books count one command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::http2_retries::{MakeFrames, leave, never_answers, reset};
use crate::world::h2_frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, REFUSED_STREAM, SETTINGS, WINDOW_UPDATE, frame, window_of,
};
use crate::world::{
    ANY_PORT, ATTEMPTS, Metrics, Plan, READ, RETRIES, SUBMIT, World, empty, let_time_pass, request, whole,
};

/// The maximum number of times that a command is sent again.
const AGAIN_MAX: usize = 3;

/// Returns a city whose cameras use HTTP/2, with that server, and in turn their usual server if `with_good` is set.
fn cameras_at(bad: SocketAddr, with_good: bool) -> Plan {
    World::city().edit(|document| {
        let cameras = &mut document["subsystems"][0];
        let good = cameras["upstreams"][0].clone();
        let bad = json!({ "url": format!("http://{bad}") });
        cameras["upstreams"] = if with_good { json!([bad, good]) } else { json!([bad]) };
        cameras["balance"] = json!("roundRobin");
        cameras["protocol"] = json!("http2");
    })
}

fn failures(metrics: &Metrics, reason: &str) -> i64 {
    let of = |line: &&str| line.starts_with("tallygate_upstream_failures_total") && line.contains(reason);
    let values = metrics.text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<i64>().unwrap()).sum()
}

#[tokio::test]
async fn unprocessed_request_is_sent_to_another_server_whatever_its_method() {
    let manners: [(&str, MakeFrames); 2] = [("refused", |stream| reset(stream, REFUSED_STREAM)), ("goaway", leave)];
    for (name, manner) in manners {
        let (bad, met) = never_answers(manner).await;
        let world = cameras_at(bad, true).start().await;
        for client in world.clients("traffic-police") {
            for n in 0..5 {
                assert_eq!(client.get(READ).await.status, 200, "{name} {n}");
                let reply = client.post(SUBMIT, "a body").await;
                assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "POST /v1/snapshots"), "{name} {n}");
                let echoed = client.send(request("PUT", "/cameras/do/echo", whole("again and whole"))).await;
                assert_eq!(echoed.text(), "again and whole", "{name} {n}");
            }
        }
        let met = i64::try_from(met.load(Ordering::Acquire)).unwrap();
        assert!((1..=30).contains(&met), "{name}: the failing server received {met} of 30 commands");
        let received = world.server("cameras").log.all();
        assert_eq!(received.len(), 30, "{name}");
        assert!(received.iter().all(|one| one.body.complete.load(Ordering::Acquire) || one.method == "GET"), "{name}");
        let metrics = world.metrics().await;
        assert_eq!((metrics.sum(RETRIES), metrics.sum(ATTEMPTS)), (met, 30 + met), "{name}");
        assert_eq!(failures(&metrics, "refused"), met, "{name}");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 30, "{name}");
        assert_eq!(
            usage.commands().values().sum::<u64>(),
            30,
            "{name}: thirty commands, whatever the number of attempts"
        );
    }
}

#[tokio::test]
async fn request_refused_by_every_server_was_never_processed() {
    for manner in [(|stream| reset(stream, REFUSED_STREAM)) as MakeFrames, leave] {
        let (bad, met) = never_answers(manner).await;
        let mut world = cameras_at(bad, false).start().await;
        let client = world.client("traffic-police");
        for n in 1..=3 {
            let reply = client.post(SUBMIT, "a body").await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("unreachable")), "{n}");
            assert_eq!(met.load(Ordering::Acquire), n * (1 + AGAIN_MAX), "the number of attempts is bounded");
        }
        assert_eq!(world.metrics().await.sum(RETRIES), i64::try_from(3 * AGAIN_MAX).unwrap());
        world.note_foreign_server();
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "unreachable"), 3);
    }
}

#[tokio::test]
async fn body_read_beyond_the_buffer_is_not_sent_again() {
    let (bad, met) = refuses_after(80 * 1024).await;
    let mut world = cameras_at(bad, false).start().await;
    let reply = world.client("traffic-police").post(SUBMIT, vec![b'x'; 1024 * 1024]).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("unreachable")));
    assert_eq!(met.load(Ordering::Acquire), 1);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

/// Starts a server that opens its windows and refuses a stream after `bytes` bytes of its body.
async fn refuses_after(bytes: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take_and_refuse(stream, bytes, Arc::clone(&counted)));
        }
    });
    (address, count)
}

async fn take_and_refuse(mut stream: TcpStream, bytes: usize, met: Arc<AtomicUsize>) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &window_of(1 << 20))).await?;
    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes())).await?;
    let mut seen = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            SETTINGS if head[4] == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?,
            HEADERS => drop(met.fetch_add(1, Ordering::AcqRel)),
            DATA if seen < bytes => {
                seen += length;
                if seen >= bytes {
                    stream.write_all(&reset(number, REFUSED_STREAM)).await?;
                }
            }
            _ => {}
        }
    }
}

/// Starts a server that responds to `answered` requests of a connection, reads one more, sends `last`, and closes.
/// Returns the number of requests it read.
async fn answers_and_closes(answered: usize, head: &'static str, last: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                for _ in 0..answered {
                    if !stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                        return;
                    }
                    counted.fetch_add(1, Ordering::AcqRel);
                    let _ = stream.write_all(head.as_bytes()).await;
                }
                if stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                    counted.fetch_add(1, Ordering::AcqRel);
                    let _ = stream.write_all(last.as_bytes()).await;
                }
            });
        }
    });
    (address, count)
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn foreign_cameras(address: SocketAddr, more: impl FnOnce(&mut Value)) -> Plan {
    World::city().cameras_at(address).edit(more)
}

#[tokio::test]
async fn safe_request_survives_the_race_with_a_closing_server() {
    let (address, met) = answers_and_closes(1, ANSWER, "").await;
    let mut world = foreign_cameras(address, |_| ()).start().await;
    let clients = world.clients("traffic-police");
    for n in 0..20 {
        assert_eq!(clients[n % 2].get(READ).await.status, 200, "command {n}");
    }
    let met = i64::try_from(met.load(Ordering::Acquire)).unwrap();
    assert_eq!(met, 20 + 19, "only the first connection is new; each other command uses a kept one that closes");
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(ATTEMPTS), metrics.sum(RETRIES), failures(&metrics, "reset")), (met, 19, 19));
    assert_eq!(metrics.sum("tallygate_upstream_ejected"), 0, "a server that closes idle connections is healthy");
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 20);
}

#[tokio::test]
async fn unsafe_requests_bodies_and_new_connections_are_sent_once() {
    let (address, met) = answers_and_closes(1, ANSWER, "").await;
    let mut world = foreign_cameras(address, |_| ()).start().await;
    let client = world.client("traffic-police");
    let mut statuses = Vec::new();
    for (method, path, body) in [
        ("POST", SUBMIT, empty()),
        ("POST", SUBMIT, empty()),
        ("DELETE", "/cameras/do/x", empty()),
        ("DELETE", "/cameras/do/x", empty()),
        ("GET", READ, empty()),
        ("GET", READ, whole("a body")),
    ] {
        statuses.push(client.send(request(method, path, body)).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 502, 200, 502, 200, 502]);
    assert_eq!(met.load(Ordering::Acquire), 6);
    assert_eq!(world.metrics().await.sum(RETRIES), 0);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "upstream_failed")), (3, 3));
}

#[tokio::test]
async fn new_connection_that_ends_without_a_response_is_a_failure() {
    let (address, met) = answers_and_closes(0, "", "").await;
    let mut world = foreign_cameras(address, |_| ()).start().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!(reply.problem().as_deref(), Some("upstream_failed"));
    assert_eq!(met.load(Ordering::Acquire), 1);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn started_response_is_not_requested_again() {
    for last in ["HTTP/1.1 2", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (address, met) = answers_and_closes(1, ANSWER, last).await;
        let mut world = foreign_cameras(address, |_| ()).start().await;
        let client = world.client("traffic-police");
        assert_eq!(client.get(READ).await.status, 200);
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("upstream_failed"), "{last}");
        assert_eq!(met.load(Ordering::Acquire), 2, "{last}");
        world.note_foreign_server();
        world.close().await;
    }
}

#[tokio::test]
async fn idle_connection_is_not_used_beyond_the_keep_alive_of_its_server() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=2\r\n\r\n";
    let (address, connections) = counts_connections(head).await;
    let mut world = foreign_cameras(address, |_| ()).start().await;
    let client = world.client("traffic-police");
    for _ in 0..3 {
        assert_eq!(client.post(SUBMIT, "a body").await.status, 200);
    }
    assert_eq!(connections.load(Ordering::Acquire), 1, "the connection is kept for a second");
    let_time_pass(std::time::Duration::from_millis(1400)).await; // longer than the keep-alive, less a second
    assert_eq!(client.post(SUBMIT, "a body").await.status, 200);
    assert_eq!(connections.load(Ordering::Acquire), 2, "the kept connection was too near to its timeout");
    world.note_foreign_server();
    world.close().await;
}

/// Starts a server that responds to every request with this head. Returns the number of its connections.
async fn counts_connections(head: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::AcqRel);
            tokio::spawn(async move {
                let mut received_bytes = Vec::new();
                while stream.read_buf(&mut received_bytes).await.is_ok_and(|bytes| bytes > 0) {
                    if received_bytes.ends_with(b"a body") {
                        received_bytes.clear();
                        let _ = stream.write_all(head.as_bytes()).await;
                    }
                }
            });
        }
    });
    (address, count)
}

/// Starts an HTTP/2 server that responds to one request of a connection and closes the connection at the second,
/// without GOAWAY. Returns the number of requests it read.
async fn answers_one_stream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_one(stream, Arc::clone(&counted)));
        }
    });
    (address, count)
}

async fn answer_one(mut stream: TcpStream, met: Arc<AtomicUsize>) -> std::io::Result<()> {
    const STATUS_200: u8 = 0x88; // RFC 7541 appendix A
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut requests = 0;
    while requests < 2 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if (head[3], head[4]) == (SETTINGS, 0) {
            stream.write_all(&frame(SETTINGS, 1, 0, &[])).await?;
        }
        if head[3] == HEADERS {
            requests += 1;
            met.fetch_add(1, Ordering::AcqRel);
            if requests == 1 {
                stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, number, &[STATUS_200])).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn safe_request_survives_a_closed_session_over_http2_too() {
    let (address, met) = answers_one_stream().await;
    let mut world = cameras_at(address, false).start().await;
    let client = world.client("traffic-police").h2();
    let mut seen = Vec::new();
    for method in ["GET", "GET", "DELETE", "GET", "GET"] {
        let path = if method == "GET" { READ } else { "/cameras/do/x" };
        seen.push(client.send(request(method, path, empty())).await.status.as_u16());
    }
    assert_eq!(seen, [200, 200, 502, 200, 200], "only safe requests are sent on a new session");
    assert_eq!(met.load(Ordering::Acquire), 1 + 2 + 1 + 1 + 2);
    assert_eq!(world.metrics().await.sum(RETRIES), 2);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "upstream_failed")), (4, 1));
}

#[tokio::test]
async fn cancelled_stream_may_have_been_processed() {
    let (bad, met) = never_answers(|stream| reset(stream, CANCEL)).await;
    let mut world = cameras_at(bad, false).start().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!(reply.problem().as_deref(), Some("upstream_failed"));
    assert_eq!(met.load(Ordering::Acquire), 1);
    world.note_foreign_server();
    world.close().await;
}
