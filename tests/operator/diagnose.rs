//! `tallygate diagnose`: the archive of a running gateway has what a bug report needs and none of the secrets that were
//! planted; what is away is named.

use std::path::Path;
use std::process::Command;

use crate::world::{READ, World, run, stderr, stdout, tool};

/// A secret of each kind. None may be in an archive.
const SECRETS: [&str; 7] = [
    "hunter2-of-a-url",
    "hunter2-of-a-header",
    "hunter2-of-a-cookie",
    "hunter2-of-a-bearer",
    "hunter2-of-a-query",
    "hunter2-of-a-comment",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7",
];

async fn diagnose(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    let ended = run({
        command.arg("diagnose").args(arguments);
        command
    })
    .await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// Unpacks an archive. Returns its folder.
async fn unpacked(archive: &Path, into: &Path) -> std::path::PathBuf {
    std::fs::create_dir(into).unwrap();
    let mut tar = tool("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(into);
    let ended = run(tar).await;
    assert!(ended.status.success(), "{}", stderr(&ended));
    std::fs::read_dir(into).unwrap().next().unwrap().unwrap().path()
}

/// All texts below a folder.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(texts(&path)),
            false => found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap())),
        }
    }
    found
}

#[tokio::test]
async fn archive_of_a_running_gateway_has_no_planted_secret() {
    let world = World::city().start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    let folder = world.folder();
    // A configuration of its own: it need not be valid to be packed.
    let [url, header, cookie, bearer, query, comment, key] = SECRETS;
    let config = folder.join("planted.yaml");
    let planted = format!(
        "# password: {comment}\ninclude: [planted.d/*.yaml]\nadmin: {{ address: 127.0.0.1:0 }}\nledger: {{ path: data/ledger.db }}\n\
         subsystems:\n  - id: cameras\n    path: /cameras\n    upstreams: [{{ url: \"http://user:{url}@10.0.0.1:80\" }}]\n    \
         headers: {{ request: {{ set: {{ x-backend-key: {header} }} }} }}\n    balance: {{ cookie: {{ name: route, secret: {cookie} }} }}\n"
    );
    std::fs::write(&config, planted).unwrap();
    std::fs::create_dir(folder.join("planted.d")).unwrap();
    let included = format!(
        "departments:\n  - id: parking\n    note: |\n      -----BEGIN PRIVATE KEY-----\n      {key}\n      -----END PRIVATE KEY-----\n"
    );
    std::fs::write(folder.join("planted.d/more.yaml"), included).unwrap();
    let log = folder.join("planted.log");
    let lines = format!(
        "INFO ready\nWARN GET http://user:{url}@10.0.0.1/a?token={query} authorization: Bearer {bearer}\n\
         ERROR -----BEGIN RSA PRIVATE KEY-----\\n{key}\\n-----END RSA PRIVATE KEY-----\nINFO cookie: route={cookie}\n"
    );
    std::fs::write(&log, lines).unwrap();
    let archive = folder.join("report.tar.gz");
    let (admin, book) = (world.admin_address().to_string(), world.book());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (config, book, log, out) = (text(&config), text(&book), text(&log), text(&archive));
    let all = ["--admin", &admin, "--config", &config, "--ledger", &book, "--log", &log, "--out", &out];
    let (code, printed, err) = diagnose(&all).await;
    assert!(code == 0 && err.is_empty(), "{printed}{err}");
    let folder = unpacked(&archive, &folder.join("unpacked")).await;
    let packed = texts(&folder);
    for (name, text) in &packed {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
        assert!(!text.contains("PRIVATE KEY-----"), "{name}");
        let shown = Path::new(name).strip_prefix(&folder).unwrap().display().to_string();
        assert!(printed.contains(&shown) || shown == "contents.txt", "{shown} is not printed: {printed}");
    }
    let of = |name: &str| -> &str {
        let found = packed.iter().find(|(path, _)| path.ends_with(name));
        &found.unwrap_or_else(|| panic!("no {name}: {printed}")).1
    };
    assert!(of("metrics.txt").contains("tallygate_commands_total{department=\"traffic-police\""));
    assert!(of("readyz.txt").starts_with("ready\n[+] ledger: balances, synced "), "{}", of("readyz.txt"));
    assert!(of("config.txt").contains(&world.version_on_disk()));
    assert!(of("ledger/verify.json").contains("\"ok\": true"));
    assert!(of("ledger/info.json").contains("\"adjustments\": 0"));
    assert!(of("machine.txt").contains("kernel Linux version "));
    assert!(of("0-planted.yaml.json").contains("\"x-backend-key\": \"[left out]\""));
    assert!(of("1-more.yaml.json").contains("\"id\": \"parking\""));
    assert!(of("problems.txt").contains("listeners"), "{}", of("problems.txt"));
    assert!(of("log.txt").contains("INFO ready"));
    let (code, _, err) = diagnose(&all).await;
    assert!(code == 2 && err.contains("report.tar.gz: it exists; name a new file"), "{err}");
    world.close().await;
}

#[tokio::test]
async fn archive_of_a_gateway_that_is_away_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("report.tar.gz");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (admin, out) = (closed.to_string(), archive.to_str().unwrap());
    let absent = folder.path().join("absent").display().to_string();
    let (code, printed, err) =
        diagnose(&["--admin", &admin, "--config", &absent, "--ledger", &absent, "--out", out]).await;
    assert!(code == 0 && err.is_empty(), "{printed}{err}");
    for expected in [
        "metrics.txt",
        "no connection: Connection refused",
        "No such file or directory",
        "there is no ledger at",
        "no --log was given",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let folder = unpacked(&archive, &folder.path().join("unpacked")).await;
    let names: Vec<String> = texts(&folder).into_iter().map(|(name, _)| name).collect();
    assert!(
        names.iter().any(|name| name.ends_with("machine.txt"))
            && names.iter().any(|name| name.ends_with("contents.txt")),
        "{names:?}"
    );
    let unwritable = "/proc/report.tar.gz";
    let (code, _, err) = diagnose(&["--admin", &admin, "--out", unwritable]).await;
    assert!(code == 2 && err.contains("name a new file in a folder that exists"), "{code} {err}");
}
