//! Upstream protocols: HTTP/1.1 and HTTP/2, over TCP, Unix sockets and TLS, with real nginx behind the gateway.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::operator::third_party_tools::nginx;
use crate::world::{ANY_PORT, Pki, READ, World, listen, reserve_address, until, within};

/// The subsystem's host name in its certificate.
const CAMERAS: &str = "cameras.city.example";

/// The `listen` directive of nginx, and the gateway's configuration for reaching it.
struct UpstreamTransport {
    listen: String,
    subsystem: Value,
    /// The protocol name in nginx's access log.
    spoken: &'static str,
}

impl UpstreamTransport {
    /// Returns a transport without TLS.
    fn plain(protocol: &str) -> Self {
        let address = reserve_address();
        let (suffix, spoken) = if protocol == "http2" { (" http2", "HTTP/2.0") } else { ("", "HTTP/1.1") };
        let subsystem = json!({ "protocol": protocol, "upstreams": [{ "url": format!("http://{address}") }] });
        Self { listen: format!("{address}{suffix}"), subsystem, spoken }
    }

    /// Returns a transport over TLS, where nginx requires the gateway's client certificate; `tls` is the gateway's
    /// setting.
    fn secure(protocol: &str, folder: &Path, tls: Value) -> Self {
        let plain = Self::plain(protocol);
        let (address, http2) = plain.listen.split_once(' ').unwrap_or((&plain.listen, ""));
        let pki = folder.join("pki");
        let listen = format!(
            "{address} ssl {http2}; ssl_certificate {pki}/{CAMERAS}.pem; ssl_certificate_key {pki}/{CAMERAS}.key; \
             ssl_client_certificate {pki}/ca.pem; ssl_verify_client on",
            pki = pki.display()
        );
        let subsystem =
            json!({ "protocol": protocol, "upstreams": [{ "url": format!("https://{address}") }], "tls": tls });
        Self { listen, subsystem, spoken: plain.spoken }
    }
}

/// Returns the gateway's client certificate and its trusted authorities, as configuration.
fn tls(world: &World, gateway: &str) -> Value {
    let own = world.identity(gateway);
    json!({ "authorities": ["pki/ca.pem"], "certificate": own.certificate_file, "key": own.key_file, "serverName": CAMERAS })
}

fn put(document: &mut Value, subsystem: &Value) {
    for (key, value) in subsystem.as_object().unwrap() {
        document["subsystems"][0][key] = value.clone();
    }
}

/// Sends ten commands of each kind through the gateway to nginx, which reads uploads before it responds. The access log
/// must agree with the ledger.
async fn assert_commands_arrive(mut world: World, way: UpstreamTransport) {
    world.write(|document| {
        put(document, &way.subsystem);
        document["subsystems"][0]["healthCheck"] = json!({ "path": "/", "interval": "100ms" });
    });
    let mut nginx = nginx(world.folder(), &way.listen);
    let folder = world.folder().to_owned();
    until("nginx has started", async || folder.join("nginx.pid").exists().then_some(())).await;
    world.start_here().await;
    for client in world.clients("traffic-police") {
        for _ in 0..10 {
            assert_eq!(client.get(READ).await.text(), "nginx\n");
            assert_eq!(client.post("/cameras/v1/snapshots", "x".repeat(10_000)).await.status, 200);
        }
    }
    let checks = "tallygate_upstream_health_checks_total";
    until("health checks use the same transport", async || {
        world.metrics().await.value(checks, &[("result", "passed")]).filter(|passed| *passed > 0.0)
    })
    .await;
    assert_eq!(world.metrics().await.value(checks, &[("result", "failed")]), Some(0.0));
    nginx.signal("QUIT");
    nginx.ended().await;
    let log = std::fs::read_to_string(folder.join("nginx-access.log")).unwrap();
    let lines = log.lines().filter(|line| line.starts_with("traffic-police cameras/snapshot."));
    assert_eq!(lines.filter(|line| line.ends_with(&format!(" 200 {}", way.spoken))).count(), 40, "{log}");
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 40);
    assert_eq!(usage.admitted("traffic-police").request_bytes, 200_000);
}

#[tokio::test]
async fn subsystem_can_speak_http2_by_prior_knowledge() {
    assert_commands_arrive(World::city().build(), UpstreamTransport::plain("http2")).await;
}

/// A session carries 100 streams (`proxy/upstream/h2`). Commands that arrive together do not each open a session.
#[tokio::test]
async fn concurrent_commands_share_sessions_over_http2() {
    let plan = World::city().edit(|document| document["subsystems"][0]["protocol"] = json!("http2"));
    let world = plan.start().await;
    let callers = std::iter::repeat_with(|| world.client("traffic-police").h2()).take(240);
    let commands: Vec<_> =
        callers.map(|caller| tokio::spawn(async move { caller.get("/cameras/do/wait-all").await.status })).collect();
    until("all requests have reached the subsystem", async || {
        (world.server("cameras").log.all().len() == 240).then_some(())
    })
    .await;
    world.server("cameras").release("all");
    for command in commands {
        assert_eq!(command.await.unwrap(), 200);
    }
    let sessions = world.server("cameras").log.all().iter().map(|received| received.connection).max();
    assert_eq!(sessions, Some(3));
    assert_eq!(world.close().await.of("traffic-police", "ok"), 240);
}

