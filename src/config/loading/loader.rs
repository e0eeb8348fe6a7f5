//! The configuration loader, for the first load and every reload. It caches the parsed files, the compiled parts of the
//! last valid configuration, and the keys of certificates: only files that have changed are parsed as YAML again, only
//! parts that have changed are compiled again, only changed keys are checked again.
//!
//! Guarantees:
//! - The meaning of a configuration is that of its files, whatever is cached: a part is used again only if everything
//!   that it was compiled from is the same ([`CompiledParts`]), and every check between parts is made again.
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
use crate::config::compile::{CompileContext, CompiledDocument, CompiledParts, compile_document};
use crate::config::document::{ConfigDocument, IncludedDocument, ListCounts};
use crate::config::parse::problem::{ConfigProblem, ConfigProblems};
use crate::config::parse::source_files::{SourceFiles, locate_problems};
use crate::config::parse::yaml;
use crate::identity::{DiskFiles, KeyCache, PemSource};
use crate::model::{NameInterner, hex_text};

use super::configuration::{Configuration, ledger_folder_problem};
use super::include::IncludePatterns;
use super::source_set::{
    ContentHash, EXCLUSION_ROUNDS_MAX, ExcludedSource, LoadedSource, MemoryDocument, MemoryDocuments, SharedDocuments,
    SourcePage, SourcePages,
};
use super::tls_loader::{LoadedTls, NamedFiles};

/// The largest total text of all files of a configuration. A province of 30,000 departments and 410,000 callers has 38
/// MB.
const CONFIGURATION_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The loader of one configuration, with its cache.
#[derive(Debug)]
pub struct ConfigLoader {
    path: PathBuf,
    clock: Clock,
    pem_source: Box<dyn PemSource>,
    keys: KeyCache,
    /// Documents that another part of the process makes; `None` if there is no such part.
    memory: Option<SharedDocuments>,
    main: Option<MainFile>,
    parts: HashMap<Arc<Path>, (ContentHash, Arc<IncludedDocument>)>,
    /// The pages of the documents in memory, each with its sources.
    memory_pages: Vec<(Arc<[MemoryDocument]>, Arc<SourcePage>)>,
    version: Option<String>,
    /// The compiled parts of the last valid configuration.
    compiled: Option<CompiledParts>,
}

/// The result of a load.
#[derive(Debug)]
pub struct LoadResult {
    /// The configuration, or every problem.
    pub configuration: Result<Configuration, ConfigProblems>,
    /// A watcher of the files that were read, or that would have been read.
    pub watch: FileWatcher,
}

/// The main file as of the last load. Behind its own items, the lists of `document` hold the items of the other files.
#[derive(Debug)]
struct MainFile {
    hash: ContentHash,
    document: ConfigDocument,
    own_counts: ListCounts,
    /// The pages whose items are in the lists.
    appended: Vec<Arc<SourcePage>>,
}

/// The files of the configuration at `path` that are there now: the main file, then those that it includes. A main file
/// that cannot be read as YAML includes none.
///
/// # Errors
/// The main file cannot be read.
pub fn configuration_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (document, _) = yaml::parse_document(&std::fs::read_to_string(path)?);
    let mut files = vec![path.to_path_buf()];
    if let Some(document) = document {
        let patterns = IncludePatterns::new(&document.include, &document.include_isolated, path);
        files.extend(patterns.list_files().files.into_iter().map(|(file, _)| file));
    }
    Ok(files)
}

/// A compiled configuration, before its problems are judged.
struct CompiledSources {
    compiled: CompiledDocument,
    tls: LoadedTls,
    origins: SourceFiles,
}

impl ConfigLoader {
    /// A loader with an empty cache. `clock` judges whether certificates and revocation lists are current.
    pub fn new(path: &Path, clock: Clock) -> Self {
        Self::with_pem_source(path, clock, Box::new(DiskFiles))
    }

    /// A loader that takes keys, certificates and revocation lists from `pem_source`.
    pub fn with_pem_source(path: &Path, clock: Clock, pem_source: Box<dyn PemSource>) -> Self {
        Self {
            path: path.to_path_buf(),
            clock,
            pem_source,
            keys: KeyCache::default(),
            memory: None,
            main: None,
            parts: HashMap::new(),
            memory_pages: Vec::new(),
            version: None,
            compiled: None,
        }
    }

    /// Adds documents that another part of the process makes. Each of them fails alone.
    #[must_use]
    pub(crate) fn with_documents(self, documents: SharedDocuments) -> Self {
        Self { memory: Some(documents), ..self }
    }

