//! The certificate matrix: every kind of certificate, over both versions of TLS and of HTTP, with every combination of
//! SNI and `Host`. Each cell has one right result, and only the commands of the accepted cells reach the subsystem.

mod rsa;

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, SupportedProtocolVersion};
use serde_json::json;
use tallygate::clock::Clock;

use crate::world::{AcceptAnyCert, Client, GATEWAY, Plan, READ, World, empty, replace, request_to, spiffe};

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellVerdict {
    /// No connection, or a connection without a response.
    Turned,
    Unauthenticated,
    Misdirected,
    Served,
}

/// The certificates that a caller presents.
struct CertificateKind {
    name: &'static str,
    shown: Option<Arc<CertifiedKey>>,
    verdict: CellVerdict,
}

/// An authority of the matrix with its chain.
struct CellSigner {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, then those above, without the root.
    chain: Vec<CertificateDer<'static>>,
    serial: u64,
}

/// The parts of a certificate that a case can change.
struct Draft {
    params: CertificateParams,
    key: KeyPair,
}

fn draft(serial: u64) -> Draft {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "a caller");
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    Draft { params, key: KeyPair::generate().unwrap() }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// Returns the leaf of the permitted department, before a case changes it.
fn police(serial: u64) -> Draft {
    with(draft(serial), |params| params.subject_alt_names = vec![uri(&spiffe("traffic-police"))])
}

fn named(serial: u64, names: Vec<SanType>) -> Draft {
    with(draft(serial), |params| params.subject_alt_names = names)
}

fn subject(serial: u64, common_name: &str, unit: Option<&str>) -> Draft {
    with(draft(serial), |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(unit) = unit {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }
    })
}

fn with(mut draft: Draft, change: impl FnOnce(&mut CertificateParams)) -> Draft {
    change(&mut draft.params);
    draft
}

fn keyed(mut draft: Draft, key: KeyPair) -> Draft {
    draft.key = key;
    draft
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Arc::new(CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap()))
}

/// Returns a certificate signed by an authority, with the chain to the authority.
fn signed(draft: &Draft, issuer: &Issuer<'static, KeyPair>, above: &[CertificateDer<'static>]) -> Arc<CertifiedKey> {
    let leaf = draft.params.signed_by(&draft.key, issuer).unwrap().der().clone();
    certified([vec![leaf], above.to_vec()].concat(), &draft.key)
}

fn authority(name: &str, serial: u64, constraint: BasicConstraints) -> Draft {
    with(draft(serial), |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraint);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![];
    })
}

impl CellSigner {
    fn below(draft: Draft, issuer: &Issuer<'static, KeyPair>, above: &[CertificateDer<'static>]) -> Self {
        let own = draft.params.signed_by(&draft.key, issuer).unwrap().der().clone();
        let Some(serial) = draft.params.serial_number.clone() else { unreachable!("every draft has one") };
        let serial = serial.to_bytes().iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let chain = [vec![own], above.to_vec()].concat();
        Self { issuer: Issuer::new(draft.params, draft.key), chain, serial }
    }

    fn shows(&self, draft: &Draft) -> Arc<CertifiedKey> {
        signed(draft, &self.issuer, &self.chain)
    }

    fn list(&self, revoked: &[u64], until: (i32, u8)) -> String {
        list(&self.issuer, revoked, until)
    }
}

fn list(issuer: &Issuer<'static, KeyPair>, revoked: &[u64], (year, month): (i32, u8)) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(year, month, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

/// Returns a foreign root, which may have the name of the city's root.
fn foreign_root(name: &str) -> Issuer<'static, KeyPair> {
    let draft = authority(name, 1, BasicConstraints::Unconstrained);
    Issuer::new(draft.params, draft.key)
}

const LONG_AGO: (i32, i32) = (2020, 2021);
const FAR_AHEAD: (i32, i32) = (2080, 2090);

fn valid(draft: Draft, (from, until): (i32, i32)) -> Draft {
    with(draft, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    })
}

