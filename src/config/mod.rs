//! What was said (the document) and what it means (settings and snapshot).
//!
//! Guarantees: reading does nothing else; every problem is reported at once with its file, line and path; what comes out is
//! right.

mod compile;
mod document;
mod files;
mod include;
mod leaf;
mod loader;
mod locate;
mod misread;
mod problem;
mod read;
mod restart;
mod schema;
mod source;
mod sources;
mod warnings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::identity::{SubsystemTlsFiles, TlsFiles};
use crate::model::{CalendarOffset, Name, Networks, Numbers};
use crate::policy::{Durability, Snapshot};
use document::Document;

pub use files::trusted;
pub use loader::{Loaded, Loader};
pub use problem::{Problem, Problems, Reference, Site};
pub use restart::PendingSetting;
pub use schema::schema;
pub use source::Watch;
pub use sources::Sources;
pub use warnings::warnings;

/// A configuration, read and compiled.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What is read once, at start. A reload that changes it is told to restart.
    pub settings: Settings,
    /// What traffic runs on; replaced by a reload.
    pub snapshot: Arc<Snapshot>,
    /// How subsystems are met over TLS; replaced by a reload.
    pub subsystem_tls: Vec<SubsystemTlsSettings>,
    /// The files it was read from.
    pub sources: Sources,
}

/// How one subsystem is met over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemTlsSettings {
    /// Its position among the subsystems of all files.
    pub index: usize,
    /// Its id.
    pub name: Name,
    /// Keys and trust.
    pub files: SubsystemTlsFiles,
}

/// What is read once, at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The gateway's name in ledger and logs (`gateway:`, default `tallygate`).
    pub gateway: Name,
    /// Where callers come in; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Where operators come in.
    pub admin: Option<SocketAddr>,
    /// Names that operators come in by, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The book's path.
    pub ledger_path: PathBuf,
    /// The durability of commands that name none.
    pub durability: Durability,
    /// How soon a count survives the death of the machine.
    pub sync_every: Duration,
    /// How old a day is when its hours are forgotten; never, if there is none.
    pub compact_after: Option<Duration>,
    /// Traffic threads; default one per core, at most the smallest `maxRequests` of a server.
    pub workers: usize,
    /// The ledger's calendar.
    pub calendar: CalendarOffset,
    /// How the gateway stops (`shutdown: { delay: 5s, grace: 30s }`).
    pub shutdown: Shutdown,
    /// What one gateway carries at most.
    pub capacity: Capacity,
}

/// A place where callers come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Its name.
    pub name: Name,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its keys and trust.
    pub tls: TlsFiles,
    /// Connections it carries at most, if fewer than all listeners together.
    pub connections: Option<usize>,
    /// Who stands in front of callers.
    pub proxies: Proxies,
}

/// Who stands in front of a listener's callers, and is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Balancers of TCP that begin each connection with a PROXY header.
    pub protocol: Networks,
    /// Proxies whose `X-Forwarded-For` is kept.
    pub forwarded_for: Networks,
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Not ready, but still accepting: time for load balancers to notice. Default 5 s.
    pub delay: Duration,
    /// How long commands in flight may take to finish after that. Default 30 s.
    pub grace: Duration,
}

