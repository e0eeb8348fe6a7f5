//! Path confusion: `/admin` is denied, everything else is open; thousands of spellings that nginx, Apache or Node might read as
//! `/admin` although the gateway would not. The subsystem itself says what it understood.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{GATEWAY, Process, Seen, World, free_address, tool, until, within};

/// What a server answers with when it has understood a path below `/admin`.
const UNDERSTOOD: &str = "x-zone: admin";

/// Spellings of `/admin`, each of which somebody somewhere has taken for it.
fn spellings() -> Vec<String> {
    let word = "admin";
    let mut all = vec!["/admin".to_owned(), "/ADMIN".to_owned(), "/Admin".to_owned(), "/admi%6E".to_owned()];
    for (position, letter) in word.char_indices() {
        let (before, after) = (&word[..position], &word[position + 1..]);
        let code = u32::from(letter);
        all.extend([
            format!("/{before}%{code:02x}{after}"),
            format!("/{before}%{code:02X}{after}"),
            format!("/{before}%25{code:02x}{after}"),
            format!("/{before}%u00{code:02x}{after}"),
            format!("/{before}%c1%{:02x}{after}", 0x80 | (code & 0x3f)), // overlong
            format!("/{before}%ef%bd%{:02x}{after}", 0x81 + code - 0x61), // full width
            format!("/{before}%00{letter}{after}"),
        ]);
    }
    all.extend(["%2fadmin", "%2Fadmin", "/%2fadmin", "%5cadmin", "\\admin", "/\\admin", "/;/admin"].map(str::to_owned));
    all
}

const BEFORE: [&str; 26] = [
    "",
    "/",
    "//",
    "/.",
    "/./.",
    "/x/..",
    "/x/../y/..",
    "/%2e",
    "/%2E/.",
    "/x/%2e%2e",
    "/x/.%2e",
    "/x/%2e.",
    "/x%2f..",
    "/x/..%2f",
    "/x\\..",
    "/x/..;",
    "/x/..;/y/..",
    "/;x",
    "/x;/..",
    "/.%00",
    "/%00",
    "/%20",
    "/%09",
    "/..",
    "/%252e%252e",
    "/x/..%5c",
];
const BEHIND: [&str; 24] = [
    "",
    "/",
    "/x",
    "//",
    "//x",
    "/.",
    "/./x",
    "/..",
    "/../admin",
    "/x/..",
    "/%2e",
    "/%2e%2e/admin",
    ";",
    ";x",
    "/;x",
    "%00",
    "%20",
    "%09",
    "?x",
    "?/../x",
    "%3fx",
    "%23x",
    "\\x",
    "%2fx",
];

/// Every spelling with something before it or behind it, and everything before with everything behind.
fn variants() -> Vec<String> {
    let mut all = Vec::new();
    for spelling in spellings() {
        all.extend(BEFORE.iter().map(|before| format!("{before}{spelling}")));
        all.extend(BEHIND.iter().map(|behind| format!("{spelling}{behind}")));
    }
    for before in BEFORE {
        all.extend(BEHIND.iter().map(|behind| format!("{before}/admin{behind}")));
    }
    let mut seen = HashSet::new();
    all.retain(|variant| variant.starts_with(['/', '%', '\\']) && seen.insert(variant.clone()));
    all
}

/// The three servers, each at an address, each telling what it understood.
struct Servers {
    addresses: [(&'static str, SocketAddr); 3],
    _processes: Vec<Process>,
}

impl Servers {
    async fn start(folder: &Path) -> Self {
        let addresses = ["nginx", "apache", "node"].map(|name| (name, free_address()));
        let [(_, nginx_at), (_, apache_at), (_, node_at)] = addresses;
        let processes = vec![nginx(folder, nginx_at), apache(folder, apache_at), node(folder, node_at)];
        for (name, address) in addresses {
            until(&format!("{name} listens"), async || TcpStream::connect(address).await.ok()).await;
        }
        Self { addresses, _processes: processes }
    }
}

fn spawn(mut command: std::process::Command, log: &Path) -> Process {
    let log = std::fs::File::create(log).unwrap();
    Process::spawn(command.stdout(Stdio::null()).stderr(log))
}

fn nginx(folder: &Path, address: SocketAddr) -> Process {
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/n.pid; error_log {at}/n-error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {at}/n1; proxy_temp_path {at}/n2; fastcgi_temp_path {at}/n3;\n\
         uwsgi_temp_path {at}/n4; scgi_temp_path {at}/n5;\n\
         server {{ listen {address};\n\
         location = /admin {{ add_header X-Zone admin always; return 200 admin; }}\n\
         location /admin/ {{ add_header X-Zone admin always; return 200 admin; }}\n\
         location / {{ add_header X-Zone open always; return 200 open; }} }} }}\n"
    );
    std::fs::write(folder.join("n.conf"), config).unwrap();
    let mut command = tool("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("n.conf"));
    spawn(command, &folder.join("n.log"))
}

