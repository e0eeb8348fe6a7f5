//! The controller as a process: it starts while its API server is away, serves its last good configuration, and goes
//! over to the cluster's own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::kube_api::{KubeApi, write_kubeconfig};
use crate::world::{Seen, Server, World, let_time_pass, reserve_address, until, within};

/// A port for the listener of a Gateway: one of those that the controller may choose, and free.
fn free_target_port() -> u16 {
    let candidates = std::iter::repeat_with(|| fastrand::u16(28_000..29_999)).take(1_000);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    candidates.into_iter().find(is_free).expect("a free port")
}

/// The objects of a cluster: a Gateway whose Service publishes `port`, and the Service `shop/web` with a server.
fn cluster(port: u16, server: &Server) -> Vec<(&'static str, Value)> {
    let annotations = json!({ "tallygate.io/gateway": "shop/gate" });
    let slice_labels = json!({ "kubernetes.io/service-name": "web" });
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    vec![
        (
            "gatewayclasses",
            json!({ "metadata": { "name": "ours" }, "spec": { "controllerName": "tallygate.io/gateway-controller" } }),
        ),
        (
            "gateways",
            json!({ "metadata": { "namespace": "shop", "name": "gate" },
                "spec": { "gatewayClassName": "ours", "listeners": [listener] } }),
        ),
        (
            "services",
            json!({ "metadata": { "namespace": "shop", "name": "gate", "annotations": annotations },
                "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "targetPort": port, "protocol": "TCP" }] } }),
        ),
        (
            "services",
            json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": { "ports": [{ "port": 80 }] } }),
        ),
        (
            "endpointslices",
            json!({ "metadata": { "namespace": "shop", "name": "web", "labels": slice_labels }, "addressType": "IPv4",
                "endpoints": [{ "addresses": [server.address.ip().to_string()], "conditions": { "ready": true } }],
                "ports": [{ "name": "", "port": server.address.port(), "protocol": "TCP" }] }),
        ),
        ("httproutes", route("cart", "/do")),
    ]
}

/// A route of the Gateway.
fn route(name: &str, path: &str) -> Value {
    json!({ "metadata": { "namespace": "shop", "name": name }, "spec": {
        "parentRefs": [{ "name": "gate" }], "hostnames": ["shop.example"],
        "rules": [{ "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "backendRefs": [{ "name": "web", "port": 80 }] }] } })
}

/// The status of a request to the Gateway; 0 without a response.
async fn status(port: u16, path: &str) -> u16 {
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await else { return 0 };
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return 0;
    }
    let mut response = Vec::new();
    let _ = within("the end of the response", stream.read_to_end(&mut response)).await;
    std::str::from_utf8(response.get(9..12).unwrap_or_default()).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Starts the controller of a world, and returns when it is ready.
async fn start_controller(world: &mut World, kubeconfig: PathBuf, more: &[&str]) {
    let mut arguments = vec!["controller", "--config", "gateway.yaml", "--namespace", "system"];
    arguments.extend(more);
    let mut command = world.tallygate(&arguments);
    command.env("KUBECONFIG", kubeconfig);
    world.start_process_as(|_| command).await;
}

fn record(world: &World) -> PathBuf {
    world.book().with_extension("last-good").join("configuration")
}

#[tokio::test]
async fn process_serves_its_last_good_configuration_while_the_api_server_is_away() {
    let mut world = World::city().build();
    let server = Server::start();
    let (port, api_address) = (free_target_port(), reserve_address());
    let objects = cluster(port, &server);
    world.add_server("web", server);
    let kubeconfig = write_kubeconfig(world.folder(), api_address);
    let mut ok = 0_u64;

    // The cluster is there: its configuration is live, and is written.
    let api = KubeApi::start_at(api_address, &objects);
    start_controller(&mut world, kubeconfig.clone(), &[]).await;
    assert_eq!(status(port, "/do/echo").await, 200);
    ok += 1;
    until("the configuration is written", async || record(&world).exists().then_some(())).await;
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum("tallygate_kube_last_good_served"), 0);
    assert_eq!(metrics.sum("tallygate_kube_objects"), i64::try_from(objects.len()).unwrap());
    let kinds = tallygate::kube::objects::ObjectKind::ALL.len();
    assert_eq!(metrics.sum("tallygate_kube_watch_synced"), i64::try_from(kinds).unwrap());
    until("the leader has written the statuses", async || {
        (api.written(&Method::PATCH).iter().filter(|path| path.ends_with("/status")).count() >= 3).then_some(())
    })
    .await;

    // The process is killed, and the server is gone: the routes answer all the same.
    world.kill().await;
    drop(api);
    start_controller(&mut world, kubeconfig.clone(), &[]).await;
    assert_eq!(status(port, "/do/echo").await, 200, "ready means that the routes answer: {}", world.log_of_process());
    ok += 1;
    let log = world.log_of_process();
    assert!(log.contains("the last good configuration is served until it does"), "{log}");
    let config: Value = serde_json::from_str(&world.admin("/config").await.1).unwrap();
    assert!(config["last_good"]["written_at"].is_string() && config["last_good"]["since"].is_string(), "{config}");
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum("tallygate_kube_last_good_served"), 1);
    assert_eq!(metrics.sum("tallygate_kube_watch_synced"), 0);
    assert!(world.admin("/metrics").await.1.contains("\ntallygate_kube_last_good_age_seconds "));

    // The server is back, with one more route. While the gateway goes over, every request is answered.
    let is_done = Arc::new(AtomicBool::new(false));
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::clone(&is_done));
    let counter = Arc::clone(&answered);
    let caller = tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let found = status(port, "/do/echo").await;
            assert_eq!(found, 200, "no wrong answer while the gateway goes over");
            counter.fetch_add(1, Ordering::Relaxed);
            let_time_pass(std::time::Duration::from_millis(5)).await;
        }
    });
    let mut more = objects.clone();
    more.push(("httproutes", route("pay", "/pay")));
    let api = KubeApi::start_at(api_address, &more);
    until("the cluster's own configuration is live", async || {
        (world.metrics().await.sum("tallygate_kube_last_good_served") == 0).then_some(())
    })
    .await;
    assert_eq!(status(port, "/pay/do/echo").await, 200);
    ok += 1;
    is_done.store(true, Ordering::Relaxed);
    caller.await.unwrap();
    let config: Value = serde_json::from_str(&world.admin("/config").await.1).unwrap();
    assert!(config.get("last_good").is_none(), "{config}");
    let log = world.log_of_process();
    assert!(log.contains("the last good one is not served any more"), "{log}");

    // A change that comes later is taken from the watch.
    api.add("httproutes", route("late", "/late"));
    until("the new route answers", async || match status(port, "/late/do/echo").await {
        200 => Some(()),
        other => {
            assert_eq!(other, 404);
            world.log.note("shop.gate", Seen::Outcome("unknown_command"));
            None
        }
    })
    .await;
    ok += 1;
    for _ in 0..ok + answered.load(Ordering::Relaxed) {
        world.log.note("shop.gate", Seen::Outcome("ok"));
    }
    world.stop().await;
    let text = std::fs::read_to_string(record(&world)).unwrap();
    assert!(text.contains("HTTPRoute shop/late"), "what was live at the end is written");

    // Switched off: nothing stays on the disk, and nothing is served.
    start_controller(&mut world, kubeconfig, &["--no-last-good"]).await;
    assert!(!record(&world).exists());
    drop(api);
    world.close().await;
}

#[tokio::test]
async fn altered_configuration_is_refused_and_the_process_waits() {
    let mut world = World::city().build();
    let server = Server::start();
    let (port, api_address) = (free_target_port(), reserve_address());
    let objects = cluster(port, &server);
    world.add_server("web", server);
    let kubeconfig = write_kubeconfig(world.folder(), api_address);
    let api = KubeApi::start_at(api_address, &objects);
    start_controller(&mut world, kubeconfig.clone(), &[]).await;
    until("the configuration is written", async || record(&world).exists().then_some(())).await;
    world.kill().await;
    drop(api);
    let altered = std::fs::read_to_string(record(&world)).unwrap().replace("/do", "/of");
    std::fs::write(record(&world), altered).unwrap();
    let started = start_controller(&mut world, kubeconfig, &[]);
    let back = async {
        let_time_pass(std::time::Duration::from_secs(2)).await;
        assert_eq!(status(port, "/do/echo").await, 0, "nothing is served");
        KubeApi::start_at(api_address, &objects)
    };
    let ((), api) = tokio::join!(started, back);
    let log = world.log_of_process();
    assert!(log.contains("its checksum differs") && log.contains("last-good/configuration"), "{log}");
    assert_eq!(status(port, "/do/echo").await, 200);
    world.log.note("shop.gate", Seen::Outcome("ok"));
    drop(api);
    world.close().await;
}

#[tokio::test]
async fn route_that_leads_nowhere_has_one_event_and_is_no_fault_of_others() {
    let mut world = World::city().build();
    let server = Server::start();
    let (port, api_address) = (free_target_port(), reserve_address());
    let mut objects = cluster(port, &server);
    world.add_server("web", server);
    let mut broken = route("broken", "/broken");
    broken["spec"]["rules"][0]["backendRefs"][0]["name"] = json!("nowhere");
    objects.push(("httproutes", broken));
    let api = KubeApi::start_at(api_address, &objects);
    let kubeconfig = write_kubeconfig(world.folder(), api_address);
    start_controller(&mut world, kubeconfig, &[]).await;
    let of_broken = || {
        let events = api.events();
        events.into_iter().filter(|event| event["regarding"]["name"] == "broken").collect::<Vec<_>>()
    };
    let event = until("the event is written", async || of_broken().into_iter().next()).await;
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("BackendNotFound")), "{event}");
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("ResolvedRefs is False: ") && note.ends_with("(Gateway gate)"), "{note}");

    // Changes of other objects are no change of this fault.
    api.add("httproutes", route("late", "/late"));
    until("the new route answers", async || {
        let found = status(port, "/late/do/echo").await;
        world.log.note("shop.gate", Seen::Outcome(if found == 200 { "ok" } else { "unknown_command" }));
        (found == 200).then_some(())
    })
    .await;
    assert_eq!(status(port, "/broken").await, 500);
    world.log.note("shop.gate", Seen::Outcome("unreachable"));
    assert_eq!(of_broken().len(), 1, "{:?}", api.events());
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum("tallygate_kube_leader"), 1);
    assert!(metrics.value("tallygate_kube_events_total", &[("result", "written")]).is_some_and(|count| count >= 1.0));
    assert_eq!(metrics.sum("tallygate_kube_excluded_objects"), 0);
    drop(api);
    world.close().await;
}
