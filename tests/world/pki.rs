//! Certificates made at run time: an authority, a foreign authority, leaves of every kind, revocation lists (CRL).

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The gateway's host name.
pub const GATEWAY: &str = "gateway.city.example";

/// An authority with its folder of files.
pub struct Pki {
    folder: PathBuf,
    name: &'static str,
    authority: Issuer<'static, KeyPair>,
    certificate: Certificate,
    serial: Cell<u64>,
}

/// A leaf to be issued.
#[derive(Clone)]
pub struct Leaf {
    sans: Vec<SanType>,
    common_name: String,
    organizational_unit: Option<String>,
    years: (i32, i32),
}

/// An issued leaf: the credentials of a client, in memory and as files.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    pub serial: u64,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
            serial: self.serial,
        }
    }
}

impl Leaf {
    /// Returns a leaf with a URI SAN.
    pub fn uri(uri: &str) -> Self {
        Self::bare("a caller").with(SanType::URI(uri.try_into().unwrap()))
    }

    /// Returns the leaf of a department, with the identity that [`super::Plan::department`] grants.
    pub fn department(id: &str) -> Self {
        Self::uri(&spiffe(id))
    }

    /// Returns a leaf with a DNS SAN.
    pub fn dns(name: &str) -> Self {
        Self::bare("a caller").with(SanType::DnsName(name.try_into().unwrap()))
    }

    /// Returns a leaf with only a subject.
    pub fn bare(common_name: &str) -> Self {
        Self { sans: vec![], common_name: common_name.into(), organizational_unit: None, years: (2020, 2090) }
    }

    /// Adds a second URI SAN.
    pub fn and_uri(self, uri: &str) -> Self {
        self.with(SanType::URI(uri.try_into().unwrap()))
    }

    /// Adds a further DNS SAN.
    pub fn and_dns(self, name: &str) -> Self {
        self.with(SanType::DnsName(name.try_into().unwrap()))
    }

    /// Adds an organizational unit.
    pub fn unit(mut self, unit: &str) -> Self {
        self.organizational_unit = Some(unit.into());
        self
    }

    /// Sets the validity: from the first of January of one year to the first of January of another.
    pub fn valid(mut self, from: i32, until: i32) -> Self {
        self.years = (from, until);
        self
    }

    fn with(mut self, san: SanType) -> Self {
        self.sans.push(san);
        self
    }
}

/// Returns the URI that identifies a department in this city.
pub fn spiffe(department: &str) -> String {
    format!("spiffe://city.example/department/{department}")
}

impl Pki {
    /// Creates an authority. Its files lie in `folder` under its name.
    pub fn new(folder: &Path, name: &'static str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{name} of the tests"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2099, 1, 1));
        let certificate = params.self_signed(&key).unwrap();
        let pki = Self {
            folder: folder.into(),
            name,
            authority: Issuer::new(params, key),
            certificate,
            serial: Cell::new(1000),
        };
        std::fs::write(pki.authority_file(), pki.certificate.pem()).unwrap();
        pki
    }

    /// Returns the authority's certificate.
    pub fn authority_file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Returns the authority as an issuer, for certificates made by the test.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.authority
    }

    /// Returns the authority's certificate, for a trust store.
    pub fn root(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Issues the gateway's own certificate as `server.pem` and `server.key`.
    pub fn issue_server(&self) -> Identity {
        let mut leaf = Leaf::dns(GATEWAY);
        leaf.sans.push(SanType::DnsName("localhost".try_into().unwrap()));
        leaf.sans.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        self.issue_as("server", &leaf, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a leaf for a client.
    pub fn issue(&self, leaf: &Leaf) -> Identity {
        let name = format!("{}-leaf-{}", self.name, self.serial.get() + 1);
        self.issue_as(&name, leaf, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate for a subsystem with this host name.
    pub fn issue_subsystem(&self, name: &str) -> Identity {
        self.issue_as(name, &Leaf::dns(name), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a certificate for a server with these names. The files are `NAME.pem` and `NAME.key`.
    pub fn issue_server_as(&self, name: &str, leaf: &Leaf) -> Identity {
        self.issue_as(name, leaf, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue_as(&self, name: &str, leaf: &Leaf, usage: ExtendedKeyUsagePurpose) -> Identity {
        self.serial.set(self.serial.get() + 1);
        let key = KeyPair::generate().unwrap();
        let certificate = self.params(leaf, usage).signed_by(&key, &self.authority).unwrap();
        let certificate_file = self.folder.join(format!("{name}.pem"));
        let key_file = self.folder.join(format!("{name}.key"));
        replace(&certificate_file, &certificate.pem());
        replace(&key_file, &key.serialize_pem());
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            certificate_file,
            key_file,
            serial: self.serial.get(),
        }
    }

    fn params(&self, leaf: &Leaf, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.clone());
        if let Some(unit) = &leaf.organizational_unit {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit.clone());
        }
        params.subject_alt_names = leaf.sans.clone();
        params.serial_number = Some(SerialNumber::from(self.serial.get()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let (from, until) = leaf.years;
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params
    }

    /// Writes the list of revoked leaves as `revoked.crl`.
    pub fn revoke(&self, revoked: &[&Identity]) {
        self.revoke_until(revoked, 2090);
    }

    /// Like [`Pki::revoke`], with a list that expires on the first of January of a year.
    pub fn revoke_until(&self, revoked: &[&Identity], year: i32) {
        let revoked = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(self.serial.get()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        replace(&self.folder.join("revoked.crl"), &list.pem().unwrap());
    }
}

/// Replaces a file atomically: a reader sees the old file or the new file.
pub fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}
