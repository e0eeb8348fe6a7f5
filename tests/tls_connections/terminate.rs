//! Termination: TLS ends at the gateway with a certificate of the listener, and the decrypted bytes are forwarded.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::connection_server::{
    BROKER, Caller, ConnectionServer, FAREWELL, NORTH, broker_certificate, caller_config, connect, subsystem,
};
use crate::world::{Plan, Seen, Usage, World};

/// A city that terminates the connections of the broker. The listener has its certificate beside that of the gateway,
/// and asks for client certificates.
fn terminating_city(server: &ConnectionServer) -> Plan {
    let broker = subsystem("terminate", &[server.address]);
    let plan = World::city().with_pki(|pki| {
        broker_certificate(pki);
    });
    plan.edit(|document| {
        document["subsystems"].as_array_mut().unwrap().push(broker);
        for department in ["traffic-police", "logistics"] {
            let grant = json!({ "department": department, "subsystem": "broker", "commands": ["*"] });
            document["grants"].as_array_mut().unwrap().push(grant);
        }
        let entry = |name: &str| json!({ "certificate": format!("pki/{name}.pem"), "key": format!("pki/{name}.key") });
        document["listeners"][0]["tls"] = json!({
            "certificates": [entry("server"), entry("broker")],
            "clientAuth": { "mode": "required", "authorities": ["pki/ca.pem"] },
        });
    })
}

/// Compares the plain bytes of server and ledger.
fn plain_bytes_agree(usage: &Usage, departments: &[&str], server: &ConnectionServer) {
    let counted = departments.iter().map(|department| usage.admitted(department));
    let counted = counted.fold((0, 0), |sum, one| (sum.0 + one.request_bytes, sum.1 + one.response_bytes));
    assert_eq!(counted, server.counts.both());
}

async fn talk(caller: &mut Caller) {
    caller.echo(b"a first line").await;
    caller.echo(&vec![7; 100_000]).await;
    assert_eq!(caller.end().await, FAREWELL);
}

#[tokio::test]
async fn server_gets_plain_bytes_and_the_certificate_names_the_department() {
    let server = ConnectionServer::start(None).await;
    let mut world = terminating_city(&server).start().await;
    for (department, name) in [("traffic-police", BROKER), ("logistics", NORTH)] {
        let config = caller_config(&world.pki, Some(world.identity(department)));
        let mut caller = connect(&world, name, config).await.unwrap();
        talk(&mut caller).await;
        world.log.note(department, Seen::Outcome("ok"));
    }
    assert_eq!(server.names().len(), 2);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("logistics", "ok")), (1, 1));
    let expected = (b"a first line".len() + 100_000) as u64;
    assert_eq!(usage.admitted("logistics").request_bytes, expected);
    assert_eq!(usage.admitted("logistics").response_bytes, expected + FAREWELL.len() as u64);
    plain_bytes_agree(&usage, &["traffic-police", "logistics"], &server);
}

#[tokio::test]
async fn caller_without_a_certificate_is_refused_in_the_handshake() {
    let server = ConnectionServer::start(None).await;
    let mut world = terminating_city(&server).start().await;
    // With TLS 1.3 the alert comes after the caller's handshake.
    if let Ok(mut caller) = connect(&world, BROKER, caller_config(&world.pki, None)).await {
        assert!(caller.stream.read(&mut [0]).await.is_err());
    }
    assert!(server.names().is_empty());
    world.note_foreign_server();
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn protocol_of_the_caller_is_not_negotiated() {
    let server = ConnectionServer::start(None).await;
    let mut world = terminating_city(&server).start().await;
    let mut config = caller_config(&world.pki, Some(world.identity("traffic-police")));
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let mut caller = connect(&world, BROKER, config).await.unwrap();
    assert_eq!(caller.stream.get_ref().1.alpn_protocol(), None);
    talk(&mut caller).await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    plain_bytes_agree(&world.close().await, &["traffic-police"], &server);
}

#[tokio::test]
async fn bytes_are_encrypted_again_towards_a_server_with_tls() {
    let mut identity = None;
    let plain = ConnectionServer::start(None).await;
    let plan = terminating_city(&plain).with_pki(|pki| identity = Some(pki.issue_subsystem("inner.city.example")));
    let server = ConnectionServer::start(identity.as_ref()).await;
    let address = server.address;
    let plan = plan.edit(|document: &mut Value| {
        document["subsystems"][1]["upstreams"] = json!([{ "url": format!("tls://{address}") }]);
        document["subsystems"][1]["tls"] = json!({ "authorities": ["pki/ca.pem"], "serverName": "inner.city.example" });
    });
    let mut world = plan.start().await;
    let config = caller_config(&world.pki, Some(world.identity("traffic-police")));
    let mut caller = connect(&world, BROKER, config).await.unwrap();
    talk(&mut caller).await;
    assert_eq!(server.names(), ["inner.city.example"]);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    let usage = world.close().await;
    let expected = (b"a first line".len() + 100_000) as u64;
    assert_eq!(usage.admitted("traffic-police").request_bytes, expected);
    assert_eq!(usage.admitted("traffic-police").response_bytes, expected + FAREWELL.len() as u64);
}
