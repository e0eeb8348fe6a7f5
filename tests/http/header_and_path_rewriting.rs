//! Configured changes of requests and responses: header rewriting, path rewriting, CORS preflights, and fixed responses
//! of the gateway.

use serde_json::{Value, json};

use crate::world::{GATEWAY, World, empty, fed, request, request_to};

const READ: &str = "/cameras/v1/snapshots/7";

/// Changes a command of `cameras`, by its position.
fn command(document: &mut Value, position: usize, key: &str, value: Value) {
    document["subsystems"][0]["commands"][position][key] = value;
}

#[tokio::test]
async fn fields_are_set_and_removed_in_both_directions_and_the_command_wins() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["headers"] = json!({
            "request": { "set": { "X-Zone": "city", "X-Key": "one" }, "remove": ["Cookie", "X-Debug"] },
            "response": { "set": { "Strict-Transport-Security": "max-age=60" }, "remove": ["X-Kept"] },
        });
        command(
            document,
            2,
            "headers",
            json!({
                "request": { "set": { "X-Debug": "on" }, "remove": ["X-Key"] },
                "response": { "set": { "X-Kept": "ours" } },
            }),
        );
    });
    let world = plan.start().await;
    for client in world.clients("traffic-police") {
        for path in [READ, "/cameras/do/reply-headers"] {
            let mut outgoing = request("GET", path, empty());
            for (name, value) in [("x-zone", "mine"), ("cookie", "a=1"), ("x-debug", "mine"), ("x-own", "stays")] {
                outgoing.headers_mut().insert(name, value.parse().unwrap());
            }
            let reply = client.send(outgoing).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("strict-transport-security"), "max-age=60");
            assert!(!reply.header("x-request-id").is_empty());
            assert_eq!(reply.header("x-kept"), if path == READ { "" } else { "ours" });
        }
    }
    for got in world.server("cameras").log.all() {
        let is_read = got.command() == "cameras/snapshot.read";
        for (name, value) in [
            ("x-zone", "city"),
            ("cookie", ""),
            ("x-own", "stays"),
            ("x-key", if is_read { "one" } else { "" }),
            ("x-debug", if is_read { "" } else { "on" }),
            ("x-tallygate-department", "traffic-police"),
        ] {
            assert_eq!(got.header(name), value, "{name} of {}", got.command());
            assert!(got.headers.get_all(name).iter().count() <= 1, "{name}");
        }
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}

#[tokio::test]
async fn path_is_rewritten_from_the_authorised_bytes() {
    let plan = World::city().edit(|document| {
        command(document, 1, "rewrite", json!({ "path": "/v2/{id}/picture" }));
        command(document, 2, "rewrite", json!({ "prefix": "/internal" }));
    });
    let world = plan.start().await;
    let client = world.client("traffic-police");
    for (path, _) in PATHS {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    for odd in ["/cameras/v1/snapshots/..", "/cameras/v1/snapshots/a%2Fb", "/cameras/v1/snapshots/%2e%2e"] {
        assert_eq!(client.get(odd).await.problem().as_deref(), Some("malformed"), "{odd}");
    }
    let got: Vec<_> = world.server("cameras").log.all().into_iter().map(|got| got.path).collect();
    assert_eq!(got, PATHS.map(|(_, there)| there));
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "malformed")), (4, 3));
}

const PATHS: [(&str, &str); 4] = [
    (READ, "/v2/7/picture"),
    ("/cameras/v1/snapshots/a%20b?path=/../c", "/v2/a%20b/picture?path=/../c"),
    ("/cameras/v1/snapshots/%E4%BA%A4", "/v2/%E4%BA%A4/picture"),
    ("/cameras/do/echo?x=1", "/internal/do/echo?x=1"),
];

