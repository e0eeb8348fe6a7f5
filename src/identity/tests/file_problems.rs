//! Tests of faulty TLS files of every kind, and of the reported problems.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::cli::trial_authority::{CertificateAuthority, ClientRequest, ValidityPeriod};
use crate::clock::Clock;
use crate::identity::tls_files::{ClientAuth, ClientAuthMode, ExpiredCrlPolicy, TlsFiles};
use crate::identity::{DiskFiles, HostPattern, PemStore, ServerTls, TlsProblem};
use crate::model::Name;

fn now() -> Timestamp {
    "2026-06-15T12:00:00Z".parse().expect("a time")
}

/// An authority's directory with a client certificate, and the listener files in it.
struct AuthorityFolder(TempDir);

impl AuthorityFolder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a directory"));
        let authority = CertificateAuthority::create(folder.0.path(), "City", ValidityPeriod::days(now(), 365))
            .expect("an authority");
        authority
            .issue_server(&["localhost".to_owned()], ValidityPeriod::days(now(), 90))
            .expect("a server certificate");
        authority.renew_revocation_list(ValidityPeriod::days(now(), 30)).expect("a list");
        let department = Name::parse("police").expect("a name");
        let request = ClientRequest { department, identities: Vec::new(), validity: ValidityPeriod::days(now(), 90) };
        authority.issue_client(&request).expect("a client certificate");
        folder
    }

    fn at(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn other(&self, name: &str) -> CertificateAuthority {
        CertificateAuthority::create(&self.at("other"), name, ValidityPeriod::days(now(), 365))
            .expect("another authority")
    }

    fn files(&self) -> TlsFiles {
        let auth = ClientAuth {
            mode: ClientAuthMode::Required,
            authorities: vec![self.at("ca.pem")],
            revocation_lists: vec![self.at("revoked.crl")],
            expired_crl: ExpiredCrlPolicy::Refuse,
            ..ClientAuth::default()
        };
        TlsFiles::single(self.at("server.pem"), self.at("server.key"), Some(auth))
    }

    /// The files, with another client authentication.
    fn files_with(&self, change: impl FnOnce(&mut ClientAuth)) -> TlsFiles {
        let mut files = self.files();
        change(Arc::make_mut(files.certificates[0].client_auth.as_mut().expect("asked for")));
        files
    }

    /// The problems reported after `spoil` has changed the files, `days` from now.
    fn problems(&self, days: u32, spoil: impl FnOnce(&Self)) -> String {
        spoil(self);
        let problems = load_files(&self.files(), ValidityPeriod::days(now(), days).until).expect_err("a problem");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// The listener settings of `files`, at `now`.
fn load_files(files: &TlsFiles, now: Timestamp) -> Result<ServerTls, Vec<TlsProblem>> {
    files.load(&PemStore::new(&DiskFiles), &Clock::manual(now))
}

fn copy(folder: &AuthorityFolder, from: &str, to: &str) {
    fs::copy(folder.at(from), folder.at(to)).expect("a copy");
}

fn write(folder: &AuthorityFolder, file: &str, text: &str) {
    fs::write(folder.at(file), text).expect("a file");
}

#[test]
fn valid_files_report_their_expiry() {
    let folder = AuthorityFolder::new();
    let tls = load_files(&folder.files(), now()).expect("good files");
    let message: Vec<_> =
        tls.expiries.iter().map(|expiry| (expiry.role, expiry.name.as_str(), expiry.expires_at)).collect();
    let until = |days| ValidityPeriod::days(now(), days).until;
    assert_eq!(
        message,
        [("server", "CN=localhost", until(90)), ("ca", "CN=City", until(365)), ("crl", "CN=City", until(30))]
    );
    assert_eq!(tls.warnings, Vec::<String>::new());
    assert_eq!(folder.files().paths().len(), 4);
}

#[test]
fn invalid_file_is_reported_with_its_name_and_remedy() {
    type Spoil = fn(&AuthorityFolder);
    let cases: [(Spoil, &str, &str); 15] = [
        (|at| fs::remove_file(at.at("server.pem")).expect("removed"), "server.pem", "cannot be read: No such file"),
        (|at| write(at, "server.pem", "hello"), "server.pem", "contains no certificate in PEM form"),
        (|at| copy(at, "server.key", "server.pem"), "server.pem", "found a private key: are two files mixed up?"),
        (|at| copy(at, "clients/police.key", "server.key"), "server.key", "does not belong to the first certificate"),
        (|at| write(at, "server.key", ENCRYPTED), "server.key", "found an encrypted key: decrypt it first"),
        (|at| write(at, "server.key", ENCRYPTED_TRADITIONAL), "server.key", "found an encrypted key: decrypt it first"),
        (double_key, "server.key", "contains several private keys (lines 1 and "),
        (|at| write(at, "ca.pem", UNKNOWN), "ca.pem", "line 2: contains an unknown section \"PKCS7\""),
        (|at| write(at, "revoked.crl", CUT), "revoked.crl", "line 2: the file ends inside the section \"X509 CRL\""),
        (|at| write(at, "ca.pem", ""), "ca.pem", "expected a certificate authority's certificate"),
        (|at| copy(at, "clients/police.pem", "ca.pem"), "ca.pem", "CN=police is not a certificate authority"),
        (|at| write(at, "ca.pem", MANGLED), "ca.pem", "not well-formed PEM"),
        (|at| copy(at, "ca.pem", "revoked.crl"), "revoked.crl", "found a certificate: are two files mixed up?"),
        (|at| write(at, "revoked.crl", JUNK_LIST), "revoked.crl", "not well-formed X.509 v2"),
        (forge_list, "revoked.crl", "was not signed by it"),
    ];
    for (spoil, file, expected) in cases {
        let folder = AuthorityFolder::new();
        let message = folder.problems(0, spoil);
        assert!(message.contains(file) && message.contains(expected), "{message}\nlacks, of {file}: {expected}");
    }
}

const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
const ENCRYPTED_TRADITIONAL: &str = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
    AAAA\n-----END RSA PRIVATE KEY-----\n";
const UNKNOWN: &str = "# a comment\n-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n";
const CUT: &str = "-----BEGIN X509 CRL-----\nAAAA";
const MANGLED: &str = "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n";
const JUNK_LIST: &str = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";

/// Two keys in one file: it is ambiguous which one counts.
fn double_key(folder: &AuthorityFolder) {
    let key = fs::read_to_string(folder.at("server.key")).expect("a key");
    write(folder, "server.key", &(key.clone() + &key));
}

/// Puts a list of another authority with the same name in place.
fn forge_list(folder: &AuthorityFolder) {
    folder.other("City");
    copy(folder, "other/revoked.crl", "revoked.crl");
}

#[test]
fn all_expired_files_are_reported_at_once() {
    for (days, expected) in [
        (31, vec!["the revocation list of CN=City expired"]),
        (91, vec!["the certificate of CN=localhost expired", "the revocation list of CN=City expired"]),
        (366, vec!["CN=localhost expired", "the certificate of CN=City expired", "list of CN=City expired"]),
    ] {
        let message = AuthorityFolder::new().problems(days, |_| {});
        assert_eq!(message.lines().count(), expected.len(), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}\nlacks {expected:?}");
    }
}

#[test]
fn certificates_not_yet_valid_hint_at_the_clock() {
    let yesterday = now() - jiff::SignedDuration::from_hours(24);
    let problems = load_files(&AuthorityFolder::new().files(), yesterday).expect_err("too early");
    assert_eq!(problems.len(), 3, "server, authority and list");
    assert!(problems.iter().all(|problem| problem.what.contains("check this machine's clock")));
}

#[test]
fn client_authentication_requires_a_trust_anchor() {
    let folder = AuthorityFolder::new();
    let files = folder.files_with(|auth| auth.authorities.clear());
    let problems = load_files(&files, now()).expect_err("no trust anchors");
    assert!(problems[0].what.contains("clientAuth.authorities"), "{problems:?}");
}

#[test]
fn unusual_but_usable_files_are_warnings() {
    let folder = AuthorityFolder::new();
    let other = folder.other("Other");
    let files = folder.files_with(|auth| auth.authorities.push(other.certificate_path()));
    fs::set_permissions(folder.at("server.key"), fs::Permissions::from_mode(0o644)).expect("permissions");
    let warnings = load_files(&files, now()).expect("usable").warnings;
    assert!(warnings[0].contains("readable by every user"), "{warnings:?}");
    assert!(warnings[1].contains("CN=Other has no revocation list"), "{warnings:?}");
    assert_eq!(warnings.len(), 2);
}

#[test]
fn private_keys_are_shown_in_no_problem_and_no_debug_output() {
    let folder = AuthorityFolder::new();
    let key = fs::read_to_string(folder.at("server.key")).expect("a key");
    let secret = key.lines().nth(1).expect("a line of the key");
    let message = folder.problems(0, |at| copy(at, "server.key", "server.pem"));
    assert!(!message.contains(secret));
    let tls = load_files(&AuthorityFolder::new().files(), now()).expect("good files");
    assert!(!format!("{tls:?}").contains("PRIVATE"));
}

/// Replaces the server's certificate by one that the folder's authority has signed, with its key.
fn serve(folder: &AuthorityFolder, change: impl FnOnce(&mut rcgen::CertificateParams)) {
    let (pem, key) =
        (|file| fs::read_to_string(folder.at(file)).expect("PEM"), rcgen::KeyPair::generate().expect("a key"));
    let root = rcgen::KeyPair::from_pem(&pem("ca.key")).expect("a key");
    let root = rcgen::Issuer::from_ca_cert_pem(&pem("ca.pem"), root).expect("an authority");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    write(folder, "server.pem", &params.signed_by(&key, &root).expect("a certificate").pem());
    write(folder, "server.key", &key.serialize_pem());
}

#[test]
fn server_certificate_needs_server_usage_and_host_names() {
    use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
    type Change = fn(&mut rcgen::CertificateParams);
    let cases: [(Change, &str); 3] = [
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "lacks serverAuth"),
        (|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment], "lacks digitalSignature"),
        (|params| params.subject_alt_names.clear(), "has no DNS name and no IP address"),
    ];
    for (change, expected) in cases {
        let folder = AuthorityFolder::new();
        let message = folder.problems(0, |folder| serve(folder, change));
        assert!(message.contains("server.pem") && message.contains(expected), "{message}\nlacks {expected}");
    }
    let folder = AuthorityFolder::new();
    serve(&folder, |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth));
    assert!(load_files(&folder.files(), now()).is_ok());
    serve(&folder, |params| params.subject_alt_names.clear());
    let mut files = folder.files();
    files.certificates[0].server_names = Some(vec![HostPattern::parse("gateway.city.example").expect("a host")]);
    assert_eq!(
        load_files(&files, now()).expect("named in the configuration").hosts.to_string(),
        "gateway.city.example"
    );
}

