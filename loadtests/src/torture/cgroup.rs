//! A memory cgroup: the kernel kills a gateway that exceeds the limit.
//!
//! Guarantees:
//! - No process outside the cgroup is affected.
//! - The gateway is the kernel's first choice to kill.
//! - The number of kills is read from the kernel.
//!
//! Requires root; works with both versions of cgroups.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A cgroup, which is removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    is_first: bool,
}

impl Cgroup {
    /// Creates a cgroup with a memory limit, in bytes.
    pub fn make(name: &str, limit: u64) -> Result<Self> {
        let first = Path::new("/sys/fs/cgroup/memory");
        let is_first = first.join("memory.limit_in_bytes").exists();
        let root = if is_first { first } else { Path::new("/sys/fs/cgroup") };
        let cgroup = Self { folder: root.join(name), is_first };
        std::fs::create_dir(&cgroup.folder).with_context(|| {
            format!(
                "making the cgroup {}: this wants root; `torture` does without if `oom` is left out of --kinds",
                cgroup.folder.display()
            )
        })?;
        cgroup.write(if is_first { "memory.limit_in_bytes" } else { "memory.max" }, &limit.to_string())?;
        Ok(cgroup)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// A command line that joins the cgroup, marks itself as the kernel's first choice to kill, and executes `program`.
    pub fn enter(&self, program: &Path, arguments: &[String]) -> (PathBuf, Vec<String>) {
        let procs = self.folder.join("cgroup.procs");
        let script = format!("echo $$ > {} && echo 1000 > /proc/self/oom_score_adj && exec \"$@\"", procs.display());
        let fixed = ["-c".to_owned(), script, "sh".to_owned(), program.display().to_string()];
        ("/bin/sh".into(), fixed.into_iter().chain(arguments.iter().cloned()).collect())
    }

    /// Fills the cgroup's memory until the kernel has killed a process in it. The filling process is the kernel's last
    /// choice.
    pub fn fill(&self) -> Result<()> {
        let before = self.kills()?;
        let procs = self.folder.join("cgroup.procs");
        let script = format!("echo $$ > {} && exec tail /dev/zero", procs.display()); // tail buffers a line without end
        let mut filler = Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::null()).spawn()?;
        filler.wait()?; // killed too if the gateway's memory was not enough
        ensure!(self.kills()? > before, "the kernel killed nobody in {}", self.folder.display());
        Ok(())
    }

    /// Number of processes in the cgroup that the kernel has killed.
    pub fn kills(&self) -> Result<u64> {
        let path = self.folder.join(if self.is_first { "memory.oom_control" } else { "memory.events" });
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("oom_kill ")) else {
            bail!("{} has no oom_kill: {text}", path.display());
        };
        Ok(line.trim().parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder); // a leftover empty cgroup is harmless
    }
}
