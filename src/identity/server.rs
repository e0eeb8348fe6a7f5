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

use super::caller::Caller;
use super::expiry::{self, Expiry};
use super::files::{ClientAuth, ExpiredLists, Findings, TlsFiles, TlsProblem};
use super::names::ServerNames;
use super::resolver::ForServedNames;
use super::shown::ShownCertificate;
use super::trust::{self, TrustMark};
use super::trusted::TrustedFiles;
use super::verifier::CallerVerifier;
use super::{own, revocation};
use crate::clock::Clock;

/// Files, read and turned into a rustls configuration.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For the acceptor: ALPN h2 and http/1.1, TLS 1.3 and 1.2, no resumption where client certificates are asked for.
    pub config: Arc<ServerConfig>,
    /// What expires when, for metrics.
    pub expiries: Vec<Expiry>,
    /// What is odd about the files, but does not stop their use. For the log.
    pub warnings: Vec<String>,
    /// Which hosts are served.
    pub names: ServerNames,
    /// Whether revocation lists that have expired are believed (`expiredRevocation: allow`).
    pub believes_expired_lists: bool,
    /// The authorities and lists that callers are judged by, for people; empty where nobody is asked.
    pub trusted: TrustedFiles,
    /// Names what callers are judged by.
    trust: TrustMark,
    /// Who judges callers; `None` where nobody is asked.
    verifier: Option<Arc<CallerVerifier>>,
}

impl ServerTls {
    /// Judges a chain, its own certificate first, as a handshake at `now` would.
    ///
    /// # Errors
    /// What rustls finds wrong with it. Nothing, where nobody is asked for certificates.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (leaf, issuers) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = unix_time(now.as_second()).ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.judge(leaf, issuers, now)
    }

    /// The certificate that was refused in the handshake which has just failed on this thread. Whoever asks takes it.
    pub fn take_refused(&self) -> Option<ShownCertificate> {
        self.verifier.as_ref()?.take_refused()
    }

    /// Since when no caller with a certificate is let in, because the last revocation list of every authority has expired;
    /// `None` while one is current.
    pub fn closed_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.trusted.last_list_end.filter(|end| *end <= now)
    }

    /// Whether a caller whose handshake is long past would still be let in at `now`: not if its certificate has since
    /// expired or been revoked, its authority is gone, or nobody is asked for certificates any more.
    ///
    /// The same judgement as in the handshake, with its cost (some 100 us): for once per connection after a reload.
    pub fn still_trusts(&self, caller: &Caller, now: Timestamp) -> bool {
        self.verifier.is_some() && self.judge(caller.chain(), now).is_ok()
    }

    /// Whether a caller without a certificate would not be let in.
    pub fn requires_certificates(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.client_auth_mandatory())
    }

    /// Whether this judges callers by the very authorities and lists that `other` does, so that nobody need be judged again.
    pub fn trusts_as(&self, other: &Self) -> bool {
        self.trust == other.trust
    }
}

/// What stays the same for all parts of one load.
pub(super) struct Loading {
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    pub(super) findings: Findings,
    trust: TrustMark,
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
        self.load_at(clock.wall(), Arc::new(ClockTime(clock.clone())))
    }

    fn load_at(&self, now: Timestamp, time: Arc<dyn TimeProvider>) -> Result<ServerTls, Vec<TlsProblem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut loading = Loading::new(provider, now);
        let own = loading.server_key(self);
        let verifier = match &self.client_auth {
            None => None,
            Some(auth) if auth.authorities.is_empty() => loading.nobody_to_trust(&self.certificate),
            Some(auth) => loading.verifier(auth).map(Arc::new),
        };
        loading.findings.warn_of_endings(now);
        let Loading { provider, findings, trust, trusted, .. } = loading;
        let own = own.filter(|_| findings.problems.is_empty()).ok_or(findings.problems)?;
        let asked: Arc<dyn ClientCertVerifier> = match &verifier {
            Some(verifier) => Arc::clone(verifier) as Arc<dyn ClientCertVerifier>,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let names = own.names.clone();
        let config = Arc::new(server_config(provider, time, asked, own));
        let Findings { expiries, warnings, .. } = findings;
        let believes_expired_lists = self.believes_expired_lists();
        Ok(ServerTls { config, expiries, warnings, names, believes_expired_lists, trusted, trust, verifier })
    }

    fn believes_expired_lists(&self) -> bool {
        self.client_auth.as_ref().is_some_and(|auth| auth.expired_lists == ExpiredLists::Allow)
    }
}

