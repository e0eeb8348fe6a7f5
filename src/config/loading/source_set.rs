//! The sources of a configuration beside its main file: included files, and documents that another part of the process
//! has made.
//!
//! Guarantees:
//! - An isolated source with a problem is excluded alone. Its items take no part in the configuration.
//! - A source that depends on an excluded one is excluded too. This takes at most [`EXCLUSION_ROUNDS_MAX`] rounds.
//!
//! Leaves to others: reading and compiling (`loader`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::config::document::IncludedDocument;
use crate::config::parse::json;
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::{SourceFile, locate_problems};
use crate::model::PagedList;

/// The most rounds of exclusion and compilation. A round excludes every isolated source with a problem, so the bound is
/// that of a chain of references: grant, command, mirror, subsystem. Problems that remain reject the configuration.
pub(crate) const EXCLUSION_ROUNDS_MAX: usize = 8;

/// The SHA-256 of a text.
pub(crate) type ContentHash = [u8; 32];

/// A source, read and parsed.
#[derive(Clone, Debug)]
pub(crate) struct LoadedSource {
    /// The path of the file, or the name of a document in memory.
    pub(crate) path: Arc<Path>,
    /// The text; empty for a document in memory.
    pub(crate) text: Arc<str>,
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
            text: "".into(),
            hash: ContentHash::default(),
            document: self.document.as_ref().ok().map(Arc::clone),
            problems,
            is_isolated: true,
        }
    }
}

/// Sources that follow each other, with the sums of their lists. Never changed, and shared by the loads in which all of
/// its sources are the same.
#[derive(Debug)]
pub(crate) struct SourcePage {
    pub(crate) sources: Vec<LoadedSource>,
    /// The lists of all sources.
    pub(crate) lists: IncludedDocument,
    /// The paths of the sources, and where their items begin in the lists.
    pub(crate) files: Arc<[SourceFile]>,
}

/// The sources of a load, in pages.
#[derive(Debug, Default)]
pub(crate) struct SourcePages(Vec<Arc<SourcePage>>);

impl SourcePage {
    pub(crate) fn new(sources: Vec<LoadedSource>) -> Arc<Self> {
        let (mut lists, mut files) = (IncludedDocument::default(), Vec::with_capacity(sources.len()));
        for source in &sources {
            files.push(SourceFile { path: Arc::clone(&source.path), starts: lists.counts() });
            lists.append(source.document.as_deref().unwrap_or(&IncludedDocument::default()));
        }
        Arc::new(Self { sources, lists, files: files.into() })
    }

    fn has_excluded(&self) -> bool {
        self.sources.iter().any(LoadedSource::is_excluded)
    }
}

impl LoadedSource {
    /// Whether its own problems exclude it.
    fn is_excluded(&self) -> bool {
        self.is_isolated && !self.problems.is_empty()
    }
}

impl SourcePages {
    pub(crate) fn push(&mut self, page: Arc<SourcePage>) {
        self.0.push(page);
    }

    pub(crate) fn pages(&self) -> &[Arc<SourcePage>] {
        &self.0
    }

    /// The sources in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LoadedSource> {
        self.0.iter().flat_map(|page| &page.sources)
    }

    /// Removes the isolated sources with problems of their own and returns them.
    pub(crate) fn exclude_faulty(&mut self) -> Vec<ExcludedSource> {
        let mut excluded = Vec::new();
        for page in self.0.iter_mut().filter(|page| page.has_excluded()) {
            let faulty = page.sources.iter().filter(|source| source.is_excluded());
            excluded.extend(faulty.map(|source| exclusion(source, source.problems.clone())));
            let others = page.sources.iter().filter(|source| !source.is_excluded());
            *page = SourcePage::new(others.cloned().collect());
        }
        excluded
    }

    /// Removes the sources at these positions, each because of its problems, and returns them.
    pub(crate) fn exclude_failed(&mut self, mut failed: HashMap<usize, Vec<ConfigProblem>>) -> Vec<ExcludedSource> {
        let (mut excluded, mut first) = (Vec::new(), 0);
        for page in &mut self.0 {
            let positions = first..first + page.sources.len();
            first = positions.end;
            if !positions.clone().any(|position| failed.contains_key(&position)) {
                continue;
            }
            let mut others = Vec::with_capacity(page.sources.len());
            for (position, source) in positions.zip(&page.sources) {
                match failed.remove(&position) {
                    Some(problems) => excluded.push(exclusion(source, problems)),
                    None => others.push(source.clone()),
                }
            }
            *page = SourcePage::new(others);
        }
        excluded
    }
}

/// The exclusion of a source because of these problems.
fn exclusion(source: &LoadedSource, problems: Vec<ConfigProblem>) -> ExcludedSource {
    let ConfigProblems(problems) = ConfigProblems::limited(problems);
    ExcludedSource { source: source.path.display().to_string(), problems }
}
