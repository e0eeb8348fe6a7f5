//! One port for connections that are passed through, connections that are terminated, and HTTPS.

use serde_json::json;

use super::connection_server::{
    BROKER, ConnectionServer, FAREWELL, NORTH, broker_certificate, caller_config, connect, passing_city, subsystem,
};
use crate::world::{READ, Seen};

#[tokio::test]
async fn server_name_decides_between_passthrough_termination_and_https() {
    let mut identity = None;
    let plan = passing_city(&[]).with_pki(|pki| {
        identity = Some(broker_certificate(pki));
        pki.issue_subsystem("feed.city.example");
    });
    let (passed, terminated) = (ConnectionServer::start(identity.as_ref()).await, ConnectionServer::start(None).await);
    let (address, mut feed) = (passed.address, subsystem("terminate", &[terminated.address]));
    feed["id"] = json!("feed");
    feed["hosts"] = json!(["feed.city.example"]);
    let plan = plan.edit(|document| {
        document["subsystems"][1]["upstreams"] = json!([{ "url": format!("tcp://{address}") }]);
        document["subsystems"].as_array_mut().unwrap().push(feed);
        let grant = json!({ "department": "traffic-police", "subsystem": "feed", "commands": ["*"] });
        document["grants"].as_array_mut().unwrap().push(grant);
        let entry = |name: &str| json!({ "certificate": format!("pki/{name}.pem"), "key": format!("pki/{name}.key") });
        document["listeners"][0]["tls"] = json!({
            "certificates": [entry("server"), entry("feed.city.example")],
            "clientAuth": { "mode": "required", "authorities": ["pki/ca.pem"] },
        });
    });
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.status, 200);
    }
    for name in [NORTH, "feed.city.example", BROKER] {
        let config = caller_config(&world.pki, Some(world.identity("traffic-police")));
        let mut caller = connect(&world, name, config).await.unwrap();
        caller.echo(name.as_bytes()).await;
        assert_eq!(caller.end().await, FAREWELL);
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert_eq!((passed.names(), terminated.names().len()), (vec![NORTH.to_owned(), BROKER.to_owned()], 1));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 7);
    assert_eq!(usage.sum(|key| key.subsystem == "cameras"), 4);
}

#[tokio::test]
async fn request_over_https_never_names_the_host_of_connections() {
    let server = ConnectionServer::start(None).await;
    let world = passing_city(&[server.address]).start().await;
    let client = world.client("traffic-police");
    let reply = client.send(crate::world::request_to(BROKER, "GET", READ, crate::world::empty())).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (421, Some("misdirected")));
    assert!(server.names().is_empty());
    world.close().await;
}

#[tokio::test]
async fn reload_turns_a_host_from_https_to_passthrough_and_back() {
    let mut identity = None;
    let plan = passing_city(&[]).with_pki(|pki| identity = Some(broker_certificate(pki)));
    let server = ConnectionServer::start(identity.as_ref()).await;
    let address = server.address;
    let mut world = plan
        .edit(|document| {
            document["subsystems"][1]["upstreams"] = json!([{ "url": format!("tcp://{address}") }]);
            document["subsystems"][1]["hosts"] = json!(["localhost"]);
        })
        .start()
        .await;
    let asks = async |world: &crate::world::World| {
        let client = world.client("traffic-police").naming(Some("localhost"));
        let request = crate::world::request_to("localhost", "GET", READ, crate::world::empty());
        client.try_send(request).await.map(|reply| reply.status.as_u16()).ok()
    };
    assert_eq!(asks(&world).await, None, "the server of the broker does not speak HTTP");
    world.reload(|document| document["subsystems"][1]["hosts"] = json!([BROKER])).await;
    assert_eq!(asks(&world).await, Some(200));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.sum(|key| key.subsystem == "broker"), 1);
}
