//! The bandwidth limit of responses, compared with a real nginx.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Plan, Process, READ, World, empty, request, reserve_address, run, stdout, tool, until};

const SECOND: Duration = Duration::from_secs(1);
/// The time that a loaded machine may add.
const SLACK: Duration = Duration::from_secs(2);

/// A city whose command `do` has this limit.
fn city(limit: Value) -> Plan {
    World::city().edit(|document| document["subsystems"][0]["commands"][2]["bandwidthLimit"] = limit)
}

#[tokio::test]
async fn response_takes_the_time_that_it_takes_with_nginx() {
    // 160 KiB at 64 KiB per second, after 32 KiB: 2 s, of which nginx does without the first.
    let expected = SECOND..2 * SECOND + SLACK;
    let world = city(json!({ "rate": "64KiB", "after": "32KiB" })).start().await;
    let address = reserve_address();
    let folder = world.folder().join("nginx");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("bytes"), vec![b'x'; 160 * 1024]).unwrap();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\naccess_log off; client_body_temp_path {folder}/body; \
         proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; \
         scgi_temp_path {folder}/scgi;\n\
         server {{ listen {address}; location / {{ root {folder}; limit_rate 64k; limit_rate_after 32k; }} }} }}\n",
        folder = folder.display()
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = tool("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("error.log"));
    let mut nginx = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download} %{time_total}"]);
    curl.arg(format!("http://{address}/bytes"));
    let output = run(curl).await;
    let (length, seconds) = stdout(&output).split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(length, "163840");
    let by_nginx = Duration::from_secs_f64(seconds.trim().parse().unwrap());
    assert!(expected.contains(&by_nginx), "nginx took {by_nginx:?}");
    nginx.signal("QUIT");
    nginx.ended().await;
    for client in world.clients("traffic-police") {
        let begun = Instant::now();
        let reply = client.get("/cameras/do/bytes-163840").await;
        assert!(expected.contains(&begun.elapsed()), "the gateway took {:?}", begun.elapsed());
        assert_eq!(reply.body, vec![b'x'; 163_840]);
        assert_eq!(reply.header("content-length"), "163840");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn pause_is_no_silence_of_the_server_and_no_stall_of_the_client() {
    for plan in [city(json!({ "rate": "4KiB" })), city(json!({ "rate": "4KiB" })).http2_cameras()] {
        let plan = plan.edit(|document| {
            document["subsystems"][0]["timeouts"]["idle"] = json!("300ms");
            document["capacity"] = json!({ "responseIdle": "300ms" });
        });
        let world = plan.start().await;
        for client in world.clients("traffic-police") {
            let begun = Instant::now();
            let chunked = client.get("/cameras/do/chunks-12").await;
            assert_eq!(chunked.body, vec![b'y'; 12 * 1024]);
            assert!(begun.elapsed() >= SECOND, "12 KiB took {:?}", begun.elapsed());
        }
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 2);
    }
}

#[tokio::test]
async fn streams_of_a_connection_are_limited_each_and_others_are_not() {
    let world = city(json!({ "rate": "4KiB" })).start().await;
    let client = world.client("traffic-police").h2();
    let begun = Instant::now();
    let mut limited = Vec::new();
    for _ in 0..20 {
        limited.push(client.open(request("GET", "/cameras/do/bytes-8192", empty())).await.unwrap());
    }
    for _ in 0..20 {
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert!(begun.elapsed() < SECOND, "commands without a limit took {:?}", begun.elapsed());
    for stream in limited {
        assert_eq!(stream.whole().await.body, vec![b'x'; 8192]);
    }
    assert!((SECOND..2 * SECOND + SLACK).contains(&begun.elapsed()), "20 streams took {:?}", begun.elapsed());
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 40);
}

#[tokio::test]
async fn client_that_leaves_during_a_pause_is_counted_with_the_bytes_that_were_sent() {
    let world = city(json!({ "rate": "1KiB" })).start().await;
    for client in world.clients("traffic-police") {
        let mut stream = client.open(request("GET", "/cameras/do/bytes-100000", empty())).await.unwrap();
        let first = stream.next().await.unwrap().unwrap().len();
        assert!((1024..2048).contains(&first), "{first} bytes in the first second");
        drop(stream);
    }
    let usage = world.usage_when("the commands have ended", |usage| usage.of("traffic-police", "aborted") == 2).await;
    let bytes = usage.admitted("traffic-police").response_bytes;
    assert!((2 * 1024..2 * 10_000).contains(&bytes), "{bytes} bytes");
    world.close().await;
}

#[tokio::test]
async fn request_timeout_cuts_a_limited_response() {
    let world = city(json!({ "rate": "1KiB" }))
        .edit(|document| document["subsystems"][0]["commands"][2]["timeouts"] = json!({ "request": "1500ms" }))
        .start()
        .await;
    for client in world.clients("traffic-police") {
        let begun = Instant::now();
        let mut stream = client.open(request("GET", "/cameras/do/bytes-100000", empty())).await.unwrap();
        assert!(stream.read_to_end().await.is_err(), "the response is cut off");
        assert!((SECOND..2 * SECOND + SLACK).contains(&begun.elapsed()), "after {:?}", begun.elapsed());
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "timeout"), 2);
}

#[tokio::test]
async fn compressed_bytes_are_counted_and_trailers_are_kept() {
    let world = city(json!({ "rate": "1KiB" })).edit(|document| {
        document["subsystems"][0]["commands"][2]["compress"] = json!(true);
        document["subsystems"][0]["commands"][2]["headers"] =
            json!({ "response": { "set": { "Content-Type": "text/plain" } } });
    });
    let world = world.start().await;
    for client in world.clients("traffic-police") {
        let begun = Instant::now();
        let mut outgoing = request("GET", "/cameras/do/chunks-300", empty());
        outgoing.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let packed = client.send(outgoing).await;
        assert_eq!((packed.header("content-encoding"), packed.unpacked().len()), ("gzip", 300 * 1024));
        assert!(packed.body.len() < 4096 && begun.elapsed() < 4 * SECOND + SLACK, "{:?}", begun.elapsed());
        let mut outgoing = request("GET", "/cameras/do/trailers", empty());
        outgoing.headers_mut().insert("te", "trailers".parse().unwrap());
        let trailing = client.send(outgoing).await;
        assert_eq!(trailing.text(), "body");
        assert_eq!(trailing.trailers.expect("trailers")["x-checksum"], "42");
        let head = client.send(request("HEAD", "/cameras/do/bytes-50000", empty())).await;
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "50000"));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 6);
}
