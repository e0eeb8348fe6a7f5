//! The requests to the trial authority, its results and its errors.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::identity::TlsProblem;
use crate::model::{CallerId, Name};

/// A validity period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidityPeriod {
    /// The first moment.
    pub from: Timestamp,
    /// The last moment.
    pub until: Timestamp,
}

impl ValidityPeriod {
    /// The time by which notBefore lies in the past, for peers whose clock is a little slow.
    const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

    /// A period of `days` days from `now`. It ends at the last representable moment if it would be longer.
    pub fn days(now: Timestamp, days: u32) -> Self {
        let length = SignedDuration::from_hours(24 * i64::from(days));
        Self {
            from: now.checked_sub(Self::BACKDATED).unwrap_or(now),
            until: now.checked_add(length).unwrap_or(Timestamp::MAX),
        }
    }
}

/// The contents of a client certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The department. Names the files in `clients/`, and the subject unless `identities` holds one.
    pub department: Name,
    /// The identities, at most one of them a subject.
    pub identities: Vec<CallerId>,
    /// The validity period of the certificate.
    pub validity: ValidityPeriod,
}

/// The files of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedFiles {
    /// PEM certificate.
    pub certificate: PathBuf,
    /// PEM key, readable by its owner only.
    pub key: PathBuf,
}

/// An error of the authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A file exists already.
    #[error(
        "{} already exists and is not overwritten; move it away, or choose another directory or name", .0.display()
    )]
    Exists(PathBuf),
    /// A file could not be read, or has unexpected contents.
    #[error("{0}")]
    Unreadable(#[from] TlsProblem),
    /// A file could not be written.
    #[error("{} could not be written: {why}", .path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        why: String,
    },
    /// Another authority has issued the certificate to be revoked.
    #[error("{} was not issued by the authority in {}; revoke it where it was issued", .certificate.display(), .directory.display())]
    NotIssuedHere {
        /// The certificate.
        certificate: PathBuf,
        /// This authority.
        directory: PathBuf,
    },
    /// The certificate to be revoked is the authority's own.
    #[error(
        "{} is the certificate of the authority itself, which its own list cannot revoke; remove it from \
         clientAuth.authorities where it should no longer be trusted", .0.display()
    )]
    OwnCertificate(PathBuf),
    /// The request cannot be expressed in a certificate or list.
    #[error("cannot issue this: {0}")]
    Impossible(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Impossible(error.to_string())
    }
}
