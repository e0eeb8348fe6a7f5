//! The identity of a file: device and inode.
//!
//! Guarantees: the identity at a path is the same as long as the file is not renamed, removed or replaced.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The identity of the file at a path: the same as long as the file is not renamed, removed or replaced.
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
