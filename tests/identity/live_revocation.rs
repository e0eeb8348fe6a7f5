//! Live revocation: a caller that loses its permission is no longer served, also on connections that are already open.
//! Causes: revoked certificates (CRL), removed authorities, removed departments.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tallygate::clock::Clock;
use tokio::io::AsyncReadExt as _;

use crate::world::{
    Client, Leaf, Pki, Plan, READ, Reply, Stream, World, empty, fed, let_time_pass, request, until, within,
};

fn with_lists(document: &mut Value) {
    document["listeners"][0]["tls"]["clientAuth"]["revocation"] = json!(["pki/revoked.crl"]);
}

fn city() -> Plan {
    World::city().edit(with_lists).with_pki(|pki| pki.revoke(&[]))
}

/// The change that ends the permission of the department `traffic-police`, and of no other department.
enum ConnectionEnd {
    Revoked,
    AuthorityGone,
    Removed,
    Disabled,
}

impl ConnectionEnd {
    async fn apply(&self, world: &mut World) {
        match self {
            Self::Revoked => {
                world.pki.revoke(&[world.identity("traffic-police")]);
                world.reload(|_| ()).await;
            }
            Self::AuthorityGone => {
                Pki::new(&world.folder().join("pki"), "other");
                let others = json!({ "mode": "required", "authorities": ["pki/other.pem"] });
                world.reload(|document| document["listeners"][0]["tls"]["clientAuth"] = others).await;
            }
            Self::Removed => {
                world
                    .reload(|document| {
                        for list in ["departments", "grants"] {
                            document[list].as_array_mut().unwrap().remove(0);
                        }
                    })
                    .await;
            }
            Self::Disabled => world.reload(|document| document["departments"][0]["disabled"] = json!(true)).await,
        }
    }
}

async fn clients_of_both_protocols(world: &World, department: &str) -> [Client; 2] {
    let clients = [world.client(department), world.client(department).h2()];
    for client in &clients {
        assert_eq!(client.get(READ).await.status, 200);
    }
    clients
}

#[tokio::test]
async fn next_command_of_a_removed_caller_is_refused_or_finds_a_closed_connection() {
    for end in [ConnectionEnd::Revoked, ConnectionEnd::AuthorityGone, ConnectionEnd::Removed, ConnectionEnd::Disabled] {
        let mut world = city().start().await;
        let clients = clients_of_both_protocols(&world, "traffic-police").await;
        let before = world.server("cameras").log.all().len();
        end.apply(&mut world).await;
        for client in &clients {
            // Either the command or the GOAWAY comes first. Over HTTP/1.1 the client may dial again.
            if let Ok(reply) = client.try_send(request("GET", READ, empty())).await {
                assert_eq!(reply.problem().as_deref(), Some("unauthenticated"));
            }
        }
        assert_eq!(world.server("cameras").log.all().len(), before, "nothing was forwarded");
        world.close().await;
    }
}

/// Sends commands until one is refused. Returns `None` if the connection was closed between two commands.
async fn until_refused(client: &Client) -> Option<Reply> {
    loop {
        match client.try_send(request("GET", READ, empty())).await {
            Ok(reply) if reply.status == 200 => {}
            Ok(refused) => return Some(refused),
            Err(_) => return None,
        }
    }
}

#[tokio::test]
async fn command_before_the_goaway_is_refused_with_connection_close() {
    for http2 in [false, true] {
        let mut world = city().start().await;
        let busy = (0..4).map(|_| world.client("traffic-police"));
        let busy: Vec<_> = busy.map(|client| if http2 { client.h2() } else { client }).collect();
        let busy: Vec<_> =
            busy.into_iter().map(|client| tokio::spawn(async move { until_refused(&client).await })).collect();
        let log = world.server("cameras").log.clone();
        until("all callers are busy", async || (log.all().len() > 100).then_some(())).await;
        ConnectionEnd::Revoked.apply(&mut world).await;
        let mut refused = 0;
        for caller in busy {
            let Some(reply) = within("the end", caller).await.unwrap() else { continue };
            assert_eq!(reply.problem().as_deref(), Some("unauthenticated"));
            assert_eq!(reply.header("connection"), if http2 { "" } else { "close" });
            refused += 1;
        }
        assert!(refused > 0, "a busy caller gets a refusal before its connection is closed");
        until("all connections are closed", async || {
            (world.metrics().await.sum("tallygate_connections_open") == 0).then_some(())
        })
        .await;
        world.close().await;
    }
}

