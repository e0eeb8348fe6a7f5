//! A valid configuration.
//!
//! Guarantees: every configuration has a policy snapshot and no problems.

use std::sync::Arc;

use crate::config::compile::CompiledDocument;
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::GatewaySettings;
use crate::policy::PolicySnapshot;

use super::source_set::ExcludedSource;
use super::tls_loader::LoadedTls;

/// A configuration, read and compiled, with the TLS settings that its files give.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The settings beside the policy. A reload replaces the listeners; for every other change it reports that a
    /// restart is needed.
    pub settings: GatewaySettings,
    /// The policy snapshot that serves traffic; replaced by a reload.
    pub snapshot: Arc<PolicySnapshot>,
    /// The TLS settings of listeners and towards subsystems; replaced by a reload. Empty if only a text was compiled.
    pub tls: LoadedTls,
    /// The sources that were excluded because each of them has problems of its own.
    pub excluded: Vec<ExcludedSource>,
    /// The files of the configuration.
    pub sources: SourceFiles,
}

impl Configuration {
    /// Adds the file and the line of the main file to problems that were found when the configuration was applied.
    pub fn locate_problems(&self, problems: &mut [ConfigProblem]) {
        // The place only helps the reader, so a file that has vanished is no problem of its own.
        let text = std::fs::read_to_string(self.sources.main_file()).unwrap_or_default();
        self.sources.locate_problems(problems, &[&text]);
    }

    /// The configuration, unless there are problems, in the document or in `known`.
    pub(crate) fn new(
        compiled: &CompiledDocument,
        (tls, excluded): (LoadedTls, Vec<ExcludedSource>),
        sources: SourceFiles,
        known: Vec<ConfigProblem>,
    ) -> Result<Self, ConfigProblems> {
        let CompiledDocument { settings, parts, problems, .. } = compiled;
        match parts {
            Some(parts) if problems.is_empty() && known.is_empty() => {
                let (settings, snapshot) = (settings.clone(), Arc::clone(&parts.snapshot));
                Ok(Self { settings, snapshot, tls, excluded, sources })
            }
            _ => Err(ConfigProblems::limited(known.into_iter().chain(problems.iter().cloned()).collect())),
        }
    }
}

/// The problem of a ledger's path that names a folder. A path with another problem, also one of `parsed`, may be a
/// placeholder and is not checked.
pub(crate) fn ledger_folder_problem(compiled: &CompiledDocument, parsed: &[ConfigProblem]) -> Option<ConfigProblem> {
    let (path, book) = ("ledger.path", &compiled.settings.ledger_path);
    if !book.is_dir() || parsed.iter().chain(&compiled.problems).any(|problem| problem.path == path) {
        return None;
    }
    let message =
        format!("{} is a folder; name a file in it, such as {}", book.display(), book.join("ledger.db").display());
    Some(ConfigProblem::new(path, message))
}
