//! Refusals: one shape for every reason (RFC 9457 problem details), always with the request's id, always counted.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Client, GATEWAY, Reply, Seen, World, empty, request, reserve_address, whole, within};

/// Requires the shape of RFC 9457 that the contract specifies.
fn is_problem(reply: &Reply, status: u16, name: &str) {
    assert_eq!(reply.status.as_u16(), status, "{name}");
    assert_eq!(reply.header("content-type"), "application/problem+json", "{name}");
    let problem = reply.json();
    assert!(problem["type"].as_str().unwrap().ends_with(name), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["instance"], reply.header("x-request-id"), "{problem}");
    for words in ["title", "detail"] {
        assert!(!problem[words].as_str().unwrap().is_empty(), "{problem}");
    }
    assert_eq!(!reply.header("retry-after").is_empty(), matches!(status, 429 | 503), "{name}: {:?}", reply.headers);
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let unused_address = reserve_address();
    let plan = World::city().subsystem("ruin").grant("traffic-police", "ruin", &["*"]).edit(|document| {
        document["subsystems"][1]["upstreams"] = json!([{ "url": format!("http://{unused_address}") }]);
        document["subsystems"][0]["timeouts"]["response"] = json!("200ms");
        document["subsystems"][0]["commands"][0]["limits"] = json!({ "rate": "1/h", "burst": 1 });
        document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "16B" });
        document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional");
    });
    let world = plan.start().await;
    for http2 in [false, true] {
        let speak = |client: Client| if http2 { client.h2() } else { client };
        let police = speak(world.client("traffic-police"));
        is_problem(&speak(world.client_with("unknown", None)).get("/").await, 401, "unauthenticated");
        is_problem(&speak(world.client("archive")).get("/cameras/v1/snapshots/1").await, 403, "forbidden");
        is_problem(&police.get("/nowhere").await, 404, "unknown_command");
        is_problem(&police.get("/cameras/v1/../v1/snapshots/1").await, 400, "malformed");
        is_problem(&police.get("/cameras/do/cut").await, 502, "upstream_failed");
        is_problem(&police.get("/ruin/v1/snapshots/1").await, 502, "unreachable");
        is_problem(&police.get("/cameras/do/never").await, 504, "timeout");
    }
    let police = world.client("traffic-police").h2();
    let large = request("POST", "/cameras/v1/snapshots", whole("seventeen letters"));
    is_problem(&police.send(large).await, 413, "too_large");
    assert_eq!(police.post("/cameras/v1/snapshots", "x").await.status, 200);
    is_problem(&police.post("/cameras/v1/snapshots", "x").await, 429, "rate_limited");
    world.close().await;
}

#[tokio::test]
async fn refused_command_is_never_billed() {
    let world = World::city().start().await;
    for _ in 0..10 {
        assert_eq!(world.client("archive").get("/cameras/do/bytes-10").await.status, 403);
    }
    let usage = world.close().await;
    let sums: Vec<_> = usage.0.iter().filter(|(key, _)| key.department == "archive").collect();
    assert_eq!(sums.len(), 1);
    let (key, count) = sums[0];
    assert_eq!((key.outcome.as_str(), count.commands, count.units), ("forbidden", 10, 0));
    assert_eq!((count.request_bytes, count.response_bytes), (0, 0));
}