fn used_for(draft: Draft, purposes: Vec<ExtendedKeyUsagePurpose>) -> Draft {
    with(draft, |params| params.extended_key_usages = purposes)
}

fn usable_for(draft: Draft, usages: Vec<KeyUsagePurpose>) -> Draft {
    with(draft, |params| params.key_usages = usages)
}

/// Returns all kinds of certificates, and the CRLs of their authorities as one PEM file.
fn kinds(root: &Issuer<'static, KeyPair>, folder: &Path) -> (Vec<CertificateKind>, String) {
    let mut kinds = Vec::new();
    below_the_root(root, &mut kinds);
    let long_enough = rsa::signed(&police(17), 2048, root, folder);
    push(&mut kinds, "RSA with 2048 bits", CellVerdict::Served, long_enough);
    push(&mut kinds, "RSA with 1024 bits", CellVerdict::Turned, rsa::signed(&police(18), 1024, root, folder));
    names(root, &mut kinds);
    let lists = below_intermediates(root, &mut kinds);
    (kinds, lists)
}

fn push(kinds: &mut Vec<CertificateKind>, name: &'static str, verdict: CellVerdict, shown: Arc<CertifiedKey>) {
    kinds.push(CertificateKind { name, shown: Some(shown), verdict });
}

const REVOKED: u64 = 7;
const REVOKED_LATER: u64 = 8_000;