/// What one gateway carries at most (`capacity:`), with the defaults of docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections from callers, all listeners together. Default 10,000, or as many as file descriptors allow.
    pub connections: Option<usize>,
    /// Connections of one department. Default 1,000: none takes more than a tenth.
    pub department_connections: usize,
    /// Connections from one address. Default 1,000: none takes more than a tenth.
    pub address_connections: usize,
    /// TLS handshakes under way, for a moment twice as many. Default 1,024: some 22 MiB of memory if they all stall.
    pub handshakes: usize,
    /// Commands in flight. Default 20,000.
    pub in_flight: usize,
    /// Series of commands in `/metrics` before departments fold into `other`. Default 20,000.
    pub series: usize,
    /// The largest request head in bytes. Default 32 KiB.
    pub head_bytes: usize,
    /// Fields in a request head. Default 100.
    pub head_fields: usize,
    /// For a whole TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// For a whole HTTP/1.1 head, from its first byte; for the first one, or for what opens HTTP/2, from the handshake.
    /// Default 10 s.
    pub head_time: Duration,
    /// A connection without a command. Default 180 s.
    pub idle: Duration,
    /// Between two pieces of a request body. Default 60 s.
    pub body_idle: Duration,
    /// Bytes a second that a request body must have had on average, once its caller was waited for a while. Default 500.
    pub body_rate: u64,
    /// Between two pieces of an answer that a caller takes. Default 30 s.
    pub answer_idle: Duration,
    /// How old a connection becomes, give or take a tenth. Default 1 h.
    pub connection_age: Duration,
    /// Commands that a connection carries before it takes no more. Default any number.
    pub connection_commands: Option<usize>,
    /// Idle connections kept per upstream and worker. Default 64.
    pub upstream_idle: usize,
    /// How long an idle upstream connection is kept. Default 55 s.
    pub upstream_idle_time: Duration,
}

/// Reads and compiles the file at `path` and those it includes; relative paths are relative to the folder of the file they
/// stand in. The files that are named are looked at too, so that a certificate that does not fit its key is a problem of the
/// configuration.
pub fn load(path: &Path, numbers: &Numbers) -> Result<Configuration, Problems> {
    Loader::new(path).load(numbers).configuration
}

/// Compiles the text of a main file alone, without looking at any file it names.
pub fn compile(text: &str, folder: &Path, numbers: &Numbers) -> Result<Configuration, Problems> {
    let (document, problems) = read::document(text);
    let Some(document) = document else { return Err(Problems(problems)) };
    let version = loader::shorten(&Sha256::digest(text));
    let sources = Sources::of_main(&folder.join("tallygate.yaml"));
    understand(&document, &version, numbers, sources).or_problems(problems)
}

/// What a document means, as far as it means anything.
struct Understood {
    settings: Settings,
    snapshot: Option<Arc<Snapshot>>,
    subsystem_tls: Vec<SubsystemTlsSettings>,
    sources: Sources,
    /// What `compile` found; paths count through all files.
    problems: Vec<Problem>,
}

impl Understood {
    /// Looks at the files that are named: keys, certificates, the ledger's folder.
    fn and_files(mut self, known: &[Problem]) -> Self {
        let all: Vec<Problem> = known.iter().chain(&self.problems).cloned().collect();
        self.problems.extend(files::problems(&self.settings, &all));
        self.problems.extend(files::subsystem_problems(&self.subsystem_tls, &all));
        self
    }

    /// Gives the problems that were found their files and lines.
    fn located(mut self, texts: &[&str]) -> Self {
        if !self.problems.is_empty() {
            self.sources.locate(&mut self.problems, texts);
        }
        self
    }

    /// The configuration, unless there are problems, here or `known` before.
    fn or_problems(self, known: Vec<Problem>) -> Result<Configuration, Problems> {
        let Self { settings, snapshot, subsystem_tls, sources, problems } = self;
        match snapshot {
            Some(snapshot) if problems.is_empty() && known.is_empty() => {
                Ok(Configuration { settings, snapshot, subsystem_tls, sources })
            }
            _ => Err(Problems::bounded(known.into_iter().chain(problems).collect())),
        }
    }
}

fn understand(document: &Document, version: &str, numbers: &Numbers, sources: Sources) -> Understood {
    let context = compile::Context { sources: &sources, version, numbers };
    let compile::Compiled { settings, snapshot, subsystem_tls, problems } = compile::compile(document, context);
    Understood { settings, snapshot, subsystem_tls, sources, problems }
}

/// The first 12 hex digits of the SHA-256 of the file at `path`, if it can be read.
pub fn digest_of_file(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| loader::shorten(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests;
