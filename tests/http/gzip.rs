//! Gzip compression: responses that are compressed for callers with `Accept-Encoding: gzip`, and all responses that are
//! not.

use std::io::Read as _;

use serde_json::json;

use crate::world::{Client, Reply, World, empty, request};

/// Returns a city whose command `do` responds with text, with compression.
fn plan() -> crate::world::Plan {
    World::city().edit(|document| {
        document["subsystems"][0]["compress"] = json!(true);
        document["subsystems"][0]["commands"][1]["compress"] = json!(false);
        document["subsystems"][0]["commands"][2]["headers"] =
            json!({ "response": { "set": { "Content-Type": "text/plain; charset=utf-8", "ETag": "\"7\"" } } });
    })
}

async fn ask(client: &Client, path: &str, accept: &str) -> Reply {
    let mut outgoing = request("GET", path, empty());
    outgoing.headers_mut().insert("accept-encoding", accept.parse().unwrap());
    client.send(outgoing).await
}

#[tokio::test]
async fn text_is_compressed_for_clients_that_accept_it_and_counted_uncompressed() {
    let world = plan().start().await;
    for client in world.clients("traffic-police") {
        for (path, byte, length) in
            [("/cameras/do/bytes-50000", b'x', 50_000), ("/cameras/do/chunks-300", b'y', 300 * 1024)]
        {
            let packed = ask(&client, path, "br, gzip").await;
            assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
            assert_eq!((packed.header("etag"), packed.header("content-length")), ("W/\"7\"", ""));
            assert!(packed.body.len() < length / 50, "{} bytes", packed.body.len());
            assert_eq!(packed.unpacked(), vec![byte; length]);
            let plain = ask(&client, path, "br").await;
            assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
            assert_eq!((plain.header("etag"), plain.body.len()), ("\"7\"", length));
        }
        let short = ask(&client, "/cameras/do/bytes-1000", "gzip").await;
        assert_eq!((short.header("content-encoding"), short.body.len()), ("", 1000));
        let not_wanted = ask(&client, "/cameras/v1/snapshots/7", "gzip").await;
        assert_eq!((not_wanted.header("content-encoding"), not_wanted.header("vary")), ("", ""));
        let mut head = request("HEAD", "/cameras/do/bytes-50000", empty());
        head.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        assert_eq!(client.send(head).await.header("content-encoding"), "");
    }
    let usage = world.close().await; // the callers' log holds the unpacked bytes
    assert_eq!(usage.of("traffic-police", "ok"), 14);
}

#[tokio::test]
async fn compressed_stream_is_not_buffered_and_keeps_its_trailers() {
    let world = plan().start().await;
    for (client, name) in [(world.client("traffic-police"), "one"), (world.client("traffic-police").h2(), "two")] {
        let mut outgoing = request("GET", &format!("/cameras/do/hold-{name}"), empty());
        outgoing.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let mut stream = client.open(outgoing).await.unwrap();
        assert_eq!(stream.headers["content-encoding"], "gzip");
        let mut first = Vec::new();
        while unpacked_so_far(&first) != b"first " {
            first.extend(stream.next().await.expect("the first half arrives before the second is sent").unwrap());
        }
        world.server("cameras").release(name);
        assert_eq!(stream.whole().await.unpacked(), "first last");
        let mut outgoing = request("GET", "/cameras/do/trailers", empty());
        outgoing.headers_mut().extend([("accept-encoding", "gzip"), ("te", "trailers")].map(field));
        let trailing = client.send(outgoing).await;
        assert_eq!(trailing.unpacked(), "body");
        assert_eq!(trailing.trailers.expect("trailers")["x-checksum"], "42");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}

#[tokio::test]
async fn truncated_response_is_distinguished_from_a_complete_one() {
    let world = plan().start().await;
    let mut outgoing = request("GET", "/cameras/do/break-20000", empty());
    outgoing.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let mut stream = world.client("traffic-police").open(outgoing).await.unwrap();
    assert_eq!(stream.headers["content-encoding"], "gzip");
    assert!(stream.read_to_end().await.is_err(), "the truncated response is an error");
    drop(stream);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 1);
}

/// Unpacks the available part of a gzip stream.
fn unpacked_so_far(packed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = flate2::read::GzDecoder::new(packed).read_to_end(&mut text); // the stream ends too early
    text
}

fn field((name, value): (&'static str, &'static str)) -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
}
