//! The demo's options and its working folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// The default port of the gateway.
pub(crate) const PORT: u16 = 8443;
/// The default port of the metrics.
pub(crate) const ADMIN_PORT: u16 = 9090;
/// Duration of the warehouse's growth when the demo has no time limit.
const GROWTH: Duration = Duration::from_secs(120);

/// A small city behind a Tallygate, to try it on.
#[derive(Debug, clap::Parser)]
#[command(name = "city_brain")]
pub(crate) struct Options {
    /// Stop after this number of seconds; without it, on Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Keep configuration, certificates and ledger in this folder; without it they are removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Port of the gateway.
    #[arg(long, default_value_t = PORT)]
    pub(crate) port: u16,
    /// Port of the metrics.
    #[arg(long, default_value_t = ADMIN_PORT)]
    pub(crate) admin_port: u16,
}

impl Options {
    pub(crate) fn length(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }

    pub(crate) fn growth(&self) -> Duration {
        self.length().unwrap_or(GROWTH)
    }
}

/// The folder of this run.
#[derive(Debug)]
pub(crate) enum Home {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Home {
    pub(crate) fn prepare(options: &Options) -> anyhow::Result<Self> {
        let Some(folder) = &options.dir else {
            let folder = tempfile::Builder::new().prefix("tallygate-city-").tempdir();
            return Ok(Self::Temporary(folder.context("cannot make a temporary folder")?));
        };
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        if folder.join("ledger.db").exists() {
            bail!("{} holds the ledger of an earlier run; choose an empty folder", folder.display());
        }
        Ok(Self::Kept(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.path().join("ledger.db")
    }

    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }
}
