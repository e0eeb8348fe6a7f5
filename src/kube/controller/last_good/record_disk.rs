//! The file operations of the last good configuration, behind a trait that tests replace.
//!
//! Guarantees:
//! - Only the user of the process may read and write what is made here: folders have the mode 0700, files 0600.
//! - A name is on the disk when `rename` returns.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file operations. Every operation may fail, and returns its error.
pub trait RecordDisk: fmt::Debug + Send + Sync {
    /// Makes a folder, unless it is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes an empty file for writing. A file that is there is removed: it was not written to its end.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Syncs a file to the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Renames a file within its folder, in place of the file with the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Whether there is a file.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The content of a file of at most `max` bytes; `None` if there is no file.
    fn read(&self, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>>;
    /// Removes a file, if there is one. Returns whether there was one.
    fn remove(&self, path: &Path) -> io::Result<bool>;
}

/// The machine's disk.
#[derive(Debug)]
pub struct SystemRecordDisk;

impl RecordDisk for SystemRecordDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.remove(path)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_folder(to)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn read(&self, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match OpenOptions::new().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.len() > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has {} bytes, at most {max} are read", metadata.len()),
            ));
        }
        let mut content = Vec::new();
        file.take(max).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn remove(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_file(path) {
            Ok(()) => sync_folder(path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
