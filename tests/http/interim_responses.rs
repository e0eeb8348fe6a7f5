//! Interim responses (1xx, RFC 9110 section 15.2): which of them reach the caller, over which HTTP version, and how
//! many.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;

use crate::world::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PADDED, RST_STREAM, WITH_PRIORITY, fields, frame,
    frames_in, literal, open_http2, say,
};
use crate::world::raw_h2_server::StreamServer;
use crate::world::{
    ANY_PORT, FragmentingStream, GATEWAY, Plan, Process, READ, Seen, World, canned_server, pause_as_slow_client,
    reserve_address, run, stdout, tool, until, within,
};

const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter";

/// A server that sends the text that the test gives it, piece by piece, in response to every request.
async fn scripted_server() -> (SocketAddr, mpsc::UnboundedSender<String>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, (tell, mut read_frames)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel::<String>());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(piece) = read_frames.recv().await {
            if piece.is_empty() {
                let mut received = Vec::new();
                while !received.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut received).await.unwrap();
                }
            }
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
    });
    (address, tell)
}

fn cameras_at(address: SocketAddr) -> Plan {
    World::city().cameras_at(address).edit(|document| {
        document["subsystems"][0]["commands"][1]["headers"] = json!({ "response": { "remove": ["x-inner"] } });
    })
}

async fn ask(stream: &mut TlsStream<FragmentingStream>, version: &str, more: &str) {
    let head = format!("GET {READ} {version}\r\nHost: {GATEWAY}\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads until the received text ends with `end`.
async fn read_until(stream: &mut TlsStream<FragmentingStream>, end: &str) -> String {
    let mut received = Vec::new();
    while !received.ends_with(end.as_bytes()) {
        let count = within(end, stream.read_buf(&mut received)).await.unwrap();
        assert!(count > 0, "the stream ended before {end:?}: {}", String::from_utf8_lossy(&received));
    }
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn early_hints_arrive_before_the_final_response() {
    let (address, tell) = scripted_server().await;
    let mut world = cameras_at(address).start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    for n in 1..=2 {
        world.log.note("traffic-police", Seen::Open);
        ask(&mut stream, "HTTP/1.1", "").await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                     X-Request-Id: forged\r\nX-Inner: 1\r\nLink: </b.css>\r\n\r\n";
        tell.send(String::new()).unwrap();
        tell.send(hints.to_owned()).unwrap();
        let received = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(received, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n", "{n}");
        tell.send("HTTP/1.1 102 Processing\r\n\r\n".to_owned()).unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 102 Processing\r\n\r\n");
        tell.send(FINAL.to_owned()).unwrap();
        let last = read_until(&mut stream, "after").await;
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    }
    drop(stream);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.admitted("traffic-police").response_bytes), (2, 10));
}

#[tokio::test]
async fn concurrent_interim_responses_are_in_order_and_100_is_not_forwarded() {
    let says = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 199 Odd\r\nX: 1\r\n\r\n";
    let address = canned_server(format!("{says}{FINAL}")).await;
    let mut world = cameras_at(address).start().await;
    world.log.note("traffic-police", Seen::Open);
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    ask(&mut stream, "HTTP/1.1", "").await;
    let received = read_until(&mut stream, "after").await;
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 199 \r\nx: 1\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(received.starts_with(interim), "{received}");
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn curl_gets_early_hints_over_http_1_1_and_http_2_and_only_the_response_over_http_1_0() {
    let address = canned_server(format!("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n{FINAL}")).await;
    let mut world = cameras_at(address).start().await;
    let identity = world.identity("traffic-police").clone();
    for (version, hinted) in [(&["--http1.1"][..], true), (&["--http1.0", "--no-alpn"], false), (&["--http2"], true)] {
        let mut curl = tool("curl");
        curl.args(version).args(["-s", "-i", "--cacert"]).arg(world.pki.authority_file());
        curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
        let port = world.gateway_address().port();
        curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{GATEWAY}:{port}{READ}"));
        world.log.note("traffic-police", Seen::Open);
        let output = run(curl).await;
        let printed = stdout(&output);
        assert!(printed.ends_with("after"), "{version:?}: {printed}");
        assert_eq!(printed.contains(" 103 "), hinted, "{version:?}: {printed}");
        assert_eq!(printed.contains("</a.css>"), hinted, "{version:?}: {printed}");
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 3);
}

#[tokio::test]
async fn interim_responses_are_bounded_in_number_and_bytes() {
    let hint = |bytes: usize| format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(bytes));
    // At most 64 KiB of large interim responses are queued. The number that passes depends on the caller's reading
    // speed.
    for (interim, status, passed) in [
        (hint(1).repeat(16), " 200 ", 16..=16),
        (hint(1).repeat(17), " 502 ", 16..=16),
        (hint(30_000).repeat(5), " 200 ", 1..=5),
    ] {
        let address = canned_server(format!("{interim}{FINAL}")).await;
        let mut world = cameras_at(address).start().await;
        world.log.note("traffic-police", Seen::Open);
        let mut stream = world.client("traffic-police").connect().await.unwrap();
        ask(&mut stream, "HTTP/1.1", "Connection: close\r\n").await;
        let mut received = String::new();
        within("the end", stream.read_to_string(&mut received)).await.unwrap();
        assert!(received.contains(status), "{received}");
        let count = received.matches("HTTP/1.1 103 ").count();
        assert!(passed.contains(&count), "{count} were forwarded");
        world.note_foreign_server();
        world.close().await;
    }
}

#[tokio::test]
async fn pipelining_caller_that_reads_late_gets_all_responses_in_order() {
    let address = {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let body = "y".repeat(200_000);
                    let answer = format!(
                        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{body}"
                    );
                    while stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        address
    };
    let mut world = cameras_at(address).start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    for n in 0..8 {
        world.log.note("traffic-police", Seen::Open);
        ask(&mut stream, "HTTP/1.1", if n == 7 { "Connection: close\r\n" } else { "" }).await;
    }
    pause_as_slow_client(Duration::from_millis(300)).await; // interim responses queue up
    let mut received = String::new();
    within("the end", stream.read_to_string(&mut received)).await.unwrap();
    let heads: Vec<_> = received.match_indices("HTTP/1.1 ").map(|(at, _)| &received[at + 9..at + 12]).collect();
    assert_eq!(heads, ["103", "200"].repeat(8));
    for piece in received.split("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").skip(1) {
        let (head, body) = piece.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && body.len() == 200_000, "{head}: {}", body.len());
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 8);
}

/// A server that responds to each request with a hint. The hint names the end of the path. The final response follows
/// on a signal.
struct Hinting {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    go: watch::Sender<bool>,
}

impl Hinting {
    async fn start(go: bool) -> Self {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let (address, heads, (go, going)) =
            (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default(), watch::channel(go));
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hint_on(stream, going.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, heads, go }
    }
}

async fn hint_on(
    mut stream: TcpStream,
    mut going: watch::Receiver<bool>,
    seen: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8(head).unwrap();
        let name = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        seen.lock().unwrap().push(head);
        stream.write_all(format!("HTTP/1.1 103 Early Hints\r\nLink: <{name}>\r\n\r\n").as_bytes()).await?;
        let _ = going.wait_for(|go| *go).await;
        let length = name.len();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes()).await?;
    }
}

