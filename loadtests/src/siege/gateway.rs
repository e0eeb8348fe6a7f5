//! The gateway under attack: the real program in a cgroup with 512 MiB of memory and a given number of descriptors.
//!
//! Guarantees:
//! - All timeouts have their defaults, except the timeout of a request head. It is long enough for all slow heads to be
//!   in progress at once.
//! - The connection limits are raised to the number that the machine's descriptors allow, so that the attack gets in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::attack::{ATTACKER, Attack};
use super::subsystem::Subsystems;
use crate::http;
use crate::pki::{DEPARTMENTS, department};
use crate::process::{Child, Launch, free_address};
use crate::torture::cgroup::Cgroup;
use crate::torture::gateway::{Books, read_books};

/// Memory limit of the cgroup, in bytes.
pub const MEMORY: u64 = 512 * 1024 * 1024;

/// Limit of downstream connections. 2 x 9,700 + 512 is just under 20,000, a common descriptor limit.
pub const CONNECTIONS: usize = 9_700;

/// Limit of commands in flight in the overload attacks.
pub const IN_FLIGHT: usize = 200;

/// Limit of a department's commands in flight, in the overload with a limit.
const CONCURRENT: usize = 100;

/// Number of descriptors of a gateway that has few.
const FEW: usize = 1024;

/// Startup timeout of the gateway.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running gateway under attack.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    folder: PathBuf,
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    cgroup: Cgroup,
}

impl Gateway {
    /// Starts a gateway in a new folder, configured for this attack.
    pub fn start(program: &Path, folder: &Path, subsystems: &Subsystems, attack: Attack) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (address, admin) = (free_address()?, free_address()?);
        let config = folder.join("gateway.yaml");
        std::fs::write(&config, serde_json::to_string_pretty(&document(attack, [address, admin], subsystems))?)?;
        let cgroup = Cgroup::make(&format!("siege-{}", std::process::id()), MEMORY)?;
        let serve = ["serve".to_owned(), "--config".to_owned(), config.display().to_string()];
        let (inner, arguments) = cgroup.enter(program, &serve);
        let few = format!("--nofile={FEW}:{FEW}");
        let limit = if attack == Attack::Descriptors { few } else { "--nofile".to_owned() };
        let launch = launch(&limit, &inner, arguments);
        let mut child = Child::start(launch, folder)?;
        child.wait_until(START_LIMIT, || http::get(admin, "/readyz").is_ok())?;
        Ok(Self { program: program.to_owned(), folder: folder.to_owned(), address, admin, child, cgroup })
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let file = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has a VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Lowers the descriptor limit to the descriptors that are open now: the gateway cannot accept another connection.
    pub fn exhaust_descriptors(&self) -> Result<usize> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count();
        self.limit_descriptors(open)?;
        Ok(open)
    }

    /// Restores the descriptor limit.
    pub fn restore_descriptors(&self) -> Result<()> {
        self.limit_descriptors(FEW)
    }

    fn limit_descriptors(&self, soft: usize) -> Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status()?;
        ensure!(status.success(), "could not limit the gateway's descriptors to {soft}");
        Ok(())
    }

    /// Checks that the process is running and reports ready.
    pub fn is_alive(&self) -> Result<()> {
        ensure!(self.cgroup.kills()? == 0, "the kernel killed the gateway: more than {MEMORY} bytes");
        http::get(self.admin, "/readyz").with_context(|| self.child.last_words()).map(drop)
    }

    /// The contents of the ledger.
    pub fn books(&self) -> Result<Books> {
        read_books(&self.program, &self.folder.join("ledger.db"))
    }

    /// Stops the gateway with SIGTERM.
    pub fn stop(self) -> Result<()> {
        self.child.stop()
    }
}

fn launch(limit: &str, inner: &Path, arguments: Vec<String>) -> Launch {
    let name = "gateway".to_owned();
    if limit == "--nofile" {
        return Launch { name, program: inner.to_owned(), arguments, core: None };
    }
    let fixed = [limit.to_owned(), inner.display().to_string()];
    let arguments = fixed.into_iter().chain(arguments).collect();
    Launch { name, program: "prlimit".into(), arguments, core: None }
}

fn document(attack: Attack, [address, admin]: [SocketAddr; 2], subsystems: &Subsystems) -> Value {
    let commands =
        [("snapshot.read", "/v1/snapshots/{id}"), ("upload", "/upload"), ("large", "/large"), ("slow", "/slow")]
            .map(|(id, path)| json!({ "id": id, "match": { "path": path } }));
    let subsystem = |(id, upstream): (&str, SocketAddr)| {
        json!({
            "id": id,
            "path": format!("/{id}"),
            "upstreams": [{ "url": format!("http://{upstream}") }],
            "commands": commands,
            "otherCommands": "refuse",
        })
    };
    let pairs = [("cameras", subsystems.besieged), ("signals", subsystems.quiet)];
    let grants = (0..DEPARTMENTS).map(department).flat_map(|department| {
        pairs.map(|(subsystem, _)| json!({ "department": department, "subsystem": subsystem, "commands": ["*"] }))
    });
    json!({
        "listeners": [{
            "name": "departments",
            "address": address.to_string(),
            "tls": {
                "certificate": "../pki/server.pem",
                "key": "../pki/server.key",
                "clientAuth": { "mode": "required", "authorities": ["../pki/ca.pem"] },
            },
        }],
        "admin": { "address": admin.to_string() },
        "ledger": { "path": "ledger.db" },
        "workers": 2,
        "shutdown": { "delay": "1ms", "grace": "5s" },
        "capacity": capacity(attack),
        "departments": (0..DEPARTMENTS).map(|index| department_of(index, attack)).collect::<Vec<_>>(),
        "subsystems": pairs.map(subsystem),
        "grants": grants.collect::<Vec<_>>(),
    })
}

fn capacity(attack: Attack) -> Value {
    if attack == Attack::Descriptors {
        return json!({ "headTime": "60s" }); // the connection limits follow from the descriptors
    }
    let mut capacity = json!({
        "connections": CONNECTIONS,
        "departmentConnections": CONNECTIONS,
        "addressConnections": CONNECTIONS,
        "headTime": "60s",
    });
    if attack.is_overload() {
        capacity["inFlight"] = json!(IN_FLIGHT);
    }
    capacity
}

fn department_of(index: usize, attack: Attack) -> Value {
    let id = department(index);
    let callers = json!([{ "uri": format!("spiffe://city.example/department/{id}") }]);
    let mut department = json!({ "id": id, "name": id, "callers": callers });
    if index == ATTACKER && attack == Attack::OverloadWithinLimit {
        department["limits"] = json!({ "concurrent": CONCURRENT });
    }
    department
}
