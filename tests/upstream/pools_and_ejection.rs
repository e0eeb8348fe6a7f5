//! Connection pools, load balancing (least requests), outlier ejection and upstream timeouts: subsystems that are slow,
//! down or broken, or have several servers.

use serde_json::{Value, json};

use crate::world::{
    ANY_PORT, GATEWAY, READ, Seen, Server, World, canned_server, empty, fed, request, reserve_address, until,
};

#[tokio::test]
async fn upstream_connections_are_reused() {
    let world = World::city().start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2(), world.client("logistics")] {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let log = &world.server("cameras").log;
    assert_eq!(log.all().len(), 60);
    assert!(log.connections() <= 2, "{} connections for sequential commands", log.connections());
    world.close().await;
}

#[tokio::test]
async fn subsystem_may_close_its_connection_after_a_response() {
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
async fn stopped_subsystem_is_unreachable() {
    let unused_address = reserve_address();
    let world = World::city().cameras_at(unused_address);
    let world = world.start().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("unreachable")));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

#[tokio::test]
async fn subsystem_that_breaks_before_its_response_has_failed() {
    let mut world = World::city().start().await;
    for client in world.clients("traffic-police") {
        for method in ["POST", "DELETE", "GET"] {
            assert_eq!(client.get(READ).await.status, 200, "this command leaves a kept connection");
            let reply = client.send(request(method, "/cameras/do/cut", empty())).await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")));
        }
    }
    let log = world.server("cameras").log.all();
    let cut = |method| log.iter().filter(|got| got.path.contains("cut") && got.method == method).count();
    assert_eq!((cut("POST"), cut("DELETE")), (2, 2), "an unsafe request that was sent is not sent again");
    assert_eq!(cut("GET"), 4, "a safe request is sent again once, on a new connection");
    world.note_sent_again(2);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 6);
}

#[tokio::test]
async fn response_truncated_by_the_subsystem_never_looks_complete_to_the_caller() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let mut stream = client.open(request("GET", "/cameras/do/break-1000", empty())).await.unwrap();
        assert_eq!(stream.status, 200);
        assert!(stream.read_to_end().await.is_err());
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 2);
}

#[tokio::test]
async fn subsystem_that_does_not_answer_in_time_is_a_timeout() {
    let quick =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "200ms", "idle": "200ms" });
    let world = World::city().edit(quick).start().await;
    let client = world.client("traffic-police");
    let reply = client.get("/cameras/do/never").await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
    let mut stream = client.open(request("GET", "/cameras/do/hold-for-ever", empty())).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
    assert!(stream.read_to_end().await.is_err(), "silence within a body ends the response");
    let log = &world.server("cameras").log;
    let first = log.all()[0].clone();
    until("the request is cancelled", async || {
        first.cancelled.load(std::sync::atomic::Ordering::Acquire).then_some(())
    })
    .await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "timeout"), 2);
}

#[tokio::test]
async fn response_timeout_starts_at_the_last_byte_of_the_request() {
    let quick =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "600ms", "idle": "5s" });
    let world = World::city().edit(quick).start().await;
    let (feed, body) = fed();
    let client = world.client("traffic-police");
    let answer = tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(200)); // a slow caller is under test
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
    until("all four commands are queued", async || (one.log.all().len() + two.log.all().len() == 4).then_some(()))
        .await;
    assert_eq!((one.log.all().len(), two.log.all().len()), (2, 2));
    one.release("all");
    two.release("all");
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 200);
    }
    world.close().await;
}

#[tokio::test]
async fn unreachable_server_is_skipped_without_loss() {
    let unused_address = reserve_address();
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{unused_address}") }, first]);
    });
    let world = plan.start().await;
    let client = world.client("traffic-police");
    for n in 0..20 {
        let reply = client.get(READ).await;
        assert_eq!(reply.status, 200, "command {n}: after a failed connect another server is tried");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 20);
}

#[tokio::test]
async fn repeatedly_failing_server_is_ejected_for_a_time() {
    let hangs_up = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
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
    assert!((1..=15).contains(&failed), "{failed} of 40 commands reached the failing server: {statuses:?}");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok") + usage.of("traffic-police", "upstream_failed"), 40);
}

