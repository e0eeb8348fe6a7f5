//! Real TLS handshakes (mTLS) in memory: accepted and refused callers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SideData, SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::cli::trial_authority::{CertificateAuthority, ClientRequest, IssuedFiles, ValidityPeriod};
use crate::clock::Clock;
use crate::identity::ClientAuthMode::{AllowInsecureFallback, Optional, Required};
use crate::identity::tls_config::trust_set::ClockTimeProvider;
use crate::identity::*;
use crate::model::{CallerId, Name};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    "2026-06-15T12:00:00Z".parse().expect("a time")
}

/// An authority with a server certificate, a foreign one, and a clock.
struct TlsBench {
    directory: TempDir,
    authority: CertificateAuthority,
    clock: Clock,
}

impl TlsBench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority =
            CertificateAuthority::create(&directory.path().join("pki"), "City", ValidityPeriod::days(now(), 3650))
                .expect("an authority");
        authority
            .issue_server(&["localhost".to_owned()], ValidityPeriod::days(now(), 365))
            .expect("a server certificate");
        Self { directory, authority, clock: Clock::manual(now()) }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("pki").join(file)
    }

    fn client(&self, name: &str, validity: ValidityPeriod) -> IssuedFiles {
        issue(&self.authority, name, validity)
    }

    fn good(&self, name: &str) -> IssuedFiles {
        self.client(name, ValidityPeriod::days(now(), 90))
    }

    fn files(&self, mode: ClientAuthMode) -> TlsFiles {
        self.files_with(Some(ClientAuth { mode, ..self.auth() }))
    }

    fn files_with(&self, auth: Option<ClientAuth>) -> TlsFiles {
        TlsFiles::single(self.path("server.pem"), self.path("server.key"), auth)
    }

    fn auth(&self) -> ClientAuth {
        ClientAuth {
            mode: Required,
            authorities: vec![self.path("ca.pem")],
            revocation_lists: vec![self.path("revoked.crl")],
            expired_crl: ExpiredCrlPolicy::Refuse,
            ..ClientAuth::default()
        }
    }

    fn load(&self, files: &TlsFiles) -> ServerTls {
        files.load(&PemStore::new(&DiskFiles), &self.clock).expect("good files")
    }

    /// A client configuration that presents `identity`. It can be kept for several connections.
    fn client_config(
        &self,
        identity: Option<&IssuedFiles>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        self.client_config_with(self.roots(), identity, version)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).expect("a certificate")).expect("an anchor");
        roots
    }

    fn client_config_with(
        &self,
        roots: RootCertStore,
        identity: Option<&IssuedFiles>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(ClockTimeProvider(self.clock.clone())))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = CertificateDer::pem_file_iter(&issued.certificate).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&issued.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A client of TLS 1.2 with these algorithms.
    fn client_config_of(&self, provider: rustls::crypto::CryptoProvider, identity: &IssuedFiles) -> Arc<ClientConfig> {
        let time = Arc::new(ClockTimeProvider(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(Arc::new(provider), time);
        let builder =
            builder.with_protocol_versions(&[&TLS12]).expect("a version").with_root_certificates(self.roots());
        let chain = CertificateDer::pem_file_iter(&identity.certificate).expect("a file").map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
        Arc::new(builder.with_client_auth_cert(chain, key).expect("a pair"))
    }

    fn connect(
        &self,
        tls: &ServerTls,
        identity: Option<&IssuedFiles>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Option<Caller>, rustls::Error> {
        let (_, server) = connect(&self.client_config(identity, version), tls)?;
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        match tls.identify_peer(&server, self.clock.wall()).expect("a certificate that the gateway accepts") {
            HandshakePeer::Anonymous => Ok(None),
            HandshakePeer::Verified(caller) => Ok(Some(caller)),
            HandshakePeer::Unaccepted(certificate) => panic!("{certificate:?}"),
        }
    }
}

fn issue(authority: &CertificateAuthority, name: &str, validity: ValidityPeriod) -> IssuedFiles {
    let department = Name::parse(name).expect("a name");
    let identities = vec![CallerId::Uri(format!("spiffe://city.example/department/{name}"))];
    authority.issue_client(&ClientRequest { department, identities, validity }).expect("a client certificate")
}

/// Transfers bytes between client and server until neither has more to send.
fn connect(client: &Arc<ClientConfig>, tls: &ServerTls) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    connect_to("localhost", client, tls.config_for_sni(Some("localhost")))
}

/// A handshake of a client that names a host, or that calls an address.
fn connect_to(
    host: &'static str,
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(host).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    while client.wants_write() || server.wants_write() {
        deliver(&mut *client, &mut *server)?;
        deliver(&mut *server, &mut *client)?;
    }
    Ok((client, server))
}

fn deliver<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), rustls::Error>
where
    A: SideData,
    B: SideData,
{
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory");
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory");
        to.process_new_packets()?;
    }
    Ok(())
}

