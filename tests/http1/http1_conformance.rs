//! HTTP/1.1 conformance: 143 raw requests (request smuggling, message framing, malformed heads), each with the verdicts
//! that HTTP allows. The requests are in tests/data/http11.jsonl, from Http11Probe (MIT). They are sent to the gateway
//! unchanged over TLS, and judged one by one.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::world::h2_frames::say;
use crate::world::{Client, Seen, World, within};

/// The number of concurrent requests.
const AT_ONCE: usize = 16;
/// Deliberate deviations from the corpus. `OPTIONS *` addresses the server itself, and every command has a path.
const MEANT: [&str; 1] = ["COMP-OPTIONS-STAR"];

/// One request of the corpus.
pub struct Case {
    pub id: String,
    category: String,
    expected: String,
    scored: bool,
    pub raw: Vec<u8>,
}

/// The bytes received before the connection was closed.
pub struct RawResponse {
    pub status: Option<u16>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AllowedVerdict {
    Pass,
    /// Allowed, but a stricter response is allowed, too.
    Warn,
    Fail,
}

pub fn corpus() -> Vec<Case> {
    let lines = include_str!("../data/http11.jsonl").lines();
    lines.map(|line| case(&serde_json::from_str(line).unwrap())).collect()
}

fn case(row: &Value) -> Case {
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    let (id, raw) = (text("id"), text("raw"));
    let raw = regenerated(&id).unwrap_or_else(|| restored(&id, &raw));
    Case { id, category: text("category"), expected: text("expected"), scored: row["scored"].as_bool().unwrap(), raw }
}

/// Rebuilds the six requests that are truncated in the file at 8,192 bytes.
fn regenerated(id: &str) -> Option<Vec<u8>> {
    let long = |letter: &str| letter.repeat(100_000);
    let host = "Host: localhost:8080\r\n";
    let raw = match id {
        "MAL-LONG-URL" => format!("GET /{} HTTP/1.1\r\n{host}\r\n", long("A")),
        "MAL-LONG-HEADER-VALUE" => format!("GET / HTTP/1.1\r\n{host}X-Big: {}\r\n\r\n", long("B")),
        "MAL-LONG-HEADER-NAME" => format!("GET / HTTP/1.1\r\n{host}{}: value\r\n\r\n", long("A")),
        "MAL-LONG-METHOD" => format!("{} / HTTP/1.1\r\n{host}\r\n", long("A")),
        "MAL-MANY-HEADERS" => {
            let fields: String = (0..10_000).map(|n| format!("X-H-{n}: value\r\n")).collect();
            format!("GET / HTTP/1.1\r\n{host}{fields}\r\n")
        }
        "MAL-CHUNK-EXT-64K" => format!(
            "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5;ext={}\r\nhello\r\n0\r\n\r\n",
            "a".repeat(64 * 1024)
        ),
        _ => return None,
    };
    Some(raw.into_bytes())
}

/// Restores the bytes beyond ASCII, which are question marks in the file.
fn restored(id: &str, raw: &str) -> Vec<u8> {
    let lost: &[u8] = match id {
        "MAL-BINARY-GARBAGE" => &[0xff],
        "MAL-CONTROL-CHARS-HEADER" => &[0x7f],
        "MAL-NON-ASCII-HEADER-NAME" => "ë".as_bytes(),
        "MAL-NON-ASCII-URL" => "é".as_bytes(),
        "MAL-URL-OVERLONG-UTF8" => &[0xc0, 0xaf],
        _ => return raw.as_bytes().to_vec(),
    };
    let mut lost = lost.iter().cycle();
    raw.bytes().map(|byte| if byte == b'?' { *lost.next().unwrap() } else { byte }).collect()
}

/// Sends a request and reads until the gateway closes. The gateway closes soon after the last response and the last
/// byte (lingering close).
pub async fn ask(client: &Client, case: &Case) -> RawResponse {
    let mut stream = client.connect().await.unwrap();
    let _ = say(&mut stream, &case.raw).await; // it may be refused and closed before all bytes are sent
    let mut answer = Vec::new();
    let _ = within(&case.id, stream.read_to_end(&mut answer)).await; // a reset is a close, too
    let text = String::from_utf8_lossy(&answer).replacen("HTTP/1.1 100 Continue\r\n\r\n", "", 1);
    RawResponse { status: text.get(9..12).and_then(|status| status.parse().ok()), text }
}

fn judge(case: &Case, answer: &RawResponse) -> AllowedVerdict {
    let expected = case.expected.split(" (").next().unwrap();
    let allows = |word: &str| expected.contains(word);
    let fits = match answer.status {
        _ if expected == "!101" => answer.status != Some(101),
        Some(status @ 200..300) => allows("2xx") || allows(&status.to_string()),
        Some(408) => allows("timeout"), // the outcome's name
        Some(status) => allows(&status.to_string()),
        None => allows("close"),
    };
    match answer.status {
        _ if !fits => AllowedVerdict::Fail,
        Some(200..300) if allows("400") => AllowedVerdict::Warn,
        _ => AllowedVerdict::Pass,
    }
}

impl RawResponse {
    /// Returns the entry that the books must hold.
    pub fn seen(&self) -> Seen {
        let named = self.text.split_once("urn:tallygate:problem:").map(|(_, rest)| rest.split('"').next().unwrap());
        match (named, self.status) {
            (Some(name), _) => Seen::Outcome(outcome_of(name)),
            (None, Some(200..300)) => Seen::Outcome("ok"),
            _ => Seen::Open,
        }
    }
}

/// Returns the outcome with this name.
pub fn outcome_of(name: &str) -> &'static str {
    let mut outcomes = tallygate::model::Outcome::all().map(tallygate::model::Outcome::name);
    outcomes.find(|outcome| *outcome == name).unwrap()
}

