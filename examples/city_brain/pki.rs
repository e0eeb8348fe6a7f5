//! A throw-away certificate authority: one certificate for the gateway, one for every department.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

/// The name in the gateway's certificate.
pub(crate) const GATEWAY_NAME: &str = "gateway.city.example";

/// The department whose certificate is for the person trying the demo.
pub(crate) const YOU: &str = "you";

/// Everybody with a certificate. The visitor's comes from the right authority, but no department claims it.
const HOLDERS: [&str; 9] = [
    "camera-bureau",
    "recogniser",
    "traffic-police",
    "logistics-company",
    "public-transport",
    "ambulance-service",
    "tourism-office",
    "visitor",
    YOU,
];

/// The folder of the city's keys and certificates.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Where the files are, in the folder of a run.
    pub(crate) fn of(home: &Path) -> Self {
        Self { folder: home.join("pki") }
    }

    /// Makes the authority and all certificates, as PEM files that curl and openssl read too.
    pub(crate) fn found(home: &Path) -> anyhow::Result<Self> {
        let pki = Self::of(home);
        fs::create_dir_all(&pki.folder).with_context(|| format!("cannot make {}", pki.folder.display()))?;
        let authority = authority()?;
        pki.write("ca.pem", authority.pem().as_bytes())?;
        pki.issue(&authority, "gateway", gateway_params()?)?;
        for holder in HOLDERS {
            pki.issue(&authority, holder, department_params(holder)?)?;
        }
        Ok(pki)
    }

    /// The certificate that proves the gateway.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A holder's certificate.
    pub(crate) fn certificate(&self, holder: &str) -> PathBuf {
        self.folder.join(format!("{holder}.pem"))
    }

    /// A holder's key.
    pub(crate) fn key(&self, holder: &str) -> PathBuf {
        self.folder.join(format!("{holder}.key"))
    }

    /// TLS as a department's software would set it up: trusts the city, shows its own certificate.
    pub(crate) fn connector(&self, holder: &str, protocol: &[u8]) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(self.certificate(holder))?],
                PrivateKeyDer::from_pem_file(self.key(holder))?,
            )?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn issue(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        holder: &str,
        params: CertificateParams,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        self.write(&format!("{holder}.pem"), certificate.pem().as_bytes())?;
        self.write(&format!("{holder}.key"), key.serialize_pem().as_bytes())
    }

    fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600) // keys are nobody else's business, not even in a demo
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = named("City Brain demo authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn gateway_params() -> anyhow::Result<CertificateParams> {
    let mut params = named(GATEWAY_NAME)?;
    params.subject_alt_names = vec![
        SanType::DnsName(GATEWAY_NAME.try_into()?),
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn department_params(holder: &str) -> anyhow::Result<CertificateParams> {
    let mut params = named(holder)?;
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://city.example/department/{holder}").try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Parameters of a certificate that lives for a day: the demo's keys are not meant to be kept.
fn named(common_name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_secs(3_600)).into(); // clocks differ a little
    params.not_after = (now + std::time::Duration::from_secs(86_400)).into();
    Ok(params)
}
