//! Listeners of plain HTTP, and callers without a certificate: they belong to the department that claims the listener,
//! and to none without such a claim.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{ANY_PORT, GATEWAY, Plan, Seen, World, run, stderr, stdout, tool, within};

const READ: &str = "/cameras/v1/snapshots/1";

/// A city with a second listener, `web`, of plain HTTP. If `claimed`, the department `public` has its callers, and may
/// read.
fn city_with_plain_listener(claimed: bool) -> Plan {
    let plan = World::city().edit(|document| {
        let web = json!({ "name": "web", "protocol": "http", "address": ANY_PORT.to_string() });
        document["listeners"].as_array_mut().unwrap().push(web);
    });
    if !claimed {
        return plan;
    }
    let plan = plan.edit(|document| add_public(document, "web"));
    plan.grant("public", "cameras", &["snapshot.read"])
}

fn add_public(document: &mut Value, listener: &str) {
    let public = json!({ "id": "public", "callers": [{ "listener": listener }] });
    document["departments"].as_array_mut().unwrap().push(public);
}

fn web_address(world: &World) -> SocketAddr {
    world.running().listener("web").unwrap()
}

/// The status and the body of one response that curl received.
async fn curl_status(world: &World, flags: &[&str], path: &str) -> String {
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]).args(flags);
    curl.arg(format!("http://{}{path}", web_address(world)));
    let ended = run(curl).await;
    let shown = stdout(&ended);
    assert!(!shown.is_empty(), "{}", stderr(&ended));
    shown
}

#[tokio::test]
async fn callers_without_a_certificate_belong_to_the_department_that_claims_the_listener() {
    let world = city_with_plain_listener(true).start().await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        assert_eq!(curl_status(&world, &[flag], READ).await, format!("{version} 200"));
        world.log.note("public", Seen::Outcome("ok"));
        assert_eq!(curl_status(&world, &[flag, "--data", ""], "/cameras/v1/snapshots").await, format!("{version} 403"));
        world.log.note("public", Seen::Outcome("forbidden"));
    }
    let received = world.server("cameras").log.all();
    for request in &received {
        let names = ["x-tallygate-department", "x-forwarded-proto", "x-tallygate-caller"];
        assert_eq!(names.map(|name| request.header(name)), ["public", "http", ""]);
    }
    assert_eq!(received.len(), 2);
    let usage = world.close().await;
    assert_eq!((usage.of("public", "ok"), usage.of("public", "forbidden")), (2, 2));
}

#[tokio::test]
async fn a_plain_listener_that_no_department_claims_refuses_every_command() {
    let world = city_with_plain_listener(false).start().await;
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        assert!(curl_status(&world, &[flag], READ).await.ends_with(" 401"));
        world.log.note("unknown", Seen::Outcome("unauthenticated"));
    }
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn the_claim_of_a_plain_listener_does_not_reach_callers_of_other_listeners() {
    let world = city_with_plain_listener(true)
        .edit(|document| document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional"))
        .start()
        .await;
    let stranger = world.client_with("unknown", None);
    assert_eq!(stranger.get(READ).await.status, 401);
    assert_eq!(world.client("logistics").get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn an_optional_tls_listener_may_have_a_department_for_callers_without_a_certificate() {
    let plan = World::city().edit(|document| {
        document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional");
        add_public(document, "departments");
    });
    let mut world = plan.grant("public", "cameras", &["snapshot.read"]).start().await;
    let anonymous = world.client_with("public", None);
    assert_eq!(anonymous.get(READ).await.status, 200);
    let unclaimed = world.pki.issue(&crate::world::Leaf::department("stranger"));
    let stranger = world.client_with("unknown", Some(unclaimed));
    assert_eq!(stranger.get(READ).await.status, 401, "an unknown certificate is not the same as none");
    world.reload(|document| document["departments"][3]["disabled"] = json!(true)).await;
    let after = world.client_with("unknown", None);
    assert_eq!(after.get(READ).await.status, 401);
    world.close().await;
}

#[tokio::test]
async fn smuggling_is_refused_on_plain_listeners_too() {
    let world = city_with_plain_listener(true).start().await;
    for (head, statuses) in [
        (
            format!(
                "GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
            ),
            "400",
        ),
        ("PRI * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400"),
        (format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n"), "200"),
    ] {
        let mut stream = TcpStream::connect(web_address(&world)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        within("the end of the connection", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {statuses}")), "{head:?}: {response}");
        world.log.note("public", Seen::Outcome(if statuses == "200" { "ok" } else { "malformed" }));
    }
    world.close().await;
}

#[tokio::test]
async fn a_plain_listener_reads_the_proxy_header_and_drains() {
    let mut world = city_with_plain_listener(true)
        .edit(|document| document["listeners"][1]["proxyProtocol"] = json!(["127.0.0.1"]))
        .start()
        .await;
    let mut stream = TcpStream::connect(web_address(&world)).await.unwrap();
    let head = format!(
        "PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\nGET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    within("the end of the connection", stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    world.log.note("public", Seen::Outcome("ok"));
    assert_eq!(world.server("cameras").log.all()[0].header("x-forwarded-for"), "192.0.2.7");

    let mut silent = TcpStream::connect(web_address(&world)).await.unwrap();
    silent.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(8), world.stop()).await;
    assert!(stopped.is_ok(), "a silent connection delays the shutdown");
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
    world.close().await;
}

#[tokio::test]
async fn explain_and_check_describe_plain_listeners() {
    let world = city_with_plain_listener(true).start().await;
    let explain = |request: &str| world.tallygate(&["explain", "--config", "gateway.yaml", "--request", request]);
    let (admitted, refused) = (format!("GET http://{}{READ}", web_address(&world)), format!("GET https://{GATEWAY}/x"));
    let shown = run(explain(&admitted)).await;
    assert!(
        shown.status.success() && stdout(&shown).contains("department  public"),
        "{}{}",
        stdout(&shown),
        stderr(&shown)
    );
    let shown = run(explain(&refused)).await;
    assert!(stdout(&shown).contains("requires a client certificate"), "{}", stdout(&shown));
    world.close().await;
}
