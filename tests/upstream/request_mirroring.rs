//! Request mirroring: copies go to another subsystem's servers and are counted in no book.

use serde_json::{Value, json};

use crate::world::{Plan, SUBMIT, World, empty, fed, request, until, whole};

const READ: &str = "/cameras/v1/snapshots/7";

/// Mirrors every submission to `lab`, a subsystem that no department may call.
fn mirrored(document: &mut Value) {
    document["subsystems"][0]["commands"][0]["mirror"] = json!({ "subsystem": "lab" });
    document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "1MiB" });
}

async fn copies(world: &World, result: &str) -> u32 {
    let count = world.metrics().await.value("tallygate_mirrored_requests_total", &[("result", result)]);
    format!("{}", count.unwrap()).parse().unwrap()
}

#[tokio::test]
async fn mirrored_request_goes_to_another_subsystem_and_is_no_command() {
    let world = World::city().subsystem("lab").edit(mirrored).start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.post(&format!("{SUBMIT}?x=1"), vec![7; 1000]).await.status, 200);
        assert_eq!(client.send(request("POST", SUBMIT, empty())).await.status, 200);
        let (feed, body) = fed();
        let stream = client.open(request("POST", SUBMIT, body));
        feed.send(Ok(vec![7; 30_000].into())).unwrap();
        feed.send(Ok(vec![7; 30_000].into())).unwrap();
        drop(feed);
        assert_eq!(stream.await.unwrap().whole().await.status, 200);
        // Too large: by its `Content-Length`, and by its body.
        assert_eq!(client.send(request("POST", SUBMIT, whole(vec![7; 70_000]))).await.status, 200);
        let (feed, body) = fed();
        let stream = client.open(request("POST", SUBMIT, body));
        feed.send(Ok(vec![7; 70_000].into())).unwrap();
        drop(feed);
        assert_eq!(stream.await.unwrap().whole().await.status, 200);
        assert_eq!(client.get(READ).await.status, 200, "not mirrored");
    }
    until("the mirrored requests are answered", async || (copies(&world, "answered").await == 6).then_some(())).await;
    assert_eq!((copies(&world, "failed").await, copies(&world, "left_out").await), (0, 4));
    let originals = world.server("cameras").log.all();
    let copies = world.server("lab").log.all();
    assert_eq!((originals.len(), copies.len()), (12, 6));
    for copy in &copies {
        let id = copy.header("x-request-id");
        let original = originals.iter().find(|original| original.header("x-request-id") == id).unwrap();
        assert_eq!((&copy.method, &copy.path, copy.bytes()), (&original.method, &original.path, original.bytes()));
        assert_eq!((copy.header("x-tallygate-mirror"), original.header("x-tallygate-mirror")), ("1", ""));
        assert_eq!(copy.command(), "cameras/snapshot.submit");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 12);
    assert_eq!(usage.sum(|key| key.subsystem == "lab"), 0, "a mirrored request is not metered");
}

#[tokio::test]
async fn failed_mirror_request_does_not_affect_the_command() {
    let mut world = World::city().subsystem("lab").edit(mirrored).start().await;
    drop(world.remove_server("lab"));
    let client = world.client("traffic-police");
    for _ in 0..3 {
        assert_eq!(client.post(SUBMIT, "picture").await.status, 200);
    }
    until("the mirrored requests have failed", async || (copies(&world, "failed").await == 3).then_some(())).await;
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unreachable")), (3, 0));
}

#[tokio::test]
async fn requests_are_mirrored_between_subsystems_of_different_protocols() {
    for (own, labs) in [("http1", "http2"), ("http2", "http1"), ("http2", "http2")] {
        let plan = World::city().subsystem("lab").edit(mirrored).edit(|document| {
            document["subsystems"][0]["protocol"] = json!(own);
            document["subsystems"][1]["protocol"] = json!(labs);
        });
        let world = plan.start().await;
        for client in world.clients("traffic-police") {
            assert_eq!(client.post(&format!("{SUBMIT}?x=1"), vec![7; 1000]).await.status, 200);
            assert_eq!(client.send(request("POST", SUBMIT, empty())).await.status, 200);
            let (feed, body) = fed();
            let stream = client.open(request("POST", SUBMIT, body));
            feed.send(Ok(vec![7; 30_000].into())).unwrap();
            drop(feed);
            assert_eq!(stream.await.unwrap().whole().await.status, 200);
        }
        until("the mirrored requests are answered", async || (copies(&world, "answered").await == 6).then_some(()))
            .await;
        assert_eq!((copies(&world, "failed").await, copies(&world, "left_out").await), (0, 0));
        let originals = world.server("cameras").log.all();
        for copy in world.server("lab").log.all() {
            let id = copy.header("x-request-id");
            let original = originals.iter().find(|original| original.header("x-request-id") == id).unwrap();
            assert_eq!((&copy.method, &copy.path, copy.bytes()), (&original.method, &original.path, original.bytes()));
            assert_eq!(copy.header("x-tallygate-mirror"), "1");
        }
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 6, "{own} to {labs}");
        assert_eq!(usage.sum(|key| key.subsystem == "lab"), 0);
    }
}

#[tokio::test]
async fn mirrored_percentage_is_met_on_average() {
    let plan = World::city().subsystem("lab").edit(mirrored).edit(|document| {
        document["subsystems"][0]["commands"][0]["mirror"]["percent"] = json!(30);
    });
    let world = plan.start().await;
    let client = world.client("traffic-police").h2();
    for _ in 0..400 {
        assert_eq!(client.send(request("POST", SUBMIT, empty())).await.status, 200);
    }
    let copied = until("the mirrored requests are answered", async || {
        let answered = copies(&world, "answered").await;
        (answered as usize == world.server("lab").log.all().len()).then_some(answered)
    });
    let copied = copied.await;
    assert!(
        (70..=170).contains(&copied),
        "{copied} of 400 were mirrored; 120 are expected, with a standard deviation of 9"
    );
    assert_eq!((copies(&world, "failed").await, copies(&world, "left_out").await), (0, 0));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 400);
}

