//! Tests of chain verification, as in a handshake: certificate revocation lists (CRL), signature algorithms, key
//! usages, name constraints.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::cli::trial_authority::{CertificateAuthority, ValidityPeriod};
use crate::clock::Clock;
use crate::identity::der::der_reader::{SEQUENCE, constructed_tag, encode_element, primitive_tag};
use crate::identity::*;

const LATER: (i32, u8, u8) = (2027, 1, 1);
const SOON: (i32, u8, u8) = (2026, 7, 1);

fn now() -> Timestamp {
    "2026-06-15T12:00:00Z".parse().expect("a time")
}

/// An authority, with the chain that its callers present (empty for a root).
struct TestSigner {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    chain: Vec<CertificateDer<'static>>,
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    params
}

fn authority_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn root_with(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> TestSigner {
    let mut params = authority_params("City", 1);
    change(&mut params);
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    TestSigner { issuer: Issuer::new(params, key), pem, chain: Vec::new() }
}

fn root() -> TestSigner {
    root_with(&rcgen::PKCS_ECDSA_P256_SHA256, |_| ())
}

impl TestSigner {
    fn below(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name, serial);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = [vec![certificate.der().clone()], self.chain.clone()].concat();
        Self { issuer: Issuer::new(params, key), pem: certificate.pem(), chain }
    }

    /// The chain that a caller of this authority presents.
    fn caller(&self, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = params("police", serial);
        params.subject_alt_names = vec![SanType::URI("spiffe://city.example/police".try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        [vec![leaf], self.chain.clone()].concat()
    }

    fn list(&self, revoked: &[u64], number: u64, shape: ListShape) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let (year, month, day) = shape.until;
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(year, month, day),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: shape.point.map(|(uri, scope)| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
                scope,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// The nextUpdate of a list, and its distribution point.
#[derive(Clone, Copy)]
struct ListShape {
    until: (i32, u8, u8),
    point: Option<(&'static str, Option<CrlScope>)>,
}

const WHOLE: ListShape = ListShape { until: LATER, point: None };

fn partition(uri: &'static str, scope: Option<CrlScope>) -> ListShape {
    ListShape { until: LATER, point: Some((uri, scope)) }
}

fn points_to(uri: &'static str) -> impl Fn(&mut CertificateParams) {
    move |params| params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![uri.to_owned()] }]
}

/// A listener with a clock. The tests write its authorities and lists.
struct ListenerBench {
    folder: TempDir,
    clock: Clock,
}

impl ListenerBench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let own = CertificateAuthority::create(folder.path(), "Gateway", ValidityPeriod::days(now(), 3650))
            .expect("an authority");
        own.issue_server(&["localhost".to_owned()], ValidityPeriod::days(now(), 365)).expect("a server certificate");
        Self { folder, clock: Clock::manual(now()) }
    }

    fn write(&self, kind: &str, texts: &[String]) -> Vec<PathBuf> {
        let write = |(index, text): (usize, &String)| {
            let path = self.folder.path().join(format!("{kind}-{index}.pem"));
            std::fs::write(&path, text).expect("a file");
            path
        };
        texts.iter().enumerate().map(write).collect()
    }

    /// Each text is written to a file of its own.
    fn try_load(&self, authorities: &[String], lists: &[String]) -> Result<ServerTls, String> {
        let auth = ClientAuth {
            mode: ClientAuthMode::Required,
            authorities: self.write("authority", authorities),
            revocation_lists: self.write("list", lists),
            expired_crl: ExpiredCrlPolicy::Refuse,
            ..ClientAuth::default()
        };
        let own = |file| self.folder.path().join(file);
        let files = TlsFiles::single(own("server.pem"), own("server.key"), Some(auth));
        let message =
            |problems: Vec<TlsProblem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        files.load(&PemStore::new(&DiskFiles), &self.clock).map_err(message)
    }

    fn load(&self, authorities: &[&TestSigner], lists: &[String]) -> ServerTls {
        let authorities: Vec<String> = authorities.iter().map(|authority| authority.pem.clone()).collect();
        self.try_load(&authorities, lists).expect("usable files")
    }

    /// The verdict on a caller, in the words of rustls.
    fn verdict(&self, tls: &ServerTls, chain: &[CertificateDer<'static>]) -> String {
        let judged = tls.trust_sets()[0].verify_chain(chain, self.clock.wall());
        judged.map_or_else(|fault| format!("{fault:?}: {}", describe_tls_error(&fault)), |()| "good".to_owned())
    }
}

#[test]
fn certificate_on_any_crl_of_its_issuer_is_refused() {
    let (bench, root) = (ListenerBench::new(), root());
    let (kept, revoked) = (root.caller(10, |_| ()), root.caller(11, |_| ()));
    let (empty, full) = (root.list(&[], 2, WHOLE), root.list(&[7, 11, 9], 1, WHOLE));
    for lists in [
        vec![empty.clone(), full.clone()],
        vec![full.clone(), empty.clone()],
        vec![empty.clone() + &full],
        vec![full.clone() + &empty],
        vec![empty.clone(), empty.clone(), full.clone()],
    ] {
        let tls = bench.load(&[&root], &lists);
        assert_eq!(bench.verdict(&tls, &kept), "good");
        assert!(bench.verdict(&tls, &revoked).contains("Revoked"), "of {} files", lists.len());
    }
    let tls = bench.load(&[&root], &[empty, full]);
    let shown: Vec<_> = tls.trust_sets()[0]
        .trusted
        .lists
        .iter()
        .map(|list| (list.issuer.as_str(), list.number.as_deref(), list.revoked))
        .collect();
    assert_eq!(shown, [("CN=City", Some("2"), 0), ("CN=City", Some("1"), 3)]);
    assert!(
        tls.trust_sets()[0]
            .trusted
            .lists
            .iter()
            .all(|list| list.covers_authorities && list.scope == "all certificates")
    );
}

#[test]
fn new_key_under_an_old_name_has_its_own_crls() {
    let (bench, old, new) = (ListenerBench::new(), root(), root());
    let lists = [old.list(&[20], 1, WHOLE), new.list(&[21], 1, WHOLE)];
    for (authorities, lists) in [
        ([&old, &new], lists.to_vec()),
        ([&new, &old], lists.to_vec()),
        ([&old, &new], vec![lists[1].clone() + &lists[0]]),
    ] {
        let tls = bench.load(&authorities, &lists);
        for (authority, good, revoked) in [(&old, 21, 20), (&new, 20, 21)] {
            assert_eq!(bench.verdict(&tls, &authority.caller(good, |_| ())), "good");
            assert!(bench.verdict(&tls, &authority.caller(revoked, |_| ())).contains("Revoked"));
        }
    }
    let tls = bench.load(&[&old, &new], &lists[..1]);
    assert!(tls.warnings.iter().any(|warning| warning.contains("authority-1.pem: CN=City has no revocation list")));
    assert!(bench.verdict(&tls, &new.caller(1, |_| ())).contains("UnknownRevocationStatus"));
}

#[test]
fn crls_are_verified_with_each_authority_key_algorithm() {
    use rcgen::{
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA256, PKCS_ECDSA_P521_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    };
    let bench = ListenerBench::new();
    let algorithms = [
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA256,
        &PKCS_ECDSA_P521_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
    ];
    for algorithm in algorithms {
        let root = root_with(algorithm, |_| ());
        let tls = bench.load(&[&root], &[root.list(&[2], 1, WHOLE)]);
        assert_eq!(bench.verdict(&tls, &root.caller(1, |_| ())), "good", "{algorithm:?}");
        assert!(bench.verdict(&tls, &root.caller(2, |_| ())).contains("Revoked"), "{algorithm:?}");
    }
}

#[test]
fn crl_key_identifier_may_be_computed_in_another_way() {
    let bench = ListenerBench::new();
    let root = root_with(&rcgen::PKCS_ECDSA_P256_SHA256, |params| params.key_identifier_method = KeyIdMethod::Sha512);
    let tls = bench.load(&[&root], &[root.list(&[2], 1, WHOLE)]); // by SHA-256
    assert_eq!(bench.verdict(&tls, &root.caller(1, |_| ())), "good");
    assert!(bench.verdict(&tls, &root.caller(2, |_| ())).contains("Revoked"));
}

#[test]
fn unsupported_crl_signature_algorithm_is_named() {
    let (bench, root) = (ListenerBench::new(), root());
    // ecdsa-with-SHA256 becomes ecdsa-with-SHA1, 1.2.840.10045.4.1, in both places.
    let list = root.list(&[], 1, WHOLE);
    let der =
        <rustls::pki_types::CertificateRevocationListDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
            list.as_bytes(),
        );
    let mut der = der.expect("a list").to_vec();
    let (with, without) = (
        [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x09],
    );
    let places: Vec<usize> = (0..der.len() - with.len()).filter(|at| der[*at..].starts_with(&with)).collect();
    assert_eq!(places.len(), 2);
    for at in places {
        der[at + 2..at + 2 + without.len()].copy_from_slice(&without);
    }
    let message = bench.try_load(std::slice::from_ref(&root.pem), &[pem("X509 CRL", &der)]).expect_err("unsupported");
    assert!(
        message.contains("signed with an algorithm that is not supported") && message.contains("P-521"),
        "{message}"
    );
}

/// The bytes in PEM form, with the base64 alphabet written out.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() { ALPHABET[index] as char } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn only_a_crl_whose_scope_covers_a_certificate_applies_to_it() {
    let (bench, root) = (ListenerBench::new(), root());
    let (a, b) = ("http://x/a.crl", "http://x/b.crl");
    let (pointless, to_a, to_b) =
        (root.caller(30, |_| ()), root.caller(30, points_to(a)), root.caller(30, points_to(b)));
    let none = |shape| root.list(&[], 1, shape);
    let named = |shape| root.list(&[30], 2, shape);
    let good = "good";
    let (revoked, unknown) = ("Revoked", "UnknownRevocationStatus");
    for (lists, of_pointless, of_a, of_b) in [
        (vec![none(partition(b, None))], unknown, unknown, good),
        (vec![none(partition(b, None)), named(WHOLE)], revoked, revoked, revoked),
        (vec![named(partition(a, None)), none(partition(b, None))], unknown, revoked, good),
        (vec![named(partition(a, None)), none(WHOLE)], good, revoked, good),
        (vec![none(partition(a, Some(CrlScope::UserCertsOnly)))], unknown, good, unknown),
        (vec![none(partition(a, Some(CrlScope::CaCertsOnly)))], unknown, unknown, unknown),
    ] {
        let tls = bench.load(&[&root], &lists);
        for (caller, expected) in [(&pointless, of_pointless), (&to_a, of_a), (&to_b, of_b)] {
            let verdict = bench.verdict(&tls, caller);
            assert!(verdict.contains(expected), "{verdict} is not {expected}: {:?}", tls.trust_sets()[0].trusted.lists);
        }
    }
}

