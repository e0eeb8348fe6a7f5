//! A throw-away certificate authority: one certificate for the gateway, one for every department.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tallygate::cli::trial_authority::{CertificateAuthority, ClientRequest, ValidityPeriod};
use tallygate::clock::Clock;
use tallygate::model::{CallerId, Name};
use tokio_rustls::TlsConnector;

/// The name in the gateway's certificate.
pub(crate) const GATEWAY_NAME: &str = "gateway.city.example";

/// The department of the person who tries the demo.
pub(crate) const YOU: &str = "you";

/// All holders of certificates. The visitor's is from the right authority, but no department has this caller.
const HOLDERS: [&str; 9] = [
    "camera-bureau",
    "recogniser",
    "traffic-police",
    "logistics-company",
    "public-transport",
    "ambulance-service",
    "tourism-office",
    "visitor",
    YOU,
];

/// Validity of the certificates, which are only for one demo.
const VALID_DAYS: u32 = 7;

/// The folder of the city's keys and certificates, in the layout of `tallygate pki`.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// The files in the folder of a run.
    pub(crate) fn of(home: &Path) -> Self {
        Self { folder: home.join("pki") }
    }

    /// Creates the authority and all certificates, as PEM files that curl and openssl can read.
    pub(crate) fn found(home: &Path, clock: &Clock) -> anyhow::Result<Self> {
        let pki = Self::of(home);
        let validity = ValidityPeriod::days(clock.wall(), VALID_DAYS);
        let authority = CertificateAuthority::create(&pki.folder, "City Brain demo authority", validity)?;
        authority.issue_server(&[GATEWAY_NAME, "localhost", "127.0.0.1"].map(str::to_owned), validity)?;
        for holder in HOLDERS {
            let identities = vec![CallerId::Uri(format!("spiffe://city.example/department/{holder}"))];
            authority.issue_client(&ClientRequest { department: Name::parse(holder)?, identities, validity })?;
        }
        Ok(pki)
    }

    /// The path of the authority's certificate, with which callers verify the gateway.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The path of a department's certificate.
    pub(crate) fn certificate(&self, holder: &str) -> PathBuf {
        self.folder.join(format!("clients/{holder}.pem"))
    }

    /// The path of a department's key.
    pub(crate) fn key(&self, holder: &str) -> PathBuf {
        self.folder.join(format!("clients/{holder}.key"))
    }

    /// A department's TLS configuration: the city's authority as root, and the department's client certificate.
    pub(crate) fn connector(&self, holder: &str, protocol: &[u8]) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(self.certificate(holder))?],
                PrivateKeyDer::from_pem_file(self.key(holder))?,
            )?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
