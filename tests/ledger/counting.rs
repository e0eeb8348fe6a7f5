//! Exact counting of commands that their caller or their subsystem ends at each phase: counted once, under the right
//! outcome, with the bytes that passed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tallygate::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{
    ANY_PORT, Client, IN_FLIGHT, READ, Reply, Seen, Usage, World, empty, fed, request, reserve_address, until, whole,
};

/// The behavior of a subsystem on every connection: reads a head, sends its text, and closes.
#[derive(Clone, Copy, Debug)]
struct ServerScript {
    reads: bool,
    says: &'static str,
    end: ScriptEnd,
}

#[derive(Clone, Copy, Debug)]
enum ScriptEnd {
    Politely,
    /// Closes with a RST instead of a FIN.
    Rudely,
    Never,
}

/// A subsystem that follows a [`ServerScript`], with its counters for the audit.
struct ScriptedServer {
    address: SocketAddr,
    heads: Arc<AtomicU64>,
}

impl ScriptedServer {
    async fn start(script: ServerScript) -> Self {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&server.heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script.run(stream, Arc::clone(&heads)));
            }
        });
        server
    }

    fn heads(&self) -> u64 {
        self.heads.load(Ordering::Acquire)
    }
}

impl ServerScript {
    async fn run(self, mut stream: TcpStream, heads: Arc<AtomicU64>) {
        while !self.reads || read_head(&mut stream).await {
            heads.fetch_add(u64::from(self.reads), Ordering::AcqRel);
            let _ = stream.write_all(self.says.as_bytes()).await;
            match self.end {
                ScriptEnd::Politely => return,
                ScriptEnd::Rudely => return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
                ScriptEnd::Never => {}
            }
        }
    }
}

/// Reads to the end of the next head, skipping the rest of an earlier body. Returns whether there was a head.
async fn read_head(stream: &mut TcpStream) -> bool {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return false,
            Ok(bytes) => seen.extend_from_slice(&piece[..bytes]),
        }
    }
    true
}

