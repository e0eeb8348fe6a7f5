//! What the authority is asked for, what it gives, and why it may refuse.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::identity::TlsProblem;
use crate::model::{CallerId, Name};

/// From when until when something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidityPeriod {
    /// The first moment.
    pub from: Timestamp,
    /// The last moment.
    pub until: Timestamp,
}

impl ValidityPeriod {
    /// How far back a new certificate holds, for callers whose clock is a little slow.
    const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

    /// For so many days from `now` on; as long as can be written, if that is longer.
    pub fn days(now: Timestamp, days: u32) -> Self {
        let length = SignedDuration::from_hours(24 * i64::from(days));
        Self {
            from: now.checked_sub(Self::BACKDATED).unwrap_or(now),
            until: now.checked_add(length).unwrap_or(Timestamp::MAX),
        }
    }
}

/// What a client certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// For whom: names the files in `clients/`, and the subject unless `identities` holds one.
    pub department: Name,
    /// The identities, at most one of them a subject.
    pub identities: Vec<CallerId>,
    /// From when until when.
    pub validity: ValidityPeriod,
}

/// The files of a certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedFiles {
    /// PEM certificate.
    pub certificate: PathBuf,
    /// PEM key, readable by its owner only.
    pub key: PathBuf,
}

/// Why the authority did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A file is in the way.
    #[error("{} exists already and is kept as it is; move it away, or choose another directory or name", .0.display())]
    Exists(PathBuf),
    /// A file could not be read, or does not hold what was expected.
    #[error("{0}")]
    Unreadable(#[from] TlsProblem),
    /// A file could not be written.
    #[error("{} could not be written: {why}", .path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The certificate to be revoked is somebody else's.
    #[error("{} was not issued by the authority in {}; revoke it where it was issued", .certificate.display(), .directory.display())]
    NotIssuedHere {
        /// The certificate.
        certificate: PathBuf,
        /// This authority.
        directory: PathBuf,
    },
    /// The certificate to be revoked is the authority's own.
    #[error(
        "{} is the authority itself, and its own list cannot end it; take it out of clientAuth.authorities where it \
         should no longer count", .0.display()
    )]
    OwnCertificate(PathBuf),
    /// What was asked for cannot be put into a certificate or list.
    #[error("that cannot be certified: {0}")]
    Impossible(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Impossible(error.to_string())
    }
}
