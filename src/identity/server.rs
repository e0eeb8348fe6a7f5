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
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::caller::Caller;
use super::expiry::{self, Expiry};
use super::files::{ClientAuth, ExpiredLists, Findings, TlsFiles, TlsProblem, sections};
use super::names::{NamePolicy, ServerNames};
use super::resolver::ForServedNames;
use super::trust::{self, TrustMark};
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
    /// Names what callers are judged by.
    trust: TrustMark,
    /// Who judges callers; `None` where nobody is asked.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
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
        verifier.verify_client_cert(leaf, issuers, now).map(drop)
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
struct Loading {
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    findings: Findings,
    trust: TrustMark,
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
        let mut loading = Loading { provider, now, findings: Findings::default(), trust: TrustMark::default() };
        let own = loading.own_key(self);
        let verifier = match &self.client_auth {
            None => Some(WebPkiClientVerifier::no_client_auth()),
            Some(auth) if auth.authorities.is_empty() => loading.nobody_to_trust(&self.certificate),
            Some(auth) => loading.verifier(auth),
        };
        let Loading { provider, findings, trust, .. } = loading;
        match (own, verifier) {
            (Some(own), Some(verifier)) if findings.problems.is_empty() => {
                let asking = verifier.offer_client_auth().then(|| Arc::clone(&verifier));
                let names = own.names.clone();
                let config = Arc::new(server_config(provider, time, verifier, own));
                let Findings { expiries, warnings, .. } = findings;
                let believes_expired_lists = self.believes_expired_lists();
                Ok(ServerTls { config, expiries, warnings, names, believes_expired_lists, trust, verifier: asking })
            }
            _ => Err(findings.problems),
        }
    }

    fn believes_expired_lists(&self) -> bool {
        self.client_auth.as_ref().is_some_and(|auth| auth.expired_lists == ExpiredLists::Allow)
    }
}

