//! The gateway whose memory is measured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Options, SUBSYSTEMS};
use crate::http;
use crate::pki::department;
use crate::process::{Child, Launch, free_address};

/// Startup timeout of the gateway.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Resident memory as the kernel accounts for it, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) all: u64,
    pub(super) own: u64,
    pub(super) file: u64,
}

impl Resident {
    pub(super) fn mib(self) -> u64 {
        self.all >> 20
    }
}

/// The gateway's folder and ledger, which are the same over all its restarts.
#[derive(Debug)]
pub(super) struct Gateway {
    program: PathBuf,
    folder: PathBuf,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    child: Option<Child>,
}

impl Gateway {
    /// Writes the configuration.
    pub(super) fn make(options: &Options, folder: &Path, upstream: SocketAddr) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let text = serde_json::to_string_pretty(&document(options, [address, admin, upstream]))?;
        std::fs::write(folder.join("gateway.yaml"), text)?;
        Ok(Self { program: options.tallygate.clone(), folder: folder.to_owned(), address, admin, child: None })
    }

    /// The estimate of memory that the command `check` prints.
    pub(super) fn check(&self) -> Result<String> {
        let output = self.tallygate(&["check", "--config", "gateway.yaml"])?;
        let line = output.lines().find(|line| line.trim_start().starts_with("memory:"));
        Ok(line.context("check has a line about memory")?.trim().to_owned())
    }

    /// Runs `ledger verify`, which must find no problem.
    pub(super) fn verify(&self) -> Result<()> {
        self.tallygate(&["ledger", "verify", "--ledger", "ledger.db"]).map(drop)
    }

    fn tallygate(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.canonicalize()?;
        let output = Command::new(program).args(arguments).current_dir(&self.folder).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(said)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let config = self.folder.join("gateway.yaml").display().to_string();
        let arguments = vec!["serve".to_owned(), "--config".to_owned(), config];
        let launch = Launch { name: "gateway".into(), program: self.program.clone(), arguments, core: None };
        let child = self.child.insert(Child::start(launch, &self.folder)?);
        child.wait_until(START_LIMIT, || http::get(self.admin, "/readyz").is_ok())
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        self.child.take().map_or(Ok(()), Child::stop)
    }

    pub(super) fn resident(&self) -> Result<Resident> {
        let id = self.child.as_ref().context("the gateway runs")?.id();
        let file = format!("/proc/{id}/status");
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.with_context(|| format!("{file} has no {name}"))?.trim().trim_end_matches(" kB");
            Ok::<_, anyhow::Error>(kib.parse::<u64>()? * 1024)
        };
        Ok(Resident { all: field("VmRSS")?, own: field("RssAnon")?, file: field("RssFile")? })
    }

    pub(super) fn tally_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.folder.join("ledger.tally")).context("the tally")?.len())
    }
}

fn document(options: &Options, [address, admin, upstream]: [SocketAddr; 3]) -> Value {
    let departments = || (0..options.departments).map(department);
    let numbers = |subsystem: usize| (subsystem..options.commands).step_by(SUBSYSTEMS);
    let command =
        |number: usize| json!({ "id": format!("command-{number}"), "match": { "path": format!("/c{number}") } });
    let subsystem = |number: usize| {
        json!({
            "id": format!("subsystem-{number}"),
            "path": format!("/s{number}"),
            "upstreams": [{ "url": format!("http://{upstream}") }],
            "commands": numbers(number).map(command).collect::<Vec<_>>(),
        })
    };
    let caller = |id: &String| json!([{ "uri": format!("spiffe://city.example/department/{id}") }]);
    let grants = departments().flat_map(|id| {
        (0..SUBSYSTEMS).map(
            move |number| json!({ "department": id, "subsystem": format!("subsystem-{number}"), "commands": ["*"] }),
        )
    });
    json!({
        "listeners": [{
            "name": "departments",
            "address": address.to_string(),
            "tls": {
                "certificate": "pki/server.pem",
                "key": "pki/server.key",
                "clientAuth": { "mode": "required", "authorities": ["pki/ca.pem"] },
            },
        }],
        "admin": { "address": admin.to_string() },
        "ledger": { "path": "ledger.db" },
        "workers": 2,
        "shutdown": { "delay": "1ms", "grace": "5s" },
        "departments": departments().map(|id| json!({ "id": id, "callers": caller(&id) })).collect::<Vec<_>>(),
        "subsystems": (0..SUBSYSTEMS).map(subsystem).collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
    })
}
