//! The gateway of a torture run: one folder, one ledger and one pair of ports over all its restarts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::callers::MANY;
use super::cgroup::Cgroup;
use crate::http;
use crate::pki::{DEPARTMENTS, department};
use crate::process::{Child, Launch, free_address};
use crate::proxy::Durability;

/// Startup timeout, including recovery.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Commands by department and outcome, from a report of the ledger's files.
pub type Usage = BTreeMap<(String, String), u64>;

/// The folder, ledger and ports of one gateway over all its restarts.
#[derive(Debug)]
pub struct House {
    program: PathBuf,
    folder: PathBuf,
    pub address: SocketAddr,
    admin: SocketAddr,
    lives: u32,
}

/// A report of the ledger: complete for comparison, and as sums for the audit.
#[derive(Clone, Debug)]
pub struct Books {
    pub all: Value,
    pub usage: Usage,
}

impl House {
    /// Writes a configuration into a new folder.
    pub fn make(program: &Path, folder: &Path, upstream: SocketAddr, durability: Durability) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (address, admin) = (free_address()?, free_address()?);
        let house = Self { program: program.to_owned(), folder: folder.to_owned(), address, admin, lives: 0 };
        let document = house.document(upstream, durability);
        std::fs::write(house.config(), serde_json::to_string_pretty(&document)?)?;
        Ok(house)
    }

    fn document(&self, upstream: SocketAddr, durability: Durability) -> Value {
        let departments = || (0..DEPARTMENTS).map(department);
        let durability = match durability {
            Durability::Process => "process",
            Durability::Machine => "machine",
        };
        let many = (0..MANY)
            .map(|n| json!({ "id": format!("many-{n}"), "match": { "method": "GET", "path": format!("/many/{n}") } }));
        let read = json!({ "id": "snapshot.read", "match": { "method": "GET", "path": "/v1/snapshots/{id}" } });
        json!({
            "listeners": [{
                "name": "departments",
                "address": self.address.to_string(),
                "tls": {
                    "certificate": "../pki/server.pem",
                    "key": "../pki/server.key",
                    "clientAuth": { "mode": "required", "authorities": ["../pki/ca.pem"] },
                },
            }],
            "admin": { "address": self.admin.to_string() },
            "ledger": { "path": "ledger.db", "durability": durability, "syncEvery": "50ms" },
            "workers": 2,
            "shutdown": { "delay": "1ms", "grace": "10s" },
            "departments": departments().map(|id| json!({
                "id": id, "name": id,
                "callers": [{ "uri": format!("spiffe://city.example/department/{id}") }],
            })).collect::<Vec<_>>(),
            "subsystems": [{
                "id": "cameras",
                "path": "/cameras",
                "upstreams": [{ "url": format!("http://{upstream}") }],
                "timeouts": { "connect": "2s", "response": "15s", "idle": "5m" },
                "commands": std::iter::once(read).chain(many).collect::<Vec<_>>(),
                "otherCommands": "refuse",
            }],
            "grants": departments().map(|id| json!({
                "department": id, "subsystem": "cameras", "commands": ["*"],
            })).collect::<Vec<_>>(),
        })
    }

    fn config(&self) -> PathBuf {
        self.folder.join("gateway.yaml")
    }

    /// The path of the book.
    pub fn book(&self) -> PathBuf {
        self.folder.join("ledger.db")
    }

    /// Length of the tally in bytes; 0 if there is none.
    pub fn tally_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.join("ledger.tally")).map_or(0, |file| file.len())
    }

    /// Starts the gateway, in a cgroup if one is given, without waiting for it.
    pub fn begin(&mut self, cgroup: Option<&Cgroup>) -> Result<Child> {
        self.lives += 1;
        let name = format!("gateway-{}", self.lives);
        let serve = ["serve".to_owned(), "--config".to_owned(), self.config().display().to_string()];
        let (program, arguments) = match cgroup {
            None => (self.program.clone(), serve.to_vec()),
            Some(cgroup) => cgroup.enter(&self.program, &serve),
        };
        Child::start(Launch { name, program, arguments, core: None }, &self.folder)
    }

    /// Starts the gateway and waits until it is ready; returns the time that the start took.
    pub fn start(&mut self, cgroup: Option<&Cgroup>) -> Result<(Child, Duration)> {
        let begin = Instant::now();
        let mut gateway = self.begin(cgroup)?;
        gateway.wait_until(START_LIMIT, || http::get(self.admin, "/readyz").is_ok())?;
        Ok((gateway, begin.elapsed()))
    }

    /// The output of the gateway's own `report` on the ledger's files, with or without a running gateway.
    pub fn books(&self) -> Result<Books> {
        read_books(&self.program, &self.book())
    }

    /// `tallygate_ledger_imbalance` of a running gateway.
    pub fn imbalance(&self) -> Result<i64> {
        let text = http::get(self.admin, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("tallygate_ledger_imbalance "));
        Ok(line.context("/metrics has no tallygate_ledger_imbalance")?.trim().parse()?)
    }
}

/// Runs the program's `report` on the files of a ledger.
pub fn read_books(program: &Path, book: &Path) -> Result<Books> {
    let mut command = Command::new(program);
    command.args(["report", "usage", "--from", "2000-01-01", "--to", "2100-01-01", "--format", "json", "--ledger"]);
    let output = command.arg(book).output().context("running tallygate report")?;
    ensure!(output.status.success(), "tallygate report failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut all: Value = serde_json::from_slice(&output.stdout).context("reading tallygate's report")?;
    // The time of the report and whether the period of a ledger can still change are not usage. A start changes both,
    // so both are removed.
    if let Some(document) = all.as_object_mut() {
        document.remove("made_at");
        document.remove("completeness");
        document.remove("ledgers");
    }
    let mut usage = Usage::new();
    for row in all["rows"].as_array().context("a report has rows")? {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let commands = row["commands"].as_u64().context("a row has commands")?;
        *usage.entry((text("department"), text("outcome"))).or_default() += commands;
    }
    Ok(Books { all, usage })
}
