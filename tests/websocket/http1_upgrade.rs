//! WebSocket over the HTTP/1.1 upgrade, with foreign callers and a foreign subsystem (Python's websockets). A tunnel
//! begins only after a verified 101, is one command, and is counted as long as it lasts. Half-close and resets are
//! tested here too.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::extended_connect::{TALK, UpgradingServer, tunnel_city};
use crate::grpc::grpcio::python;
use crate::world::h2_frames::say;
use crate::world::{
    FragmentingStream, GATEWAY, IN_FLIGHT, Plan, Process, Seen, World, pause_as_slow_client, run, stderr, stdout,
    until, within,
};

pub const LIVE: &str = "/cameras/live";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub fn subsystem() -> (Process, u16, BufReader<std::process::ChildStdout>) {
    let mut process = Process::spawn(
        python("websocket_server.py").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()),
    );
    let mut output = BufReader::new(process.0.stdout.take().unwrap());
    let mut port = String::new();
    output.read_line(&mut port).unwrap();
    (process, port.trim().parse().unwrap(), output)
}

/// Starts a city whose cameras have a live picture, and a command that permits no upgrade.
pub async fn live_city(port: u16) -> World {
    live_plan(port).start().await
}

fn live_plan(port: u16) -> Plan {
    World::city().edit(|document| {
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://127.0.0.1:{port}") }]);
        document["subsystems"][0]["commands"] = json!([
            { "id": "live", "match": { "method": "GET", "path": "/live" }, "upgrade": "websocket" },
            { "id": "still", "match": { "method": "GET", "path": "/still" } },
        ]);
        document["grants"] = json!([{ "department": "traffic-police", "subsystem": "cameras", "commands": ["*"] }]);
    })
}

fn caller(world: &World, path: &str) -> Command {
    let identity = world.identity("traffic-police");
    let mut client = python("websocket_client.py");
    client.arg(world.gateway_address().port().to_string()).arg(GATEWAY).arg(world.pki.authority_file());
    client.arg(&identity.certificate_file).arg(&identity.key_file).arg(path);
    client
}

fn seen(ended: &std::process::Output) -> Value {
    serde_json::from_str(&stdout(ended)).unwrap_or_else(|_| panic!("{}{}", stdout(ended), stderr(ended)))
}

#[tokio::test]
async fn websocket_is_one_command_with_all_its_bytes() {
    let (process, port, mut log) = subsystem();
    let mut world = live_city(port).await;
    let ended = run(caller(&world, LIVE)).await;
    assert_eq!(seen(&ended), json!({ "seen": ["welcome", 3, 300_000], "closed": 1000 }));
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "/live traffic-police");
    drop(process);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 1);
    let counted = usage.admitted("traffic-police");
    assert!(counted.request_bytes > 300_000 && counted.request_bytes < 300_200, "{counted:?}");
    assert!(counted.response_bytes > 300_000 && counted.response_bytes < 300_200, "{counted:?}");
}

#[tokio::test]
async fn last_command_of_a_connection_can_become_a_tunnel() {
    let (process, port, _log) = subsystem();
    let plan = live_plan(port).edit(|document| document["capacity"] = json!({ "connectionCommands": 1 }));
    let mut world = plan.start().await;
    let ended = run(caller(&world, LIVE)).await;
    assert_eq!(seen(&ended), json!({ "seen": ["welcome", 3, 300_000], "closed": 1000 }));
    drop(process);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 1);
}

#[tokio::test]
async fn command_without_upgrade_permission_is_not_upgraded() {
    let (process, port, _log) = subsystem();
    let mut world = live_city(port).await;
    let ended = run(caller(&world, "/cameras/still")).await;
    assert_eq!(seen(&ended), json!({ "refused": 501 }));
    world.log.note("traffic-police", Seen::Outcome("malformed"));
    // A caller that requests another protocol gets the response to a plain request (RFC 9110 section 7.8), with its
    // `Upgrade` headers.
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    let ask =
        format!("GET /cameras/still HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    let answer = String::from_utf8_lossy(&received).to_lowercase();
    assert!(answer.starts_with("http/1.1 426 ") && answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: upgrade"), "{answer}");
    world.log.note("traffic-police", Seen::Open);
    drop(process);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "malformed"), usage.of("traffic-police", "client_error")), (1, 1));
}

