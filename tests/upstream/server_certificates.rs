//! Certificates of servers: chosen subject alternative names, the trust store of the system, and connections that a
//! reload keeps.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::world::{ANY_PORT, Identity, Leaf, Pki, READ, World};

const HOST: &str = "cameras.city.example";
const URI: &str = "spiffe://city.example/cameras";

/// A server over TLS that answers each request with 200, and logs the SNI of each connection.
struct TlsServer {
    address: SocketAddr,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsServer {
    async fn start(own: &Identity) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(own.chain.clone(), own.key.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
        let (address, names) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Option<String>>>>::default());
        let log = Arc::clone(&names);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    log.lock().unwrap().push(stream.get_ref().1.server_name().map(str::to_owned));
                    let mut buffer = [0; 16 * 1024];
                    while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
                        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        stream.write_all(response).await.unwrap();
                    }
                });
            }
        });
        Self { address, names }
    }

    fn names(&self) -> Vec<Option<String>> {
        self.names.lock().unwrap().clone()
    }
}

/// Returns a city whose cameras are this server; its certificate holds [`HOST`] and [`URI`]. `issuer` signs it.
async fn cameras_over_tls(world: &mut World, issuer: &Pki, tls: Value) -> TlsServer {
    let server = TlsServer::start(&issuer.issue_server_as("cameras-tls", &Leaf::dns(HOST).and_uri(URI))).await;
    let url = format!("https://localhost:{}", server.address.port());
    world.write(|document| {
        document["subsystems"][0]["upstreams"] = json!([{ "url": url }]);
        document["subsystems"][0]["tls"] = tls;
    });
    world.note_foreign_server();
    server
}

#[tokio::test]
async fn server_must_hold_one_of_the_chosen_names() {
    let ca = json!(["pki/ca.pem"]);
    let names = |names: Value| json!({ "authorities": ca, "subjectAltNames": names });
    for (tls, sni, is_accepted) in [
        (json!({ "authorities": ca }), "localhost", false),
        (json!({ "authorities": ca, "serverName": HOST }), HOST, true),
        (names(json!([{ "dns": HOST }])), "localhost", true),
        (names(json!([{ "uri": URI }])), "localhost", true),
        (names(json!([{ "dns": "other.city.example" }, { "uri": URI }])), "localhost", true),
        (names(json!([{ "dns": "other.city.example" }])), "localhost", false),
        (names(json!([{ "dns": "city.example" }, { "uri": "spiffe://city.example/camera" }])), "localhost", false),
        (names(json!([{ "uri": format!("{URI}/x") }])), "localhost", false),
        (
            json!({ "authorities": ca, "serverName": "other.city.example", "subjectAltNames": [{ "dns": HOST }] }),
            "other.city.example",
            true,
        ),
    ] {
        let mut world = World::city().build();
        let issuer = Pki::new(&world.folder().join("servers"), "unknown");
        std::fs::copy(issuer.authority_file(), world.folder().join("servers.pem")).unwrap();
        let trusted = tls.to_string().replace("pki/ca.pem", "servers.pem");
        let server = cameras_over_tls(&mut world, &issuer, serde_json::from_str(&trusted).unwrap()).await;
        world.start_here().await;
        let reply = world.client("traffic-police").get(READ).await;
        assert_eq!(reply.status, if is_accepted { 200 } else { 502 }, "{tls}");
        if is_accepted {
            assert_eq!(server.names(), [Some(sni.to_owned())], "{tls}");
        }
        let usage = world.close().await;
        let outcome = if is_accepted { "ok" } else { "unreachable" };
        assert_eq!(usage.of("traffic-police", outcome), 1, "{tls}");
    }
}

#[tokio::test]
async fn chosen_names_do_not_replace_the_chain() {
    let mut world = World::city().build();
    let issuer = Pki::new(&world.folder().join("servers"), "unknown");
    let tls = json!({ "authorities": ["pki/ca.pem"], "subjectAltNames": [{ "dns": HOST }] });
    cameras_over_tls(&mut world, &issuer, tls).await;
    world.start_here().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 502, "an authority that is not trusted");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

#[tokio::test]
async fn authorities_of_the_system_are_trusted_instead_of_files() {
    for (bundle, status) in [("servers/unknown.pem", 200), ("pki/ca.pem", 502)] {
        let mut world = World::city().build();
        let issuer = Pki::new(&world.folder().join("servers"), "unknown");
        let tls = json!({ "systemAuthorities": true, "serverName": HOST });
        cameras_over_tls(&mut world, &issuer, tls).await;
        let bundle = world.folder().join(bundle);
        world
            .start_process_as(|mut command| {
                command.env("SSL_CERT_FILE", &bundle);
                command
            })
            .await;
        assert_eq!(world.client("traffic-police").get(READ).await.status, status);
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", if status == 200 { "ok" } else { "unreachable" }), 1);
    }
}

#[tokio::test]
async fn reload_keeps_connections_until_the_trust_changes() {
    let mut world = World::city().build();
    let issuer = Pki::new(&world.folder().join("servers"), "unknown");
    let tls = json!({ "authorities": ["servers/unknown.pem"], "serverName": HOST });
    let server = cameras_over_tls(&mut world, &issuer, tls).await;
    world.start_here().await;
    let client = world.client("traffic-police");
    for reload in 0..3 {
        assert_eq!(client.get(READ).await.status, 200);
        world.reload(|document| document["subsystems"][0]["slowStart"] = json!(format!("{}s", reload + 1))).await;
    }
    assert_eq!(server.names().len(), 1, "one connection over three reloads");
    world.reload(|document| document["subsystems"][0]["tls"]["subjectAltNames"] = json!([{ "uri": URI }])).await;
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(server.names().len(), 2, "other names need another handshake");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}