    /// The main file.
    pub fn path(&self) -> &Path {
        &self.path
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
        self.version = Some(self.version_hash(&text, &[], None));
        let (mut main, mut problems) = self.read_main(&text)?;

        let (mut sources, at_main) = self.read_sources((&main.document, &text), &mut room, watch);
        problems.extend(at_main);
        let mut excluded = sources.exclude_faulty();
        problems.extend(sources.iter().flat_map(|source| source.problems.iter().cloned()));
        let mut round = self.compile_sources(&mut main, &sources, &problems, (interner, watch));
        for _ in 0..EXCLUSION_ROUNDS_MAX {
            let failed = round.exclude_failed(&text, &mut sources);
            if failed.is_empty() {
                break;
            }
            excluded.extend(failed);
            round = self.compile_sources(&mut main, &sources, &problems, (interner, watch));
        }
        let CompiledSources { mut compiled, tls, origins } = round;
        if !compiled.problems.is_empty() {
            origins.locate_problems(&mut compiled.problems, &texts_of(&text, &sources));
        }
        if problems.is_empty() {
            self.cache(main, &sources); // without a cache, the next load reports all problems again
        }
        let configuration = Configuration::new(&compiled, (tls, excluded), origins, problems)?;
        self.compiled = compiled.parts;
        Ok(configuration)
    }

    /// Reads and parses all sources beside the main file. Also returns the located problems of the patterns.
    fn read_sources(
        &mut self,
        (main, text): (&ConfigDocument, &str),
        room: &mut u64,
        watch: &mut FileWatcher,
    ) -> (SourcePages, Vec<ConfigProblem>) {
        let includes = IncludePatterns::new(&main.include, &main.include_isolated, &self.path);
        let listing = includes.list_files();
        watch.watch_includes(includes.clone(), &listing);
        let mut problems = listing.problems;
        let mut files = read_included(listing.files, &includes, room, &mut problems);
        let memory = self.memory.as_ref().map(|memory| memory.load_full());
        self.version = Some(self.version_hash(text, &files, memory.as_deref()));
        locate_problems(&self.path, text, &mut problems);
        self.parse_included_files(&mut files);
        let mut sources = SourcePages::default();
        if !files.is_empty() {
            sources.push(SourcePage::new(files));
        }
        memory.iter().for_each(|memory| self.add_memory_pages(memory, &mut sources));
        (sources, problems)
    }

    /// Adds the documents in memory. A page of the last load is used again.
    fn add_memory_pages(&mut self, memory: &MemoryDocuments, sources: &mut SourcePages) {
        let before = std::mem::take(&mut self.memory_pages);
        let known: HashMap<*const MemoryDocument, Arc<SourcePage>> =
            before.iter().map(|(documents, page)| (documents.as_ptr(), Arc::clone(page))).collect();
        for documents in memory.documents.pages() {
            let page = known.get(&documents.as_ptr()).map(Arc::clone);
            let page =
                page.unwrap_or_else(|| SourcePage::new(documents.iter().map(MemoryDocument::to_source).collect()));
            sources.push(Arc::clone(&page));
            self.memory_pages.push((Arc::clone(documents), page));
        }
    }

    /// Compiles the main file with these sources. `known` are the problems found before.
    fn compile_sources(
        &mut self,
        main: &mut MainFile,
        sources: &SourcePages,
        known: &[ConfigProblem],
        (interner, watch): (&NameInterner, &mut FileWatcher),
    ) -> CompiledSources {
        let origins = main.replace_appended(&self.path, sources);
        let version = self.version.clone().unwrap_or_default();
        let may_be_empty = self.memory.is_some();
        let context = CompileContext { sources: &origins, version: &version, numbers: interner, may_be_empty };
        let mut compiled = compile_document(&main.document, context, self.compiled.as_ref());
        let named = NamedFiles::new(&compiled, known);
        watch.add_files(named.paths());
        let (tls, faults) = named.load(self.pem_source.as_ref(), &self.clock, &mut self.keys);
        compiled.problems.extend(faults);
        compiled.problems.extend(ledger_folder_problem(&compiled, known));
        CompiledSources { compiled, tls, origins }
    }

