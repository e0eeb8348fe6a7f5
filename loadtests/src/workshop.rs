//! The environment of a run: a folder, certificates, an upstream and drivers, all removed at the end.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::driver::{Drive, Report, WARM};
use crate::pki::Pki;
use crate::process::{Child, Launch, myself};
use crate::upstream::Addresses;

/// The environment of one run.
#[derive(Debug)]
pub struct Workshop {
    folder: TempDir,
    pki: Pki,
    /// The core of upstream and drivers, if they are pinned.
    core: Option<usize>,
    addresses: Addresses,
    _upstream: Child,
    numbered: Cell<u32>,
}

impl Workshop {
    /// Creates folder and certificates and starts the upstream. Upstream and drivers are pinned to `core`.
    pub fn open(core: Option<usize>) -> Result<Self> {
        Self::open_with(core, Duration::ZERO)
    }

    /// As [`Workshop::open`], with a response time of `delay` at the upstream.
    pub fn open_with(core: Option<usize>, delay: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("loadtests-").tempdir().context("making a folder for the run")?;
        let pki = Pki::make(&folder.path().join("pki"))?;
        let arguments = vec!["upstream".into(), "--delay-ms".into(), delay.as_millis().to_string()];
        let launch = Launch { name: "upstream".into(), program: myself()?, arguments, core };
        let mut upstream = Child::start(launch, folder.path())?;
        let addresses = serde_json::from_str(&upstream.read_line()?).context("reading the upstream's addresses")?;
        Ok(Self { folder, pki, core, addresses, _upstream: upstream, numbered: Cell::new(0) })
    }

    /// The certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The addresses of the upstream.
    pub fn upstream(&self) -> &Addresses {
        &self.addresses
    }

    /// Creates an unused folder.
    pub fn new_folder(&self, name: &str) -> Result<PathBuf> {
        self.numbered.set(self.numbered.get() + 1);
        let folder = self.folder.path().join(format!("{name}-{}", self.numbered.get()));
        std::fs::create_dir(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts a driver as a separate process.
    pub fn driver(&self, plan: &Drive) -> Result<Driver> {
        let name = format!("driver-{}", plan.protocol.name());
        let launch = Launch { name, program: myself()?, arguments: plan.arguments(), core: self.core };
        Ok(Driver(Child::start(launch, self.folder.path())?))
    }

    /// Leaves the folder in place for an investigation.
    pub fn keep(self) -> PathBuf {
        let Self { folder, .. } = self;
        folder.keep()
    }
}

/// A running driver.
#[derive(Debug)]
pub struct Driver(Child);

impl Driver {
    /// Waits until a driver with `hold` is connected and warm.
    pub fn warm(&mut self) -> Result<()> {
        let line = self.0.read_line()?;
        anyhow::ensure!(line.trim_end() == WARM, "the driver said {line:?} instead of {WARM:?}");
        Ok(())
    }

    /// Lets a driver with `hold` continue.
    pub fn go(&mut self) -> Result<()> {
        self.0.write_line("go")
    }

    /// Waits for the driver's report.
    pub fn report(&mut self) -> Result<Report> {
        serde_json::from_str(&self.0.read_line()?).context("reading the driver's report")
    }
}
