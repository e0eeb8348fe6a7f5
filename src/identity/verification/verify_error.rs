//! The reasons why a chain is refused: the gateway's own checks and those of webpki, and their conversion to rustls
//! errors and to text.
//!
//! Guarantees: a fault that rustls has an error for is reported with that error, because the TLS alert of the handshake
//! depends on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, OtherError};

use crate::identity::certificate::unaccepted_certificate::is_self_issued;

/// The reason why a path found by webpki is rejected.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("{0} cannot be read")]
    Unreadable(String),
    #[error("the intermediate certificate of {0} may not sign certificates (keyUsage lacks keyCertSign)")]
    NotAuthority(String),
    #[error("the certificate of {0} may not sign handshakes (keyUsage lacks digitalSignature)")]
    MayNotSignHandshakes(String),
    #[error("{authority} allows {allowed} intermediate authorities below it (pathLenConstraint), there are {found}")]
    TooLong { authority: String, allowed: usize, found: usize },
    #[error(
        "{found} certificates stand between the caller's and a self-signed authority, at most {allowed} may (maxDepth)"
    )]
    TooDeep { allowed: usize, found: usize },
    #[error("in the certificate of {subject}, {what}")]
    NameConstraint { subject: String, what: String },
    #[error("a certificate of the chain is revoked")]
    Revoked,
    #[error("no revocation list covers a certificate of the chain")]
    UnknownStatus,
    #[error("the revocation list for a certificate of the chain expired at {0}")]
    ListExpired(Timestamp),
}

impl fmt::Debug for ChainError {
    /// The readable text: rustls displays an error of type `Other` in this form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A readable description of a failed handshake: the text of rustls, or that of the verifier that refused the
/// certificate.
pub fn describe_tls_error(fault: &Error) -> String {
    match fault {
        Error::InvalidCertificate(CertificateError::Other(OtherError(fault))) => fault.to_string(),
        Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { next_update, .. }) => {
            format!("the revocation list for a certificate of the chain expired at {}", unix_timestamp(*next_update))
        }
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "no revocation list covers a certificate of the chain (UnknownRevocationStatus)".to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether the only fault is that no known authority has signed the chain. webpki judges validity and usage of the
/// caller's certificate before it looks for an authority. A self-signed certificate may be that of an authority.
pub(crate) fn is_untrusted(fault: &Error, leaf: &CertificateDer<'_>) -> bool {
    match fault {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            let is_authority = other.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity);
            is_authority && is_self_issued(leaf)
        }
        _ => false,
    }
}

/// Converts a time of rustls.
pub(crate) fn unix_timestamp(now: UnixTime) -> Timestamp {
    i64::try_from(now.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MAX)
}

fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)))
}

/// The error that webpki gets for a fault. None of these errors ends its search, so webpki tries other paths.
pub(crate) fn placeholder_webpki_error(fault: &ChainError, now: UnixTime) -> webpki::Error {
    match fault {
        ChainError::Revoked => webpki::Error::CertRevoked,
        ChainError::UnknownStatus => webpki::Error::UnknownRevocationStatus,
        ChainError::ListExpired(at) => webpki::Error::CrlExpired { time: now, next_update: unix_time(*at) },
        ChainError::TooLong { .. } | ChainError::TooDeep { .. } => webpki::Error::PathLenConstraintViolated,
        ChainError::NameConstraint { .. } => webpki::Error::NameConstraintViolation,
        ChainError::Unreadable(_) | ChainError::NotAuthority(_) | ChainError::MayNotSignHandshakes(_) => {
            webpki::Error::ExtensionValueInvalid
        }
    }
}

impl ChainError {
    /// Converts to an error of rustls.
    pub(crate) fn into_tls_error(self, now: UnixTime) -> Error {
        let fault = match self {
            Self::Revoked => CertificateError::Revoked,
            Self::UnknownStatus => CertificateError::UnknownRevocationStatus,
            Self::ListExpired(at) => {
                CertificateError::ExpiredRevocationListContext { time: now, next_update: unix_time(at) }
            }
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Error::InvalidCertificate(fault)
    }
}

/// The errors of webpki converted as rustls does it; the conversion of rustls is private.
pub(crate) fn tls_error_from_webpki(error: webpki::Error) -> Error {
    use webpki::Error as Found;
    let fault = match error {
        Found::BadDer | Found::BadDerTime | Found::TrailingData(_) => CertificateError::BadEncoding,
        Found::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        Found::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Found::InvalidCertValidity => CertificateError::Expired,
        Found::UnknownIssuer => CertificateError::UnknownIssuer,
        Found::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Found::UnsupportedSignatureAlgorithmContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: context.signature_algorithm_id,
                supported_algorithms: context.supported_algorithms,
            }
        }
        Found::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: context.signature_algorithm_id,
                public_key_algorithm_id: context.public_key_algorithm_id,
            }
        }
        Found::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        Found::NameConstraintViolation => CertificateError::Other(OtherError(Arc::new(UnjudgedName))),
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(fault)
}

/// webpki reports only that constraints are violated, and for some kinds of names it always reports a violation.
#[derive(thiserror::Error)]
#[error(
    "a name of the certificate is not permitted by the name constraints of an authority above it; constraints of an \
     intermediate authority on URIs, directory names or e-mail addresses are not evaluated and reject every such name: \
     add that authority to clientAuth.authorities, where they are evaluated"
)]
struct UnjudgedName;

impl fmt::Debug for UnjudgedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
