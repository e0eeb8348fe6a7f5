//! The end of tunnels over HTTP/2: half-close and close by either side, reset, idle timeout, write timeout, live
//! revocation, graceful shutdown.
//!
//! Guarantees:
//! - Each tunnel is one command, counted once under the cause of its end.
//! - The bytes that have passed are on the tally while the tunnel lasts.
//! - The other streams of the connection go on.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::extended_connect::{H2Caller, TALK, UpgradingServer, tunnel_city, upgrading_city};
use crate::world::h2_frames::{
    CANCEL, DATA, END_STREAM, GOAWAY, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, frame, get, window_of,
};
use crate::world::{Seen, World, until, within};

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Opens a tunnel on a stream of the caller. Returns the subsystem's end of the tunnel.
async fn tunnel(caller: &mut H2Caller, stream: u32, upgrading: &UpgradingServer) -> TcpStream {
    caller.say(&connect(stream, TALK, "websocket", &[])).await;
    let (_, subsystem) = upgrading.switched().await;
    assert_eq!(caller.head(stream).await[0], 0x88);
    subsystem
}

/// Responds to a request as to any GET.
async fn answer(upgrading: &UpgradingServer, text: &str) {
    let (_, mut subsystem) = upgrading.asked().await;
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    subsystem.write_all(answer.as_bytes()).await.unwrap();
}

async fn hears(subsystem: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    within("the bytes of the caller", subsystem.read_exact(&mut received)).await.unwrap();
    assert_eq!(received, expected);
}

/// Waits until the subsystem's end is closed, in any way.
pub async fn closed(subsystem: &mut TcpStream) {
    let _ = within("the connection of the subsystem is closed", subsystem.read_to_end(&mut Vec::new())).await;
}

async fn ended_as(world: &World, outcome: &'static str) {
    drop(world.usage_when(outcome, |usage| usage.of("traffic-police", outcome) == 1).await);
}

#[tokio::test]
async fn tunnel_bytes_are_on_the_tally_and_other_streams_continue_until_a_reset_ends_it() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    caller.say(&frame(DATA, 0, 1, b"up and away")).await;
    hears(&mut subsystem, b"up and away").await;
    subsystem.write_all(b"down").await.unwrap();
    caller.data(1, b"down").await;
    until("the bytes are on the tally, and no command has ended", async || {
        let metrics = world.metrics().await;
        let sums = ["request_bytes_total", "response_bytes_total", "commands_in_flight"];
        let sums = sums.map(|name| metrics.sum(&format!("tallygate_{name}")));
        (sums == [11, 4, 1]).then_some(())
    })
    .await;

    caller.say(&get(3, TALK)).await;
    answer(&upgrading, "other").await;
    caller.data(3, b"other").await;
    subsystem.write_all(b" still").await.unwrap();
    caller.data(1, b"down still").await;

    caller.say(&reset(1)).await;
    closed(&mut subsystem).await;
    ended_as(&world, "aborted").await;
    caller.say(&get(5, TALK)).await;
    answer(&upgrading, "next").await;
    caller.data(5, b"next").await;
    for _ in 0..3 {
        world.log.note("traffic-police", Seen::Open);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "aborted"), usage.of("traffic-police", "ok")), (1, 2));
}

#[tokio::test]
async fn tunnel_continues_beside_a_response_that_fills_its_connection() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let wide = window_of(0x7fff_ffff);
    let windows = [frame(SETTINGS, 0, 0, &wide), frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())];
    caller.say(&windows.concat()).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    caller.say(&get(3, TALK)).await;
    let (_, mut other) = upgrading.asked().await;
    other.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    let endless = tokio::spawn(async move { while other.write_all(&[7; 16 * 1024]).await.is_ok() {} });
    for n in 0..10 {
        let tick = format!("tick {n}.");
        subsystem.write_all(tick.as_bytes()).await.unwrap();
        caller.data(1, tick.as_bytes()).await;
    }
    caller.say(&[reset(1), reset(3)].concat()).await;
    closed(&mut subsystem).await;
    within("the connection of the other subsystem is closed", endless).await.unwrap();
    for _ in 0..2 {
        world.log.note("traffic-police", Seen::Open);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 2);
}

