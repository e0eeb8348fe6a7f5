//! Connections that are refused: without a route, without a department, without a grant, above a limit. A refused
//! connection is closed, without a byte of the gateway where TLS is passed through.

use std::io::ErrorKind;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connection_server::{BROKER, Caller, ConnectionServer, FAREWELL, caller_config, city_with_server, connect};
use crate::world::{IN_FLIGHT, Seen, World, until, within};

const FAILED: &str = "tallygate_tls_handshakes_failed_total";

/// A city with one server, and its listener without HTTP and without certificates.
async fn bare_city(change: impl FnOnce(&mut Value)) -> (World, ConnectionServer) {
    let (plan, server) = city_with_server().await;
    let plan = plan.edit(|document| {
        let name = document["listeners"][0]["name"].clone();
        let address = document["listeners"][0]["address"].clone();
        document["listeners"][0] = json!({ "name": name, "address": address, "protocol": "tls" });
        change(document);
    });
    let mut world = plan.start().await;
    world.note_foreign_server();
    (world, server)
}

/// Requires that a connection is closed instead of a handshake. Returns the error.
async fn refused(world: &World, name: &str) -> std::io::Error {
    let failed = connect(world, name, caller_config(&world.pki, None)).await;
    failed.err().unwrap_or_else(|| panic!("{name} was connected"))
}

async fn talk(world: &World) -> Caller {
    let mut caller = connect(world, BROKER, caller_config(&world.pki, None)).await.unwrap();
    caller.echo(b"hello").await;
    caller
}

#[tokio::test]
async fn unknown_server_name_and_a_missing_one_are_closed_without_an_alert() {
    let (world, server) = bare_city(|_| ()).await;
    for name in ["city.example", "x.city.example", "a.b.broker.city.example"] {
        let error = refused(&world, name).await;
        assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{name}: {error}");
    }
    let mut config = caller_config(&world.pki, None);
    config.enable_sni = false;
    assert!(connect(&world, BROKER, config).await.is_err());
    let unknown = [("reason", "unknown_name")];
    assert_eq!(world.metrics().await.value(FAILED, &unknown), Some(4.0));
    assert!(server.names().is_empty());
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn what_is_no_tls_or_too_long_is_closed() {
    let (world, server) = bare_city(|_| ()).await;
    let long = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xf0, 0][..], &[0; 0x3ffc], &[0x16, 3, 1, 0x40, 0], &[0; 0x4000]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &long] {
        let mut stream = TcpStream::connect(world.gateway_address()).await.unwrap();
        let _ = stream.write_all(bytes).await; // the gateway may close before the end
        let mut seen = Vec::new();
        let _ = within("the close", stream.read_to_end(&mut seen)).await;
        assert!(seen.is_empty() || seen[0] == 0x15, "nothing but an alert: {seen:?}");
    }
    until("both are counted", async || (world.metrics().await.sum(FAILED) == 2).then_some(())).await;
    assert!(server.names().is_empty());
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn connection_belongs_to_nobody_without_a_named_department() {
    let (plan, server) = city_with_server().await;
    let plan = plan.edit(|document| {
        document["subsystems"][1].as_object_mut().unwrap().remove("department");
    });
    let mut world = plan.start().await; // the listener has mTLS, and no department for callers without a certificate
    world.note_foreign_server();
    refused(&world, BROKER).await;
    world.log.note("unknown", Seen::Outcome("unauthenticated"));
    assert!(server.names().is_empty());
    let usage = world.close().await;
    assert_eq!(usage.of("unknown", "unauthenticated"), 1);
}

#[tokio::test]
async fn department_of_the_listener_owns_connections_without_an_owner() {
    let (world, server) = bare_city(|document| {
        document["subsystems"][1].as_object_mut().unwrap().remove("department");
        document["departments"][2]["callers"].as_array_mut().unwrap().push(json!({ "listener": "departments" }));
        let grant = json!({ "department": "archive", "subsystem": "broker", "commands": ["*"] });
        document["grants"].as_array_mut().unwrap().push(grant);
    })
    .await;
    let mut caller = talk(&world).await;
    assert_eq!(caller.end().await, FAREWELL);
    world.log.note("archive", Seen::Outcome("ok"));
    let usage = world.close().await;
    super::connection_server::bytes_agree(&usage, "archive", &[&caller], &[&server]);
}