fn apache(folder: &Path, address: SocketAddr) -> Process {
    let at = folder.display();
    std::fs::create_dir_all(folder.join("root")).unwrap();
    let config = format!(
        "ServerRoot {at}\nPidFile {at}/a.pid\nDefaultRuntimeDir {at}\nServerName gateway\nListen {address}\n\
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so\n\
         DocumentRoot {at}/root\nErrorLog {at}/a-error.log\nUser nobody\nGroup nogroup\nAllowEncodedSlashes On\n\
         <Location \"/\">\nHeader always set X-Zone open\n</Location>\n\
         <Location \"/admin\">\nHeader always set X-Zone admin\n</Location>\n"
    );
    std::fs::write(folder.join("a.conf"), config).unwrap();
    let mut command = tool("apache2");
    command.arg("-X").arg("-f").arg(folder.join("a.conf"));
    spawn(command, &folder.join("a.log"))
}

/// Reads paths as many an application does: decoded once, then normalised.
const NODE: &str = r#"
const http = require("http"), path = require("path");
const [host, port] = process.argv[2].split(":");
http.createServer((request, response) => {
  let understood = request.url.split("?")[0];
  try { understood = decodeURIComponent(understood); } catch {}
  understood = path.posix.normalize(understood.replaceAll("\\", "/"));
  const admin = understood === "/admin" || understood.startsWith("/admin/");
  response.setHeader("X-Zone", admin ? "admin" : "open");
  response.end(understood.replace(/[^ -~]/g, "?"));
}).listen(+port, host);
"#;

fn node(folder: &Path, address: SocketAddr) -> Process {
    std::fs::write(folder.join("server.js"), NODE).unwrap();
    let mut command = tool("node");
    command.arg(folder.join("server.js")).arg(address.to_string());
    spawn(command, &folder.join("node.log"))
}

/// A raw request, and the whole answer as lower-case text.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, target: &str) -> String {
    let head = format!("GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the whole answer", stream.read_to_end(&mut answer)).await; // what has come is judged
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// The outcome that an answer of the gateway stands for; none, if it was refused below the gateway's own sight.
fn outcome(answer: &str) -> Option<&'static str> {
    answer.contains("x-request-id").then_some(())?;
    let problem = answer.split("urn:tallygate:problem:").nth(1).and_then(|rest| rest.split('"').next());
    if let Some(problem) = problem {
        return tallygate::model::Outcome::all().map(tallygate::model::Outcome::name).find(|name| *name == problem);
    }
    Some(match answer.get(9..10) {
        Some("2" | "3") => "ok",
        Some("4") => "client_error",
        _ => "server_error",
    })
}

fn city(servers: &Servers) -> crate::world::Plan {
    let subsystems = servers.addresses.iter().map(|(name, address)| {
        json!({
            "id": name,
            "path": format!("/{name}"),
            "upstreams": [{ "url": format!("http://{address}") }],
            "otherCommands": "allow",
            "commands": [
                { "id": "admin", "match": { "path": "/admin" } },
                { "id": "admin.slash", "match": { "path": "/admin/" } },
                { "id": "admin.below", "match": { "path": "/admin/{*rest}" } },
            ],
        })
    });
    let subsystems: Vec<_> = subsystems.collect();
    let grants = servers
        .addresses
        .iter()
        .map(|(name, _)| json!({ "department": "traffic-police", "subsystem": name, "commands": ["other"] }));
    let grants: Vec<_> = grants.collect();
    World::city().edit(|document| {
        document["subsystems"] = json!(subsystems);
        document["grants"] = json!(grants);
    })
}

#[tokio::test]
async fn no_spelling_of_a_denied_path_reaches_what_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::start(folder.path()).await;
    let mut world = city(&servers).start().await;
    let variants = variants();
    let cells = servers.addresses.iter().flat_map(|server| variants.iter().map(move |variant| (server, variant)));
    let cells: Vec<_> = cells.collect();
    assert_eq!(cells.len(), 3 * 2_629, "docs/identity.md names the number");
    let asked = &world;
    let answers = futures_util::stream::iter(cells).map(async |((name, address), variant)| {
        let direct = ask(TcpStream::connect(address).await.unwrap(), variant).await;
        let stream = asked.client("traffic-police").connect().await.unwrap();
        let through = ask(stream, &format!("/{name}{variant}")).await;
        if let Some(outcome) = outcome(&through) {
            asked.log.note("traffic-police", Seen::Outcome(outcome));
        }
        (name, variant, direct, through)
    });
    let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
    let bypasses = answers.iter().filter(|(_, _, _, through)| through.contains(UNDERSTOOD));
    let bypasses: Vec<_> = bypasses.map(|(name, variant, _, _)| format!("{name} {variant}")).collect();
    assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));

    // The test can fail: the servers do understand many of these as /admin, and the gateway does let harmless ones through.
    for (server, _) in &servers.addresses {
        let of_server = || answers.iter().filter(|(name, ..)| *name == server);
        let understood =
            of_server().filter(|(_, variant, direct, _)| direct.contains(UNDERSTOOD) && !variant.starts_with("/admin"));
        let (understood, open) =
            (understood.count(), of_server().filter(|(_, _, _, through)| through.contains("x-zone: open")).count());
        assert!(understood >= 50 && open >= 10, "{server}: {understood} understood as denied, {open} let through");
    }
    world.note_foreign_server();
    world.close().await;
}