/// The error of a failed handshake, in the words of rustls.
fn refusal(result: Result<Option<Caller>, rustls::Error>) -> String {
    match result {
        Ok(caller) => format!("let in: {caller:?}"),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn valid_certificate_makes_a_caller() {
    let city = TlsBench::new();
    let good = city.good("police");
    for mode in [Required, Optional] {
        let tls = city.load(&city.files(mode));
        for version in [&TLS12, &TLS13] {
            let caller = city.connect(&tls, Some(&good), version).expect("accepted").expect("a caller");
            assert_eq!(caller.header(), "spiffe://city.example/department/police");
            assert_eq!(caller.identities().len(), 2, "the URI and the subject");
            assert_eq!(caller.expires_at(), ValidityPeriod::days(now(), 90).until);
            assert_eq!(caller.fingerprint().len(), 64);
        }
    }
}

#[test]
fn client_without_an_optional_certificate_is_no_caller() {
    let city = TlsBench::new();
    for version in [&TLS12, &TLS13] {
        let optional = city.load(&city.files(Optional));
        assert!(city.connect(&optional, None, version).expect("accepted").is_none());
        let required = city.load(&city.files(Required));
        assert_eq!(refusal(city.connect(&required, None, version)), "NoCertificatesPresented");
    }
}

#[test]
fn invalid_certificates_are_refused_even_if_optional() {
    let city = TlsBench::new();
    let elsewhere = CertificateAuthority::create(&city.path("elsewhere"), "City", ValidityPeriod::days(now(), 365))
        .expect("an authority");
    let stranger = CertificateAuthority::create(&city.path("stranger"), "Stranger", ValidityPeriod::days(now(), 365))
        .expect("an authority");
    let past = ValidityPeriod { from: now() - DAY * 9, until: now() - DAY };
    let future = ValidityPeriod { from: now() + DAY, until: now() + DAY * 9 };
    let revoked = city.good("revoked");
    city.authority.revoke(&revoked.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    let server = IssuedFiles { certificate: city.path("server.pem"), key: city.path("server.key") };
    let cases = [
        (issue(&elsewhere, "foreign", ValidityPeriod::days(now(), 9)), "BadSignature"),
        (issue(&stranger, "stranger", ValidityPeriod::days(now(), 9)), "UnknownIssuer"),
        (city.client("expired", past), "Expired"),
        (city.client("early", future), "NotValidYet"),
        (revoked, "Revoked"),
        (server, "InvalidPurpose"),
    ];
    for mode in [Required, Optional] {
        let tls = city.load(&city.files(mode));
        for (identity, expected) in &cases {
            for version in [&TLS12, &TLS13] {
                let refusal = refusal(city.connect(&tls, Some(identity), version));
                assert!(refusal.contains(expected), "{}: {refusal} is not {expected}", identity.certificate.display());
                let der = CertificateDer::from_pem_file(&identity.certificate).expect("a certificate");
                assert_eq!(
                    tls.take_refused_certificate(),
                    CertificateSummary::from_der(&der),
                    "the refused certificate is recorded"
                );
                assert_eq!(tls.take_refused_certificate(), None);
            }
        }
    }
}

#[test]
fn only_the_revoked_certificate_is_refused() {
    let city = TlsBench::new();
    let (kept, revoked) = (city.good("kept"), city.good("revoked"));
    let before = city.load(&city.files(Required));
    assert!(city.connect(&before, Some(&revoked), &TLS13).is_ok());
    for _twice in 0..2 {
        city.authority.revoke(&revoked.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    }
    let after = city.load(&city.files(Required));
    assert!(refusal(city.connect(&after, Some(&revoked), &TLS13)).contains("Revoked"));
    assert!(city.connect(&after, Some(&kept), &TLS13).is_ok());
}

#[test]
fn open_connection_is_verified_again_after_a_reload() {
    let city = TlsBench::new();
    let stranger = CertificateAuthority::create(&city.path("stranger"), "Stranger", ValidityPeriod::days(now(), 365))
        .expect("an authority");
    let (kept, revoked) = (city.good("kept"), city.good("revoked"));
    let before = city.load(&city.files(Required));
    let connect_as = |identity| city.connect(&before, Some(identity), &TLS13).expect("accepted").expect("a caller");
    let (kept, revoked, file) = (connect_as(&kept), connect_as(&revoked), revoked.certificate);
    city.authority.revoke(&file, ValidityPeriod::days(now(), 365)).expect("revoked");
    let after = city.load(&city.files(Required));
    assert!(before.trust_sets()[0].still_accepts(&revoked, now()), "the earlier trust does not know the revocation");
    assert!(!after.trust_sets()[0].still_accepts(&revoked, now()));
    assert!(after.trust_sets()[0].still_accepts(&kept, now()));
    assert!(!after.trust_sets()[0].still_accepts(&kept, now() + DAY * 91), "expired");
    let auth =
        ClientAuth { authorities: vec![stranger.certificate_path()], revocation_lists: Vec::new(), ..city.auth() };
    let elsewhere = city.load(&city.files_with(Some(auth)));
    assert!(!elsewhere.trust_sets()[0].still_accepts(&kept, now()), "the authority was removed");
    let open = city.load(&city.files_with(None));
    assert!(!open.trust_sets()[0].still_accepts(&kept, now()), "no certificate is requested");
}

#[test]
fn reopened_authority_continues_its_serials() {
    let city = TlsBench::new();
    let (first, second) = (city.good("first"), city.good("second"));
    for issued in [&first, &second] {
        let again = CertificateAuthority::open_directory(&city.path("")).expect("the same authority");
        again.revoke(&issued.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    }
    let third = issue(
        &CertificateAuthority::open_directory(&city.path("")).expect("the same"),
        "third",
        ValidityPeriod::days(now(), 9),
    );
    let tls = city.load(&city.files(Required));
    assert!(refusal(city.connect(&tls, Some(&first), &TLS13)).contains("Revoked"));
    assert!(refusal(city.connect(&tls, Some(&second), &TLS13)).contains("Revoked"));
    assert!(city.connect(&tls, Some(&third), &TLS13).is_ok());
}

/// An authority below that of `city`, in a directory of its own, with one certified caller.
fn below(city: &TlsBench) -> (CertificateAuthority, IssuedFiles) {
    let directory = city.path("below");
    let below =
        CertificateAuthority::create(&directory, "Below", ValidityPeriod::days(now(), 365)).expect("an authority");
    let caller = issue(&below, "police", ValidityPeriod::days(now(), 90));
    let pem = |path: PathBuf| std::fs::read_to_string(path).expect("PEM");
    let key = |path| rcgen::KeyPair::from_pem(&pem(path)).expect("a key");
    let root = rcgen::Issuer::from_ca_cert_pem(&pem(city.path("ca.pem")), key(city.path("ca.key"))).expect("a root");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Below");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let crossed = params.signed_by(&key(directory.join("ca.key")), &root).expect("a certificate").pem();
    std::fs::write(directory.join("crossed.pem"), &crossed).expect("a file");
    std::fs::write(&caller.certificate, pem(caller.certificate.clone()) + &crossed).expect("a file");
    (below, caller)
}

#[test]
fn every_issuer_in_a_chain_needs_a_crl_and_can_be_revoked() {
    let city = TlsBench::new();
    let (below, caller) = below(&city);
    let with_lists = |lists: &[PathBuf]| {
        let auth = ClientAuth { revocation_lists: lists.to_vec(), ..city.auth() };
        let tls = city.load(&city.files_with(Some(auth)));
        refusal(city.connect(&tls, Some(&caller), &TLS13))
    };
    let (of_root, of_below) = (city.path("revoked.crl"), below.revocation_list_path());
    assert!(with_lists(&[]).contains("let in"));
    assert!(with_lists(&[of_root.clone(), of_below.clone()]).contains("let in"));
    assert!(with_lists(std::slice::from_ref(&of_root)).contains("UnknownRevocationStatus"));
    city.authority.revoke(&city.path("below/crossed.pem"), ValidityPeriod::days(now(), 30)).expect("revoked");
    assert!(with_lists(&[of_root, of_below]).contains("Revoked"), "the intermediate certificate is revoked");
}

#[test]
fn certificates_and_crls_expire_while_the_gateway_runs() {
    let city = TlsBench::new();
    city.authority.renew_revocation_list(ValidityPeriod::days(now(), 30)).expect("a list");
    let (short, long) = (city.client("short", ValidityPeriod::days(now(), 9)), city.good("long"));
    let tls = city.load(&city.files(Required));
    assert!(city.connect(&tls, Some(&short), &TLS13).is_ok());
    city.clock.advance(DAY * 10);
    assert!(refusal(city.connect(&tls, Some(&short), &TLS13)).contains("Expired"));
    assert!(city.connect(&tls, Some(&long), &TLS13).is_ok());
    city.clock.advance(DAY * 21);
    assert!(refusal(city.connect(&tls, Some(&long), &TLS13)).contains("ExpiredRevocationList"));
}

#[test]
fn sessions_are_not_resumed_where_certificates_are_requested() {
    let city = TlsBench::new();
    let good = city.good("police");
    let listeners = [city.load(&city.files(Required)), city.load(&city.files(Optional))];
    let open = city.load(&city.files_with(None));
    for version in [&TLS12, &TLS13] {
        for tls in &listeners {
            assert_eq!(second_handshake(&city.client_config(Some(&good), version), tls), HandshakeKind::Full);
        }
        let resumed = second_handshake(&city.client_config(None, version), &open);
        assert_eq!(resumed, HandshakeKind::Resumed, "the client requests resumption");
    }
}

fn second_handshake(client: &Arc<ClientConfig>, tls: &ServerTls) -> HandshakeKind {
    connect(client, tls).expect("a first connection");
    let (_, server) = connect(client, tls).expect("a second connection");
    server.handshake_kind().expect("a finished handshake")
}

#[test]
fn unfinished_handshake_makes_no_caller() {
    let city = TlsBench::new();
    let tls = city.load(&city.files(Required));
    let server = ServerConnection::new(Arc::clone(tls.config_for_sni(None))).expect("a server");
    assert!(tls.identify_peer(&server, now()).is_err());
}

#[test]
fn key_exchange_is_post_quantum_if_the_client_supports_it() {
    let city = TlsBench::new();
    let good = city.good("police");
    let tls = city.load(&city.files(Required));
    let (_, server) = connect(&city.client_config(Some(&good), &TLS13), &tls).expect("accepted");
    let group = server.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

/// A second authority with a certificate for `other.example` and `*.other.example`, in the folder `other`.
fn other_city(city: &TlsBench) -> CertificateAuthority {
    let other = CertificateAuthority::create(&city.path("other"), "Other", ValidityPeriod::days(now(), 3650));
    let other = other.expect("an authority");
    let hosts = ["other.example".to_owned(), "*.other.example".to_owned()];
    other.issue_server(&hosts, ValidityPeriod::days(now(), 365)).expect("a server certificate");
    other
}

fn entry(folder: &std::path::Path, auth: Option<ClientAuth>) -> CertificateFiles {
    let client_auth = auth.map(Arc::new);
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    CertificateFiles { certificate, key, server_names: None, client_auth, has_default_auth: false }
}

fn list(certificates: Vec<CertificateFiles>) -> TlsFiles {
    TlsFiles { certificates, is_list: true, missing_sni: MissingSni::Allow }
}

/// The listener of both cities: each certificate has the authority and the revocation list of its own city.
fn two_cities(city: &TlsBench) -> TlsFiles {
    let other = city.path("other");
    let auth = ClientAuth {
        mode: Required,
        authorities: vec![other.join("ca.pem")],
        revocation_lists: vec![other.join("revoked.crl")],
        expired_crl: ExpiredCrlPolicy::Refuse,
        ..ClientAuth::default()
    };
    list(vec![entry(&city.path(""), Some(city.auth())), entry(&other, Some(auth))])
}

#[test]
fn server_name_chooses_the_certificate_and_the_authorities_of_callers() {
    let city = TlsBench::new();
    let other = other_city(&city);
    let files = two_cities(&city);
    let (own, foreign) = (city.good("police"), issue(&other, "police", ValidityPeriod::days(now(), 90)));
    let tls = city.load(&files);
    let mut roots = RootCertStore::empty();
    for folder in ["", "other"] {
        let root = CertificateDer::from_pem_file(city.path(folder).join("ca.pem")).expect("a certificate");
        roots.add(root).expect("an anchor");
    }
    for version in [&TLS12, &TLS13] {
        for (host, caller, expected) in [
            ("localhost", &own, Ok(())),
            ("localhost", &foreign, Err("UnknownIssuer")),
            ("other.example", &foreign, Ok(())),
            ("A.other.example", &foreign, Ok(())),
            ("a.other.example", &own, Err("UnknownIssuer")),
            ("elsewhere.example", &own, Err("no server certificate chain resolved")),
        ] {
            let client = city.client_config_with(roots.clone(), Some(caller), version);
            let result = connect_to(host, &client, tls.config_for_sni(Some(host)));
            match expected {
                Ok(()) => {
                    let (_, server) = result.unwrap_or_else(|error| panic!("{host}: {error}"));
                    let peer = tls.identify_peer(&server, now()).expect("a caller");
                    assert!(matches!(peer, HandshakePeer::Verified(_)), "{host}");
                }
                Err(text) => {
                    let error = format!("{:?}", result.expect_err("a refusal"));
                    assert!(error.contains(text), "{host}: {error}");
                }
            }
        }
        let client = city.client_config_with(roots.clone(), Some(&foreign), version);
        let crossed = connect_to("localhost", &client, tls.config_for_sni(Some("other.example")));
        let crossed = format!("{:?}", crossed.err());
        assert!(crossed.contains("no server certificate"), "the configuration of another name: {crossed}");
    }
}

#[test]
fn revocation_list_of_one_certificate_refuses_callers_there_alone() {
    let city = TlsBench::new();
    let other = other_city(&city);
    let mut files = two_cities(&city);
    let caller = city.good("police");
    let authorities = vec![city.path("ca.pem")];
    let with_lists =
        |lists| Some(Arc::new(ClientAuth { authorities: authorities.clone(), revocation_lists: lists, ..city.auth() }));
    files.certificates[0].client_auth = with_lists(vec![]);
    files.certificates[1].client_auth = with_lists(vec![city.path("revoked.crl")]);
    drop(other);
    city.authority.revoke(&caller.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    let tls = city.load(&files);
    let trust = |host| tls.trust_for_sni(Some(host)).expect("served");
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&caller.certificate).expect("a file").map(Result::unwrap).collect();
    assert!(trust("localhost").verify_chain(&chain, now()).is_ok());
    let refused = trust("other.example").verify_chain(&chain, now()).expect_err("revoked");
    assert!(format!("{refused:?}").contains("Revoked"));
    assert!(!trust("localhost").has_same_trust(trust("other.example")));
    let late = now() + DAY * 31;
    assert_eq!(tls.no_current_crl_since(late), None, "expired for one host only");
}

#[test]
fn certificates_of_one_host_need_keys_of_different_types_and_equal_client_authentication() {
    let city = TlsBench::new();
    let rsa = city.path("rsa");
    std::fs::create_dir(&rsa).expect("a folder");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let pem = |file: &str| std::fs::read_to_string(city.path(file)).expect("PEM");
    let root = rcgen::KeyPair::from_pem(&pem("ca.key")).expect("a key");
    let root = rcgen::Issuer::from_ca_cert_pem(&pem("ca.pem"), root).expect("an authority");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let certificate = params.signed_by(&key, &root).expect("a certificate").pem();
    std::fs::write(rsa.join("server.pem"), certificate).expect("a file");
    std::fs::write(rsa.join("server.key"), key.serialize_pem()).expect("a file");

    let (auth, own) = (Some(city.auth()), city.path(""));
    let tls = city.load(&list(vec![entry(&rsa, auth.clone()), entry(&own, auth.clone())]));
    assert_eq!(tls.trust_sets().len(), 1, "equal settings are one set");
    let good = city.good("police");
    for (suite, is_rsa) in
        [("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", true), ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", false)]
    {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|known| format!("{:?}", known.suite()) == suite);
        let client = city.client_config_of(provider, &good);
        let (client, _) = connect_to("localhost", &client, tls.config_for_sni(Some("localhost"))).expect("accepted");
        let shown = client.peer_certificates().expect("a certificate")[0].to_vec();
        let expected =
            CertificateDer::from_pem_file(if is_rsa { rsa.join("server.pem") } else { own.join("server.pem") });
        assert_eq!(shown, expected.expect("a certificate").to_vec(), "{suite}");
    }

    let problem = |certificates| {
        let problems = list(certificates).load(&PemStore::new(&DiskFiles), &city.clock).expect_err("a conflict");
        (problems[0].key.clone(), problems[0].what.clone())
    };
    let (key, what) = problem(vec![entry(&own, auth.clone()), entry(&own, auth.clone())]);
    assert_eq!(key, ".certificates[1].certificate");
    assert!(what.contains("localhost is also a host of certificates[0], whose key has the same type"), "{what}");
    let named =
        Some(vec![HostPattern::parse("a.example").expect("a host"), HostPattern::parse("localhost").expect("one")]);
    let named = CertificateFiles { server_names: named, ..entry(&rsa, None) };
    let (key, what) = problem(vec![entry(&own, auth), named]);
    assert_eq!(key, ".certificates[1].serverNames[1]");
    assert!(what.contains("which has another clientAuth"), "{what}");
}

#[test]
fn problems_name_the_certificate_and_its_key() {
    let city = TlsBench::new();
    let _other = other_city(&city);
    let mut files = two_cities(&city);
    let missing = |files: &TlsFiles| {
        let problems = files.load(&PemStore::new(&DiskFiles), &city.clock).expect_err("problems");
        problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
    };
    files.certificates[1].key = city.path("gone.key");
    files.certificates[0].client_auth =
        Some(Arc::new(ClientAuth { authorities: vec![city.path("gone.pem")], ..city.auth() }));
    assert_eq!(missing(&files)[..2], [".certificates[1].key", ".certificates[0].clientAuth.authorities[0]"]);
    files.certificates[0].has_default_auth = true;
    assert_eq!(missing(&files)[1], ".clientAuth.authorities[0]");
}

#[test]
fn callers_with_unaccepted_certificates_have_no_identity_and_a_reason() {
    let city = TlsBench::new();
    let stranger = CertificateAuthority::create(&city.path("stranger"), "Stranger", ValidityPeriod::days(now(), 365))
        .expect("an authority");
    let past = ValidityPeriod { from: now() - DAY * 9, until: now() - DAY };
    let revoked = city.good("revoked");
    city.authority.revoke(&revoked.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    let server = IssuedFiles { certificate: city.path("server.pem"), key: city.path("server.key") };
    let tls = city.load(&city.files(AllowInsecureFallback));
    let identify = |identity: Option<&IssuedFiles>, version| {
        let (_, server) = connect(&city.client_config(identity, version), &tls).expect("accepted");
        tls.identify_peer(&server, city.clock.wall()).expect("a peer")
    };
    let cases = [
        (issue(&stranger, "stranger", ValidityPeriod::days(now(), 9)), "UnknownIssuer"),
        (city.client("expired", past), "expired"),
        (revoked, "Revoked"),
        (server, "InvalidPurpose"),
    ];
    let police = city.good("police");
    for version in [&TLS12, &TLS13] {
        for (identity, expected) in &cases {
            let HandshakePeer::Unaccepted(kept) = identify(Some(identity), version) else { panic!("{expected}") };
            assert!(kept.reason.contains(expected), "{} lacks {expected}", kept.reason);
            assert!(kept.summary.is_some());
        }
        assert!(matches!(identify(None, version), HandshakePeer::Anonymous));
        assert!(matches!(identify(Some(&police), version), HandshakePeer::Verified(_)));
    }
    let trust = &tls.trust_sets()[0];
    assert!(trust.accepts_unverified() && !trust.requires_certificates());
}

#[test]
fn callers_without_the_key_of_their_certificate_are_refused_in_every_mode() {
    let city = TlsBench::new();
    let (police, thief) = (city.good("police"), city.good("thief"));
    let stolen = StolenCertificate {
        chain: CertificateDer::pem_file_iter(&police.certificate).expect("a file").map(Result::unwrap).collect(),
        key: aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::from_pem_file(&thief.key).expect("a key"))
            .expect("a key"),
    };
    for mode in [Required, Optional, AllowInsecureFallback] {
        let tls = city.load(&city.files(mode));
        for version in [&TLS12, &TLS13] {
            let mut client = ClientConfig::clone(&city.client_config(None, version));
            client.client_auth_cert_resolver = Arc::new(stolen.clone());
            let refused = connect(&Arc::new(client), &tls).expect_err("a refusal");
            assert!(format!("{refused:?}").contains("BadSignature"), "{mode:?}: {refused:?}");
        }
    }
}

/// The certificate of another caller, with a key that does not belong to it.
#[derive(Clone, Debug)]
struct StolenCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn rustls::sign::SigningKey>,
}

impl rustls::client::ResolvesClientCert for StolenCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::new(rustls::sign::CertifiedKey::new(self.chain.clone(), Arc::clone(&self.key))))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn texts_in_memory_serve_and_change_with_the_next_load() {
    let city = TlsBench::new();
    let texts = MemoryTexts::default();
    let put = |name: &str, file: &str| {
        texts.set(&format!("memory:city/{name}"), std::fs::read(city.path(file)).expect("a file")).expect("room");
    };
    let files = TlsFiles::single(
        "memory:city/tls.crt".into(),
        "memory:city/tls.key".into(),
        Some(ClientAuth {
            authorities: vec!["memory:city/ca.crt".into()],
            revocation_lists: vec!["memory:city/ca.crl".into()],
            ..city.auth()
        }),
    );
    let source = MemoryOrDisk(texts.clone());
    let load = || files.load(&PemStore::new(&source), &city.clock);
    put("tls.crt", "server.pem");
    put("tls.key", "server.key");
    put("ca.crt", "ca.pem");
    let missing = load().expect_err("a text is missing");
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].key, ".clientAuth.revocation[0]");
    assert!(missing[0].to_string().starts_with("memory:city/ca.crl: cannot be read: there is no text"), "{missing:?}");
    put("ca.crl", "revoked.crl");
    let before = load().expect("texts");
    let caller = city.good("police");
    assert!(city.connect(&before, Some(&caller), &TLS13).is_ok());
    city.authority.revoke(&caller.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    put("ca.crl", "revoked.crl");
    assert!(city.connect(&before, Some(&caller), &TLS13).is_ok(), "not loaded yet");
    let after = load().expect("texts");
    assert!(refusal(city.connect(&after, Some(&caller), &TLS13)).contains("Revoked"));
    assert!(before.files != after.files, "the digest shows the change");
}

#[test]
fn unchanged_keys_are_kept_from_load_to_load_and_expiry_is_judged_again() {
    let city = TlsBench::new();
    let files = city.files(Required);
    let load = |keys| {
        let store = PemStore::with_keys(&DiskFiles, keys);
        let tls = files.load(&store, &city.clock);
        (tls.map(|tls| tls.server_key(0)), store.into_keys())
    };
    let (first, keys) = load(KeyCache::default());
    let (second, keys) = load(keys);
    let first = first.expect("good files");
    assert!(Arc::ptr_eq(&first, &second.expect("good files")), "parsed once");
    for file in ["server.pem", "server.key"] {
        std::fs::remove_file(city.path(file)).expect("a file");
    }
    city.authority.issue_server(&["localhost".to_owned()], ValidityPeriod::days(now(), 400)).expect("a certificate");
    let (third, keys) = load(keys);
    assert!(!Arc::ptr_eq(&first, &third.expect("good files")), "the files have changed");
    city.clock.advance(DAY * 401);
    let problems = load(keys).0.expect_err("expired");
    assert!(problems.iter().any(|problem| problem.key == ".certificate"), "{problems:?}");
}
