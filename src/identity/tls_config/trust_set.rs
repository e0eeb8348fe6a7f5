//! A trust set: the authorities, revocation lists and settings that verify the callers of some certificates of a
//! listener, with the rustls configuration for their handshakes.
//!
//! Guarantees:
//! - TLS 1.3 and 1.2 only. TLS 1.2 requires the extended master secret (RFC 7627).
//! - No early data.
//! - No session resumption where client certificates are asked for: a resumed session would present a certificate that
//!   is not verified again.
//!
//! Leaves to others: the choice of the set by server name (`server_config`), and the verdict (`verification`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;

use crate::clock::Clock;
use crate::identity::certificate::forwarded_certificate::{ForwardedCertificate, ShownCertificate};
use crate::identity::certificate::unaccepted_certificate::UnacceptedCertificate;
use crate::identity::certificate::verified_caller::Caller;
use crate::identity::sni::sni_resolver::SniResolver;
use crate::identity::tls_files::{ClientAuth, ClientAuthMode, ExpiredCrlPolicy};
use crate::identity::verification::client_verifier::ClientVerifier;
use crate::identity::verification::trust_fingerprint::TrustFingerprint;
use crate::identity::verification::trusted_files::TrustedFiles;
use crate::identity::verification::verify_error::{describe_tls_error, is_untrusted};
use crate::model::Name;

use super::request_verdict::CertificateRefusal;

/// The verification of callers, for some server names of a listener.
#[derive(Clone, Debug)]
pub struct TrustSet {
    /// The configuration for the acceptor: ALPN h2 and http/1.1, TLS 1.3 and 1.2, no session resumption where client
    /// certificates are asked for. Handshakes for server names of another set fail.
    pub config: Arc<ServerConfig>,
    /// The same without ALPN, for connections whose decrypted bytes are forwarded: the gateway does not know their
    /// protocol, so it agrees on none (RFC 7301 section 3.2).
    pub connection_config: Arc<ServerConfig>,
    /// The authorities and lists, for display. Empty where no client certificates are asked for.
    pub trusted: TrustedFiles,
    callers: Option<CallerTrust>,
}

/// The verifier of callers with its settings.
#[derive(Clone, Debug)]
pub(crate) struct CallerTrust {
    pub(crate) verifier: Arc<ClientVerifier>,
    pub(crate) fingerprint: TrustFingerprint,
    pub(crate) trusted: TrustedFiles,
    pub(crate) auth: Arc<ClientAuth>,
}

