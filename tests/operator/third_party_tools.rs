//! Third-party tools as in production: nginx behind the gateway, Prometheus beside it, curl and openssl in front of it,
//! and `sqlite3` on its book. A missing tool skips no test: the test fails and names the package to install.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{GATEWAY, Process, READ, Seen, World, reserve_address, run, stderr, stdout, tool, until};

/// Returns curl with a department's certificate.
fn curl(world: &World, department: &str, path: &str) -> Command {
    let identity = world.identity(department);
    let port = world.gateway_address().port();
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10"]).arg("--cacert").arg(world.pki.authority_file());
    curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
    curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{GATEWAY}:{port}{path}"));
    curl
}

#[tokio::test]
async fn curl_is_served_over_both_protocols() {
    let world = World::city().start().await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut command = curl(&world, "traffic-police", READ);
        command.args([flag, "-w", "\n%{http_version} %{http_code}"]);
        let ended = run(command).await;
        assert!(stdout(&ended).ends_with(&format!("{version} 200")), "{}{}", stdout(&ended), stderr(&ended));
        world.log.note("traffic-police", Seen::Outcome("ok"));

        let mut upload = curl(&world, "traffic-police", "/cameras/v1/snapshots");
        upload
            .args([flag, "-w", "%{http_code}", "-o", "/dev/null", "--data-binary"])
            .arg("x".repeat(300_000).get(..100_000).unwrap());
        let ended = run(upload).await;
        assert_eq!(stdout(&ended), "200", "{}", stderr(&ended));
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
    assert_eq!(usage.admitted("traffic-police").request_bytes, 200_000);
}

#[tokio::test]
async fn openssl_is_served_with_tls_12_and_13_without_session_tickets() {
    let world = World::city().start().await;
    let identity = world.identity("traffic-police");
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = tool("openssl");
        openssl.args(["s_client", version, "-servername", GATEWAY, "-verify_return_error", "-ign_eof", "-connect"]);
        openssl.arg(world.gateway_address().to_string()).arg("-CAfile").arg(world.pki.authority_file());
        openssl.arg("-cert").arg(&identity.certificate_file).arg("-key").arg(&identity.key_file);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = openssl.spawn().unwrap();
        let head = format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
        child.stdin.take().unwrap().write_all(head.as_bytes()).unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
        let words = format!("{}{}", stdout(&ended), stderr(&ended));
        assert!(words.contains("HTTP/1.1 200"), "{words}");
        assert!(!words.contains("New Session Ticket arrived"), "a session ticket was issued: {words}");
        world.log.note("traffic-police", Seen::Outcome("ok"));
    }
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

