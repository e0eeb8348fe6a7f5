//! Backends: the shares of a command by weight, header edits of a share, shares without a backend or without servers,
//! backends of several subsystems, and the change of endpoints under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::world::{ATTEMPTS, READ, RETRIES, SUBMIT, Server, World, empty, request, until};

fn url(server: &Server) -> Value {
    json!([{ "url": format!("http://{}", server.address) }])
}

/// Returns a city whose command `snapshot.read` has these backends. The servers of the backends `a` and `b` are added.
async fn city_with(shares: Value, edit: impl FnOnce(&mut Value)) -> World {
    let (a, b) = (Server::start(), Server::start());
    let plan = World::city().edit(|document| {
        document["backends"] = json!([
            { "id": "a", "upstreams": url(&a) },
            { "id": "b", "upstreams": url(&b) },
            { "id": "none", "upstreams": [] },
        ]);
        document["subsystems"][0]["commands"][1]["backends"] = shares;
        edit(document);
    });
    let mut world = plan.start().await;
    world.add_server("a", a);
    world.add_server("b", b);
    world
}

fn received(world: &World) -> [usize; 3] {
    ["cameras", "a", "b"].map(|server| world.server(server).log.all().len())
}

#[tokio::test]
async fn commands_are_shared_between_backends_by_weight() {
    let shares = json!([
        { "backend": "a", "weight": 90 },
        { "backend": "b", "weight": 10 },
        { "backend": "cameras", "weight": 0 },
    ]);
    let world = city_with(shares, |_| ()).await;
    for client in world.clients("traffic-police") {
        for _ in 0..200 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let got = received(&world);
    assert_eq!((got[0], got[1] + got[2]), (0, 400));
    assert!((36..=44).contains(&got[2]), "{got:?}: within 1 % of all commands");
    let client = world.client("traffic-police");
    assert_eq!(client.post(SUBMIT, "picture").await.status, 200, "other commands use the servers of the subsystem");
    assert_eq!(received(&world)[0], 1);
    let metrics = world.metrics().await;
    for (backend, count) in [("cameras", 1), ("a", got[1]), ("b", got[2])] {
        assert_eq!(metrics.value(ATTEMPTS, &[("subsystem", backend)]), Some(count as f64), "{backend}");
    }
    let usage = world.close().await;
    assert_eq!(usage.sum(|key| key.subsystem == "cameras" && key.outcome == "ok"), 401);
}

#[tokio::test]
async fn share_without_a_backend_is_answered_500_and_costs_nothing() {
    let shares = json!([{ "backend": "a", "weight": 1 }, { "status": 500, "weight": 1 }]);
    let world = city_with(shares, |document| document["subsystems"][0]["commands"][1]["units"] = json!(5)).await;
    let mut bad = 0;
    for client in world.clients("traffic-police") {
        for _ in 0..50 {
            let reply = client.get(READ).await;
            if reply.status != 200 {
                assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (500, Some("unreachable")));
                assert_eq!((reply.header("retry-after"), reply.header("x-request-id").len()), ("", 32));
                bad += 1;
            }
        }
    }
    // Each of two workers is at most one request beside its half.
    assert!((48..=52).contains(&bad), "{bad} of 100");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unreachable")), (100 - bad, bad));
    assert_eq!(usage.admitted("traffic-police").units, 5 * (100 - bad));
}

#[tokio::test]
async fn backend_without_servers_is_answered_503_with_retry_after() {
    for (shares, status, retry_after) in [
        (json!([{ "backend": "none" }]), 503, "1"),
        (json!([{ "backend": "none", "weight": 3 }, { "backend": "a", "weight": 0 }]), 503, "1"),
        (json!([{ "status": 503 }]), 503, "1"),
        (json!([{ "status": 599 }]), 599, ""),
        (json!([{ "backend": "a", "weight": 0 }]), 500, ""),
    ] {
        let world = city_with(shares.clone(), |_| ()).await;
        for client in world.clients("traffic-police") {
            let reply = client.get(READ).await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (status, Some("unreachable")), "{shares}");
            assert_eq!(reply.header("retry-after"), retry_after, "{shares}");
        }
        assert_eq!(world.admin("/readyz").await, (200, "ready\n".to_owned()), "no server is out of rotation");
        let usage = world.close().await;
        assert_eq!((usage.of("traffic-police", "unreachable"), usage.admitted("traffic-police").units), (2, 0));
    }
}