/// Sends raw bytes, and reads until the connection ends.
async fn send_malformed(client: &Client, bytes: &str) -> String {
    let mut stream = client.connect().await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the response to the malformed head", stream.read_to_end(&mut answer)).await; // a reset is an end, too
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn malformed_head_is_answered_with_400_and_not_forwarded() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    let mut odd = Vec::new();
    for head in [
        "GET /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: {host}\r\nBad Header: x\r\n",
        "GET /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n",
        "GET /cameras/v1/snapshots/1 HTTP/1.1\r\n",
        "GET /cameras/%2e%2e/secret HTTP/1.1\r\nHost: {host}\r\n",
        "GET /cameras//v1/snapshots/1 HTTP/1.1\r\nHost: {host}\r\n",
        "POST /cameras/v1/snapshots HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
        "POST /cameras/v1/snapshots HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n",
        "TRACE /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: {host}\r\n",
        "GET /cameras/v1/snapshots/1 HTTP/1.1\r\nHost: {host}\r\nx_tallygate_department: mayor\r\n",
    ] {
        world.log.note("traffic-police", Seen::Outcome("malformed"));
        let head = format!("{}Connection: close\r\n\r\n", head.replace("{host}", GATEWAY));
        let answer = send_malformed(&client, &head).await;
        let status = if head.starts_with("TRACE") { "501" } else { "400" };
        if !answer.starts_with(&format!("HTTP/1.1 {status}")) {
            odd.push(format!("{head:?} was answered {answer:?}"));
        }
    }
    assert!(odd.is_empty(), "{}", odd.join("\n"));
    assert!(world.server("cameras").log.all().is_empty());
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "malformed"), usage.sum(|_| true)), (9, 9));
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    world.log.note("traffic-police", Seen::Outcome("malformed"));
    let smuggled = format!(
        "POST /cameras/v1/snapshots HTTP/1.1\r\nHost: {GATEWAY}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /cameras/v1/snapshots/smuggled HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n"
    );
    let answer = send_malformed(&client, &smuggled).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn head_over_the_capacity_is_refused() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    let mut large = request("GET", "/cameras/v1/snapshots/1", empty());
    large.headers_mut().insert("x-large", "x".repeat(64 * 1024).parse().unwrap());
    let status = client.try_send(large).await.map(|reply| reply.status.as_u16());
    assert!(matches!(status, Ok(431 | 400) | Err(_)), "{status:?}");
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn caller_of_a_disabled_department_is_refused_with_its_reason() {
    let plan = World::city().edit(|document| {
        document["departments"][1]["disabled"] = json!(true);
        document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional");
    });
    let world = plan.start().await;
    for (client, word) in
        [(world.client("logistics"), "disabled"), (world.client_with("unknown", None), "no client certificate")]
    {
        let reply = client.get("/cameras/v1/snapshots/1").await;
        is_problem(&reply, 401, "unauthenticated");
        assert!(reply.json()["detail"].as_str().unwrap().contains(word), "{}", reply.json());
    }
    world.close().await;
}

#[tokio::test]
async fn callers_request_id_is_forwarded_under_another_name() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        for (given, kept) in [("Root=1-67891233/abc+d==", true), ("two words", false)] {
            let mut outgoing = request("GET", "/cameras/v1/snapshots/1", empty());
            outgoing.headers_mut().insert("x-request-id", given.parse().unwrap());
            outgoing.headers_mut().insert("x-tallygate-caller-request-id", "forged".parse().unwrap());
            let reply = client.send(outgoing).await;
            let got = world.server("cameras").log.all().pop().unwrap();
            assert_eq!(got.header("x-tallygate-caller-request-id"), if kept { given } else { "" });
            assert_eq!(got.header("x-request-id"), reply.header("x-request-id"));
            assert_ne!(got.header("x-request-id"), given);
        }
    }
    world.close().await;
}

#[tokio::test]
async fn framework_identity_headers_are_removed_by_the_documented_configuration() {
    let page = include_str!("../../docs/http.md");
    let (_, section) = page.split_once("## Names that some frameworks believe").unwrap();
    let (_, list) = section.split_once("    remove:\n").unwrap();
    let names =
        list.lines().map_while(|line| line.trim().strip_prefix("- ")).map(|line| line.split(' ').next().unwrap());
    let names: Vec<&str> = names.collect();
    assert!(names.contains(&"X-Original-URL") && names.len() > 12, "{names:?}");
    let removed = json!({ "request": { "remove": names } });
    let world = World::city().edit(move |document| document["subsystems"][0]["headers"] = removed).start().await;
    let mut outgoing = request("GET", "/cameras/v1/snapshots/1", empty());
    for name in &names {
        outgoing.headers_mut().insert(name.parse::<http::HeaderName>().unwrap(), "forged".parse().unwrap());
    }
    assert_eq!(world.client("traffic-police").send(outgoing).await.status, 200);
    let got = world.server("cameras").log.only();
    assert!(!got.headers.values().any(|value| value == "forged"), "{got:?}");
    world.close().await;
}