#[tokio::test]
async fn mirrored_fraction_is_met_on_average() {
    let plan = World::city().subsystem("lab").edit(mirrored).edit(|document| {
        let fraction = json!({ "numerator": 250_000, "denominator": 1_000_000 });
        document["subsystems"][0]["commands"][0]["mirror"]["fraction"] = fraction;
    });
    let world = plan.start().await;
    let client = world.client("traffic-police").h2();
    for _ in 0..400 {
        assert_eq!(client.send(request("POST", SUBMIT, empty())).await.status, 200);
    }
    let copied = until("the mirrored requests are answered", async || {
        let answered = copies(&world, "answered").await;
        (answered as usize == world.server("lab").log.all().len()).then_some(answered)
    });
    let copied = copied.await;
    assert!(
        (50..=150).contains(&copied),
        "{copied} of 400 were mirrored; 100 are expected, with a standard deviation of 9"
    );
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 400);
}

/// A city whose submissions are mirrored to `lab` and to `trial`, with a host of their own.
fn city_with_two_mirrors() -> Plan {
    World::city().subsystem("lab").subsystem("trial").edit(mirrored).edit(|document| {
        document["subsystems"][0]["commands"][0]["mirror"] = json!([{ "subsystem": "lab" }, { "subsystem": "trial" }]);
        document["subsystems"][0]["commands"][0]["rewrite"] = json!({ "host": "cameras.internal" });
        document["subsystems"][2]["protocol"] = json!("http2");
    })
}

#[tokio::test]
async fn each_of_several_mirrors_gets_a_copy() {
    let world = city_with_two_mirrors().start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.post(&format!("{SUBMIT}?x=1"), vec![7; 1000]).await.status, 200);
        let (feed, body) = fed();
        let stream = client.open(request("POST", SUBMIT, body));
        feed.send(Ok(vec![7; 30_000].into())).unwrap();
        feed.send(Ok(vec![7; 30_000].into())).unwrap();
        drop(feed);
        assert_eq!(stream.await.unwrap().whole().await.status, 200);
        // Too large: by its `Content-Length`, and by its body. Each copy is counted.
        assert_eq!(client.send(request("POST", SUBMIT, whole(vec![7; 70_000]))).await.status, 200);
        let (feed, body) = fed();
        let stream = client.open(request("POST", SUBMIT, body));
        feed.send(Ok(vec![7; 70_000].into())).unwrap();
        drop(feed);
        assert_eq!(stream.await.unwrap().whole().await.status, 200);
    }
    until("the mirrored requests are answered", async || (copies(&world, "answered").await == 8).then_some(())).await;
    assert_eq!((copies(&world, "failed").await, copies(&world, "left_out").await), (0, 8));
    let originals = world.server("cameras").log.all();
    for mirror in ["lab", "trial"] {
        let copies = world.server(mirror).log.all();
        assert_eq!((originals.len(), copies.len()), (8, 4), "{mirror}");
        for copy in &copies {
            let id = copy.header("x-request-id");
            let original = originals.iter().find(|original| original.header("x-request-id") == id).unwrap();
            assert_eq!((&copy.path, copy.bytes()), (&original.path, original.bytes()), "{mirror}");
            assert_eq!((copy.header("x-tallygate-mirror"), copy.host.as_str()), ("1", "cameras.internal"), "{mirror}");
        }
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 8);
    assert_eq!(usage.sum(|key| key.subsystem != "cameras"), 0, "a mirrored request is not metered");
}

#[tokio::test]
async fn failed_mirror_does_not_affect_the_other_one() {
    let mut world = city_with_two_mirrors().start().await;
    drop(world.remove_server("lab"));
    let client = world.client("traffic-police");
    for _ in 0..3 {
        assert_eq!(client.post(SUBMIT, "picture").await.status, 200);
    }
    until("the mirrored requests have ended", async || {
        (copies(&world, "failed").await == 3 && copies(&world, "answered").await == 3).then_some(())
    })
    .await;
    assert_eq!(world.server("trial").log.all().len(), 3);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unreachable")), (3, 0));
}

#[tokio::test]
async fn mirrored_request_adds_no_retry_budget() {
    let plan = World::city().subsystem("lab").grant("traffic-police", "lab", &["*"]).edit(mirrored).edit(|document| {
        document["subsystems"][1]["retries"] = json!({ "budgetPercent": 10 });
    });
    let mut world = plan.start().await;
    let client = world.client("traffic-police");
    for _ in 0..100 {
        assert_eq!(client.send(request("POST", SUBMIT, empty())).await.status, 200);
    }
    until("the mirrored requests are answered", async || (copies(&world, "answered").await == 100).then_some(())).await;
    for _ in 0..20 {
        // DELETE is not safe, but idempotent: a reused connection permits no further attempt.
        let cut = client.send(request("DELETE", "/lab/do/cut", empty())).await;
        assert_eq!(cut.problem().as_deref(), Some("upstream_failed"));
    }
    let retries = world.metrics().await.sum("tallygate_upstream_retries_total");
    assert_eq!(retries, 3 + 2, "the initial retry budget, and a tenth of the lab's own commands");
    let attempts = world.server("lab").log.all().iter().filter(|got| got.path.ends_with("/cut")).count();
    assert_eq!(attempts, 25);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "upstream_failed")), (100, 20));
}
