//! What every run needs: a folder, certificates, an upstream, drivers; all gone at the end.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::driver::{Drive, Report, WARM};
use crate::pki::Pki;
use crate::process::{Child, Launch, myself};
use crate::upstream::Addresses;

/// The place of one run.
#[derive(Debug)]
pub struct Workshop {
    folder: TempDir,
    pki: Pki,
    /// Where upstream and drivers run, if it matters.
    core: Option<usize>,
    addresses: Addresses,
    _upstream: Child,
    numbered: Cell<u32>,
}

impl Workshop {
    /// Makes folder and certificates and starts the upstream; it and all drivers are pinned to `core`.
    pub fn open(core: Option<usize>) -> Result<Self> {
        Self::open_with(core, Duration::ZERO)
    }

    /// As [`Workshop::open`], with an upstream that takes its time.
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

    /// Where the upstream listens.
    pub fn upstream(&self) -> &Addresses {
        &self.addresses
    }

    /// A folder that nobody has used yet.
    pub fn new_folder(&self, name: &str) -> Result<PathBuf> {
        self.numbered.set(self.numbered.get() + 1);
        let folder = self.folder.path().join(format!("{name}-{}", self.numbered.get()));
        std::fs::create_dir(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts a driver as a process of its own.
    pub fn driver(&self, plan: &Drive) -> Result<Driver> {
        let name = format!("driver-{}", plan.protocol.name());
        let launch = Launch { name, program: myself()?, arguments: plan.arguments(), core: self.core };
        Ok(Driver(Child::start(launch, self.folder.path())?))
    }

    /// Leaves the folder where it is, for somebody to look into.
    pub fn keep(self) -> PathBuf {
        let Self { folder, .. } = self;
        folder.keep()
    }
}

/// A driver at work.
#[derive(Debug)]
pub struct Driver(Child);

impl Driver {
    /// Waits until a driver that holds is connected and warm.
    pub fn warm(&mut self) -> Result<()> {
        let line = self.0.read_line()?;
        anyhow::ensure!(line.trim_end() == WARM, "the driver said {line:?} instead of {WARM:?}");
        Ok(())
    }

    /// Tells a driver that holds to go on.
    pub fn go(&mut self) -> Result<()> {
        self.0.write_line("go")
    }

    /// Waits for its report.
    pub fn report(&mut self) -> Result<Report> {
        serde_json::from_str(&self.0.read_line()?).context("reading the driver's report")
    }
}
