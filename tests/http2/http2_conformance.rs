//! HTTP/2 conformance: each violation of RFC 9113 is an error with the specified code, on its stream or its connection.
//! No violation runs to its end as a command. Where h2 cannot decode a frame at all, it sends PROTOCOL_ERROR instead of
//! the more exact code; the connection ends all the same.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::h2_frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GET,
    GOAWAY, HEADERS, PADDED, PING, POST, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED,
    WINDOW_UPDATE, WITH_PRIORITY, code_at, fields, frame, frames_in, get, literal, open_http2, post, say,
};
use crate::world::{IN_FLIGHT, Seen, World, until, within};

/// The path of commands that a case must leave open.
const NEVER: &str = "/cameras/do/never";

/// The first result: an error with its code, a close, or the response to a ping (the gateway accepted the frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceivedFrames {
    Error(u32),
    Closed,
    Nothing,
}

/// Sends frames and a ping, and reads until the result is certain. h2 answers pings before any other frame, so only the
/// response to a second ping shows that no error follows.
async fn read_frames(world: &World, frames: &[u8]) -> ReceivedFrames {
    let mut stream = open_http2(world, &[]).await;
    let ping = frame(PING, 0, 0, b"are you?");
    let _ = say(&mut stream, &[frames, &ping].concat()).await; // it may be closed before all bytes are sent
    let (mut received, mut asked_again) = (Vec::new(), false);
    loop {
        if let Some(code) = error_in(&received) {
            return ReceivedFrames::Error(code);
        }
        let pongs = frames_in(&received).iter().filter(|frame| frame.0 == PING && frame.3 == b"are you?").count();
        if pongs == 2 {
            return ReceivedFrames::Nothing;
        }
        if pongs == 1 && !std::mem::replace(&mut asked_again, true) {
            let _ = say(&mut stream, &ping).await; // the same holds here
        }
        match within("an error or a PING acknowledgement", stream.read_buf(&mut received)).await {
            Ok(0) | Err(_) => return error_in(&received).map_or(ReceivedFrames::Closed, ReceivedFrames::Error),
            Ok(_) => {}
        }
    }
}

fn error_in(received: &[u8]) -> Option<u32> {
    frames_in(received).into_iter().find_map(|(kind, _, _, payload)| match kind {
        GOAWAY => Some(code_at(payload, 4)),
        RST_STREAM => Some(code_at(payload, 0)),
        _ => None,
    })
}

