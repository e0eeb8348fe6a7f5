//! A file watcher that polls: it compares the metadata of files, and the contents of folders that `include` patterns
//! match.
//!
//! It deliberately does not use inotify, whose watches can be lost. A poll once per second detects:
//! - a symlink swap (Kubernetes);
//! - a rename over the file (editors);
//! - changes on a network file system.
//!
//! Leaves to the caller: the time of each poll.

use std::path::PathBuf;
use std::time::SystemTime;

use super::include::{IncludeListing, IncludePatterns};

/// The watched files, with their metadata as of the last poll.
#[derive(Debug)]
pub struct FileWatcher {
    files: Vec<(PathBuf, Option<FileStamp>)>,
    included: Option<IncludeWatch>,
}

/// The patterns of `include`, with the files that they matched at the last poll.
#[derive(Debug)]
struct IncludeWatch {
    patterns: IncludePatterns,
    files: Vec<PathBuf>,
}

/// The metadata that distinguish two versions of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileWatcher {
    /// Records the current metadata of the files. A missing file is watched as well.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let look_at = |path: PathBuf| {
            let look = file_stamp(&path);
            (path, look)
        };
        Self { files: paths.into_iter().map(look_at).collect(), included: None }
    }

    /// Adds more files. The watcher starts with the configuration files before they are read. The files that they name
    /// are added before those are read. So no change during the reading is missed.
    pub fn add_files(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.files.extend(Self::new(paths).files);
    }

    /// Watches the matches of `include`: the present files, and files that are added or removed.
    pub(crate) fn watch_includes(&mut self, patterns: IncludePatterns, listing: &IncludeListing) {
        let files: Vec<PathBuf> = listing.files.iter().map(|(path, _)| path.clone()).collect();
        self.files.extend(Self::new(files.iter().cloned()).files);
        self.included = Some(IncludeWatch { patterns, files });
    }

    /// Takes over the files of a later load. Files that only the earlier load named stay watched: a rejected
    /// configuration may have failed before it named them.
    pub fn merge(&mut self, other: Self) {
        let Self { mut files, included } = other;
        let known: std::collections::HashSet<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        files.extend(std::mem::take(&mut self.files).into_iter().filter(|(path, _)| !known.contains(path)));
        *self = Self { files, included: included.or(self.included.take()) };
    }

    /// Whether the metadata of any file have changed since the last poll. Reads metadata from the disk.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = self.included.as_mut().is_some_and(IncludeWatch::has_changed);
        for (path, last) in &mut self.files {
            let now = file_stamp(path);
            changed |= now != *last;
            *last = now;
        }
        changed
    }
}

impl IncludeWatch {
    fn has_changed(&mut self) -> bool {
        let now: Vec<PathBuf> = self.patterns.list_files().files.into_iter().map(|(path, _)| path).collect();
        let changed = now != self.files;
        self.files = now;
        changed
    }
}

/// Follows symbolic links, so that a swapped link counts as a changed file.
fn file_stamp(path: &std::path::Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileStamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn edits_removals_and_swapped_links_are_reported_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "one").expect("a file");
        fs::write(path("b"), "two").expect("a file");
        symlink(path("a"), path("link")).expect("a link");
        let mut watch = FileWatcher::new([path("link"), path("missing")]);
        assert!(!watch.has_changed());

        fs::write(path("a"), "longer").expect("an edit");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());

        symlink(path("b"), path("new")).expect("a link");
        fs::rename(path("new"), path("link")).expect("a swap");
        assert!(watch.has_changed());

        fs::write(path("missing"), "").expect("a file");
        assert!(watch.has_changed());
        fs::remove_file(path("missing")).expect("no file");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
    }
    #[test]
    fn new_matching_files_and_swapped_folders_are_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).expect("a folder");
            fs::write(at(version).join("fire.yaml"), version).expect("a file");
        }
        symlink("..1", at("..data")).expect("a link");
        symlink("..data/fire.yaml", at("fire.yaml")).expect("a symbolic link, as Kubernetes creates it");
        let patterns = IncludePatterns::new(&["*.yaml".to_owned()], &[], &at("gateway.yml"));
        let mut watch = FileWatcher::new([at("gateway.yml")]);
        let listing = patterns.list_files();
        watch.watch_includes(patterns, &listing);
        assert!(!watch.has_changed());

        symlink("..2", at("..new")).expect("a link");
        fs::rename(at("..new"), at("..data")).expect("a swap");
        assert!(watch.has_changed());
        fs::write(at("police.yaml"), "").expect("a new file");
        assert!(watch.has_changed());
        fs::remove_file(at("police.yaml")).expect("a removed file");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
    }

    #[test]
    fn files_of_a_rejected_configuration_are_watched_beside_the_live_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut watch = FileWatcher::new([at("main"), at("old")]);
        watch.merge(FileWatcher::new([at("main"), at("new")]));
        assert_eq!(watch.files.len(), 3);
        for name in ["old", "new", "main"] {
            fs::write(at(name), "").expect("a file");
            assert!(watch.has_changed(), "{name}");
        }
    }
}
