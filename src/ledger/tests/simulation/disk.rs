//! A simulated disk: it runs full, fails to sync, crashes at the n-th operation, and keeps a copy of the synced
//! content.
//!
//! Files and their memory maps are reused: a map lives as long as its process, and ten thousand schedules need more
//! maps than a process may have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::tally::disk::{SystemDisk, TallyDisk};
use crate::ledger::tally::slot::Slot;

/// Inode, offset and number of slots. The inode of a mapped file is not reused for another file.
type DiskStretch = (u64, u64, usize);

thread_local! {
    static MAPS: RefCell<HashMap<DiskStretch, &'static [Slot]>> = RefCell::default();
}

/// The faults of the disk, and its synced content.
#[derive(Debug, Default)]
pub(crate) struct DiskState {
    pub(crate) is_full: AtomicBool,
    pub(crate) loses_syncs: AtomicBool,
    /// The number of operations until the process crashes; 0 means no crash.
    pub(crate) left: AtomicU32,
    pub(crate) syncs: AtomicU64,
    synced: Mutex<Vec<u8>>,
}

impl DiskState {
    /// Returns the tally of the last sync.
    pub(crate) fn synced(&self) -> Vec<u8> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn operate(&self) -> io::Result<()> {
        match self.left.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(io::Error::other("the process died here")),
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn remember(&self, file: &File) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced.resize(usize::try_from(file.metadata()?.len()).unwrap_or(0), 0);
        file.read_exact_at(&mut synced, 0)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The disk of a simulated machine.
#[derive(Debug)]
pub(crate) struct SimulatedDisk(pub(crate) Arc<DiskState>);

/// Returns the path of a removed tally, which is kept for reuse.
fn spare(path: &Path) -> PathBuf {
    path.with_extension("spare")
}

impl TallyDisk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.0.operate()?;
        if std::fs::rename(spare(path), path).is_err() {
            return SystemDisk.create(path);
        }
        let file = File::options().read(true).write(true).open(path)?;
        file.set_len(0).map(|()| file)
    }

    fn extend(&self, file: &File, from: u64, bytes: u64) -> io::Result<()> {
        self.0.operate()?;
        if self.0.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.extend(file, from, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.operate()?;
        if self.0.loses_syncs.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.0.remember(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.operate()?;
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.operate()?;
        SystemDisk.rename(path, &spare(path))
    }

    fn map(&self, file: &File, from: u64, slots: usize) -> io::Result<&'static [Slot]> {
        let key = (file.metadata()?.ino(), from, slots);
        if let Some(map) = MAPS.with_borrow(|maps| maps.get(&key).copied()) {
            return Ok(map);
        }
        let map = SystemDisk.map(file, from, slots)?;
        MAPS.with_borrow_mut(|maps| maps.insert(key, map));
        Ok(map)
    }
}