/// Waits until the caller's next command is refused, or its connection accepts no command.
async fn until_closed_or_refused(client: &Client) {
    until("GOAWAY, or a refusal", async || {
        let again = client.try_send(request("GET", READ, empty())).await;
        again.map_or(Some(()), |reply| (reply.problem().as_deref() == Some("unauthenticated")).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn commands_admitted_before_a_department_was_disabled_finish_and_no_others_are_admitted() {
    let mut world = city().start().await;
    let client = world.client("traffic-police").h2();
    let mut held = client.open(request("GET", "/cameras/do/hold-last", empty())).await.unwrap();
    assert_eq!(held.next().await.unwrap().unwrap(), "first ");
    ConnectionEnd::Disabled.apply(&mut world).await;
    until_closed_or_refused(&client).await;
    world.server("cameras").release("last");
    assert_eq!(held.whole().await.text(), "first last");
    assert_eq!(world.server("cameras").log.all().len(), 1);
    world.close().await;
}

/// A command without an end on each protocol: a download, or an upload.
struct Endless {
    answers: Vec<Stream>,
    uploads: Vec<tokio::task::JoinHandle<()>>,
    feeds: Vec<tokio::sync::mpsc::UnboundedSender<std::io::Result<bytes::Bytes>>>,
}

impl Endless {
    async fn begin(clients: [Client; 4], world: &World) -> Self {
        let mut endless = Self { answers: Vec::new(), uploads: Vec::new(), feeds: Vec::new() };
        for (n, client) in clients.into_iter().enumerate() {
            if n % 2 == 0 {
                let mut answer = client.open(request("GET", "/cameras/do/hold-for-ever", empty())).await.unwrap();
                assert_eq!(answer.next().await.unwrap().unwrap(), "first ");
                endless.answers.push(answer);
            } else {
                let (feed, body) = fed();
                feed.send(Ok("half".into())).unwrap();
                endless.feeds.push(feed);
                endless.uploads.push(tokio::spawn(async move {
                    let answer = client.try_send(request("POST", "/cameras/v1/snapshots", body)).await;
                    assert!(answer.map_or(true, |reply| reply.status != 200));
                }));
            }
        }
        let log = &world.server("cameras").log;
        until("all commands are in flight", async || {
            (log.all().iter().filter(|got| got.bytes() == 4).count() == 2).then_some(())
        })
        .await;
        endless
    }

    /// Waits until all commands have ended, each with the outcome of a caller that left.
    async fn end(mut self, world: &World) {
        for answer in &mut self.answers {
            assert!(answer.read_to_end().await.is_err(), "the response is aborted and does not look complete");
        }
        for upload in self.uploads {
            within("the end of an upload", upload).await.unwrap();
        }
        world.usage_when("all commands are settled", |usage| usage.sum(|key| key.outcome == "aborted") == 4).await;
        let uploads = world.server("cameras").log.all();
        let whole = uploads.iter().filter(|got| got.method == "POST" && got.body.complete.load(Ordering::Acquire));
        assert_eq!(whole.count(), 0, "no upload looks complete");
    }
}

fn four(world: &World, department: &str) -> [Client; 4] {
    let of = || world.client(department);
    [of(), of(), of().h2(), of().h2()]
}

#[tokio::test]
async fn commands_in_flight_of_an_untrusted_caller_end_within_a_second() {
    for protocol in ["http1", "http2"] {
        for end in [ConnectionEnd::Revoked, ConnectionEnd::AuthorityGone] {
            let plan = city().edit(|document| document["subsystems"][0]["protocol"] = json!(protocol));
            let mut world = plan.start().await; // its grace is ten seconds
            let endless = Endless::begin(four(&world, "traffic-police"), &world).await;
            end.apply(&mut world).await;
            let began = std::time::Instant::now();
            endless.end(&world).await;
            assert!(
                began.elapsed().as_secs() < 5,
                "{:?}: at least half of the grace, on a busy machine",
                began.elapsed()
            );
            let again = world.client("traffic-police").h2().try_send(request("GET", READ, empty())).await;
            assert!(again.is_err(), "a new connection is refused");
            let usage = world.close().await;
            assert_eq!(usage.of("traffic-police", "aborted"), 4);
        }
    }
}

fn short_grace(document: &mut Value) {
    document["shutdown"] = json!({ "delay": "1ms", "grace": "700ms" });
}

#[tokio::test]
async fn commands_in_flight_of_a_disabled_department_end_within_the_grace() {
    for end in [ConnectionEnd::Disabled, ConnectionEnd::Removed] {
        let mut world = city().edit(short_grace).start().await;
        let endless = Endless::begin(four(&world, "traffic-police"), &world).await;
        let began = std::time::Instant::now();
        end.apply(&mut world).await;
        endless.end(&world).await;
        assert!(began.elapsed().as_millis() >= 700, "it ended before its grace: {:?}", began.elapsed());
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "aborted"), 4);
    }
}

#[tokio::test]
async fn commands_in_flight_end_within_the_grace_after_certificate_expiry() {
    let clock = Clock::manual("2030-12-31T23:30:00Z".parse().unwrap());
    let world = city().edit(short_grace).clock(clock).start().await;
    let ends = world.pki.issue(&Leaf::department("traffic-police").valid(2020, 2031));
    let of = || world.client_with("traffic-police", Some(ends.clone()));
    let endless = Endless::begin([of(), of(), of().h2(), of().h2()], &world).await;
    world.clock.advance(std::time::Duration::from_secs(3_600));
    endless.end(&world).await;
    world.close().await;
}

#[tokio::test]
async fn commands_in_flight_continue_once_their_department_is_enabled_again() {
    let grace = json!({ "delay": "1ms", "grace": "3s" });
    let mut world = city().edit(|document| document["shutdown"] = grace).start().await;
    let client = world.client("traffic-police").h2();
    let mut held = client.open(request("GET", "/cameras/do/hold-last", empty())).await.unwrap();
    assert_eq!(held.next().await.unwrap().unwrap(), "first ");
    world.reload(|document| document["departments"][0]["disabled"] = json!(true)).await;
    until_closed_or_refused(&client).await;
    world.reload(|document| document["departments"][0]["disabled"] = json!(false)).await;
    let_time_pass(std::time::Duration::from_millis(3500)).await; // longer than the grace
    world.server("cameras").release("last");
    assert_eq!(held.whole().await.text(), "first last");
    world.close().await;
}

#[tokio::test]
async fn idle_connections_are_closed_too() {
    for end in [ConnectionEnd::Revoked, ConnectionEnd::AuthorityGone, ConnectionEnd::Removed, ConnectionEnd::Disabled] {
        let mut world = city().start().await;
        let clients = world.clients("traffic-police");
        let mut silent = Vec::new();
        for client in &clients {
            silent.push(client.connect().await.unwrap());
        }
        until("both commands are admitted", async || {
            (world.metrics().await.sum("tallygate_connections_open") == 2).then_some(())
        })
        .await;
        end.apply(&mut world).await;
        for mut stream in silent {
            let mut rest = Vec::new();
            let end = within("the end of a silent connection", stream.read_to_end(&mut rest)).await;
            assert!(end.is_err() || !rest.starts_with(b"HTTP"), "expected end of stream or GOAWAY: {rest:?}");
        }
        until("no connection is left", async || {
            (world.metrics().await.sum("tallygate_connections_open") == 0).then_some(())
        })
        .await;
        world.close().await;
    }
}

#[tokio::test]
async fn expired_certificate_ends_its_connections_without_a_reload() {
    let clock = Clock::manual("2030-12-31T23:30:00Z".parse().unwrap());
    let world = city().clock(clock).start().await;
    let ends = world.pki.issue(&Leaf::department("traffic-police").valid(2020, 2031));
    let short = [world.client_with("unknown", Some(ends.clone())), world.client_with("unknown", Some(ends)).h2()];
    let mut silent = Vec::new();
    for client in &short {
        silent.push(client.connect().await.unwrap());
    }
    let long = world.client("traffic-police").h2();
    assert_eq!(long.get(READ).await.status, 200);
    assert_eq!(world.metrics().await.sum("tallygate_connections_open"), 3);
    world.clock.advance(std::time::Duration::from_secs(3_600));
    until("connections of expired certificates are closed", async || {
        (world.metrics().await.sum("tallygate_connections_open") == 1).then_some(())
    })
    .await;
    assert_eq!(long.get(READ).await.status, 200);
    assert_eq!(world.metrics().await.sum("tallygate_connections_accepted_total"), 3, "on the same connection");
    world.close().await;
}

#[tokio::test]
async fn other_connections_are_unaffected() {
    let mut world = city().start().await;
    let others = clients_of_both_protocols(&world, "logistics").await;
    let gone = clients_of_both_protocols(&world, "traffic-police").await;
    let accepted = async |world: &World| world.metrics().await.sum("tallygate_connections_accepted_total");
    assert_eq!(accepted(&world).await, 4);
    ConnectionEnd::Revoked.apply(&mut world).await;
    until("connections of revoked certificates are closed", async || {
        (world.metrics().await.sum("tallygate_connections_open") == 2).then_some(())
    })
    .await;
    for client in &others {
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert_eq!(accepted(&world).await, 4, "on the same connections");
    drop(gone);
    world.close().await;
}

#[tokio::test]
async fn reenabled_department_is_served_again() {
    let mut world = World::city().edit(|document| document["departments"][0]["disabled"] = json!(true)).start().await;
    let refused = world.client("traffic-police").get(READ).await;
    assert_eq!(refused.problem().as_deref(), Some("unauthenticated"));
    world.reload(|document| document["departments"][0]["disabled"] = json!(false)).await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}
