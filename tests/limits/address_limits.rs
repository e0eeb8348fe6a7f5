//! Limits and restrictions by the address of clients, compared with a real nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{
    Client, Plan, Process, READ, Reply, World, empty, request, reserve_address, run, stdout, tool, until,
};

/// A city whose command `snapshot.read` has these keys, behind a proxy that names its clients.
fn city(keys: &[(&str, Value)]) -> Plan {
    World::city().edit(|document| {
        document["listeners"][0]["forwardedFor"] = json!(["127.0.0.0/8", "10.0.0.0/8"]);
        let commands = document["subsystems"][0]["commands"].as_array_mut().unwrap();
        let read = commands.iter_mut().find(|command| command["id"] == "snapshot.read").unwrap();
        for (key, value) in keys {
            read[*key] = value.clone();
        }
    })
}

/// Reads a snapshot for a client of the proxy.
async fn read_for(client: &Client, forwarded_for: &str) -> Reply {
    let mut request = request("GET", READ, empty());
    request.headers_mut().append("x-forwarded-for", forwarded_for.parse().unwrap());
    client.send(request).await
}

/// Starts nginx with a rate and a number of connections for each address.
async fn nginx(folder: &Path, address: SocketAddr, limits: &str) -> Process {
    let folder = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\naccess_log off; client_body_temp_path {folder}/body; \
         proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; \
         scgi_temp_path {folder}/scgi;\n\
         limit_req_zone $binary_remote_addr zone=minutes:1m rate=1r/m;\n\
         limit_req_zone $binary_remote_addr zone=hours:1m rate=1r/m;\n\
         server {{ listen {address}; location / {{ {limits} try_files /none @answer; }}\n\
         location @answer {{ return 200 'nginx'; }} }} }}\n"
    );
    fs::write(format!("{folder}/nginx.conf"), config).unwrap();
    let mut command = tool("nginx");
    command.args(["-p", &folder.to_string(), "-c", &format!("{folder}/nginx.conf")]);
    command.args(["-e", &format!("{folder}/nginx-error.log")]);
    let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    process
}

#[tokio::test]
async fn rate_admits_what_the_leaky_bucket_of_nginx_admits() {
    for (limits, keys) in [
        ("limit_req zone=minutes burst=5 nodelay;", json!({ "rates": [{ "rate": "1/m", "burst": 6 }], "status": 503 })),
        ("limit_req zone=minutes;", json!({ "rates": [{ "rate": "1/m", "burst": 1 }], "status": 503 })),
        (
            "limit_req zone=minutes burst=7 nodelay; limit_req zone=hours burst=3 nodelay;",
            json!({ "rates": [{ "rate": "1/m", "burst": 8 }, { "rate": "1/m", "burst": 4 }], "status": 503 }),
        ),
    ] {
        let world = city(&[("addressLimits", keys)]).start().await;
        let address = reserve_address();
        let mut nginx = nginx(world.folder(), address, limits).await;
        let mut expected = Vec::new();
        for _ in 0..10 {
            let mut curl = tool("curl");
            curl.args([
                "-sS",
                "--max-time",
                "10",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &format!("http://{address}/"),
            ]);
            expected.push(stdout(&run(curl).await).parse::<u16>().unwrap());
        }
        let client = world.client("logistics");
        for (position, expected) in expected.iter().enumerate() {
            let reply = client.get(READ).await;
            assert_eq!(reply.status, *expected, "{limits}: request {position}");
            assert_eq!(reply.status == 503, !reply.header("retry-after").is_empty());
        }
        nginx.signal("QUIT");
        nginx.ended().await;
        let refused = expected.iter().filter(|status| **status == 503).count() as u64;
        let usage = world.close().await;
        assert_eq!(usage.of("logistics", "rate_limited"), refused);
        assert_eq!(usage.of("logistics", "ok"), 10 - refused);
    }
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_are_limited_each() {
    let limits = json!({ "rates": [{ "rate": "1/h", "burst": 1 }], "except": ["192.0.2.9"] });
    let mut world = city(&[("addressLimits", limits)]).start().await;
    let client = world.client("logistics").h2();
    for (named, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("192.0.2.77, 192.0.2.2", 429), // what the client itself wrote does not count
        ("192.0.2.2, 10.1.2.3", 429),   // behind another trusted proxy
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("192.0.2.9", 200),
        ("192.0.2.9", 200),
        ("who knows", 200), // the proxy itself
        ("10.1.2.3, who knows", 429),
    ] {
        assert_eq!(read_for(&client, named).await.status, expected, "{named}");
    }
    // A reload refills no bucket.
    world.reload(|document| document["departments"][0]["name"] = json!("renamed")).await;
    assert_eq!(read_for(&client, "192.0.2.1").await.status, 429);
    let usage = world.close().await;
    assert_eq!((usage.of("logistics", "ok"), usage.of("logistics", "rate_limited")), (6, 6));
}

#[tokio::test]
async fn commands_in_flight_of_each_address_are_limited() {
    let plan = World::city().edit(|document| {
        document["listeners"][0]["forwardedFor"] = json!(["127.0.0.0/8"]);
        for command in document["subsystems"][0]["commands"].as_array_mut().unwrap() {
            command["addressLimits"] = json!({ "zone": "shared", "concurrent": 2, "status": 503 });
        }
    });
    let world = plan.start().await;
    let client = world.client("traffic-police").h2();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut held = request("GET", "/cameras/do/hold-a", empty());
        held.headers_mut().append("x-forwarded-for", "192.0.2.1".parse().unwrap());
        streams.push(client.open(held).await.unwrap());
    }
    let refused = read_for(&client, "192.0.2.1").await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_deref()), (503, Some("too_many_concurrent")));
    assert_eq!(read_for(&client, "192.0.2.2").await.status, 200);
    world.server("cameras").release("a");
    for stream in streams {
        stream.whole().await;
    }
    assert_eq!(read_for(&client, "192.0.2.1").await.status, 200);
    let usage = world.close().await;
    let outcomes = ["ok", "too_many_concurrent"].map(|outcome| usage.of("traffic-police", outcome));
    assert_eq!(outcomes, [4, 1]);
}

#[tokio::test]
async fn only_clients_of_the_listed_ranges_may_call() {
    let sources = json!({ "allow": ["192.0.2.0/24", "2001:db8::/32"], "deny": ["192.0.2.66"] });
    let world = city(&[("sources", sources)]).start().await;
    let client = world.client("logistics");
    for (named, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.66", 403),
        ("198.51.100.1", 403),
        ("192.0.2.1, 198.51.100.1", 403),
        ("198.51.100.1, 192.0.2.1", 200),
        ("2001:db8::1", 200),
        ("::ffff:192.0.2.7", 200),
    ] {
        assert_eq!(read_for(&client, named).await.status, expected, "{named}");
    }
    let usage = world.close().await;
    assert_eq!((usage.of("logistics", "ok"), usage.of("logistics", "forbidden")), (4, 3));
}
