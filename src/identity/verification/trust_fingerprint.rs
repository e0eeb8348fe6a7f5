//! A fingerprint of the authorities and revocation lists that verify callers.
//!
//! Guarantees: two trust sets with one fingerprint give the same verdict at any moment.

use sha2::Digest as _;
use sha2::Sha256;

use crate::identity::revocation::crl_store::CrlStore;
use crate::identity::tls_files::{AuthRefusal, ClientAuth, ExpiredCrlPolicy};
use crate::identity::trust::trust_anchors::TrustStore;

/// SHA-256 over the settings of verification, the authorities and the revocation lists. Two trust sets with equal
/// fingerprints give the same verdict at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustFingerprint([u8; 32]);

impl TrustFingerprint {
    /// The fingerprint of these authorities and lists, in this order.
    pub(crate) fn from_sources(auth: &ClientAuth, trust: &TrustStore, lists: &CrlStore) -> Self {
        let mut digest = Sha256::new();
        digest.update([auth.mode as u8, u8::from(auth.expired_crl == ExpiredCrlPolicy::Allow)]);
        digest.update([u8::from(auth.refusal == AuthRefusal::Handshake)]);
        digest.update(auth.max_depth.unwrap_or(usize::MAX).to_be_bytes());
        let authorities = trust.authorities.iter().map(|authority| (b"a", authority.digest));
        for (kind, part) in authorities.chain(lists.lists.iter().map(|in_file| (b"l", in_file.list.digest))) {
            digest.update(kind);
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}
