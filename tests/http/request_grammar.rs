//! One request grammar for both protocols: a request that is refused over HTTP/1.1 is refused over HTTP/2, case by
//! case. Requests that h2 itself refuses are counted as well. The cases are:
//! - the tables of `src/proxy/message/grammar/tests.rs`;
//! - the tables of `tests/http1/http1_conformance.rs`;
//! - trailer names that are dangerous because of other spellings and other readers.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::http1::http1_conformance::{Case, ask as ask_over_http1, catch_all, corpus, outcome_of};
use crate::world::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, code_at, frame,
    frames_in, literal, open_http2, post, say,
};
use crate::world::{GATEWAY, Seen, World, empty, request, within};

const GOOD: [&str; 11] = include!("../data/http1_good.rs");
const BAD_HEADS: [(&str, u16); 62] = include!("../data/http1_bad_heads.rs");
const BAD_BODIES: [&str; 22] = include!("../data/http1_bad_bodies.rs");

/// The largest frame that the gateway accepts.
const FRAME_MAX: usize = 16 * 1024;
/// Fields that HTTP/2 does not have (RFC 9113 section 8.2.2). A request with one of them is malformed, even if HTTP/1.1
/// accepts it.
const OF_CONNECTIONS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// The result of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GrammarOutcome {
    /// A response: its status if it is a problem, and its outcome.
    Answered(u16, &'static str),
    /// A head without content: h2's own 431.
    Bare,
    /// RST_STREAM.
    Reset(u32),
    /// GOAWAY or a close: h2 could not decode the head.
    Ended,
}

impl GrammarOutcome {
    fn is_refused(self) -> bool {
        !matches!(self, Self::Answered(_, outcome) if outcome != "malformed" && outcome != "aborted")
    }

    /// Returns the entry that the books must hold.
    fn seen(self) -> Seen {
        match self {
            Self::Answered(_, "aborted") | Self::Ended => Seen::Open,
            Self::Answered(_, outcome) => Seen::Outcome(outcome),
            Self::Bare | Self::Reset(_) => Seen::Outcome("malformed"),
        }
    }
}

/// Sends the frames of stream 1 on a new connection, and reads until the result is certain.
async fn grammar_outcome(world: &World, frames: &[u8]) -> GrammarOutcome {
    let mut stream = open_http2(world, &[]).await;
    let _ = say(&mut stream, frames).await; // it may be refused before all bytes are sent
    let mut received = Vec::new();
    loop {
        if let Some(outcome) = outcome_in(&received) {
            return outcome;
        }
        match within("the stream is answered or reset", stream.read_buf(&mut received)).await {
            Ok(0) | Err(_) => return outcome_in(&received).unwrap_or(GrammarOutcome::Ended),
            Ok(_) => {}
        }
    }
}

fn outcome_in(received: &[u8]) -> Option<GrammarOutcome> {
    let mut body = Vec::new();
    for (kind, flags, _, payload) in frames_in(received) {
        let ends = flags & END_STREAM > 0;
        match kind {
            DATA => {
                body.extend_from_slice(payload);
                if ends {
                    return Some(answered(&body));
                }
            }
            HEADERS if ends => return Some(GrammarOutcome::Bare),
            RST_STREAM => return Some(GrammarOutcome::Reset(code_at(payload, 0))),
            GOAWAY if code_at(payload, 4) != 0 => return Some(GrammarOutcome::Ended),
            _ => {}
        }
    }
    None
}

fn answered(body: &[u8]) -> GrammarOutcome {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(name) = problem["type"].as_str().and_then(|kind| kind.strip_prefix("urn:tallygate:problem:")) else {
        return GrammarOutcome::Answered(200, "ok");
    };
    assert!(problem["instance"].as_str().is_some_and(|id| id.len() == 32), "{problem}");
    GrammarOutcome::Answered(u16::try_from(problem["status"].as_u64().unwrap()).unwrap(), outcome_of(name))
}

