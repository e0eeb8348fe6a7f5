//! Watches files for changes, by asking for their metadata.
//!
//! Deliberately no inotify: asking once a second sees what a symlink swap (Kubernetes), a rename over the file (editors)
//! or a network file system does, without a watch that can be lost. The caller decides when to ask.

use std::path::PathBuf;
use std::time::SystemTime;

/// Files, and what they looked like when last asked.
#[derive(Debug)]
pub struct Watch {
    files: Vec<(PathBuf, Option<Look>)>,
}

/// What tells two versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Watch {
    /// Remembers how the files look now; a file that is not there is watched as well.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let look_at = |path: PathBuf| {
            let look = look(&path);
            (path, look)
        };
        Self { files: paths.into_iter().map(look_at).collect() }
    }

    /// Remembers more files. Made of the configuration before it is read, and of the files it names before those are read:
    /// so nothing that changes while it is read goes unseen.
    #[must_use]
    pub fn and(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.files.extend(Self::new(paths).files);
        self
    }

    /// Whether any of the files looks different from when last asked. Asks the disk, briefly.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, last) in &mut self.files {
            let now = look(path);
            changed |= now != *last;
            *last = now;
        }
        changed
    }
}

/// Follows symbolic links, so that a swapped link is a changed file.
fn look(path: &std::path::Path) -> Option<Look> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Look { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
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
        let mut watch = Watch::new([path("link"), path("missing")]);
        assert!(!watch.changed());

        fs::write(path("a"), "longer").expect("an edit");
        assert!(watch.changed());
        assert!(!watch.changed());

        symlink(path("b"), path("new")).expect("a link");
        fs::rename(path("new"), path("link")).expect("a swap");
        assert!(watch.changed());

        fs::write(path("missing"), "").expect("a file");
        assert!(watch.changed());
        fs::remove_file(path("missing")).expect("no file");
        assert!(watch.changed());
        assert!(!watch.changed());
    }
}