#[test]
fn crls_of_intermediate_authorities_are_matched_by_key() {
    let (bench, root) = (ListenerBench::new(), root());
    let (one, namesake) = (root.below("Below", 40, |_| ()), root.below("Below", 41, |_| ()));
    let of_root = root.list(&[], 1, WHOLE);
    let lists = [of_root.clone(), one.list(&[50], 1, WHOLE), namesake.list(&[51], 1, WHOLE)];
    let tls = bench.load(&[&root], &lists);
    for _again in 0..2 {
        for (signer, good, revoked) in [(&one, 51, 50), (&namesake, 50, 51)] {
            assert_eq!(bench.verdict(&tls, &signer.caller(good, |_| ())), "good");
            assert!(bench.verdict(&tls, &signer.caller(revoked, |_| ())).contains("Revoked"));
        }
    }
    let silent = root.below("Below", 42, |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    assert!(bench.verdict(&tls, &silent.caller(1, |_| ())).contains("UnknownRevocationStatus"), "it has no CRL");
    let tls = bench.load(&[&root], &[root.list(&[40], 2, WHOLE), lists[1].clone(), of_root]);
    assert!(
        bench.verdict(&tls, &one.caller(52, |_| ())).contains("Revoked"),
        "the intermediate certificate is revoked"
    );
}

#[test]
fn newer_crl_supersedes_an_expired_one_which_still_revokes() {
    let (bench, root) = (ListenerBench::new(), root());
    let short = root.list(&[60], 1, ListShape { until: SOON, point: None });
    let (long, other) = (root.list(&[], 2, WHOLE), root.caller(61, |_| ()));
    let tls = bench.load(&[&root], std::slice::from_ref(&short));
    let both = bench.load(&[&root], &[short.clone(), long.clone()]);
    let ends: Timestamp = "2026-07-01T00:00:00Z".parse().expect("a time");
    assert_eq!((tls.no_current_crl_since(now()), tls.no_current_crl_since(ends)), (None, Some(ends)));
    bench.clock.advance(std::time::Duration::from_secs(30 * 86_400));
    assert!(bench.verdict(&tls, &other).contains("ExpiredRevocationList"));
    assert!(bench.verdict(&tls, &root.caller(60, |_| ())).contains("Revoked"), "an expired CRL still revokes");
    assert_eq!(bench.verdict(&both, &other), "good", "one CRL is current");
    assert!(bench.verdict(&both, &root.caller(60, |_| ())).contains("Revoked"));
    assert_eq!(both.no_current_crl_since(ends), None);
    let message = bench.try_load(std::slice::from_ref(&root.pem), std::slice::from_ref(&short)).expect_err("expired");
    assert!(message.contains("list-0.pem: the revocation list of CN=City expired at 2026-07-01"), "{message}");
    let again = bench.load(&[&root], &[short, long]);
    assert!(again.warnings[0].contains("list-0.pem") && again.warnings[0].contains("a newer one is in"));
}

#[test]
fn expiry_within_two_weeks_is_a_warning_at_load() {
    let (bench, root) = (ListenerBench::new(), root());
    bench.clock.advance(std::time::Duration::from_secs(86_400));
    let lists = [root.list(&[], 1, ListShape { until: SOON, point: None })];
    assert_eq!(bench.load(&[&root], &lists).warnings, Vec::<String>::new(), "14 days and a half");
    bench.clock.advance(std::time::Duration::from_secs(43_200));
    let warnings = bench.load(&[&root], &lists).warnings;
    assert!(
        warnings[0].starts_with("the revocation list of CN=City expires in 14 days, at 2026-07-01"),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 1);
}

#[test]
fn key_usage_is_enforced() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};
    let (bench, root) = (ListenerBench::new(), root());
    let tls = bench.load(&[&root], &[]);
    for (usages, expected) in [
        (vec![], "good"),
        (vec![DigitalSignature], "good"),
        (vec![DigitalSignature, KeyEncipherment], "good"),
        (vec![KeyEncipherment], "lacks digitalSignature"),
        (vec![KeyAgreement, CrlSign], "lacks digitalSignature"),
    ] {
        let verdict = bench.verdict(&tls, &root.caller(1, |params| params.key_usages.clone_from(&usages)));
        assert!(verdict.contains(expected), "{usages:?}: {verdict}");
    }
    for (usages, expected) in [
        (vec![KeyCertSign], "good"),
        (vec![], "good"),
        (vec![CrlSign, DigitalSignature], "CN=Below may not sign certificates (keyUsage lacks keyCertSign)"),
    ] {
        let below = root.below("Below", 2, |params| params.key_usages.clone_from(&usages));
        let verdict = bench.verdict(&tls, &below.caller(1, |_| ()));
        assert!(verdict.contains(expected), "{usages:?}: {verdict}");
    }
}