impl TrustSet {
    /// A set with these callers; `None` requests no client certificates.
    pub(crate) fn new(
        callers: Option<CallerTrust>,
        resolver: SniResolver,
        (provider, clock): (&Arc<CryptoProvider>, &Clock),
    ) -> Self {
        let verifier: Arc<dyn ClientCertVerifier> = match &callers {
            Some(callers) => Arc::clone(&callers.verifier) as Arc<dyn ClientCertVerifier>,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let time = Arc::new(ClockTimeProvider(clock.clone()));
        let config = server_config(Arc::clone(provider), time, verifier, resolver);
        let mut connection_config = config.clone();
        connection_config.alpn_protocols.clear();
        let trusted = callers.as_ref().map(|callers| callers.trusted.clone()).unwrap_or_default();
        Self { config: Arc::new(config), connection_config: Arc::new(connection_config), trusted, callers }
    }

    /// Verifies a chain, its own certificate first, as a handshake at `now` would.
    ///
    /// # Errors
    /// The fault that rustls finds. Never an error where no client certificates are asked for.
    pub fn verify_chain(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), rustls::Error> {
        let Some(callers) = &self.callers else { return Ok(()) };
        let (leaf, issuers) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = unix_time(now.as_second()).ok_or(rustls::Error::FailedToGetCurrentTime)?;
        callers.verifier.verify_chain(leaf, issuers, now)
    }

    /// Whether the caller of an established connection would still be accepted at `now`. The result is false if:
    ///
    /// - its certificate has expired or was revoked since the handshake;
    /// - its authority is no longer trusted;
    /// - the set no longer asks for client certificates.
    ///
    /// The check is that of the handshake and costs the same, some 100 us. It is meant for one call per connection
    /// after a reload.
    pub fn still_accepts(&self, caller: &Caller, now: Timestamp) -> bool {
        self.callers.is_some() && self.verify_chain(caller.chain(), now).is_ok()
    }

    /// Whether a handshake without a certificate fails.
    pub fn requires_certificates(&self) -> bool {
        self.auth().is_some_and(ClientAuth::requires_in_handshake)
    }

    /// Whether callers whose certificate fails verification may send commands, without an identity
    /// (`allowInsecureFallback`, `anyAuthority`).
    pub fn accepts_unverified(&self) -> bool {
        self.auth().is_some_and(ClientAuth::accepts_unverified)
    }

    /// The certificate of a chain that fails verification with this fault, if its handshake succeeds nonetheless.
    pub fn tolerated(&self, chain: &[CertificateDer<'_>], fault: &rustls::Error) -> Option<UnacceptedCertificate> {
        let is_untrusted = chain.first().is_some_and(|leaf| is_untrusted(fault, leaf));
        self.tolerated_for(chain, &describe_tls_error(fault), is_untrusted)
    }

    pub(crate) fn tolerated_for(
        &self,
        chain: &[CertificateDer<'_>],
        reason: &str,
        is_untrusted: bool,
    ) -> Option<UnacceptedCertificate> {
        let certificate = UnacceptedCertificate::new(chain, reason, is_untrusted);
        self.tolerates(&certificate).then_some(certificate)
    }

    /// Whether a handshake with this certificate, which fails verification, succeeds nonetheless.
    pub fn tolerates(&self, certificate: &UnacceptedCertificate) -> bool {
        self.auth().is_some_and(|auth| {
            let is_any = auth.mode == ClientAuthMode::AnyAuthority;
            auth.accepts_any_in_handshake() || (is_any && certificate.is_untrusted())
        })
    }

    /// Whether a finished handshake is no evidence that the chain was verified.
    pub(crate) fn tolerates_some(&self) -> bool {
        self.auth().is_some_and(|auth| auth.accepts_any_in_handshake() || auth.mode == ClientAuthMode::AnyAuthority)
    }

    /// Why the requests of a connection with this certificate are refused; `None` if they are not.
    pub fn refuse_requests(&self, shown: ShownCertificate<'_>) -> Option<CertificateRefusal> {
        self.auth()?.refuse_requests(shown)
    }

    /// The fields about this certificate that subsystems get; `None` for none.
    pub fn forwarded_certificate(&self, shown: ShownCertificate<'_>) -> Option<ForwardedCertificate> {
        ForwardedCertificate::new(shown, self.auth()?.forwarding)
    }

    /// Where the identities that this set certifies count; `None` for the realm without a name.
    pub fn realm(&self) -> Option<&Name> {
        self.auth()?.realm.as_ref()
    }

    /// Whether a caller with a certificate that nobody claims has no department, whatever the listener says.
    pub fn refuses_unclaimed(&self) -> bool {
        self.auth().is_some_and(|auth| auth.refuses_unclaimed)
    }

    /// Whether expired revocation lists stay in use (`expiredRevocation: allow`).
    pub fn accepts_expired_crls(&self) -> bool {
        self.auth().is_some_and(|auth| auth.expired_crl == ExpiredCrlPolicy::Allow)
    }

    /// Whether both sets verify callers by the same mode, authorities and lists. Then no caller needs to be verified
    /// again after a reload.
    pub fn has_same_trust(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }

    pub(crate) fn fingerprint(&self) -> TrustFingerprint {
        self.callers.as_ref().map(|callers| callers.fingerprint).unwrap_or_default()
    }

    fn auth(&self) -> Option<&ClientAuth> {
        self.callers.as_ref().map(|callers| &*callers.auth)
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
