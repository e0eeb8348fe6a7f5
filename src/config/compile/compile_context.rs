//! What the sections of a document need to know beside the document (`CompileContext`).

use crate::config::parse::source_files::SourceFiles;
use crate::model::NameInterner;

/// The context in which a document is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompileContext<'a> {
    /// The files of the document. Relative paths are relative to the file that contains them.
    pub(crate) sources: &'a SourceFiles,
    /// The document's version.
    pub(crate) version: &'a str,
    /// The interner that assigns numbers to names.
    pub(crate) numbers: &'a NameInterner,
    /// Whether listeners and departments may be missing: another part of the process adds them later.
    pub(crate) may_be_empty: bool,
}
