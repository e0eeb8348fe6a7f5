//! Detects whether the files of an open ledger were removed, renamed or replaced.
//!
//! Guarantees:
//! - The next check detects a file that was removed, renamed or replaced under a running gateway, by device and inode.
//! - A check that fails for another reason changes nothing.
//!
//! Leaves to `keeper`: the time of checks, and the consequences.

use std::io;
use std::path::{Path, PathBuf};

use crate::ledger::files::book_path::{LOG_INDEX_SUFFIX, LOG_SUFFIX, path_with_suffix};
use crate::ledger::files::file_identity::FileIdentity;
use crate::ledger::files::lock::LedgerLock;
use crate::ledger::tally::disk::TallyDisk;
use crate::ledger::values::error::{FileDisplacement, LedgerError};

/// A path and the identity that its file must keep.
#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    identity: FileIdentity,
}

/// The watched files of one ledger.
#[derive(Debug, Default)]
pub(crate) struct LedgerFileWatch(Vec<WatchedFile>);

impl LedgerFileWatch {
    /// Watches the lock file, the book with its log and index, and the tally.
    pub(crate) fn new(
        disk: &dyn TallyDisk,
        book: &Path,
        lock: &LedgerLock,
        tally: (PathBuf, FileIdentity),
    ) -> Result<Self, LedgerError> {
        let failed = |error| LedgerError::file("inspect the files of", book, error);
        let (lock_path, lock_identity) = lock.lock_file_identity().map_err(failed)?;
        let known = [(book.to_owned(), lock.book_identity().map_err(failed)?), (lock_path, lock_identity), tally];
        let mut watched: Vec<_> = known.map(|(path, identity)| WatchedFile { path, identity }).into();
        for path in [LOG_SUFFIX, LOG_INDEX_SUFFIX].map(|suffix| path_with_suffix(book, suffix)) {
            // SQLite keeps both as long as the keeper's connection is open.
            if let Some(identity) = disk.identity(&path).map_err(failed)? {
                watched.push(WatchedFile { path, identity });
            }
        }
        Ok(Self(watched))
    }

    /// Returns the first file whose identity has changed.
    pub(crate) fn find_displaced(&self, disk: &dyn TallyDisk) -> Option<(&Path, FileDisplacement)> {
        self.0.iter().find_map(|one| Some((&*one.path, one.displacement(disk)?)))
    }
}

impl WatchedFile {
    fn displacement(&self, disk: &dyn TallyDisk) -> Option<FileDisplacement> {
        match disk.identity(&self.path) {
            Ok(Some(identity)) if identity == self.identity => None,
            Ok(Some(_)) => Some(FileDisplacement::Replaced),
            Ok(None) => Some(FileDisplacement::Removed),
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Some(FileDisplacement::Removed),
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "could not inspect a file of the ledger; retrying");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tally::disk::SystemDisk;

    #[test]
    fn removed_or_replaced_file_is_detected_and_growth_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, aside) = (folder.path().join("data/ledger.db"), folder.path().join("aside"));
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        std::fs::write(&path, "1").expect("written");
        let identity = SystemDisk.identity(&path).expect("a look").expect("a file");
        let watch = LedgerFileWatch(vec![WatchedFile { path: path.clone(), identity }]);
        let seen = || watch.find_displaced(&SystemDisk).map(|(_, what)| what);
        std::fs::write(&path, "12").expect("written");
        assert_eq!(seen(), None);
        std::fs::rename(&path, &aside).expect("renamed");
        assert_eq!(seen(), Some(FileDisplacement::Removed));
        std::fs::copy(&aside, &path).expect("a copy");
        assert_eq!(seen(), Some(FileDisplacement::Replaced));
        std::fs::rename(&aside, &path).expect("renamed");
        assert_eq!(seen(), None, "the same file is back");
        std::fs::remove_dir_all(folder.path().join("data")).expect("removed");
        assert_eq!(seen(), Some(FileDisplacement::Removed));
    }
}