#[tokio::test]
async fn host_is_rewritten_and_the_requested_one_is_forwarded_beside_it() {
    for protocol in ["http1", "http2"] {
        let plan = World::city().edit(|document| {
            document["subsystems"][0]["protocol"] = json!(protocol);
            command(document, 1, "rewrite", json!({ "host": "cameras.internal", "path": "/whole" }));
            command(document, 2, "rewrite", json!({ "host": "cameras.internal" }));
        });
        let world = plan.start().await;
        for client in world.clients("traffic-police") {
            for path in [&format!("{READ}?x=1"), "/cameras/do/echo"] {
                let mut outgoing = request_to("gateway.city.example:8443", "GET", path, empty());
                outgoing.headers_mut().insert("x-forwarded-host", "mine.example".parse().unwrap());
                assert_eq!(client.send(outgoing).await.status, 200, "{path}");
            }
            assert_eq!(client.send(request("POST", "/cameras/v1/snapshots", empty())).await.status, 200);
        }
        let got = world.server("cameras").log.all();
        assert_eq!(got.len(), 6);
        for got in &got {
            let (host, requested, path) = match got.command() {
                "cameras/snapshot.read" => ("cameras.internal", "gateway.city.example:8443", "/whole?x=1"),
                "cameras/do" => ("cameras.internal", "gateway.city.example:8443", "/do/echo"),
                _ => (GATEWAY, GATEWAY, "/v1/snapshots"),
            };
            assert_eq!((got.host.as_str(), got.path.as_str()), (host, path), "{protocol}, {}", got.command());
            let forwarded: Vec<_> = got.headers.get_all("x-forwarded-host").iter().collect();
            assert_eq!(forwarded, [requested], "{protocol}, {}", got.command());
        }
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 6);
    }
}

#[tokio::test]
async fn redirect_by_parts_keeps_what_it_does_not_replace() {
    let plan = World::city().edit(|document| {
        command(document, 0, "redirect", json!({ "host": "there.example", "path": "/new", "status": 303 }));
        command(document, 1, "redirect", json!({ "scheme": "http", "path": "/v2/{id}" }));
        command(document, 2, "redirect", json!({ "prefix": "/moved", "port": 443 }));
    });
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        for (authority, method, path, status, location) in REDIRECTS {
            let reply = client.send(request_to(authority, method, path, empty())).await;
            assert_eq!((reply.status.as_u16(), reply.header("location")), (status, location), "{authority}{path}");
            assert!(reply.body.is_empty());
        }
    }
    assert!(world.server("cameras").log.all().is_empty());
    for (name, count) in [("cameras/snapshot.submit", 4), ("cameras/snapshot.read", 2), ("cameras/do", 4)] {
        world.note_answered_here("traffic-police", name, count);
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 10);
}

/// The authority, method and path of a request over https, and the status and location of its redirect.
const REDIRECTS: [(&str, &str, &str, u16, &str); 5] = [
    (GATEWAY, "POST", "/cameras/v1/snapshots?x=1", 303, "https://there.example/new?x=1"),
    ("gateway.city.example:8443", "POST", "/cameras/v1/snapshots", 303, "https://there.example:8443/new"),
    (
        "gateway.city.example:8443",
        "GET",
        "/cameras/v1/snapshots/a%20b?x=/../y",
        308,
        "http://gateway.city.example/v2/a%20b?x=/../y",
    ),
    ("gateway.city.example:8443", "GET", "/cameras/do/echo?x", 308, "https://gateway.city.example/moved/do/echo?x"),
    (GATEWAY, "GET", "/cameras/do/echo", 308, "https://gateway.city.example/moved/do/echo"),
];

#[tokio::test]
async fn redirect_is_answered_by_the_gateway_and_counted_as_ok() {
    let plan = World::city().edit(|document| {
        command(document, 0, "redirect", json!({ "location": "https://there.example/new", "status": 307 }));
        command(document, 1, "redirect", json!({ "location": "/cameras/v2/{id}" }));
        command(document, 1, "headers", json!({ "response": { "set": { "Cache-Control": "no-store" } } }));
        document["departments"][1]["limits"] = json!({ "rate": "1/h", "burst": 1 });
    });
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        let reply = client.get("/cameras/v1/snapshots/a%20b?x=/../y").await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (308, 0));
        assert_eq!(reply.header("location"), "/cameras/v2/a%20b?x=/../y");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(!reply.header("x-request-id").is_empty());
        let reply = client.send(request("POST", "/cameras/v1/snapshots", empty())).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (307, "https://there.example/new"));
        assert_eq!(client.get("/cameras/do/echo").await.status, 200);
    }
    assert_eq!(world.client("archive").get(READ).await.problem().as_deref(), Some("forbidden"));
    let limited = world.client("logistics");
    let first = limited.get(READ).await;
    assert_eq!((first.status.as_u16(), first.header("ratelimit").is_empty()), (308, false));
    assert_eq!(limited.get(READ).await.problem().as_deref(), Some("rate_limited"));
    assert_eq!(world.server("cameras").log.all().len(), 2);
    for (department, command, count) in [
        ("traffic-police", "cameras/snapshot.submit", 2),
        ("traffic-police", "cameras/snapshot.read", 2),
        ("logistics", "cameras/snapshot.read", 1),
    ] {
        world.note_answered_here(department, command, count);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("logistics", "ok")), (6, 1));
    assert_eq!(usage.admitted("traffic-police").units, 4 + 2 * 3, "a redirect costs the units of its command");
}

