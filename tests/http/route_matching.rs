//! Which command a request is: wildcard hosts, path prefixes, header fields and query parameters, over both protocols.

use serde_json::{Value, json};

use crate::world::{World, empty, request_to};

/// The city with subsystems that share a host, or have wildcards, on a listener for any host.
fn routed(document: &mut Value) {
    document["listeners"][0]["tls"]["serverNames"] = json!(["*"]);
    let mut shop = document["subsystems"][0].clone();
    for (key, value) in
        [("hosts", json!(["shop.city.example"])), ("path", json!("/")), ("otherCommands", json!("next"))]
    {
        shop[key] = value;
    }
    shop["commands"] = json!([
        { "id": "stable", "match": { "pathPrefix": "/v2" } },
        { "id": "canary", "match": [
            { "pathPrefix": "/v2", "headers": [{ "name": "Version", "value": "two" }] },
            { "pathPrefix": "/v2", "query": [{ "name": "animal", "regex": "whale|dolphin" }] },
        ] },
        { "id": "exact", "match": { "method": "GET", "path": "/v2/exact" } },
        { "id": "expression", "match": { "method": "PUT", "pathRegex": "/v[0-9]+/things" } },
    ]);
    let mut wide = shop.clone();
    wide["id"] = json!("wide");
    wide["hosts"] = json!(["**.city.example"]);
    wide["otherCommands"] = json!("refuse");
    wide["commands"] = json!([{ "id": "read", "match": { "method": "GET", "path": "/{*rest}" } }]);
    let mut one = wide.clone();
    one["id"] = json!("one");
    one["hosts"] = json!(["*.city.example"]);
    one["path"] = json!("/one");
    document["subsystems"] = json!([shop, wide, one]);
    let granted =
        |subsystem: &str| json!({ "department": "traffic-police", "subsystem": subsystem, "commands": ["*"] });
    document["grants"] = json!(["cameras", "wide", "one"].map(granted));
}

/// Method, authority, target, field, and the command or the status.
type Case = (&'static str, &'static str, &'static str, Option<(&'static str, &'static str)>, Result<&'static str, u16>);

const CASES: [Case; 18] = [
    ("GET", "shop.city.example", "/v2/a", None, Ok("cameras/stable")),
    ("GET", "SHOP.city.example:8443", "/v2", None, Ok("cameras/stable")),
    ("POST", "shop.city.example", "/v2/a", Some(("version", "two")), Ok("cameras/canary")),
    ("GET", "shop.city.example", "/v2/a", Some(("version", "Two")), Ok("cameras/stable")),
    ("GET", "shop.city.example", "/v2/a?x=1&animal=wh%61le", None, Ok("cameras/canary")),
    ("GET", "shop.city.example", "/v2/a?animal=dog&animal=whale", None, Ok("cameras/stable")),
    ("GET", "shop.city.example", "/v2/exact", Some(("version", "two")), Ok("cameras/exact")),
    ("PUT", "shop.city.example", "/v2/exact", Some(("version", "two")), Ok("cameras/canary")),
    ("PUT", "shop.city.example", "/v10/things", None, Ok("cameras/expression")),
    ("GET", "shop.city.example", "/v10/things", None, Ok("wide/read")), // passed on
    ("PUT", "shop.city.example", "/v10/things/1", None, Err(405)),
    ("GET", "shop.city.example", "/v22", None, Ok("wide/read")),
    ("GET", "shop.city.example", "/one/a", None, Ok("one/read")),
    ("GET", "a.b.city.example", "/one/a", None, Ok("wide/read")),
    ("GET", "b.city.example", "/one/a", None, Ok("one/read")),
    ("POST", "b.city.example", "/one/a", None, Err(405)),
    ("GET", "city.example", "/v2", None, Err(404)),
    ("GET", "gateway.example", "/v2", None, Err(404)),
];

#[tokio::test]
async fn the_most_specific_conditions_decide_which_command_is_counted() {
    let world = World::city().edit(routed).start().await;
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        let client = client.naming(None);
        for (method, authority, target, field, expected) in CASES {
            let mut asking = request_to(authority, method, target, empty());
            if let Some((name, value)) = field {
                asking.headers_mut().insert(name, value.parse().unwrap());
            }
            let reply = client.send(asking).await;
            let last = world.server("cameras").log.all().pop();
            let got = match reply.status.as_u16() {
                200 => Ok(last.as_ref().map_or("", |got| got.command())),
                status => Err(status),
            };
            assert_eq!(got, expected, "{method} {authority}{target} {field:?}");
            if expected == Err(405) {
                assert_eq!(reply.header("allow"), "GET", "{authority}{target}");
            }
        }
    }
    let passed = CASES.iter().filter(|case| case.4.is_ok()).count() as u64;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2 * passed);
    assert_eq!(usage.of("traffic-police", "unknown_command"), 2 * (CASES.len() as u64 - passed));
}

#[tokio::test]
async fn a_field_sent_twice_is_one_value() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["commands"] = json!([
            { "id": "both", "match": { "pathPrefix": "/", "headers": [{ "name": "color", "value": "red,blue" }] } },
            { "id": "any", "match": { "pathPrefix": "/", "headers": [{ "name": "color", "present": true }] } },
        ]);
        document["grants"] = json!([{ "department": "traffic-police", "subsystem": "cameras", "commands": ["*"] }]);
    });
    let world = plan.start().await;
    let colors: [(&[&str], &str); 4] = [
        (&["red", "blue"], "cameras/both"),
        (&["red,blue"], "cameras/both"),
        (&["blue", "red"], "cameras/any"),
        (&["red"], "cameras/any"),
    ];
    for client in [world.client("traffic-police"), world.client("traffic-police").h2()] {
        for (values, command) in colors {
            let mut asking = crate::world::request("GET", "/cameras/x", empty());
            for value in values {
                asking.headers_mut().append("color", value.parse().unwrap());
            }
            assert_eq!(client.send(asking).await.status, 200);
            let got = world.server("cameras").log.all().pop().expect("forwarded");
            assert_eq!(got.command(), command, "{values:?}");
        }
        assert_eq!(client.get("/cameras/x").await.status, 404);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unknown_command")), (8, 2));
}
