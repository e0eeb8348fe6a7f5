//! Which authorities and lists a listener uses, for people: what `check` prints.

use std::path::PathBuf;

use jiff::Timestamp;

use super::list::RevocationList;
use super::revocation::RevocationLists;
use super::trust::Trust;

/// The authorities and revocation lists of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedFiles {
    /// The authorities, in the order of their files.
    pub authorities: Vec<AuthorityInUse>,
    /// The lists, in the order of their files.
    pub lists: Vec<ListInUse>,
    /// When the last list ends, after which nobody is let in; `None` if that will not happen.
    pub(super) last_list_end: Option<Timestamp>,
}

/// An authority whose callers are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityInUse {
    /// The file.
    pub path: PathBuf,
    /// Its subject.
    pub name: String,
    /// notAfter.
    pub until: Timestamp,
}

/// A revocation list that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListInUse {
    /// The file.
    pub path: PathBuf,
    /// Its issuer.
    pub issuer: String,
    /// Its number (cRLNumber), if it has one: in decimal, or in hexadecimal with `0x` if it is longer than 8 bytes.
    pub number: Option<String>,
    /// nextUpdate.
    pub until: Timestamp,
    /// Which certificates it speaks of, in words.
    pub scope: String,
    /// How many certificates it names.
    pub revoked: usize,
    /// Whether one of the authorities has signed it. Otherwise it is for callers that show the certificate of its issuer.
    pub of_authority: bool,
}

impl TrustedFiles {
    pub(super) fn of(trust: &Trust, lists: &RevocationLists) -> Self {
        let authorities = trust.authorities.iter().map(|authority| AuthorityInUse {
            path: authority.path.clone(),
            name: authority.name.clone(),
            until: authority.until,
        });
        let is_of_authority =
            |list: &RevocationList| trust.authorities.iter().any(|authority| list.is_signed_by(authority.issuer().key));
        let in_use = lists.lists.iter().map(|in_file| ListInUse {
            path: in_file.path.clone(),
            issuer: in_file.list.issuer_name.clone(),
            number: in_file.list.number.clone(),
            until: in_file.list.until,
            scope: in_file.list.scope.to_string(),
            revoked: in_file.list.len(),
            of_authority: is_of_authority(&in_file.list),
        });
        Self { authorities: authorities.collect(), lists: in_use.collect(), last_list_end: lists.last_end(trust) }
    }
}
