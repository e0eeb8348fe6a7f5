//! The conditions of a measurement: machine and versions.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// The properties of the machine that matter to a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's model name.
    pub cpu: String,
    /// Number of cores available to this process.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The 1-minute load average before the run. Above 0.5, another process was busy.
    pub load_before: String,
}

impl Machine {
    /// Describes this machine as it is now.
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

/// The first line of a program's version output, on stdout or stderr (nginx).
pub fn version(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("running {} {argument}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
}

/// Today's date in UTC, as `2026-10-01`.
pub fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().context("asking for the date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_is_identified_by_its_model_name() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: Some CPU\n"), "Some CPU");
        assert_eq!(cpu_name("processor\t: 0\n"), "unknown");
    }
}
