//! The sources of a configuration beside its main file: included files, and documents that another part of the process
//! has made.
//!
//! Guarantees:
//! - An isolated source with a problem is excluded alone. Its items take no part in the configuration.
//! - A source that depends on an excluded one is excluded too. This takes at most [`EXCLUSION_ROUNDS_MAX`] rounds.
//!
//! Leaves to others: reading and compiling (`loader`).

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::document::IncludedDocument;
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};

/// The most rounds of exclusion and compilation. A round excludes every isolated source with a problem, so the bound is
/// that of a chain of references: grant, command, mirror, subsystem. Problems that remain reject the configuration.
pub(crate) const EXCLUSION_ROUNDS_MAX: usize = 8;

/// The SHA-256 of a text.
pub(crate) type ContentHash = [u8; 32];

/// A source, read and parsed.
#[derive(Debug)]
pub(crate) struct ConfigSource {
    /// The path of the file, or the name of a document in memory.
    pub(crate) path: PathBuf,
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
    pub(crate) name: String,
    /// Its lists.
    pub(crate) document: Arc<IncludedDocument>,
}

/// The documents in memory of one moment.
#[derive(Debug, Default)]
pub(crate) struct MemoryDocuments {
    /// A text that differs whenever the documents differ; part of the version of the configuration.
    pub(crate) version: String,
    /// The documents; of two with one id, the later one is excluded.
    pub(crate) documents: Vec<MemoryDocument>,
}

/// The documents in memory, shared with the part of the process that replaces them.
pub(crate) type SharedDocuments = Arc<ArcSwap<MemoryDocuments>>;

impl MemoryDocument {
    /// The document as a source.
    pub(crate) fn to_source(&self) -> ConfigSource {
        ConfigSource {
            path: PathBuf::from(&self.name),
            text: String::new(),
            hash: ContentHash::default(),
            document: Some(Arc::clone(&self.document)),
            problems: Vec::new(),
            is_isolated: true,
        }
    }
}

/// Removes the isolated sources with problems of their own and returns them.
pub(crate) fn exclude_faulty(sources: &mut Vec<ConfigSource>) -> Vec<ExcludedSource> {
    let faulty = sources.extract_if(.., |source| source.is_isolated && !source.problems.is_empty());
    faulty.map(|source| exclusion(&source, source.problems.clone())).collect()
}

/// The exclusion of a source because of these problems.
fn exclusion(source: &ConfigSource, problems: Vec<ConfigProblem>) -> ExcludedSource {
    let ConfigProblems(problems) = ConfigProblems::limited(problems);
    ExcludedSource { source: source.path.display().to_string(), problems }
}