pub async fn catch_all() -> World {
    let plan = World::city().edit(|document| {
        document["listeners"][0]["tls"]["serverNames"] = json!(["*"]); // the corpus calls its server localhost:8080
        document["subsystems"][0]["path"] = json!("/");
        document["subsystems"][0]["otherCommands"] = json!("allow");
        let large = json!({ "id": "large", "match": { "method": "POST", "path": "/" }, "body": { "max": "2GiB" } });
        document["subsystems"][0]["commands"] = json!([large]); // its own limit would refuse before the framing
        document["grants"].as_array_mut().unwrap().truncate(1); // the commands of the other grants no longer exist
        document["capacity"] = json!({ "headTime": "2s", "idle": "500ms", "bodyIdle": "1s" });
    });
    plan.start_process().await
}

#[tokio::test]
async fn http11_corpus_gets_the_verdicts_that_http_allows() {
    let world = catch_all().await;
    let client = &world.client("traffic-police");
    let asked = corpus().into_iter().map(async |case| {
        let answer = ask(client, &case).await;
        (case, answer)
    });
    let asked: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(asked.len(), 143);

    let mut sums: BTreeMap<(&str, AllowedVerdict), usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for (case, answer) in &asked {
        world.log.note("traffic-police", answer.seen());
        let verdict = judge(case, answer);
        *sums.entry((&case.category, verdict)).or_default() += usize::from(case.scored);
        if verdict != AllowedVerdict::Pass {
            eprintln!("{verdict:?} {}: expected {}, got {:?}", case.id, case.expected, answer.status);
        }
        if verdict == AllowedVerdict::Fail && !MEANT.contains(&case.id.as_str()) {
            failed.push(format!("{}: expected {}, got {:?}", case.id, case.expected, answer.text));
        }
        let refused = answer.status.is_some_and(|status| status >= 400);
        assert!(!refused || answer.text.contains("x-request-id: "), "{}: {}", case.id, answer.text);
        assert!(!refused || answer.text.contains("application/problem+json"), "{}: {}", case.id, answer.text);
    }
    eprintln!("of those that are scored: {sums:?}");
    assert!(failed.is_empty(), "{}", failed.join("\n"));

    let whole = world.server("cameras").log.all().iter().filter(|got| is_whole(got)).count();
    let answered = asked.iter().filter(|(_, answer)| matches!(answer.status, Some(200..300))).count();
    assert_eq!(whole, answered, "a subsystem received a request whose caller got no response");
    world.close().await;
}

/// Returns whether all of a request has reached its subsystem.
fn is_whole(got: &crate::world::Received) -> bool {
    got.body.complete.load(std::sync::atomic::Ordering::Acquire)
}
