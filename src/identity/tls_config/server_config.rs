//! Builds the TLS settings of a listener (downstream TLS) from its files: its certificates by server name (SNI), each
//! with the trust set of its callers.
//!
//! Guarantees:
//! - The aws-lc-rs provider is passed explicitly; no provider is installed process-wide.
//! - The hybrid post-quantum key exchange of aws-lc-rs is preferred.
//! - Equal `clientAuth` is one trust set, read once, however many certificates have it.
//! - Two certificates have the same host only if their keys are of different types, and their trust set is the same.
//!
//! Leaves to `trust_set`: the rustls configuration of a handshake.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::Clock;
use crate::identity::certificate::certificate_summary::{CertificateSummary, RefusedCertificates};
use crate::identity::certificate::client_identities::BadCertificate;
use crate::identity::certificate::expiry::ExpiringItem;
use crate::identity::certificate::server_certificate;
use crate::identity::certificate::unaccepted_certificate::UnacceptedCertificate;
use crate::identity::certificate::verified_caller::{Caller, CallerFault};
use crate::identity::revocation::crl_store;
use crate::identity::sni::host_pattern::{HostPattern, certificate_hosts};
use crate::identity::sni::server_names::{ListenerHosts, MissingSni, ServedHosts};
use crate::identity::sni::sni_resolver::{ServerKeys, SniResolver};
use crate::identity::tls_files::pem_store::{FileDigest, PemStore};
use crate::identity::tls_files::{CertificateFiles, ClientAuth, TlsFiles, TlsFindings, TlsProblem};
use crate::identity::trust::trust_anchors;
use crate::identity::verification::client_verifier::{ClientVerifier, VerifierSettings};
use crate::identity::verification::trust_fingerprint::TrustFingerprint;
use crate::identity::verification::trusted_files::TrustedFiles;
use crate::identity::verification::verify_error::describe_tls_error;

use super::key_loader::KeyLoader;
use super::trust_set::{CallerTrust, TrustSet};

/// The TLS settings made from [`TlsFiles`], with the facts that the listener needs.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The expiry of each certificate and list, for metrics.
    pub expiries: Vec<ExpiringItem>,
    /// Oddities of the files that do not prevent their use, for the log.
    pub warnings: Vec<String>,
    /// The hosts that the listener serves.
    pub hosts: ListenerHosts,
    /// The files that it was built from, without those of keys.
    pub files: Vec<FileDigest>,
    /// One for each different `clientAuth`, at least one, in the order of the certificates.
    trust_sets: Vec<TrustSet>,
    server_keys: Arc<ServerKeys>,
    refused: Arc<RefusedCertificates>,
}

/// The peer of a finished handshake.
#[derive(Debug)]
pub enum HandshakePeer {
    /// It presented no certificate.
    Anonymous,
    /// It presented a certificate that was verified.
    Verified(Caller),
    /// It presented a certificate that was not accepted; it has no identity (`allowInsecureFallback`, `anyAuthority`,
    /// or `refusal: response`).
    Unaccepted(UnacceptedCertificate),
}

impl ServerTls {
    /// All trust sets, at least one.
    pub fn trust_sets(&self) -> &[TrustSet] {
        &self.trust_sets
    }

    /// The trust set of a handshake that names this host, or none. `None` if the handshake fails.
    pub fn trust_for_sni(&self, server_name: Option<&str>) -> Option<&TrustSet> {
        self.trust_sets.get(self.server_keys.trust_set_for_sni(server_name)?)
    }

    /// The rustls configuration for a handshake that names this host, or none. For a host that is not served, one with
    /// which the handshake fails.
    pub fn config_for_sni(&self, server_name: Option<&str>) -> &Arc<ServerConfig> {
        &self.trust_for_sni(server_name).unwrap_or(&self.trust_sets[0]).config
    }

    /// As [`ServerTls::config_for_sni`], for a connection whose decrypted bytes are forwarded.
    pub fn connection_config_for_sni(&self, server_name: Option<&str>) -> &Arc<ServerConfig> {
        &self.trust_for_sni(server_name).unwrap_or(&self.trust_sets[0]).connection_config
    }

