//! The files that a configuration names, looked at by `check` and `explain` before a gateway meets them.

use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::identity::{ServerTls, TlsFiles, TlsProblem, TrustedFiles};
use crate::model::Name;

use super::problem::Problem;
use super::{ListenerSettings, Settings, SubsystemTlsSettings, read};

/// What is wrong with the files. `known` are the problems found so far: where they make a stand-in of a path, no file is
/// looked at.
pub(super) fn problems(settings: &Settings, known: &[Problem]) -> Vec<Problem> {
    let sound = |index: &usize| {
        let place = tls_place(*index);
        !known.iter().any(|problem| problem.path.starts_with(&place) && problem.message != read::UNKNOWN_KEY)
    };
    let listeners = settings.listeners.iter().enumerate().filter(|(index, _)| sound(index));
    let tls = listeners.flat_map(|(index, listener)| {
        let found = look_at(listener).err().unwrap_or_default();
        found.into_iter().map(move |problem| tls_problem(index, &listener.tls, &problem))
    });
    tls.chain(book_problem(&settings.ledger_path, known)).collect()
}

/// What is wrong with the files of subsystems.
pub(super) fn subsystem_problems(subsystems: &[SubsystemTlsSettings], known: &[Problem]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for SubsystemTlsSettings { index, files, .. } in subsystems {
        let place = format!("subsystems[{index}].tls");
        if known.iter().any(|problem| problem.path.starts_with(&place)) {
            continue;
        }
        let found = files.load(Clock::system().wall()).err().unwrap_or_default();
        problems.extend(found.iter().map(|problem| Problem::new(place.clone(), problem.to_string())));
    }
    problems
}

/// The keys and trust of every listener whose files are as they should be.
pub(super) fn listeners(settings: &Settings) -> Vec<ServerTls> {
    settings.listeners.iter().filter_map(|listener| look_at(listener).ok()).collect()
}

/// What is odd about the files of subsystems, but does not stop their use.
pub(super) fn subsystem_warnings(subsystems: &[SubsystemTlsSettings]) -> Vec<String> {
    let of_subsystem = |SubsystemTlsSettings { name, files, .. }: &SubsystemTlsSettings| {
        let read = files.load(Clock::system().wall());
        let warnings = read.map(|tls| tls.warnings).unwrap_or_default().into_iter();
        warnings.map(|warning| format!("subsystem {name}: {warning}")).collect::<Vec<_>>()
    };
    subsystems.iter().flat_map(of_subsystem).collect()
}

/// Which authorities and revocation lists each listener uses.
pub fn trusted(settings: &Settings) -> Vec<(Name, TrustedFiles)> {
    let of_listener =
        |listener: &ListenerSettings| look_at(listener).ok().map(|tls| (listener.name.clone(), tls.trusted));
    settings.listeners.iter().filter_map(of_listener).collect()
}

fn look_at(listener: &ListenerSettings) -> Result<ServerTls, Vec<TlsProblem>> {
    listener.tls.load(Clock::system().wall())
}

fn book_problem(book: &Path, known: &[Problem]) -> Option<Problem> {
    let path = "ledger.path";
    if !book.is_dir() || known.iter().any(|problem| problem.path == path) {
        return None;
    }
    let message =
        format!("{} is a folder; name a file in it, such as {}", book.display(), book.join("ledger.db").display());
    Some(Problem::new(path, message))
}

fn tls_place(index: usize) -> String {
    format!("listeners[{index}].tls")
}

fn tls_problem(index: usize, files: &TlsFiles, problem: &TlsProblem) -> Problem {
    let path = format!("{}{}", tls_place(index), tls_key(files, &problem.path.0));
    Problem::new(path, problem.to_string())
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
