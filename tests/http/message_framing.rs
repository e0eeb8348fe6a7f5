//! Message framing towards a subsystem: bodies and heads are rebuilt, and no part of them is lost, duplicated or
//! smuggled.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::world::{Body, Client, World, empty, fed, request, whole};

fn both_protocols(world: &World) -> [Client; 2] {
    [world.client("traffic-police"), world.client("traffic-police").h2()]
}

#[tokio::test]
async fn a_get_keeps_a_body_of_unknown_length() {
    let world = World::city().start().await;
    let [http1, http2] = both_protocols(&world);
    for (client, framing) in [(http1, Some("chunked")), (http2, None)] {
        let (feed, body) = fed();
        feed.send(Ok("what is there?".into())).unwrap();
        drop(feed);
        let mut asking = request("GET", "/cameras/do/echo", body);
        if let Some(framing) = framing {
            asking.headers_mut().insert("transfer-encoding", framing.parse().unwrap());
        }
        assert_eq!(client.send(asking).await.text(), "what is there?");
    }
    world.close().await;
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        assert_eq!(client.send(request("POST", "/cameras/v1/snapshots", empty())).await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        assert_eq!(got.header("content-length"), "0");
    }
    world.close().await;
}

#[tokio::test]
async fn a_get_without_a_body_is_not_given_one() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        assert_eq!((got.header("content-length"), got.header("transfer-encoding")), ("", ""));
    }
    world.close().await;
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_arrive_as_one() {
    let world = World::city().start().await;
    let mut crumbs = request("GET", "/cameras/v1/snapshots/1", empty());
    for crumb in ["a=1", "b=2"] {
        crumbs.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    world.client("traffic-police").h2().send(crumbs).await;
    let got = world.server("cameras").log.only();
    assert_eq!(got.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    world.close().await;
}

#[tokio::test]
async fn trailers_arrive_without_claims() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        let mut said = request("POST", "/cameras/v1/snapshots", with_trailers());
        said.headers_mut().insert("trailer", "x-checksum, x-tallygate-department".parse().unwrap());
        assert_eq!(client.send(said).await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        let trailers = got.body.trailers.lock().unwrap().clone().expect("trailers");
        assert_eq!(trailers["x-checksum"], "42");
        assert!(!trailers.contains_key("x-tallygate-department"), "{trailers:?}");
    }
    world.close().await;
}

fn with_trailers() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "42".parse().unwrap());
    trailers.insert("x-tallygate-department", "mayor".parse().unwrap());
    let frames = [Ok(Frame::data(Bytes::from("body"))), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

#[tokio::test]
async fn a_caller_that_pauses_is_not_a_subsystem_that_is_late() {
    let impatient =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "100ms", "idle": "5s" });
    let world = World::city().edit(impatient).start().await;
    for client in both_protocols(&world) {
        let (feed, body) = fed();
        feed.send(Ok("one ".into())).unwrap();
        let answer =
            tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
        tokio::time::sleep(Duration::from_millis(400)).await; // the pause is under test
        feed.send(Ok("two".into())).unwrap();
        drop(feed);
        assert_eq!(answer.await.unwrap(), 200);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "timeout")), (2, 0));
}

#[tokio::test]
async fn a_refused_upload_gets_its_answer() {
    let world = World::city().start().await;
    for client in [world.client("archive"), world.client("archive").h2()] {
        let reply = client.send(request("POST", "/cameras/v1/snapshots", whole(vec![1; 200_000]))).await;
        assert_eq!(reply.status, 403);
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 403);
    }
    world.close().await;
}

#[tokio::test]
async fn another_spelling_of_a_path_is_refused() {
    let world = World::city().start().await;
    for client in both_protocols(&world) {
        for path in ["/cameras/v1/%73napshots/1", "/cameras/v1/snapshots;x=1/1", "/cameras/v1/./snapshots/1"] {
            assert_eq!(client.get(path).await.status, 400, "{path}");
        }
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "malformed"), 6);
}
