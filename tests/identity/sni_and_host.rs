//! SNI and `Host`: the server name (SNI) of the handshake, the authority of the commands and the host names of the
//! listener must agree. Otherwise the response is 421 Misdirected Request.

use rustls::NamedGroup;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::world::{
    Client, GATEWAY, READ, Seen, World, ask, empty, request, request_to, run, stderr, stdout, tool, within,
};

/// Sends a GET to this authority. Returns the status, or `None` without a connection.
async fn asked(client: &Client, authority: &str) -> Option<u16> {
    let reply = client.try_send(request_to(authority, "GET", READ, empty())).await;
    reply.ok().map(|reply| reply.status.as_u16())
}

fn names(names: &[&str], missing: &str) -> impl FnOnce(&mut Value) {
    let (names, missing) = (json!(names), json!(missing));
    move |document| {
        document["listeners"][0]["tls"]["serverNames"] = names;
        document["listeners"][0]["tls"]["missingServerName"] = missing;
    }
}

#[tokio::test]
async fn hosts_default_to_those_of_the_certificate() {
    let world = World::city().start().await;
    let mut misdirected = 0;
    for (server_name, authority, expected) in [
        (Some(GATEWAY), GATEWAY, Some(200)),
        (Some(GATEWAY), "GATEWAY.city.Example.:8443", Some(200)),
        (Some("Gateway.City.EXAMPLE"), GATEWAY, Some(200)),
        (Some(GATEWAY), "localhost", Some(421)), // a served host, but not the host of this connection
        (Some(GATEWAY), "127.0.0.1", Some(421)),
        (Some(GATEWAY), "elsewhere.example", Some(421)),
        (Some(GATEWAY), "gateway.city.example.evil.example", Some(421)),
        (Some("localhost"), "localhost:8443", Some(200)),
        (Some("elsewhere.example"), GATEWAY, None),
        (Some("x.gateway.city.example"), GATEWAY, None),
        (None, "127.0.0.1:8443", Some(200)),
        (None, "localhost", Some(200)),
        (None, GATEWAY, Some(200)),
        (None, "[::1]:8443", Some(421)),
        (None, "elsewhere.example", Some(421)),
    ] {
        for client in world.clients("traffic-police") {
            let client = client.naming(server_name);
            assert_eq!(asked(&client, authority).await, expected, "{server_name:?} {authority}");
            misdirected += u64::from(expected == Some(421));
        }
    }
    assert_eq!(world.metrics().await.sum("tallygate_tls_handshakes_failed_total"), 4);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "misdirected"), misdirected);
}

#[tokio::test]
async fn misdirected_command_is_not_forwarded_and_its_connection_stays_open() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let reply = client.send(request_to("elsewhere.example", "POST", "/cameras/v1/snapshots", empty())).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (421, Some("misdirected")));
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert_eq!(
        world.metrics().await.sum("tallygate_connections_accepted_total"),
        2,
        "one upstream connection for each client connection"
    );
    assert_eq!(world.server("cameras").log.all().len(), 2);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "misdirected"), 2);
}

#[tokio::test]
async fn valid_streams_finish_beside_a_misdirected_one() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let mut held = client.open(request("GET", "/cameras/do/hold-beside", empty())).await.unwrap();
    assert_eq!(held.next().await.unwrap().unwrap(), "first ");
    assert_eq!(asked(&client, "elsewhere.example").await, Some(421));
    world.server("cameras").release("beside");
    assert_eq!(held.whole().await.text(), "first last");
    world.close().await;
}

#[tokio::test]
async fn configured_hosts_replace_those_of_the_certificate() {
    let world = World::city().edit(names(&["*.city.example", "gateway.city.example"], "refuse")).start().await;
    for (server_name, authority, expected) in [
        (Some("cameras.city.example"), "cameras.city.example", Some(200)),
        (Some("cameras.city.example"), "parking.city.example", Some(200)),
        (Some("cameras.city.example"), GATEWAY, Some(421)), // belongs to an entry of its own
        (Some("cameras.city.example"), "a.b.city.example", Some(421)),
        (Some(GATEWAY), "cameras.city.example", Some(421)),
        (Some("a.b.city.example"), GATEWAY, None),
        (Some("city.example"), GATEWAY, None),
        (Some("localhost"), "localhost", None),
        (None, GATEWAY, None),
        (None, "127.0.0.1", None),
    ] {
        for client in world.clients("traffic-police") {
            let client = client.naming(server_name);
            assert_eq!(asked(&client, authority).await, expected, "{server_name:?} {authority}");
        }
    }
    world.close().await;
}

#[tokio::test]
async fn wildcard_serves_every_host() {
    let world = World::city().edit(names(&["*"], "allow")).start().await;
    for server_name in [None, Some("whatever.example")] {
        assert_eq!(asked(&world.client("traffic-police").naming(server_name), "another.example").await, Some(200));
    }
    world.close().await;
}

#[tokio::test]
async fn reload_with_other_hosts_applies_to_open_connections() {
    let mut world = World::city().start().await;
    let clients = world.clients("traffic-police");
    for client in &clients {
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.reload(names(&["elsewhere.example"], "refuse")).await;
    for client in &clients {
        assert!(!matches!(asked(client, GATEWAY).await, Some(200)), "a host that is no longer served");
    }
    world.close().await;
}

#[tokio::test]
async fn curl_reaches_the_gateway_by_name_and_by_address() {
    let world = World::city().start().await;
    let identity = world.identity("traffic-police");
    let port = world.gateway_address().port();
    for host in ["localhost", "127.0.0.1", GATEWAY] {
        let mut curl = tool("curl");
        curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}"]);
        curl.arg("--cacert").arg(world.pki.authority_file());
        curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
        curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{host}:{port}{READ}"));
        let ended = run(curl).await;
        assert_eq!(stdout(&ended), "200", "{host}: {}", stderr(&ended));
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    world.close().await;
}

#[tokio::test]
async fn client_hello_in_one_byte_records_is_judged_as_a_whole() {
    let world = World::city().start().await;
    let mut stream = world.client("traffic-police").in_crumbs().connect().await.expect("a handshake");
    assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    let answer = ask(&mut stream, READ).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    world.log.note("traffic-police", Seen::Outcome("ok"));

    let elsewhere = world.client("traffic-police").naming(Some("elsewhere.example")).in_crumbs();
    assert!(elsewhere.connect().await.is_err(), "an unknown name in a fragmented ClientHello is refused");
    let nobody = world.client_with("unknown", None).in_crumbs();
    let mut nobody = nobody.connect().await.expect("TLS 1.3 reports the refusal after the handshake");
    assert!(
        within("the end", nobody.read(&mut [0; 16])).await.is_err(),
        "a certificate is requested after a fragmented ClientHello"
    );
    world.close().await;
}

#[tokio::test]
async fn early_data_and_resumption_are_refused() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for _ in 0..2 {
        let stream = client.connect().await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert!(!tls.is_early_data_accepted());
    }
    world.close().await;
}
