//! Certificates, keys, authorities and revocation lists in memory instead of files.

use serde_json::json;
use tallygate::identity::MemoryTexts;

use crate::world::{Client, READ, World, empty, request};

fn put(texts: &MemoryTexts, name: &str, world: &World, file: &str) {
    let text = std::fs::read(world.folder().join("pki").join(file)).unwrap();
    texts.set(&format!("memory:city/gateway/{name}"), text).expect("room");
}

/// A city whose listener takes everything from memory.
async fn start() -> (World, MemoryTexts) {
    let mut world = World::city()
        .with_pki(|pki| pki.revoke(&[]))
        .edit(|document| {
            document["listeners"][0]["tls"] = json!({
                "certificate": "memory:city/gateway/tls.crt",
                "key": "memory:city/gateway/tls.key",
                "clientAuth": {
                    "authorities": ["memory:city/gateway/ca.crt"],
                    "revocation": ["memory:city/gateway/ca.crl"],
                },
            });
        })
        .build();
    let texts = MemoryTexts::default();
    for (name, file) in
        [("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem"), ("ca.crl", "revoked.crl")]
    {
        put(&texts, name, &world, file);
    }
    world.start_here_with(texts.clone()).await;
    (world, texts)
}

async fn presented(client: Client) -> Vec<u8> {
    let stream = client.connect().await.expect("a handshake");
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn changed_texts_in_memory_are_live_after_a_reload() {
    let (world, texts) = start().await;
    let (police, logistics) = (world.client("traffic-police"), world.client("logistics"));
    assert_eq!(police.get(READ).await.status, 200);
    let renewed = world.pki.issue_server();
    put(&texts, "tls.crt", &world, "server.pem");
    let mismatch = world.running().reload().expect_err("the key is that of the old certificate").0;
    assert_eq!(mismatch[0].path, "listeners[0].tls.key");
    assert!(mismatch[0].message.starts_with("memory:city/gateway/tls.key: "), "{}", mismatch[0].message);
    assert_ne!(presented(world.client("logistics")).await, renewed.chain[0].to_vec(), "the old one stays live");

    put(&texts, "tls.key", &world, "server.key");
    world.pki.revoke(&[world.identity("traffic-police")]);
    put(&texts, "ca.crl", &world, "revoked.crl");
    world.running().reload().expect("matching texts");
    assert_eq!(presented(world.client("logistics")).await, renewed.chain[0].to_vec());
    if let Ok(reply) = police.try_send(request("GET", READ, empty())).await {
        assert_eq!(reply.problem().as_deref(), Some("unauthenticated"), "the revoked caller");
    }
    assert_eq!(logistics.get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn missing_text_in_memory_is_a_problem_that_names_it_and_no_file_is_read() {
    let (world, texts) = start().await;
    let folder = world.folder().join("memory:city/gateway");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(world.folder().join("pki/ca.pem"), folder.join("ca.crt")).unwrap();
    assert!(texts.remove("memory:city/gateway/ca.crt"));
    let problems = world.running().reload().expect_err("a missing text").0;
    assert_eq!(problems[0].path, "listeners[0].tls.clientAuth.authorities[0]");
    assert!(problems[0].message.contains("there is no text of this name in memory"), "{}", problems[0].message);
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the old configuration stays live");
    world.close().await;
}
