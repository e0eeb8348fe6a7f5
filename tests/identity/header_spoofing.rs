//! Header spoofing: hundreds of spellings of the header names that only the gateway may set. No spelling reaches the
//! subsystem.

use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{GATEWAY, READ, Seen, World, request, within};

/// The header names that a subsystem trusts.
const RESERVED: [&str; 16] = [
    "X-Tallygate-Department",
    "X-Tallygate-Caller",
    "X-Tallygate-Command",
    "X-Tallygate-Anything",
    "X-Request-Id",
    "Traceparent",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Port",
    "Forwarded",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Real-Ip",
    "X-Tallygate-",
];
/// A value that no header of an honest request holds.
const MARK: &str = "spoofed-by-the-caller";
/// The request id that the caller chose. The caller may choose it; the gateway writes the header.
const CALLERS_ID: &str = "x-tallygate-caller-request-id";

/// The result of a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpoofOutcome {
    /// Served, without the spoofed header.
    Removed,
    /// 400.
    Refused,
}

/// Returns the header lines that claim `name`, in every spelling.
fn spellings(name: &str) -> Vec<(String, SpoofOutcome)> {
    use SpoofOutcome::{Refused, Removed};
    let (lower, upper) = (name.to_lowercase(), name.to_uppercase());
    let odd: String =
        name.chars().enumerate().map(|(n, c)| if n % 2 == 0 { c } else { c.to_ascii_uppercase() }).collect();
    let plain = [name, &lower, &upper, &odd].map(|name| (format!("{name}: {MARK}\r\n"), Removed));
    let mut all = plain.to_vec();
    all.extend([
        (format!("{name}:{MARK}\r\n"), Removed),
        (format!("{name}: \t {MARK} \t\r\n"), Removed),
        (format!("{name}: {MARK}\r\n{lower}: {MARK}\r\n{upper}: {MARK}\r\n"), Removed),
        (format!("{name}: {MARK}, traffic-police\r\n"), Removed),
        (format!("{name}: \u{e9}{MARK}\r\n"), Removed), // obs-text
        (format!("{name}: {}{MARK}\r\n", "x".repeat(4000)), Removed),
        (format!("Connection: keep-alive\r\n{name}: {MARK}\r\n"), Removed),
        (format!("{name} : {MARK}\r\n"), Refused),
        (format!(" {name}: {MARK}\r\n"), Refused),
        (format!("{name}\0: {MARK}\r\n"), Refused),
        (format!("{name}: {MARK}\0\r\n"), Refused),
        (format!("X-Plain: a\r\n {name}: {MARK}\r\n"), Refused), // obs-fold
        (format!("{name}: a\r\n {MARK}\r\n"), Refused),
        (format!("Connection: {name}\r\n{name}: {MARK}\r\n"), Refused),
        (format!("Connection: {name}\r\n"), Refused),
        (format!("Connection: close, {upper}\r\n{lower}: {MARK}\r\n"), Refused),
        (format!("Connection: x,,\t{lower} ,y\r\n"), Refused),
    ]);
    if name.contains('-') {
        all.extend([
            (format!("{}: {MARK}\r\n", name.replace('-', "_")), Refused),
            (format!("{}: {MARK}\r\n", name.replacen('-', "_", 1)), Refused),
            (format!("{}: {MARK}\r\n", upper.replace('-', "_")), Refused),
            (format!("HTTP_{}: {MARK}\r\n", upper.replace('-', "_")), Refused),
        ]);
    }
    all
}

/// Sends a request with these lines and logs its outcome. Returns its status.
async fn sent(world: &World, lines: &str) -> u16 {
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    let close = if lines.contains("Connection") { "" } else { "Connection: close\r\n" };
    let head = format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\n{close}{lines}\r\n");
    let bytes: Vec<u8> = head.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(); // Latin-1: one byte each
    stream.write_all(&bytes).await.unwrap();
    let answer = within("an answer", head_of_answer(&mut stream)).await;
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{head}: {answer}"));
    if answer.contains("x-request-id") {
        world.log.note("traffic-police", Seen::Outcome(if status == 200 { "ok" } else { "malformed" }));
    }
    status
}