impl Loading {
    pub(super) fn new(provider: Arc<CryptoProvider>, now: Timestamp) -> Self {
        let (findings, trust, trusted) = (Findings::default(), TrustMark::default(), TrustedFiles::default());
        Self { provider, now, findings, trust, trusted }
    }

    /// The server's own chain and key, if they belong together, and whom they are shown to.
    fn server_key(&mut self, files: &TlsFiles) -> Option<ForServedNames> {
        let own = self.own_key(&files.certificate, &files.key)?;
        let (_, leaf) = X509Certificate::from_der(own.cert.first()?).ok()?; // it has been looked at
        if let Some(what) = own::not_for_servers(&leaf) {
            self.findings.problem(&files.certificate, what);
        }
        let names = ServerNames::new(&files.names, &leaf);
        if names.is_none() {
            self.findings.problem(&files.certificate, own::names_nobody(&leaf));
        }
        let names = names?;
        Some(ForServedNames { own: Arc::new(own), names })
    }

    /// Our own chain and key, if they belong together.
    pub(super) fn own_key(&mut self, certificate: &Path, key: &Path) -> Option<CertifiedKey> {
        let chain = self.findings.certificates(certificate, "a certificate");
        let pair = self.findings.key(key);
        self.warn_of_open_key(key);
        self.examine_own(certificate, chain.first()?);
        let certified = CertifiedKey::from_der(chain, pair?, &self.provider);
        self.findings.keep(certified.map_err(|error| TlsProblem::new(key, unusable(&error, certificate))))
    }

    fn examine_own(&mut self, path: &Path, leaf: &CertificateDer<'_>) {
        let Ok(([], leaf)) = X509Certificate::from_der(leaf) else {
            return self.findings.problem(path, "holds a certificate that is not well-formed X.509");
        };
        if let Some(what) = expiry::out_of_time(&leaf, self.now) {
            self.findings.problem(path, what);
        }
        let at = expiry::timestamp(leaf.validity().not_after);
        self.findings.expiries.push(Expiry { role: "server", name: leaf.subject().to_string(), at });
    }

    fn warn_of_open_key(&mut self, path: &Path) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if metadata.permissions().mode() & 0o007 != 0 {
            self.findings.warn(path, "this private key is open to every user of this machine; `chmod 600` closes it");
        }
    }

    fn nobody_to_trust(&mut self, certificate: &Path) -> Option<Arc<CallerVerifier>> {
        let what = "client certificates are to be asked for, but no authority is named whose certificates count; name \
                    at least one in clientAuth.authorities";
        self.findings.problem(certificate, what);
        None
    }

    /// What checks callers' certificates: the authorities, and the revocation lists over the whole chain.
    fn verifier(&mut self, auth: &ClientAuth) -> Option<CallerVerifier> {
        let algorithms = self.provider.signature_verification_algorithms;
        let trust = trust::read(&auth.authorities, self.now, &mut self.findings);
        let judging =
            revocation::Judging { trust: &trust, now: self.now, expired: auth.expired_lists, algorithms: &algorithms };
        let lists = revocation::read(&auth.revocation, judging, &mut self.findings);
        self.trust = TrustMark::of(auth, &trust, &lists);
        self.trusted = TrustedFiles::of(&trust, &lists);
        if trust.roots.is_empty() {
            return None; // Each file has told why.
        }
        let roots = Arc::new(trust.roots.clone());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
        let handshakes = builder.build().ok()?; // It has roots, and no lists that it could refuse.
        Some(CallerVerifier::new(handshakes, trust, lists, algorithms))
    }
}

fn unusable(error: &rustls::Error, certificate: &Path) -> String {
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
    own: ForServedNames,
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
pub(super) struct ClockTime(pub(super) Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.unix_seconds())
    }
}

fn unix_time(seconds: i64) -> Option<UnixTime> {
    u64::try_from(seconds).ok().map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
