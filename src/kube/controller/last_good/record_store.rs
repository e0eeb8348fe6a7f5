//! The place of the last good configuration: reading, replacing and removing its file.
//!
//! Guarantees:
//! - The file is replaced as a whole, after the new one is on the disk.
//! - Every error names the file and what was tried.
//!
//! Leaves to others: the form of the file (`record`), single operations of the disk (`record_disk`).

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::record::{LastGoodConfig, RECORD_BYTES_MAX, RecordFault, RecordToWrite, read_record, write_record};
use super::record_disk::{RecordDisk, SystemRecordDisk};

/// What replaces the extension of the ledger's path in the name of the folder.
const FOLDER_EXTENSION: &str = "last-good";
/// The file, and the one that takes its place.
const FILE: &str = "configuration";
const NEW_FILE: &str = "configuration.new";

/// The place of the last good configuration.
#[derive(Debug)]
pub struct LastGoodStore {
    folder: PathBuf,
    disk: Box<dyn RecordDisk>,
}

/// Why the last good configuration could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// An operation of the disk failed.
    #[error("cannot {what} {}: {error}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
    /// The file cannot be used.
    #[error("{} cannot be used: {fault}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: RecordFault,
    },
}

impl LastGoodStore {
    /// The store beside a ledger: in the folder `NAME.last-good` for the ledger `NAME.db`. A folder has one process,
    /// because a ledger has one.
    pub fn beside(ledger: &Path) -> Self {
        Self::new(ledger.with_extension(FOLDER_EXTENSION), Box::new(SystemRecordDisk))
    }

    /// A store in a folder, which is made when something is written.
    pub fn new(folder: PathBuf, disk: Box<dyn RecordDisk>) -> Self {
        Self { folder, disk }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Whether a configuration was written. Its content is not read.
    ///
    /// # Errors
    /// [`LastGoodError::Disk`], if that cannot be found out.
    pub fn is_written(&self) -> Result<bool, LastGoodError> {
        let path = self.path();
        self.disk.exists(&path).map_err(|error| LastGoodError::Disk { what: "look for", path, error })
    }

    /// The configuration; `None` if none was written.
    ///
    /// # Errors
    /// [`LastGoodError`], if the file cannot be read or used.
    pub fn read(&self) -> Result<Option<LastGoodConfig>, LastGoodError> {
        let path = self.path();
        let content = self.disk.read(&path, RECORD_BYTES_MAX);
        let content = content.map_err(|error| LastGoodError::Disk { what: "read", path: path.clone(), error })?;
        let read = content.map(|content| read_record(&content)).transpose();
        read.map_err(|fault| LastGoodError::Record { path, fault })
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// [`LastGoodError`]; the configuration before is still there.
    pub(in crate::kube::controller) fn write(&self, record: &RecordToWrite<'_>) -> Result<(), LastGoodError> {
        let (path, new) = (self.path(), self.folder.join(NEW_FILE));
        let fault = |what: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |error| LastGoodError::Disk { what, path, error }
        };
        self.disk.create_folder(&self.folder).map_err(fault("make the folder", &self.folder))?;
        let file = self.disk.create(&new).map_err(fault("make", &new))?;
        let mut out = BufWriter::new(&file);
        write_record(&mut out, record).and_then(|()| out.flush()).map_err(fault("write", &new))?;
        drop(out);
        self.disk.sync(&file).map_err(fault("sync", &new))?;
        self.disk.rename(&new, &path).map_err(fault("rename to its name", &new))
    }

    /// Removes the configuration, and one that was not written to its end: it holds keys. Returns whether there was
    /// one.
    ///
    /// # Errors
    /// [`LastGoodError`], if a file is still there.
    pub fn remove(&self) -> Result<bool, LastGoodError> {
        let mut was_there = false;
        for path in [self.path(), self.folder.join(NEW_FILE)] {
            let removed = self.disk.remove(&path);
            was_there |= removed.map_err(|error| LastGoodError::Disk { what: "remove", path, error })?;
        }
        Ok(was_there)
    }
}
