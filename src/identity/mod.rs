//! Who: from a verified client certificate to a caller.
//!
//! Guarantees: a [`Caller`] is made only from the peer certificate of a finished handshake that rustls verified.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;

use crate::model::CallerId;

/// Evidence of a verified handshake: who is at the other end of this connection.
#[derive(Clone, Debug)]
pub struct Caller {
    identities: Arc<[CallerId]>,
    header: HeaderValue,
    expires: Timestamp,
}

impl Caller {
    /// The caller of a finished handshake; `None` if the peer showed no certificate.
    pub fn of_handshake(_connection: &rustls::ServerConnection) -> Result<Option<Self>, BadCertificate> {
        todo!()
    }

    /// Every identity the certificate carries.
    pub fn identities(&self) -> &[CallerId] {
        &self.identities
    }

    /// The value of `X-Tallygate-Caller`.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// When the certificate ends.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// A certificate that rustls accepts but this house does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client certificate: {0}")]
pub struct BadCertificate(pub String);

/// Every identity a certificate in DER carries.
pub fn identities_of_der(_certificate: &[u8]) -> Result<Vec<CallerId>, BadCertificate> {
    todo!()
}

/// Where a listener's keys and trust come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain, own certificate first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// Whom to ask for certificates; `None` asks nobody.
    pub client_auth: Option<ClientAuth>,
}

/// How client certificates are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a handshake without one fails.
    pub required: bool,
    /// PEM bundles of certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    pub revocation: Vec<PathBuf>,
}

/// Files, read and turned into a rustls configuration.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the acceptor: ALPN h2 and http/1.1, TLS 1.3 and 1.2, no resumption where client certificates are asked for.
    pub config: Arc<rustls::ServerConfig>,
    /// What expires when, for metrics.
    pub expiries: Vec<Expiry>,
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// `server`, `ca` or `crl`.
    pub role: &'static str,
    /// Its subject (or issuer, for a CRL).
    pub name: String,
    /// When.
    pub at: Timestamp,
}

/// Why the files of a listener cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct TlsProblem {
    /// The file.
    pub path: PathBufDisplay,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A path that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathBufDisplay(pub PathBuf);

impl std::fmt::Display for PathBufDisplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

impl TlsFiles {
    /// Every file, to be watched for changes.
    pub fn paths(&self) -> Vec<PathBuf> {
        todo!()
    }

    /// Reads them all; returns every problem, not only the first.
    pub fn load(&self, _now: Timestamp) -> Result<ServerTls, Vec<TlsProblem>> {
        todo!()
    }
}
