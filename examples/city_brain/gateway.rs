//! The gateway of the city: its configuration written out, its start through the library's public face.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tallygate::app::{Running, Start};
use tallygate::clock::Clock;

use crate::options::Options;
use crate::subsystems::Subsystems;

const TEMPLATE: &str = include_str!("city.yaml");
const LISTENER: &str = "departments";

/// The gateway at work, and where.
pub(crate) struct Gateway {
    running: Running,
    pub(crate) traffic: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts the gateway with the configuration of `city.yaml` in `folder`.
    pub(crate) fn start(folder: &Path, options: &Options, subsystems: &Subsystems) -> anyhow::Result<Self> {
        must_be_free(options.port, "--port")?;
        must_be_free(options.admin_port, "--admin-port")?;
        let config = write_configuration(folder, options, subsystems)?;
        let running =
            tallygate::app::start(Start { config, clock: Clock::system() }).context("the gateway did not start")?;
        let traffic = running.listener(LISTENER).context("the gateway has no listener for departments")?;
        let admin = running.admin().context("the gateway has no admin listener")?;
        Ok(Self { running, traffic, admin })
    }

    /// Drains and closes; blocks until the last count is in the book.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.running.shutdown().context("the gateway did not stop well")
    }
}

/// A clear sentence before anything is started, rather than an error from the depths.
fn must_be_free(port: u16, option: &str) -> anyhow::Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(problem) if problem.kind() == ErrorKind::AddrInUse => bail!(
            "Port {port} on 127.0.0.1 is in use. Stop what uses it (`ss -ltnp 'sport = :{port}'` shows it), or choose \
             another port: make demo ARGS=\"{option} {}\"",
            port.saturating_add(1)
        ),
        Err(problem) => Err(problem).with_context(|| format!("cannot listen on 127.0.0.1:{port}")),
    }
}

fn write_configuration(folder: &Path, options: &Options, subsystems: &Subsystems) -> anyhow::Result<PathBuf> {
    let path = folder.join("city.yaml");
    let text = [
        ("@PORT@", options.port.to_string()),
        ("@ADMIN_PORT@", options.admin_port.to_string()),
        ("@CAMERAS@", subsystems.cameras.to_string()),
        ("@CONTROL_CENTRE@", subsystems.control_centre.to_string()),
        ("@LOGISTICS@", subsystems.logistics.to_string()),
        ("@SIGNALS@", subsystems.signals.to_string()),
        ("@PARKING@", subsystems.parking.to_string()),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (gap, value)| text.replace(gap, value));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
