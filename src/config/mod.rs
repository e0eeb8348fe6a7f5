//! What was said (the document) and what it means (settings and snapshot).
//!
//! Guarantees: reading does nothing else; every problem is reported at once with its path; what comes out is right.

mod compile;
mod document;
mod leaf;
mod problem;
mod read;
mod schema;
mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::identity::{TlsFiles, TlsProblem};
use crate::model::{CalendarOffset, Name, Numbers};
use crate::policy::{Durability, Snapshot};

pub use problem::{Problem, Problems};
pub use schema::schema;
pub use source::Watch;

/// A configuration, read and compiled.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What is read once, at start. A reload that changes it is told to restart.
    pub settings: Settings,
    /// What traffic runs on; replaced by a reload.
    pub snapshot: Arc<Snapshot>,
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
    /// The book's path.
    pub ledger_path: PathBuf,
    /// The durability of commands that name none.
    pub durability: Durability,
    /// How soon a count survives the death of the machine.
    pub sync_every: Duration,
    /// How old a day is when its hours are forgotten; never, if there is none.
    pub compact_after: Option<Duration>,
    /// Traffic threads; default one per core.
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
    /// Connections from callers, all listeners together. Default 10,000.
    pub connections: usize,
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
    /// A connection without a command, or with an unfinished head over HTTP/1.1. Default 180 s.
    pub idle: Duration,
    /// Between two pieces of a request body. Default 60 s.
    pub body_idle: Duration,
    /// Idle connections kept per upstream and worker. Default 64.
    pub upstream_idle: usize,
    /// How long an idle upstream connection is kept. Default 55 s.
    pub upstream_idle_time: Duration,
}

/// Reads and compiles the file at `path`; relative paths in it are relative to its folder. The TLS files are read too,
/// so that a certificate that does not fit its key is a problem of the configuration.
pub fn load(path: &Path, numbers: &Numbers) -> Result<Configuration, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let configuration = compile(&text, folder, numbers)?;
    let problems = tls_problems(&configuration.settings);
    if problems.is_empty() { Ok(configuration) } else { Err(Problems(problems)) }
}

/// Compiles the text of a configuration without looking at any file it names.
pub fn compile(text: &str, folder: &Path, numbers: &Numbers) -> Result<Configuration, Problems> {
    let (document, mut problems) = read::document(text);
    let Some(document) = document else { return Err(Problems(problems)) };
    let version = version_of(text);
    let compiled = compile::compile(&document, compile::Context { folder, version: &version, numbers });
    match compiled {
        Ok(configuration) if problems.is_empty() => Ok(configuration),
        Ok(_) => Err(Problems(problems)),
        Err(more) => {
            problems.extend(more);
            Err(Problems(problems))
        }
    }
}

/// The first 12 hex digits of the text's SHA-256.
fn version_of(text: &str) -> String {
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The version of the configuration that lies at `path`, if it can be read.
pub fn version_of_file(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| version_of(&text))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    let message = format!("{} cannot be read: {error}", path.display());
    Problems(vec![Problem { path: String::new(), message, hint: None }])
}

fn tls_problems(settings: &Settings) -> Vec<Problem> {
    let now = Clock::system().wall();
    let of_listener = |(index, listener): (usize, &ListenerSettings)| {
        let found = listener.tls.load(now).err().unwrap_or_default();
        found.into_iter().map(|problem| tls_problem(index, &listener.tls, problem)).collect::<Vec<_>>()
    };
    settings.listeners.iter().enumerate().flat_map(of_listener).collect()
}

fn tls_problem(index: usize, files: &TlsFiles, problem: TlsProblem) -> Problem {
    let path = format!("listeners[{index}].tls{}", tls_key(files, &problem.path.0));
    Problem { path, message: problem.to_string(), hint: None }
}

/// Under which key of `tls` a file stands.
fn tls_key(files: &TlsFiles, file: &Path) -> String {
    let auth = files.client_auth.as_ref();
    let position = |list: &[PathBuf]| list.iter().position(|path| path == file);
    if files.certificate == file {
        return ".certificate".to_owned();
    }
    if files.key == file {
        return ".key".to_owned();
    }
    if let Some(position) = auth.and_then(|auth| position(&auth.authorities)) {
        return format!(".clientAuth.authorities[{position}]");
    }
    match auth.and_then(|auth| position(&auth.revocation)) {
        Some(position) => format!(".clientAuth.revocation[{position}]"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