#[tokio::test]
async fn connection_without_a_grant_or_of_a_disabled_department_is_refused() {
    let (mut world, server) = bare_city(|document| drop(document["grants"].as_array_mut().unwrap().pop())).await;
    refused(&world, BROKER).await;
    world.log.note("traffic-police", Seen::Outcome("forbidden"));
    world.reload(|document| document["departments"][0]["disabled"] = json!(true)).await;
    refused(&world, BROKER).await;
    world.log.note("unknown", Seen::Outcome("unauthenticated"));
    assert!(server.names().is_empty());
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "forbidden"), usage.of("unknown", "unauthenticated")), (1, 1));
}

#[tokio::test]
async fn rates_and_concurrency_limit_connections() {
    let (mut world, _server) = bare_city(|document| {
        document["subsystems"][1]["commands"][0]["limits"] = json!({ "concurrent": 1 });
    })
    .await;
    let mut first = talk(&world).await;
    refused(&world, BROKER).await;
    world.log.note("traffic-police", Seen::Outcome("too_many_concurrent"));
    assert_eq!(first.end().await, FAREWELL);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    until("the place is free", async || (world.metrics().await.sum(IN_FLIGHT) == 0).then_some(())).await;
    world.reload(|document| document["subsystems"][1]["commands"][0]["limits"] = json!({ "rate": "1/h" })).await;
    let mut second = talk(&world).await;
    assert_eq!(second.end().await, FAREWELL);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    refused(&world, BROKER).await;
    world.log.note("traffic-police", Seen::Outcome("rate_limited"));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
    assert_eq!(usage.admitted("traffic-police").units, 6, "refused connections cost nothing");
}

#[tokio::test]
async fn connection_that_no_server_takes_is_closed_and_free() {
    let (mut world, server) = bare_city(|_| ()).await;
    drop(server);
    refused(&world, BROKER).await;
    world.log.note("traffic-police", Seen::Outcome("unreachable"));
    world
        .reload(|document| {
            document["backends"] = json!([{ "id": "empty", "protocol": "tcp", "upstreams": [] }]);
            document["subsystems"][1].as_object_mut().unwrap().remove("upstreams");
            document["subsystems"][1]["commands"][0]["backends"] =
                json!([{ "backend": "empty" }, { "status": 500, "weight": 1 }]);
        })
        .await;
    for _ in 0..4 {
        let error = refused(&world, BROKER).await;
        assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
        world.log.note("traffic-police", Seen::Outcome("unreachable"));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 5);
    assert_eq!(usage.admitted("traffic-police").units, 0);
}

#[tokio::test]
async fn share_of_a_missing_backend_is_refused() {
    let (world, server) = bare_city(|document| {
        let upstreams = document["subsystems"][1].as_object_mut().unwrap().remove("upstreams").unwrap();
        document["backends"] = json!([{ "id": "brokers", "protocol": "tcp", "upstreams": upstreams }]);
        document["subsystems"][1]["commands"][0]["backends"] =
            json!([{ "backend": "brokers", "weight": 3 }, { "status": 500, "weight": 1 }]);
    })
    .await;
    let (mut connected, mut closed) = (0, 0);
    for _ in 0..20 {
        match connect(&world, BROKER, caller_config(&world.pki, None)).await {
            Ok(mut caller) => {
                assert_eq!(caller.end().await, FAREWELL);
                world.log.note("traffic-police", Seen::Outcome("ok"));
                connected += 1;
            }
            Err(_) => {
                world.log.note("traffic-police", Seen::Outcome("unreachable"));
                closed += 1;
            }
        }
    }
    assert!((14..=16).contains(&connected) && connected + closed == 20, "{connected} of 20");
    assert_eq!(server.names().len(), connected);
    world.close().await;
}