/// Starts nginx as a subsystem. Its access log is the subsystem's log for the audit. `listen` is its `listen`
/// directive: address and protocol.
pub fn nginx(folder: &Path, listen: &str) -> Process {
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  log_format books '$http_x_tallygate_department $http_x_tallygate_command $http_x_request_id $status $server_protocol';\n  \
         access_log {folder}/nginx-access.log books;\n  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n  \
         fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n  \
         keepalive_requests 100000;\n  server {{ listen {listen}; location / {{ return 200 'nginx\\n'; }}\n    \
         location /v1/snapshots/missing {{ return 404; }}\n    \
         location = /v1/snapshots {{ proxy_pass http://unix:{folder}/inner.sock; }} }}\n  \
         server {{ listen unix:{folder}/inner.sock; access_log off; location / {{ return 200 'read\\n'; }} }}\n}}\n",
        folder = folder.display(),
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = tool("nginx");
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("nginx-error.log"));
    Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[tokio::test]
async fn nginx_access_log_equals_the_ledger() {
    let address = reserve_address();
    let plan = World::city().subsystem("films").grant("traffic-police", "films", &["*"]);
    let plan = plan.grant("logistics", "films", &["snapshot.read"]);
    let plan =
        plan.edit(|document| document["subsystems"][1]["upstreams"] = json!([{ "url": format!("http://{address}") }]));
    let world = plan.build();
    let mut world = world;
    let mut nginx = nginx(world.folder(), &address.to_string());
    until("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    world.start_here().await;
    let clients = [world.client("traffic-police"), world.client("logistics").h2(), world.client("traffic-police").h2()];
    let load = clients.iter().map(|client| async move {
        for n in 0..200 {
            let path = if n % 10 == 0 { "missing".to_owned() } else { n.to_string() };
            client.get(&format!("/films/v1/snapshots/{path}")).await;
        }
    });
    futures_util::future::join_all(load).await;
    let folder = world.folder().to_owned();
    let log = until("the access log is complete", async || {
        let log = std::fs::read_to_string(folder.join("nginx-access.log")).unwrap_or_default();
        (log.lines().count() >= 600).then_some(log)
    })
    .await;
    nginx.signal("QUIT");
    nginx.ended().await;
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    let of = |department: &str, status: &str| {
        lines
            .iter()
            .filter(|line| line[0] == department && line[1] == "films/snapshot.read" && line[3] == status)
            .count() as u64
    };
    let ids: std::collections::HashSet<_> = lines.iter().map(|line| line[2]).collect();
    assert_eq!((lines.len(), ids.len()), (600, 600));
    let rows: Vec<_> = ["traffic-police", "logistics"]
        .into_iter()
        .flat_map(|department| {
            [(department, "ok", of(department, "200")), (department, "client_error", of(department, "404"))]
        })
        .collect();
    world.note_foreign_server();
    let usage = world.close().await;
    for (department, outcome, logged) in rows {
        assert_eq!(usage.of(department, outcome), logged, "{department} {outcome}");
    }
}

#[tokio::test]
async fn sqlite3_reads_the_book_while_it_is_written() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for _ in 0..50 {
        client.get(READ).await;
    }
    let sum = async || {
        let mut sqlite3 = tool("sqlite3");
        sqlite3.arg("-readonly").arg(world.book());
        sqlite3.arg("SELECT SUM(commands) FROM usage_hourly WHERE department = 'traffic-police' AND outcome = 'ok'");
        let ended = run(sqlite3).await;
        assert!(ended.status.success(), "{}", stderr(&ended));
        stdout(&ended).trim().to_owned()
    };
    until("the book has all fifty commands", async || (sum().await == "50").then_some(())).await;
    client.get(READ).await;
    until("the book has one more command", async || (sum().await == "51").then_some(())).await;
    world.close().await;
}

/// Starts Prometheus with the repository's scrape configuration. Only the interval is shorter, and the target is the
/// gateway.
pub fn prometheus(world: &World, address: SocketAddr) -> Process {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/prometheus.yml");
    let shipped = std::fs::read_to_string(&shipped).unwrap_or_else(|error| panic!("{}: {error}", shipped.display()));
    let paced = ["scrape_interval", "scrape_timeout", "refresh_interval", "evaluation_interval"];
    let quicken = |line: &str| match line.split_once(':') {
        Some((name, _)) if paced.contains(&name.trim()) => format!("{name}: 1s\n"),
        _ => format!("{line}\n"),
    };
    let write = |name: &str, text: &str| std::fs::write(world.folder().join(name), text).unwrap();
    write("prometheus.yml", &shipped.lines().map(quicken).collect::<String>());
    write("targets.json", &json!([{ "targets": [world.admin_address().to_string()] }]).to_string());
    let mut command = tool("prometheus");
    command.current_dir(world.folder()).arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=prometheus-data");
    command.arg(format!("--web.listen-address={address}"));
    let log = std::fs::File::create(world.folder().join("prometheus.log")).unwrap();
    Process::spawn(command.stdout(Stdio::null()).stderr(log))
}

async fn query(address: SocketAddr, query: &str) -> Option<Value> {
    query_at(address, query, None).await
}

/// Evaluates a query at a moment, in Unix seconds, or now.
pub async fn query_at(address: SocketAddr, query: &str, at: Option<i64>) -> Option<Value> {
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "5", "-G", "--data-urlencode"]).arg(format!("query={query}"));
    curl.args(at.map(|at| format!("-dtime={at}")));
    curl.arg(format!("http://{address}/api/v1/query"));
    let ended = run(curl).await;
    let answer: Value = serde_json::from_slice(&ended.stdout).ok()?;
    answer.pointer("/data/result").cloned()
}

#[tokio::test]
async fn prometheus_values_equal_the_ledger() {
    let world = World::city().start().await;
    let address = reserve_address();
    let mut prometheus = prometheus(&world, address);
    let clients = [world.client("traffic-police"), world.client("logistics").h2(), world.client("archive")];
    let load = clients.iter().map(|client| async move {
        for n in 0..300 {
            client.get(&format!("/cameras/v1/snapshots/{n}")).await;
        }
    });
    futures_util::future::join_all(load).await;
    let sums = until("Prometheus has scraped all 900", async || {
        let result = query(address, "sum by (department, outcome) (tallygate_commands_total)").await?;
        let total: u64 = result.as_array()?.iter().filter_map(value_of).sum();
        (total == 900).then_some(result)
    })
    .await;
    prometheus.signal("TERM");
    prometheus.ended().await;
    let usage = world.close().await;
    for sum in sums.as_array().unwrap() {
        let label = |name: &str| sum["metric"][name].as_str().unwrap();
        assert_eq!(value_of(sum), Some(usage.of(label("department"), label("outcome"))), "{sum}");
    }
    assert_eq!(usage.sum(|_| true), 900);
}

pub fn value_of(sample: &Value) -> Option<u64> {
    sample.pointer("/value/1")?.as_str()?.parse().ok()
}
