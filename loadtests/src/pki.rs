//! A throw-away certificate authority: one server and eight departments, all in files.
//!
//! Guarantees:
//! - The authority is created for every run, so no certificate expires and no key is stored.
//! - The identity is in the URI SAN (for Tallygate) and in the common name (a possible key for nginx and HAProxy).
//!
//! Leaves to the tests: revocation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Number of calling departments.
pub const DEPARTMENTS: usize = 8;

/// The host name in the server's certificate and in every request.
pub const HOST: &str = "gateway.city.example";

/// The id of the department with this index, counted from 0: `dept-1` to `dept-8`.
pub fn department(index: usize) -> String {
    format!("dept-{}", index + 1)
}

/// The folder with the certificates and keys.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Creates authority, server and departments, and writes them to `folder`.
    pub fn make(folder: &Path) -> Result<Self> {
        Self::make_for(folder, DEPARTMENTS)
    }

    /// As [`Pki::make`], with `departments` departments.
    pub fn make_for(folder: &Path, departments: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        let pki = Self { folder: folder.to_owned() };
        let authority = pki.make_authority()?;
        pki.issue("server", server_parameters()?, &authority)?;
        let bundle = pki.read("server.pem")? + &pki.read("server.key")?; // HAProxy expects both in one file
        pki.write("server-bundle.pem", &bundle)?;
        for name in (0..departments).map(department) {
            pki.issue(&name, department_parameters(&name)?, &authority)?;
        }
        Ok(pki)
    }

    /// The certificates that an earlier [`Pki::make`] wrote to `folder`.
    pub fn existing(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder with the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The TLS 1.3 client configuration of a department: its certificate, only our authority as root, no resumption.
    pub fn client(&self, department: &str, alpn: &[u8]) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(self.folder.join(format!("{department}.pem")))?],
                PrivateKeyDer::from_pem_file(self.folder.join(format!("{department}.key")))?,
            )
            .with_context(|| format!("using the certificate of {department}"))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let file = self.folder.join("ca.pem");
        roots.add(CertificateDer::from_pem_file(&file).with_context(|| format!("reading {}", file.display()))?)?;
        Ok(roots)
    }

    fn make_authority(&self) -> Result<Issuer<'static, KeyPair>> {
        let mut parameters = named("load test authority")?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        self.write("ca.pem", &parameters.self_signed(&key)?.pem())?;
        Ok(Issuer::new(parameters, key))
    }

    fn issue(&self, name: &str, parameters: CertificateParams, authority: &Issuer<'_, KeyPair>) -> Result<()> {
        let key = KeyPair::generate()?;
        self.write(&format!("{name}.pem"), &parameters.signed_by(&key, authority)?.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn read(&self, name: &str) -> Result<String> {
        let file = self.folder.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}

fn server_parameters() -> Result<CertificateParams> {
    let mut parameters = named("gateway")?;
    parameters.subject_alt_names = vec![SanType::DnsName(HOST.try_into()?)];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn department_parameters(name: &str) -> Result<CertificateParams> {
    let mut parameters = named(name)?;
    let uri = format!("spiffe://city.example/department/{name}");
    parameters.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

fn named(common_name: &str) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_department_connects_with_its_own_certificate() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::make(folder.path()).expect("certificates");
        for name in (0..DEPARTMENTS).map(department) {
            assert!(pki.client(&name, b"h2").is_ok(), "{name}");
        }
        assert!(pki.client("dept-9", b"h2").is_err());
    }
}