#[tokio::test]
async fn recovered_subsystem_is_used_again() {
    let mut world = World::city().start().await;
    let client = world.client("traffic-police");
    let server = world.remove_server("cameras");
    let address = server.address;
    drop(server);
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"));
    world.add_server("cameras", Server::start_at(address));
    until("the subsystem is reachable again", async || (client.get(READ).await.status == 200).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn restarted_subsystem_costs_no_command() {
    let mut world = World::city().start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200, "this command leaves a kept connection");
    let server = world.remove_server("cameras");
    let (address, before) = (server.address, server.log.all().len());
    drop(server);
    world.add_server("cameras", Server::start_at(address));
    assert_eq!(client.get(READ).await.status, 200, "no byte was sent on the closed connection, so another one is used");
    assert_eq!((before, world.server("cameras").log.all().len()), (1, 1));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn early_hints_do_not_end_a_command() {
    let address = canned_server(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter",
    )
    .await;
    let plan = World::city().cameras_at(address);
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        let reply = client.get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "after"));
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn malformed_response_is_a_failure_of_the_subsystem() {
    for answer in [
        "this is not HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let address = canned_server(answer).await;
        let plan = World::city().cameras_at(address);
        let mut world = plan.start().await;
        let reply = world.client("traffic-police").get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("upstream_failed")), "{answer:?}");
        world.note_foreign_server();
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "upstream_failed"), 1);
    }
}

#[tokio::test]
async fn body_that_ends_with_its_connection_is_complete() {
    let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 16 * 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end").unwrap();
    });
    let plan = World::city().cameras_at(address);
    let mut world = plan.start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.text(), "until the end");
    server.join().unwrap();
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 1);
}

#[tokio::test]
async fn refused_response_is_counted_and_logged_with_its_reason() {
    for (answer, why) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding",
        ),
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n", "folded"),
        ("HTTP/1.1 200 OK\r\nX: \u{1}\r\nContent-Length: 0\r\n\r\n", "control character"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "and Content-Length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk"), // a broken body
    ] {
        let address = canned_server(answer).await;
        let plan = World::city().cameras_at(address);
        let mut world = plan.start_process().await;
        let client = world.client("traffic-police");
        for _ in 0..3 {
            match client.try_send(request("GET", READ, empty())).await {
                Ok(reply) => {
                    assert_eq!(reply.problem().as_deref(), Some("upstream_failed"), "{why}");
                    assert!(
                        reply.json()["detail"].as_str().unwrap().contains("not valid HTTP"),
                        "{why}: {}",
                        reply.text()
                    );
                }
                Err(_) => assert_eq!(why, "chunk", "the response head was valid"),
            }
        }
        let metrics = world.metrics().await;
        let of = |reason| metrics.value("tallygate_upstream_failures_total", &[("reason", reason)]);
        assert_eq!((of("malformed_answer"), of("reset")), (Some(3.0), Some(0.0)), "{why}");
        let log = world.log_of_process();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("not valid HTTP")).collect();
        assert!((1..=3).contains(&lines.len()), "{log}");
        for part in [why, "cameras", &address.to_string(), "WARN", "suppressed"] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        world.note_foreign_server();
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "upstream_failed"), 3);
    }
}

#[tokio::test]
async fn status_without_a_registered_name_gets_no_reason_phrase() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = canned_server("HTTP/1.1 999 Strange\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await;
    let plan = World::city().cameras_at(address);
    let mut world = plan.start().await;
    world.log.note("traffic-police", Seen::Outcome("server_error"));
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    let ask = format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert!(received.starts_with("HTTP/1.1 999 \r\n"), "{received}");
    assert_eq!(world.client("traffic-police").h2().get(READ).await.status, 999);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "server_error"), 2);
}

#[tokio::test]
async fn every_ejection_and_return_of_a_server_is_logged_once() {
    let world = World::city().edit(|document| document["shutdown"] = json!({ "delay": "1ms", "grace": "1s" }));
    let world = world.start_process().await;
    let client = world.client("traffic-police");
    for _ in 0..12 {
        assert_eq!(client.get("/cameras/do/status-503").await.status, 503);
    }
    let out = |log: &str| log.lines().filter(|line| line.contains("a server is out of rotation")).count();
    let log = until("the ejection is in the log", async || {
        Some(world.log_of_process()).filter(|log| out(log) > 0) // a thread of its own writes the log
    })
    .await;
    assert_eq!(out(&log), 1, "the server was restored although it still fails: {log}");
    let line = log.lines().find(|line| line.contains("out of rotation")).unwrap().to_owned();
    let address = world.server("cameras").address.to_string();
    for part in ["WARN", "cameras", &address, "in_a_row=5", "5xx", "seconds=10"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(client.get(READ).await.status, 200, "it is the only server, so it is tried (panic mode)");
    world.close().await;
}