impl Loading {
    /// The server's own chain and key, if they belong together, and whom they are shown to.
    fn own_key(&mut self, files: &TlsFiles) -> Option<ForServedNames> {
        let TlsFiles { certificate, key, names, .. } = files;
        let chain = self.findings.keep(sections::<CertificateDer<'static>>(certificate, "a certificate"));
        let keys = self.findings.keep(sections::<PrivateKeyDer<'static>>(key, "a private key"));
        self.warn_of_open_key(key);
        let chain = chain?;
        let names = self.examine_own(certificate, chain.first()?, names);
        let certified = CertifiedKey::from_der(chain, keys?.into_iter().next()?, &self.provider);
        let own = self.findings.keep(certified.map_err(|error| TlsProblem::new(key, unusable(&error, certificate))));
        Some(ForServedNames { own: Arc::new(own?), names: names? })
    }

    /// Looks at the server's own certificate; tells the hosts it is shown for.
    fn examine_own(&mut self, path: &Path, leaf: &CertificateDer<'_>, policy: &NamePolicy) -> Option<ServerNames> {
        let Ok(([], leaf)) = X509Certificate::from_der(leaf) else {
            self.findings.problem(path, "holds a certificate that is not well-formed X.509");
            return None;
        };
        let wrong = expiry::out_of_time(&leaf, self.now).into_iter().chain(own::not_for_servers(&leaf));
        wrong.for_each(|what| self.findings.problem(path, what));
        let at = expiry::timestamp(leaf.validity().not_after);
        self.findings.expiries.push(Expiry { role: "server", name: leaf.subject().to_string(), at });
        let names = ServerNames::new(policy, &leaf);
        if names.is_none() {
            self.findings.problem(path, own::names_nobody(&leaf));
        }
        names
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
        let judging = revocation::Judging { trust: &trust, now: self.now, expired: auth.expired_lists };
        let lists = revocation::read(&auth.revocation, judging, &mut self.findings);
        self.trust = TrustMark::of(auth, &trust, &lists);
        if trust.roots.is_empty() {
            return None; // Each file has told why.
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(trust.roots), Arc::clone(&self.provider))
            .with_crls(lists);
        let builder = match auth.expired_lists {
            ExpiredLists::Refuse => builder.enforce_revocation_expiration(),
            ExpiredLists::Allow => builder,
        };
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::identity::{Authority, ClientRequest, Validity};
    use crate::model::Name;

    fn now() -> Timestamp {
        "2026-06-15T12:00:00Z".parse().expect("a time")
    }

    /// An authority's directory with a client certificate, and the listener files in it.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().expect("a directory"));
            let authority =
                Authority::create(folder.0.path(), "City", Validity::days(now(), 365)).expect("an authority");
            authority.issue_server(&["localhost".to_owned()], Validity::days(now(), 90)).expect("a server certificate");
            authority.renew_revocation_list(Validity::days(now(), 30)).expect("a list");
            let department = Name::parse("police").expect("a name");
            let request = ClientRequest { department, identities: Vec::new(), validity: Validity::days(now(), 90) };
            authority.issue_client(&request).expect("a client certificate");
            folder
        }

        fn at(&self, file: &str) -> PathBuf {
            self.0.path().join(file)
        }

        fn other(&self, name: &str) -> Authority {
            Authority::create(&self.at("other"), name, Validity::days(now(), 365)).expect("another authority")
        }

        fn files(&self) -> TlsFiles {
            TlsFiles {
                certificate: self.at("server.pem"),
                key: self.at("server.key"),
                client_auth: Some(ClientAuth {
                    required: true,
                    authorities: vec![self.at("ca.pem")],
                    revocation: vec![self.at("revoked.crl")],
                    expired_lists: ExpiredLists::Refuse,
                }),
                names: NamePolicy::default(),
            }
        }

        /// What is told after `spoil` has been at the files, `days` from now.
        fn problems(&self, days: u32, spoil: impl FnOnce(&Self)) -> String {
            spoil(self);
            let problems = self.files().load(Validity::days(now(), days).until).expect_err("a problem");
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
    }

    fn copy(folder: &Folder, from: &str, to: &str) {
        fs::copy(folder.at(from), folder.at(to)).expect("a copy");
    }

    fn write(folder: &Folder, file: &str, text: &str) {
        fs::write(folder.at(file), text).expect("a file");
    }

    #[test]
    fn good_files_tell_what_expires_when() {
        let folder = Folder::new();
        let tls = folder.files().load(now()).expect("good files");
        let told: Vec<_> = tls.expiries.iter().map(|expiry| (expiry.role, expiry.name.as_str(), expiry.at)).collect();
        let until = |days| Validity::days(now(), days).until;
        assert_eq!(
            told,
            [("server", "CN=localhost", until(90)), ("ca", "CN=City", until(365)), ("crl", "CN=City", until(30))]
        );
        assert_eq!(tls.warnings, Vec::<String>::new());
        assert_eq!(folder.files().paths().len(), 4);
    }

    #[test]
    fn one_spoilt_file_is_told_with_its_name_and_what_to_do() {
        type Spoil = fn(&Folder);
        let cases: [(Spoil, &str, &str); 11] = [
            (|at| fs::remove_file(at.at("server.pem")).expect("removed"), "server.pem", "cannot be read: No such file"),
            (|at| write(at, "server.pem", "hello"), "server.pem", "holds no certificate in PEM form"),
            (|at| copy(at, "server.key", "server.pem"), "server.pem", "found a private key: are two files mixed up?"),
            (
                |at| copy(at, "clients/police.key", "server.key"),
                "server.key",
                "does not belong to the first certificate",
            ),
            (|at| write(at, "server.key", ENCRYPTED), "server.key", "found an encrypted key: decrypt it first"),
            (|at| write(at, "ca.pem", ""), "ca.pem", "expected a certificate authority's certificate"),
            (|at| copy(at, "clients/police.pem", "ca.pem"), "ca.pem", "CN=police is not a certificate authority"),
            (|at| write(at, "ca.pem", MANGLED), "ca.pem", "not well-formed PEM"),
            (|at| copy(at, "ca.pem", "revoked.crl"), "revoked.crl", "found a certificate: are two files mixed up?"),
            (|at| write(at, "revoked.crl", JUNK_LIST), "revoked.crl", "not a well-formed X.509 v2 one"),
            (forge_list, "revoked.crl", "was not signed by it"),
        ];
        for (spoil, file, expected) in cases {
            let folder = Folder::new();
            let told = folder.problems(0, spoil);
            assert!(told.contains(file) && told.contains(expected), "{told}\nshould say of {file}: {expected}");
        }
    }

    const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    const MANGLED: &str = "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n";
    const JUNK_LIST: &str = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";

    /// Puts another authority's list of the same name in place.
    fn forge_list(folder: &Folder) {
        folder.other("City");
        copy(folder, "other/revoked.crl", "revoked.crl");
    }

    #[test]
    fn what_has_expired_is_told_and_all_of_it_at_once() {
        for (days, expected) in [
            (31, vec!["the revocation list of CN=City expired"]),
            (91, vec!["the certificate of CN=localhost expired", "the revocation list of CN=City expired"]),
            (366, vec!["CN=localhost expired", "the certificate of CN=City expired", "list of CN=City expired"]),
        ] {
            let told = Folder::new().problems(days, |_| {});
            assert_eq!(told.lines().count(), expected.len(), "{told}");
            assert!(expected.iter().all(|part| told.contains(part)), "{told}\nshould say {expected:?}");
        }
    }

    #[test]
    fn certificates_from_the_future_point_at_the_clock() {
        let yesterday = now() - jiff::SignedDuration::from_hours(24);
        let problems = Folder::new().files().load(yesterday).expect_err("too early");
        assert_eq!(problems.len(), 3, "server, authority and list");
        assert!(problems.iter().all(|problem| problem.what.contains("check this machine's clock")));
    }

    #[test]
    fn asking_for_certificates_needs_somebody_to_trust() {
        let folder = Folder::new();
        let auth = ClientAuth { authorities: Vec::new(), ..folder.files().client_auth.expect("asked for") };
        let files = TlsFiles { client_auth: Some(auth), ..folder.files() };
        let problems = files.load(now()).expect_err("nobody to trust");
        assert!(problems[0].what.contains("clientAuth.authorities"), "{problems:?}");
    }

    #[test]
    fn what_is_odd_but_usable_is_a_warning() {
        let folder = Folder::new();
        let other = folder.other("Other");
        let mut files = folder.files();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("permissions");
        let auth = files.client_auth.as_mut().expect("asked for");
        auth.authorities.push(other.certificate());
        let warnings = files.load(now()).expect("usable").warnings;
        assert!(warnings[0].contains("open to every user"), "{warnings:?}");
        assert!(warnings[1].contains("CN=Other has no revocation list"), "{warnings:?}");
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn secrets_do_not_show_in_what_is_told() {
        let folder = Folder::new();
        let key = fs::read_to_string(folder.at("server.key")).expect("a key");
        let secret = key.lines().nth(1).expect("a line of the key");
        let told = folder.problems(0, |at| copy(at, "server.key", "server.pem"));
        assert!(!told.contains(secret));
        let tls = Folder::new().files().load(now()).expect("good files");
        assert!(!format!("{tls:?}").contains("PRIVATE"));
    }
}
