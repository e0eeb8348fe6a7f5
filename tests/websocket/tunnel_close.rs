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

use super::extended_connect::{H2Caller, Switching, TALK, switching_city, talking_city};
use crate::world::h2_frames::{
    DATA, END_STREAM, GOAWAY, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, frame, get, window_of,
};
use crate::world::{Seen, World, until, within};

const CANCEL: u32 = 8;

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Opens a tunnel on a stream of the caller. Returns the subsystem's end of the tunnel.
async fn tunnel(caller: &mut H2Caller, stream: u32, switching: &Switching) -> TcpStream {
    caller.say(&connect(stream, TALK, "websocket", &[])).await;
    let (_, subsystem) = switching.switched().await;
    assert_eq!(caller.head(stream).await[0], 0x88);
    subsystem
}

/// Responds to a request as to any GET.
async fn answer(switching: &Switching, text: &str) {
    let (_, mut subsystem) = switching.asked().await;
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    subsystem.write_all(answer.as_bytes()).await.unwrap();
}

async fn hears(subsystem: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    within("what the caller said", subsystem.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, expected);
}

/// Waits until the subsystem's end is closed, in any way.
pub async fn closed(subsystem: &mut TcpStream) {
    let _ = within("the subsystem's end is closed", subsystem.read_to_end(&mut Vec::new())).await;
}

async fn ended_as(world: &World, outcome: &'static str) {
    drop(world.usage_when(outcome, |usage| usage.of("traffic-police", outcome) == 1).await);
}

#[tokio::test]
async fn bytes_are_on_the_tally_while_it_lasts_and_other_streams_go_on_until_a_reset_ends_it() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    caller.say(&frame(DATA, 0, 1, b"up and away")).await;
    hears(&mut subsystem, b"up and away").await;
    subsystem.write_all(b"down").await.unwrap();
    caller.data(1, b"down").await;
    until("what passed is on the tally, and nothing has ended", async || {
        let metrics = world.metrics().await;
        let sums = ["request_bytes_total", "response_bytes_total", "commands_in_flight"];
        let sums = sums.map(|name| metrics.sum(&format!("tallygate_{name}")));
        (sums == [11, 4, 1]).then_some(())
    })
    .await;

    caller.say(&get(3, TALK)).await;
    answer(&switching, "other").await;
    caller.data(3, b"other").await;
    subsystem.write_all(b" still").await.unwrap();
    caller.data(1, b"down still").await;

    caller.say(&reset(1)).await;
    closed(&mut subsystem).await;
    ended_as(&world, "aborted").await;
    caller.say(&get(5, TALK)).await;
    answer(&switching, "next").await;
    caller.data(5, b"next").await;
    for _ in 0..3 {
        world.log.note("traffic-police", Seen::Open);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "aborted"), usage.of("traffic-police", "ok")), (1, 2));
}

#[tokio::test]
async fn a_tunnel_goes_on_beside_an_answer_that_fills_its_connection() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let wide = window_of(0x7fff_ffff);
    let windows = [frame(SETTINGS, 0, 0, &wide), frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())];
    caller.say(&windows.concat()).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    caller.say(&get(3, TALK)).await;
    let (_, mut other) = switching.asked().await;
    other.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    let endless = tokio::spawn(async move { while other.write_all(&[7; 16 * 1024]).await.is_ok() {} });
    for n in 0..10 {
        let tick = format!("tick {n}.");
        subsystem.write_all(tick.as_bytes()).await.unwrap();
        caller.data(1, tick.as_bytes()).await;
    }
    caller.say(&[reset(1), reset(3)].concat()).await;
    closed(&mut subsystem).await;
    within("the other subsystem's end is closed", endless).await.unwrap();
    for _ in 0..2 {
        world.log.note("traffic-police", Seen::Open);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 2);
}

#[tokio::test]
async fn a_caller_that_has_said_all_still_hears_the_subsystem_out() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    caller.say(&frame(DATA, END_STREAM, 1, b"the last")).await;
    let mut heard = Vec::new();
    within("all that the caller says", subsystem.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"the last");
    subsystem.write_all(b"the very last").await.unwrap();
    drop(subsystem);
    caller.data(1, b"the very last").await;
    assert_eq!(caller.end(1).await, Ok(()));
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn a_reset_after_the_subsystem_has_ended_is_an_end_like_another() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let subsystem = tunnel(&mut caller, 1, &switching).await;
    drop(subsystem);
    assert_eq!(caller.end(1).await, Ok(()));
    caller.say(&reset(1)).await;
    ended_as(&world, "ok").await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn a_subsystem_that_breaks_off_resets_the_stream_after_what_it_has_said() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
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
async fn tunnels_that_a_subsystem_resets_leave_no_server_out() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    for stream in [1, 3, 5, 7, 9, 11] {
        let subsystem = tunnel(&mut caller, stream, &switching).await;
        subsystem.set_zero_linger().unwrap();
        drop(subsystem);
        assert_eq!(caller.end(stream).await, Err(CANCEL));
        world.log.note("traffic-police", Seen::Outcome("upstream_failed"));
    }
    assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0);
    world.close().await;
}

