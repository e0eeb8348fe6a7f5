//! Message framing towards a subsystem: bodies and heads are rebuilt, and no part of them is lost, duplicated or
//! smuggled.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::world::{Body, World, empty, fed, pause_as_slow_client, request, whole};

#[tokio::test]
async fn get_keeps_a_body_of_unknown_length() {
    let world = World::city().start().await;
    let [http1, http2] = world.clients("traffic-police");
    for (client, framing) in [(http1, Some("chunked")), (http2, None)] {
        let (feed, body) = fed();
        feed.send(Ok("what is there?".into())).unwrap();
        drop(feed);
        let mut outgoing = request("GET", "/cameras/do/echo", body);
        if let Some(framing) = framing {
            outgoing.headers_mut().insert("transfer-encoding", framing.parse().unwrap());
        }
        assert_eq!(client.send(outgoing).await.text(), "what is there?");
    }
    world.close().await;
}

#[tokio::test]
async fn post_without_a_body_has_content_length_zero() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.send(request("POST", "/cameras/v1/snapshots", empty())).await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        assert_eq!(got.header("content-length"), "0");
    }
    world.close().await;
}

#[tokio::test]
async fn get_without_a_body_is_forwarded_without_one() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 200);
    }
    for got in world.server("cameras").log.all() {
        assert_eq!((got.header("content-length"), got.header("transfer-encoding")), ("", ""));
    }
    world.close().await;
}

#[tokio::test]
async fn cookie_crumbs_are_forwarded_as_one_field() {
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
async fn trailers_are_forwarded_without_reserved_fields() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        let mut upload = request("POST", "/cameras/v1/snapshots", with_trailers());
        upload.headers_mut().insert("trailer", "x-checksum, x-tallygate-department".parse().unwrap());
        assert_eq!(client.send(upload).await.status, 200);
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
async fn caller_that_pauses_is_no_timeout_of_the_subsystem() {
    let short_timeouts =
        |document: &mut Value| document["subsystems"][0]["timeouts"] = json!({ "response": "100ms", "idle": "5s" });
    let world = World::city().edit(short_timeouts).start().await;
    for client in world.clients("traffic-police") {
        let (feed, body) = fed();
        feed.send(Ok("one ".into())).unwrap();
        let answer =
            tokio::spawn(async move { client.send(request("POST", "/cameras/v1/snapshots", body)).await.status });
        pause_as_slow_client(Duration::from_millis(400)).await;
        feed.send(Ok("two".into())).unwrap();
        drop(feed);
        assert_eq!(answer.await.unwrap(), 200);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "timeout")), (2, 0));
}

#[tokio::test]
async fn refused_upload_gets_its_response() {
    let world = World::city().start().await;
    for client in world.clients("archive") {
        let reply = client.send(request("POST", "/cameras/v1/snapshots", whole(vec![1; 200_000]))).await;
        assert_eq!(reply.status, 403);
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 403);
    }
    world.close().await;
}

#[tokio::test]
async fn other_spellings_of_a_path_are_refused() {
    let world = World::city().start().await;
    for client in world.clients("traffic-police") {
        for path in ["/cameras/v1/%73napshots/1", "/cameras/v1/snapshots;x=1/1", "/cameras/v1/./snapshots/1"] {
            assert_eq!(client.get(path).await.status, 400, "{path}");
        }
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "malformed"), 6);
}
