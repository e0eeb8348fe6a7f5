//! Passthrough: the bytes of a connection reach its server as they are, whatever the form of its ClientHello.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::connection_server::{
    BROKER, ConnectionServer, FAREWELL, NORTH, broker_certificate, bytes_agree, caller_config, city_with_server,
    connect, connect_over, passing_city,
};
use crate::world::{FragmentingStream, Process, Seen, reserve_address, run, stderr, stdout, tool, until};

#[tokio::test]
async fn connection_is_one_command_with_all_its_bytes() {
    let (plan, server) = city_with_server().await;
    let mut world = plan.start().await;
    let mut callers = Vec::new();
    for name in [BROKER, NORTH] {
        let mut caller = connect(&world, name, caller_config(&world.pki, None)).await.unwrap();
        caller.echo(b"a first line").await;
        caller.echo(&vec![7; 300_000]).await;
        assert_eq!(caller.end().await, FAREWELL, "the server speaks after its caller has ended");
        world.log.note("traffic-police", Seen::Outcome("ok"));
        callers.push(caller);
    }
    assert_eq!(server.names(), [BROKER, NORTH]);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
    assert_eq!(usage.admitted("traffic-police").units, 6);
    bytes_agree(&usage, "traffic-police", &callers.iter().collect::<Vec<_>>(), &[&server]);
}

#[tokio::test]
async fn fragmented_hello_is_routed_and_forwarded_as_it_is() {
    let (plan, server) = city_with_server().await;
    let mut world = plan.start().await;
    let stream = TcpStream::connect(world.gateway_address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = FragmentingStream::fragmented(stream); // records of one byte each, sent one by one
    let mut caller = connect_over(stream, NORTH, caller_config(&world.pki, None)).await.unwrap();
    caller.echo(b"whole").await;
    assert_eq!(caller.end().await, FAREWELL);
    assert_eq!(server.names(), [NORTH]);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    let counted = world.close().await.admitted("traffic-police");
    let (arrived, answered) = server.counts.both();
    assert_eq!((counted.request_bytes, counted.response_bytes), (arrived, answered));
    assert!(arrived > 6 * 200, "the server got {arrived} bytes: the records stay split");
}

#[tokio::test]
async fn servers_share_the_connections_and_stand_in_for_each_other() {
    let mut identity = None;
    let plan = passing_city(&[]).with_pki(|pki| identity = Some(broker_certificate(pki)));
    let (one, two) =
        (ConnectionServer::start(identity.as_ref()).await, ConnectionServer::start(identity.as_ref()).await);
    let nobody = reserve_address();
    let addresses: [SocketAddr; 3] = [nobody, one.address, two.address];
    let plan = plan.edit(|document| {
        let upstreams = addresses.map(|address| json!({ "url": format!("tcp://{address}") }));
        document["subsystems"][1]["upstreams"] = json!(upstreams);
        document["subsystems"][1]["balance"] = json!("roundRobin");
    });
    let mut world = plan.start().await;
    let mut callers = Vec::new();
    for _ in 0..6 {
        let mut caller = connect(&world, BROKER, caller_config(&world.pki, None)).await.unwrap();
        caller.echo(b"hello").await;
        assert_eq!(caller.end().await, FAREWELL);
        world.log.note("traffic-police", Seen::Outcome("ok"));
        callers.push(caller);
    }
    assert!(!one.names().is_empty() && !two.names().is_empty());
    assert_eq!(one.names().len() + two.names().len(), 6);
    world.note_foreign_server();
    let usage = world.close().await;
    bytes_agree(&usage, "traffic-police", &callers.iter().collect::<Vec<_>>(), &[&one, &two]);
}

#[tokio::test]
async fn openssl_talks_to_openssl() {
    let address = reserve_address();
    let mut identity = None;
    let plan = passing_city(&[address]).with_pki(|pki| identity = Some(broker_certificate(pki)));
    let identity = identity.unwrap();
    let mut command = tool("openssl");
    command.args(["s_server", "-quiet", "-rev", "-accept", &address.to_string()]);
    command.arg("-cert").arg(&identity.certificate_file).arg("-key").arg(&identity.key_file);
    let server = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    until("openssl listens", async || TcpStream::connect(address).await.ok()).await;
    let mut world = plan.start().await;
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = tool("sh");
        let gateway = world.gateway_address();
        let authority = world.pki.authority_file();
        client.arg("-c").arg(format!(
            "(echo drawer; sleep 1) | openssl s_client -quiet -no_ign_eof -verify_return_error {version} -connect {gateway} \
             -servername {NORTH} -verify_hostname {NORTH} -CAfile {}",
            authority.display()
        ));
        let ended = run(client).await;
        assert!(stdout(&ended).contains("reward"), "{}{}", stdout(&ended), stderr(&ended));
        world.log.note("traffic-police", Seen::Open); // openssl may leave before it has read the end
    }
    drop(server);
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.admitted("traffic-police").commands, 2);
}

#[tokio::test]
async fn proxy_header_comes_before_the_hello() {
    let (plan, server) = city_with_server().await;
    let plan = plan.edit(|document| document["listeners"][0]["proxyProtocol"] = json!(["127.0.0.1/32"]));
    let mut world = plan.start().await;
    let mut stream = TcpStream::connect(world.gateway_address()).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n").await.unwrap();
    let stream = FragmentingStream::unfragmented(stream);
    let mut caller = connect_over(stream, BROKER, caller_config(&world.pki, None)).await.unwrap();
    caller.echo(b"behind a balancer").await;
    assert_eq!(caller.end().await, FAREWELL);
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.note_foreign_server();
    bytes_agree(&world.close().await, "traffic-police", &[&caller], &[&server]);
}
