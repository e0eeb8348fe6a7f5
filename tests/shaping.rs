//! What a configuration does to heads on their way: fields, paths, answers of the gateway's own, copies.

use serde_json::{Value, json};

use crate::world::{World, empty, request};

const READ: &str = "/cameras/v1/snapshots/7";

/// Changes a command of `cameras`, by its position.
fn command(document: &mut Value, position: usize, key: &str, value: Value) {
    document["subsystems"][0]["commands"][position][key] = value;
}

#[tokio::test]
async fn fields_are_set_and_removed_both_ways_and_the_command_wins() {
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
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        for path in [READ, "/cameras/do/reply-headers"] {
            let mut asking = request("GET", path, empty());
            for (name, value) in [("x-zone", "mine"), ("cookie", "a=1"), ("x-debug", "mine"), ("x-own", "stays")] {
                asking.headers_mut().insert(name, value.parse().unwrap());
            }
            let reply = client.send(asking).await;
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
async fn a_path_is_rewritten_from_the_bytes_that_were_authorised() {
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
