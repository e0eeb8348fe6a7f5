//! From files to a configuration, again and again: what a file said is kept, and only files that have changed are read as
//! YAML anew.
//!
//! Guarantees: a configuration is compiled whole, whatever was kept, so that it means what its files say; the watch is made
//! before the files are read, so that no change is missed. Bounds: [`BYTES_MAX`] of text, the files of
//! [`super::include`]. Leaves to `compile`: meaning.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use crate::model::Numbers;

use super::document::{Document, Part};
use super::include::Includes;
use super::problem::{Problem, Problems};
use super::sources::{Counts, Sources, locate_in};
use super::{Configuration, Watch, read, understand};

/// The text of all files of a configuration at most. A province of 30,000 departments and 410,000 callers has 38 MB.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

type Hash = [u8; 32];

/// Reads a configuration whenever it is asked to.
#[derive(Debug)]
pub struct Loader {
    path: PathBuf,
    main: Option<Main>,
    parts: HashMap<PathBuf, (Hash, Arc<Part>)>,
    version: Option<String>,
}

/// What a reading gives.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, or every problem.
    pub configuration: Result<Configuration, Problems>,
    /// The files it was read from, or would have been.
    pub watch: Watch,
}

/// The main file as it was read last. The lists of `document` go on with those of other files behind `own` items.
#[derive(Debug)]
struct Main {
    hash: Hash,
    document: Document,
    own: Counts,
}

/// An included file and what it says.
struct Source {
    path: PathBuf,
    text: String,
    hash: Hash,
}

impl Loader {
    /// Nothing has been read yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), main: None, parts: HashMap::new(), version: None }
    }

    /// The version of what was read last, right or wrong; none if it could not be read.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Reads the files and compiles them.
    pub fn load(&mut self, numbers: &Numbers) -> Loaded {
        let mut watch = Watch::new([self.path.clone()]);
        let configuration = self.read(numbers, &mut watch);
        Loaded { configuration, watch }
    }

    fn read(&mut self, numbers: &Numbers, watch: &mut Watch) -> Result<Configuration, Problems> {
        self.version = None;
        let mut room = BYTES_MAX;
        let text = read_text(&self.path, &mut room).map_err(Problems::whole)?;
        self.version = Some(self.version_of(&text, &[]));
        let (mut main, mut problems) = self.main_of(&text)?;

        let includes = Includes::new(&main.document.include, &self.path);
        let listing = includes.list();
        watch.include(includes, &listing);
        let mut at_main = listing.problems;
        let sources = read_all(listing.files, &mut room, &mut at_main);
        self.version = Some(self.version_of(&text, &sources));
        locate_in(&self.path, &text, &mut at_main);
        problems.extend(at_main);

        let parts = self.parts_of(&sources, &mut problems);
        let origins = main.append(&self.path, sources.iter().zip(&parts));
        let texts: Vec<&str> = std::iter::once(text.as_str()).chain(sources.iter().map(|s| s.text.as_str())).collect();
        let version = self.version.clone().unwrap_or_default();
        let understood = understand(&main.document, &version, numbers, origins).and_files(&problems).located(&texts);
        if problems.is_empty() {
            self.keep(main, sources, parts); // otherwise all is read anew, so that its problems are found anew
        }
        understood.or_problems(problems)
    }

    /// The first 12 hex digits of the SHA-256 of the main file's text, followed, for each included file, by its path from
    /// the main file's folder and the hash of its text: the same wherever the configuration is read from.
    fn version_of(&self, main: &str, included: &[Source]) -> String {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut digest = Sha256::new_with_prefix(main);
        for source in included {
            let name = source.path.strip_prefix(folder).unwrap_or(&source.path);
            digest.update([0]);
            digest.update(name.as_os_str().as_bytes());
            digest.update([0]);
            digest.update(source.hash);
        }
        shorten(&digest.finalize())
    }

    /// The main file: as it was kept, if it has not changed.
    fn main_of(&mut self, text: &str) -> Result<(Main, Vec<Problem>), Problems> {
        let hash = hash(text);
        if let Some(main) = self.main.take().filter(|main| main.hash == hash) {
            return Ok((main, Vec::new()));
        }
        let (document, mut problems) = read::document(text);
        locate_in(&self.path, text, &mut problems);
        let Some(document) = document else { return Err(Problems::bounded(problems)) };
        let own = counts(&document);
        Ok((Main { hash, document, own }, problems))
    }

    /// What each file says; those that have changed are read, on as many threads as there are cores.
    fn parts_of(&mut self, sources: &[Source], problems: &mut Vec<Problem>) -> Vec<Option<Arc<Part>>> {
        let kept = |source: &Source| self.parts.get(&source.path).filter(|(hash, _)| *hash == source.hash);
        let mut parts: Vec<Option<Arc<Part>>> =
            sources.iter().map(|source| kept(source).map(|(_, part)| Arc::clone(part))).collect();
        let changed: Vec<usize> = (0..sources.len()).filter(|position| parts[*position].is_none()).collect();
        let read = on_all_cores(&changed, |position| read::part(&sources[*position].text));
        for (position, (part, mut found)) in changed.into_iter().zip(read) {
            let source = &sources[position];
            if !found.is_empty() {
                locate_in(&source.path, &source.text, &mut found);
                problems.extend(found);
            }
            parts[position] = part.map(Arc::new);
        }
        parts
    }

    /// Keeps what every file says.
    fn keep(&mut self, mut main: Main, sources: Vec<Source>, parts: Vec<Option<Arc<Part>>>) {
        main.cut();
        self.main = Some(main);
        let read = sources.into_iter().zip(parts);
        self.parts = read.filter_map(|(source, part)| Some((source.path, (source.hash, part?)))).collect();
    }
}