    /// The peer of a finished handshake at `now`.
    ///
    /// # Errors
    /// If the handshake is not finished, or [`crate::identity::identities_of_der`] refuses the certificate.
    pub fn identify_peer(
        &self,
        connection: &ServerConnection,
        now: Timestamp,
    ) -> Result<HandshakePeer, BadCertificate> {
        let tolerant = self.trust_for_sni(connection.server_name()).filter(|trust| trust.tolerates_some());
        let verify = |chain: &[CertificateDer<'_>]| tolerant.map_or(Ok(()), |trust| trust.verify_chain(chain, now));
        let fault = match Caller::from_handshake(connection, verify) {
            Ok(caller) => return Ok(caller.map_or(HandshakePeer::Anonymous, HandshakePeer::Verified)),
            Err(fault) => fault,
        };
        let chain = connection.peer_certificates().unwrap_or_default();
        let tolerated = tolerant.filter(|_| !chain.is_empty()).and_then(|trust| match &fault {
            CallerFault::Unverified(fault) => trust.tolerated(chain, fault),
            CallerFault::Bad(BadCertificate(what)) => trust.tolerated_for(chain, what, false),
        });
        tolerated.map(HandshakePeer::Unaccepted).ok_or_else(|| BadCertificate(describe_fault(&fault)))
    }

    /// The chain and key of a certificate, by its position.
    #[cfg(test)]
    pub(crate) fn server_key(&self, position: usize) -> Arc<CertifiedKey> {
        Arc::clone(&self.server_keys.keys[position])
    }

    /// Takes the certificate that was refused in the handshake that has just failed on this thread. It is returned
    /// once.
    pub fn take_refused_certificate(&self) -> Option<CertificateSummary> {
        self.refused.take_for_thread()
    }

    /// Whether some trust set keeps expired revocation lists in use (`expiredRevocation: allow`).
    pub fn accepts_expired_crls(&self) -> bool {
        self.trust_sets.iter().any(TrustSet::accepts_expired_crls)
    }

    /// Whether some trust set accepts callers whose certificate fails verification (`allowInsecureFallback`,
    /// `anyAuthority`).
    pub fn accepts_unverified(&self) -> bool {
        self.trust_sets.iter().any(TrustSet::accepts_unverified)
    }

    /// The time since which no caller with a certificate is accepted, because the last revocation list of every
    /// authority has expired; `None` while one is current. Of several trust sets, one that still accepts callers is
    /// enough: a host whose lists have expired must not take the others out of service.
    pub fn no_current_crl_since(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.trust_sets.iter().map(|trust| trust.trusted.last_next_update.filter(|end| *end <= now));
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Whether both settings verify callers by the same authorities and lists.
    pub fn has_same_trust(&self, other: &Self) -> bool {
        let fingerprints = |tls: &Self| tls.trust_sets.iter().map(TrustSet::fingerprint).collect::<Vec<_>>();
        fingerprints(self) == fingerprints(other)
    }
}

fn describe_fault(fault: &CallerFault) -> String {
    match fault {
        CallerFault::Unverified(fault) => describe_tls_error(fault),
        CallerFault::Bad(BadCertificate(what)) => what.clone(),
    }
}

/// A certificate that was loaded.
struct LoadedCertificate {
    key: Arc<CertifiedKey>,
    hosts: Vec<HostPattern>,
}

/// The state of building the settings of one listener.
struct ServerLoader<'f, 's> {
    files: &'f TlsFiles,
    keys: KeyLoader<'s>,
    refused: Arc<RefusedCertificates>,
}

impl TlsFiles {
    /// Checks the files of `store` as of now by `clock`. Handshakes use the same clock.
    ///
    /// # Errors
    /// Every problem found, not only the first, each with its file, its key below `tls` and advice.
    pub fn load(&self, store: &PemStore<'_>, clock: &Clock) -> Result<ServerTls, Vec<TlsProblem>> {
        let keys = KeyLoader::new(store, clock.wall());
        let mut loader = ServerLoader { files: self, keys, refused: Arc::default() };
        let certificates = loader.load_certificates();
        let hosts = loader.host_table(&certificates);
        let trusts = loader.load_trusts();
        let ServerLoader { keys: KeyLoader { provider, now, mut findings }, refused, .. } = loader;
        findings.warn_of_expiry(now);
        let TlsFindings { problems, expiries, warnings, mut files, .. } = findings;
        let certificates: Option<Vec<LoadedCertificate>> = certificates.into_iter().collect();
        let Some(certificates) = certificates.filter(|loaded| problems.is_empty() && !loaded.is_empty()) else {
            return Err(problems);
        };
        let hosts = ListenerHosts::new(hosts, self.missing_sni);
        let Some((trusts, trust_sets)) = self.distinct_trusts(&trusts) else { return Err(problems) };
        let keys = certificates.into_iter().map(|loaded| loaded.key).collect();
        let server_keys = Arc::new(ServerKeys { keys, trust_sets, hosts: hosts.clone() });
        let trust_sets = trusts.into_iter().enumerate().map(|(trust_set, callers)| {
            TrustSet::new(callers, SniResolver { server_keys: Arc::clone(&server_keys), trust_set }, (&provider, clock))
        });
        let mut known = HashSet::new(); // certificates may share files
        files.retain(|file| known.insert(file.path.clone()));
        Ok(ServerTls { expiries, warnings, hosts, files, trust_sets: trust_sets.collect(), server_keys, refused })
    }

    /// The trust of each set, and the position of the set of each certificate. `None` if the trust of a certificate was
    /// not loaded: a certificate never loses its client authentication.
    fn distinct_trusts(
        &self,
        loaded: &HashMap<Arc<ClientAuth>, CallerTrust>,
    ) -> Option<(Vec<Option<CallerTrust>>, Vec<usize>)> {
        let mut positions: HashMap<Option<&Arc<ClientAuth>>, usize> = HashMap::new();
        let (mut trusts, mut of_certificates) = (Vec::new(), Vec::new());
        for files in &self.certificates {
            let auth = files.client_auth.as_ref();
            let trust = auth.map(|auth| loaded.get(auth).cloned().ok_or(())).transpose().ok()?;
            let position = *positions.entry(auth).or_insert_with(|| {
                trusts.push(trust);
                trusts.len() - 1
            });
            of_certificates.push(position);
        }
        Some((trusts, of_certificates))
    }
}

impl ClientAuth {
    /// Checks the files of callers as of now by `clock`, as the load of a listener does. Returns the moment at which
    /// the first of them expires.
    ///
    /// # Errors
    /// Every problem found, each with its file and advice.
    pub fn check(&self, store: &PemStore<'_>, clock: &Clock) -> Result<Option<Timestamp>, Vec<TlsProblem>> {
        let files = TlsFiles { certificates: Vec::new(), is_list: true, missing_sni: MissingSni::default() };
        let keys = KeyLoader::new(store, clock.wall());
        let mut loader = ServerLoader { files: &files, keys, refused: Arc::default() };
        let trust = loader.load_trust(&Arc::new(self.clone()));
        let problems = loader.keys.findings.problems;
        let Some(trust) = trust.filter(|_| problems.is_empty()) else { return Err(problems) };
        let TrustedFiles { authorities, lists, .. } = trust.trusted;
        let ends = authorities.iter().map(|authority| authority.valid_until);
        Ok(ends.chain(lists.iter().map(|list| list.next_update)).min())
    }
}

impl ServerLoader<'_, '_> {
    /// Each certificate with its key, in the order of the configuration; `None` for one with a problem.
    fn load_certificates(&mut self) -> Vec<Option<LoadedCertificate>> {
        let mut loaded = Vec::with_capacity(self.files.certificates.len());
        for (index, files) in self.files.certificates.iter().enumerate() {
            let known = self.keys.findings.problems.len();
            loaded.push(self.load_certificate(files));
            let files = self.files;
            self.place_problems(known, |path| files.key_of_certificate(index, path));
        }
        loaded
    }

    fn load_certificate(&mut self, files: &CertificateFiles) -> Option<LoadedCertificate> {
        let own = self.keys.load_key(&files.certificate, &files.key)?;
        let (_, leaf) = X509Certificate::from_der(own.cert.first()?).ok()?; // validated by `load_key`
        if let Some(what) = server_certificate::server_usage_problem(&leaf) {
            self.keys.findings.add_problem(&files.certificate, what);
        }
        let hosts = files.server_names.clone().unwrap_or_else(|| certificate_hosts(&leaf));
        if hosts.is_empty() {
            self.keys.findings.add_problem(&files.certificate, server_certificate::no_host_message(&leaf));
            return None;
        }
        Some(LoadedCertificate { key: own, hosts })
    }

    /// The hosts of all certificates. Two certificates with one host are a problem, unless the handshake can choose
    /// between them by the type of their keys, without a choice of the callers' authorities.
    fn host_table(&mut self, certificates: &[Option<LoadedCertificate>]) -> ServedHosts {
        let mut table = ServedHosts::default();
        for (index, loaded) in certificates.iter().enumerate() {
            let Some(loaded) = loaded else { continue };
            for (position, pattern) in loaded.hosts.iter().enumerate() {
                let others = table.certificates_of(pattern).iter().filter(|other| **other != index);
                let conflict = others.copied().find_map(|other| {
                    let other_key = &certificates[other].as_ref()?.key;
                    self.conflict_of((index, loaded), (other, other_key))
                });
                match conflict {
                    Some(what) => self.add_host_problem(index, position, format!("{pattern} {what}")),
                    None => table.add(pattern.clone(), index),
                }
            }
        }
        table
    }

    /// Why two certificates cannot have the same host.
    fn conflict_of(
        &self,
        (index, loaded): (usize, &LoadedCertificate),
        (other, other_key): (usize, &CertifiedKey),
    ) -> Option<String> {
        let files = &self.files.certificates;
        if loaded.key.key.algorithm() == other_key.key.algorithm() {
            return Some(format!(
                "is also a host of certificates[{other}], whose key has the same type; remove it from the serverNames \
                 of one of them"
            ));
        }
        (files[index].client_auth != files[other].client_auth).then(|| {
            format!(
                "is also a host of certificates[{other}], which has another clientAuth; give both the same, or the \
                 client could choose"
            )
        })
    }

    fn add_host_problem(&mut self, index: usize, position: usize, what: String) {
        let files = &self.files.certificates[index];
        let key = match files.server_names {
            Some(_) => format!(".certificates[{index}].serverNames[{position}]"),
            None => format!(".certificates[{index}].certificate"),
        };
        let problem = TlsProblem { key, ..TlsProblem::new(&files.certificate, what) };
        self.keys.findings.problems.push(problem);
    }

    /// The trust of each different `clientAuth`; one with a problem is left out.
    fn load_trusts(&mut self) -> HashMap<Arc<ClientAuth>, CallerTrust> {
        let mut trusts = HashMap::new();
        for (index, auth) in self.files.client_auths() {
            let known = self.keys.findings.problems.len();
            match auth.authorities.is_empty() {
                true => self.report_missing_authorities(&self.files.certificates[index].certificate),
                false => trusts.extend(self.load_trust(auth).map(|trust| (Arc::clone(auth), trust))),
            }
            let files = self.files;
            self.place_problems(known, |path| files.key_of_trust(index, path));
        }
        trusts
    }

    fn report_missing_authorities(&mut self, certificate: &Path) {
        let what =
            "client certificates are requested, but clientAuth.authorities is empty; name at least one authority";
        self.keys.findings.add_problem(certificate, what);
    }

    /// The verifier of callers: the authorities, and the revocation lists for the whole chain.
    fn load_trust(&mut self, auth: &Arc<ClientAuth>) -> Option<CallerTrust> {
        let KeyLoader { provider, now, findings } = &mut self.keys;
        let algorithms = provider.signature_verification_algorithms;
        let trust = trust_anchors::read_trust_anchors(&auth.authorities, *now, findings);
        let judging =
            crl_store::CrlContext { trust: &trust, now: *now, expired: auth.expired_crl, algorithms: &algorithms };
        let lists = crl_store::read_crls(&auth.revocation_lists, judging, findings);
        let fingerprint = TrustFingerprint::from_sources(auth, &trust, &lists);
        let trusted = TrustedFiles::from_store(&trust, &lists);
        if trust.roots.is_empty() {
            return None; // Each file has reported its problem.
        }
        let roots = Arc::new(trust.roots.clone());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let builder = if auth.requires_in_handshake() { builder } else { builder.allow_unauthenticated() };
        let handshakes = builder.build().ok()?; // Infallible here: the roots are not empty, and there are no lists.
        let settings = VerifierSettings { auth, algorithms, refused: Arc::clone(&self.refused) };
        let verifier = Arc::new(ClientVerifier::new(handshakes, trust, lists, settings));
        Some(CallerTrust { verifier, fingerprint, trusted, auth: Arc::clone(auth) })
    }

    /// Gives the problems after the first `known` ones the keys of their files.
    fn place_problems(&mut self, known: usize, key_of: impl Fn(&Path) -> String) {
        for problem in &mut self.keys.findings.problems[known..] {
            problem.key = key_of(&problem.path.0);
        }
    }
}
