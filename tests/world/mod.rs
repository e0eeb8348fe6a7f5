//! The test harness: a small city for one test, with the real gateway, real subsystems, real callers, five books and
//! one audit.
//!
//! ```text
//! let mut world = World::city().start().await;
//! let reply = world.client("traffic-police").get("/cameras/v1/snapshots/1").await;
//! assert_eq!(reply.status, 200);
//! world.close().await;
//! ```

mod accept_any_cert;
mod audit_books;
mod client;
mod fixtures;
mod fragmenting_stream;
pub mod h2_frames;
pub mod kube_api;
pub mod kube_documents;
mod metrics;
mod pki;
mod processes;
pub mod raw_h2_server;
mod subsystem;
mod world_plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tallygate::app::RunningGateway;
use tallygate::clock::Clock;
use tallygate::identity::{MemoryOrDisk, MemoryTexts};

pub use accept_any_cert::AcceptAnyCert;
pub use audit_books::{Key as UsageKey, Usage};
pub use client::{
    Body, CallerLog, Client, Credentials, Reply, Seen, Stream, ask, empty, fed, request, request_to, whole,
};
pub use fixtures::{ATTEMPTS, EJECTED, IN_FLIGHT, QUEUED, READ, RETRIES, SUBMIT, canned_server};
pub use fragmenting_stream::FragmentingStream;
pub use metrics::Metrics;
pub use pki::{GATEWAY, Identity, Leaf, Pki, replace, spiffe};
pub use processes::{
    ANY_PORT, Process, let_time_pass, memory, pause_as_slow_client, pause_as_slow_server, reserve_address, run, stderr,
    stdout, tool, tools_folder, until, until_steady, within,
};
pub use subsystem::{Received, Server, listen};
pub use world_plan::Plan;

/// The file of the access log, in the world's folder.
pub const ACCESS_LOG: &str = "access.log";

/// A running city: gateway, subsystems, callers, and their logs.
pub struct World {
    folder: tempfile::TempDir,
    pub pki: Pki,
    /// The configuration as last written to the disk.
    pub document: Value,
    pub clock: Clock,
    servers: BTreeMap<String, Server>,
    gateway: Gateway,
    pub log: CallerLog,
    identities: BTreeMap<String, Identity>,
    /// Whether a subsystem is a foreign server, whose log the test itself compares.
    foreign_server: bool,
    /// Admitted commands that no subsystem received, because the gateway itself responded.
    answered_here: BTreeMap<(String, String), u64>,
    /// Requests that reached a subsystem twice, because a reused connection ended before the response.
    sent_again: u64,
    /// Whether every command has a line in the access log.
    access_log_is_whole: bool,
    closed: bool,
}

/// The way in which the gateway runs.
enum Gateway {
    /// In this process, through the library's public interface.
    Here(Box<RunningGateway>),
    /// As a process of the real binary.
    Process(Process),
    /// Not running.
    Stopped,
}

impl World {
    /// Returns a plan of a city with one subsystem, `cameras`, and three departments: `traffic-police` may run every
    /// command there, `logistics` may read, `archive` has no grant.
    pub fn city() -> Plan {
        Plan::city()
    }

    // ----- callers -----

    /// Returns a caller with a department's certificate, over HTTP/1.1.
    pub fn client(&self, department: &str) -> Client {
        let identity = self.identities.get(department).unwrap_or_else(|| panic!("no department {department}"));
        self.client_with(department, Some(identity.clone()))
    }

    /// Returns a caller over HTTP/1.1 and a caller over HTTP/2, both with a department's certificate.
    pub fn clients(&self, department: &str) -> [Client; 2] {
        [self.client(department), self.client(department).h2()]
    }

    /// Returns a caller with a certificate made by the test. Its commands are billed to `department`.
    pub fn client_with(&self, department: &str, identity: Option<Identity>) -> Client {
        Client::new(department, &self.credentials(identity), self.gateway_address(), &self.log)
    }