#[tokio::test]
async fn redirected_body_keeps_its_connection_usable() {
    let plan = World::city().edit(|document| {
        command(document, 0, "redirect", json!({ "location": "https://there.example/new" }));
    });
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        let body = fed();
        body.0.send(Ok(vec![7; 50_000].into())).unwrap();
        drop(body.0);
        let reply = client.send(request("POST", "/cameras/v1/snapshots", body.1)).await;
        assert_eq!(reply.status, 308);
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.note_answered_here("traffic-police", "cameras/snapshot.submit", 2);
    let usage = world.close().await;
    assert_eq!(usage.admitted("traffic-police").request_bytes, 0, "bytes that are not forwarded are not counted");
}

const PAGE: &str = "https://console.city.example";

/// Returns the CORS preflight that a browser sends before `method`.
fn preflight(path: &str, origin: &str, method: &str) -> http::Request<crate::world::Body> {
    let mut outgoing = request("OPTIONS", path, empty());
    outgoing.headers_mut().insert("origin", origin.parse().unwrap());
    outgoing.headers_mut().insert("access-control-request-method", method.parse().unwrap());
    outgoing
}

#[tokio::test]
async fn preflight_is_answered_by_the_gateway_and_costs_no_units() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["cors"] = json!({
            "origins": [PAGE], "headers": ["X-Key"], "maxAge": "10m", "credentials": true,
        });
        command(document, 2, "cors", json!({ "origins": ["*"], "methods": ["GET", "PUT"] }));
    });
    let mut world = plan.start().await;
    for client in world.clients("traffic-police") {
        let reply = client.send(preflight(READ, PAGE, "GET")).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
        for (name, value) in [("origin", PAGE), ("methods", "GET"), ("headers", "x-key"), ("credentials", "true")] {
            assert_eq!(reply.header(&format!("access-control-allow-{name}")), value, "{name}");
        }
        assert_eq!(reply.header("access-control-max-age"), "600");
        let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
        assert!(vary.contains(&&"origin".parse().unwrap()), "{vary:?}");

        let stranger = client.send(preflight(READ, "https://evil.example", "GET")).await;
        assert_eq!((stranger.status.as_u16(), stranger.header("access-control-allow-origin")), (204, ""));

        let open = client.send(preflight("/cameras/do/echo", "https://evil.example", "PUT")).await;
        assert_eq!(open.header("access-control-allow-origin"), "*");
        assert_eq!(open.header("access-control-allow-methods"), "GET, PUT");
        // A preflight of a method without a command, and a plain OPTIONS, are no preflight of a command.
        let unknown = client.send(preflight(READ, PAGE, "DELETE")).await;
        assert_eq!(unknown.problem().as_deref(), Some("unknown_command"));
        assert_eq!(client.send(request("OPTIONS", READ, empty())).await.status, 405);
        assert_eq!(client.send(request("OPTIONS", "/cameras/do/echo", empty())).await.status, 200);
    }
    let forbidden = world.client("archive").send(preflight(READ, PAGE, "GET")).await;
    assert_eq!(
        (forbidden.problem().as_deref(), forbidden.header("access-control-allow-origin")),
        (Some("forbidden"), PAGE)
    );
    assert_eq!(world.server("cameras").log.all().len(), 2);
    world.note_answered_here("traffic-police", "cameras/snapshot.read", 4);
    world.note_answered_here("traffic-police", "cameras/do", 2);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 8);
    assert_eq!(usage.admitted("traffic-police").units, 2 * 3, "preflights cost no units");
}

#[tokio::test]
async fn allowed_origin_gets_cors_fields() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["cors"] = json!({ "origins": [PAGE], "exposeHeaders": ["X-Request-Id"] });
    });
    let mut world = plan.start().await;
    let client = world.client("traffic-police");
    for (origin, allowed) in [(PAGE, PAGE), ("https://evil.example", "")] {
        for path in [READ, "/cameras/do/status-404", "/cameras/do/cut"] {
            let mut outgoing = request("GET", path, empty());
            outgoing.headers_mut().insert("origin", origin.parse().unwrap());
            let reply = client.send(outgoing).await;
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{path} from {origin}");
            assert_eq!(reply.header("vary"), "origin", "{path} from {origin}");
            assert_eq!(reply.header("access-control-expose-headers").is_empty(), allowed.is_empty());
        }
    }
    assert_eq!(client.get(READ).await.header("vary"), "origin");
    world.note_sent_again(2); // the cut commands were on a reused connection
    world.close().await;
}
