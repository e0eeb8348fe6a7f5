//! Where PEM text comes from: a source of bytes by name. Here are the files of the disk; `memory_texts` has the texts
//! in memory.
//!
//! Guarantees:
//! - At most [`PEM_BYTES_MAX`] + 1 bytes of a text are read.
//! - A name of a text in memory is never looked up on the disk.
//!
//! Leaves to others: the syntax (`pem`), and reading each name once (`pem_store`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// The largest PEM text in bytes. A revocation list with a million entries has about 70 MB.
pub(crate) const PEM_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The beginning of the names of texts in memory, such as `memory:NAMESPACE/NAME/tls.crt`. A file of such a name is
/// written as `./memory:...`.
pub const MEMORY_PREFIX: &str = "memory:";

/// Whether a name is that of a text in memory.
pub fn is_memory_name(name: &Path) -> bool {
    name.as_os_str().as_encoded_bytes().starts_with(MEMORY_PREFIX.as_bytes())
}

/// A source of PEM text by name. The name is the path in the configuration, resolved against its folder
/// unless it is a name in memory ([`is_memory_name`]).
pub trait PemSource: fmt::Debug + Send + Sync {
    /// Reads the text of a name, or as much of it as shows that it is too long (`PEM_BYTES_MAX` + 1 bytes).
    ///
    /// # Errors
    /// If there is no text of that name, or it cannot be read.
    fn read_pem(&self, name: &Path) -> io::Result<PemText>;
}

/// The PEM text of a name.
pub struct PemText {
    /// The bytes. A source that keeps them shares them.
    pub bytes: Arc<Vec<u8>>,
    /// Whether every user of this machine may read or write them.
    pub is_open_to_everyone: bool,
}

/// The files of the disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskFiles;

impl PemSource for DiskFiles {
    fn read_pem(&self, name: &Path) -> io::Result<PemText> {
        if is_memory_name(name) {
            let what = format!("only texts in memory have names that begin with {MEMORY_PREFIX}, and there is none");
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        let file = File::open(name)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(PemText { bytes: Arc::new(bytes), is_open_to_everyone: mode & 0o007 != 0 })
    }
}
