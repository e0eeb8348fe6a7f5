//! Retries towards HTTP/2 servers: a reset, a GOAWAY or a missing server costs an attempt, never a command. The retry
//! budget bounds the attempts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::h2_frames::{
    CANCEL, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, frame,
};
use crate::world::{ANY_PORT, ATTEMPTS, Plan, READ, RETRIES, request, reserve_address, whole};

const PREFACE: usize = 24;

/// Builds the frames of a server's reaction to a request, from the number of its stream.
pub type MakeFrames = fn(u32) -> Vec<u8>;

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Sends GOAWAY before any stream was processed (RFC 9113 section 6.8).
pub fn leave(_stream: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0_u32.to_be_bytes(), NO_ERROR.to_be_bytes()].concat())
}

/// Starts an HTTP/2 server that responds to no request. Returns its address and the number of requests it received.
pub async fn never_answers(manner: MakeFrames) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, manner, Arc::clone(&counted)));
        }
    });
    (address, count)
}

async fn converse(mut stream: TcpStream, manner: MakeFrames, met: Arc<AtomicUsize>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let answer = match (head[3], head[4] & 1) {
            (SETTINGS, 0) => frame(SETTINGS, 1, 0, &[]),
            (PING, 0) => frame(PING, 1, 0, &payload),
            (HEADERS, _) => {
                met.fetch_add(1, Ordering::AcqRel);
                manner(number)
            }
            _ => continue,
        };
        stream.write_all(&answer).await?;
    }
}

/// Returns a city whose cameras use HTTP/2, with that server and their usual server in turn (round robin).
fn in_turn_with(bad: SocketAddr, retries: Value) -> Plan {
    super::retries::in_turn_with(bad, retries).http2_cameras()
}

#[tokio::test]
async fn reset_stream_and_goaway_cost_an_attempt_and_no_command() {
    let manners: [(&str, MakeFrames); 3] = [
        ("refused", |stream| reset(stream, REFUSED_STREAM)),
        ("cancelled", |stream| reset(stream, CANCEL)),
        ("goaway", leave),
    ];
    for (name, manner) in manners {
        let (bad, met) = never_answers(manner).await;
        let world = in_turn_with(bad, json!({ "budgetPercent": 100 })).start().await;
        for client in world.clients("traffic-police") {
            for n in 0..10 {
                assert_eq!(client.get(READ).await.status, 200, "command {n}, {name}");
            }
        }
        let met = met.load(Ordering::Acquire);
        assert!((1..20).contains(&met), "{name}: the failing server received {met} of 20 commands");
        assert_eq!(world.server("cameras").log.all().len(), 20, "{name}");
        let metrics = world.metrics().await;
        assert_eq!(metrics.sum(RETRIES), i64::try_from(met).unwrap(), "{name}");
        assert_eq!(metrics.sum(ATTEMPTS), i64::try_from(20 + met).unwrap(), "{name}");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 20, "{name}");
        assert_eq!(usage.commands().values().sum::<u64>(), 20, "twenty commands, whatever the number of attempts");
    }
}

#[tokio::test]
async fn non_repeatable_commands_are_sent_once_over_http2_too() {
    for manner in [(|stream| reset(stream, CANCEL)) as MakeFrames, |stream| reset(stream, INTERNAL_ERROR)] {
        let (bad, met) = never_answers(manner).await;
        let world = in_turn_with(bad, json!({ "attempts": 3, "budgetPercent": 100 })).start().await;
        let client = world.client("traffic-police");
        let mut failed = 0;
        for _ in 0..8 {
            let reply = client.send(request("POST", "/cameras/v1/snapshots", whole("a body"))).await;
            failed += usize::from(reply.problem().as_deref() == Some("upstream_failed"));
        }
        assert_eq!((failed, met.load(Ordering::Acquire)), (4, 4));
        assert_eq!(world.metrics().await.sum(RETRIES), 0);
        let usage = world.close().await;
        assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "upstream_failed")), (4, 4));
    }
}

#[tokio::test]
async fn server_without_a_connection_costs_neither_an_attempt_nor_a_retry() {
    let world = in_turn_with(reserve_address(), json!({ "budgetPercent": 100 })).start().await;
    for client in world.clients("traffic-police") {
        for n in 0..10 {
            assert_eq!(client.get(READ).await.status, 200, "command {n}");
        }
        assert_eq!(
            client.post("/cameras/v1/snapshots", "a body").await.status,
            200,
            "no byte of the body was sent before"
        );
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(RETRIES), metrics.sum(ATTEMPTS)), (0, 22));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 22);
}

#[tokio::test]
async fn retry_budget_bounds_retries_over_http2_too() {
    let (bad, met) = never_answers(|stream| reset(stream, CANCEL)).await;
    let plan = in_turn_with(bad, json!({ "attempts": 3 })).cameras_at(bad);
    let mut world = plan.start().await;
    let client = world.client("traffic-police").h2();
    for _ in 0..50 {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("upstream_failed"));
    }
    assert_eq!(
        met.load(Ordering::Acquire),
        50 + 13,
        "a fifth of the commands, and the initial retry budget of a worker"
    );
    assert_eq!(world.metrics().await.sum(RETRIES), 13);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 50);
}