fn path(name: impl std::fmt::Display) -> String {
    format!("/cameras/v1/snapshots/{name}")
}

/// Returns a request for [`path`] with more fields.
fn get_with(stream: u32, name: &str, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &[fields(GET, &path(name)), more.to_vec()].concat())
}

/// Returns a field of a given length, at least some thousand bytes.
fn long_literal(name: &str, bytes: usize) -> Vec<u8> {
    let value = bytes - name.len() - 5;
    let rest = value - 0x7f; // RFC 7541 section 5.1
    let length = [0x7f, u8::try_from(rest & 0x7f).unwrap() | 0x80, u8::try_from(rest >> 7).unwrap()];
    [&[0, u8::try_from(name.len()).unwrap()], name.as_bytes(), &length, &vec![b'x'; value]].concat()
}

/// A received frame: kind, flags, stream, payload.
type Came = (u8, u8, u32, Vec<u8>);

/// Reads frames until there are enough.
async fn read_frames(
    stream: &mut TlsStream<FragmentingStream>,
    received: &mut Vec<u8>,
    is_enough: impl Fn(&[Came]) -> bool,
) -> Vec<Came> {
    loop {
        let came: Vec<_> =
            frames_in(received).into_iter().map(|(a, b, c, payload)| (a, b, c, payload.to_vec())).collect();
        if is_enough(&came) {
            return came;
        }
        let count = within("frames", stream.read_buf(received)).await.unwrap();
        assert!(count > 0, "the stream ended with {came:?}");
    }
}

