//! The configuration loader, for the first load and every reload. It caches the parsed files: only files that have
//! changed are parsed as YAML again.
//!
//! Guarantees:
//! - A configuration is always compiled as a whole, independent of the cache, so its meaning is that of its files.
//! - Each file is read once per load. A configuration comes with the TLS settings that were built from its files.
//! - The file watch is created before the files are read, so no change is missed.
//! - Bounds: [`CONFIGURATION_BYTES_MAX`] of text, and the bound on files in [`super::include`].
//!
//! Leaves to others: the meaning of the document (`compile`), and TLS files (`tls_loader`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::FileWatcher;
use crate::config::compile::{CompileContext, compile_document};
use crate::config::document::{ConfigDocument, IncludedDocument};
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::{ListCounts, SourceFiles, locate_problems};
use crate::config::parse::yaml;
use crate::identity::{DiskFiles, PemSource};
use crate::model::{NameInterner, hex_text};

use super::configuration::{Configuration, ledger_folder_problem};
use super::include::IncludePatterns;
use super::tls_loader::NamedFiles;

/// The largest total text of all files of a configuration. A province of 30,000 departments and 410,000 callers has 38
/// MB.
const CONFIGURATION_BYTES_MAX: u64 = 256 * 1024 * 1024;

type ContentHash = [u8; 32];

/// The loader of one configuration, with its cache.
#[derive(Debug)]
pub struct ConfigLoader {
    path: PathBuf,
    clock: Clock,
    pem_source: Box<dyn PemSource>,
    main: Option<MainFile>,
    parts: HashMap<PathBuf, (ContentHash, Arc<IncludedDocument>)>,
    version: Option<String>,
}

/// The result of a load.
#[derive(Debug)]
pub struct LoadResult {
    /// The configuration, or every problem.
    pub configuration: Result<Configuration, ConfigProblems>,
    /// A watcher of the files that were read, or that would have been read.
    pub watch: FileWatcher,
}

/// The main file as of the last load. Behind its `own` items, the lists of `document` hold the items of the other
/// files.
#[derive(Debug)]
struct MainFile {
    hash: ContentHash,
    document: ConfigDocument,
    own_counts: ListCounts,
}

/// An included file with its document.
struct IncludedFile {
    path: PathBuf,
    text: String,
    hash: ContentHash,
}

impl ConfigLoader {
    /// A loader with an empty cache. `clock` judges whether certificates and revocation lists are current.
    pub fn new(path: &Path, clock: Clock) -> Self {
        Self::with_pem_source(path, clock, Box::new(DiskFiles))
    }

    /// A loader that takes keys, certificates and revocation lists from `pem_source`.
    pub fn with_pem_source(path: &Path, clock: Clock, pem_source: Box<dyn PemSource>) -> Self {
        Self { path: path.to_path_buf(), clock, pem_source, main: None, parts: HashMap::new(), version: None }
    }

    /// The version of the last load, valid or not; `None` if the files could not be read.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Reads the files and compiles them. The TLS files are read although the document has problems elsewhere: all
    /// problems are reported together.
    pub fn load(&mut self, interner: &NameInterner) -> LoadResult {
        let mut watch = FileWatcher::new([self.path.clone()]);
        let configuration = self.read_configuration(interner, &mut watch);
        LoadResult { configuration, watch }
    }

    fn read_configuration(
        &mut self,
        interner: &NameInterner,
        watch: &mut FileWatcher,
    ) -> Result<Configuration, ConfigProblems> {
        self.version = None;
        let mut room = CONFIGURATION_BYTES_MAX;
        let text = read_text(&self.path, &mut room).map_err(ConfigProblems::of_whole_file)?;
        self.version = Some(self.version_hash(&text, &[]));
        let (mut main, mut problems) = self.read_main(&text)?;

        let includes = IncludePatterns::new(&main.document.include, &self.path);
        let listing = includes.list_files();
        watch.watch_includes(includes, &listing);
        let mut at_main = listing.problems;
        let sources = read_included(listing.files, &mut room, &mut at_main);
        self.version = Some(self.version_hash(&text, &sources));
        locate_problems(&self.path, &text, &mut at_main);
        problems.extend(at_main);

        let parts = self.read_included_documents(&sources, &mut problems);
        let origins = main.append_documents(&self.path, sources.iter().zip(&parts));
        let texts: Vec<&str> = std::iter::once(text.as_str()).chain(sources.iter().map(|s| s.text.as_str())).collect();
        let version = self.version.clone().unwrap_or_default();
        let context = CompileContext { sources: &origins, version: &version, numbers: interner };
        let mut compiled = compile_document(&main.document, context);
        let named = NamedFiles::new(&compiled, &problems);
        watch.add_files(named.paths());
        let (tls, faults) = named.load(self.pem_source.as_ref(), &self.clock);
        compiled.problems.extend(faults);
        compiled.problems.extend(ledger_folder_problem(&compiled, &problems));
        if !compiled.problems.is_empty() {
            origins.locate_problems(&mut compiled.problems, &texts);
        }
        if problems.is_empty() {
            self.cache(main, sources, parts); // without a cache, the next load reports all problems again
        }
        Configuration::new(compiled, tls, origins, problems)
    }

    /// The first 12 hex digits of a SHA-256. The input is the text of the main file, followed by two values per
    /// included file: its path relative to the main file's folder, and the hash of its text. So the version does not
    /// depend on the location of the files.
    fn version_hash(&self, main: &str, included: &[IncludedFile]) -> String {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut digest = Sha256::new_with_prefix(main);
        for source in included {
            let name = source.path.strip_prefix(folder).unwrap_or(&source.path);
            digest.update([0]);
            digest.update(name.as_os_str().as_bytes());
            digest.update([0]);
            digest.update(source.hash);
        }
        short_hash(&digest.finalize())
    }

