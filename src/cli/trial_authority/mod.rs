//! A small trial certificate authority (PKI) in a directory, for evaluation, the demo and the tests.
//!
//! The directory holds `ca.pem`, `ca.key`, `revoked.crl`, `server.pem` and `server.key`. Its folder `clients/` holds a
//! pair of files for each department.
//!
//! Guarantees:
//! - No file is overwritten, except the revocation list, which is replaced atomically.
//! - Keys are readable by their owner only.
//! - Serial numbers are random.
//! - The gateway's listeners accept the issued certificates.
//!
//! The trial authority does not replace a city's own authority: its key lies beside its certificates, unencrypted.

mod directory;
mod request;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedKey, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use crate::identity::{TlsProblem, asn1_timestamp, identities_of_der, read_private_key, read_revocation_list};
use crate::model::CallerId;

use directory::{first_certificate, unwritable, write_pair};
pub use request::{AuthorityError, ClientRequest, IssuedFiles, ValidityPeriod};

/// A certificate authority with its directory.
pub struct CertificateAuthority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A unique name for a trial authority. So a certificate of another trial authority is refused as issued by an
    /// unknown authority, and not as one with a bad signature.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn trial_name() -> Result<String, AuthorityError> {
        let mut bytes = [0; 4];
        fill_random(&mut bytes)?;
        Ok(format!("Tallygate trial authority {:08x}", u32::from_be_bytes(bytes)))
    }

    /// Creates an authority in `directory`, and the directory if it is missing. The revocation list is empty and as
    /// long valid as the authority.
    ///
    /// # Errors
    /// If there is an authority already, the directory cannot be written, or `common_name` cannot be certified.
    pub fn create(directory: &Path, common_name: &str, validity: ValidityPeriod) -> Result<Self, AuthorityError> {
        let mut params = certificate_params(subject_dn(common_name, None), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let files = IssuedFiles { certificate: directory.join("ca.pem"), key: directory.join("ca.key") };
        write_pair(&files, &certificate.pem(), &key)?;
        let authority = Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) };
        authority.write_list(Vec::new(), 1, validity)?;
        Ok(authority)
    }

    /// Opens the authority that [`CertificateAuthority::create`] has created in `directory`.
    ///
    /// # Errors
    /// If its files are missing or have unexpected contents.
    pub fn open_directory(directory: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        let der = first_certificate(&certificate, "the authority's certificate, as `pki init` makes it")?;
        let pair = read_private_key(&key, "the authority's key, as `pki init` makes it")?;
        let pair = KeyPair::try_from(&pair)
            .map_err(|error| TlsProblem::new(&key, format!("contains no usable key: {error}")))?;
        let issuer = Issuer::from_ca_cert_der(&der, pair)?;
        Ok(Self { directory: directory.to_owned(), issuer })
    }

    /// The authority's certificate, for `clientAuth.authorities` and for callers.
    pub fn certificate_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The authority's key.
    pub fn key_path(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// The revocation list, for `clientAuth.revocation`.
    pub fn revocation_list_path(&self) -> PathBuf {
        self.directory.join("revoked.crl")
    }

    /// Issues a server certificate for a gateway, `server.pem`, with `hosts` (names and IP addresses) as alternative
    /// names.
    ///
    /// # Errors
    /// If there is one already, `hosts` is empty, or a host cannot be certified.
    pub fn issue_server(&self, hosts: &[String], validity: ValidityPeriod) -> Result<IssuedFiles, AuthorityError> {
        let Some(first) = hosts.first() else {
            return Err(AuthorityError::Impossible("a server needs at least one host name".to_owned()));
        };
        let mut params = certificate_params(subject_dn(first, None), validity)?;
        params.subject_alt_names = CertificateParams::new(hosts.to_vec())?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.write_issued(&self.sign(params)?, "server")
    }

    /// Issues a client certificate for a caller, in `clients/`.
    ///
    /// # Errors
    /// If there is one already, or an identity cannot be certified or would be refused by a listener.
    pub fn issue_client(&self, request: &ClientRequest) -> Result<IssuedFiles, AuthorityError> {
        let mut name = subject_dn(request.department.as_str(), None);
        let mut alternatives = Vec::new();
        for identity in &request.identities {
            match identity {
                CallerId::Uri(uri) => alternatives.push(SanType::URI(uri.as_str().try_into()?)),
                CallerId::Dns(host) => alternatives.push(SanType::DnsName(host.as_str().try_into()?)),
                CallerId::Subject { common_name, organizational_unit } => {
                    name = subject_dn(common_name, organizational_unit.as_deref());
                }
            }
        }
        let mut params = certificate_params(name, request.validity)?;
        params.subject_alt_names = alternatives;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = self.sign(params)?;
        identities_of_der(signed.cert.der()).map_err(|odd| AuthorityError::Impossible(odd.to_string()))?;
        self.write_issued(&signed, &format!("clients/{}", request.department))
    }

    /// Puts a certificate on the revocation list, which is then valid for `validity`. Idempotent.
    ///
    /// # Errors
    /// If the certificate was not issued by this authority or is the authority's own, or a file cannot be read or
    /// written.
    pub fn revoke(&self, certificate: &Path, validity: ValidityPeriod) -> Result<(), AuthorityError> {
        let der = first_certificate(certificate, "the certificate to be revoked")?;
        let Ok(([], parsed)) = X509Certificate::from_der(&der) else {
            return Err(TlsProblem::new(certificate, "contains a certificate that is not well-formed X.509").into());
        };
        if !self.has_issued(&parsed)? {
            return Err(AuthorityError::NotIssuedHere {
                certificate: certificate.to_owned(),
                directory: self.directory.clone(),
            });
        }
        if der == self.own_certificate()? {
            return Err(AuthorityError::OwnCertificate(certificate.to_owned()));
        }
        let (mut revoked, number) = self.read_list()?;
        let serial = SerialNumber::from_slice(parsed.raw_serial());
        if !revoked.iter().any(|entry| entry.serial_number == serial) {
            revoked.push(revoked_entry(serial, validity.from)?);
        }
        self.write_list(revoked, number + 1, validity)
    }

    /// Signs the revocation list again with the same entries, valid for `validity`.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub fn renew_revocation_list(&self, validity: ValidityPeriod) -> Result<(), AuthorityError> {
        let (revoked, number) = self.read_list()?;
        self.write_list(revoked, number + 1, validity)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<CertifiedKey<KeyPair>, AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let signing_key = KeyPair::generate()?;
        let cert = params.signed_by(&signing_key, &self.issuer)?;
        Ok(CertifiedKey { cert, signing_key })
    }

    fn write_issued(&self, signed: &CertifiedKey<KeyPair>, stem: &str) -> Result<IssuedFiles, AuthorityError> {
        let files = IssuedFiles {
            certificate: self.directory.join(format!("{stem}.pem")),
            key: self.directory.join(format!("{stem}.key")),
        };
        write_pair(&files, &signed.cert.pem(), &signed.signing_key)?;
        Ok(files)
    }

    fn has_issued(&self, certificate: &X509Certificate<'_>) -> Result<bool, AuthorityError> {
        let own = self.own_certificate()?;
        let own = X509Certificate::from_der(&own).map_err(|error| AuthorityError::Impossible(error.to_string()))?.1;
        Ok(certificate.verify_signature(Some(own.public_key())).is_ok())
    }

    fn own_certificate(&self) -> Result<CertificateDer<'static>, AuthorityError> {
        first_certificate(&self.certificate_path(), "the authority's certificate")
    }

    /// The entries of the revocation list, and its number (cRLNumber).
    fn read_list(&self) -> Result<(Vec<RevokedCertParams>, u64), AuthorityError> {
        let path = self.revocation_list_path();
        let der = read_revocation_list(&path)?;
        let Ok((_, list)) = CertificateRevocationList::from_der(&der) else {
            return Err(TlsProblem::new(&path, "contains a revocation list that is not well-formed").into());
        };
        let number = list.crl_number().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let entries = list.iter_revoked_certificates().map(|revoked| {
            revoked_entry(SerialNumber::from_slice(revoked.raw_serial()), asn1_timestamp(revoked.revocation_date))
        });
        Ok((entries.collect::<Result<_, _>>()?, number))
    }

    /// Replaces the list atomically, so that a gateway that watches the file never reads a part of it.
    fn write_list(
        &self,
        revoked_certs: Vec<RevokedCertParams>,
        number: u64,
        validity: ValidityPeriod,
    ) -> Result<(), AuthorityError> {
        let list = CertificateRevocationListParams {
            this_update: asn1_time(validity.from)?.to_datetime(),
            next_update: asn1_time(validity.until)?.to_datetime(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer)?.pem()?;
        let (path, fresh) = (self.revocation_list_path(), self.directory.join("revoked.crl.new"));
        std::fs::write(&fresh, pem)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|error| unwritable(&path, &error))
    }
}

fn subject_dn(common_name: &str, organizational_unit: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(unit) = organizational_unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name
}

fn certificate_params(
    subject: DistinguishedName,
    validity: ValidityPeriod,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = asn1_time(validity.from)?.to_datetime();
    params.not_after = asn1_time(validity.until)?.to_datetime();
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// A serial number of 16 random bytes: positive and of fixed length (RFC 5280 section 4.1.2.2 allows 20).
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), AuthorityError> {
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(bytes).map_err(|_| AuthorityError::Impossible("the system provides no random numbers".to_owned()))
}

fn revoked_entry(serial_number: SerialNumber, at: Timestamp) -> Result<RevokedCertParams, AuthorityError> {
    Ok(RevokedCertParams {
        serial_number,
        revocation_time: asn1_time(at)?.to_datetime(),
        reason_code: None,
        invalidity_date: None,
    })
}

/// Converts a time to the form of certificates.
fn asn1_time(at: Timestamp) -> Result<ASN1Time, AuthorityError> {
    ASN1Time::from_timestamp(at.as_second()).map_err(|error| AuthorityError::Impossible(format!("{at}: {error}")))
}
