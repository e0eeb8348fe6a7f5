//! The sources of a configuration beside its main file: included files, and documents that another part of the process
//! has made.
//!
//! Guarantees:
//! - An isolated source with a problem is excluded alone. Its items take no part in the configuration.
//! - A source that depends on an excluded one is excluded too. This takes at most [`EXCLUSION_ROUNDS_MAX`] rounds.
//!
//! Leaves to others: reading and compiling (`loader`).

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::config::document::IncludedDocument;
use crate::config::parse::json;
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::locate_problems;
use crate::model::PagedList;

/// The most rounds of exclusion and compilation. A round excludes every isolated source with a problem, so the bound is
/// that of a chain of references: grant, command, mirror, subsystem. Problems that remain reject the configuration.
pub(crate) const EXCLUSION_ROUNDS_MAX: usize = 8;

/// The SHA-256 of a text.
pub(crate) type ContentHash = [u8; 32];

/// A source, read and parsed.
#[derive(Debug)]
pub(crate) struct LoadedSource {
    /// The path of the file, or the name of a document in memory.
    pub(crate) path: Arc<Path>,
    /// The text; empty for a document in memory.
    pub(crate) text: String,
    /// The hash of the text.
    pub(crate) hash: ContentHash,
    /// The document, as far as it could be parsed.
    pub(crate) document: Option<Arc<IncludedDocument>>,
    /// The problems of reading and parsing.
    pub(crate) problems: Vec<ConfigProblem>,
    /// Whether a problem excludes the source alone.
    pub(crate) is_isolated: bool,
}

/// A source that was excluded from a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExcludedSource {
    /// The path of the file, or the name of the document.
    pub source: String,
    /// Its problems.
    pub problems: Vec<ConfigProblem>,
}

/// A document that another part of the process has made. It fails alone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryDocument {
    /// Its name in messages.
    pub(crate) name: Arc<Path>,
    /// Its lists, or why it cannot be read.
    pub(crate) document: Result<Arc<IncludedDocument>, Box<ConfigProblem>>,
}

/// The documents in memory of one moment.
#[derive(Debug, Default)]
pub(crate) struct MemoryDocuments {
    /// A text that differs whenever the documents differ; part of the version of the configuration.
    pub(crate) version: String,
    /// The documents; of two with one id, the later one is excluded.
    pub(crate) documents: PagedList<MemoryDocument>,
}

/// The documents in memory, shared with the part of the process that replaces them.
pub(crate) type SharedDocuments = Arc<ArcSwap<MemoryDocuments>>;

impl MemoryDocument {
    /// Reads a document from JSON. What the Gateway API allows and a file does not is possible here: matches that are
    /// equal to earlier ones, credentials for all origins, and backends whose endpoints are discovered.
    ///
    /// # Errors
    /// The path of a value with another form, or of a key that is not known.
    pub(crate) fn from_json(name: &str, document: &Value) -> Result<Self, Box<ConfigProblem>> {
        let mut document = json::parse_document(document)?;
        for subsystem in document.subsystems.iter_mut().filter_map(Arc::get_mut) {
            subsystem.is_shadowable = true;
            let policies = subsystem.commands.iter_mut().filter_map(|command| command.cors.as_mut());
            policies.for_each(|cors| cors.may_trust_all = true);
        }
        for backend in document.backends.iter_mut().filter_map(Arc::get_mut) {
            backend.endpoints.iter_mut().for_each(|endpoints| endpoints.is_discoverable = true);
        }
        Ok(Self { name: Path::new(name).into(), document: Ok(Arc::new(document)) })
    }

    /// Like [`Self::from_json`]. A document that cannot be read is a source that is left out with its problem.
    pub(crate) fn readable_or_faulty(name: &str, document: &Value) -> Self {
        let faulty = |problem| Self { name: Path::new(name).into(), document: Err(problem) };
        Self::from_json(name, document).unwrap_or_else(faulty)
    }

    /// The document as a source.
    pub(crate) fn to_source(&self) -> LoadedSource {
        let path = Arc::clone(&self.name);
        let mut problems: Vec<ConfigProblem> =
            self.document.as_ref().err().map(|problem| (**problem).clone()).into_iter().collect();
        if !problems.is_empty() {
            locate_problems(&path, "", &mut problems);
        }
        LoadedSource {
            path,
            text: String::new(),
            hash: ContentHash::default(),
            document: self.document.as_ref().ok().map(Arc::clone),
            problems,
            is_isolated: true,
        }
    }
}

/// Removes the isolated sources with problems of their own and returns them.
pub(crate) fn exclude_faulty(sources: &mut Vec<LoadedSource>) -> Vec<ExcludedSource> {
    let faulty = sources.extract_if(.., |source| source.is_isolated && !source.problems.is_empty());
    faulty.map(|source| exclusion(&source, source.problems.clone())).collect()
}

/// The exclusion of a source because of these problems.
fn exclusion(source: &LoadedSource, problems: Vec<ConfigProblem>) -> ExcludedSource {
    let ConfigProblems(problems) = ConfigProblems::limited(problems);
    ExcludedSource { source: source.path.display().to_string(), problems }
}