impl Main {
    /// Lets the lists go on with those of the included files.
    fn append<'p>(&mut self, path: &Path, parts: impl Iterator<Item = (&'p Source, &'p Option<Arc<Part>>)>) -> Sources {
        let mut origins = Sources::of_main(path);
        for (source, part) in parts {
            origins.add(&source.path, counts(&self.document));
            let Some(part) = part else { continue };
            self.document.departments.extend(part.departments.iter().map(Arc::clone));
            self.document.subsystems.extend(part.subsystems.iter().map(Arc::clone));
            self.document.grants.extend(part.grants.iter().map(Arc::clone));
        }
        origins
    }

    /// Takes the items of included files away again.
    fn cut(&mut self) {
        let [departments, subsystems, grants] = self.own;
        self.document.departments.truncate(departments);
        self.document.subsystems.truncate(subsystems);
        self.document.grants.truncate(grants);
    }
}

fn counts(document: &Document) -> Counts {
    [document.departments.len(), document.subsystems.len(), document.grants.len()]
}

/// Reads the files that are listed, if they are files: a pipe could make a reload wait without end. One that cannot be read is a problem of the pattern that names it.
fn read_all(files: Vec<(PathBuf, usize)>, room: &mut u64, problems: &mut Vec<Problem>) -> Vec<Source> {
    let mut sources = Vec::with_capacity(files.len());
    for (path, pattern) in files {
        let is_special = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        let text = match is_special {
            true => Err(format!("{} cannot be read: it is not a regular file", path.display())),
            false => read_text(&path, room),
        };
        match text {
            Ok(text) => sources.push(Source { hash: hash(&text), path, text }),
            Err(why) => problems.push(Problem::new(format!("include[{pattern}]"), why)),
        }
    }
    sources
}

/// The text of a file, as long as there is room for it.
fn read_text(path: &Path, room: &mut u64) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(*room + 1).read_to_string(&mut text));
    match read.map(|bytes| bytes as u64) {
        Ok(bytes) if bytes > *room => Err(format!(
            "{shown} cannot be read: a configuration has at most {} MiB, all its files together",
            BYTES_MAX >> 20
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

/// The first 12 hex digits.
pub(super) fn shorten(hash: &[u8]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

/// Runs `work` for every item; the results are in the order of the items.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some((position, item)) = taken(items, &next) {
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

fn taken<'i, T>(items: &'i [T], next: &AtomicUsize) -> Option<(usize, &'i T)> {
    let position = next.fetch_add(1, Ordering::Relaxed);
    Some((position, items.get(position)?))
}

#[cfg(test)]
mod tests;