#[tokio::test]
async fn half_closed_caller_still_receives_the_rest_from_the_subsystem() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    caller.say(&frame(DATA, END_STREAM, 1, b"the last")).await;
    let mut received = Vec::new();
    within("all bytes of the caller", subsystem.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"the last");
    subsystem.write_all(b"the very last").await.unwrap();
    drop(subsystem);
    caller.data(1, b"the very last").await;
    assert_eq!(caller.end(1).await, Ok(()));
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn reset_after_the_end_of_the_subsystem_is_an_ordinary_end() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let subsystem = tunnel(&mut caller, 1, &upgrading).await;
    drop(subsystem);
    assert_eq!(caller.end(1).await, Ok(()));
    caller.say(&reset(1)).await;
    ended_as(&world, "ok").await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn subsystem_that_aborts_resets_the_stream_after_its_data() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    subsystem.write_all(b"half a mess").await.unwrap();
    caller.data(1, b"half a mess").await;
    subsystem.set_zero_linger().unwrap();
    drop(subsystem);
    assert_eq!(caller.end(1).await, Err(CANCEL));
    world.log.note("traffic-police", Seen::Outcome("upstream_failed"));
    world.close().await;
}

/// The bytes of a caller in a tunnel are not parsed. Any caller could therefore send bytes to which a subsystem reacts
/// with a reset, so such resets must not count for outlier ejection.
#[tokio::test]
async fn tunnels_reset_by_a_subsystem_eject_no_server() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    for stream in [1, 3, 5, 7, 9, 11] {
        let subsystem = tunnel(&mut caller, stream, &upgrading).await;
        subsystem.set_zero_linger().unwrap();
        drop(subsystem);
        assert_eq!(caller.end(stream).await, Err(CANCEL));
        world.log.note("traffic-police", Seen::Outcome("upstream_failed"));
    }
    assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0);
    world.close().await;
}

#[tokio::test]
async fn broken_connection_ends_all_its_tunnels() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystems = Vec::new();
    for stream in [1, 3, 5] {
        subsystems.push(tunnel(&mut caller, stream, &upgrading).await);
        world.log.note("traffic-police", Seen::Open);
    }
    drop(caller);
    for subsystem in &mut subsystems {
        closed(subsystem).await;
    }
    let usage = world.usage_when("all commands have ended", |usage| usage.of("traffic-police", "aborted") == 3).await;
    assert_eq!(usage.sum(|_| true), 3);
    world.close().await;
}

#[tokio::test]
async fn silence_in_both_directions_ends_a_tunnel() {
    let quick = json!({ "connect": "1s", "response": "5s", "idle": "300ms" });
    let (world, upgrading) = tunnel_city(|document| document["subsystems"][0]["timeouts"] = quick).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    closed(&mut subsystem).await;
    assert_eq!(caller.end(1).await, Err(CANCEL));
    world.log.note("traffic-police", Seen::Outcome("timeout"));
    world.close().await;
}

#[tokio::test]
async fn caller_that_reads_nothing_causes_backpressure_and_is_disconnected() {
    let (world, upgrading) = tunnel_city(|document| document["capacity"] = json!({ "responseIdle": "1s" })).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    let flood = vec![7; 64 * 1024 * 1024];
    let written = within("the tunnel is closed", subsystem.write_all(&flood)).await;
    assert!(written.is_err(), "64 MiB were buffered");
    assert_eq!(caller.end(1).await, Err(CANCEL));
    world.log.note("traffic-police", Seen::Open);
    let hits = world.metrics().await.value("tallygate_limit_hits_total", &[("limit", "response_idle")]);
    assert_eq!(hits, Some(1.0));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 1);
    let passed = usage.admitted("traffic-police").response_bytes;
    assert!(passed < 65_535 + 6 * 4096, "{passed} bytes were read from the subsystem for one window");
}