/// Translates an HTTP/1.1 request to HTTP/2 frames. Returns the reason if no frames are equivalent.
fn translated(raw: &[u8], without_host: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let end = raw.windows(4).position(|end| end == b"\r\n\r\n");
    let (head, rest) = end.map_or((raw, &b""[..]), |end| (&raw[..end], &raw[end + 4..]));
    let mut lines = split(head, b"\r\n").into_iter().filter(|line| !line.is_empty());
    let first = lines.next().ok_or("a head is never empty")?;
    let parts = split(first, b" ");
    let (&[method, target, version], false) = (&parts[..], raw.starts_with(b"\r\n")) else {
        return Err("there is no first line, only its parts (RFC 9113 section 8.3.1)");
    };
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        return Err("the version is agreed on in the handshake (RFC 9113 section 3.2)");
    }
    let mut fields = Vec::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err("a field without a colon has no form of its own");
        };
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err("there are no lines, so none can be folded or begin with a blank");
        }
        fields.push((line[..colon].to_ascii_lowercase(), trimmed(&line[colon + 1..]).to_vec()));
    }
    let mut hosts = fields.iter().filter(|(name, _)| name == b"host");
    let only_host = match (hosts.next(), hosts.next()) {
        (Some((_, host)), None) => Some(host.clone()),
        (None, _) => without_host.map(|host| host.as_bytes().to_vec()),
        _ => None,
    };
    let mut block = pseudo_fields(method, target, only_host.as_deref());
    let is_a_field = only_host.is_none() || is_absolute(target);
    for (name, value) in fields.iter().filter(|(name, _)| name != b"host" || is_a_field) {
        block.extend(field(name, value));
    }
    let length = fields.iter().find(|(name, _)| name == b"content-length");
    let length = length.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
    let body = length.filter(|length| *length > 0).map(|length| {
        let mut body = rest[..rest.len().min(length)].to_vec();
        body.resize(length.min(1024), b'x');
        body
    });
    let mut frames = head_frames(&block, body.is_none());
    frames.extend(body.into_iter().flat_map(|body| frame(DATA, END_STREAM, 1, &body)));
    Ok(frames)
}

fn is_absolute(target: &[u8]) -> bool {
    !target.starts_with(b"/") && target.windows(3).any(|part| part == b"://")
}

