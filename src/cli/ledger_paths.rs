//! The ledgers that a command line names: paths, and patterns that match several books.
//!
//! Guarantees:
//! - The books are in the order of the arguments; those of one pattern are in the byte order of their paths.
//! - A pattern matches books only, never the files beside them. A pattern without a match is an error.
//! - The numbers of ledgers, of folders and of folder entries are bounded.
//! - No file is opened after a connection to its book: closing it would drop that connection's locks (`ledger::files`).
//!
//! Leaves to others: whether a book can be read, and whether two of them are the same ledger.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::ledger::is_companion;

use super::BadUsage;

/// The most ledgers of one report.
const LEDGERS_MAX: usize = 1000;
/// The most folders that one pattern searches.
const FOLDERS_MAX: usize = 10_000;
/// The most entries of one folder that are compared with a pattern.
const FOLDER_ENTRIES_MAX: usize = 65_536;

/// The first bytes of every book (sqlite.org/fileformat.html, "The Database Header").
const DATABASE_BEGIN: &[u8; 16] = b"SQLite format 3\0";
/// The extension of a book. A match with this extension must be a book, whatever its first bytes are.
const BOOK_EXTENSION: &str = "db";

/// The ledgers that the arguments name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerPaths {
    /// The books. The same file can occur several times.
    pub(crate) books: Vec<PathBuf>,
    /// Files that a pattern matches and that are no books.
    pub(crate) skipped: Vec<PathBuf>,
}

impl LedgerPaths {
    /// Finds the ledgers of the arguments.
    pub(crate) fn find(arguments: &[PathBuf]) -> Result<Self, BadUsage> {
        let mut paths = Self::default();
        for argument in arguments {
            match argument.to_str().filter(|text| has_wildcard(text) && !argument.exists()) {
                Some(pattern) => paths.add_matches(pattern)?,
                None => paths.books.push(existing_book(argument)?.to_owned()),
            }
            if paths.books.len() > LEDGERS_MAX {
                let found = paths.books.len();
                return Err(BadUsage(format!(
                    "--ledger: {found} ledgers are named; the limit of one report is {LEDGERS_MAX}: report parts of \
                     them, and add these up"
                )));
            }
        }
        Ok(paths)
    }

    fn add_matches(&mut self, pattern: &str) -> Result<(), BadUsage> {
        let bad = |message: String| BadUsage(format!("--ledger {pattern:?}: {message}"));
        let mut found = matching_files(pattern).map_err(bad)?;
        found.sort();
        let (books, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| may_be_book(path));
        if books.is_empty() {
            return Err(bad(match others.len() {
                0 => "no ledger matches this pattern; check the folder, and that it may be read".to_owned(),
                others => format!("no ledger matches this pattern, only {others} other files"),
            }));
        }
        self.books.extend(books);
        self.skipped.extend(others);
        Ok(())
    }
}

/// Whether a match can be a book: it begins as one, or has the extension of one. A book that cannot be read is no
/// reason to skip it: its ledger would be missing from the sum.
fn may_be_book(path: &Path) -> bool {
    let mut begin = [0; DATABASE_BEGIN.len()];
    let has_extension = path.extension().is_some_and(|extension| extension == BOOK_EXTENSION);
    has_extension
        || match File::open(path) {
            Ok(mut file) => file.read_exact(&mut begin).is_ok() && begin == *DATABASE_BEGIN,
            Err(_) => true,
        }
}

/// Returns the files that match a pattern, without those that lie beside a book.
fn matching_files(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for component in Path::new(pattern).components() {
        found = match component {
            Component::Normal(name) if name.to_str().is_some_and(has_wildcard) => {
                let named = BookNamePattern::compile(name.to_str().unwrap_or_default())?;
                matching_entries(&found, &named)?
            }
            literal => found.iter().map(|folder| folder.join(literal)).collect(),
        };
    }
    found.retain(|path| path.is_file() && !is_companion(path));
    Ok(found)
}

fn matching_entries(folders: &[PathBuf], named: &BookNamePattern) -> Result<Vec<PathBuf>, String> {
    if folders.len() > FOLDERS_MAX {
        return Err(format!("the pattern searches more than {FOLDERS_MAX} folders; write a narrower one"));
    }
    let mut found = Vec::new();
    for folder in folders {
        found.extend(folder_entries(folder, named)?);
    }
    Ok(found)
}