#[tokio::test]
async fn a_connection_that_breaks_ends_all_its_tunnels() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystems = Vec::new();
    for stream in [1, 3, 5] {
        subsystems.push(tunnel(&mut caller, stream, &switching).await);
        world.log.note("traffic-police", Seen::Open);
    }
    drop(caller);
    for subsystem in &mut subsystems {
        closed(subsystem).await;
    }
    let usage = world.usage_when("all have ended", |usage| usage.of("traffic-police", "aborted") == 3).await;
    assert_eq!(usage.sum(|_| true), 3);
    world.close().await;
}

#[tokio::test]
async fn silence_on_both_sides_ends_it() {
    let quick = json!({ "connect": "1s", "response": "5s", "idle": "300ms" });
    let (world, switching) = talking_city(|document| document["subsystems"][0]["timeouts"] = quick).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    closed(&mut subsystem).await;
    assert_eq!(caller.end(1).await, Err(CANCEL));
    world.log.note("traffic-police", Seen::Outcome("timeout"));
    world.close().await;
}

#[tokio::test]
async fn a_caller_that_takes_nothing_holds_its_subsystem_back_and_is_cut_off() {
    let (world, switching) = talking_city(|document| document["capacity"] = json!({ "responseIdle": "1s" })).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    let flood = vec![7; 64 * 1024 * 1024];
    let written = within("the tunnel is cut", subsystem.write_all(&flood)).await;
    assert!(written.is_err(), "64 MiB went somewhere");
    assert_eq!(caller.end(1).await, Err(CANCEL));
    world.log.note("traffic-police", Seen::Open);
    let hits = world.metrics().await.value("tallygate_limit_hits_total", &[("limit", "response_idle")]);
    assert_eq!(hits, Some(1.0));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 1);
    let passed = usage.admitted("traffic-police").response_bytes;
    assert!(passed < 65_535 + 6 * 4096, "{passed} bytes were taken from the subsystem for one window");
}

#[tokio::test]
async fn a_subsystem_that_takes_nothing_holds_its_caller_back() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let subsystem = tunnel(&mut caller, 1, &switching).await;
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
        assert!(sent < 64 * 1024 * 1024, "64 MiB went somewhere");
    }
    world.log.note("traffic-police", Seen::Open);
    caller.say(&reset(1)).await;
    ended_as(&world, "aborted").await;
    drop(subsystem);
    let usage = world.close().await;
    assert!(usage.admitted("traffic-police").request_bytes <= u64::from(sent));
}

#[tokio::test]
async fn a_department_that_is_not_let_in_any_more_is_cut_off() {
    let switching = Switching::start();
    let mut world = switching_city(switching.port()).start().await;
    world.note_foreign_server();
    let mut caller = H2Caller::of(&world).await;
    let mut subsystems = [tunnel(&mut caller, 1, &switching).await, tunnel(&mut caller, 3, &switching).await];
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
async fn a_gateway_that_stops_lets_it_end_well() {
    let (mut world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
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
async fn a_tunnel_that_outlives_the_grace_is_cut_and_counted() {
    let short = json!({ "delay": "1ms", "grace": "300ms" });
    let (mut world, switching) = talking_city(|document| document["shutdown"] = short).await;
    let mut caller = H2Caller::of(&world).await;
    let mut subsystem = tunnel(&mut caller, 1, &switching).await;
    world.stop().await;
    closed(&mut subsystem).await;
    world.log.note("traffic-police", Seen::Open);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "interrupted"), 1);
}

#[tokio::test]
async fn who_leaves_before_the_switch_is_counted_once() {
    let (world, switching) = talking_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    caller.say(&connect(1, TALK, "websocket", &[])).await;
    let (_, mut subsystem) = switching.asked().await;
    caller.say(&reset(1)).await;
    closed(&mut subsystem).await;
    ended_as(&world, "aborted").await;
    // Bytes sent before the upgrade wait for it, and arrive first.
    caller.say(&[connect(3, TALK, "websocket", &[]), frame(DATA, 0, 3, b"early")].concat()).await;
    let (_, mut subsystem) = switching.switched().await;
    hears(&mut subsystem, b"early").await;
    caller.say(&frame(DATA, END_STREAM, 3, b"")).await;
    drop(subsystem);
    until("both are settled", async || (world.usage().of("traffic-police", "ok") == 1).then_some(())).await;
    for _ in 0..2 {
        world.log.note("traffic-police", Seen::Open);
    }
    world.close().await;
}
