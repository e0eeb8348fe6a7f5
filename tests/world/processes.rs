//! Child processes and waits: polling for conditions, reserved addresses, child processes that end with their owner, and
//! their memory.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The limit of every wait in the tests.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// Polls until `look` returns a value. Fails the test with `what` after the limit.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not reached within {WAIT_MAX:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads a growing number until two readings in a row differ by at most `tolerance`, and returns the last one. Only two
/// readings with a time between them can show that a number has stopped growing.
pub async fn until_steady(what: &str, tolerance: u64, read: impl Fn() -> u64) -> u64 {
    let mut last = 0;
    until(what, async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = std::mem::replace(&mut last, read());
        (last > 0 && last <= before + tolerance).then_some(last)
    })
    .await
}

/// The pause of a slow client. Its duration is the input of the test.
pub async fn pause_as_slow_client(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The pause of a slow server. Its duration is the input of the test.
pub async fn pause_as_slow_server(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Lets a timeout of the gateway, or a time without events, pass. The duration is the input of the test: no state shows
/// that a timer has not fired.
pub async fn let_time_pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits for a future within the limit. Fails the test with `what` after the limit.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("not reached within {WAIT_MAX:?}: {what}"))
}

/// The loopback address with port 0: the kernel assigns a free port at bind. For servers of the test itself.
pub const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// Reserves a loopback address for a program that takes a port number, or for an address at which nothing listens.
///
/// No other test gets the address: the port is in a block of this process ([`PortBlock`]), and a counter hands out each
/// port of the block in turn. Ports that another program uses are skipped.
pub fn reserve_address() -> SocketAddr {
    static BLOCK: LazyLock<PortBlock> = LazyLock::new(PortBlock::acquire);
    BLOCK.next_address()
}

/// A block of ports below the range of ephemeral ports (`ip_local_port_range`). Its first port is bound while the
/// process lives, so that two test processes never share a block. No port of a block is handed out twice, so a
/// reserved address stays reserved.
struct PortBlock {
    guard: TcpListener,
    next: AtomicU16,
}

impl PortBlock {
    const SIZE: u16 = 5_000;
    const FIRST_PORTS: std::ops::Range<u16> = 15_000..30_000;

    fn acquire() -> Self {
        let mut first_ports = Self::FIRST_PORTS.step_by(usize::from(Self::SIZE));
        let guard = first_ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        Self { guard: guard.expect("a free block of ports"), next: AtomicU16::new(0) }
    }

    fn next_address(&self) -> SocketAddr {
        let first = self.guard.local_addr().unwrap().port();
        let unused = || {
            let offset = self.next.fetch_add(1, Ordering::Relaxed);
            assert!(offset < Self::SIZE - 1, "all {} ports of this process's block are handed out", Self::SIZE);
            SocketAddr::from((Ipv4Addr::LOCALHOST, first + 1 + offset))
        };
        std::iter::repeat_with(unused).find(|address| TcpListener::bind(address).is_ok()).expect("endless")
    }
}

/// The variable with a folder whose tools are taken before those of the system: `make prometheus3-test` sets it.
const TOOLS_VARIABLE: &str = "TALLYGATE_TEST_TOOLS";

/// Returns the folder of tools that are taken before those of the system, if there is one.
pub fn tools_folder() -> Option<String> {
    std::env::var(TOOLS_VARIABLE).ok()
}

/// Returns a command line of a foreign tool. A missing tool fails the test; no test is skipped.
pub fn tool(name: &str) -> Command {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"].map(str::to_owned);
    let found = tools_folder().into_iter().chain(folders).map(|folder| format!("{folder}/{name}"));
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
