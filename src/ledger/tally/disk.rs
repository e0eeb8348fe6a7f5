//! The door to the disk for the tally's file operations and for looks at the ledger's files, so that a test can own them.
//!
//! Mapped memory needs no door once it is mapped: a store cannot fail. Folders are synced too, or a new name could be lost.

use crate::ledger::files::file_identity::FileIdentity;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::mmap::map_slots;
use super::slot::Slot;

/// File operations of the tally. Every one may fail, and says so.
pub(crate) trait TallyDisk: fmt::Debug + Send {
    /// Makes a new, empty file for reading and writing; fails if there is one.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes `bytes` zeros from byte `from` on, the end of what is in use.
    fn extend(&self, file: &File, from: u64, bytes: u64) -> io::Result<()>;
    /// Carries the file's data to the disk (fdatasync).
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Gives a file another name, in the same folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Maps `slots` slots from byte `from` on, for the rest of the process's life.
    fn map(&self, file: &File, from: u64, slots: usize) -> io::Result<&'static [Slot]> {
        map_slots(file, from, slots)
    }
    /// Which file lies at a path; nothing if there is none.
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
            // Gives back what a full disk took; nothing behind `from` is mapped. If this fails too, nothing is lost by it.
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