fn below_the_root(root: &Issuer<'static, KeyPair>, kinds: &mut Vec<CertificateKind>) {
    use CellVerdict::{Served, Turned};
    kinds.push(CertificateKind { name: "none", shown: None, verdict: Turned });
    let other = foreign_root("another city");
    let namesake = foreign_root("ca of the tests");
    push(kinds, "of a foreign authority", Turned, signed(&police(1), &other, &[]));
    push(kinds, "of an authority with our authority's name", Turned, signed(&police(1), &namesake, &[]));
    for (name, verdict, draft) in [
        ("good", Served, police(2)),
        ("P-384", Served, keyed(police(3), KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap())),
        ("Ed25519", Served, keyed(police(4), KeyPair::generate_for(&PKCS_ED25519).unwrap())),
        ("expired", Turned, valid(police(5), LONG_AGO)),
        ("not yet valid", Turned, valid(police(6), FAR_AHEAD)),
        ("revoked", Turned, police(REVOKED)),
        ("revoked on the second list of its authority", Turned, police(REVOKED_LATER)),
        ("for encryption only", Turned, usable_for(police(50), vec![KeyUsagePurpose::KeyEncipherment])),
        ("without a key usage", Served, usable_for(police(51), vec![])),
        ("for servers", Turned, used_for(police(8), vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("for signing code", Turned, used_for(police(9), vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ("for any purpose, but not for clients", Turned, used_for(police(10), vec![ExtendedKeyUsagePurpose::Any])),
        ("without a purpose", Served, used_for(police(11), vec![])),
        (
            "for clients and servers",
            Served,
            used_for(police(12), vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        (
            "an authority itself",
            Turned,
            with(police(13), |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
        ),
    ] {
        push(kinds, name, verdict, signed(&draft, root, &[]));
    }
    let own = police(14);
    let leaf = own.params.self_signed(&own.key).unwrap().der().clone();
    push(kinds, "self-signed", Turned, certified(vec![leaf], &own.key));
    let stolen = police(15);
    let leaf = stolen.params.signed_by(&stolen.key, root).unwrap().der().clone();
    push(
        kinds,
        "somebody else's, without its key",
        Turned,
        certified(vec![leaf.clone()], &KeyPair::generate().unwrap()),
    );
    let leaf_as_issuer = Issuer::new(stolen.params.clone(), KeyPair::from_pem(&stolen.key.serialize_pem()).unwrap());
    push(kinds, "signed by a leaf", Turned, signed(&police(16), &leaf_as_issuer, &[leaf]));
}

fn names(root: &Issuer<'static, KeyPair>, kinds: &mut Vec<CertificateKind>) {
    use CellVerdict::{Served, Turned, Unauthenticated};
    let police = || uri(&spiffe("traffic-police"));
    let crowd = |count: usize| (1..count).map(|n| dns(&format!("h{n}.example"))).chain([police()]).collect::<Vec<_>>();
    for (name, verdict, draft) in [
        ("NUL in a URI", Turned, named(20, vec![uri(&format!("{}\0.evil", spiffe("traffic-police")))])),
        ("NUL in another name", Turned, named(21, vec![police(), dns("a\0b")])),
        ("blank in a URI", Turned, named(22, vec![uri("spiffe://city.example/a b")])),
        ("wildcard", Turned, named(23, vec![dns("*.city.example")])),
        ("wildcard beside a good name", Turned, named(24, vec![police(), dns("*.city.example")])),
        ("empty URI", Turned, named(25, vec![uri("")])),
        ("empty DNS name", Turned, named(26, vec![dns(""), police()])),
        ("the same name twice", Served, named(27, vec![police(), police()])),
        ("a good name and an unknown one", Served, named(28, vec![dns("x.example"), police()])),
        ("names of two departments", Unauthenticated, named(29, vec![police(), uri(&spiffe("logistics"))])),
        (
            "URI and DNS name of two departments",
            Unauthenticated,
            named(30, vec![uri(&spiffe("logistics")), dns("station-7.city.example")]),
        ),
        ("500 names", Turned, named(31, crowd(500))),
        ("17 names", Turned, named(32, crowd(17))),
        ("16 names", Served, named(33, crowd(16))),
        ("another case", Unauthenticated, named(34, vec![uri(&spiffe("Traffic-Police"))])),
        ("a longer name", Unauthenticated, named(35, vec![uri(&spiffe("traffic-police/x"))])),
        ("a name with a slash behind", Unauthenticated, named(36, vec![uri(&spiffe("traffic-police/"))])),
        ("an unknown name", Unauthenticated, named(37, vec![uri(&spiffe("nobody"))])),
        ("the URI as a DNS name", Unauthenticated, named(38, vec![dns("traffic-police")])),
        ("DNS name in another case", Served, named(39, vec![dns("Station-7.CITY.example")])),
        ("a disabled department's", Unauthenticated, named(40, vec![uri(&spiffe("archive"))])),
        ("the department's id as subject", Unauthenticated, subject(41, "traffic-police", None)),
        ("a claimed subject", Served, subject(42, "kiosk", Some("traffic"))),
        ("a claimed subject of another unit", Unauthenticated, subject(43, "kiosk", Some("parks"))),
        ("a claimed subject without its unit", Unauthenticated, subject(44, "kiosk", None)),
        ("control characters in the subject", Turned, subject(45, "kiosk\u{7}", Some("traffic"))),
        (
            "nothing that names anybody",
            Turned,
            with(draft(46), |params| {
                params.distinguished_name = DistinguishedName::new();
            }),
        ),
    ] {
        push(kinds, name, verdict, signed(&draft, root, &[]));
    }
}

/// Adds chains with intermediates, and returns the CRL of every authority that has one.
fn below_intermediates(root: &Issuer<'static, KeyPair>, kinds: &mut Vec<CertificateKind>) -> String {
    use CellVerdict::{Served, Turned};
    let below_root =
        |name: &str, serial| CellSigner::below(authority(name, serial, BasicConstraints::Unconstrained), root, &[]);
    let (good, revoked) = (below_root("good", 101), below_root("revoked", 102));
    let (unlisted, stale) = (below_root("unlisted", 103), below_root("stale", 104));
    let last = CellSigner::below(authority("last", 105, BasicConstraints::Constrained(0)), root, &[]);
    let beyond = authority("beyond", 106, BasicConstraints::Unconstrained);
    let beyond = CellSigner::below(beyond, &last.issuer, &last.chain);
    let ended = valid(authority("ended", 107, BasicConstraints::Unconstrained), LONG_AGO);
    let ended = CellSigner::below(ended, root, &[]);
    push(kinds, "below an intermediate", Served, good.shows(&police(201)));
    push(kinds, "below an intermediate that is not shown", Turned, signed(&police(202), &good.issuer, &[]));
    push(kinds, "revoked by an intermediate", Turned, good.shows(&police(203)));
    push(kinds, "below a revoked intermediate", Turned, revoked.shows(&police(204)));
    push(kinds, "of an authority without a list", Turned, unlisted.shows(&police(205)));
    push(kinds, "of an authority whose list has expired", Turned, stale.shows(&police(206)));
    push(kinds, "below the last authority that may be", Served, last.shows(&police(207)));
    push(kinds, "below one authority too many", Turned, beyond.shows(&police(208)));
    push(kinds, "below an expired intermediate", Turned, ended.shows(&police(209)));
    let signs_lists = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let lists_only = usable_for(authority("lists only", 108, BasicConstraints::Unconstrained), signs_lists);
    let lists_only = CellSigner::below(lists_only, root, &[]);
    push(kinds, "below an intermediate that may sign lists only", Turned, lists_only.shows(&police(213)));
    let second = list(root, &[REVOKED_LATER], (2090, 1));
    let mut lists = vec![list(root, &[REVOKED, revoked.serial], (2090, 1)), second, good.list(&[203], (2090, 1))];
    lists.push(stale.list(&[], (2060, 7)));
    lists.extend([&revoked, &last, &beyond, &ended, &lists_only].map(|signer| signer.list(&[], (2090, 1))));
    let mut deepest = below_root("deep 1", 301);
    lists.push(deepest.list(&[], (2090, 1)));
    for depth in 2..=100 {
        let next = authority(&format!("deep {depth}"), 300 + depth, BasicConstraints::Unconstrained);
        deepest = CellSigner::below(next, &deepest.issuer, &deepest.chain);
        lists.push(deepest.list(&[], (2090, 1)));
        match depth {
            6 => push(kinds, "six intermediates deep", Served, deepest.shows(&police(210))),
            7 => push(kinds, "seven intermediates deep", Turned, deepest.shows(&police(211))),
            100 => push(kinds, "a hundred intermediates deep", Turned, deepest.shows(&police(212))),
            _ => {}
        }
    }
    lists.concat()
}

/// One combination of host names: the SNI of the handshake, the authority of the command, and the result for a
/// permitted caller.
#[derive(Clone, Copy)]
struct Naming {
    server_name: Option<&'static str>,
    authority: &'static str,
    crumbs: bool,
    verdict: CellVerdict,
}

const NAMINGS: [Naming; 10] = {
    use CellVerdict::{Misdirected, Served, Turned};
    const fn naming(server_name: Option<&'static str>, authority: &'static str, verdict: CellVerdict) -> Naming {
        Naming { server_name, authority, crumbs: false, verdict }
    }
    [
        naming(Some(GATEWAY), GATEWAY, Served),
        naming(Some("GATEWAY.City.Example"), "Gateway.CITY.example:8443", Served),
        naming(Some("gateway.city.example."), "gateway.city.example.", Served),
        Naming { server_name: Some(GATEWAY), authority: GATEWAY, crumbs: true, verdict: Served },
        naming(None, GATEWAY, Served),
        naming(Some("127.0.0.1"), "127.0.0.1:8443", Served), // an address is never sent as SNI
        naming(Some("localhost"), GATEWAY, Misdirected),
        naming(Some(GATEWAY), "elsewhere.example", Misdirected),
        naming(Some("elsewhere.example"), GATEWAY, Turned),
        naming(Some("x.gateway.city.example"), "x.gateway.city.example", Turned),
    ]
};

/// One cell of the matrix.
struct Cell<'a> {
    kind: &'a CertificateKind,
    version: &'static SupportedProtocolVersion,
    http2: bool,
    naming: Naming,
}

impl Cell<'_> {
    fn expected(&self) -> CellVerdict {
        match (self.kind.verdict, self.naming.verdict) {
            (CellVerdict::Turned, _) | (_, CellVerdict::Turned) => CellVerdict::Turned,
            (_, CellVerdict::Misdirected) => CellVerdict::Misdirected,
            (kind, _) => kind,
        }
    }

    fn described(&self) -> String {
        let Naming { server_name, authority, crumbs, .. } = self.naming;
        format!(
            "{}, {:?}, http2 {}, server name {server_name:?}, authority {authority}, crumbs {crumbs}",
            self.kind.name, self.version.version, self.http2
        )
    }

    fn client(&self, world: &World) -> Client {
        let department = if self.kind.verdict == CellVerdict::Served { "traffic-police" } else { "unknown" };
        let config = client_config(self.kind.shown.clone(), self.version);
        let client = Client::with_config(department, config, world.gateway_address(), &world.log);
        let client = if self.http2 { client.h2() } else { client };
        let client = if self.naming.crumbs { client.in_crumbs() } else { client };
        client.naming(self.naming.server_name)
    }

    /// Returns the actual result of the cell.
    async fn verdict(&self, world: &World) -> Result<CellVerdict, String> {
        let outgoing = request_to(self.naming.authority, "GET", READ, empty());
        let Ok(reply) = self.client(world).try_send(outgoing).await else { return Ok(CellVerdict::Turned) };
        match (reply.status.as_u16(), reply.problem().as_deref()) {
            (200, None) => Ok(CellVerdict::Served),
            (401, Some("unauthenticated")) => Ok(CellVerdict::Unauthenticated),
            (421, Some("misdirected")) => Ok(CellVerdict::Misdirected),
            other => Err(format!("{other:?}")),
        }
    }
}

fn client_config(shown: Option<Arc<CertifiedKey>>, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(AcceptAnyCert));
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn city() -> Plan {
    World::city().clock(Clock::manual("2060-06-15T00:00:00Z".parse().unwrap())).edit(|document| {
        document["listeners"][0]["tls"]["clientAuth"]["revocation"] = json!(["pki/lists.pem"]);
        document["departments"][0]["callers"] = json!([
            { "uri": spiffe("traffic-police") },
            { "dns": "station-7.city.example" },
            { "subject": { "commonName": "kiosk", "organizationalUnit": "traffic" } },
        ]);
        document["departments"][2]["disabled"] = json!(true);
    })
}

#[tokio::test]
async fn every_cell_of_the_matrix_has_its_expected_verdict() {
    let mut world = city().build();
    let (kinds, lists) = kinds(world.pki.issuer(), world.folder());
    replace(&world.folder().join("pki/lists.pem"), &lists);
    world.start_here().await;
    world.clock.advance(std::time::Duration::from_secs(30 * 86_400)); // one of the CRLs has expired now
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let mut cells = Vec::new();
    for kind in &kinds {
        for version in versions {
            for http2 in [false, true] {
                cells.extend(NAMINGS.map(|naming| Cell { kind, version, http2, naming }));
            }
        }
    }
    assert_eq!(cells.len(), 2_520, "docs/identity.md states the number");
    let cell_world = &world;
    let wrong = futures_util::stream::iter(&cells).map(async |cell: &Cell<'_>| {
        let verdict = cell.verdict(cell_world).await;
        (verdict != Ok(cell.expected()))
            .then(|| format!("{}: {verdict:?}, not {:?}", cell.described(), cell.expected()))
    });
    let wrong: Vec<String> = wrong.buffer_unordered(8).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    let served = cells.iter().filter(|cell| cell.expected() == CellVerdict::Served).count();
    let received = world.server("cameras").log.all();
    assert_eq!(received.len(), served, "only requests of accepted cells reach the subsystem");
    assert!(received.iter().all(|got| got.department() == "traffic-police"));
    world.close().await;
}
