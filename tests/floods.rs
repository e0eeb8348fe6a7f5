//! Floods over HTTP/2, frame by frame: each ends in GOAWAY, or costs the gateway no more than its caller; the good caller
//! beside it notices nothing, and memory stays bounded.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, code_at, fields, frame, frames_in, get, literal, open_http2, post, say, streams,
};
use crate::world::{Seen, World, empty, memory, request, within};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// GOAWAY with this code.
    GoAway(u32),
    /// Closed without one.
    Closed,
}

/// Sends frames for as long as the gateway takes them, and reads until it closes.
async fn flood(world: &World, frames: impl Iterator<Item = Vec<u8>>) -> End {
    let (mut reader, mut writer) = tokio::io::split(open_http2(world, &[]).await);
    let sending = async {
        for some in frames.collect::<Vec<_>>().chunks(100) {
            if say(&mut writer, &some.concat()).await.is_err() {
                return;
            }
        }
        let _ = writer.flush().await; // it may be gone already
    };
    let mut heard = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut heard).await; // a reset is an end, too
    };
    within("the end of a flood", async { tokio::join!(sending, reading) }).await;
    end_of(&heard)
}

fn end_of(heard: &[u8]) -> End {
    let mut codes = frames_in(heard).into_iter().filter(|frame| frame.0 == GOAWAY).map(|frame| code_at(frame.3, 4));
    codes.next_back().map_or(End::Closed, End::GoAway)
}

/// A city that waits for nobody, so that every flood comes to its end; `commands` may be left open by it.
async fn city(commands: usize) -> World {
    let quick = json!({ "idle": "500ms", "headTime": "1s", "answerIdle": "500ms", "bodyIdle": "500ms" });
    let world = World::city().edit(move |document| document["capacity"] = quick).start().await;
    for _ in 0..commands {
        world.log.note("traffic-police", Seen::Open);
    }
    world
}

async fn all_is_well(world: World) {
    assert_eq!(world.client("traffic-police").get("/cameras/v1/snapshots/1").await.status, 200);
    assert_eq!(world.client("traffic-police").h2().get("/cameras/v1/snapshots/1").await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let world = city(1000).await;
    let frames = streams().take(1000).map(|stream| {
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [get(stream, "/cameras/do/never"), reset].concat()
    });
    assert_eq!(flood(&world, frames).await, End::GoAway(ENHANCE_YOUR_CALM));
    all_is_well(world).await;
}

#[tokio::test]
async fn who_makes_the_gateway_reset_its_streams_is_sent_away() {
    let world = city(200).await;
    let frames = streams().take(200).map(|stream| {
        let too_much = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()); // RFC 9113 section 6.9.1
        [get(stream, "/cameras/do/never"), too_much].concat()
    });
    assert_eq!(flood(&world, frames).await, End::GoAway(ENHANCE_YOUR_CALM));
    all_is_well(world).await;
}

#[tokio::test]
async fn heads_that_h2_takes_for_no_request_end_the_connection_and_count_nowhere() {
    let capital = [fields(GET, "/cameras/do/never"), literal("X-Capital", "1")].concat();
    let no_path = [&[GET, 0x87][..], &literal(":authority", "h")].concat();
    let hop = [fields(GET, "/cameras/do/never"), literal("connection", "close")].concat();
    // A name that h2 cannot decode ends the connection at once.
    for (head, code) in [(capital, PROTOCOL_ERROR), (no_path, ENHANCE_YOUR_CALM), (hop, ENHANCE_YOUR_CALM)] {
        let world = city(0).await;
        let frames = streams().take(200).map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &head));
        assert_eq!(flood(&world, frames).await, End::GoAway(code));
        assert_eq!(world.usage().sum(|_| true), 0, "docs/http.md says so");
        all_is_well(world).await;
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_for_ever() {
    let world = city(0).await;
    let begun = frame(HEADERS, END_STREAM, 1, &fields(GET, "/"));
    let field = [0x40, 1, b'a', 1, b'b'].repeat(3000); // literals, to be remembered
    let more = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &field), 1000);
    assert_eq!(flood(&world, std::iter::once(begun).chain(more)).await, End::GoAway(ENHANCE_YOUR_CALM));
    all_is_well(world).await;
}

