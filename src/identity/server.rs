//! From files to the rustls configuration of a listener.
//!
//! Guarantees: TLS 1.3 and 1.2 only, with the aws-lc-rs provider given by hand (nothing is installed process-wide) and
//! its hybrid post-quantum key exchange preferred; TLS 1.2 only with the extended master secret (RFC 7627); no early
//! data; no resumption where client certificates are asked for, because a resumed session shows a certificate that
//! nobody checks again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::expiry::{self, Expiry};
use super::files::{ClientAuth, Findings, TlsFiles, TlsProblem, sections};
use super::{revocation, trust};
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
}

/// What stays the same for all parts of one load.
struct Loading {
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    findings: Findings,
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
        let mut loading = Loading { provider, now, findings: Findings::default() };
        let own = loading.own_key(&self.certificate, &self.key);
        let verifier = match &self.client_auth {
            None => Some(WebPkiClientVerifier::no_client_auth()),
            Some(auth) if auth.authorities.is_empty() => loading.nobody_to_trust(&self.certificate),
            Some(auth) => loading.verifier(auth),
        };
        let Loading { provider, findings, .. } = loading;
        match (own, verifier) {
            (Some(own), Some(verifier)) if findings.problems.is_empty() => {
                let config = server_config(provider, time, verifier, own);
                Ok(ServerTls { config: Arc::new(config), expiries: findings.expiries, warnings: findings.warnings })
            }
            _ => Err(findings.problems),
        }
    }
}

impl Loading {
    /// The server's own chain and key, if they belong together.
    fn own_key(&mut self, certificate: &Path, key: &Path) -> Option<CertifiedKey> {
        let chain = self.findings.keep(sections::<CertificateDer<'static>>(certificate, "a certificate"));
        let keys = self.findings.keep(sections::<PrivateKeyDer<'static>>(key, "a private key"));
        self.warn_of_open_key(key);
        let chain = chain?;
        self.examine_own(certificate, chain.first()?);
        let certified = CertifiedKey::from_der(chain, keys?.into_iter().next()?, &self.provider);
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

    fn nobody_to_trust(&mut self, certificate: &Path) -> Option<Arc<dyn ClientCertVerifier>> {
        let what = "client certificates are to be asked for, but no authority is named whose certificates count; name \
                    at least one in clientAuth.authorities";
        self.findings.problem(certificate, what);
        None
    }

    /// What checks callers' certificates: the authorities, and the revocation lists over the whole chain.
    fn verifier(&mut self, auth: &ClientAuth) -> Option<Arc<dyn ClientCertVerifier>> {
        let trust = trust::read(&auth.authorities, self.now, &mut self.findings);
        let lists = revocation::read(&auth.revocation, &trust, self.now, &mut self.findings);
        if trust.roots.is_empty() {
            return None; // Each file has told why.
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(trust.roots), Arc::clone(&self.provider))
            .with_crls(lists)
            .enforce_revocation_expiration();
        let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
        builder.build().ok() // Each list has been parsed, and each that fails has told why.
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
    own: CertifiedKey,
) -> ServerConfig {
    let asks = verifier.offer_client_auth();
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .expect("the aws-lc-rs provider has cipher suites for TLS 1.3 and 1.2")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
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
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}
