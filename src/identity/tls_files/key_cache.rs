//! Chains with their keys, kept from one load to the next by content. A reload that changes one of 2,000 certificates
//! parses and checks one key; a check of an RSA key costs about a millisecond.
//!
//! Guarantees:
//! - A kept key belongs to exactly this chain and this key text (SHA-256).
//! - Only the keys of the last load are kept.
//!
//! Leaves to others: validity at the moment, which every load checks again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a chain and its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub(crate) fn new(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Self {
        let mut digest = Sha256::new();
        for part in chain.iter().map(AsRef::as_ref).chain([key.secret_der()]) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// The keys of the last load.
#[derive(Default)]
pub struct KeyCache {
    before: HashMap<KeyDigest, Arc<CertifiedKey>>,
    used: HashMap<KeyDigest, Arc<CertifiedKey>>,
}

impl KeyCache {
    /// Begins a load: keys that it does not use are dropped with the next one.
    pub(crate) fn begin_load(&mut self) {
        self.before = std::mem::take(&mut self.used);
    }

    /// The key of this digest, which `make` makes if it is not kept.
    ///
    /// # Errors
    /// That of `make`.
    pub(crate) fn get_or_make<E>(
        &mut self,
        digest: KeyDigest,
        make: impl FnOnce() -> Result<CertifiedKey, E>,
    ) -> Result<Arc<CertifiedKey>, E> {
        if let Some(key) = self.used.get(&digest) {
            return Ok(Arc::clone(key));
        }
        let key = match self.before.remove(&digest) {
            Some(key) => key,
            None => Arc::new(make()?),
        };
        self.used.insert(digest, Arc::clone(&key));
        Ok(key)
    }

    /// Drops the keys that only the load before has used.
    pub(crate) fn end_load(&mut self) {
        self.before.clear();
    }
}

impl fmt::Debug for KeyCache {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("keys", &self.used.len()).finish_non_exhaustive()
    }
}