#[tokio::test]
async fn bytes_of_an_open_tunnel_are_on_the_tally() {
    let (process, port, _log) = subsystem();
    let mut world = live_city(port).await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    stream.write_all(format!("GET {LIVE} HTTP/1.1\r\nHost: {GATEWAY}\r\n{ASK}\r\n").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    until("the greeting", async || {
        stream.read_buf(&mut received).await.unwrap();
        received.ends_with(b"welcome").then_some(())
    })
    .await;
    let head = String::from_utf8_lossy(&received).to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    until("the greeting is on the tally, and no command has ended", async || {
        let metrics = world.metrics().await;
        let sums = ["tallygate_response_bytes_total", IN_FLIGHT].map(|name| metrics.sum(name));
        (sums == ["..welcome".len() as i64, 1]).then_some(())
    })
    .await;
    drop(stream);
    drop(process);
    world.log.note("traffic-police", Seen::Open);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn bytes_before_the_switch_are_not_forwarded() {
    let (process, port, _log) = subsystem();
    let mut world = live_city(port).await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    let early = format!("GET {LIVE} HTTP/1.1\r\nHost: {GATEWAY}\r\n{ASK}\r\n\u{1}\u{5}early\r\n");
    stream.write_all(early.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await; // any end is accepted
    assert!(!String::from_utf8_lossy(&received).contains("early"), "{received:?}");
    drop(process);
    world.log.note("traffic-police", Seen::Open);
    world.log.note("traffic-police", Seen::Open);
    world.note_foreign_server();
    world.close().await;
}

/// Opens a tunnel for a caller over HTTP/1.1. Returns the caller's connection and the subsystem's connection.
async fn tunnel(world: &World, upgrading: &UpgradingServer) -> (TlsStream<FragmentingStream>, TcpStream) {
    let mut caller = world.client("traffic-police").connect().await.unwrap();
    let head = format!("GET {TALK} HTTP/1.1\r\nHost: {GATEWAY}\r\n{ASK}\r\n");
    say(&mut caller, head.as_bytes()).await.unwrap();
    let (_, subsystem) = upgrading.switched().await;
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        assert!(within("the switch", caller.read_buf(&mut received)).await.unwrap() > 0, "closed");
    }
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&received));
    (caller, subsystem)
}

/// Waits until bytes have arrived that the caller has not read.
async fn until_unread(caller: &TlsStream<FragmentingStream>) {
    assert_eq!(within("unread bytes", caller.get_ref().0.peek()).await.unwrap(), 1, "closed");
}

/// A close with unread bytes resets a connection. Here the only unread bytes are the gateway's close_notify.
#[tokio::test]
async fn caller_that_closes_with_only_the_close_notify_unread_had_everything() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let (mut caller, mut subsystem) = tunnel(&world, &upgrading).await;
    subsystem.write_all(b"the last").await.unwrap();
    let mut received = [0; 8];
    within("the last bytes", caller.read_exact(&mut received)).await.unwrap();
    drop(subsystem);
    until_unread(&caller).await; // close_notify
    drop(caller);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "ok") == 1).await;
    world.close().await;
}

#[tokio::test]
async fn bytes_of_a_caller_after_the_end_of_the_subsystem_are_harmless() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let (mut caller, subsystem) = tunnel(&world, &upgrading).await;
    drop(subsystem);
    within("the end", caller.read_to_end(&mut Vec::new())).await.unwrap();
    for _ in 0..20 {
        if say(&mut caller, b"too late").await.is_err() {
            break;
        }
        pause_as_slow_client(std::time::Duration::from_millis(10)).await; // until the subsystem's reset is noticed
    }
    drop(caller);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "ok") == 1).await;
    world.close().await;
}

#[tokio::test]
async fn caller_lost_before_the_end_of_the_subsystem_is_aborted() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let (caller, mut subsystem) = tunnel(&world, &upgrading).await;
    subsystem.write_all(b"never read").await.unwrap();
    until_unread(&caller).await;
    drop(caller);
    let _ = within("the end", subsystem.read_to_end(&mut Vec::new())).await;
    world.log.note("traffic-police", Seen::Outcome("aborted"));
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == 1).await;
    world.close().await;
}