#[tokio::test]
async fn share_has_header_edits_of_its_own() {
    let shares = json!([
        {
            "backend": "a",
            "headers": { "request": { "set": { "x-share": "a" } }, "response": { "set": { "x-from": "a" } } },
        },
        { "backend": "b", "headers": { "request": { "add": { "x-share": "b" }, "remove": ["x-key"] } } },
    ]);
    let world = city_with(shares, |document| {
        document["subsystems"][0]["headers"] = json!({ "request": { "set": { "x-share": "all", "x-key": "k" } } });
        document["subsystems"][0]["commands"][1]["mirror"] = json!({ "backend": "cameras-lab" });
        let lab = json!({ "id": "cameras-lab", "upstreams": document["subsystems"][0]["upstreams"] });
        document["backends"].as_array_mut().unwrap().push(lab);
    })
    .await;
    let mut from_a = 0;
    for client in world.clients("traffic-police") {
        for _ in 0..10 {
            let reply = client.get(READ).await;
            assert_eq!(reply.status, 200);
            from_a += usize::from(reply.header("x-from") == "a");
        }
    }
    let [_, a, b] = received(&world);
    assert_eq!((from_a, a + b), (a, 20));
    assert!(a > 5 && b > 5);
    let values = |server: &str, name: &str| -> Vec<Vec<String>> {
        let all = world.server(server).log.all();
        let of = |values: http::header::GetAll<'_, _>| {
            values.iter().map(|v: &http::HeaderValue| v.to_str().unwrap().to_owned()).collect()
        };
        all.iter().map(|received| of(received.headers.get_all(name))).collect()
    };
    assert!(values("a", "x-share").iter().all(|values| *values == ["a"]));
    assert!(values("a", "x-key").iter().all(|values| *values == ["k"]));
    assert!(values("b", "x-share").iter().all(|values| *values == ["all", "b"]));
    assert!(values("b", "x-key").iter().all(Vec::is_empty));
    until("the copies have arrived", async || (received(&world)[0] == 20).then_some(())).await;
    assert!(
        values("cameras", "x-share").iter().all(|values| *values == ["all"]),
        "copies have the edits of the command"
    );
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 20);
}

#[tokio::test]
async fn subsystems_share_the_pool_of_one_backend() {
    let shared = Server::start();
    let plan = World::city().edit(|document| {
        document["backends"] = json!([{ "id": "shared", "upstreams": url(&shared) }]);
        let mut maps = document["subsystems"][0].clone();
        maps["id"] = json!("maps");
        maps["path"] = json!("/maps");
        for subsystem in [&mut document["subsystems"][0], &mut maps] {
            let subsystem = subsystem.as_object_mut().unwrap();
            subsystem.remove("upstreams");
            subsystem.remove("timeouts");
            subsystem.insert("backends".to_owned(), json!([{ "backend": "shared" }]));
        }
        document["subsystems"].as_array_mut().unwrap().push(maps);
    });
    let mut world = plan.grant("traffic-police", "maps", &["*"]).start().await;
    world.add_server("shared", shared);
    let client = world.client("traffic-police");
    for _ in 0..10 {
        assert_eq!(client.get(READ).await.status, 200);
        assert_eq!(client.get("/maps/v1/snapshots/1").await.status, 200);
    }
    let log = &world.server("shared").log;
    assert_eq!((log.all().len(), log.connections()), (20, 1), "both subsystems use the kept connection");
    assert_eq!(log.all().iter().filter(|received| received.command() == "maps/snapshot.read").count(), 10);
    assert_eq!(world.metrics().await.value(ATTEMPTS, &[("subsystem", "shared")]), Some(20.0));
    let usage = world.close().await;
    assert_eq!([usage.sum(|key| key.subsystem == "maps"), usage.sum(|key| key.subsystem == "cameras")], [10, 10]);
}

