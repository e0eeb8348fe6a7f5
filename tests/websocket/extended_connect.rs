//! WebSocket over HTTP/2 by extended CONNECT (RFC 8441): which requests become a tunnel, and which do not. A tunnel is
//! one command among the other commands of its connection. The ends of tunnels are tested in `tunnel_close`.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::http1_upgrade::{LIVE, live_city, subsystem};
use crate::world::h2_frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, connect, fields, frame, frames_in, get, literal,
    open_http2, say,
};
use crate::world::{ANY_PORT, FragmentingStream, Plan, Seen, World, empty, listen, request, within};

/// An HTTP/2 caller that writes its frames itself.
pub struct H2Caller {
    stream: TlsStream<FragmentingStream>,
    received: Vec<u8>,
}

/// A received frame: kind, flags, stream, payload.
pub type ReceivedMessages<'a> = (u8, u8, u32, &'a [u8]);

impl H2Caller {
    pub async fn of(world: &World) -> Self {
        Self { stream: open_http2(world, &[]).await, received: Vec::new() }
    }

    pub async fn say(&mut self, frames: &[u8]) {
        say(&mut self.stream, frames).await.unwrap();
    }

    /// Reads until `look` finds a result in the received frames. Returns `None` if the gateway closes before.
    pub async fn try_hear<T>(&mut self, what: &str, look: impl Fn(&[ReceivedMessages<'_>]) -> Option<T>) -> Option<T> {
        within(what, async {
            loop {
                if let Some(found) = look(&frames_in(&self.received)) {
                    return Some(found);
                }
                if self.stream.read_buf(&mut self.received).await.is_ok_and(|read| read == 0) {
                    return None;
                }
            }
        })
        .await
    }

    pub async fn hear<T>(&mut self, what: &str, look: impl Fn(&[ReceivedMessages<'_>]) -> Option<T>) -> T {
        self.try_hear(what, look).await.unwrap_or_else(|| panic!("the connection was closed before {what}"))
    }

    /// Returns the head of a response. Its first byte is `:status` 200 (RFC 7541 appendix A).
    pub async fn head(&mut self, stream: u32) -> Vec<u8> {
        self.hear("a head", |frames| {
            frames.iter().find(|frame| (frame.0, frame.2) == (HEADERS, stream)).map(|frame| frame.3.to_vec())
        })
        .await
    }

    /// Waits for data that end with `end`.
    pub async fn data(&mut self, stream: u32, end: &[u8]) {
        self.hear("data", |frames| data_of(frames, stream).ends_with(end).then_some(())).await;
    }

    /// Returns the end of a stream: END_STREAM, or the code of its reset.
    pub async fn end(&mut self, stream: u32) -> Result<(), u32> {
        self.hear("the end of a stream", |frames| {
            frames.iter().filter(|frame| frame.2 == stream).find_map(|(kind, flags, _, payload)| match *kind {
                DATA | HEADERS if flags & END_STREAM != 0 => Some(Ok(())),
                RST_STREAM => Some(Err(u32::from_be_bytes((*payload).try_into().unwrap()))),
                _ => None,
            })
        })
        .await
    }
}

/// Returns all received data of a stream.
pub fn data_of(frames: &[ReceivedMessages<'_>], stream: u32) -> Vec<u8> {
    let data = frames.iter().filter(|frame| (frame.0, frame.2) == (DATA, stream)).map(|frame| frame.3);
    data.collect::<Vec<_>>().concat()
}

/// A subsystem that accepts the upgrade to the requested protocol. The test writes and reads its bytes.
pub struct UpgradingServer(TcpListener);

impl UpgradingServer {
    pub fn start() -> Self {
        Self(listen(ANY_PORT))
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Returns the head of the next request, and the connection.
    pub async fn asked(&self) -> (String, TcpStream) {
        let (mut stream, _) = within("a connection", self.0.accept()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(within("a head", stream.read_buf(&mut head)).await.unwrap() > 0, "closed");
        }
        (String::from_utf8(head).unwrap(), stream)
    }

    /// Accepts the upgrade of the next request.
    pub async fn switched(&self) -> (String, TcpStream) {
        let (head, mut stream) = self.asked().await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
                      Sec-WebSocket-Accept: whatever\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head, stream)
    }
}

/// Returns a message of a caller, masked with zeros (RFC 6455 section 5.2).
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    let mut message = vec![0x80 | kind];
    match length {
        0..=125 => message.push(0x80 | payload.len() as u8),
        _ => {
            message.push(0xff);
            message.extend(length.to_be_bytes());
        }
    }
    message.extend([0; 4]);
    message.extend(payload);
    message
}

#[tokio::test]
async fn websocket_over_http2_is_one_command_with_all_its_bytes() {
    let (process, port, _log) = subsystem();
    let mut world = live_city(port).await;
    let client = world.client("traffic-police").h2();
    assert_eq!(client.get("/cameras/still").await.status, 426);
    let (head, stream) = client.tunnel(LIVE).await;
    assert_eq!(head.status, 200);
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!head.headers.contains_key(gone), "{gone} in {head:?}");
    }
    assert_eq!(head.headers["x-request-id"].len(), 32);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let long = vec![7; 300_000];
    let messages = [message(1, b"one"), message(2, &long), message(1, b"leave")].concat();
    let length = [&[0x82, 127][..], &300_000_u64.to_be_bytes()].concat();
    let goodbye = b"\x88\x02\x03\xe8";
    let expected = [&b"\x81\x07welcome\x81\x03one"[..], &length, &long, goodbye].concat();
    let sending = async { say(&mut writer, &messages).await.unwrap() };
    let mut received = vec![0; expected.len()];
    let hearing = async { reader.read_exact(&mut received).await.unwrap() };
    within("the complete conversation", async { tokio::join!(sending, hearing) }).await;
    let answer = message(8, &goodbye[2..]);
    say(&mut writer, &answer).await.unwrap();
    within("the end", reader.read_to_end(&mut received)).await.unwrap();
    writer.shutdown().await.unwrap();
    assert!(received == expected, "{} bytes, {} expected", received.len(), expected.len());
    drop(process);
    world.note_foreign_server();
    let usage = world.usage_when("the tunnel is closed", |usage| usage.of("traffic-police", "ok") == 1).await;
    let counted = usage.admitted("traffic-police");
    assert_eq!(counted.request_bytes, (messages.len() + answer.len()) as u64);
    let still = counted.response_bytes - received.len() as u64;
    assert!(still < 200, "the response to the other command: {still} bytes");
    let usage = world.close().await;
    assert_eq!(usage.sum(|_| true), 2);
}

/// Returns the plan of a city whose subsystem listens on this port. The command at [`TALK`] permits the upgrade.
pub fn upgrading_city(port: u16) -> Plan {
    World::city().edit(move |document| {
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://127.0.0.1:{port}") }]);
        document["subsystems"][0]["commands"][1]["upgrade"] = json!("websocket");
    })
}

/// A path of the command that permits the upgrade.
pub const TALK: &str = "/cameras/v1/snapshots/1";

/// Starts a city whose subsystem is played by the test.
pub async fn tunnel_city(edit: impl FnOnce(&mut Value)) -> (World, UpgradingServer) {
    let upgrading = UpgradingServer::start();
    let mut world = upgrading_city(upgrading.port()).edit(edit).start_process().await;
    world.note_foreign_server();
    (world, upgrading)
}

#[tokio::test]
async fn subsystem_gets_an_upgrade_get_with_a_key_of_the_gateway() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    let more = [
        literal("sec-websocket-protocol", "chat"),
        literal("sec-websocket-key", "the caller's own"),
        literal("origin", "https://page.example"),
    ];
    caller.say(&connect(1, TALK, "WebSocket", &more.concat())).await;
    let (head, subsystem) = upgrading.switched().await;
    let lower = head.to_lowercase();
    assert!(lower.starts_with("get /v1/snapshots/1 http/1.1\r\n"), "{head}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat",
        "origin: https://page.example",
        "x-tallygate-department: traffic-police",
        "x-tallygate-command: cameras/snapshot.read",
    ] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    let keys: Vec<_> = lower.lines().filter(|line| line.starts_with("sec-websocket-key: ")).collect();
    assert!(keys.len() == 1 && keys[0].len() == 43 && keys[0].ends_with("w=="), "{head}");
    assert_eq!(caller.head(1).await[0], 0x88, "200");
    caller.say(&frame(DATA, END_STREAM, 1, b"")).await;
    drop(subsystem);
    assert_eq!(caller.end(1).await, Ok(()));
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
async fn invalid_tunnel_request_is_refused_and_its_connection_continues() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["commands"][1]["upgrade"] = json!("websocket");
        document["grants"][1]["commands"] = json!(["do"]);
    });
    let world = plan.start_process().await;
    let plain = [&[2, 7][..], b"CONNECT", &literal(":authority", "gateway.city.example:443")].concat();
    let grpc = literal("content-type", "application/grpc");
    for (frames, status, outcome) in [
        (connect(1, "/cameras/do/bytes-9", "websocket", &[]), 501, "malformed"), // the command permits no upgrade
        (connect(1, TALK, "connect-udp", &[]), 501, "malformed"),
        (connect(1, TALK, "connect-udp", &grpc), 501, "malformed"), // 200 would be a tunnel
        (connect(1, "/cameras/nothing", "websocket", &[]), 404, "unknown_command"),
        (connect(1, "/cameras//v1", "websocket", &[]), 400, "malformed"),
        (frame(HEADERS, END_HEADERS, 1, &plain), 501, "malformed"),
        // Permitted and requested, but the subsystem responds as to any GET.
        (connect(1, TALK, "websocket", &[]), 502, "upstream_failed"),
    ] {
        let mut caller = H2Caller::of(&world).await;
        caller.say(&[frames, frame(DATA, 0, 1, b"early")].concat()).await;
        let end = b"}";
        caller.data(1, end).await;
        let problem =
            caller.hear("a problem", |frames| serde_json::from_slice::<Value>(&data_of(frames, 1)).ok()).await;
        assert_eq!(
            (&problem["status"], &problem["type"]),
            (&json!(status), &json!(format!("urn:tallygate:problem:{outcome}")))
        );
        world.log.note("traffic-police", Seen::Outcome(outcome));
        caller.say(&get(3, TALK)).await;
        assert_eq!(caller.head(3).await[0], 0x88, "its connection stays open");
        caller.data(3, b"GET /v1/snapshots/1").await;
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    let mut caller = H2Caller { stream: world.client("logistics").h2().connect().await.unwrap(), received: Vec::new() };
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    caller.say(&[opening, connect(1, TALK, "websocket", &[])].concat()).await;
    let problem = caller.hear("a problem", |frames| serde_json::from_slice::<Value>(&data_of(frames, 1)).ok()).await;
    assert_eq!(problem["status"], 403);
    world.log.note("logistics", Seen::Outcome("forbidden"));
    let upgrading: Vec<_> =
        world.server("cameras").log.all().into_iter().filter(|seen| !seen.header("upgrade").is_empty()).collect();
    assert_eq!(upgrading.len(), 1, "one request reached the subsystem");
    world.close().await;
}

