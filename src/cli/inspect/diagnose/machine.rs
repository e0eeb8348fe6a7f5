//! Facts about the machine and the gateway's process, from `/proc`.
//!
//! Guarantees: environment variables are not read; at most [`PROCESSES_MAX`] processes are described.

use std::fs;
use std::path::Path;

/// The most processes that are described.
const PROCESSES_MAX: usize = 8;
/// The first bytes of the command name of our processes, as the kernel cuts it off.
const COMMAND_NAME: &str = "tallygate";
/// The lines of `/proc/meminfo` that tell how full the memory is.
const MEMORY_LINES: [&str; 4] = ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"];

/// The program, the kernel, the distribution, processors and memory.
pub(super) fn machine_text(made_at: &str) -> String {
    let mut text = format!("made {made_at} by tallygate {}\n", env!("CARGO_PKG_VERSION"));
    text += &format!("kernel {}", read("/proc/version"));
    for line in read("/etc/os-release").lines().filter(|line| line.starts_with("PRETTY_NAME=")) {
        text += &format!("system {line}\n");
    }
    text += &format!("processors {}\n", std::thread::available_parallelism().map_or(0, usize::from));
    text += &format!("load {}", read("/proc/loadavg"));
    let memory = read("/proc/meminfo");
    for line in memory.lines().filter(|line| MEMORY_LINES.iter().any(|name| line.starts_with(name))) {
        text += &format!("{line}\n");
    }
    for file in ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/pids.max"] {
        let limit = fs::read_to_string(file).unwrap_or_else(|error| format!("{error}\n"));
        text += &format!("{file} {limit}");
    }
    text
}

/// Command line, state and limits of each running gateway of this machine: `tallygate serve` or `controller`.
pub(super) fn processes_text() -> Result<String, String> {
    let processes = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in processes.flatten() {
        let (folder, name) = (entry.path(), entry.file_name());
        let is_other = name.to_str().is_some_and(|pid| pid != own && pid.bytes().all(|digit| digit.is_ascii_digit()));
        if is_other && is_gateway(&folder) {
            found.push(folder);
        }
    }
    if found.is_empty() {
        return Err("no process of tallygate serve or controller runs on this machine".to_owned());
    }
    found.sort();
    Ok(found.iter().take(PROCESSES_MAX).map(|folder| process_text(folder)).collect())
}

fn is_gateway(folder: &Path) -> bool {
    let command = fs::read_to_string(folder.join("comm")).unwrap_or_default();
    let line = command_line(folder);
    command.starts_with(COMMAND_NAME) && (line.contains(" serve") || line.contains(" controller"))
}

fn command_line(folder: &Path) -> String {
    fs::read_to_string(folder.join("cmdline")).unwrap_or_default().replace('\0', " ")
}

fn process_text(folder: &Path) -> String {
    let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| format!("{error}\n"));
    let descriptors =
        fs::read_dir(folder.join("fd")).map_or_else(|error| error.to_string(), |all| all.count().to_string());
    format!(
        "process {}\n{}\nopen descriptors {descriptors}\n{}{}\n",
        folder.display(),
        command_line(folder),
        file("limits"),
        file("status"),
    )
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| format!("{file}: {error}\n"))
}