    /// Returns a caller with credentials made by the test.
    pub fn client_of(&self, department: &str, credentials: &Credentials) -> Client {
        Client::new(department, credentials, self.gateway_address(), &self.log)
    }

    /// Returns credentials that trust this city's authority, with both TLS versions.
    pub fn credentials(&self, identity: Option<Identity>) -> Credentials {
        Credentials { root: self.pki.root(), identity, versions: rustls::ALL_VERSIONS.to_vec() }
    }

    /// Returns a department's certificate.
    pub fn identity(&self, department: &str) -> &Identity {
        &self.identities[department]
    }

    /// Returns the address of the gateway's listener for departments.
    pub fn gateway_address(&self) -> std::net::SocketAddr {
        match &self.gateway {
            Gateway::Here(running) => running.listeners()[0].address.bound,
            _ => self.configured_address("/listeners/0/address"),
        }
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> std::net::SocketAddr {
        match &self.gateway {
            Gateway::Here(running) => running.admin().unwrap(),
            _ => self.configured_address("/admin/address"),
        }
    }

    fn configured_address(&self, pointer: &str) -> std::net::SocketAddr {
        self.document.pointer(pointer).and_then(Value::as_str).unwrap().parse().unwrap()
    }

    // ----- subsystems -----

    /// Returns a subsystem's server.
    pub fn server(&self, subsystem: &str) -> &Server {
        &self.servers[subsystem]
    }

    /// Returns the server of this name, if it exists.
    pub fn server_if_any(&self, name: &str) -> Option<&Server> {
        self.servers.get(name)
    }

    /// Adds a server. A reload may name it.
    pub fn add_server(&mut self, name: &str, server: Server) {
        self.servers.insert(name.into(), server);
    }

    /// Removes a server, so that its subsystem is down. The test keeps the server's log for the audit, if the log
    /// matters.
    pub fn remove_server(&mut self, name: &str) -> Server {
        self.servers.remove(name).unwrap()
    }

    /// Records that the log of a foreign server is compared by the test itself, or does not exist.
    pub fn note_foreign_server(&mut self) {
        self.foreign_server = true;
    }

    /// Records that the gateway itself responded to `count` commands of a department with `ok`; they reached no
    /// subsystem.
    pub fn note_answered_here(&mut self, department: &str, command: &str, count: u64) {
        *self.answered_here.entry((department.into(), command.into())).or_default() += count;
    }

    /// Records the number of safe requests that were sent twice, because a reused connection ended before the response.
    pub fn note_sent_again(&mut self, count: u64) {
        self.sent_again += count;
    }

    /// Records that some commands have no line in the access log, or that the test itself compares the lines.
    pub fn note_partial_access_log(&mut self) {
        self.access_log_is_whole = false;
    }

    // ----- the operator -----

    /// Returns a page of the admin listener: status and body.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        self.try_admin(path).await.unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    /// Like [`World::admin`], but returns an error if the listener does not accept connections.
    pub async fn try_admin(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let stream = tokio::net::TcpStream::connect(self.admin_address()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "localhost").body(empty())?;
        let answer = within("the admin answers", sender.send_request(request)).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }

    /// Returns a scrape of `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.admin("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics::parse(text)
    }