/// Returns the entries of a folder that match. A folder that cannot be read is an error: it may hold a ledger.
fn folder_entries(folder: &Path, named: &BookNamePattern) -> Result<Vec<PathBuf>, String> {
    let opened = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !opened.is_dir() {
        return Ok(Vec::new());
    }
    let cannot_read = |error: std::io::Error| format!("cannot read the folder {}: {error}", opened.display());
    let mut found = Vec::new();
    for (position, entry) in std::fs::read_dir(opened).map_err(cannot_read)?.enumerate() {
        if position == FOLDER_ENTRIES_MAX {
            return Err(format!("the folder {} has more than {FOLDER_ENTRIES_MAX} entries", opened.display()));
        }
        let name = entry.map_err(cannot_read)?.file_name();
        if name.to_str().is_some_and(|name| named.matches(name)) {
            found.push(folder.join(name));
        }
    }
    Ok(found)
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// A pattern on one name of a path. As in a shell, names with a leading dot match only a pattern with a leading dot:
/// Kubernetes keeps such entries (`..data`) beside the files.
struct BookNamePattern {
    glob: GlobMatcher,
    is_hidden: bool,
}

impl BookNamePattern {
    fn compile(component: &str) -> Result<Self, String> {
        if component.contains("**") {
            return Err("** is not supported; name each folder, as in ledgers/*/ledger.db".to_owned());
        }
        let glob = GlobBuilder::new(component).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("{component:?} is not a pattern: {}", error.kind()))?;
        Ok(Self { glob: glob.compile_matcher(), is_hidden: component.starts_with('.') })
    }

    fn matches(&self, name: &str) -> bool {
        (self.is_hidden || !name.starts_with('.')) && self.glob.is_match(name)
    }
}

/// Checks that the book exists, because SQLite's error for a missing file is less clear.
pub(super) fn existing_book(book: &Path) -> Result<&Path, BadUsage> {
    if !book.exists() {
        let missing = book.display();
        return Err(BadUsage(format!("there is no ledger at {missing}; give the file that ledger.path names")));
    }
    if book.is_dir() {
        return Err(BadUsage(format!("{} is a folder; give the file that ledger.path names", book.display())));
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with the ledgers of three gateways, and with other files.
    fn ledgers() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for below in ["edge-0", "edge-1", "edge-2", ".trash", "edge-1/folder.db"] {
            fs::create_dir_all(folder.path().join(below)).expect("a folder");
        }
        for book in ["edge-1/ledger.db", "edge-0/ledger.db", "edge-2/book", ".trash/ledger.db", "odd[1].db"] {
            fs::write(folder.path().join(book), [DATABASE_BEGIN.as_slice(), b"more"].concat()).expect("a file");
        }
        for other in [
            "edge-0/ledger.db-wal",
            "edge-0/ledger.db-shm",
            "edge-0/ledger.tally",
            "edge-0/ledger.lock",
            "edge-1/ledger.tally-aside-20261130T101500",
            "edge-1/notes.txt",
            "edge-1/damaged.db",
        ] {
            fs::write(folder.path().join(other), "text").expect("a file");
        }
        folder
    }

    fn find(folder: &Path, arguments: &[&str]) -> Result<[Vec<String>; 2], String> {
        let arguments: Vec<_> = arguments.iter().map(|argument| folder.join(argument)).collect();
        let paths = LedgerPaths::find(&arguments).map_err(|error| error.to_string())?;
        let below = |path: &PathBuf| path.strip_prefix(folder).expect("below").display().to_string();
        Ok([paths.books, paths.skipped].map(|paths| paths.iter().map(below).collect()))
    }

    #[test]
    fn patterns_match_books_and_never_the_files_beside_them() {
        let folder = ledgers();
        for (arguments, books, skipped) in [
            (&["edge-0/ledger.db"][..], &["edge-0/ledger.db"][..], &[][..]),
            (&["*/ledger.db"], &["edge-0/ledger.db", "edge-1/ledger.db"], &[]),
            (&["edge-1/ledger.db", "*/ledger.db"], &["edge-1/ledger.db", "edge-0/ledger.db", "edge-1/ledger.db"], &[]),
            (&["edge-0/*"], &["edge-0/ledger.db"], &[]),
            (&["edge-?/ledger*"], &["edge-0/ledger.db", "edge-1/ledger.db"], &[]),
            (&["edge-[12]/*"], &["edge-1/damaged.db", "edge-1/ledger.db", "edge-2/book"], &["edge-1/notes.txt"]),
            (&["{edge-0,edge-2}/*"], &["edge-0/ledger.db", "edge-2/book"], &[]),
            (&["odd[1].db"], &["odd[1].db"], &[]),
        ] {
            let expected = [books, skipped].map(|paths| paths.iter().map(ToString::to_string).collect());
            assert_eq!(find(folder.path(), arguments), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn patterns_without_a_ledger_and_wrong_paths_are_errors() {
        let folder = ledgers();
        for (argument, reason) in [
            ("nowhere/*.db", "no ledger matches this pattern"),
            ("edge-0/*.lock", "no ledger matches this pattern"),
            ("edge-1/*.txt", "only 1 other files"),
            ("**/ledger.db", "** is not supported"),
            ("edge-0/[.db", "is not a pattern"),
            ("edge-0/none.db", "there is no ledger at"),
            ("edge-0", "is a folder"),
        ] {
            let error = find(folder.path(), &["edge-0/ledger.db", argument]).expect_err(argument);
            assert!(error.contains(reason) && error.contains(argument), "{argument}: {error}");
        }
    }

    #[test]
    fn number_of_ledgers_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..LEDGERS_MAX {
            fs::write(folder.path().join(format!("{number}.db")), "").expect("a file");
        }
        assert_eq!(find(folder.path(), &["*.db"]).expect("as many as allowed")[0].len(), LEDGERS_MAX);
        let error = find(folder.path(), &["*.db", "0.db"]).expect_err("one more");
        assert!(error.contains("1001 ledgers are named; the limit of one report is 1000"), "{error}");
    }
}