/// Runs every case, and lists the wrong results at the end. The cases may leave `commands` commands open, and
/// `malformed` heads are reset before they become commands.
async fn assert_all(cases: Vec<(&str, Vec<u8>, &[u32])>, commands: u64, malformed: u64) {
    let world = World::city().start().await;
    for _ in 0..commands {
        world.log.note("traffic-police", Seen::Open);
    }
    for _ in 0..malformed {
        world.log.note("traffic-police", Seen::Outcome("malformed"));
    }
    let mut odd = Vec::new();
    for (what, frames, codes) in &cases {
        let received = read_frames(&world, frames).await;
        let fits = match received {
            ReceivedFrames::Error(code) => codes.contains(&code),
            ReceivedFrames::Closed => !codes.is_empty(),
            ReceivedFrames::Nothing => codes.is_empty(),
        };
        if !fits {
            odd.push(format!("{what}: {received:?}, not one of {codes:?}"));
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    until("all commands are settled", async || (world.metrics().await.sum(IN_FLIGHT) == 0).then_some(())).await;
    assert_eq!(world.client("traffic-police").h2().get("/cameras/v1/snapshots/1").await.status, 200);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 1, "only the last command completed");
    assert_eq!(usage.of("traffic-police", "malformed"), malformed, "each head that is reset is counted");
}

#[tokio::test]
async fn malformed_frames_are_connection_errors() {
    let long = vec![0; 16 * 1024 + 1];
    let setting = |key: u16, value: u32| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let cases: Vec<(&str, Vec<u8>, &[u32])> = vec![
        ("4.2 a frame beyond the largest", frame(DATA, 0, 1, &long), &[FRAME_SIZE_ERROR]),
        (
            "4.3 a field that is not HPACK",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            &[COMPRESSION_ERROR, PROTOCOL_ERROR],
        ),
        ("5.1 DATA on an idle stream", frame(DATA, 0, 1, b"x"), &[PROTOCOL_ERROR]),
        ("5.1 RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), &[PROTOCOL_ERROR]),
        ("5.1 WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), &[PROTOCOL_ERROR]),
        (
            "5.1 CONTINUATION on an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, &fields(GET, NEVER)),
            &[PROTOCOL_ERROR],
        ),
        ("5.1.1 a stream with an even number", get(2, NEVER), &[PROTOCOL_ERROR]),
        (
            "5.1.1 a stream with a smaller number",
            [get(5, NEVER), get(3, NEVER)].concat(),
            &[PROTOCOL_ERROR, STREAM_CLOSED],
        ),
        ("6.1 DATA on no stream", frame(DATA, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        (
            "6.1 DATA that is all padding and more",
            [post(1), frame(DATA, PADDED, 1, &[9, 0])].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("6.2 HEADERS on no stream", frame(HEADERS, END_HEADERS, 0, &fields(GET, NEVER)), &[PROTOCOL_ERROR]),
        (
            "6.2 HEADERS that are all padding and more",
            frame(HEADERS, PADDED | END_HEADERS, 1, &[200, 0x82]),
            &[PROTOCOL_ERROR],
        ),
        (
            "6.2 another frame within a head",
            [frame(HEADERS, END_STREAM, 1, &fields(GET, NEVER)), frame(PING, 0, 0, &[0; 8])].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "6.2 another stream within a head",
            [frame(HEADERS, END_STREAM, 1, &fields(GET, NEVER)), get(3, NEVER)].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("6.3 PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 1]), &[PROTOCOL_ERROR]),
        (
            "6.3 PRIORITY of another length",
            [get(1, NEVER), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            &[FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        ),
        ("6.4 RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        (
            "6.4 RST_STREAM of another length",
            [get(1, NEVER), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            &[FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        ),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), &[PROTOCOL_ERROR]),
        ("6.5 SETTINGS of a broken length", frame(SETTINGS, 0, 0, &[0; 5]), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        (
            "6.5 SETTINGS that acknowledge and say more",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            &[FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        ),
        ("6.5.2 ENABLE_PUSH is 2", frame(SETTINGS, 0, 0, &setting(2, 2)), &[PROTOCOL_ERROR]),
        (
            "6.5.2 a window beyond the largest",
            frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        ("6.5.2 a frame below the smallest", frame(SETTINGS, 0, 0, &setting(5, 16_383)), &[PROTOCOL_ERROR]),
        ("6.5.2 a frame beyond the largest", frame(SETTINGS, 0, 0, &setting(5, 1 << 24)), &[PROTOCOL_ERROR]),
        ("6.5.3 an unknown setting", frame(SETTINGS, 0, 0, &setting(0xff, 1)), &[]),
        ("6.6 a promise by a caller", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), &[PROTOCOL_ERROR]),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("6.7 PING of another length", frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("6.9 WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        (
            "6.9 WINDOW_UPDATE of nothing on a stream",
            [get(1, NEVER), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "6.9 WINDOW_UPDATE of another length",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            &[FRAME_SIZE_ERROR, PROTOCOL_ERROR],
        ),
        (
            "6.10 CONTINUATION after a whole head",
            [get(1, NEVER), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("5.5 a frame of an unknown kind", frame(0xbe, 0xff, 1, b"anything"), &[]),
        ("6.7 an unknown flag", frame(PING, 0xfe, 0, &[0; 8]), &[]),
    ];
    assert_all(cases, 8, 0).await;
}

#[tokio::test]
async fn malformed_heads_are_stream_errors() {
    let head = |block: Vec<u8>| frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let with = |name: &str, value: &str| head([fields(GET, NEVER), literal(name, value)].concat());
    let pseudo = |names: &[(&str, &str)]| head(names.iter().flat_map(|(name, value)| literal(name, value)).collect());
    let own_parent = [&[0, 0, 0, 1, 1][..], &fields(GET, NEVER)].concat();
    let length = |value: &str| {
        let block = [fields(POST, "/cameras/v1/snapshots"), literal("content-length", value)].concat();
        frame(HEADERS, END_HEADERS, 1, &block)
    };
    let (method, scheme, path, host) = ((":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "h"));
    let cases: Vec<(&str, Vec<u8>, &[u32])> = vec![
        ("8.2.1 a capital in a name", with("X-Capital", "1"), &[PROTOCOL_ERROR]),
        ("8.2.1 a line feed in a value", with("x-value", "a\nb"), &[PROTOCOL_ERROR]),
        ("8.2.1 a NUL in a value", with("x-value", "a\0b"), &[PROTOCOL_ERROR]),
        ("8.2.1 a blank in a name", with("x name", "1"), &[PROTOCOL_ERROR]),
        ("8.2.2 Connection", with("connection", "keep-alive"), &[PROTOCOL_ERROR]),
        ("8.2.2 Transfer-Encoding", with("transfer-encoding", "chunked"), &[PROTOCOL_ERROR]),
        ("8.2.2 Upgrade", with("upgrade", "h2c"), &[PROTOCOL_ERROR]),
        ("8.2.2 TE that is not trailers", with("te", "gzip"), &[PROTOCOL_ERROR]),
        ("8.3 a pseudo-field after a field", with(":authority", "h"), &[PROTOCOL_ERROR]),
        ("8.3 an unknown pseudo-field", pseudo(&[method, scheme, path, host, (":odd", "1")]), &[PROTOCOL_ERROR]),
        ("8.3 a pseudo-field of answers", pseudo(&[method, scheme, path, host, (":status", "200")]), &[PROTOCOL_ERROR]),
        ("8.3.1 no method", pseudo(&[scheme, path, host]), &[PROTOCOL_ERROR]),
        ("8.3.1 no scheme", pseudo(&[method, path, host]), &[PROTOCOL_ERROR]),
        ("8.3.1 no path", pseudo(&[method, scheme, host]), &[PROTOCOL_ERROR]),
        ("8.3.1 an empty path", pseudo(&[method, scheme, host, (":path", "")]), &[PROTOCOL_ERROR]),
        ("8.3.1 two methods", pseudo(&[method, method, scheme, path, host]), &[PROTOCOL_ERROR]),
        ("8.3.1 two paths", pseudo(&[method, scheme, path, path, host]), &[PROTOCOL_ERROR]),
        (
            "5.3.1 a stream that depends on itself",
            frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, &own_parent),
            &[PROTOCOL_ERROR],
        ),
        (
            "8.1.1 more than Content-Length",
            [length("1"), frame(DATA, END_STREAM, 1, b"hello")].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "8.1.1 less than Content-Length",
            [length("9"), frame(DATA, END_STREAM, 1, b"hello")].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "8.1 a second head that is no trailer",
            [post(1), frame(HEADERS, END_HEADERS, 1, &literal("x", "1"))].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "5.1 DATA after the end of a request",
            [get(1, NEVER), frame(DATA, END_STREAM, 1, b"x")].concat(),
            &[STREAM_CLOSED, PROTOCOL_ERROR],
        ),
        (
            "5.1 a head after the end of a request",
            [get(1, NEVER), get(1, NEVER)].concat(),
            &[STREAM_CLOSED, PROTOCOL_ERROR],
        ),
    ];
    assert_all(cases, 7, 13).await;
}

/// h2 ignores pseudo-header fields in trailers, where RFC 9113 section 8.1 would have the request refused. This is
/// harmless, because the fields are not forwarded.
#[tokio::test]
async fn pseudo_fields_in_a_trailer_are_not_forwarded() {
    let world = World::city().start().await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    let odd = [literal(":path", "/elsewhere"), literal("x-checksum", "42")].concat();
    let mut stream = open_http2(&world, &[]).await;
    let frames = [post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &odd)].concat();
    say(&mut stream, &frames).await.unwrap();
    world.usage_when("the command is settled", |usage| usage.of("traffic-police", "ok") == 1).await;
    let got = world.server("cameras").log.only();
    assert_eq!(got.path, "/v1/snapshots");
    let trailers = got.body.trailers.lock().unwrap().clone().expect("trailers");
    assert_eq!((trailers.len(), &trailers["x-checksum"]), (1, &"42".parse().unwrap()));
    world.close().await;
}

#[tokio::test]
async fn connection_without_the_preface_is_closed() {
    let world = World::city().start().await;
    let mut stream = world.client("traffic-police").h2().connect().await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: gateway.city.example\r\n\r\n").await.unwrap();
    let mut received = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut received)).await; // a reset is an end, too
    assert!(!received.starts_with(b"HTTP"), "{received:?}");
    assert!(!frames_in(&received).iter().any(|frame| frame.0 == HEADERS));
    let usage = world.close().await;
    assert_eq!(usage.sum(|_| true), 0);
}
