//! The gateway of the city: writes its configuration and starts it through the library's public API.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tallygate::app::{RunningGateway, StartOptions};
use tallygate::clock::Clock;

use crate::subsystems::Subsystems;

const TEMPLATE: &str = include_str!("city.yaml");
const LISTENER: &str = "departments";

/// The running gateway and its addresses.
pub(crate) struct Gateway {
    running: RunningGateway,
    pub(crate) traffic: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// Starts the gateway with the configuration of `city.yaml` in `folder`.
    /// Its ports are those of traffic and of the admin listener.
    pub(crate) fn start(
        folder: &Path,
        ports: (u16, u16),
        subsystems: &Subsystems,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        must_be_free(ports)?;
        let config = write_configuration(folder, ports, subsystems)?;
        let running = tallygate::app::start(StartOptions::new(config, clock)).context("the gateway did not start")?;
        let traffic = running.listener(LISTENER).context("the gateway has no listener for departments")?;
        let admin = running.admin().context("the gateway has no admin listener")?;
        Ok(Self { running, traffic, admin })
    }

    /// Graceful shutdown; blocks until the last count is in the book.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.running.shutdown().context("the gateway did not stop well")
    }
}

/// Number of further ports that are tried if a port is in use.
const NEXT_PORTS: u16 = 50;

/// Checks both ports before the start, so that the error is clear if one is in use.
fn must_be_free((port, admin_port): (u16, u16)) -> anyhow::Result<()> {
    let asked = [("--port", port), ("--admin-port", admin_port)];
    let mut used = Vec::new();
    for (_, port) in asked {
        match bind(port) {
            Ok(_) => {}
            Err(problem) if problem.kind() == ErrorKind::AddrInUse => used.push(port),
            Err(problem) => return Err(problem).with_context(|| format!("cannot listen on 127.0.0.1:{port}")),
        }
    }
    if used.is_empty() {
        return Ok(());
    }
    let show: Vec<_> = used.iter().map(|port| format!("sport = :{port}")).collect();
    let instead =
        asked.map(|(option, port)| format!("{option} {}", if used.contains(&port) { free_after(port) } else { port }));
    let (ports, is) =
        (used.iter().map(u16::to_string).collect::<Vec<_>>().join(" and "), if used.len() > 1 { "are" } else { "is" });
    bail!(
        "Port {ports} on 127.0.0.1 {is} in use. Stop what uses it (`ss -ltnp '{}'` shows it), or choose other ports: make demo \
         ARGS=\"{}\"",
        show.join(" or "),
        instead.join(" ")
    )
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// The next free port after `port`; 0 (chosen by the system) if there is none.
fn free_after(port: u16) -> u16 {
    (1..=NEXT_PORTS).filter_map(|step| port.checked_add(step)).find(|next| bind(*next).is_ok()).unwrap_or(0)
}

fn write_configuration(
    folder: &Path,
    (port, admin_port): (u16, u16),
    subsystems: &Subsystems,
) -> anyhow::Result<PathBuf> {
    let path = folder.join("city.yaml");
    let text = [
        ("@PORT@", port.to_string()),
        ("@ADMIN_PORT@", admin_port.to_string()),
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
