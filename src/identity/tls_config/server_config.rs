//! Builds the rustls server configuration of a listener (downstream TLS) from its files.
//!
//! Guarantees:
//! - TLS 1.3 and 1.2 only. TLS 1.2 requires the extended master secret (RFC 7627).
//! - The aws-lc-rs provider is passed explicitly; no provider is installed process-wide.
//! - The hybrid post-quantum key exchange of aws-lc-rs is preferred.
//! - No early data.
//! - No session resumption where client certificates are asked for: a resumed session would present a certificate that
//!   is not verified again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::Clock;
use crate::identity::certificate::certificate_summary::CertificateSummary;
use crate::identity::certificate::expiry::{self, ExpiringItem};
use crate::identity::certificate::server_certificate;
use crate::identity::certificate::verified_caller::Caller;
use crate::identity::revocation::crl_store;
use crate::identity::sni::server_names::ListenerHosts;
use crate::identity::sni::sni_resolver::SniResolver;
use crate::identity::tls_files::pem_store::{FileDigest, PemStore};
use crate::identity::tls_files::{ClientAuth, ExpiredCrlPolicy, TlsFiles, TlsFindings, TlsProblem};
use crate::identity::trust::trust_anchors;
use crate::identity::verification::client_verifier::ClientVerifier;
use crate::identity::verification::trust_fingerprint::TrustFingerprint;
use crate::identity::verification::trusted_files::TrustedFiles;

/// The rustls server configuration made from [`TlsFiles`], with the facts that the listener needs.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The configuration for the acceptor: ALPN h2 and http/1.1, TLS 1.3 and 1.2, no session resumption where client
    /// certificates are asked for.
    pub config: Arc<ServerConfig>,
    /// The expiry of each certificate and list, for metrics.
    pub expiries: Vec<ExpiringItem>,
    /// Oddities of the files that do not prevent their use, for the log.
    pub warnings: Vec<String>,
    /// The hosts that the listener serves.
    pub hosts: ListenerHosts,
    /// Whether expired revocation lists stay in use (`expiredRevocation: allow`).
    pub accepts_expired_crls: bool,
    /// The authorities and lists that verify callers, for display. Empty where no client certificates are asked for.
    pub trusted: TrustedFiles,
    /// The files that it was built from, without that of the key.
    pub files: Vec<FileDigest>,
    /// The fingerprint of the authorities and lists that verify callers.
    trust_fingerprint: TrustFingerprint,
    /// The verifier of callers; `None` where no client certificates are asked for.
    verifier: Option<Arc<ClientVerifier>>,
}

impl ServerTls {
    /// Verifies a chain, its own certificate first, as a handshake at `now` would.
    ///
    /// # Errors
    /// The fault that rustls finds. Never an error where no client certificates are asked for.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (leaf, issuers) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = unix_time(now.as_second()).ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.verify_chain(leaf, issuers, now)
    }

    /// Takes the certificate that was refused in the handshake that has just failed on this thread. It is returned
    /// once.
    pub fn take_refused_certificate(&self) -> Option<CertificateSummary> {
        self.verifier.as_ref()?.take_refused_certificate()
    }

    /// The time since which no caller with a certificate is accepted, because the last revocation list of every
    /// authority has expired; `None` while one is current.
    pub fn no_current_crl_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.trusted.last_next_update.filter(|end| *end <= now)
    }

    /// Whether the caller of an established connection would still be accepted at `now`. The result is false if:
    ///
    /// - its certificate has expired or was revoked since the handshake;
    /// - its authority is no longer trusted;
    /// - the listener no longer asks for client certificates.
    ///
    /// The check is that of the handshake and costs the same, some 100 us. It is meant for one call per connection
    /// after a reload.
    pub fn still_accepts(&self, caller: &Caller, now: Timestamp) -> bool {
        self.verifier.is_some() && self.verify_chain(caller.chain(), now).is_ok()
    }

    /// Whether a caller without a certificate is refused.
    pub fn requires_certificates(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.client_auth_mandatory())
    }

    /// Whether both configurations verify callers by the same authorities and lists. Then no caller needs to be
    /// verified again after a reload.
    pub fn has_same_trust(&self, other: &Self) -> bool {
        self.trust_fingerprint == other.trust_fingerprint
    }
}

/// The state of building the TLS settings of one listener or subsystem.
pub(crate) struct TlsLoader<'s> {
    pub(crate) provider: Arc<CryptoProvider>,
    now: Timestamp,
    pub(crate) findings: TlsFindings<'s>,
    trust_fingerprint: TrustFingerprint,
    trusted: TrustedFiles,
}