    /// The main file, from the cache if it has not changed.
    fn read_main(&mut self, text: &str) -> Result<(MainFile, Vec<ConfigProblem>), ConfigProblems> {
        let hash = content_hash(text);
        if let Some(main) = self.main.take().filter(|main| main.hash == hash) {
            return Ok((main, Vec::new()));
        }
        let (document, mut problems) = yaml::parse_document(text);
        locate_problems(&self.path, text, &mut problems);
        let Some(document) = document else { return Err(ConfigProblems::limited(problems)) };
        let own = list_counts(&document);
        Ok((MainFile { hash, document, own_counts: own }, problems))
    }

    /// The document of each included file. Changed files are parsed, on at most one thread per core.
    fn read_included_documents(
        &mut self,
        sources: &[IncludedFile],
        problems: &mut Vec<ConfigProblem>,
    ) -> Vec<Option<Arc<IncludedDocument>>> {
        let kept = |source: &IncludedFile| self.parts.get(&source.path).filter(|(hash, _)| *hash == source.hash);
        let mut parts: Vec<Option<Arc<IncludedDocument>>> =
            sources.iter().map(|source| kept(source).map(|(_, part)| Arc::clone(part))).collect();
        let changed: Vec<usize> = (0..sources.len()).filter(|position| parts[*position].is_none()).collect();
        let read = map_in_parallel(&changed, |position| yaml::parse_included(&sources[*position].text));
        for (position, (part, mut found)) in changed.into_iter().zip(read) {
            let source = &sources[position];
            if !found.is_empty() {
                locate_problems(&source.path, &source.text, &mut found);
                problems.extend(found);
            }
            parts[position] = part.map(Arc::new);
        }
        parts
    }

    /// Caches the documents of all files.
    fn cache(&mut self, mut main: MainFile, sources: Vec<IncludedFile>, parts: Vec<Option<Arc<IncludedDocument>>>) {
        main.truncate_to_own();
        self.main = Some(main);
        let read = sources.into_iter().zip(parts);
        self.parts = read.filter_map(|(source, part)| Some((source.path, (source.hash, part?)))).collect();
    }
}

impl MainFile {
    /// Appends the lists of the included files.
    fn append_documents<'p>(
        &mut self,
        path: &Path,
        parts: impl Iterator<Item = (&'p IncludedFile, &'p Option<Arc<IncludedDocument>>)>,
    ) -> SourceFiles {
        let mut origins = SourceFiles::new(path);
        for (source, part) in parts {
            origins.add_file(&source.path, list_counts(&self.document));
            let Some(part) = part else { continue };
            self.document.departments.extend(part.departments.iter().map(Arc::clone));
            self.document.subsystems.extend(part.subsystems.iter().map(Arc::clone));
            self.document.grants.extend(part.grants.iter().map(Arc::clone));
        }
        origins
    }

    /// Removes the items of the included files.
    fn truncate_to_own(&mut self) {
        let [departments, subsystems, grants] = self.own_counts;
        self.document.departments.truncate(departments);
        self.document.subsystems.truncate(subsystems);
        self.document.grants.truncate(grants);
    }
}

fn list_counts(document: &ConfigDocument) -> ListCounts {
    [document.departments.len(), document.subsystems.len(), document.grants.len()]
}

/// Reads the listed files if they are regular files: a pipe could block a reload without end. A file that cannot be
/// read is a problem of the pattern that names it.
fn read_included(files: Vec<(PathBuf, usize)>, room: &mut u64, problems: &mut Vec<ConfigProblem>) -> Vec<IncludedFile> {
    let mut sources = Vec::with_capacity(files.len());
    for (path, pattern) in files {
        let is_special = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        let text = match is_special {
            true => Err(format!("{} cannot be read: it is not a regular file", path.display())),
            false => read_text(&path, room),
        };
        match text {
            Ok(text) => sources.push(IncludedFile { hash: content_hash(&text), path, text }),
            Err(why) => problems.push(ConfigProblem::new(format!("include[{pattern}]"), why)),
        }
    }
    sources
}

/// The text of a file, if the remaining `room` suffices.
fn read_text(path: &Path, room: &mut u64) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(*room + 1).read_to_string(&mut text));
    match read.map(|bytes| bytes as u64) {
        Ok(bytes) if bytes > *room => Err(format!(
            "{shown} cannot be read: a configuration has at most {} MiB, all its files together",
            CONFIGURATION_BYTES_MAX >> 20
        )),
        Ok(bytes) => {
            *room -= bytes;
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(format!("{shown} cannot be read: it is not UTF-8 text"))
        }
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}

/// The first 12 hex digits of a hash.
pub(crate) fn short_hash(hash: &[u8]) -> String {
    hex_text(&hash[..6])
}

fn content_hash(text: &str) -> ContentHash {
    Sha256::digest(text).into()
}

/// Runs `work` on every item in parallel; the results are in the order of the items.
fn map_in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some((position, item)) = take_next(items, &next) {
            done.push((position, work(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.flat_map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take_next<'i, T>(items: &'i [T], next: &AtomicUsize) -> Option<(usize, &'i T)> {
    let position = next.fetch_add(1, Ordering::Relaxed);
    Some((position, items.get(position)?))
}

#[cfg(test)]
mod tests;