#[test]
fn path_length_constraint_of_an_authority_is_enforced() {
    let bench = ListenerBench::new();
    for (allowed, expected) in
        [(0, ["good", "CN=City allows 0", "CN=City allows 0"]), (1, ["good", "good", "allows 1"])]
    {
        let root = root_with(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(allowed));
        });
        let tls = bench.load(&[&root], &[]);
        let below = root.below("Below", 2, |_| ());
        let further = below.below("Further", 3, |_| ());
        for (signer, expected) in [&root, &below, &further].into_iter().zip(expected) {
            let verdict = bench.verdict(&tls, &signer.caller(1, |_| ()));
            assert!(verdict.contains(expected), "{verdict} is not {expected}");
        }
    }
}

/// A nameConstraints extension with one subtree of URIs; `tag` makes it permitted or excluded.
fn uri_constraint(tag: u8, base: &str) -> impl FnOnce(&mut CertificateParams) {
    let subtree = encode_element(SEQUENCE, &encode_element(primitive_tag(6), base.as_bytes()));
    let mut extension =
        CustomExtension::from_oid_content(&[2, 5, 29, 30], encode_element(SEQUENCE, &encode_element(tag, &subtree)));
    extension.set_criticality(true);
    move |params| params.custom_extensions.push(extension)
}

