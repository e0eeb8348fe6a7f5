//! Builds the TLS settings of a configuration from the files that it names. No other module of the gateway reads these
//! files.
//!
//! Guarantees:
//! - Each file is read and parsed once per load, and judged by the clock of the loader.
//! - Every fault of a file is a problem of the configuration, at the path that names the file.
//!
//! Leaves to others: certificates, keys and lists (`identity`), and which settings are live (`app`).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::compile::CompiledDocument;
use crate::config::parse::problem::ConfigProblem;
use crate::config::parse::yaml;
use crate::config::settings::gateway_settings::SubsystemTlsSettings;
use crate::identity::{KeyCache, PemSource, PemStore, ServerTls, SubsystemTls, TlsFiles, TlsProblem, is_memory_name};
use crate::model::Name;

/// The TLS settings of a configuration, built from its files.
#[derive(Clone, Debug, Default)]
pub struct LoadedTls {
    /// The settings of each listener with TLS, in the order of the configuration.
    pub listeners: Vec<(Name, Arc<ServerTls>)>,
    /// The settings towards each subsystem and each backend that uses TLS, in the order of the configuration.
    pub subsystems: Vec<(Name, SubsystemTls)>,
}

/// The listeners and subsystems whose TLS files a document names. Those with a problem at or below `tls` are left out:
/// one of their paths may be a placeholder.
pub(crate) struct NamedFiles<'c> {
    listeners: Vec<(String, &'c Name, &'c TlsFiles)>,
    subsystems: Vec<(&'c str, &'c SubsystemTlsSettings)>,
}

/// One load: the files that were read, the clock, and the problems found.
struct TlsLoad<'s> {
    store: PemStore<'s>,
    clock: &'s Clock,
    problems: Vec<ConfigProblem>,
}

impl<'c> NamedFiles<'c> {
    /// The files that `compiled` names. `parsed` are the problems of the parser.
    pub(crate) fn new(compiled: &'c CompiledDocument, parsed: &[ConfigProblem]) -> Self {
        let has_problem = |place: &str, counts: fn(&ConfigProblem) -> bool| {
            let mut known = parsed.iter().chain(&compiled.problems);
            known.any(|problem| problem.path.starts_with(place) && counts(problem))
        };
        let listeners = compiled.settings.tls_listeners();
        let listeners =
            listeners.map(|(index, listener, files)| (format!("listeners[{index}].tls"), &listener.name, files));
        let subsystems = compiled.subsystem_tls.iter();
        let subsystems = subsystems.map(|subsystem| (subsystem.place.as_str(), subsystem));
        Self {
            listeners: listeners
                .filter(|(place, ..)| !has_problem(place, |problem| problem.message != yaml::UNKNOWN_KEY))
                .collect(),
            subsystems: subsystems.filter(|(place, _)| !has_problem(place, |_| true)).collect(),
        }
    }

    /// The paths of all files, each once. Texts in memory are no files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let listeners = self.listeners.iter().flat_map(|(.., files)| files.paths());
        let all = listeners.chain(self.subsystems.iter().flat_map(|(_, subsystem)| subsystem.files.paths()));
        let mut known = HashSet::new();
        all.filter(move |path| !is_memory_name(path) && known.insert(path.clone()))
    }

    /// Reads the files and builds the TLS settings, as far as the files are valid. Also returns the problems of the
    /// files. `keys` are those of the last load, and then of this one.
    pub(crate) fn load(
        &self,
        source: &dyn PemSource,
        clock: &Clock,
        keys: &mut KeyCache,
    ) -> (LoadedTls, Vec<ConfigProblem>) {
        let store = PemStore::with_keys(source, std::mem::take(keys));
        let mut load = TlsLoad { store, clock, problems: Vec::new() };
        let listeners = self.listeners.iter().filter_map(|(place, name, files)| load.listener_tls(place, name, files));
        let listeners = listeners.collect();
        let subsystems = self.subsystems.iter().filter_map(|(place, subsystem)| load.subsystem_tls(place, subsystem));
        let subsystems = subsystems.collect();
        *keys = load.store.into_keys();
        (LoadedTls { listeners, subsystems }, load.problems)
    }
}

impl TlsLoad<'_> {
    fn listener_tls(&mut self, place: &str, name: &Name, files: &TlsFiles) -> Option<(Name, Arc<ServerTls>)> {
        let read = files.load(&self.store, self.clock);
        let tls = self.value_or_problems(read, |problem| format!("{place}{}", problem.key))?;
        Some((name.clone(), Arc::new(tls)))
    }

    fn subsystem_tls(&mut self, place: &str, subsystem: &SubsystemTlsSettings) -> Option<(Name, SubsystemTls)> {
        let read = subsystem.files.load(&self.store, self.clock);
        let tls = self.value_or_problems(read, |_| place.to_owned())?;
        Some((subsystem.name.clone(), tls))
    }

    /// The value of a result. Its errors are recorded, each at the path that `place_of` returns.
    fn value_or_problems<T>(
        &mut self,
        result: Result<T, Vec<TlsProblem>>,
        place_of: impl Fn(&TlsProblem) -> String,
    ) -> Option<T> {
        let as_problem = |problem: &TlsProblem| ConfigProblem::new(place_of(problem), problem.to_string());
        result.map_err(|found| self.problems.extend(found.iter().map(as_problem))).ok()
    }
}

#[cfg(test)]
mod tests;
