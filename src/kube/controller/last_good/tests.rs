//! The last good configuration on real folders, and on disks that fail at each step.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::record::samples::{sample, to_write};
use super::*;

/// A store in a folder of its own below a temporary one.
fn store_in(folder: &Path) -> LastGoodStore {
    LastGoodStore::beside(&folder.join("ledger.db"))
}

/// A disk that fails at one operation, and logs all that write or read a file.
#[derive(Clone, Debug, Default)]
pub(in crate::kube::controller) struct FailingDisk {
    fails_at: &'static str,
    pub(in crate::kube::controller) log: Arc<Mutex<Vec<&'static str>>>,
}

impl FailingDisk {
    fn operation<T>(&self, name: &'static str, run: impl FnOnce(&SystemRecordDisk) -> io::Result<T>) -> io::Result<T> {
        self.log.lock().unwrap().push(name);
        if name == self.fails_at {
            return Err(io::Error::other("no space"));
        }
        run(&SystemRecordDisk)
    }
}

impl RecordDisk for FailingDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.operation("folder", |disk| disk.create_folder(folder))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.operation("create", |disk| disk.create(path))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        assert!(file.metadata()?.len() > 0, "the content is written before the sync");
        self.operation("sync", |disk| disk.sync(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation("rename", |disk| disk.rename(from, to))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        SystemRecordDisk.exists(path)
    }

    fn read(&self, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
        self.operation("read", |disk| disk.read(path, max))
    }

    fn remove(&self, path: &Path) -> io::Result<bool> {
        SystemRecordDisk.remove(path)
    }
}

#[test]
fn configuration_is_found_again_and_belongs_to_the_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    assert!(store.read().unwrap().is_none() && !store.is_written().unwrap());
    store.write(&to_write(&sample())).unwrap();
    assert!(store.is_written().unwrap());
    assert_eq!(store.read().unwrap(), Some(sample()));
    assert_eq!(store.path(), folder.path().join("ledger.last-good/configuration"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&store.path()), mode(store.path().parent().unwrap())), (0o600, 0o700));
    assert!(store.remove().unwrap());
    assert!(!store.remove().unwrap() && store.read().unwrap().is_none());
}

#[test]
fn write_that_fails_at_any_step_leaves_the_configuration_before() {
    let folder = tempfile::tempdir().unwrap();
    let before = sample();
    store_in(folder.path()).write(&to_write(&before)).unwrap();
    let newer = LastGoodConfig { version: "newer".to_owned(), ..sample() };
    for fails_at in ["folder", "create", "sync", "rename"] {
        let disk = Box::new(FailingDisk { fails_at, ..FailingDisk::default() });
        let store = LastGoodStore::new(folder.path().join("ledger.last-good"), disk);
        let error = store.write(&to_write(&newer)).unwrap_err().to_string();
        assert!(error.contains("no space") && error.contains("ledger.last-good"), "{error}");
        assert_eq!(store_in(folder.path()).read().unwrap().as_ref(), Some(&before), "{fails_at}");
    }
    let store = store_in(folder.path());
    store.write(&to_write(&newer)).unwrap();
    assert_eq!(store.read().unwrap(), Some(newer), "what was left behind is in nobody's way");
}

#[test]
fn file_is_on_the_disk_before_it_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let store = LastGoodStore::new(folder.path().join("l"), Box::new(disk.clone()));
    store.write(&to_write(&sample())).unwrap();
    assert_eq!(*disk.log.lock().unwrap(), ["folder", "create", "sync", "rename"]);
}

/// What `kill -9` in the middle of a write leaves behind: a new file without its end.
#[test]
fn half_written_file_is_ignored_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    store.write(&to_write(&sample())).unwrap();
    let new = store.path().with_extension("new");
    let whole = fs::read(store.path()).unwrap();
    fs::write(&new, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(store.read().unwrap(), Some(sample()));
    store.write(&to_write(&sample())).unwrap();
    assert!(!new.exists());
    fs::write(&new, "half").unwrap();
    assert!(store.remove().unwrap() && !new.exists(), "the half has keys as well");
}

#[test]
fn altered_file_is_refused_with_its_path_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path());
    store.write(&to_write(&sample())).unwrap();
    let altered = fs::read_to_string(store.path()).unwrap().replace("HTTPRoute a/cart", "HTTPRoute b/cart");
    fs::write(store.path(), altered).unwrap();
    let error = store.read().unwrap_err().to_string();
    assert!(error.contains("ledger.last-good/configuration cannot be used: its checksum differs"), "{error}");
    fs::remove_file(store.path()).unwrap();
    fs::create_dir(store.path()).unwrap();
    assert!(store.read().unwrap_err().to_string().contains("not a regular file"));
}