#[tokio::test]
async fn continuations_without_content_are_not_counted_for_ever() {
    let world = city(0).await;
    let begun = frame(HEADERS, END_STREAM, 1, &fields(GET, "/"));
    let more = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[]), 10_000);
    assert_eq!(flood(&world, std::iter::once(begun).chain(more)).await, End::GoAway(ENHANCE_YOUR_CALM));
    all_is_well(world).await;
}

#[tokio::test]
async fn data_without_content_ends_the_connection() {
    let world = city(1).await;
    let frames = std::iter::once(post(1)).chain(std::iter::repeat_n(frame(DATA, 0, 1, &[]), 60_000));
    assert_eq!(flood(&world, frames).await, End::GoAway(ENHANCE_YOUR_CALM));
    all_is_well(world).await;
}

#[tokio::test]
async fn a_window_beyond_its_largest_is_an_error() {
    let world = city(0).await;
    let frames = std::iter::repeat_n(frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), 3);
    assert_eq!(flood(&world, frames).await, End::GoAway(FLOW_CONTROL_ERROR));
    all_is_well(world).await;
}

#[tokio::test]
async fn what_only_keeps_busy_ends_the_connection() {
    let world = city(0).await;
    let window = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    for busy in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        window,
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        frame(0xbe, 0, 0, &[0; 64]), // an extension that nobody knows (RFC 9113 section 5.5)
    ] {
        let end = flood(&world, std::iter::repeat_n(busy.clone(), 20_000)).await;
        assert_eq!(end, End::GoAway(ENHANCE_YOUR_CALM), "{busy:?}");
    }
    assert_eq!(world.metrics().await.value("tallygate_limit_hits_total", &[("limit", "idle_frames")]), Some(5.0));
    all_is_well(world).await;
}

#[tokio::test]
async fn who_floods_and_does_not_read_is_let_go() {
    let world = city(0).await;
    for busy in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = open_http2(&world, &[]).await;
        let some = busy.repeat(10_000);
        let sending = async { while stream.write_all(&some).await.is_ok() {} };
        within("the gateway stops taking the flood", sending).await;
    }
    all_is_well(world).await;
}

#[tokio::test]
async fn a_dependency_on_itself_is_an_error_of_its_stream_only() {
    let world = city(1).await;
    let odd = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]);
    let end = flood(&world, [odd, get(3, "/cameras/v1/snapshots/1")].into_iter()).await;
    assert!(matches!(end, End::GoAway(0 | PROTOCOL_ERROR)), "{end:?}");
    all_is_well(world).await;
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_are_counted_as_fields() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let mut crumbs = request("GET", "/cameras/v1/snapshots/1", empty());
    for _ in 0..150 {
        crumbs.headers_mut().append("cookie", "a=b".parse().unwrap());
    }
    let reply = client.send(crumbs).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (431, Some("malformed")));
    assert!(world.server("cameras").log.all().is_empty());
    assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn an_indexed_cookie_does_not_grow_in_the_gateway() {
    let world = city(100).await;
    let mut block = fields(GET, "/cameras/v1/snapshots/1");
    block.extend([0x60, 0x7f, 0xa1, 0x1e]); // cookie, remembered, 4000 bytes
    block.extend([b'a'; 4000]);
    block.extend([0xbe].repeat(4000)); // and again, one byte each
    let frames = streams().take(100).map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
    let end = flood(&world, frames).await;
    assert!(matches!(end, End::GoAway(_) | End::Closed), "{end:?}");
    assert!(world.server("cameras").log.all().is_empty());
    all_is_well(world).await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let world = city(101).await;
    let mut stream = open_http2(&world, &[]).await;
    let frames: Vec<u8> = streams().take(101).flat_map(|stream| get(stream, "/cameras/do/never")).collect();
    say(&mut stream, &frames).await.unwrap();
    let refused = frame(RST_STREAM, 0, 201, &7_u32.to_be_bytes());
    let mut heard = Vec::new();
    within("the refusal of the last stream", async {
        while !heard.windows(refused.len()).any(|some| some == refused) {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "closed");
        }
    })
    .await;
    drop(stream);
    let usage = world.usage_when("all are settled", |usage| usage.of("traffic-police", "aborted") == 100).await;
    assert_eq!(usage.sum(|_| true), 100);
    all_is_well(world).await;
}