fn pseudo_fields(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Vec<u8> {
    let (scheme, authority, path) = match target.windows(3).position(|part| part == b"://") {
        Some(scheme) if !target.starts_with(b"/") => {
            let rest = &target[scheme + 3..];
            let path = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            (&target[..scheme], Some(&rest[..path]), if path == rest.len() { &b"/"[..] } else { &rest[path..] })
        }
        _ => (&b"https"[..], host, target),
    };
    if method == b"CONNECT" {
        return [field(b":method", method), field(b":authority", target)].concat();
    }
    let fields = [field(b":method", method), field(b":scheme", scheme), field(b":path", path)];
    fields.into_iter().chain(authority.map(|authority| field(b":authority", authority))).flatten().collect()
}

/// Returns the frames of a head of any length on stream 1.
fn head_frames(block: &[u8], ends: bool) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(FRAME_MAX).collect();
    let frames = pieces.iter().enumerate().map(|(n, piece)| {
        let end_stream = if n == 0 && ends { END_STREAM } else { 0 };
        let end_headers = if n + 1 == pieces.len() { END_HEADERS } else { 0 };
        frame(if n == 0 { HEADERS } else { CONTINUATION }, end_stream | end_headers, 1, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

/// Returns a literal of any length (RFC 7541 sections 5.1 and 6.2.2).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            field.push(u8::try_from(length).unwrap());
        } else {
            field.push(127);
            length -= 127;
            while length >= 128 {
                field.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            field.push(u8::try_from(length).unwrap());
        }
        field.extend_from_slice(text);
    }
    field
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(by.len()).position(|part| part == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(begin, |last| last + 1);
    &value[begin..end]
}

fn has_field_of_connections(raw: &[u8]) -> bool {
    let text = String::from_utf8_lossy(raw).to_lowercase();
    OF_CONNECTIONS.iter().any(|name| text.contains(&format!("\n{name}:")))
}

/// Returns a city whose limit of fields in a head fits the tables.
async fn city() -> World {
    World::city().edit(|document| document["capacity"] = json!({ "headFields": 8 })).start().await
}

/// `http` removes a fragment from `:path` on parsing, so the fragment is neither routed nor forwarded.
const CUT: [&str; 1] = ["GET /#a HTTP/1.1\r\n"];

#[tokio::test]
async fn heads_of_the_tables_have_equal_verdicts_over_http2_and_http1() {
    let world = city().await;
    let (mut odd, mut tried) = (Vec::new(), 0);
    for (raw, status) in BAD_HEADS.into_iter().filter(|(raw, _)| !CUT.contains(raw)) {
        let Ok(frames) = translated(raw.as_bytes(), Some("h")) else { continue };
        let outcome = grammar_outcome(&world, &frames).await;
        world.log.note("traffic-police", outcome.seen());
        tried += 1;
        let fits = match outcome {
            GrammarOutcome::Answered(answered, "malformed") => answered == status,
            _ => outcome.is_refused(),
        };
        if !fits {
            odd.push(format!("{raw:?}: {outcome:?}, not {status}"));
        }
    }
    assert!(tried > 35, "only {tried} of {} have a form over HTTP/2", BAD_HEADS.len());
    for raw in GOOD.into_iter().filter(|raw| !raw.contains("http://")) {
        let Ok(frames) = translated(raw.as_bytes(), Some("h")) else { continue };
        let outcome = grammar_outcome(&world, &frames).await;
        world.log.note("traffic-police", outcome.seen());
        if outcome.is_refused() != has_field_of_connections(raw.as_bytes()) {
            odd.push(format!("{raw:?}: {outcome:?}, though it is well formed"));
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn whitespace_around_values_and_foreign_schemes_are_malformed() {
    let world = city().await;
    let with = |name: &str, value: &str| {
        let target = b"/cameras/v1/snapshots/1";
        let block = [pseudo_fields(b"GET", target, Some(GATEWAY.as_bytes())), field(name.as_bytes(), value.as_bytes())];
        head_frames(&block.concat(), true)
    };
    let scheme = |scheme: &str| {
        let target = format!("{scheme}://{GATEWAY}/cameras/v1/snapshots/1");
        head_frames(&pseudo_fields(b"GET", target.as_bytes(), None), true)
    };
    for frames in [with("x-value", " a"), with("x-value", "a\t"), with("expect", "x"), scheme("ftp"), scheme("file")] {
        let outcome = grammar_outcome(&world, &frames).await;
        world.log.note("traffic-police", outcome.seen());
        assert!(matches!(outcome, GrammarOutcome::Answered(400 | 417, "malformed")), "{outcome:?}");
    }
    let outcome = grammar_outcome(&world, &scheme("")).await;
    world.log.note("traffic-police", outcome.seen());
    assert!(outcome.is_refused(), "{outcome:?}");
    let outcome = grammar_outcome(&world, &with("x-value", "a b")).await;
    world.log.note("traffic-police", outcome.seen());
    assert_eq!(outcome, GrammarOutcome::Answered(200, "ok"));
    world.close().await;
}

/// Requests of the corpus whose results differ between the protocols, with the reason why the difference is right.
const DIFFERENT: [(&str, &str); 4] = [
    ("RFC9112-3.2-FRAGMENT-IN-TARGET", "see CUT"),
    ("COMP-POST-CL-UNDERSEND", "it waits for more of a body; its translation has the whole of it"),
    ("MAL-INCOMPLETE-REQUEST", "it waits for more of a head; its translation has the whole of it"),
    ("SMUG-HEAD-CL-BODY", "the answer to a HEAD has no body (RFC 9110 section 9.3.2), which looks like h2's own 431"),
];

#[tokio::test]
async fn requests_of_the_corpus_have_equal_verdicts_over_http2_and_http1() {
    let world = catch_all().await;
    let client = &world.client("traffic-police");
    let world_too = &world;
    let tried = corpus().into_iter().map(async |case: Case| {
        let frames = translated(&case.raw, None).ok()?;
        let over_http1 = ask_over_http1(client, &case).await;
        let over_http2 = grammar_outcome(world_too, &frames).await;
        let has_body = frames_in(&frames).iter().any(|frame| frame.0 == DATA);
        Some((case, over_http1, over_http2, has_body))
    });
    let tried: Vec<_> =
        futures_util::stream::iter(tried).buffer_unordered(8).filter_map(std::future::ready).collect().await;
    let mut odd = Vec::new();
    for (case, over_http1, over_http2, has_body) in &tried {
        world.log.note("traffic-police", over_http1.seen());
        let seen = match over_http2 {
            GrammarOutcome::Bare if case.raw.starts_with(b"HEAD") => Seen::Outcome("ok"),
            GrammarOutcome::Reset(_) if *has_body => Seen::Open, // with a short body it is a command
            outcome => outcome.seen(),
        };
        world.log.note("traffic-police", seen);
        let was_refused =
            over_http1.status.is_none_or(|status| matches!(status, 400 | 408 | 414 | 417 | 431 | 501 | 505));
        let is_meant = DIFFERENT.iter().any(|(id, _)| *id == case.id) || has_field_of_connections(&case.raw);
        if was_refused != over_http2.is_refused() && !is_meant {
            odd.push(format!("{}: {:?} over HTTP/1.1, {over_http2:?} over HTTP/2", case.id, over_http1.status));
        }
    }
    assert!(tried.len() > 80, "only {} of the corpus have a form over HTTP/2", tried.len());
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    world.close().await;
}

/// Trailer names for framing, routing or authentication, and other spellings of headers that only the gateway may set.
const ODD_TRAILERS: [&str; 19] = [
    "x_tallygate_department",
    "x.tallygate.department",
    "x-tallygate_caller",
    "x_forwarded_for",
    "x_real_ip",
    "client_cert",
    "host",
    "content-length",
    "authorization",
    "content-type",
    "content-encoding",
    "expect",
    "x!y",
    "x~y",
    "x|y",
    "x'y",
    "transfer-encoding",
    "connection",
    "te",
];

#[tokio::test]
async fn invalid_trailers_are_not_forwarded_to_subsystems_of_either_protocol() {
    for protocol in ["http1", "http2"] {
        let plan = World::city().edit(|document| document["subsystems"][0]["protocol"] = json!(protocol));
        let world = plan.start().await;
        let of_tables = BAD_BODIES.iter().filter_map(|body| body.strip_prefix("0\r\n")?.strip_suffix("\r\n\r\n"));
        let of_tables = of_tables.filter(|line| !line.starts_with(' ') && line.matches(':').count() == 1);
        let lines =
            of_tables.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value));
        let odd = ODD_TRAILERS.map(|name| (name.to_owned(), "9"));
        for (name, value) in lines.chain(odd).chain([("x-sum".to_owned(), " 42")]) {
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &literal(&name, value));
            let outcome = grammar_outcome(&world, &[post(1), frame(DATA, 0, 1, b"hello"), trailers].concat()).await;
            world.log.note("traffic-police", Seen::Open);
            assert!(
                matches!(
                    outcome,
                    GrammarOutcome::Answered(400, "aborted") | GrammarOutcome::Reset(_) | GrammarOutcome::Ended
                ),
                "{name}: {outcome:?}"
            );
        }
        for got in world.server("cameras").log.all() {
            let trailers = got.body.trailers.lock().unwrap().clone().unwrap_or_default();
            let is_whole = got.body.complete.load(std::sync::atomic::Ordering::Acquire);
            assert!(trailers.is_empty() && !is_whole, "{protocol}: {trailers:?}");
        }
        let outcome = grammar_outcome(
            &world,
            &[
                post(1),
                frame(DATA, 0, 1, b"hello"),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &literal("x-checksum", "42")),
            ]
            .concat(),
        )
        .await;
        world.log.note("traffic-police", Seen::Outcome("ok"));
        assert_eq!(outcome, GrammarOutcome::Answered(200, "ok"), "valid trailers are forwarded");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 1);
    }
}

#[tokio::test]
async fn head_over_the_limit_is_refused_with_431_and_counted_over_http2_as_over_http1() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let with = |bytes: usize| {
        let mut large = request("GET", "/cameras/v1/snapshots/1", empty());
        large.headers_mut().insert("x-large", "x".repeat(bytes).parse().unwrap());
        large
    };
    assert_eq!(client.send(with(32_000)).await.status, 200);
    for bytes in [32 * 1024, 40_000, 64 * 1024, 90_000] {
        let reply = client.send(with(bytes)).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (431, Some("malformed")), "{bytes}");
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.json()["instance"], reply.header("x-request-id"));
    }
    let reply = client.send(with(100_000)).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (431, 0), "h2 has sent the reset");
    // The gateway counts a response of h2 itself when its bytes have been written, so a scrape may come before the count.
    world.usage_when("all commands are counted", |usage| usage.of("traffic-police", "malformed") == 5).await;
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "malformed"), usage.of("traffic-police", "ok")), (5, 1));
}

