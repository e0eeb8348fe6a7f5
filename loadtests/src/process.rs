//! Child processes of a run: pinned to a core, stopped by process id, never left behind.
//!
//! Guarantees:
//! - A child ends with its [`Child`], or with this process if this process is killed.
//! - The child's stderr is stored in a file. Every error about the child contains the end of that file.
//! - A stop is graceful (SIGTERM) for a bounded time, and then SIGKILL.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The longest time between SIGTERM and the end of a process.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Polling interval of waiting loops.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A process to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The name in messages and in the name of the log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// The arguments.
    pub arguments: Vec<String>,
    /// The only core of the process, if it is pinned.
    pub core: Option<usize>,
}

/// A running process and its pipes.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a process. Its stderr goes to `NAME.log` in `folder`.
    pub fn start(launch: Launch, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", launch.name));
        let mut process = command(&launch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).with_context(|| format!("making {}", log.display()))?)
            .spawn()
            .with_context(|| format!("starting {} ({})", launch.name, launch.program.display()))?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().map(BufReader::new);
        Ok(Self { name: launch.name, process, log, stdin, stdout })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Reads the next line of stdout; returns an error if the process ended.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.stdout {
            stdout.read_line(&mut line)?;
        }
        ensure!(!line.is_empty(), "{} ended early; {}", self.name, self.last_words());
        Ok(line)
    }

    /// Writes a line to stdin.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("{} has no stdin", self.name))?;
        writeln!(stdin, "{line}").with_context(|| format!("writing to {}", self.name))
    }

    /// Polls `ready` until it returns true; returns an error if the process ends or the limit passes.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !ready() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at its start ({status}); {}", self.name, self.last_words());
            }
            ensure!(begin.elapsed() < limit, "{} was not ready in {limit:?}; {}", self.name, self.last_words());
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Kills the process (SIGKILL, without a shutdown) and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill().with_context(|| format!("killing {}", self.name))?;
        Ok(self.process.wait()?)
    }

    /// Waits for the process to end by itself; returns an error if it is still running after `limit`.
    pub fn ended_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(begin.elapsed() < limit, "{} did not end in {limit:?}; {}", self.name, self.last_words());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends SIGTERM and waits; returns an error if the process had to be killed.
    pub fn stop(mut self) -> Result<()> {
        ensure!(self.end()?, "{} did not end {STOP_LIMIT:?} after SIGTERM; {}", self.name, self.last_words());
        Ok(())
    }

    /// The end of the process's stderr.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        if lines.is_empty() {
            return "it said nothing on stderr".to_owned();
        }
        format!("its last words:\n  {}", lines[lines.len().saturating_sub(12)..].join("\n  "))
    }

    /// Ends the process; returns whether it ended without being killed.
    fn end(&mut self) -> Result<bool> {
        if self.process.try_wait()?.is_some() {
            return Ok(true);
        }
        terminate(self.id())?;
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(false)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.end(); // an error has no recipient in a destructor
    }
}

/// Runs the program under `setpriv`, which ends the child when this process dies, and `taskset`, which pins it. Every
/// Debian has both.
fn command(launch: &Launch) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(core) = launch.core {
        command.args(["taskset", "--cpu-list", &core.to_string()]);
    }
    command.arg(&launch.program).args(&launch.arguments);
    command
}

fn terminate(id: u32) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-c", &format!("kill -TERM {id}")]).status()?;
    ensure!(status.success(), "could not send SIGTERM to process {id}");
    Ok(())
}

/// A free loopback address. Another process may bind it first; then the start fails with an error.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}

/// This program, for the parts of a run that are separate processes.
pub fn myself() -> Result<PathBuf> {
    std::env::current_exe().context("finding the path of this program")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Launch { name: "shell".to_owned(), program: "/bin/sh".into(), arguments, core: Some(0) }
    }

    #[test]
    fn output_of_a_child_that_ends_early_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Child::start(shell("echo no such file >&2; exit 3"), folder.path()).expect("a shell");
        let complaint = child.wait_until(STOP_LIMIT, || false).expect_err("it ended").to_string();
        assert!(complaint.contains("no such file") && complaint.contains('3'), "{complaint}");
    }

    #[test]
    fn child_responds_on_its_pipes_and_stops_on_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child =
            Child::start(shell("read word; echo heard $word; exec sleep 60"), folder.path()).expect("a shell");
        child.write_line("hello").expect("a line in");
        assert_eq!(child.read_line().expect("a line out"), "heard hello\n");
        child.stop().expect("a polite end");
    }
}