#[test]
fn authority_without_signing_usage_is_a_problem_with_its_path() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    for (usages, file, expected) in [
        (vec![KeyUsagePurpose::CrlSign], "ca.pem", "keyUsage lacks keyCertSign"),
        (vec![KeyUsagePurpose::KeyCertSign], "revoked.crl", "keyUsage lacks cRLSign"),
    ] {
        let folder = AuthorityFolder::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages;
        let key = KeyPair::generate().expect("a key");
        write(&folder, "ca.pem", &params.self_signed(&key).expect("a certificate").pem());
        params.key_usages = vec![KeyUsagePurpose::CrlSign]; // rcgen would not sign a list without it
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(params, key)).expect("a list");
        write(&folder, "revoked.crl", &list.pem().expect("PEM"));
        let message = folder.problems(0, |_| {});
        assert!(message.contains(file) && message.contains(expected), "{message}\nlacks, of {file}: {expected}");
    }
}

#[test]
fn expired_crl_is_accepted_only_if_configured() {
    let folder = AuthorityFolder::new();
    let files = folder.files_with(|auth| auth.expired_crl = ExpiredCrlPolicy::Allow);
    let later = ValidityPeriod::days(now(), 31).until;
    let tls: ServerTls = load_files(&files, later).expect("usable");
    assert!(tls.accepts_expired_crls());
    assert!(tls.warnings.iter().any(|warning| warning.contains("expired") && warning.contains("it is accepted")));
    assert!(load_files(&folder.files(), later).is_err());
}

#[test]
fn equal_trust_is_recognised_and_different_trust_too() {
    let folder = AuthorityFolder::new();
    let before = load_files(&folder.files(), now()).expect("usable");
    assert!(load_files(&folder.files(), now()).expect("usable").has_same_trust(&before));
    let police = folder.at("clients/police.pem");
    CertificateAuthority::open_directory(folder.0.path())
        .expect("the same")
        .revoke(&police, ValidityPeriod::days(now(), 30))
        .expect("revoked");
    assert!(!load_files(&folder.files(), now()).expect("usable").has_same_trust(&before), "a CRL has changed");
    let files = folder.files_with(|auth| auth.mode = ClientAuthMode::Optional);
    assert!(!load_files(&files, now()).expect("usable").has_same_trust(&before), "other rules");
}
