//! A readable summary of the authorities and lists that a listener uses. The `check` command prints it.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::identity::revocation::crl::RevocationList;
use crate::identity::revocation::crl_store::CrlStore;
use crate::identity::trust::trust_anchors::TrustStore;

/// The authorities and revocation lists of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedFiles {
    /// The authorities, in the order of their files.
    pub authorities: Vec<AuthorityInUse>,
    /// The lists, in the order of their files.
    pub lists: Vec<RevocationListInUse>,
    /// The nextUpdate of the last list. From then on no caller is accepted; `None` if that case cannot occur.
    pub(crate) last_next_update: Option<Timestamp>,
}

/// An authority whose callers are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityInUse {
    /// The file.
    pub path: PathBuf,
    /// Its subject.
    pub name: String,
    /// notAfter.
    pub valid_until: Timestamp,
}

/// A revocation list in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationListInUse {
    /// The file.
    pub path: PathBuf,
    /// Its issuer.
    pub issuer: String,
    /// Its number (cRLNumber), if present: in decimal, or in hexadecimal with `0x` if it is longer than 8 bytes.
    pub number: Option<String>,
    /// nextUpdate.
    pub next_update: Timestamp,
    /// The scope of the list, in words: the certificates that it covers.
    pub scope: String,
    /// The number of revoked certificates on the list.
    pub revoked: usize,
    /// Whether one of the authorities has signed the list. Otherwise the list serves callers that present the
    /// certificate of its issuer.
    pub covers_authorities: bool,
}

impl TrustedFiles {
    pub(crate) fn from_store(trust: &TrustStore, lists: &CrlStore) -> Self {
        let authorities = trust.authorities.iter().map(|authority| AuthorityInUse {
            path: authority.path.clone(),
            name: authority.name.clone(),
            valid_until: authority.valid_until,
        });
        let is_of_authority = |list: &RevocationList| {
            trust.authorities.iter().any(|authority| list.is_signed_by(authority.crl_issuer().key))
        };
        let in_use = lists.lists.iter().map(|in_file| RevocationListInUse {
            path: in_file.path.clone(),
            issuer: in_file.list.issuer_name.clone(),
            number: in_file.list.number.clone(),
            next_update: in_file.list.next_update,
            scope: in_file.list.scope.to_string(),
            revoked: in_file.list.len(),
            covers_authorities: is_of_authority(&in_file.list),
        });
        Self {
            authorities: authorities.collect(),
            lists: in_use.collect(),
            last_next_update: lists.last_next_update(trust),
        }
    }
}
