//! Watches files for changes, by asking for their metadata, and folders for files that `include` would match.
//!
//! Deliberately no inotify: asking once a second sees what a symlink swap (Kubernetes), a rename over the file (editors)
//! or a network file system does, without a watch that can be lost. The caller decides when to ask.

use std::path::PathBuf;
use std::time::SystemTime;

use super::include::{IncludeListing, IncludePatterns};

/// Files, and what they looked like when last asked.
#[derive(Debug)]
pub struct FileWatcher {
    files: Vec<(PathBuf, Option<FileStamp>)>,
    included: Option<IncludeWatch>,
}

/// The patterns of `include`, and the files they matched when last asked.
#[derive(Debug)]
struct IncludeWatch {
    patterns: IncludePatterns,
    files: Vec<PathBuf>,
}

/// What tells two versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileWatcher {
    /// Remembers how the files look now; a file that is not there is watched as well.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let look_at = |path: PathBuf| {
            let look = file_stamp(&path);
            (path, look)
        };
        Self { files: paths.into_iter().map(look_at).collect(), included: None }
    }

    /// Remembers more files. Made of the configuration before it is read, and of the files it names before those are read:
    /// so nothing that changes while it is read goes unseen.
    #[must_use]
    pub fn with_files(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.files.extend(Self::new(paths).files);
        self
    }

    /// Follows what `include` matches: the files there are, and files that come or go.
    pub(crate) fn watch_includes(&mut self, patterns: IncludePatterns, listing: &IncludeListing) {
        let files: Vec<PathBuf> = listing.files.iter().map(|(path, _)| path.clone()).collect();
        self.files.extend(Self::new(files.iter().cloned()).files);
        self.included = Some(IncludeWatch { patterns, files });
    }

    /// Takes over what a reading has looked at. Files that only the reading before named stay watched: the one that was
    /// rejected may not have come as far as naming them.
    pub fn merge(&mut self, other: Self) {
        let Self { mut files, included } = other;
        let known: std::collections::HashSet<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        files.extend(std::mem::take(&mut self.files).into_iter().filter(|(path, _)| !known.contains(path)));
        *self = Self { files, included: included.or(self.included.take()) };
    }

    /// Whether any of the files looks different from when last asked. Asks the disk, briefly.
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

/// Follows symbolic links, so that a swapped link is a changed file.
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
    fn edits_removals_and_swapped_links_are_changes_and_told_once() {
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
    fn files_that_come_to_match_and_swapped_folders_are_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).expect("a folder");
            fs::write(at(version).join("fire.yaml"), version).expect("a file");
        }
        symlink("..1", at("..data")).expect("a link");
        symlink("..data/fire.yaml", at("fire.yaml")).expect("a link, as Kubernetes makes it");
        let patterns = IncludePatterns::new(&["*.yaml".to_owned()], &at("gateway.yml"));
        let mut watch = FileWatcher::new([at("gateway.yml")]);
        let listing = patterns.list_files();
        watch.watch_includes(patterns, &listing);
        assert!(!watch.has_changed());

        symlink("..2", at("..new")).expect("a link");
        fs::rename(at("..new"), at("..data")).expect("a swap");
        assert!(watch.has_changed());
        fs::write(at("police.yaml"), "").expect("a new file");
        assert!(watch.has_changed());
        fs::remove_file(at("police.yaml")).expect("a file less");
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
    }

    #[test]
    fn what_a_rejected_reading_names_is_watched_beside_what_was_named_before() {
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
