//! PEM texts in memory, by name: certificates, keys, authorities and revocation lists that are not files.
//!
//! Guarantees:
//! - At most [`MEMORY_TEXTS_MAX`] texts with [`MEMORY_BYTES_MAX`] bytes in total.
//! - A reader sees a text as a whole, the old or the new one.
//! - The texts are not copied when they are read, and never shown: some are keys.
//!
//! Leaves to others: the moment at which a changed text is used, the next load of the configuration (`app`).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::pem_source::{DiskFiles, MEMORY_PREFIX, PemSource, PemText, is_memory_name};

/// The most texts: certificate and key for each of 16,384 entries, and as many bundles of authorities again.
pub const MEMORY_TEXTS_MAX: usize = 65_536;
/// The most bytes of all texts. 10,000 certificates with their keys and chains have about 60 MB.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// PEM texts in memory, by name. Cheap to clone: all clones have the same texts.
#[derive(Clone, Default)]
pub struct MemoryTexts(Arc<RwLock<TextTable>>);

#[derive(Default)]
struct TextTable {
    texts: HashMap<String, Arc<Vec<u8>>>,
    bytes: usize,
}

/// A text that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryTextError {
    /// The name is not one of a text in memory.
    #[error("{0:?} is not a name of a text in memory; write {MEMORY_PREFIX} and a name")]
    Name(String),
    /// There are too many texts.
    #[error("{0}: there are {MEMORY_TEXTS_MAX} texts in memory, which is the maximum; remove some first")]
    TooMany(String),
    /// The texts are too long.
    #[error("{0}: the texts in memory would have more than {MEMORY_BYTES_MAX} bytes; remove some first")]
    TooLong(String),
}

/// A source of PEM text: the texts in memory for names that begin with [`MEMORY_PREFIX`], else the files of the disk.
#[derive(Clone, Debug)]
pub struct MemoryOrDisk(pub MemoryTexts);

impl MemoryTexts {
    /// Sets the text of a name, such as `memory:NAMESPACE/NAME/tls.crt`. The next load uses it.
    ///
    /// # Errors
    /// If the name does not begin with [`MEMORY_PREFIX`], or a limit would be exceeded. Then the old text stays.
    pub fn set(&self, name: &str, text: Vec<u8>) -> Result<(), MemoryTextError> {
        if name.strip_prefix(MEMORY_PREFIX).is_none_or(str::is_empty) {
            return Err(MemoryTextError::Name(name.to_owned()));
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner); // entries are never partial
        let before = table.texts.get(name).map(|text| text.len());
        if before.is_none() && table.texts.len() >= MEMORY_TEXTS_MAX {
            return Err(MemoryTextError::TooMany(name.to_owned()));
        }
        let bytes = (table.bytes - before.unwrap_or(0)).saturating_add(text.len());
        if bytes > MEMORY_BYTES_MAX {
            return Err(MemoryTextError::TooLong(name.to_owned()));
        }
        table.texts.insert(name.to_owned(), Arc::new(text));
        table.bytes = bytes;
        Ok(())
    }

    /// Removes the text of a name. Returns whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = table.texts.remove(name) else { return false };
        table.bytes -= text.len();
        true
    }

    /// Removes all texts whose name is not kept.
    pub fn retain(&self, mut is_kept: impl FnMut(&str) -> bool) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.texts.retain(|name, _| is_kept(name));
        table.bytes = table.texts.values().map(|text| text.len()).sum();
    }
}

impl fmt::Debug for MemoryTexts {
    /// Omits the texts, some of which are keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (texts, bytes) = (table.texts.len(), table.bytes);
        f.debug_struct("MemoryTexts").field("texts", &texts).field("bytes", &bytes).finish_non_exhaustive()
    }
}

impl PemSource for MemoryTexts {
    fn read_pem(&self, name: &Path) -> io::Result<PemText> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let text = name.to_str().and_then(|name| table.texts.get(name));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no text of this name in memory");
        Ok(PemText { bytes: Arc::clone(text.ok_or_else(missing)?), is_open_to_everyone: false })
    }
}

impl PemSource for MemoryOrDisk {
    fn read_pem(&self, name: &Path) -> io::Result<PemText> {
        if is_memory_name(name) { self.0.read_pem(name) } else { DiskFiles.read_pem(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(source: &dyn PemSource, name: &str) -> Result<Vec<u8>, String> {
        source.read_pem(Path::new(name)).map(|text| text.bytes.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_with_the_prefix_are_in_memory_and_others_on_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory:a");
        std::fs::write(&file, "disk").expect("a file");
        let texts = MemoryTexts::default();
        texts.set("memory:ns/a/tls.crt", b"one".to_vec()).expect("room");
        let source = MemoryOrDisk(texts.clone());
        assert_eq!(text_of(&source, "memory:ns/a/tls.crt"), Ok(b"one".to_vec()));
        assert_eq!(text_of(&source, &file.display().to_string()), Ok(b"disk".to_vec()));
        texts.set("memory:ns/a/tls.crt", b"two".to_vec()).expect("room");
        assert_eq!(text_of(&source, "memory:ns/a/tls.crt"), Ok(b"two".to_vec()));
        assert!(texts.remove("memory:ns/a/tls.crt") && !texts.remove("memory:ns/a/tls.crt"));
        let gone = text_of(&source, "memory:ns/a/tls.crt").expect_err("removed");
        assert!(gone.contains("no text of this name in memory"), "{gone}");
        let never = text_of(&DiskFiles, "memory:a").expect_err("not a file");
        assert!(never.contains("begin with memory:"), "{never}");
    }

    #[test]
    fn texts_are_bounded_and_never_shown() {
        let texts = MemoryTexts::default();
        for name in ["a", "memory:", "/memory:a", "./memory:a"] {
            assert_eq!(texts.set(name, Vec::new()), Err(MemoryTextError::Name(name.to_owned())));
        }
        texts.set("memory:key", b"secret".to_vec()).expect("room");
        assert_eq!(format!("{texts:?}"), "MemoryTexts { texts: 1, bytes: 6, .. }");
        let long = texts.set("memory:long", vec![0; MEMORY_BYTES_MAX - 5]);
        assert_eq!(long, Err(MemoryTextError::TooLong("memory:long".to_owned())));
        texts.set("memory:key", b"other".to_vec()).expect("room");
        texts.set("memory:long", vec![0; MEMORY_BYTES_MAX - 5]).expect("room for exactly this many bytes");
        texts.retain(|name| name == "memory:key");
        for number in 1..MEMORY_TEXTS_MAX {
            texts.set(&format!("memory:{number}"), Vec::new()).expect("room");
        }
        assert_eq!(texts.set("memory:more", Vec::new()), Err(MemoryTextError::TooMany("memory:more".to_owned())));
        texts.set("memory:key", b"again".to_vec()).expect("a text that is there");
    }
}