#[test]
fn uri_name_constraints_of_an_authority_are_enforced() {
    let bench = ListenerBench::new();
    let (permitted, excluded) = (constructed_tag(0), constructed_tag(1));
    for (tag, base, expected) in [
        (permitted, "city.example", "good"),
        (permitted, "other.example", "is not permitted by the name constraints"),
        (excluded, "city.example", "is excluded by the name constraints"),
        (excluded, "other.example", "good"),
    ] {
        let root = root_with(&rcgen::PKCS_ECDSA_P256_SHA256, uri_constraint(tag, base));
        let tls = bench.load(&[&root], &[]);
        for signer in [&root, &root.below("Below", 2, |_| ())] {
            let verdict = bench.verdict(&tls, &signer.caller(1, |_| ()));
            assert!(verdict.contains(expected), "{base}: {verdict} is not {expected}");
        }
    }
    let root = root();
    let below = root.below("Below", 2, uri_constraint(permitted, "city.example"));
    let verdict = bench.verdict(&bench.load(&[&root], &[]), &below.caller(1, |_| ()));
    assert!(verdict.contains("add that authority to clientAuth.authorities"), "{verdict}");
    let tls = bench.load(&[&root, &below], &[]);
    assert_eq!(bench.verdict(&tls, &below.caller(1, |_| ())), "good", "its own issuer is judged");
}

