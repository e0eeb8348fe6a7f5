//! Whether the files of a kept ledger are still the files that their names say.
//!
//! Guarantees: a file that was removed, renamed or replaced under a running gateway is noticed at the next look, by device
//! and inode. A look that fails for another reason decides nothing. Leaves to the keeper when to look and what follows.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileIdentity};
use super::error::LedgerError;
use super::lock::LedgerLock;
use super::place::{LOG, LOG_INDEX, beside};

/// A file that must stay what it was.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    identity: FileIdentity,
}

/// The files of one ledger.
#[derive(Debug, Default)]
pub(super) struct FileWatch(Vec<Watched>);

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displacement {
    /// Nothing lies under its name, or its folder is gone.
    Removed,
    /// Another file lies under its name.
    Replaced,
}

impl Displacement {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        }
    }
}

impl FileWatch {
    /// Watches the lock file, the book with its log and index, and the tally.
    pub(super) fn over(
        disk: &dyn Disk,
        book: &Path,
        lock: &LedgerLock,
        tally: (PathBuf, FileIdentity),
    ) -> Result<Self, LedgerError> {
        let failed = |error| LedgerError::file("look at the files of", book, error);
        let (lock_path, lock_identity) = lock.file().map_err(failed)?;
        let known = [(book.to_owned(), lock.book().map_err(failed)?), (lock_path, lock_identity), tally];
        let mut watched: Vec<_> = known.map(|(path, identity)| Watched { path, identity }).into();
        for path in [LOG, LOG_INDEX].map(|suffix| beside(book, suffix)) {
            // SQLite keeps both as long as the keeper's connection is open.
            if let Some(identity) = disk.identity(&path).map_err(failed)? {
                watched.push(Watched { path, identity });
            }
        }
        Ok(Self(watched))
    }

    /// The first file that is not what it was.
    pub(super) fn displaced(&self, disk: &dyn Disk) -> Option<(&Path, Displacement)> {
        self.0.iter().find_map(|one| Some((&*one.path, one.displacement(disk)?)))
    }
}

impl Watched {
    fn displacement(&self, disk: &dyn Disk) -> Option<Displacement> {
        match disk.identity(&self.path) {
            Ok(Some(identity)) if identity == self.identity => None,
            Ok(Some(_)) => Some(Displacement::Replaced),
            Ok(None) => Some(Displacement::Removed),
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Some(Displacement::Removed),
            Err(error) => {
                tracing::warn!(%error, file = %self.path.display(), "could not look at a file of the ledger; trying again");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::disk::SystemDisk;

    #[test]
    fn a_file_that_is_removed_or_replaced_is_noticed_and_one_that_grows_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, aside) = (folder.path().join("data/ledger.db"), folder.path().join("aside"));
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        std::fs::write(&path, "1").expect("written");
        let identity = SystemDisk.identity(&path).expect("a look").expect("a file");
        let watch = FileWatch(vec![Watched { path: path.clone(), identity }]);
        let seen = || watch.displaced(&SystemDisk).map(|(_, what)| what);
        std::fs::write(&path, "12").expect("written");
        assert_eq!(seen(), None);
        std::fs::rename(&path, &aside).expect("renamed");
        assert_eq!(seen(), Some(Displacement::Removed));
        std::fs::copy(&aside, &path).expect("a copy");
        assert_eq!(seen(), Some(Displacement::Replaced));
        std::fs::rename(&aside, &path).expect("renamed");
        assert_eq!(seen(), None, "the same file is back");
        std::fs::remove_dir_all(folder.path().join("data")).expect("removed");
        assert_eq!(seen(), Some(Displacement::Removed));
    }
}
