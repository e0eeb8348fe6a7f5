//! Checks of the files that a configuration names, for `check` and `explain`, before a gateway uses them.

use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::config::parse::problem::ConfigProblem;
use crate::config::parse::yaml;
use crate::config::settings::gateway_settings::{GatewaySettings, ListenerSettings, SubsystemTlsSettings};
use crate::identity::{ServerTls, TlsFiles, TlsProblem, TrustedFiles};
use crate::model::Name;

/// The problems of the files. `known` are the problems found so far. Where one of them has replaced a path by a
/// placeholder, the file is not checked.
pub(crate) fn file_problems(settings: &GatewaySettings, known: &[ConfigProblem]) -> Vec<ConfigProblem> {
    let sound = |index: &usize| {
        let place = listener_tls_path(*index);
        !known.iter().any(|problem| problem.path.starts_with(&place) && problem.message != yaml::UNKNOWN_KEY)
    };
    let listeners = settings.listeners.iter().enumerate().filter(|(index, _)| sound(index));
    let tls = listeners.flat_map(|(index, listener)| {
        let found = load_listener_tls(listener).err().unwrap_or_default();
        found.into_iter().map(move |problem| tls_problem(index, &listener.tls, &problem))
    });
    tls.chain(ledger_folder_problem(&settings.ledger_path, known)).collect()
}

/// The problems of the files of subsystems.
pub(crate) fn subsystem_problems(subsystems: &[SubsystemTlsSettings], known: &[ConfigProblem]) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    for SubsystemTlsSettings { index, files, .. } in subsystems {
        let place = format!("subsystems[{index}].tls");
        if known.iter().any(|problem| problem.path.starts_with(&place)) {
            continue;
        }
        let found = files.load(Clock::system().wall()).err().unwrap_or_default();
        problems.extend(found.iter().map(|problem| ConfigProblem::new(place.clone(), problem.to_string())));
    }
    problems
}

/// The TLS configuration of every listener whose files are valid.
pub(crate) fn listener_tls(settings: &GatewaySettings) -> Vec<ServerTls> {
    settings.listeners.iter().filter_map(|listener| load_listener_tls(listener).ok()).collect()
}

/// Oddities of the files of subsystems that do not prevent their use.
pub(crate) fn subsystem_warnings(subsystems: &[SubsystemTlsSettings]) -> Vec<String> {
    let of_subsystem = |SubsystemTlsSettings { name, files, .. }: &SubsystemTlsSettings| {
        let read = files.load(Clock::system().wall());
        let warnings = read.map(|tls| tls.warnings).unwrap_or_default().into_iter();
        warnings.map(|warning| format!("subsystem {name}: {warning}")).collect::<Vec<_>>()
    };
    subsystems.iter().flat_map(of_subsystem).collect()
}

/// The authorities and revocation lists of each listener.
pub fn trusted_files(settings: &GatewaySettings) -> Vec<(Name, TrustedFiles)> {
    let of_listener =
        |listener: &ListenerSettings| load_listener_tls(listener).ok().map(|tls| (listener.name.clone(), tls.trusted));
    settings.listeners.iter().filter_map(of_listener).collect()
}

fn load_listener_tls(listener: &ListenerSettings) -> Result<ServerTls, Vec<TlsProblem>> {
    listener.tls.load(Clock::system().wall())
}

fn ledger_folder_problem(book: &Path, known: &[ConfigProblem]) -> Option<ConfigProblem> {
    let path = "ledger.path";
    if !book.is_dir() || known.iter().any(|problem| problem.path == path) {
        return None;
    }
    let message =
        format!("{} is a folder; name a file in it, such as {}", book.display(), book.join("ledger.db").display());
    Some(ConfigProblem::new(path, message))
}

fn listener_tls_path(index: usize) -> String {
    format!("listeners[{index}].tls")
}

fn tls_problem(index: usize, files: &TlsFiles, problem: &TlsProblem) -> ConfigProblem {
    let path = format!("{}{}", listener_tls_path(index), tls_key(files, &problem.path.0));
    ConfigProblem::new(path, problem.to_string())
}

/// The key below `tls` that names a file.
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
    match auth.and_then(|auth| position(&auth.revocation_lists)) {
        Some(position) => format!(".clientAuth.revocation[{position}]"),
        None => String::new(),
    }
}
