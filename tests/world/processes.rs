//! Child processes and waits: polling for conditions, free ports, child processes that end with their owner, and their
//! memory.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The limit of every wait in the tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `look` returns a value. Fails the test with `what` after the limit.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a future within the limit. Fails the test with `what` after the limit.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Returns a free loopback address, with a port below the range of ephemeral ports.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 15_000 + (std::process::id() % 16) as u16 * 1_000;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Returns a command line of a foreign tool. A missing tool fails the test; no test is skipped.
pub fn tool(name: &str) -> Command {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"].iter().map(|folder| format!("{folder}/{name}"));
    let path = found.into_iter().find(|path| std::path::Path::new(path).exists());
    let path =
        path.unwrap_or_else(|| panic!("{name} is not installed; `make test` installs it (apt-get install {name})"));
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, off the test's own thread, within the limit of all waits.
pub async fn run(mut command: Command) -> Output {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within(&shown, output).await.unwrap();
    output.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// Returns standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A child process. Dropping it kills the process by its id.
pub struct Process(pub Child);

impl Process {
    /// Starts a command.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Sends a signal by name, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the process ends", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error means that the process has ended
        let _ = self.0.wait();
    }
}

/// Returns a process's memory in bytes by the kernel's account (proc(5)): `VmRSS`, the resident set, or `VmHWM`, its
/// peak.
pub fn memory(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