#[tokio::test]
async fn subsystem_that_leaves_is_counted_once_at_every_phase() {
    let whole_head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    let deeds = [
        ("before it reads", false, "", 0),
        ("after the request", true, "", 0),
        ("in the first line", true, "HTTP/1.1 20", 0),
        ("in the head", true, "HTTP/1.1 200 OK\r\nContent-Le", 0),
        ("after an interim answer", true, "HTTP/1.1 103 Early Hints\r\n\r\n", 0),
        ("after the head", true, whole_head, 0),
        ("in the body", true, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", 4),
        ("in a chunk", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf", 4),
        ("between chunks", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 4),
        ("before the last line", true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", 4),
    ];
    for (phase, reads, says, bytes) in deeds {
        for end in [ScriptEnd::Politely, ScriptEnd::Rudely] {
            let server = ScriptedServer::start(ServerScript { reads, says, end }).await;
            let mut world = World::city().cameras_at(server.address).start().await;
            for client in world.clients("traffic-police") {
                match client.try_send(request("GET", READ, empty())).await {
                    Ok(reply) => assert!(is_failure(&reply, reads), "{phase} {end:?}: {reply:?}"),
                    Err(_) => assert!(says.starts_with("HTTP/1.1 200 OK"), "{phase} {end:?}: no response"),
                }
            }
            world.note_foreign_server();
            let usage = world.close().await;
            let counted = usage.admitted("traffic-police");
            let failed = usage.of("traffic-police", "upstream_failed") + usage.of("traffic-police", "unreachable");
            assert_eq!((failed, counted.commands), (2, 2), "{phase} {end:?}");
            assert!(!reads || server.heads() == 2, "{phase} {end:?}: {} heads for two commands", server.heads());
            // A reset may overtake bytes that were sent before it.
            let exact = matches!(end, ScriptEnd::Politely);
            assert!(counted.response_bytes == 2 * bytes || !exact, "{phase}: {} bytes", counted.response_bytes);
        }
    }
}

/// Returns whether the response is a failure with the right name. A connection that ends before any byte was sent
/// counts as no connection; whether it ended that early depends on the network.
fn is_failure(reply: &Reply, was_read: bool) -> bool {
    let problem = reply.problem();
    problem.as_deref() == Some("upstream_failed") || !was_read && problem.as_deref() == Some("unreachable")
}

/// A command whose caller is going to leave: the caller resets the stream of a shared HTTP/2 connection, or closes the
/// connection.
async fn until_aborted(world: &World, client: Client, aborted: u64, before: impl AsyncFnOnce(&Client) -> Usage) {
    let usage = before(&client).await;
    assert_eq!(usage.of("traffic-police", "aborted"), aborted, "counted once: {usage:#?}");
    let reply = client.get(READ).await;
    assert_eq!(reply.status, 200, "a reset stream does not affect others");
    drop(client);
    let again = world.usage();
    assert_eq!(again.of("traffic-police", "aborted"), aborted, "counted only once");
}

#[tokio::test]
async fn caller_that_leaves_is_counted_once_at_every_phase() {
    let world = World::city().start().await;
    let mut aborted = 0;
    for client in world.clients("traffic-police") {
        aborted += 1;
        until_aborted(&world, client, aborted, async |client| {
            let log = &world.server("cameras").log;
            let before = log.all().len();
            let command = client.open(request("GET", "/cameras/do/never", empty()));
            tokio::select! {
                _ = command => panic!("a response to a cancelled command"),
                () = until("the command arrives", async || (log.all().len() > before).then_some(())) => {}
            }
            world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == aborted).await
        })
        .await;
    }
    for client in world.clients("traffic-police") {
        aborted += 1;
        until_aborted(&world, client, aborted, async |client| {
            let mut stream = client.open(request("GET", "/cameras/do/hold-x", empty())).await.unwrap();
            stream.next().await.unwrap().unwrap();
            drop(stream);
            world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == aborted).await
        })
        .await;
    }
    for client in world.clients("traffic-police") {
        aborted += 1;
        until_aborted(&world, client, aborted, async |client| {
            let (feed, body) = fed();
            feed.send(Ok("half".into())).unwrap();
            let log = &world.server("cameras").log;
            let before = log.all().len();
            let arrived = async || log.all().get(before).filter(|got| got.bytes() == 4).map(|_| ());
            tokio::select! {
                _ = client.open(request("POST", "/cameras/v1/snapshots", body)) => panic!("a response to a partial request"),
                () = until("half of the body arrives", arrived) => {}
            }
            world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == aborted).await
        })
        .await;
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "aborted"), 6);
    let counted = usage.admitted("traffic-police");
    assert_eq!(counted.request_bytes, 2 * 4, "uploaded bytes are counted, complete or not");
    assert_eq!(usage.of("traffic-police", "ok"), 6);
}

#[tokio::test]
async fn caller_that_leaves_during_the_upstream_connect_is_counted_once() {
    // The listener never accepts, and the queue of the listening socket is full: a dial neither succeeds nor fails.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&ANY_PORT.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    for _ in 0..8 {
        queued.push(tokio::spawn(TcpStream::connect(address)));
    }
    let mut world = World::city().cameras_at(address).start().await;
    for (n, client) in world.clients("traffic-police").into_iter().enumerate() {
        let command = tokio::spawn(async move { client.get(READ).await.status });
        let in_flight = async || (world.metrics().await.sum(IN_FLIGHT) == 1).then_some(());
        until("the command is in flight", in_flight).await;
        command.abort();
        let aborted = n as u64 + 1;
        world.usage_when("the command is settled", |usage| usage.of("traffic-police", "aborted") == aborted).await;
    }
    queued.iter().for_each(tokio::task::JoinHandle::abort);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.admitted("traffic-police").commands, 2);
}