async fn head_of_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// Requires that every head and trailer of the subsystem carries only the gateway's values.
fn assert_nothing_forwarded(world: &World) {
    for got in world.server("cameras").log.all() {
        let trailers = got.body.trailers.lock().unwrap().clone().unwrap_or_default();
        for (name, value) in got.headers.iter().chain(&trailers) {
            let text = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
            let may_hold_it = name == "x-plain" || (name == CALLERS_ID && text == MARK);
            assert!(may_hold_it || !text.contains(MARK), "{name}: {text}");
        }
        for (name, expected) in [
            ("x-tallygate-department", "traffic-police"),
            ("x-tallygate-command", "cameras/snapshot.read"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
        ] {
            let command = if got.method == "POST" { "cameras/snapshot.submit" } else { "cameras/snapshot.read" };
            let expected = if name == "x-tallygate-command" { command } else { expected };
            assert_eq!(got.headers.get_all(name).iter().collect::<Vec<_>>(), [expected], "{name}");
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_reserved_field_is_forwarded_over_http_1() {
    let world = World::city().start().await;
    let spellings: Vec<_> = RESERVED.into_iter().flat_map(spellings).collect();
    assert_eq!(spellings.len(), 392, "docs/identity.md states the number, with 174 and 32 below");
    let world_of = &world;
    let wrong = futures_util::stream::iter(&spellings).map(async |(lines, fate): &(String, SpoofOutcome)| {
        let status = sent(world_of, lines).await;
        (status != if *fate == SpoofOutcome::Removed { 200 } else { 400 })
            .then(|| format!("{lines:?}: {status}, not {fate:?}"))
    });
    let wrong: Vec<_> = wrong.buffer_unordered(8).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(sent(&world, &format!("X-Plain: {MARK}\r\n")).await, 200);
    let log = world.server("cameras").log.all();
    assert!(log.iter().any(|got| got.header("x-plain") == MARK), "headers that are not reserved are forwarded");
    assert_nothing_forwarded(&world);
    world.close().await;
}

#[tokio::test]
async fn no_spelling_of_a_reserved_field_is_forwarded_over_http_2() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let values: [&[u8]; 5] = [
        MARK.as_bytes(),
        b"spoofed-by-the-caller, x",
        b"\xe9spoofed-by-the-caller",
        b"a;spoofed-by-the-caller",
        b"\tspoofed-by-the-caller",
    ];
    let mut variants = 0;
    for name in RESERVED {
        for value in values {
            for times in [1, 2] {
                let mut outgoing = request("GET", READ, crate::world::empty());
                for _ in 0..times {
                    let name: HeaderName = name.parse().unwrap();
                    outgoing.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
                }
                // A value with a leading blank is malformed (RFC 9113 section 8.2.1).
                let status = if value.starts_with(b"\t") { 400 } else { 200 };
                assert_eq!(client.send(outgoing).await.status, status, "{name}");
                variants += 1;
            }
        }
        if name.contains('-') {
            let mut outgoing = request("GET", READ, crate::world::empty());
            outgoing
                .headers_mut()
                .append(name.replace('-', "_").parse::<HeaderName>().unwrap(), HeaderValue::from_static(MARK));
            assert_eq!(client.send(outgoing).await.problem().as_deref(), Some("malformed"), "{name}");
            variants += 1;
        }
    }
    assert_eq!(variants, 174);
    assert_nothing_forwarded(&world);
    world.close().await;
}

#[tokio::test]
async fn reserved_fields_in_trailers_are_not_forwarded() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        for name in RESERVED {
            let mut trailers = HeaderMap::new();
            trailers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(MARK));
            let frames = [Ok(Frame::data("snapshot".into())), Ok(Frame::trailers(trailers))];
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let mut outgoing = request("POST", "/cameras/v1/snapshots", body);
            outgoing.headers_mut().insert("trailer", name.parse().unwrap());
            assert_eq!(client.send(outgoing).await.status, 200, "{name}");
        }
    }
    assert_eq!(world.server("cameras").log.all().len(), 2 * RESERVED.len());
    for got in world.server("cameras").log.all() {
        assert!(got.body.complete.load(std::sync::atomic::Ordering::Acquire));
    }
    for got in world.server("cameras").log.all() {
        let trailers = got.body.trailers.lock().unwrap().clone().unwrap_or_default();
        assert!(trailers.is_empty(), "{trailers:?}");
    }
    world.close().await;
}
