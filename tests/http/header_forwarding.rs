//! Header forwarding: which headers the gateway removes (hop-by-hop headers), which it adds, and which it forwards.

use crate::world::{GATEWAY, READ, World, empty, request, spiffe, whole};

#[tokio::test]
async fn subsystem_gets_caller_and_command() {
    let world = World::city().start().await;
    let reply = world.client("traffic-police").get(READ).await;
    let got = world.server("cameras").log.only();
    for (name, value) in [
        ("x-tallygate-department", "traffic-police"),
        ("x-tallygate-caller", &spiffe("traffic-police")),
        ("x-tallygate-command", "cameras/snapshot.read"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", GATEWAY),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert_eq!(got.header("x-request-id"), reply.header("x-request-id"));
    let parts: Vec<_> = got.header("traceparent").split('-').map(str::len).collect();
    assert_eq!(parts, [2, 32, 16, 2], "{}", got.header("traceparent"));
    world.close().await;
}

#[tokio::test]
async fn reserved_headers_of_a_caller_are_removed() {
    let world = World::city().start().await;
    for client in world.clients("logistics") {
        let mut lie = request("GET", READ, empty());
        for (name, value) in [
            ("x-tallygate-department", "traffic-police"),
            ("x-tallygate-caller", "spiffe://city.example/department/mayor"),
            ("x-tallygate-command", "cameras/everything"),
            ("x-tallygate-anything", "at all"),
            ("x-request-id", "mine"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "elsewhere"),
            ("x-forwarded-client-cert", "Hash=00"),
            ("client-cert", ":AAAA:"),
            ("client-cert-chain", ":AAAA:"),
            ("x-real-ip", "10.0.0.1"),
            ("x-mine", "stays"),
        ] {
            lie.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(client.send(lie).await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        assert_eq!(got.headers.get_all("x-tallygate-department").iter().count(), 1);
        assert_eq!(got.department(), "logistics");
        assert_eq!(got.header("x-tallygate-caller"), spiffe("logistics"));
        assert_eq!(got.header("x-forwarded-for"), "127.0.0.1");
        assert_ne!(got.header("x-request-id"), "mine");
        assert_eq!(got.header("x-mine"), "stays");
        for gone in [
            "x-tallygate-anything",
            "forwarded",
            "x-forwarded-client-cert",
            "client-cert",
            "client-cert-chain",
            "x-real-ip",
        ] {
            assert_eq!(got.header(gone), "", "{gone}");
        }
    }
    let usage = world.close().await;
    assert_eq!(usage.of("logistics", "ok"), 2);
}

#[tokio::test]
async fn connection_header_cannot_remove_reserved_fields() {
    let world = World::city().start().await;
    let mut odd = request("GET", READ, empty());
    let nominated = "x-secret, host"; // naming the gateway's own headers is a 400: see `claims`
    odd.headers_mut().insert("connection", nominated.parse().unwrap());
    odd.headers_mut().insert("x-secret", "hop".parse().unwrap());
    odd.headers_mut().insert("keep-alive", "timeout=9".parse().unwrap());
    odd.headers_mut().insert("proxy-authorization", "Basic eA==".parse().unwrap());
    odd.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    assert_eq!(world.client("traffic-police").send(odd).await.status, 200);
    let got = world.server("cameras").log.only();
    assert_eq!(got.department(), "traffic-police");
    assert_eq!(got.header("x-forwarded-for"), "127.0.0.1");
    for gone in ["x-secret", "keep-alive", "proxy-authorization", "upgrade", "connection"] {
        assert_eq!(got.header(gone), "", "{gone}");
    }
    world.close().await;
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_are_not_forwarded() {
    let world = World::city().start().await;
    let reply = world.client("traffic-police").get("/cameras/do/reply-headers").await;
    assert_eq!(reply.header("x-kept"), "yes");
    for gone in ["keep-alive", "proxy-authenticate"] {
        assert_eq!(reply.header(gone), "", "{gone}");
    }
    world.close().await;
}

#[tokio::test]
async fn trace_continues_under_the_id_of_the_caller() {
    let world = World::city().start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut traced = request("GET", READ, empty());
    traced.headers_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
    world.client("traffic-police").send(traced).await;
    let got = world.server("cameras").log.only();
    assert!(got.header("traceparent").contains(trace), "{}", got.header("traceparent"));
    assert!(!got.header("traceparent").contains("00f067aa0ba902b7"), "the parent span is that of the gateway");
    world.close().await;
}

#[tokio::test]
async fn every_response_has_its_own_request_id() {
    let world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let mut ids = std::collections::HashSet::new();
    for path in [READ, READ, "/nowhere", "/cameras/do/status-500"] {
        let reply = client.get(path).await;
        let id = reply.header("x-request-id").to_owned();
        assert!(!id.is_empty() && ids.insert(id), "{path}: {:?}", reply.headers);
    }
    world.close().await;
}

#[tokio::test]
async fn trailers_pass_in_both_directions_over_both_protocols() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let mut outgoing = request("GET", "/cameras/do/trailers", empty());
        outgoing.headers_mut().insert("te", "trailers".parse().unwrap());
        let reply = client.send(outgoing).await;
        assert_eq!(reply.text(), "body");
        let trailers = reply.trailers.expect("trailers");
        assert_eq!(trailers["x-checksum"], "42");
    }
    world.close().await;
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let plan = World::city();
    let world = plan.start().await;
    for client in world.clients("traffic-police") {
        let reply = client.send(request("HEAD", "/cameras/do/bytes-5000", empty())).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-length"), "5000");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn statuses_of_a_subsystem_pass_and_determine_the_outcome() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for (status, outcome) in
        [(201, "ok"), (204, "ok"), (302, "ok"), (404, "client_error"), (429, "client_error"), (503, "server_error")]
    {
        let before = world.usage().of("traffic-police", outcome);
        let reply = client.get(&format!("/cameras/do/status-{status}")).await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.problem(), None);
        world
            .usage_when("the outcome is in the ledger", |usage| usage.of("traffic-police", outcome) == before + 1)
            .await;
    }
    world.close().await;
}

#[tokio::test]
async fn bytes_are_counted_in_both_directions() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let body = vec![7; 100_000];
        let reply = client.send(request("PUT", "/cameras/do/echo", whole(body))).await;
        assert_eq!(reply.body.len(), 100_000);
    }
    let usage = world.close().await;
    let sums = usage.admitted("traffic-police");
    assert_eq!((sums.commands, sums.units), (2, 6));
    assert_eq!((sums.request_bytes, sums.response_bytes), (200_000, 200_000));
}