#[tokio::test]
async fn response_read_to_its_end_is_ok_however_its_connection_ends() {
    let mut world = World::city().start().await;
    for _ in 0..10 {
        let client = world.client("traffic-police");
        let mut tls = client.connect().await.unwrap();
        let head = format!("GET {READ} HTTP/1.1\r\nHost: {}\r\n\r\n", crate::world::GATEWAY);
        tls.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"GET /v1/snapshots/1") {
            let mut piece = [0; 1024];
            let bytes = tls.read(&mut piece).await.unwrap();
            assert!(bytes > 0, "truncated: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..bytes]);
        }
        let (tcp, _) = tls.get_ref();
        socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 10);
}

#[tokio::test]
async fn interim_responses_and_expectations_are_no_commands() {
    let says = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                HTTP/1.1 204 No Content\r\n\r\n";
    let server = ScriptedServer::start(ServerScript { reads: true, says, end: ScriptEnd::Never }).await;
    let mut world = World::city().cameras_at(server.address).start().await;
    for client in world.clients("traffic-police") {
        let mut expecting = request("POST", "/cameras/v1/snapshots", whole("12345"));
        expecting.headers_mut().insert("expect", "100-continue".parse().unwrap());
        assert_eq!(client.send(expecting).await.status, 204);
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
    assert_eq!(server.heads(), 2);
}

#[tokio::test]
async fn head_request_is_a_command_without_response_bytes() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let reply = client.send(request("HEAD", "/cameras/do/bytes-4096", empty())).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
    assert_eq!(usage.admitted("traffic-police").response_bytes, 0);
}

#[tokio::test]
async fn failed_connect_that_is_retried_elsewhere_is_one_command() {
    let unused_address = reserve_address();
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{unused_address}") }, first]);
        document["subsystems"][0]["balance"] = json!("roundRobin");
    });
    let world = plan.start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..10 {
            assert_eq!(client.post("/cameras/v1/snapshots", "12345").await.status, 200);
        }
    }
    let usage = world.close().await;
    let counted = usage.admitted("traffic-police");
    assert_eq!(
        (counted.commands, counted.units, counted.request_bytes),
        (20, 20, 100),
        "bytes are counted once as well"
    );
}

#[tokio::test]
async fn long_stream_is_visible_while_in_flight_and_ends_in_its_present_hour() {
    let clock = Clock::manual("2026-10-31T12:10:00Z".parse().unwrap());
    let world = World::city().clock(clock.clone()).start().await;
    let (feed, body) = fed();
    let client = world.client("traffic-police");
    let upload = tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
    let in_flight = async |column: &str| {
        let book = rusqlite::Connection::open(world.book()).unwrap();
        book.query_row(&format!("SELECT sum({column}) FROM in_flight_hourly"), [], |row| row.get::<_, Option<i64>>(0))
    };
    for hour in 0..4 {
        feed.send(Ok("piece".into())).unwrap();
        let bytes = 5 * (hour + 1);
        until("the bytes so far are in the book", async || {
            (in_flight("request_bytes").await == Ok(Some(bytes))).then_some(())
        })
        .await;
        assert_eq!(
            world.metrics().await.sum("tallygate_request_bytes_total"),
            bytes,
            "the value is in /metrics as well"
        );
        clock.advance(Duration::from_secs(3600));
        let seconds = 3600 * (hour + 1);
        until("the time so far is in the book", async || {
            (in_flight("duration_ns").await == Ok(Some(seconds * 1_000_000_000))).then_some(())
        })
        .await;
    }
    drop(feed);
    assert_eq!(upload.await.unwrap(), 200);
    let usage = world
        .close_into(|folder| {
            let book = rusqlite::Connection::open(folder.join("data/ledger.db")).unwrap();
            let query = "SELECT late, \"window\" - late FROM usage WHERE commands = 1";
            let (late, of): (i64, i64) = book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(of, 498_180, "the late end refers to the hour of its admission");
            assert!(
                (3..=4).contains(&late),
                "{late} hours late: a worker changes its hour once the last one is sealed"
            );
        })
        .await;
    assert_eq!(usage.admitted("traffic-police").request_bytes, 20);
}