#[tokio::test]
async fn non_2xx_response_passes_unchanged() {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    let mut caller = H2Caller::of(&world).await;
    caller.say(&connect(1, TALK, "websocket", &[])).await;
    let (_, mut subsystem) = upgrading.asked().await;
    subsystem.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnot now").await.unwrap();
    caller.data(1, b"not now").await;
    assert_eq!(caller.head(1).await[0], 0x8d, "404");
    world.log.note("traffic-police", Seen::Outcome("client_error"));
    world.close().await;
}

#[tokio::test]
async fn only_http2_announces_extended_connect_and_only_with_connect() {
    let world = World::city().start_process().await;
    let mut caller = H2Caller::of(&world).await;
    let settings = |frames: &[ReceivedMessages<'_>]| {
        let settings = frames.iter().find(|frame| (frame.0, frame.1) == (SETTINGS, 0))?;
        Some(settings.3.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]))
    };
    assert!(caller.hear("the settings", settings).await, "RFC 8441 section 3");
    let odd = [fields(0x82, TALK), literal(":protocol", "websocket")].concat();
    caller.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &odd)).await;
    assert_eq!(caller.end(1).await, Err(1), "a stream error of type PROTOCOL_ERROR");
    world.log.note("traffic-police", Seen::Outcome("malformed"));
    let reply = world.client("traffic-police").try_send(request("CONNECT", TALK, empty())).await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 501));
    world.close().await;
}
