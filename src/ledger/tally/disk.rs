//! The file operations of the tally and the identity checks of the ledger's files, behind a trait that tests replace.
//!
//! Mapped memory needs no such trait once it is mapped: a store cannot fail. Folders are synced too, because otherwise
//! the name of a new file could be lost.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::ledger::files::file_identity::FileIdentity;

use super::mmap::map_slots;
use super::slot::Slot;

/// File operations of the tally. Every operation may fail, and returns its error.
pub(crate) trait TallyDisk: fmt::Debug + Send {
    /// Creates a new, empty file for reading and writing. Fails if the file exists.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes `bytes` zeros from byte `from` on, which is the end of the used part.
    fn extend(&self, file: &File, from: u64, bytes: u64) -> io::Result<()>;
    /// Syncs the file's data to the disk (fdatasync).
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Renames a file within its folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Maps `slots` slots from byte `from` on, for the rest of the process's life.
    fn map(&self, file: &File, from: u64, slots: usize) -> io::Result<&'static [Slot]> {
        map_slots(file, from, slots)
    }
    /// Returns the identity of the file at a path; `None` if there is no file.
    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(FileIdentity::from_metadata(&metadata))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The machine's disk.
#[derive(Debug)]
pub(crate) struct SystemDisk;

impl TallyDisk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn extend(&self, file: &File, from: u64, bytes: u64) -> io::Result<()> {
        write_zeros(file, from, bytes).inspect_err(|_| {
            // Releases the space that a failed extension took; nothing behind `from` is mapped. If the truncation fails
            // too, nothing is lost.
            let _ = file.set_len(from);
        })
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_folder(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_folder(path)
    }
}

fn write_zeros(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = from;
    while at < from + bytes {
        let now = BLOCK.len().min(usize::try_from(from + bytes - at).unwrap_or(BLOCK.len()));
        file.write_all_at(&BLOCK[..now], at)?;
        at += now as u64;
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