/// Returns the streams that received a hint, and the name in the hint.
fn hints(came: &[Came]) -> Vec<(u32, String)> {
    let heads = came.iter().filter(|(kind, .., block)| *kind == HEADERS && block.starts_with(b"\x08\x03103"));
    heads
        .map(|(_, flags, stream, block)| {
            assert_eq!(*flags, END_HEADERS, "the frame does not end its stream");
            let value = block.split(|byte| *byte == b'<').nth(1).unwrap().split(|byte| *byte == b'>').next().unwrap();
            (*stream, String::from_utf8(value.to_vec()).unwrap())
        })
        .collect()
}

/// Returns the number of streams that have ended with a response.
fn answered(came: &[Came]) -> usize {
    came.iter().filter(|(kind, flags, ..)| *kind <= HEADERS && flags & END_STREAM > 0).count()
}

#[tokio::test]
async fn caller_cannot_get_the_hints_of_one_stream_on_another() {
    let hinting = Hinting::start(false).await;
    let mut world = cameras_at(hinting.address).start().await;
    let (mut stream, mut received) = (open_http2(&world, &[]).await, Vec::new());
    let forged = |number| [literal("proxy-authenticate", number), literal("proxy-authenticate", number)].concat();
    for (number, name, more) in [(1, "one", forged("5")), (3, "three", forged("1")), (5, "five", Vec::new())] {
        world.log.note("traffic-police", Seen::Open);
        say(&mut stream, &get_with(number, name, &more)).await.unwrap();
    }
    let mut got = hints(&read_frames(&mut stream, &mut received, |came| hints(came).len() == 3).await);
    got.sort_unstable();
    assert_eq!(got, [(1, "one".to_owned()), (3, "three".to_owned()), (5, "five".to_owned())]);
    hinting.go.send_replace(true);
    let came = read_frames(&mut stream, &mut received, |came| answered(came) == 3).await;
    assert_eq!(hints(&came).len(), 3);
    for number in [1, 3, 5] {
        let heads: Vec<_> = came.iter().filter(|(kind, _, on, _)| *kind == HEADERS && *on == number).collect();
        assert!(heads.len() == 2 && heads[0].3.starts_with(b"\x08\x03103"), "{heads:?}");
    }
    // A frame of the largest size has no room for a stream number. The number that its caller claims is not trusted,
    // and later numbers of the connection are not trusted either.
    let others = fields(GET, &path("large")).len() + forged("9").len();
    let large = [long_literal("x-fill", 16 * 1024 - 4 - others), forged("9")].concat();
    for (number, name, more) in [(7, "large", large), (9, "nine", Vec::new())] {
        world.log.note("traffic-police", Seen::Open);
        say(&mut stream, &get_with(number, name, &more)).await.unwrap();
    }
    let came = read_frames(&mut stream, &mut received, |came| answered(came) == 5).await;
    assert_eq!(hints(&came).len(), 3, "the last two streams have no hint");
    let heads = hinting.heads.lock().unwrap().clone();
    assert!(
        heads.len() == 5 && heads.iter().all(|head| !head.to_lowercase().contains("proxy-authenticate")),
        "{heads:?}"
    );
    drop(stream);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 5);
}