#[tokio::test]
async fn subsystem_can_listen_on_a_unix_socket() {
    let world = World::city().build();
    let socket = world.folder().join("cameras.sock");
    let url = format!("unix:{}", socket.display());
    let way = UpstreamTransport {
        listen: url.clone(),
        subsystem: json!({ "upstreams": [{ "url": url }] }),
        spoken: "HTTP/1.1",
    };
    assert_commands_arrive(world, way).await;
}

#[tokio::test]
async fn subsystem_and_gateway_authenticate_each_other_over_tls() {
    for protocol in ["http1", "http2"] {
        let world = World::city().department("gateway").build();
        world.pki.issue_subsystem(CAMERAS);
        let tls = tls(&world, "gateway");
        let way = UpstreamTransport::secure(protocol, world.folder(), tls);
        assert_commands_arrive(world, way).await;
    }
}

#[tokio::test]
async fn unverified_subsystem_gets_nothing() {
    for spoil in [
        |tls: &mut Value| tls["serverName"] = json!("signals.city.example"),
        |tls: &mut Value| tls["authorities"] = json!(["pki/foreign.pem"]),
    ] {
        let world = World::city().department("gateway").build();
        world.pki.issue_subsystem(CAMERAS);
        Pki::new(&world.folder().join("pki"), "foreign");
        let mut tls = tls(&world, "gateway");
        spoil(&mut tls);
        let way = UpstreamTransport::secure("http1", world.folder(), tls);
        assert_nothing_arrives(world, way).await;
    }
}

async fn assert_nothing_arrives(mut world: World, way: UpstreamTransport) {
    world.write(|document| put(document, &way.subsystem));
    let nginx = nginx(world.folder(), &way.listen);
    let folder = world.folder().to_owned();
    until("nginx has started", async || folder.join("nginx.pid").exists().then_some(())).await;
    world.start_here().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (502, Some("unreachable")));
    nginx.signal("QUIT");
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

#[tokio::test]
async fn subsystem_is_resolved_by_name() {
    let world = World::city().edit(|document| {
        let url = document["subsystems"][0]["upstreams"][0]["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
        document["subsystems"][0]["upstreams"] = json!([{ "url": url }]);
    });
    let world = world.start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn missing_trust_anchor_of_a_subsystem_is_a_problem_with_its_path() {
    let mut world = World::city().build();
    world.abandon();
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(world.config_file()).unwrap()).unwrap();
    document["subsystems"][0]["upstreams"] = json!([{ "url": "https://127.0.0.1:1" }]);
    for (tls, path) in [
        (Value::Null, "subsystems[0].tls"),
        (json!({ "authorities": ["nowhere.pem"] }), "subsystems[0].tls"),
        (json!({ "authorities": [] }), "subsystems[0].tls.authorities"),
        (json!({ "authorities": ["pki/ca.pem"], "key": "pki/server.key" }), "subsystems[0].tls.certificate"),
    ] {
        document["subsystems"][0]["tls"] = tls.clone();
        let file = world.folder().join("secure.yaml");
        std::fs::write(&file, document.to_string()).unwrap();
        let problems = tallygate::config::load_configuration(
            &file,
            &tallygate::model::NameInterner::default(),
            &tallygate::clock::Clock::system(),
        )
        .expect_err("a problem");
        assert!(problems.0.iter().any(|problem| problem.path == path), "{tls}: {problems}");
    }
}

/// The number of concurrent requests of a server, and its maximum.
#[derive(Default)]
struct AtOnce {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Serves a session that permits one stream at a time.
async fn one_at_a_time(stream: TcpStream, at_once: Arc<AtOnce>) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    let mut session = builder.max_concurrent_streams(1).handshake::<_, bytes::Bytes>(stream).await?;
    while let Some(asked) = session.accept().await {
        let ((_, mut answer), at_once) = (asked?, Arc::clone(&at_once));
        tokio::spawn(async move {
            at_once.most.fetch_max(at_once.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            answer.send_response(http::Response::new(()), true).unwrap();
            at_once.now.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

#[tokio::test]
async fn server_with_one_concurrent_stream_gets_one_at_a_time() {
    let (listener, at_once) = (listen(ANY_PORT), Arc::<AtOnce>::default());
    let (address, seen) = (listener.local_addr().unwrap(), Arc::clone(&at_once));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one_at_a_time(stream, Arc::clone(&seen)));
        }
    });
    let mut world = World::city().cameras_at(address).http2_cameras().start().await;
    let client = Arc::new(world.client("traffic-police").h2());
    assert_eq!(client.get(READ).await.status, 200); // the gateway has now received the limit
    let concurrent = (0..30).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get(READ).await.status })
    });
    for asked in concurrent.collect::<Vec<_>>() {
        assert_eq!(within("an answer", asked).await.unwrap(), 200);
    }
    assert_eq!(at_once.most.load(Ordering::Relaxed), 1);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 31);
}