#[tokio::test]
async fn retries_stay_in_the_chosen_backend() {
    let shares = json!([{ "backend": "a", "weight": 1 }, { "backend": "b", "weight": 1 }]);
    let second = Server::start();
    let mut world = city_with(shares, |document| {
        let servers = document["backends"][0]["upstreams"].as_array_mut().unwrap();
        servers.push(json!({ "url": format!("http://{}", second.address) }));
        document["backends"][0]["retries"] = json!({ "on": [503], "budgetPercent": 100 });
        let backends = document["subsystems"][0]["commands"][1]["backends"].clone();
        document["subsystems"][0]["commands"][2]["backends"] = backends;
    })
    .await;
    world.add_server("a-2", second);
    let client = world.client("traffic-police");
    for _ in 0..40 {
        assert_eq!(client.get("/cameras/do/status-503").await.status, 503);
    }
    let ids = |server: &str| -> Vec<String> {
        world.server(server).log.all().iter().map(|received| received.header("x-request-id").to_owned()).collect()
    };
    let (a, b) = ([ids("a"), ids("a-2")].concat(), ids("b"));
    let commands: std::collections::HashSet<_> = a.iter().collect();
    assert!(a.len() > commands.len(), "backend a retries");
    assert!(b.iter().all(|id| !commands.contains(id)), "no command reached both backends");
    assert_eq!((commands.len() + b.len(), b.len().abs_diff(20) <= 1), (40, true));
    let again = (a.len() - commands.len()) as u64;
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum(RETRIES), i64::try_from(again).unwrap());
    world.note_sent_again(again);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "server_error"), 40);
}

#[tokio::test]
async fn endpoints_change_under_load_without_a_failure_and_kept_servers_keep_their_connections() {
    let mut world = city_with(json!([{ "backend": "a" }]), |_| ()).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|n| {
            let client = world.client(if n % 2 == 0 { "traffic-police" } else { "logistics" });
            let (client, done) = (if n < 2 { client.h2() } else { client }, Arc::clone(&done));
            tokio::spawn(async move {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.send(request("GET", READ, empty())).await.status, 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let (a, b) = (url(world.server("a"))[0].clone(), url(world.server("b"))[0].clone());
    for round in 0..10 {
        let servers = if round % 2 == 0 { json!([a, b]) } else { json!([a]) };
        world.reload(|document| document["backends"][0]["upstreams"] = servers).await;
        until("commands go on", async || {
            let seen = world.server("a").log.all().len() + world.server("b").log.all().len();
            (seen > 20 * (round + 1)).then_some(())
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    let mut sent: u64 = 0;
    for caller in callers {
        sent += caller.await.unwrap();
    }
    assert!(!world.server("b").log.all().is_empty(), "the added endpoint got commands");
    let connections = world.server("a").log.connections();
    assert!(connections <= 4, "{connections} connections to the kept endpoint: its pool survives reloads");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok") + usage.of("logistics", "ok"), sent);
}

#[tokio::test]
async fn health_checks_and_readiness_name_the_backend() {
    let world = city_with(json!([{ "backend": "a" }]), |document| {
        document["backends"][0]["healthCheck"] = json!({ "path": "/health", "interval": "100ms", "fall": 1 });
    })
    .await;
    world.server("a").set_unhealthy(true);
    until("the backend is out of rotation", async || {
        world.admin("/readyz").await.1.contains("every server of a is out of rotation").then_some(())
    })
    .await;
    assert!(!world.server("a").checks.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn explain_shows_the_backends_of_a_command() {
    let shares = json!([{ "backend": "a", "weight": 9 }, { "backend": "none" }, { "status": 500, "weight": 2 }]);
    let world = city_with(shares, |_| ()).await;
    let a = world.server("a").address;
    let certificate = world.identity("traffic-police").certificate_file.display().to_string();
    let request = format!("GET https://gateway.city.example{READ}");
    let arguments = ["explain", "--config", "gateway.yaml", "--cert", &certificate, "--request", &request];
    let output = world.tallygate(&arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in [format!("a (weight 9): {a}"), "none (weight 1): no servers".into(), "status 500 (weight 2)".into()]
    {
        assert!(text.contains(&expected), "{expected} in {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    world.close().await;
}