#[tokio::test]
async fn head_reset_by_h2_is_counted_once_and_a_later_reset_is_not() {
    let world = World::city().start().await;
    let good = pseudo_fields(b"POST", b"/cameras/v1/snapshots", Some(GATEWAY.as_bytes()));
    let length = |value: &str| [&good[..], &field(b"content-length", value.as_bytes())].concat();
    let no_path = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY)];
    let no_path = no_path.map(|(name, value)| field(name.as_bytes(), value.as_bytes())).concat();
    let body = frame(DATA, END_STREAM, 1, b"hello");
    for (frames, counted) in [
        (head_frames(&no_path, true), true),
        ([head_frames(&no_path, false), body.clone()].concat(), true), // later frames do not make it a command
        (head_frames(&length("x"), true), true),
        (head_frames(&length("9"), true), true),
        ([head_frames(&length("9"), false), body.clone()].concat(), false), // accepted as a command, then broken
    ] {
        let outcome = grammar_outcome(&world, &frames).await;
        assert_eq!(outcome, GrammarOutcome::Reset(PROTOCOL_ERROR));
        world.log.note("traffic-police", if counted { Seen::Outcome("malformed") } else { Seen::Open });
    }
    let usage = world.usage_when("all commands are settled", |usage| usage.sum(|_| true) == 5).await;
    assert_eq!((usage.of("traffic-police", "malformed"), usage.of("traffic-police", "aborted")), (4, 1));
    world.close().await;
}