#[tokio::test]
async fn subsystem_that_reads_nothing_causes_backpressure() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let subsystem = tunnel(&mut caller, 1, &upgrading).await;
    // Sends as much as the windows permit, until the gateway opens them no further (backpressure).
    let (mut sent, mut window) = (0_u32, 64 * 1024_u32);
    let piece = vec![7; 16 * 1024];
    loop {
        while window - sent >= 16 * 1024 {
            caller.say(&frame(DATA, 0, 1, &piece)).await;
            sent += 16 * 1024;
        }
        let given = |frames: &[super::extended_connect::ReceivedMessages<'_>]| {
            let updates = frames.iter().filter(|frame| (frame.0, frame.2) == (WINDOW_UPDATE, 1));
            Some(updates.map(|frame| u32::from_be_bytes(frame.3.try_into().unwrap())).sum::<u32>())
        };
        let more = tokio::time::timeout(std::time::Duration::from_millis(500), async {
            caller.hear("a window", |frames| given(frames).filter(|given| 64 * 1024 + given > window)).await
        });
        match more.await {
            Ok(given) => window = 64 * 1024 + given,
            Err(_) => break,
        }
        assert!(sent < 64 * 1024 * 1024, "64 MiB were buffered");
    }
    world.log.note("traffic-police", Seen::Open);
    caller.say(&reset(1)).await;
    ended_as(&world, "aborted").await;
    drop(subsystem);
    let usage = world.close().await;
    assert!(usage.admitted("traffic-police").request_bytes <= u64::from(sent));
}

#[tokio::test]
async fn tunnels_of_a_disabled_department_are_closed() {
    let upgrading = UpgradingServer::start();
    let mut world = upgrading_city(upgrading.port()).start().await;
    world.note_foreign_server();
    let mut caller = H2Caller::of(&world).await;
    let mut subsystems = [tunnel(&mut caller, 1, &upgrading).await, tunnel(&mut caller, 3, &upgrading).await];
    world.reload(|document| document["departments"][0]["disabled"] = json!(true)).await;
    for (subsystem, stream) in subsystems.iter_mut().zip([1, 3]) {
        closed(subsystem).await;
        assert_eq!(caller.end(stream).await, Err(CANCEL));
        world.log.note("traffic-police", Seen::Open);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 2);
}

#[tokio::test]
async fn graceful_shutdown_lets_a_tunnel_end() {
    let (mut world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    world.process().signal("TERM");
    caller.hear("GOAWAY", |frames| frames.iter().find(|frame| frame.0 == GOAWAY).map(drop)).await;
    caller.say(&frame(DATA, 0, 1, b"goodbye")).await;
    hears(&mut subsystem, b"goodbye").await;
    subsystem.write_all(b"and thanks").await.unwrap();
    drop(subsystem);
    caller.data(1, b"and thanks").await;
    assert_eq!(caller.end(1).await, Ok(()));
    caller.say(&frame(DATA, END_STREAM, 1, b"")).await;
    let status = world.take_process().ended().await;
    assert!(status.success(), "{status}: {}", world.log_of_process());
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn tunnel_over_the_grace_is_interrupted_and_counted() {
    let short = json!({ "delay": "1ms", "grace": "300ms" });
    let (mut world, upgrading) = tunnel_city(|document| document["shutdown"] = short).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &upgrading).await;
    world.stop().await;
    closed(&mut subsystem).await;
    world.log.note("traffic-police", Seen::Open);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "interrupted"), 1);
}

#[tokio::test]
async fn caller_that_leaves_before_the_switch_is_counted_once() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    caller.say(&connect(1, TALK, "websocket", &[])).await;
    let (_, mut subsystem) = upgrading.asked().await;
    caller.say(&reset(1)).await;
    closed(&mut subsystem).await;
    ended_as(&world, "aborted").await;
    // Bytes sent before the upgrade wait for it, and arrive first.
    caller.say(&[connect(3, TALK, "websocket", &[]), frame(DATA, 0, 3, b"early")].concat()).await;
    let (_, mut subsystem) = upgrading.switched().await;
    hears(&mut subsystem, b"early").await;
    caller.say(&frame(DATA, END_STREAM, 3, b"")).await;
    drop(subsystem);
    until("both commands are settled", async || (world.usage().of("traffic-police", "ok") == 1).then_some(())).await;
    for _ in 0..2 {
        world.log.note("traffic-police", Seen::Open);
    }
    world.close().await;
}