#[tokio::test]
async fn heads_in_several_frames_with_padding_and_priority_get_their_hints() {
    let hinting = Hinting::start(true).await;
    let mut world = cameras_at(hinting.address).start().await;
    let (mut stream, mut received) = (open_http2(&world, &[]).await, Vec::new());
    let block = |name: &str| fields(GET, &path(name));
    let padded = [&[7][..], &[0, 0, 0, 0, 15], &block("one"), &[0; 7]].concat();
    let three = block("three");
    let sent = [
        frame(HEADERS, END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, 1, &padded),
        frame(HEADERS, END_STREAM, 3, &three[..9]),
        frame(CONTINUATION, 0, 3, &three[9..12]),
        frame(CONTINUATION, END_HEADERS, 3, &three[12..]),
    ]
    .concat();
    (0..2).for_each(|_| world.log.note("traffic-police", Seen::Open));
    for piece in sent.chunks(5) {
        say(&mut stream, piece).await.unwrap();
    }
    let came = read_frames(&mut stream, &mut received, |came| answered(came) == 2).await;
    let mut got = hints(&came);
    got.sort_unstable();
    assert_eq!(got, [(1, "one".to_owned()), (3, "three".to_owned())]);
    drop(stream);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn smaller_header_table_is_acknowledged_before_any_hint() {
    let hinting = Hinting::start(true).await;
    let mut world = cameras_at(hinting.address).start().await;
    let (mut stream, mut received) = (open_http2(&world, &[0, 1, 0, 0, 0, 0]).await, Vec::new());
    for (number, name) in [(1, "one"), (3, "three")] {
        world.log.note("traffic-police", Seen::Open);
        say(&mut stream, &get_with(number, name, &[])).await.unwrap();
        read_frames(&mut stream, &mut received, |came| answered(came) == number.div_ceil(2) as usize).await;
    }
    let came = read_frames(&mut stream, &mut received, |_| true).await;
    let heads: Vec<_> = came.iter().filter(|(kind, ..)| *kind == HEADERS).collect();
    assert_eq!(heads[0].3[0], 0x20, "the first header block begins with the new table size");
    assert_eq!(hints(&came), [(3, "three".to_owned())]);
    drop(stream);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn each_of_many_streams_gets_its_own_hint_while_others_are_reset() {
    let hinting = Hinting::start(true).await;
    let mut world = cameras_at(hinting.address).start().await;
    let stream = world.client("traffic-police").h2().connect().await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for round in 0..5 {
        let mut asked = Vec::new();
        for n in 0..60 {
            world.log.note("traffic-police", Seen::Open);
            let name = format!("r{round}n{n}");
            let uri = format!("https://{GATEWAY}{}", path(&name));
            let request = http::Request::get(uri).body(()).unwrap();
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, mut body) = sender.send_request(request, true).unwrap();
            match n % 6 {
                0 => body.send_reset(h2::Reason::CANCEL),
                _ => asked.push((name, answer)),
            }
            if n % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for (name, mut answer) in asked {
            let hint = within("a hint", poll_fn(|context| answer.poll_informational(context))).await.unwrap().unwrap();
            assert_eq!(
                (hint.status().as_u16(), hint.headers()["link"].to_str().unwrap()),
                (103, &*format!("<{name}>"))
            );
            let mut answer = within("the answer", answer).await.unwrap();
            let body = within("its body", answer.body_mut().data()).await.unwrap().unwrap();
            assert_eq!((answer.status().as_u16(), &body[..]), (200, name.as_bytes()));
        }
    }
    drop(sender);
    world.note_foreign_server();
    let usage = world.close().await;
    assert!(usage.of("traffic-police", "ok") >= 250, "{usage:?}");
}

#[tokio::test]
async fn no_frame_is_written_on_a_stream_after_its_caller_has_reset_it() {
    let hinting = Hinting::start(true).await;
    let mut world = cameras_at(hinting.address).start().await;
    let (mut stream, mut received) = (open_http2(&world, &[]).await, Vec::new());
    let reset = |number| frame(RST_STREAM, 0, number, &8_u32.to_be_bytes());
    for number in (1..40).step_by(4) {
        (0..2).for_each(|_| world.log.note("traffic-police", Seen::Open));
        let [gone, next] = [number, number + 2].map(|number| get_with(number, &number.to_string(), &[]));
        say(&mut stream, &[gone, reset(number), next].concat()).await.unwrap();
        read_frames(&mut stream, &mut received, |came| hints(came).iter().any(|(on, _)| *on == number + 2)).await;
    }
    let came = read_frames(&mut stream, &mut received, |came| answered(came) == 10).await;
    assert!(hints(&came).iter().all(|(on, name)| on % 4 == 3 && *name == on.to_string()), "{came:?}");
    drop(stream);
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn interim_responses_over_http_2_are_bounded_in_number_and_bytes() {
    let hint = |bytes: usize| format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(bytes));
    for (interim, status, passed) in [
        (hint(1).repeat(16), 0x88, 16..=16),
        (hint(1).repeat(17), 0x48, 16..=16),   // 502
        (hint(20_000).repeat(3), 0x88, 0..=0), // larger than a frame
        (hint(15_000).repeat(9), 0x88, 1..=9), // the number that fits depends on the reading speed
    ] {
        let address = canned_server(format!("{interim}{FINAL}")).await;
        let mut world = cameras_at(address).start().await;
        world.log.note("traffic-police", Seen::Open);
        let (mut stream, mut received) = (open_http2(&world, &[]).await, Vec::new());
        say(&mut stream, &get_with(1, "1", &[])).await.unwrap();
        let came = read_frames(&mut stream, &mut received, |came| answered(came) == 1).await;
        let last = came.iter().rfind(|(kind, ..)| *kind == HEADERS).unwrap();
        assert_eq!(last.3[0], status, "{last:?}");
        let count = hints(&came).len();
        assert!(passed.contains(&count), "{count} were forwarded");
        drop(stream);
        world.note_foreign_server();
        world.close().await;
    }
}

/// Returns curl's output for one command over this version of HTTP.
async fn curl(world: &World, version: &str) -> String {
    let identity = world.identity("traffic-police").clone();
    let mut curl = tool("curl");
    curl.args([version, "-s", "-i", "--cacert"]).arg(world.pki.authority_file());
    curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
    let port = world.gateway_address().port();
    curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{GATEWAY}:{port}{READ}"));
    world.log.note("traffic-police", Seen::Open);
    stdout(&run(curl).await)
}

/// Returns a response head over HTTP/2, with a status that is not in the static table.
fn answer_head(stream: u32, flags: u8, status: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let block = [&[8, 3][..], status.as_bytes(), &more.concat()].concat();
    frame(HEADERS, END_HEADERS | flags, stream, &block)
}

/// Returns a city of a foreign server that uses HTTP/2.
#[tokio::test]
async fn hints_of_node_over_http_2_reach_curl_over_both_versions() {
    const SERVER: &str = "require('http2').createServer().on('stream', (s, h) => { \
        s.additionalHeaders({ ':status': 103, link: '</a.css>' }); s.additionalHeaders({ ':status': 102 }); \
        s.respond({ ':status': 200 }); s.end('after') }).listen(Number(process.argv[1]), '127.0.0.1')";
    let address = reserve_address();
    let mut node = tool("node");
    node.args(["-e", SERVER]).arg(address.port().to_string()).stdout(Stdio::null());
    let node = Process::spawn(&mut node);
    until("Node listens", async || TcpStream::connect(address).await.ok()).await;
    let mut world = World::city().cameras_at(address).http2_cameras().start().await;
    for version in ["--http1.1", "--http2"] {
        let printed = curl(&world, version).await;
        let statuses = printed.lines().filter(|line| line.starts_with("HTTP/")).map(|line| &line[line.len() - 4..]);
        assert_eq!(printed.matches("link: </a.css>").count(), 1, "{version}: {printed}");
        assert_eq!(statuses.count(), 3, "{version}: {printed}");
        let [hint, processing, last] = [" 103 ", " 102 ", " 200 "].map(|status| printed.find(status).unwrap());
        assert!(hint < processing && processing < last && printed.ends_with("after"), "{version}: {printed}");
    }
    drop(node);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn interim_responses_of_http_2_subsystems_are_bounded_and_have_no_reserved_fields() {
    fn hints(stream: u32, count: usize) -> Vec<Vec<u8>> {
        let more = [literal("link", "</a.css>"), literal("x-request-id", "forged"), literal("ratelimit", "forged")];
        let mut all = vec![answer_head(stream, 0, "103", &more).repeat(count)];
        all.push([answer_head(stream, 0, "200", &[]), frame(DATA, END_STREAM, stream, b"after")].concat());
        all
    }
    for (answering, status) in
        [((|stream| hints(stream, 16)) as fn(u32) -> Vec<Vec<u8>>, " 200 "), (|stream| hints(stream, 17), " 502 ")]
    {
        let server = StreamServer::start(answering, Duration::ZERO);
        let mut world = server.in_a_city().start().await;
        for version in ["--http1.1", "--http2"] {
            let printed = curl(&world, version).await;
            assert_eq!(printed.matches(" 103 ").count(), 16, "{version}: {printed}");
            assert!(printed.contains(status) && !printed.contains("forged"), "{version}: {printed}");
        }
        world.note_foreign_server();
        world.close().await;
    }
}

#[tokio::test]
async fn stream_reset_after_a_hint_is_a_502_after_the_hint() {
    fn answering(stream: u32) -> Vec<Vec<u8>> {
        let hint = answer_head(stream, 0, "103", &[literal("link", "</a.css>")]);
        vec![[hint, frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes())].concat()]
    }
    let server = StreamServer::start(answering, Duration::ZERO);
    let mut world = server.in_a_city().start().await;
    for version in ["--http1.1", "--http2"] {
        let printed = curl(&world, version).await;
        assert!(printed.contains(" 103 ") && printed.contains(" 502 "), "{version}: {printed}");
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 2);
}