    /// The first 12 hex digits of a SHA-256. The input is the text of the main file, followed by two values per
    /// included file: its path relative to the main file's folder, and the hash of its text; then the version of the
    /// documents in memory. So the version does not depend on the location of the files.
    fn version_hash(&self, main: &str, included: &[LoadedSource], memory: Option<&MemoryDocuments>) -> String {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut digest = Sha256::new_with_prefix(main);
        for source in included {
            let name = source.path.strip_prefix(folder).unwrap_or(&source.path);
            digest.update([0]);
            digest.update(name.as_os_str().as_bytes());
            digest.update([0]);
            digest.update(source.hash);
        }
        if let Some(memory) = memory {
            digest.update([1]);
            digest.update(&memory.version);
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
        let own_counts = document.counts();
        Ok((MainFile { hash, document, own_counts, appended: Vec::new() }, problems))
    }

    /// Parses the included files. Changed files are parsed, on at most one thread per core; others come from the cache.
    fn parse_included_files(&self, sources: &mut [LoadedSource]) {
        let mut changed = Vec::new();
        for source in sources.iter_mut().filter(|source| source.problems.is_empty()) {
            match self.parts.get(&source.path).filter(|(hash, _)| *hash == source.hash) {
                Some((_, part)) => source.document = Some(Arc::clone(part)),
                None => changed.push(source),
            }
        }
        let texts: Vec<&str> = changed.iter().map(|source| &*source.text).collect();
        let read = map_in_parallel(&texts, |text| yaml::parse_included(text));
        for (source, (part, mut found)) in changed.into_iter().zip(read) {
            locate_problems(&source.path, &source.text, &mut found);
            source.problems = found;
            source.document = part.map(Arc::new);
        }
    }

    /// Caches the documents of all files.
    fn cache(&mut self, main: MainFile, sources: &SourcePages) {
        self.main = Some(main);
        // Files are on the first page, documents in memory on others; these have no hash.
        let first = sources.pages().first().map(|page| &page.sources[..]).unwrap_or_default();
        let files = first.iter().filter(|source| source.hash != ContentHash::default());
        let part = |source: &LoadedSource| Some((source.hash, Arc::clone(source.document.as_ref()?)));
        self.parts = files.filter_map(|source| Some((Arc::clone(&source.path), part(source)?))).collect();
    }
}

impl CompiledSources {
    /// Removes the isolated sources with problems from `sources` and returns them.
    fn exclude_failed(&mut self, main: &str, sources: &mut SourcePages) -> Vec<ExcludedSource> {
        let is_isolated: Vec<bool> = match self.compiled.problems.is_empty() {
            true => return Vec::new(),
            false => sources.iter().map(|source| source.is_isolated).collect(),
        };
        let mut failed: HashMap<usize, Vec<ConfigProblem>> = HashMap::new();
        for problem in &self.compiled.problems {
            let file = self.origins.file_of_path(&problem.path);
            if file.checked_sub(1).is_some_and(|source| is_isolated[source]) {
                failed.entry(file - 1).or_default().push(problem.clone());
            }
        }
        if failed.is_empty() {
            return Vec::new();
        }
        let texts = texts_of(main, sources);
        failed.values_mut().for_each(|problems| self.origins.locate_problems(problems, &texts));
        sources.exclude_failed(failed)
    }
}

/// The texts of all files: that of the main file first.
fn texts_of<'t>(main: &'t str, sources: &'t SourcePages) -> Vec<&'t str> {
    std::iter::once(main).chain(sources.iter().map(|source| &*source.text)).collect()
}

impl MainFile {
    /// Replaces the items of other files by those of these sources. Returns which item is of which file.
    fn replace_appended(&mut self, path: &Path, sources: &SourcePages) -> SourceFiles {
        let (before, now) = (&self.appended[..], sources.pages());
        let same = |(one, other): &(&Arc<SourcePage>, &Arc<SourcePage>)| Arc::ptr_eq(one, other);
        let start = before.iter().zip(now).take_while(same).count();
        let end = before[start..].iter().rev().zip(now[start..].iter().rev()).take_while(same).count();
        let (removed, added) = (&before[start..before.len() - end], &now[start..now.len() - end]);
        let begin = sum_of_counts(self.own_counts, &before[..start]);
        let added: Vec<&IncludedDocument> = added.iter().map(|page| &page.lists).collect();
        self.document.splice((begin, sum_of_counts(begin, removed)), &added);
        self.appended = now.to_vec();
        let (mut origins, mut starts) = (SourceFiles::new(path), self.own_counts);
        for page in now {
            origins.add_page(Arc::clone(&page.files), starts);
            starts = sum_of_counts(starts, std::slice::from_ref(page));
        }
        origins
    }
}

/// The counts `first`, and those of all pages.
fn sum_of_counts(first: ListCounts, pages: &[Arc<SourcePage>]) -> ListCounts {
    let mut sum = first;
    for page in pages {
        sum.iter_mut().zip(page.lists.counts()).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// Reads the listed files if they are regular files: a pipe could block a reload without end. A file that cannot be
/// read is a problem of the pattern that names it, or of the file if it is isolated.
fn read_included(
    files: Vec<(PathBuf, usize)>,
    includes: &IncludePatterns,
    room: &mut u64,
    problems: &mut Vec<ConfigProblem>,
) -> Vec<LoadedSource> {
    let mut sources = Vec::with_capacity(files.len());
    for (path, pattern) in files {
        let is_special = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        let text = match is_special {
            true => Err(format!("{} cannot be read: it is not a regular file", path.display())),
            false => read_text(&path, room),
        };
        let is_isolated = includes.is_isolated(pattern);
        let (text, fault) = match text {
            Ok(text) => (text, Vec::new()),
            Err(why) if is_isolated => (String::new(), vec![ConfigProblem::new("", why)]),
            Err(why) => {
                problems.push(ConfigProblem::new(includes.place(pattern), why));
                continue;
            }
        };
        sources.push(LoadedSource {
            hash: content_hash(&text),
            path: path.into(),
            text: text.into(),
            document: None,
            problems: fault,
            is_isolated,
        });
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
