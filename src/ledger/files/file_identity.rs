//! Which file a path leads to: device and inode.
//!
//! Guarantees: the same value as long as the file is not renamed, removed or replaced.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Which file a name leads to: the same as long as nobody renames, removes or replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn from_metadata(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    pub(crate) fn inode(self) -> u64 {
        self.inode
    }
}
