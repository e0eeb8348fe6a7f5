//! The proxies under load: Tallygate and its peers, started from the templates in `peers/`.
//!
//! Guarantees:
//! - Each start has its own folder, ports and (Tallygate) ledger.
//! - A start returns a ready proxy, or an error with the proxy's output.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cpu::{self, Cpu};
use crate::http;
use crate::process::{Child, Launch, free_address};
use crate::workshop::Workshop;

/// Startup timeout of a proxy.
pub const START_LIMIT: Duration = Duration::from_secs(15);

/// The proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// nginx from Debian.
    Nginx,
    /// HAProxy from Debian.
    Haproxy,
    /// Tallygate.
    Tallygate,
    /// Another build of Tallygate, for comparison.
    Before,
}

impl Kind {
    /// Whether the proxy is a build of the gateway and therefore has a ledger.
    pub fn is_gateway(self) -> bool {
        matches!(self, Self::Tallygate | Self::Before)
    }

    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Tallygate => "tallygate",
            Self::Before => "before",
        }
    }

    fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => ("nginx.conf", include_str!("../peers/nginx.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("../peers/haproxy.cfg")),
            Self::Tallygate | Self::Before => ("tallygate.yaml", include_str!("../peers/tallygate.yaml")),
        }
    }

    fn arguments(self, config: &Path) -> Vec<String> {
        let config = config.display().to_string();
        let words: &[&str] = match self {
            Self::Nginx => &["-e", "stderr", "-c", &config],
            Self::Haproxy => &["-db", "-f", &config],
            Self::Tallygate | Self::Before => &["serve", "--config", &config],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// The durability of counts: when Tallygate may send a response (CONTRACT: `ledger.durability`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the count survives the death of the process.
    Process,
    /// After the count survives the death of the machine.
    Machine,
}

/// The parameters of a start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The kind of proxy.
    pub kind: Kind,
    /// The program.
    pub program: PathBuf,
    /// The core to which the proxy is pinned, if it matters.
    pub core: Option<usize>,
    /// Tallygate's worker threads; the peers have one.
    pub workers: usize,
    /// Tallygate's durability.
    pub durability: Durability,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
    ready_after: Duration,
}

impl Proxy {
    /// Starts a proxy in front of the workshop's upstream and waits until it is ready.
    pub fn start(setup: &Setup, workshop: &Workshop) -> Result<Self> {
        Self::start_with(setup, workshop, START_LIMIT, |text, _folder| Ok(text))
    }

    /// As [`Proxy::start`], with a configuration that `prepare` completes. Its arguments are the text and the folder,
    /// in which it may write more files.
    pub fn start_with(
        setup: &Setup,
        workshop: &Workshop,
        limit: Duration,
        prepare: impl FnOnce(String, &Path) -> Result<String>,
    ) -> Result<Self> {
        let name = setup.kind.name();
        let folder = workshop.new_folder(name)?;
        let (listen, admin) = (free_address()?, free_address()?);
        let (file, template) = setup.kind.template();
        let config = folder.join(file);
        let text = prepare(fill(template, &values(setup, workshop, &folder, (listen, admin))), &folder)?;
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let arguments = setup.kind.arguments(&config);
        let launch = Launch { name: name.into(), program: setup.program.clone(), arguments, core: setup.core };
        let child = Child::start(launch, &folder)?;
        let begin = Instant::now();
        let mut proxy = Self { child, listen, admin, folder, ready_after: Duration::ZERO };
        proxy.child.wait_until(limit, || is_ready(setup.kind, listen, admin))?;
        proxy.ready_after = begin.elapsed();
        Ok(proxy)
    }

    /// The address of the downstream listener.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The address of Tallygate's admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The path of Tallygate's book.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.db")
    }

    /// The time from the start of the process until the proxy was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The CPU time used so far, including child processes.
    pub fn cpu(&self) -> Result<Cpu> {
        cpu::used_by(self.child.id())
    }

    /// Stops the proxy with SIGTERM.
    pub fn stop(self) -> Result<()> {
        self.child.stop()
    }
}

/// Whether the proxy is ready: Tallygate has a readiness endpoint, a peer is ready when it accepts a connection.
fn is_ready(kind: Kind, listen: SocketAddr, admin: SocketAddr) -> bool {
    match kind {
        Kind::Tallygate | Kind::Before => TcpStream::connect(admin).is_ok() && http::get(admin, "/readyz").is_ok(),
        Kind::Nginx | Kind::Haproxy => TcpStream::connect(listen).is_ok(),
    }
}

fn values(
    setup: &Setup,
    workshop: &Workshop,
    folder: &Path,
    (listen, admin): (SocketAddr, SocketAddr),
) -> Vec<(&'static str, String)> {
    let durability = match setup.durability {
        Durability::Process => "process",
        Durability::Machine => "machine",
    };
    vec![
        ("listen", listen.to_string()),
        ("admin", admin.to_string()),
        ("upstream", workshop.upstream().traffic.to_string()),
        ("pki", workshop.pki().folder().display().to_string()),
        ("folder", folder.display().to_string()),
        ("workers", setup.workers.to_string()),
        ("durability", durability.to_owned()),
    ]
}

/// The template with each `{{name}}` replaced by its value.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_every_template_is_filled() {
        let names = ["listen", "admin", "upstream", "pki", "folder", "workers", "durability"];
        let values = names.map(|name| (name, "value".to_owned()));
        for kind in [Kind::Nginx, Kind::Haproxy, Kind::Tallygate] {
            let text = fill(kind.template().1, &values);
            assert!(!text.contains("{{") && text.contains("value"), "{text}");
        }
    }
}
