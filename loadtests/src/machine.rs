//! Where and with what a measurement was made.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// The machine, as far as it matters to a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many cores we may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The load average of the last minute before the run: above 0.5, somebody else was at work.
    pub load_before: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Result<Self> {
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpu: cpu_name(&read("/proc/cpuinfo")?),
            cores: std::thread::available_parallelism()?.get(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {file}"))
}

fn cpu_name(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    model.and_then(|rest| rest.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned()
}

/// The first line that a program says about its version, on stdout or stderr (nginx).
pub fn version(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("running {} {argument}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
}

/// Today in UTC, `2026-10-01`.
pub fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().context("asking for the date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_known_by_its_name() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: Some CPU\n"), "Some CPU");
        assert_eq!(cpu_name("processor\t: 0\n"), "unknown");
    }
}
