//! A real Prometheus beside the city: it scrapes the gateway's metrics, and each hour once the ledger has sealed it.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The hours behind the present one that are scraped: one demo has at most as many.
const HOURS_BACK: u32 = 48;

/// The running Prometheus. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Prometheus {
    /// Starts it with its files in `folder`; `None` if there is no such program.
    pub(crate) fn start(folder: &Path, gateway: SocketAddr) -> anyhow::Result<Option<Self>> {
        let address = free_address()?;
        let config = folder.join("prometheus.yml");
        fs::write(&config, configuration(gateway)).with_context(|| format!("cannot write {}", config.display()))?;
        let log = fs::File::create(folder.join("prometheus.log")).context("cannot write prometheus.log")?;
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match started {
            Ok(child) => Ok(Some(Self { child, address })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("prometheus did not start"),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM); // it has ended already
        }
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port for Prometheus")?;
    Ok(listener.local_addr()?)
}

/// The jobs of deploy/prometheus, but every second: the demo is short. The window takes the hours of the demo, which are
/// older than an hour when they are sealed.
fn configuration(gateway: SocketAddr) -> String {
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         storage: {{ tsdb: {{ out_of_order_time_window: 3d }} }}\n\
         scrape_configs:\n  \
         - job_name: tallygate\n    \
           static_configs: [{{ targets: [\"{gateway}\"] }}]\n  \
         - job_name: tallygate-hours\n    \
           metrics_path: /metrics/hours\n    \
           params: {{ back: [\"{HOURS_BACK}\"] }}\n    \
           honor_timestamps: true\n    \
           static_configs: [{{ targets: [\"{gateway}\"] }}]\n"
    )
}
