//! Route matching and grants: which command a request is, and whether the department may run the command.

use serde_json::{Value, json};

use crate::world::{Client, World, empty, request};

fn commands(document: &mut Value, commands: Value) {
    document["subsystems"][0]["commands"] = commands;
}

/// Returns the command that the subsystem received in the header of the last request.
fn last_command(world: &World) -> String {
    world.server("cameras").log.all().last().unwrap().command().to_owned()
}

#[tokio::test]
async fn ungranted_commands_are_refused() {
    let world = World::city().start().await;
    let reply = world.client("archive").get("/cameras/v1/snapshots/1").await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (403, Some("forbidden")));
    let reply = world.client("logistics").post("/cameras/v1/snapshots", "jpeg").await;
    assert_eq!(reply.problem().as_deref(), Some("forbidden"));
    assert!(world.server("cameras").log.all().is_empty(), "a refused command is never forwarded");
    let usage = world.close().await;
    assert_eq!((usage.of("archive", "forbidden"), usage.of("logistics", "forbidden")), (1, 1));
}

#[tokio::test]
async fn grant_is_a_glob_on_command_ids() {
    let plan = World::city().grant("archive", "cameras", &["snapshot.*"]);
    let world = plan.start().await;
    let archive = world.client("archive");
    assert_eq!(archive.get("/cameras/v1/snapshots/1").await.status, 200);
    assert_eq!(archive.post("/cameras/v1/snapshots", "jpeg").await.status, 200);
    assert_eq!(archive.get("/cameras/do/status-200").await.status, 403);
    world.close().await;
}

#[tokio::test]
async fn unknown_path_method_or_subsystem_is_an_unknown_command() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for (method, path, status, allow) in [
        ("GET", "/cameras/v2/nothing", 404, ""),
        ("DELETE", "/cameras/v1/snapshots/1", 405, "GET"),
        ("GET", "/signals/v1/lights", 404, ""),
        ("GET", "/camerasx/v1/snapshots/1", 404, ""),
        ("GET", "/", 404, ""),
    ] {
        let reply = client.send(request(method, path, empty())).await;
        assert_eq!(
            (reply.status.as_u16(), reply.problem().as_deref(), reply.header("allow")),
            (status, Some("unknown_command"), allow),
            "{method} {path}"
        );
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unknown_command"), 5);
}

#[tokio::test]
async fn wrong_method_lists_allowed_methods_only_to_authenticated_callers() {
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["commands"].as_array_mut().unwrap().extend([
            json!({ "id": "list", "match": { "method": "GET", "path": "/v1/snapshots" } }),
            json!({ "id": "hidden", "match": { "method": "PUT", "path": "/v1/other" } }),
        ]);
        document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!("optional");
    });
    let world = plan.start().await;
    for http2 in [false, true] {
        let speak = |client: Client| if http2 { client.h2() } else { client };
        let reply = speak(world.client("archive")).send(request("PATCH", "/cameras/v1/snapshots", empty())).await;
        let refusal = (reply.status.as_u16(), reply.header("allow"), reply.header("content-type"));
        assert_eq!(refusal, (405, "GET, POST", "application/problem+json"));
        let stranger = speak(world.client_with("unknown", None));
        let reply = stranger.send(request("PATCH", "/cameras/v1/snapshots", empty())).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (401, ""));
        let mut call = request("DELETE", "/cameras/v1/snapshots", empty());
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let reply = speak(world.client("archive")).send(call).await;
        assert_eq!((reply.status.as_u16(), reply.header("grpc-status"), reply.header("allow")), (200, "12", ""));
        let forbidden = speak(world.client("archive")).get("/cameras/v1/snapshots/1").await;
        let detail = forbidden.json()["detail"].as_str().unwrap().to_owned();
        for name in ["`archive`", "`cameras`", "`snapshot.read`"] {
            assert!(detail.contains(name), "{detail}");
        }
    }
    let usage = world.close().await;
    assert_eq!((usage.of("archive", "unknown_command"), usage.of("archive", "forbidden")), (4, 2));
}

#[tokio::test]
async fn subsystem_is_reached_only_by_its_own_hosts() {
    let hosts = |document: &mut Value| {
        document["subsystems"][0]["hosts"] = json!(["cameras.city.example"]);
        document["listeners"][0]["tls"]["serverNames"] = json!(["*"]);
    };
    let world = World::city().edit(hosts).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 404);
    let mut named = request("GET", "/cameras/v1/snapshots/1", empty());
    named.headers_mut().insert("host", "cameras.city.example".parse().unwrap());
    assert_eq!(client.send(named).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn most_specific_command_wins() {
    let overlapping = |document: &mut Value| {
        commands(
            document,
            json!([
                { "id": "any", "match": { "path": "/v1/{kind}/{id}" } },
                { "id": "read", "match": { "method": "GET", "path": "/v1/snapshots/{id}" } },
                { "id": "latest", "match": { "method": "GET", "path": "/v1/snapshots/latest" } },
                { "id": "any-latest", "match": { "path": "/v1/snapshots/latest" } },
            ]),
        );
        document["grants"].as_array_mut().unwrap().truncate(1);
    };
    let world = World::city().edit(overlapping).start().await;
    let client = world.client("traffic-police");
    for (method, path, command) in [
        ("GET", "/cameras/v1/snapshots/latest", "cameras/latest"),
        ("PUT", "/cameras/v1/snapshots/latest", "cameras/any-latest"),
        ("GET", "/cameras/v1/snapshots/7", "cameras/read"),
        ("GET", "/cameras/v1/films/7", "cameras/any"),
    ] {
        assert_eq!(client.send(request(method, path, empty())).await.status, 200);
        assert_eq!(last_command(&world), command, "{method} {path}");
    }
    world.close().await;
}

#[tokio::test]
async fn longest_prefix_wins() {
    let nested = |document: &mut Value| document["subsystems"][1]["path"] = json!("/cameras/archive");
    let plan = World::city().subsystem("films").grant("traffic-police", "films", &["*"]).edit(nested);
    let world = plan.start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/archive/v1/snapshots/1").await.status, 200);
    assert_eq!(world.server("films").log.only().path, "/v1/snapshots/1");
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn unlisted_commands_pass_as_other_where_allowed() {
    let allow = |document: &mut Value| document["subsystems"][0]["otherCommands"] = json!("allow");
    let world = World::city().edit(allow).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.send(request("PATCH", "/cameras/v9/anything", empty())).await.status, 200);
    assert_eq!(last_command(&world), "cameras/other");
    assert_eq!(
        world.client("logistics").get("/cameras/v9/anything").await.status,
        403,
        "commands with a grant are still admitted"
    );
    let usage = world.close().await;
    assert_eq!(usage.sum(|key| key.command == "other" && key.outcome == "ok"), 1);
}

#[tokio::test]
async fn prefix_is_stripped_unless_it_is_kept() {
    let keep = |document: &mut Value| document["subsystems"][1]["keepPath"] = json!(true);
    let kept = json!([{ "id": "any", "match": { "path": "/v1/{x}" } }]);
    let plan = World::city().subsystem("films").grant("traffic-police", "films", &["*"]).edit(keep);
    let world = plan.edit(|document| document["subsystems"][1]["commands"] = kept).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/v1/snapshots/1?a=b&c=%20").await.status, 200);
    assert_eq!(world.server("cameras").log.only().path, "/v1/snapshots/1?a=b&c=%20");
    assert_eq!(client.get("/films/v1/x?q").await.status, 200);
    assert_eq!(world.server("films").log.only().path, "/films/v1/x?q");
    world.close().await;
}