impl TlsFiles {
    /// Checks the files of `store` as of now by `clock`. Handshakes use the same clock.
    ///
    /// # Errors
    /// Every problem found, not only the first, each with its file and advice.
    pub fn load(&self, store: &PemStore<'_>, clock: &Clock) -> Result<ServerTls, Vec<TlsProblem>> {
        let now = clock.wall();
        let mut loader = TlsLoader::new(store, now);
        let own = loader.load_server_key(self);
        let verifier = match &self.client_auth {
            None => None,
            Some(auth) if auth.authorities.is_empty() => loader.report_missing_authorities(&self.certificate),
            Some(auth) => loader.load_verifier(auth).map(Arc::new),
        };
        loader.findings.warn_of_expiry(now);
        let TlsLoader { provider, findings, trust_fingerprint: trust, trusted, .. } = loader;
        let own = own.filter(|_| findings.problems.is_empty()).ok_or(findings.problems)?;
        let client_verifier: Arc<dyn ClientCertVerifier> = match &verifier {
            Some(verifier) => Arc::clone(verifier) as Arc<dyn ClientCertVerifier>,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let names = own.names.clone();
        let time = Arc::new(ClockTimeProvider(clock.clone()));
        let config = Arc::new(server_config(provider, time, client_verifier, own));
        let TlsFindings { expiries, warnings, files, .. } = findings;
        Ok(ServerTls {
            config,
            expiries,
            warnings,
            hosts: names,
            accepts_expired_crls: self.accepts_expired_crls(),
            trusted,
            files,
            trust_fingerprint: trust,
            verifier,
        })
    }

    fn accepts_expired_crls(&self) -> bool {
        self.client_auth.as_ref().is_some_and(|auth| auth.expired_crl == ExpiredCrlPolicy::Allow)
    }
}

impl<'s> TlsLoader<'s> {
    pub(crate) fn new(store: &'s PemStore<'s>, now: Timestamp) -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            now,
            findings: TlsFindings::new(store),
            trust_fingerprint: TrustFingerprint::default(),
            trusted: TrustedFiles::default(),
        }
    }

    /// The certificate resolver with the server's own chain and key, if they match, and the hosts that it serves.
    fn load_server_key(&mut self, files: &TlsFiles) -> Option<SniResolver> {
        let own = self.load_key(&files.certificate, &files.key)?;
        let (_, leaf) = X509Certificate::from_der(own.cert.first()?).ok()?; // validated by `load_key`
        if let Some(what) = server_certificate::server_usage_problem(&leaf) {
            self.findings.add_problem(&files.certificate, what);
        }
        let names = ListenerHosts::new(&files.host_policy, &leaf);
        if names.is_none() {
            self.findings.add_problem(&files.certificate, server_certificate::no_host_message(&leaf));
        }
        let names = names?;
        Some(SniResolver { server_key: Arc::new(own), names })
    }

    /// The gateway's own chain and key, if they match.
    pub(crate) fn load_key(&mut self, certificate: &Path, key: &Path) -> Option<CertifiedKey> {
        let chain = self.findings.read_certificates(certificate, "a certificate");
        let pair = self.findings.read_key(key);
        self.check_server_certificate(certificate, chain.first()?);
        let certified = CertifiedKey::from_der(chain, pair?, &self.provider);
        self.findings.value_or_problem(
            certified.map_err(|error| TlsProblem::new(key, unusable_key_message(&error, certificate))),
        )
    }

    fn check_server_certificate(&mut self, path: &Path, leaf: &CertificateDer<'_>) {
        let Ok(([], leaf)) = X509Certificate::from_der(leaf) else {
            return self.findings.add_problem(path, "contains a certificate that is not well-formed X.509");
        };
        if let Some(what) = expiry::validity_problem(&leaf, self.now) {
            self.findings.add_problem(path, what);
        }
        let at = expiry::asn1_timestamp(leaf.validity().not_after);
        self.findings.expiries.push(ExpiringItem { role: "server", name: leaf.subject().to_string(), expires_at: at });
    }

    fn report_missing_authorities(&mut self, certificate: &Path) -> Option<Arc<ClientVerifier>> {
        let what =
            "client certificates are requested, but clientAuth.authorities is empty; name at least one authority";
        self.findings.add_problem(certificate, what);
        None
    }

    /// The verifier of callers: the authorities, and the revocation lists for the whole chain.
    fn load_verifier(&mut self, auth: &ClientAuth) -> Option<ClientVerifier> {
        let algorithms = self.provider.signature_verification_algorithms;
        let trust = trust_anchors::read_trust_anchors(&auth.authorities, self.now, &mut self.findings);
        let judging =
            crl_store::CrlContext { trust: &trust, now: self.now, expired: auth.expired_crl, algorithms: &algorithms };
        let lists = crl_store::read_crls(&auth.revocation_lists, judging, &mut self.findings);
        self.trust_fingerprint = TrustFingerprint::from_sources(auth, &trust, &lists);
        self.trusted = TrustedFiles::from_store(&trust, &lists);
        if trust.roots.is_empty() {
            return None; // Each file has reported its problem.
        }
        let roots = Arc::new(trust.roots.clone());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
        let handshakes = builder.build().ok()?; // Infallible here: the roots are not empty, and there are no lists.
        Some(ClientVerifier::new(handshakes, trust, lists, algorithms))
    }
}

fn unusable_key_message(error: &rustls::Error, certificate: &Path) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "this key does not belong to the first certificate in {}; the file must begin with the server's own \
             certificate, followed by its issuers",
            certificate.display()
        ),
        other => format!(
            "this key cannot be used: {other}; expected an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits or more) key"
        ),
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    own: SniResolver,
) -> ServerConfig {
    let asks = verifier.offer_client_auth();
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .expect("the aws-lc-rs provider has cipher suites for TLS 1.3 and 1.2")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.require_ems = true;
    config.max_early_data_size = 0;
    if asks {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config
}

/// The injected clock in the form of a rustls time provider.
#[derive(Debug)]
pub(crate) struct ClockTimeProvider(pub(crate) Clock);

impl TimeProvider for ClockTimeProvider {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.unix_seconds())
    }
}

fn unix_time(seconds: i64) -> Option<UnixTime> {
    u64::try_from(seconds).ok().map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
