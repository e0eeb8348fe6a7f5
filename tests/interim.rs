//! Interim answers (1xx, RFC 9110 section 15.2): what callers get of them, over which version of HTTP, and how much.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::world::{GATEWAY, Plan, Seen, Way, World, free_address, run, stdout, tool, within};

const READ: &str = "/cameras/v1/snapshots/1";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter";

/// A server that answers every request with what it is told to say, piece by piece.
async fn told() -> (SocketAddr, mpsc::UnboundedSender<String>) {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let (address, (tell, mut hear)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel::<String>());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(piece) = hear.recv().await {
            if piece.is_empty() {
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut heard).await.unwrap();
                }
            }
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
    });
    (address, tell)
}

/// A server that gives every connection's first request the same answer.
async fn canned(answer: String) -> SocketAddr {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16 * 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn cameras_at(address: SocketAddr) -> Plan {
    World::city().edit(|document| {
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{address}") }]);
        document["subsystems"][0]["commands"][1]["headers"] = json!({ "response": { "remove": ["x-inner"] } });
    })
}

async fn ask(stream: &mut TlsStream<Way>, version: &str, more: &str) {
    let head = format!("GET {READ} {version}\r\nHost: {GATEWAY}\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads until what came ends so.
async fn heard_until(stream: &mut TlsStream<Way>, end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        let count = within(end, stream.read_buf(&mut heard)).await.unwrap();
        assert!(count > 0, "it ended before {end:?}: {}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn early_hints_reach_a_caller_before_the_final_answer_does() {
    let (address, tell) = told().await;
    let mut world = cameras_at(address).start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    for n in 1..=2 {
        world.log.note("traffic-police", Seen::Open);
        ask(&mut stream, "HTTP/1.1", "").await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                     X-Request-Id: forged\r\nX-Inner: 1\r\nLink: </b.css>\r\n\r\n";
        tell.send(String::new()).unwrap();
        tell.send(hints.to_owned()).unwrap();
        let heard = heard_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(heard, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n", "{n}");
        tell.send("HTTP/1.1 102 Processing\r\n\r\n".to_owned()).unwrap();
        assert_eq!(heard_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 102 Processing\r\n\r\n");
        tell.send(FINAL.to_owned()).unwrap();
        let last = heard_until(&mut stream, "after").await;
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    }
    drop(stream);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.admitted("traffic-police").response_bytes), (2, 10));
}

#[tokio::test]
async fn what_comes_at_once_comes_in_order_and_100_is_not_passed_on() {
    let says = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 199 Odd\r\nX: 1\r\n\r\n";
    let address = canned(format!("{says}{FINAL}")).await;
    let mut world = cameras_at(address).start().await;
    world.log.note("traffic-police", Seen::Open);
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    ask(&mut stream, "HTTP/1.1", "").await;
    let heard = heard_until(&mut stream, "after").await;
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 199 \r\nx: 1\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(heard.starts_with(interim), "{heard}");
    world.note_foreign_server();
    world.close().await;
}

#[tokio::test]
async fn curl_sees_early_hints_and_callers_of_other_versions_get_the_answer_alone() {
    let address = canned(format!("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n{FINAL}")).await;
    let mut world = cameras_at(address).start().await;
    let identity = world.identity("traffic-police").clone();
    for (version, hinted) in [(&["--http1.1"][..], true), (&["--http1.0", "--no-alpn"], false), (&["--http2"], false)] {
        let mut curl = tool("curl");
        curl.args(version).args(["-s", "-i", "--cacert"]).arg(world.pki.authority_file());
        curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
        let port = world.gateway_address().port();
        curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{GATEWAY}:{port}{READ}"));
        world.log.note("traffic-police", Seen::Open);
        let output = run(curl).await;
        let said = stdout(&output);
        assert!(said.ends_with("after"), "{version:?}: {said}");
        assert_eq!(said.contains(" 103 "), hinted, "{version:?}: {said}");
        assert_eq!(said.contains("</a.css>"), hinted, "{version:?}: {said}");
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 3);
}

#[tokio::test]
async fn interim_answers_are_bounded_in_number_and_bytes() {
    let hint = |bytes: usize| format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(bytes));
    // Of large ones at most 64 KiB wait: how many pass depends on how quickly they are taken.
    for (interim, status, passed) in [
        (hint(1).repeat(16), " 200 ", 16..=16),
        (hint(1).repeat(17), " 502 ", 16..=16),
        (hint(30_000).repeat(5), " 200 ", 1..=5),
    ] {
        let address = canned(format!("{interim}{FINAL}")).await;
        let mut world = cameras_at(address).start().await;
        world.log.note("traffic-police", Seen::Open);
        let mut stream = world.client("traffic-police").connect().await.unwrap();
        ask(&mut stream, "HTTP/1.1", "Connection: close\r\n").await;
        let mut heard = String::new();
        within("the end", stream.read_to_string(&mut heard)).await.unwrap();
        assert!(heard.contains(status), "{heard}");
        let count = heard.matches("HTTP/1.1 103 ").count();
        assert!(passed.contains(&count), "{count} were passed on");
        world.note_foreign_server();
        world.close().await;
    }
}

#[tokio::test]
async fn a_caller_that_pipelines_and_reads_late_gets_everything_in_order() {
    let address = {
        let listener = TcpListener::bind(free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let body = "y".repeat(200_000);
                    let answer = format!(
                        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{body}"
                    );
                    while stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        address
    };
    let mut world = cameras_at(address).start().await;
    let mut stream = world.client("traffic-police").connect().await.unwrap();
    for n in 0..8 {
        world.log.note("traffic-police", Seen::Open);
        ask(&mut stream, "HTTP/1.1", if n == 7 { "Connection: close\r\n" } else { "" }).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await; // answers pile up
    let mut heard = String::new();
    within("the end", stream.read_to_string(&mut heard)).await.unwrap();
    let heads: Vec<_> = heard.match_indices("HTTP/1.1 ").map(|(at, _)| &heard[at + 9..at + 12]).collect();
    assert_eq!(heads, ["103", "200"].repeat(8));
    for piece in heard.split("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").skip(1) {
        let (head, body) = piece.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && body.len() == 200_000, "{head}: {}", body.len());
    }
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 8);
}
