//! A compiled configuration, and the step from a document to it.
//!
//! Guarantees: every configuration has a policy snapshot and no problems.

use std::sync::Arc;

use crate::config::document::ConfigDocument;
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::{GatewaySettings, SubsystemTlsSettings};
use crate::model::NameInterner;
use crate::policy::PolicySnapshot;

/// A configuration, read and compiled.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The static settings, which are read once, at start. A reload that changes one reports that a restart is needed.
    pub settings: GatewaySettings,
    /// The policy snapshot that serves traffic; replaced by a reload.
    pub snapshot: Arc<PolicySnapshot>,
    /// The TLS settings towards subsystems; replaced by a reload.
    pub subsystem_tls: Vec<SubsystemTlsSettings>,
    /// The files of the configuration.
    pub sources: SourceFiles,
}

/// The result of compiling a document, as far as the document is valid.
pub(crate) struct CompileResult {
    settings: GatewaySettings,
    snapshot: Option<Arc<PolicySnapshot>>,
    subsystem_tls: Vec<SubsystemTlsSettings>,
    sources: SourceFiles,
    /// The problems of `compile`. Their paths count positions across all files.
    problems: Vec<ConfigProblem>,
}

impl CompileResult {
    /// Checks the files that the configuration names: keys, certificates, the ledger's folder.
    pub(crate) fn with_file_problems(mut self, known: &[ConfigProblem]) -> Self {
        let all: Vec<ConfigProblem> = known.iter().chain(&self.problems).cloned().collect();
        self.problems.extend(super::file_checks::file_problems(&self.settings, &all));
        self.problems.extend(super::file_checks::subsystem_problems(&self.subsystem_tls, &all));
        self
    }

    /// Adds the file and the line to each problem.
    pub(crate) fn with_locations(mut self, texts: &[&str]) -> Self {
        if !self.problems.is_empty() {
            self.sources.locate_problems(&mut self.problems, texts);
        }
        self
    }

    /// The configuration, unless there are problems, here or in `known`.
    pub(crate) fn into_configuration(self, known: Vec<ConfigProblem>) -> Result<Configuration, ConfigProblems> {
        let Self { settings, snapshot, subsystem_tls, sources, problems } = self;
        match snapshot {
            Some(snapshot) if problems.is_empty() && known.is_empty() => {
                Ok(Configuration { settings, snapshot, subsystem_tls, sources })
            }
            _ => Err(ConfigProblems::limited(known.into_iter().chain(problems).collect())),
        }
    }
}

pub(crate) fn compile_document_with(
    document: &ConfigDocument,
    version: &str,
    interner: &NameInterner,
    sources: SourceFiles,
) -> CompileResult {
    let context = crate::config::compile::CompileContext { sources: &sources, version, numbers: interner };
    let crate::config::compile::CompiledDocument { settings, snapshot, subsystem_tls, problems } =
        crate::config::compile::compile_document(document, context);
    CompileResult { settings, snapshot, subsystem_tls, sources, problems }
}