    /// Writes a changed configuration without a reload request to the gateway.
    pub fn write(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.document);
        replace(&self.config_file(), &serde_json::to_string_pretty(&self.document).unwrap());
    }

    /// Writes a changed configuration and reloads it. Fails the test if the gateway rejects the configuration.
    pub async fn reload(&mut self, change: impl FnOnce(&mut Value)) {
        self.write(change);
        self.running().reload().expect("the new configuration is accepted");
        let version = self.version_on_disk();
        until("the new configuration is live", async || self.admin("/config").await.1.contains(&version).then_some(()))
            .await;
    }

    /// Returns the version of the configuration on the disk: the first 12 hex digits of its SHA-256.
    pub fn version_on_disk(&self) -> String {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(std::fs::read(self.config_file()).unwrap());
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the gateway that runs in this process.
    pub fn running(&self) -> &RunningGateway {
        match &self.gateway {
            Gateway::Here(running) => running,
            _ => panic!("the gateway does not run in this process"),
        }
    }

    /// Returns the process of the gateway.
    pub fn process(&mut self) -> &mut Process {
        match &mut self.gateway {
            Gateway::Process(process) => process,
            _ => panic!("the gateway does not run as a process"),
        }
    }

    /// Returns the id of the gateway's process.
    pub fn process_id(&self) -> u32 {
        match &self.gateway {
            Gateway::Process(process) => process.0.id(),
            _ => panic!("the gateway does not run as a process"),
        }
    }

    /// Removes the process from the world, dead or alive.
    pub fn take_process(&mut self) -> Process {
        self.access_log_is_whole = false; // a process that is killed takes its last lines with it
        match std::mem::replace(&mut self.gateway, Gateway::Stopped) {
            Gateway::Process(process) => process,
            _ => panic!("the gateway does not run as a process"),
        }
    }

    // ----- files -----

    /// Returns the world's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the gateway's configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder().join("gateway.yaml")
    }

    /// Returns the lines of the access log, as far as they are written.
    pub fn access_log(&self) -> Vec<Value> {
        let text = self.access_log_text();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    fn access_log_text(&self) -> String {
        std::fs::read_to_string(self.folder().join(ACCESS_LOG)).unwrap_or_default()
    }

    /// Returns the path of the ledger's book.
    pub fn book(&self) -> PathBuf {
        self.folder().join("data/ledger.db")
    }

    /// Returns the usage that the ledger's files hold at this moment.
    pub fn usage(&self) -> Usage {
        Usage::of_files(&self.book())
    }

    /// Waits until the usage in the ledger's files satisfies a condition.
    pub async fn usage_when(&self, what: &str, fits: impl Fn(&Usage) -> bool) -> Usage {
        until(what, async || Some(self.usage()).filter(&fits)).await
    }

    /// Returns a command line of the gateway's own binary.
    pub fn tallygate(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tallygate"));
        command.args(arguments).current_dir(self.folder()).stdin(std::process::Stdio::null());
        command
    }

    // ----- begin and end -----

    /// Replaces port 0 in the configuration by reserved ports.
    fn reserve_addresses(&mut self) {
        let any_port = Value::from(ANY_PORT.to_string());
        for pointer in ["/listeners/0/address", "/admin/address"] {
            if self.document.pointer(pointer) == Some(&any_port) {
                self.write(|document| {
                    *document.pointer_mut(pointer).expect("an address") = reserve_address().to_string().into();
                });
            }
        }
    }

    /// Stops the gateway by graceful shutdown.
    pub async fn stop(&mut self) {
        match std::mem::replace(&mut self.gateway, Gateway::Stopped) {
            Gateway::Here(running) => {
                let stopped = tokio::task::spawn_blocking(move || running.shutdown());
                within("the gateway stops", stopped).await.unwrap().expect("the gateway stops well");
            }
            Gateway::Process(mut process) => {
                process.signal("TERM");
                let status = process.ended().await;
                assert!(status.success(), "{status}: {}", self.log_of_process());
            }
            Gateway::Stopped => {}
        }
    }

    /// Starts the gateway in this process. The gateway must not be running.
    pub async fn start_here(&mut self) {
        self.start_here_with(MemoryTexts::default()).await;
    }

    /// Like [`World::start_here`], with certificates and keys in memory beside those of the disk.
    pub async fn start_here_with(&mut self, texts: MemoryTexts) {
        let start = tallygate::app::StartOptions::new(self.config_file(), self.clock.clone());
        let source = Box::new(MemoryOrDisk(texts));
        let start = move || tallygate::app::start_with_pem_source(start, source);
        let started = tokio::task::spawn_blocking(start); // it creates runtimes
        let started = within("the gateway starts", started).await.unwrap();
        self.gateway = Gateway::Here(Box::new(started.unwrap_or_else(|error| panic!("the gateway starts: {error}"))));
        self.until_ready().await;
    }

    /// Starts the real binary. The gateway must not be running.
    pub async fn start_process(&mut self) {
        self.start_process_as(|command| command).await;
    }

    /// Starts the real binary by a changed command line, for example below another program or with other variables.
    pub async fn start_process_as(&mut self, change: impl FnOnce(std::process::Command) -> std::process::Command) {
        self.reserve_addresses();
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder().join("gateway.log")).unwrap();
        let mut command = change(self.tallygate(&["serve", "--config", "gateway.yaml"]));
        self.gateway = Gateway::Process(Process::spawn(command.stderr(log).stdout(std::process::Stdio::null())));
        self.until_ready().await;
    }

    /// Returns the standard error of the real binary.
    pub fn log_of_process(&self) -> String {
        std::fs::read_to_string(self.folder().join("gateway.log")).unwrap_or_default()
    }

    /// Kills the real binary with SIGKILL, without a graceful shutdown.
    pub async fn kill(&mut self) {
        let mut process = self.take_process();
        process.signal("KILL");
        process.ended().await;
    }

    async fn until_ready(&mut self) {
        until("the gateway is ready", async || {
            if let Gateway::Process(process) = &mut self.gateway
                && let Some(status) = process.0.try_wait().unwrap()
            {
                panic!("the gateway ended with {status}: {}", self.log_of_process());
            }
            self.try_admin("/readyz").await.ok().filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Ends a world whose gateway never ran, so that no books exist.
    pub fn abandon(&mut self) {
        assert!(matches!(self.gateway, Gateway::Stopped) && !self.book().exists(), "this world has books to audit");
        self.closed = true;
    }

    /// Ends the world and audits the books. The files on the disk remain for further checks.
    pub async fn close_into(mut self, look: impl FnOnce(&Path)) -> Usage {
        let usage = self.audit().await;
        look(self.folder());
        usage
    }

    /// Ends the world and audits the books.
    pub async fn close(mut self) -> Usage {
        self.audit().await
    }

    async fn audit(&mut self) -> Usage {
        self.closed = true;
        let scraped = match self.gateway {
            Gateway::Stopped => None,
            _ => Some(self.settled_metrics().await),
        };
        self.stop().await;
        let ledger = self.usage();
        assert_eq!(ledger, Usage::of_view(&self.book()), "the view and the ledger's reader differ");
        if let Some(metrics) = scraped {
            metrics_agree(&metrics, &ledger);
        }
        audit_books::callers_agree(&self.log.all(), &ledger);
        if self.access_log_is_whole {
            audit_books::access_log_agrees(&self.access_log_text(), &ledger);
        }
        if !self.foreign_server {
            let received = self.servers.values().flat_map(|server| server.log.all());
            let received: Vec<_> = received.filter(|request| !request.is_copy()).collect();
            audit_books::subsystems_agree(&received, (&self.answered_here, self.sent_again), &ledger);
        }
        ledger
    }

    /// Waits until no command is in flight, and returns a scrape of `/metrics`.
    async fn settled_metrics(&self) -> Metrics {
        until("nothing is in flight", async || {
            let metrics = self.metrics().await;
            (metrics.sum(IN_FLIGHT) == 0).then_some(metrics)
        })
        .await
    }
}

fn metrics_agree(metrics: &Metrics, ledger: &Usage) {
    assert_eq!(metrics.sum("tallygate_ledger_imbalance"), 0, "received is not admitted and refused");
    assert_eq!(metrics.commands(), ledger.commands(), "/metrics and the ledger differ");
    let units: u64 = ledger.0.values().map(|count| count.units).sum();
    assert_eq!(metrics.sum("tallygate_command_units_total"), i64::try_from(units).unwrap(), "units");
    let bytes: u64 = ledger.0.values().map(|count| count.response_bytes).sum();
    assert_eq!(metrics.sum("tallygate_response_bytes_total"), i64::try_from(bytes).unwrap(), "response bytes");
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.closed || std::thread::panicking(), "a test forgot world.close(): its books were not audited");
    }
}
