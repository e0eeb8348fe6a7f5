//! From files to the rustls configuration of a listener.
//!
//! Guarantees: TLS 1.3 and 1.2 only, with the aws-lc-rs provider given by hand (nothing is installed process-wide) and
//! its hybrid post-quantum key exchange preferred; TLS 1.2 only with the extended master secret (RFC 7627); no early
//! data; no resumption where client certificates are asked for, because a resumed session shows a certificate that
//! nobody checks again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::Clock;
use crate::identity::certificate::caller::Caller;
use crate::identity::certificate::certificate_summary::CertificateSummary;
use crate::identity::certificate::expiry::{self, ExpiringItem};
use crate::identity::certificate::server_certificate;
use crate::identity::revocation::crl_store;
use crate::identity::sni::server_names::ListenerHosts;
use crate::identity::sni::sni_resolver::SniResolver;
use crate::identity::tls_files::{ClientAuth, ExpiredCrlPolicy, TlsFiles, TlsFindings, TlsProblem};
use crate::identity::trust::trust_anchors;
use crate::identity::verification::client_verifier::ClientVerifier;
use crate::identity::verification::trust_fingerprint::TrustFingerprint;
use crate::identity::verification::trusted_files::TrustedFiles;

/// Files, read and turned into a rustls configuration.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the acceptor: ALPN h2 and http/1.1, TLS 1.3 and 1.2, no resumption where client certificates are asked for.
    pub config: Arc<ServerConfig>,
    /// What expires when, for metrics.
    pub expiries: Vec<ExpiringItem>,
    /// What is odd about the files, but does not stop their use. For the log.
    pub warnings: Vec<String>,
    /// Which hosts are served.
    pub hosts: ListenerHosts,
    /// Whether revocation lists that have expired are believed (`expiredRevocation: allow`).
    pub accepts_expired_crls: bool,
    /// The authorities and lists that callers are judged by, for people; empty where nobody is asked.
    pub trusted: TrustedFiles,
    /// Names what callers are judged by.
    trust_fingerprint: TrustFingerprint,
    /// Who judges callers; `None` where nobody is asked.
    verifier: Option<Arc<ClientVerifier>>,
}

impl ServerTls {
    /// Judges a chain, its own certificate first, as a handshake at `now` would.
    ///
    /// # Errors
    /// What rustls finds wrong with it. Nothing, where nobody is asked for certificates.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (leaf, issuers) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = unix_time(now.as_second()).ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.verify_chain(leaf, issuers, now)
    }

    /// The certificate that was refused in the handshake which has just failed on this thread. Whoever asks takes it.
    pub fn take_refused_certificate(&self) -> Option<CertificateSummary> {
        self.verifier.as_ref()?.take_refused_certificate()
    }

    /// Since when no caller with a certificate is let in, because the last revocation list of every authority has expired;
    /// `None` while one is current.
    pub fn no_current_crl_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.trusted.last_next_update.filter(|end| *end <= now)
    }

    /// Whether a caller whose handshake is long past would still be let in at `now`: not if its certificate has since
    /// expired or been revoked, its authority is gone, or nobody is asked for certificates any more.
    ///
    /// The same judgement as in the handshake, with its cost (some 100 us): for once per connection after a reload.
    pub fn still_accepts(&self, caller: &Caller, now: Timestamp) -> bool {
        self.verifier.is_some() && self.verify_chain(caller.chain(), now).is_ok()
    }

    /// Whether a caller without a certificate would not be let in.
    pub fn requires_certificates(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.client_auth_mandatory())
    }

    /// Whether this judges callers by the very authorities and lists that `other` does, so that nobody need be judged again.
    pub fn has_same_trust(&self, other: &Self) -> bool {
        self.trust_fingerprint == other.trust_fingerprint
    }
}

/// What stays the same for all parts of one load.
pub(crate) struct TlsLoader {
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    pub(crate) findings: TlsFindings,
    trust_fingerprint: TrustFingerprint,
    trusted: TrustedFiles,
}

impl TlsFiles {
    /// Reads all files as they are good at `now`; handshakes are then judged by the machine's clock.
    ///
    /// # Errors
    /// Every problem found, not only the first, each with its file and what to do.
    pub fn load(&self, now: Timestamp) -> Result<ServerTls, Vec<TlsProblem>> {
        self.load_at(now, Arc::new(DefaultTimeProvider))
    }

    /// As [`TlsFiles::load`], with handshakes judged by `clock` too, so that tests own the time.
    ///
    /// # Errors
    /// As [`TlsFiles::load`].
    pub fn load_with(&self, clock: &Clock) -> Result<ServerTls, Vec<TlsProblem>> {
        self.load_at(clock.wall(), Arc::new(ClockTimeProvider(clock.clone())))
    }

