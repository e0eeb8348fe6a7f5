//! Matches of gRPC methods: one method, all of a service, one of any service, all; with conditions on fields, and
//! whatever the content type is.

use serde_json::json;

use crate::world::{World, request, whole};

#[tokio::test]
async fn grpc_matches_go_from_the_exact_method_to_all_methods() {
    let world = World::city()
        .edit(|document| {
            document["subsystems"][0]["path"] = json!("/");
            let command = |id: &str, matched: serde_json::Value| json!({ "id": id, "match": matched });
            document["subsystems"][0]["commands"] = json!([
                command("all", json!({ "grpc": "*" })),
                command("any-submit", json!({ "grpc": "*/Submit" })),
                command("service", json!({ "grpc": "city.Cameras/*" })),
                command("submit", json!({ "grpc": "city.Cameras/Submit" })),
                command("canary", json!({ "grpc": "*", "headers": [{ "name": "version", "value": "2" }] })),
            ]);
            document["grants"] = json!([{ "department": "traffic-police", "subsystem": "cameras", "commands": ["*"] }]);
        })
        .start()
        .await;
    let client = world.client("traffic-police").h2();
    let cases = [
        ("/city.Cameras/Submit", "", "submit"),
        ("/city.Cameras/Watch", "", "service"),
        ("/city.Parking/Submit", "", "any-submit"),
        ("/city.Parking/Watch", "", "all"),
        ("/city.Parking/Watch", "2", "canary"),
    ];
    for (path, version, command) in cases {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc+json", "text/plain", ""] {
            let mut call = request("POST", path, whole("\0\0\0\0\0"));
            for (name, value) in [("version", version), ("content-type", kind)] {
                if !value.is_empty() {
                    call.headers_mut().insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(client.send(call).await.status, 200);
            let seen = world.server("cameras").log.all().last().unwrap().command().to_owned();
            assert_eq!(seen, format!("cameras/{command}"), "{path} {version} {kind}");
        }
    }
    for path in ["/city.Cameras", "/city.Cameras/Submit/more"] {
        assert_eq!(client.send(request("POST", path, whole("x"))).await.status, 404, "{path}");
    }
    assert_eq!(client.get("/city.Cameras/Submit").await.status, 405, "a gRPC method is a POST");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 25);
}
