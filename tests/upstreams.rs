//! Subsystems that are slow, down, breaking or several: pools, balance, ejection, timeouts.

use serde_json::{Value, json};

use crate::world::{Server, World, empty, fed, free_address, request, until};

const READ: &str = "/cameras/v1/snapshots/1";

fn upstreams(addresses: &[std::net::SocketAddr]) -> Value {
    addresses.iter().map(|address| json!({ "url": format!("http://{address}") })).collect()
}

#[tokio::test]
async fn connections_to_a_subsystem_are_kept_and_used_again() {
    let world = World::city().start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2(), world.client("logistics")] {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let log = &world.server("cameras").log;
    assert_eq!(log.all().len(), 60);
    assert!(log.connections() <= 2, "{} connections for commands one after the other", log.connections());
    world.close().await;
}

#[tokio::test]
async fn a_subsystem_may_close_its_connection_after_an_answer() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for _ in 0..10 {
        assert_eq!(client.get("/cameras/do/last").await.status, 200);
        assert_eq!(client.get(READ).await.status, 200);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 20);
}

#[tokio::test]
async fn a_subsystem_that_is_down_is_unreachable() {
    let nobody = free_address();
    let world = World::city().edit(|document| document["subsystems"][0]["upstreams"] = upstreams(&[nobody]));
    let world = world.start().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("unreachable")));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

#[tokio::test]
async fn a_subsystem_that_breaks_before_its_answer_has_failed() {
    let world = World::city().start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        assert_eq!(client.get(READ).await.status, 200, "so that a kept connection is at hand");
        let reply = client.get("/cameras/do/cut").await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")));
    }
    let cut = world.server("cameras").log.all().iter().filter(|got| got.path.contains("cut")).count();
    assert_eq!(cut, 2, "what was sent is never sent again");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 2);
}

#[tokio::test]
async fn a_subsystem_that_breaks_mid_answer_never_looks_whole_to_the_caller() {
    let world = World::city().start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        let mut stream = client.open(request("GET", "/cameras/do/break-1000", empty())).await.unwrap();
        assert_eq!(stream.status, 200);
        assert!(stream.read_to_end().await.is_err());
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 2);
}

#[tokio::test]
async fn a_subsystem_that_does_not_answer_in_time_is_a_timeout() {
    let quick =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "200ms", "idle": "200ms" });
    let world = World::city().edit(quick).start().await;
    let client = world.client("traffic-police");
    let reply = client.get("/cameras/do/never").await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
    let mut stream = client.open(request("GET", "/cameras/do/hold-for-ever", empty())).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
    assert!(stream.read_to_end().await.is_err(), "silence in the middle of a body ends it");
    let log = &world.server("cameras").log;
    let first = log.all()[0].clone();
    until("the work is cancelled", async || first.cancelled.load(std::sync::atomic::Ordering::Acquire).then_some(()))
        .await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "timeout"), 2);
}

#[tokio::test]
async fn the_answers_patience_counts_from_the_last_piece_of_the_request() {
    let quick =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "600ms", "idle": "5s" });
    let world = World::city().edit(quick).start().await;
    let (feed, body) = fed();
    let client = world.client("traffic-police");
    let answer = tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(200)); // a slow caller is what is tested here
    for _ in 0..6 {
        pace.tick().await;
        feed.send(Ok("piece".into())).unwrap();
    }
    drop(feed);
    assert_eq!(answer.await.unwrap(), 200);
    world.close().await;
}

#[tokio::test]
async fn commands_go_to_the_least_busy_server() {
    let second = Server::start();
    let mut plan = World::city();
    plan = plan.edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([first, { "url": format!("http://{}", second.address) }]);
        document["subsystems"][0]["balance"] = json!("leastRequest");
    });
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = world.client("traffic-police");
            tokio::spawn(async move { client.get("/cameras/do/wait-all").await.status })
        })
        .collect();
    let (one, two) = (world.server("cameras"), world.server("cameras-2"));
    until("all four wait", async || (one.log.all().len() + two.log.all().len() == 4).then_some(())).await;
    assert_eq!((one.log.all().len(), two.log.all().len()), (2, 2));
    one.release("all");
    two.release("all");
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 200);
    }
    world.close().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over_and_nothing_is_lost() {
    let nobody = free_address();
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{nobody}") }, first]);
    });
    let world = plan.start().await;
    let client = world.client("traffic-police");
    for n in 0..20 {
        let reply = client.get(READ).await;
        assert_eq!(reply.status, 200, "command {n}: a dial that failed sent nothing and is tried elsewhere");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 20);
}

#[tokio::test]
async fn a_server_that_fails_again_and_again_is_left_out_for_a_while() {
    let hangs_up = tokio::net::TcpListener::bind(free_address()).await.unwrap();
    let address = hangs_up.local_addr().unwrap();
    tokio::spawn(async move { while hangs_up.accept().await.is_ok() {} });
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([first, { "url": format!("http://{address}") }]);
        document["subsystems"][0]["balance"] = json!("roundRobin");
    });
    let world = plan.start().await;
    let client = world.client("traffic-police");
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(client.get(READ).await.status.as_u16());
    }
    let failed = statuses.iter().filter(|status| **status != 200).count();
    assert!((1..=15).contains(&failed), "{failed} of 40 commands met the bad server: {statuses:?}");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok") + usage.of("traffic-police", "upstream_failed"), 40);
}

#[tokio::test]
async fn a_subsystem_that_comes_back_is_found_again() {
    let mut world = World::city().start().await;
    let client = world.client("traffic-police");
    let server = world.remove_server("cameras");
    let address = server.address;
    drop(server);
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"));
    world.add_server("cameras", Server::start_at(address));
    until("the subsystem is found again", async || (client.get(READ).await.status == 200).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn a_subsystem_that_restarts_costs_no_command() {
    let mut world = World::city().start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200, "so that a kept connection is at hand");
    let server = world.remove_server("cameras");
    let (address, before) = (server.address, server.log.all().len());
    drop(server);
    world.add_server("cameras", Server::start_at(address));
    assert_eq!(client.get(READ).await.status, 200, "nothing was sent on the dead connection, so another one is used");
    assert_eq!((before, world.server("cameras").log.all().len()), (1, 1));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

/// A subsystem that answers every connection with the same bytes, whatever it is asked.
async fn canned(answer: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(free_address()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16 * 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn early_hints_do_not_end_a_command() {
    let address = canned(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter",
    )
    .await;
    let plan = World::city().edit(|document| document["subsystems"][0]["upstreams"] = upstreams(&[address]));
    let mut world = plan.start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        let reply = client.get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "after"));
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failure_of_the_subsystem() {
    for answer in [
        "this is not HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let address = canned(answer).await;
        let plan = World::city().edit(|document| document["subsystems"][0]["upstreams"] = upstreams(&[address]));
        let mut world = plan.start().await;
        let reply = world.client("traffic-police").get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")), "{answer:?}");
        world.note_foreign_server();
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "upstream_failed"), 1);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole() {
    let listener = std::net::TcpListener::bind(free_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 16 * 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end").unwrap();
    });
    let plan = World::city().edit(|document| document["subsystems"][0]["upstreams"] = upstreams(&[address]));
    let mut world = plan.start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.text(), "until the end");
    server.join().unwrap();
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 1);
}