    fn load_at(&self, now: Timestamp, time: Arc<dyn TimeProvider>) -> Result<ServerTls, Vec<TlsProblem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut loader = TlsLoader::new(provider, now);
        let own = loader.load_server_key(self);
        let verifier = match &self.client_auth {
            None => None,
            Some(auth) if auth.authorities.is_empty() => loader.report_missing_authorities(&self.certificate),
            Some(auth) => loader.load_verifier(auth).map(Arc::new),
        };
        loader.findings.warn_of_expiry(now);
        let TlsLoader { provider, findings, trust_fingerprint: trust, trusted, .. } = loader;
        let own = own.filter(|_| findings.problems.is_empty()).ok_or(findings.problems)?;
        let asked: Arc<dyn ClientCertVerifier> = match &verifier {
            Some(verifier) => Arc::clone(verifier) as Arc<dyn ClientCertVerifier>,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let names = own.names.clone();
        let config = Arc::new(server_config(provider, time, asked, own));
        let TlsFindings { expiries, warnings, .. } = findings;
        let believes_expired_lists = self.accepts_expired_crls();
        Ok(ServerTls {
            config,
            expiries,
            warnings,
            hosts: names,
            accepts_expired_crls: believes_expired_lists,
            trusted,
            trust_fingerprint: trust,
            verifier,
        })
    }

    fn accepts_expired_crls(&self) -> bool {
        self.client_auth.as_ref().is_some_and(|auth| auth.expired_crl == ExpiredCrlPolicy::Allow)
    }
}

impl TlsLoader {
    pub(crate) fn new(provider: Arc<CryptoProvider>, now: Timestamp) -> Self {
        let (findings, trust, trusted) = (TlsFindings::default(), TrustFingerprint::default(), TrustedFiles::default());
        Self { provider, now, findings, trust_fingerprint: trust, trusted }
    }

    /// The server's own chain and key, if they belong together, and whom they are shown to.
    fn load_server_key(&mut self, files: &TlsFiles) -> Option<SniResolver> {
        let own = self.load_key(&files.certificate, &files.key)?;
        let (_, leaf) = X509Certificate::from_der(own.cert.first()?).ok()?; // it has been looked at
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

    /// Our own chain and key, if they belong together.
    pub(crate) fn load_key(&mut self, certificate: &Path, key: &Path) -> Option<CertifiedKey> {
        let chain = self.findings.read_certificates(certificate, "a certificate");
        let pair = self.findings.read_key(key);
        self.warn_of_readable_key(key);
        self.check_server_certificate(certificate, chain.first()?);
        let certified = CertifiedKey::from_der(chain, pair?, &self.provider);
        self.findings.value_or_problem(
            certified.map_err(|error| TlsProblem::new(key, unusable_key_message(&error, certificate))),
        )
    }

    fn check_server_certificate(&mut self, path: &Path, leaf: &CertificateDer<'_>) {
        let Ok(([], leaf)) = X509Certificate::from_der(leaf) else {
            return self.findings.add_problem(path, "holds a certificate that is not well-formed X.509");
        };
        if let Some(what) = expiry::validity_problem(&leaf, self.now) {
            self.findings.add_problem(path, what);
        }
        let at = expiry::asn1_timestamp(leaf.validity().not_after);
        self.findings.expiries.push(ExpiringItem { role: "server", name: leaf.subject().to_string(), expires_at: at });
    }

    fn warn_of_readable_key(&mut self, path: &Path) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if metadata.permissions().mode() & 0o007 != 0 {
            self.findings
                .add_warning(path, "this private key is open to every user of this machine; `chmod 600` closes it");
        }
    }

    fn report_missing_authorities(&mut self, certificate: &Path) -> Option<Arc<ClientVerifier>> {
        let what = "client certificates are to be asked for, but no authority is named whose certificates count; name \
                    at least one in clientAuth.authorities";
        self.findings.add_problem(certificate, what);
        None
    }

    /// What checks callers' certificates: the authorities, and the revocation lists over the whole chain.
    fn load_verifier(&mut self, auth: &ClientAuth) -> Option<ClientVerifier> {
        let algorithms = self.provider.signature_verification_algorithms;
        let trust = trust_anchors::read_trust_anchors(&auth.authorities, self.now, &mut self.findings);
        let judging =
            crl_store::CrlContext { trust: &trust, now: self.now, expired: auth.expired_crl, algorithms: &algorithms };
        let lists = crl_store::read_crls(&auth.revocation_lists, judging, &mut self.findings);
        self.trust_fingerprint = TrustFingerprint::from_sources(auth, &trust, &lists);
        self.trusted = TrustedFiles::from_store(&trust, &lists);
        if trust.roots.is_empty() {
            return None; // Each file has told why.
        }
        let roots = Arc::new(trust.roots.clone());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
        let handshakes = builder.build().ok()?; // It has roots, and no lists that it could refuse.
        Some(ClientVerifier::new(handshakes, trust, lists, algorithms))
    }
}

fn unusable_key_message(error: &rustls::Error, certificate: &Path) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "this key does not belong to the first certificate in {}; the server's own certificate comes first there, \
             its issuers after it",
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

/// The house's clock, as rustls asks for it.
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
