//! Client certificates (mTLS) of every kind, and the result of a command with each.

use rustls::HandshakeKind;
use serde_json::json;

use crate::world::{Client, Credentials, Leaf, Pki, READ, World, request, spiffe, until};
use crate::world::{Plan, empty};

/// Returns whether no response comes. With TLS 1.3 a client considers the handshake complete before the server has
/// verified the client.
pub async fn is_refused(client: &Client) -> bool {
    client.try_send(request("GET", READ, empty())).await.is_err()
}

fn city_with_callers(callers: serde_json::Value) -> Plan {
    World::city().edit(|document| document["departments"][0]["callers"] = callers)
}

#[tokio::test]
async fn certificate_identifies_its_department() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.status, 200);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn caller_without_a_certificate_is_refused_in_the_handshake() {
    let world = World::city().start().await;
    assert!(is_refused(&world.client_with("unknown", None)).await);
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn caller_without_an_optional_certificate_is_unauthenticated() {
    let optional = |document: &mut serde_json::Value| {
        document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional");
    };
    let world = World::city().edit(optional).start().await;
    let reply = world.client_with("unknown", None).get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (401, Some("unauthenticated")));
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    assert!(is_refused(&foreign_client(&world)).await, "an optional certificate is verified");
    let usage = world.close().await;
    assert_eq!(usage.of("unknown", "unauthenticated"), 1);
}

fn foreign_client(world: &World) -> Client {
    let foreign = Pki::new(&world.folder().join("foreign"), "foreign");
    world.client_with("unknown", Some(foreign.issue(&Leaf::department("traffic-police"))))
}

#[tokio::test]
async fn certificate_of_a_foreign_authority_is_refused() {
    let world = World::city().start().await;
    assert!(is_refused(&foreign_client(&world)).await);
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn certificate_outside_its_validity_is_refused() {
    let world = World::city().start().await;
    for (from, until) in [(2020, 2021), (2080, 2090)] {
        let identity = world.pki.issue(&Leaf::department("traffic-police").valid(from, until));
        assert!(is_refused(&world.client_with("unknown", Some(identity))).await, "{from}-{until}");
    }
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn revoked_certificate_is_refused_once_the_crl_is_loaded() {
    let listed = |document: &mut serde_json::Value| {
        document["listeners"][0]["tls"]["clientAuth"]["revocation"] = json!(["pki/revoked.crl"]);
    };
    let world = World::city().edit(listed).with_pki(|pki| pki.revoke(&[])).start().await;
    let revoked = world.identity("traffic-police").clone();
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);

    world.pki.revoke(&[&revoked]); // the gateway watches the file
    until("a new connection with the revoked certificate is refused", async || {
        is_refused(&world.client("traffic-police")).await.then_some(())
    })
    .await;
    assert_eq!(world.client("logistics").get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn unclaimed_identity_is_unauthenticated() {
    let world = World::city().start().await;
    for leaf in [Leaf::uri(&spiffe("nobody")), Leaf::dns("nobody.city.example"), Leaf::bare("traffic-police")] {
        let client = world.client_with("unknown", Some(world.pki.issue(&leaf)));
        let reply = client.get(READ).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (401, Some("unauthenticated")));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("unknown", "unauthenticated"), 3);
}

#[tokio::test]
async fn dns_name_and_subject_can_be_identities() {
    let callers = json!([
        { "dns": "Station-7.city.example" },
        { "subject": { "commonName": "kiosk", "organizationalUnit": "traffic" } },
    ]);
    let world = city_with_callers(callers).start().await;
    let leaves = [Leaf::dns("station-7.city.example"), Leaf::bare("kiosk").unit("traffic")];
    for leaf in &leaves {
        let client = world.client_with("traffic-police", Some(world.pki.issue(leaf)));
        assert_eq!(client.get(READ).await.status, 200);
    }
    let stranger = world.client_with("unknown", Some(world.pki.issue(&Leaf::bare("kiosk").unit("parks"))));
    assert_eq!(stranger.get(READ).await.status, 401);
    let callers: Vec<_> =
        world.server("cameras").log.all().iter().map(|got| got.header("x-tallygate-caller").to_owned()).collect();
    assert!(callers[0].contains("station-7.city.example"), "{callers:?}");
    assert!(callers[1].contains("kiosk"), "{callers:?}");
    world.close().await;
}

#[tokio::test]
async fn certificate_of_two_departments_belongs_to_neither() {
    let world = World::city().start().await;
    let both = world.pki.issue(&Leaf::department("traffic-police").and_uri(&spiffe("logistics")));
    let reply = world.client_with("unknown", Some(both)).get(READ).await;
    assert_eq!(reply.problem().as_deref(), Some("unauthenticated"));
    let usage = world.close().await;
    assert_eq!(usage.of("unknown", "unauthenticated"), 1);
}

#[tokio::test]
async fn both_tls_versions_work_and_sessions_are_not_resumed() {
    let world = World::city().start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let identity = Some(world.identity("traffic-police").clone());
        let credentials = Credentials { versions: vec![version], ..world.credentials(identity) };
        let client = world.client_of("traffic-police", &credentials);
        assert_eq!(client.get(READ).await.status, 200);
        let again = client.connect().await.expect("a second connection");
        assert_eq!(again.get_ref().1.protocol_version(), Some(version.version));
        assert_ne!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    world.close().await;
}

#[tokio::test]
async fn log_names_the_refused_certificate() {
    let mut world = World::city().build();
    world.start_process().await;
    let foreign = Pki::new(&world.folder().join("foreign"), "foreign");
    let stranger = foreign.issue(&Leaf::bare("nobody\u{202e} INFO forged"));
    let serial = format!("serial=\"{:04x}\"", stranger.serial);
    assert!(is_refused(&world.client_with("unknown", Some(stranger))).await);
    let line = until("the log line", async || {
        world.log_of_process().lines().find(|line| line.contains("handshake failed")).map(str::to_owned)
    })
    .await;
    for part in [
        "reason=\"unknown_authority\"",
        "CN=nobody\\\\u{202e} INFO forged",
        "issuer=\"",
        "CN=foreign of the tests\"",
        serial.as_str(),
        "suppressed=0",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    world.close().await;
}
