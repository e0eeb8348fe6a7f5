//! Where PEM text comes from: a source of bytes by name. The files of the disk are the only one.
//!
//! Guarantees: at most [`PEM_BYTES_MAX`] + 1 bytes of a text are read.
//!
//! Leaves to others: the syntax (`pem`), and reading each name once (`pem_store`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The largest PEM text in bytes. A revocation list with a million entries has about 70 MB.
pub(crate) const PEM_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A source of PEM text by name. The name is the path in the configuration, resolved against its folder.
pub trait PemSource: fmt::Debug + Send + Sync {
    /// Reads the text of a name, or as much of it as shows that it is too long (`PEM_BYTES_MAX` + 1 bytes).
    ///
    /// # Errors
    /// If there is no text of that name, or it cannot be read.
    fn read_pem(&self, name: &Path) -> io::Result<PemText>;
}

/// The PEM text of a name.
pub struct PemText {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether every user of this machine may read or write them.
    pub is_open_to_everyone: bool,
}

/// The files of the disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskFiles;

impl PemSource for DiskFiles {
    fn read_pem(&self, name: &Path) -> io::Result<PemText> {
        let file = File::open(name)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(PemText { bytes, is_open_to_everyone: mode & 0o007 != 0 })
    }
}
