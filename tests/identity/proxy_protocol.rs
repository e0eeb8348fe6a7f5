//! The PROXY protocol behind a load balancer: it is accepted only from trusted addresses. Forwarded addresses
//! (`X-Forwarded-For`) count only from trusted proxies.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{
    Client, GATEWAY, Process, READ, Seen, World, ask, empty, request, reserve_address, tool, until, within,
};

fn listener(key: &str, ranges: &[&str]) -> impl FnOnce(&mut Value) {
    let (key, ranges) = (key.to_owned(), json!(ranges));
    move |document| document["listeners"][0][key] = ranges
}

/// Returns the response on a connection that begins with `header`.
async fn response_after(world: &World, header: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.gateway_address()).await.unwrap();
    stream.write_all(header).await.unwrap();
    let Ok(mut stream) = world.client("traffic-police").connect_over(stream).await else { return String::new() };
    let head =
        format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nX-Forwarded-For: 8.8.8.8\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = within("the end", stream.read_to_string(&mut answer)).await; // a partial response is judged as well
    answer
}

fn version_2(family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, addresses].concat()
}

#[tokio::test]
async fn trusted_balancer_sets_the_client_address() {
    let world = World::city().edit(listener("proxyProtocol", &["127.0.0.0/8"])).start().await;
    let headers = [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(0x11, &[192, 0, 2, 9, 198, 51, 100, 1, 1, 1, 1, 187]), "192.0.2.9"),
        (version_2(0x00, &[]), "127.0.0.1"),
    ];
    for (header, _) in &headers {
        assert!(response_after(&world, header).await.starts_with("HTTP/1.1 200"), "{header:?}");
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    let logged: Vec<_> =
        world.server("cameras").log.all().iter().map(|got| got.header("x-forwarded-for").to_owned()).collect();
    assert_eq!(logged, headers.map(|(_, address)| address.to_owned()));
    world.close().await;
}

#[tokio::test]
async fn trusted_balancer_must_send_a_header() {
    let world = World::city().edit(listener("proxyProtocol", &["127.0.0.1"])).start().await;
    for header in [&b""[..], b"PROXY TCP4 192.0.2.7\r\n", b"GET / HTTP/1.1\r\n", &version_2(0x11, &[0; 3])] {
        assert_eq!(response_after(&world, header).await, "", "{header:?}");
    }
    let bad = [("reason", "bad_proxy_header")];
    assert_eq!(world.metrics().await.value("tallygate_tls_handshakes_failed_total", &bad), Some(4.0));
    assert_eq!(world.close().await.sum(|_| true), 0);
}

#[tokio::test]
async fn header_of_an_untrusted_peer_is_refused() {
    let world = World::city().edit(listener("proxyProtocol", &["192.0.2.0/24"])).start().await;
    assert_eq!(response_after(&world, b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n").await, "");
    assert!(response_after(&world, b"").await.starts_with("HTTP/1.1 200"));
    world.log.note("traffic-police", Seen::Outcome("ok"));
    assert_eq!(world.server("cameras").log.only().header("x-forwarded-for"), "127.0.0.1");
    world.close().await;
}

async fn forwarded_for(client: &Client, values: &[&str]) {
    let mut outgoing = request("GET", READ, empty());
    for values in values {
        outgoing.headers_mut().append("x-forwarded-for", values.parse().unwrap());
    }
    assert_eq!(client.send(outgoing).await.status, 200);
}

#[tokio::test]
async fn only_trusted_proxies_can_set_forwarded_for() {
    for (ranges, expected) in
        [(&["10.0.0.0/8"][..], "127.0.0.1"), (&["127.0.0.0/8"], "192.0.2.1, 192.0.2.2, 127.0.0.1")]
    {
        let world = World::city().edit(listener("forwardedFor", ranges)).start().await;
        for client in world.clients("traffic-police") {
            forwarded_for(&client, &["192.0.2.1", "192.0.2.2"]).await;
            forwarded_for(&client, &[]).await;
        }
        for (position, got) in world.server("cameras").log.all().iter().enumerate() {
            let expected = if position % 2 == 0 { expected } else { "127.0.0.1" };
            assert_eq!(got.headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), [expected]);
        }
        world.close().await;
    }
}

/// Starts HAProxy as a TCP load balancer, with either version of the PROXY protocol.
fn haproxy(world: &World, address: SocketAddr, speaks: &str) -> Process {
    let config = world.folder().join(format!("{speaks}.cfg"));
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend in\n bind {address}\n default_backend out\n\
         backend out\n server gateway {} {speaks}\n",
        world.gateway_address()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = tool("haproxy");
    Process::spawn(command.arg("-db").arg("-f").arg(config).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[tokio::test]
async fn haproxy_forwards_connections_with_their_address() {
    let world = World::city().edit(listener("proxyProtocol", &["127.0.0.1"])).start().await;
    for speaks in ["send-proxy", "send-proxy-v2"] {
        let address = reserve_address();
        let mut haproxy = haproxy(&world, address, speaks);
        let stream = until("HAProxy listens", async || {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.77:0".parse().unwrap()).unwrap();
            socket.connect(address).await.ok()
        })
        .await;
        let mut stream = world.client("traffic-police").connect_over(stream).await.expect("a handshake");
        let answer = ask(&mut stream, READ).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        world.log.note("traffic-police", Seen::Outcome("ok"));
        haproxy.signal("TERM");
        haproxy.ended().await;
    }
    for got in world.server("cameras").log.all() {
        assert_eq!(got.header("x-forwarded-for"), "127.0.0.77");
    }
    world.close().await;
}