/// What one connection may cost.
const MEMORY_MAX: u64 = 2 * 1024 * 1024;
/// What one costs at most that opens all windows: it is 1.6 to 1.9 MiB, and 12 where h2 may keep what the socket does not take.
const MEMORY_OF_WINDOWS_MAX: u64 = 3 * 1024 * 1024;
/// Enough of them that what everybody shares does not matter.
pub const CONNECTIONS: u64 = 4;

fn resident(world: &World) -> u64 {
    memory(world.process_id(), "VmRSS")
}

/// Memory has grown as far as it will when it stands still; that can only be seen by looking twice.
pub async fn memory_once_it_stands_still(world: &World) -> u64 {
    let mut last = 0;
    crate::world::until("memory stands still", async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let before = std::mem::replace(&mut last, resident(world));
        (last <= before + 64 * 1024).then_some(())
    })
    .await;
    last
}

/// Opens connections that ask for 100 large answers each and take nothing of them, or as much as these windows hold, of a stream and of
/// all beyond 64 KiB, and do not read.
async fn memory_of_readers_that_stall(window: u32, of_all: u32) {
    let world = World::city().start_process().await;
    assert_eq!(world.client("traffic-police").h2().get("/cameras/do/chunks-4096").await.status, 200);
    let before = resident(&world);
    let mut held = Vec::new();
    let log = &world.server("cameras").log;
    for n in 1..=usize::try_from(CONNECTIONS).unwrap() {
        let settings = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat(); // INITIAL_WINDOW_SIZE
        let mut stream = open_http2(&world, &settings).await;
        let mut asked = if of_all > 0 { frame(WINDOW_UPDATE, 0, 0, &of_all.to_be_bytes()) } else { Vec::new() };
        asked.extend(streams().take(100).flat_map(|stream| get(stream, "/cameras/do/chunks-4096")));
        say(&mut stream, &asked).await.unwrap();
        held.push(stream);
        crate::world::until("all are asked for", async || (log.all().len() == n * 100 + 1).then_some(())).await;
    }
    let last = memory_once_it_stands_still(&world).await;
    let each = last.saturating_sub(before) / CONNECTIONS;
    eprintln!("with a window of {window}: {} KiB a connection", each / 1024);
    let most = if of_all > 0 { MEMORY_OF_WINDOWS_MAX } else { MEMORY_MAX };
    assert!(each <= most, "{each} bytes a connection");
    for _ in 0..CONNECTIONS * 100 {
        world.log.note("traffic-police", Seen::Open);
    }
    drop(held);
    world.close().await;
}

#[tokio::test]
async fn a_connection_whose_streams_take_nothing_has_bounded_memory() {
    memory_of_readers_that_stall(0, 0).await;
}

#[tokio::test]
async fn a_connection_whose_streams_take_one_byte_has_bounded_memory() {
    memory_of_readers_that_stall(1, 0).await;
}

#[tokio::test]
async fn a_connection_whose_streams_take_a_window_has_bounded_memory() {
    memory_of_readers_that_stall(65_535, 0).await;
}

#[tokio::test]
async fn a_connection_that_opens_all_windows_and_does_not_read_has_bounded_memory() {
    memory_of_readers_that_stall(0x7fff_ffff, 0x7fff_0000).await;
}