#[test]
fn unsupported_constraints_and_near_expiry_towards_subsystems_are_warnings() {
    let bench = ListenerBench::new();
    let load = |authority: &TestSigner, now| {
        let own = ["server.pem", "server.key"].map(|file| bench.folder.path().join(file));
        let files = SubsystemTlsFiles {
            authorities: bench.write("subsystem", std::slice::from_ref(&authority.pem)),
            client_certificate: Some(own.into()),
            system_authorities: false,
            subject_alt_names: Vec::new(),
            server_name: None,
            protocol: Some("http/1.1"),
        };
        files.load(&PemStore::new(&DiskFiles), &Clock::manual(now)).expect("usable files").warnings
    };
    assert_eq!(load(&root(), now()), Vec::<String>::new());
    let soon = now() + SignedDuration::from_hours(24 * 360);
    let warnings = load(&root(), soon);
    assert!(
        warnings[0].starts_with("the gateway's own certificate CN=localhost expires in 5 days, at "),
        "{warnings:?}"
    );
    let constrained = root_with(&rcgen::PKCS_ECDSA_P256_SHA256, uri_constraint(constructed_tag(0), "city.example"));
    let warnings = load(&constrained, now());
    assert!(warnings[0].contains("not supported for subsystems (URI)"), "{warnings:?}");
    assert_eq!(warnings.len(), 1);
}

#[test]
fn all_authorities_of_a_bundle_are_loaded() {
    let (bench, one, two) = (ListenerBench::new(), root(), root());
    let (a, b) = (&one.pem, &two.pem);
    for bundle in [
        format!("{a}{b}"),
        format!("{}{b}", a.trim_end()),
        format!("\u{feff}{a}{b}"),
        format!("{a}{b}").replace('\n', "\r\n"),
        format!("{a}{}", b.replace(" CERTIFICATE", " TRUSTED CERTIFICATE")),
    ] {
        let tls = bench.try_load(std::slice::from_ref(&bundle), &[]).expect("both");
        assert_eq!(tls.trust_sets()[0].trusted.authorities.len(), 2, "{bundle}");
        for signer in [&one, &two] {
            assert_eq!(bench.verdict(&tls, &signer.caller(1, |_| ())), "good");
        }
    }
    let unknown = format!("{a}{}", b.replace(" CERTIFICATE", " PKCS7"));
    let message = bench.try_load(&[unknown], &[]).expect_err("an unknown section");
    let line = a.lines().count() + 1;
    assert!(
        message.contains(&format!("authority-0.pem: is not well-formed PEM: line {line}: contains an unknown section")),
        "{message}"
    );
    let with_list = format!("{a}{}", one.list(&[], 1, WHOLE));
    let tls = bench.try_load(&[with_list], &[]).expect("an authority");
    assert!(tls.warnings[0].contains("a revocation list is ignored in this file"), "{:?}", tls.warnings);
}

#[test]
fn verification_outside_of_a_handshake_records_no_refused_certificate() {
    let (bench, root) = (ListenerBench::new(), root());
    let tls = bench.load(&[&root], &[]);
    let verdict = bench.verdict(&tls, &root.caller(1, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]));
    assert!(
        verdict.ends_with(": the certificate of CN=police may not sign handshakes (keyUsage lacks digitalSignature)")
    );
    assert_eq!(tls.take_refused_certificate(), None, "verified outside of a handshake");
}

#[test]
fn listener_without_crls_has_no_crl_expiry() {
    let (bench, root) = (ListenerBench::new(), root());
    let tls = bench.load(&[&root], &[]);
    assert_eq!(tls.no_current_crl_since(now() + SignedDuration::from_hours(24 * 365 * 50)), None, "no CRLs, no expiry");
}
