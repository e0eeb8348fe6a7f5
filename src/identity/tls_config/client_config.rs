//! Builds the rustls client configuration for TLS to a subsystem (upstream TLS): its trust anchors and the gateway's
//! own client certificate.
//!
//! Guarantees:
//! - A server's certificate is always verified: against the named authorities only, or against those of the system.
//! - The certificate is verified for the host of the URL, for `serverName`, or for one of `subjectAltNames`.
//! - TLS 1.3 and 1.2 only.
//! - No crypto provider is installed process-wide.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use crate::clock::Clock;
use crate::identity::certificate::expiry::ExpiringItem;
use crate::identity::tls_files::pem_source::DiskFiles;
use crate::identity::tls_files::pem_store::{FileDigest, PemStore};
use crate::identity::tls_files::{TlsFindings, TlsProblem, system_bundle};
use crate::identity::trust::trust_anchors;
use crate::identity::verification::server_verifier::{ChosenNameVerifier, SubjectAltName};

use super::key_loader::KeyLoader;

/// The files with the authorities for a subsystem and the gateway's own client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemTlsFiles {
    /// PEM bundles of the authorities that may certify the servers.
    pub authorities: Vec<PathBuf>,
    /// Whether the authorities that the system trusts may certify the servers, instead of `authorities`.
    pub system_authorities: bool,
    /// The names of which the servers' certificates must hold one, instead of the name of the connection; at most
    /// [`SubjectAltName::MAX`].
    pub subject_alt_names: Vec<SubjectAltName>,
    /// The gateway's own PEM chain and PEM key, if the subsystem asks for a client certificate.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The name of the connection (SNI) instead of the host of the URL. The servers' certificates must hold it, unless
    /// there are `subject_alt_names`.
    pub server_name: Option<String>,
    /// The ALPN protocol: `h2` or `http/1.1`; `None` offers none.
    pub protocol: Option<&'static str>,
}

/// The rustls client configuration made from [`SubsystemTlsFiles`].
#[derive(Clone, Debug)]
pub struct SubsystemTls {
    /// The settings that it was built from.
    settings: SubsystemTlsFiles,
    /// The configuration for the connector.
    pub config: Arc<ClientConfig>,
    /// The name of the connection instead of the host of the URL.
    pub server_name: Option<ServerName<'static>>,
    /// The expiry of each certificate, for metrics.
    pub expiries: Vec<ExpiringItem>,
    /// Oddities of the files that do not prevent their use, for the log.
    pub warnings: Vec<String>,
    /// The files that it was built from, without that of the key.
    pub files: Vec<FileDigest>,
}

impl SubsystemTls {
    /// Whether `other` was built from the same settings and the same bytes: connections of one then serve the other.
    /// The digests are those of the certificates; a key that does not belong to its certificate is refused.
    pub fn is_same(&self, other: &Self) -> bool {
        self.settings == other.settings && self.files == other.files
    }
}

/// The TLS configuration of an HTTP/1.1 client of another service, such as a Prometheus: the authorities are those of
/// the system, or of `SSL_CERT_FILE`.
///
/// # Errors
/// What is wrong with the authorities.
pub fn system_client_tls(clock: &Clock) -> Result<Arc<ClientConfig>, Vec<TlsProblem>> {
    let loaded = SubsystemTlsFiles::of_system().load(&PemStore::new(&DiskFiles), clock);
    loaded.map(|tls| tls.config)
}

impl SubsystemTlsFiles {
    /// Settings for an HTTP/1.1 client of another service, with the authorities of the system.
    fn of_system() -> Self {
        Self {
            authorities: Vec::new(),
            system_authorities: true,
            subject_alt_names: Vec::new(),
            client_certificate: None,
            server_name: None,
            protocol: Some("http/1.1"),
        }
    }

    /// The paths of all files, for the file watcher.
    pub fn paths(&self) -> Vec<PathBuf> {
        let own = self.client_certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        let system = if self.system_authorities { system_bundle() } else { None };
        self.authorities.iter().chain(own).cloned().chain(system).collect()
    }

    /// Checks the files of `store` as of now by `clock`. Handshakes use the system clock.
    ///
    /// # Errors
    /// Every problem found, each with its file and advice.
    pub fn load(&self, store: &PemStore<'_>, clock: &Clock) -> Result<SubsystemTls, Vec<TlsProblem>> {
        let now = clock.wall();
        let mut loader = KeyLoader::new(store, now);
        let trust = trust_anchors::read_trust_anchors(&self.authorities, now, &mut loader.findings);
        trust.warn_of_unjudged_constraints(&mut loader.findings);
        let roots = match self.system_authorities {
            true => trust_anchors::read_system_anchors(&mut loader.findings),
            false => trust.roots,
        };
        let own = self.client_certificate.as_ref().map(|(certificate, key)| loader.load_key(certificate, key));
        loader.findings.warn_of_expiry(now);
        let KeyLoader { provider, findings, .. } = loader;
        if !findings.problems.is_empty() {
            return Err(findings.problems);
        }
        let config =
            self.client_config(provider, (roots, own.flatten())).map_err(|what| vec![self.tls_problem(what)])?;
        let server_name = self.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|_| vec![self.tls_problem("serverName is not a DNS name".to_owned())])?;
        let TlsFindings { expiries, warnings, files, .. } = findings;
        let settings = self.clone();
        Ok(SubsystemTls { settings, config: Arc::new(config), server_name, expiries, warnings, files })
    }

    fn client_config(
        &self,
        provider: Arc<CryptoProvider>,
        (roots, own): (RootCertStore, Option<Arc<CertifiedKey>>),
    ) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the aws-lc-rs provider has cipher suites for TLS 1.3 and 1.2")
            .dangerous() // only by its name: the verifier checks the chain, too
            .with_custom_certificate_verifier(self.verifier(provider, roots)?);
        let mut config = match own {
            Some(own) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(CertifiedKey::clone(&own)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocol.map(|protocol| protocol.as_bytes().to_vec()).into_iter().collect();
        Ok(config)
    }

    /// The verifier of servers: by the name of the connection, or by the chosen names.
    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
    ) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let (roots, algorithms) = (Arc::new(roots), provider.signature_verification_algorithms);
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build();
        let webpki = webpki.map_err(|error| format!("cannot be trusted: {error}"))?;
        let names = self.subject_alt_names.clone();
        match names.is_empty() {
            true => Ok(webpki),
            false => Ok(Arc::new(ChosenNameVerifier::new(names, roots, algorithms, webpki))),
        }
    }

    fn tls_problem(&self, what: String) -> TlsProblem {
        TlsProblem::new(self.authorities.first().map_or(std::path::Path::new(""), PathBuf::as_path), what)
    }
}
