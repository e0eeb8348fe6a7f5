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
    ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, RootCertStore, ServerConnection, SideData,
    SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::cli::trial_authority::{CertificateAuthority, ClientRequest, IssuedFiles, ValidityPeriod};
use crate::clock::Clock;
use crate::identity::tls_config::server_config::ClockTimeProvider;
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

    fn files(&self, required: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_auth: Some(ClientAuth {
                required,
                authorities: vec![self.path("ca.pem")],
                revocation_lists: vec![self.path("revoked.crl")],
                expired_crl: ExpiredCrlPolicy::Refuse,
            }),
            host_policy: HostPolicy::default(),
        }
    }

    fn auth(&self) -> ClientAuth {
        self.files(true).client_auth.expect("asked for")
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
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).expect("a certificate")).expect("an anchor");
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

    fn connect(
        &self,
        tls: &ServerTls,
        identity: Option<&IssuedFiles>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Option<Caller>, rustls::Error> {
        let (_, server) = connect(&self.client_config(identity, version), tls)?;
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        Ok(Caller::from_handshake(&server).expect("a certificate that the gateway accepts"))
    }
}

fn issue(authority: &CertificateAuthority, name: &str, validity: ValidityPeriod) -> IssuedFiles {
    let department = Name::parse(name).expect("a name");
    let identities = vec![CallerId::Uri(format!("spiffe://city.example/department/{name}"))];
    authority.issue_client(&ClientRequest { department, identities, validity }).expect("a client certificate")
}

/// Transfers bytes between client and server until neither has more to send.
fn connect(client: &Arc<ClientConfig>, tls: &ServerTls) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(&tls.config)).expect("a server");
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
    for required in [true, false] {
        let tls = city.load(&city.files(required));
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
        let optional = city.load(&city.files(false));
        assert!(city.connect(&optional, None, version).expect("accepted").is_none());
        let required = city.load(&city.files(true));
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
    for required in [true, false] {
        let tls = city.load(&city.files(required));
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
    let before = city.load(&city.files(true));
    assert!(city.connect(&before, Some(&revoked), &TLS13).is_ok());
    for _twice in 0..2 {
        city.authority.revoke(&revoked.certificate, ValidityPeriod::days(now(), 30)).expect("revoked");
    }
    let after = city.load(&city.files(true));
    assert!(refusal(city.connect(&after, Some(&revoked), &TLS13)).contains("Revoked"));
    assert!(city.connect(&after, Some(&kept), &TLS13).is_ok());
}

#[test]
fn open_connection_is_verified_again_after_a_reload() {
    let city = TlsBench::new();
    let stranger = CertificateAuthority::create(&city.path("stranger"), "Stranger", ValidityPeriod::days(now(), 365))
        .expect("an authority");
    let (kept, revoked) = (city.good("kept"), city.good("revoked"));
    let before = city.load(&city.files(true));
    let connect_as = |identity| city.connect(&before, Some(identity), &TLS13).expect("accepted").expect("a caller");
    let (kept, revoked, file) = (connect_as(&kept), connect_as(&revoked), revoked.certificate);
    city.authority.revoke(&file, ValidityPeriod::days(now(), 365)).expect("revoked");
    let after = city.load(&city.files(true));
    assert!(before.still_accepts(&revoked, now()), "the earlier trust does not know the revocation");
    assert!(!after.still_accepts(&revoked, now()));
    assert!(after.still_accepts(&kept, now()));
    assert!(!after.still_accepts(&kept, now() + DAY * 91), "expired");
    let auth =
        ClientAuth { authorities: vec![stranger.certificate_path()], revocation_lists: Vec::new(), ..city.auth() };
    let elsewhere = city.load(&TlsFiles { client_auth: Some(auth), ..city.files(true) });
    assert!(!elsewhere.still_accepts(&kept, now()), "the authority was removed");
    let open = city.load(&TlsFiles { client_auth: None, ..city.files(true) });
    assert!(!open.still_accepts(&kept, now()), "no certificate is requested");
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
    let tls = city.load(&city.files(true));
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
        let tls = city.load(&TlsFiles { client_auth: Some(auth), ..city.files(true) });
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
    let tls = city.load(&city.files(true));
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
    let listeners = [city.load(&city.files(true)), city.load(&city.files(false))];
    let open = city.load(&TlsFiles { client_auth: None, ..city.files(true) });
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
    let tls = city.load(&city.files(true));
    let server = ServerConnection::new(Arc::clone(&tls.config)).expect("a server");
    assert!(Caller::from_handshake(&server).is_err());
}

#[test]
fn key_exchange_is_post_quantum_if_the_client_supports_it() {
    let city = TlsBench::new();
    let good = city.good("police");
    let tls = city.load(&city.files(true));
    let (_, server) = connect(&city.client_config(Some(&good), &TLS13), &tls).expect("accepted");
    let group = server.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}
