//! The identities in a client certificate: DER in, identities out. Pure.
//!
//! Guarantees:
//! - One spelling per identity: DNS names are in lower case (canonical form).
//! - URIs and DNS names hold printable ASCII only, and no wildcards.
//! - The number of names and the size of the certificate are bounded.
//! - A certificate that breaks one of these rules is refused as a whole: half of a malformed certificate is no
//!   evidence.
//!
//! Leaves to others: signatures, validity and revocation, which rustls has checked before.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATIONAL_UNIT};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::model::CallerId;

use super::expiry;

/// The largest client certificate in bytes. Ordinary ones have one or two KiB.
pub(crate) const LEAF_BYTES_MAX: usize = 16 * 1024;
/// The most subject alternative names of any kind.
const SANS_MAX: usize = 16;

/// A certificate that rustls accepts but this module refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client certificate: {0}")]
pub struct BadCertificate(pub String);

/// The facts in a certificate about its holder.
pub(crate) struct CertificateFacts {
    /// URIs first, then DNS names, then the subject; in the certificate's order, without repeats, never empty.
    pub(crate) identities: Vec<CallerId>,
    /// notAfter.
    pub(crate) expires: Timestamp,
}

/// Every identity in a DER certificate: URIs first, then DNS names, then the subject, without repeats, never empty.
///
/// A subject with exactly one organizationalUnit is returned in two forms, with and without the unit. So a claim of
/// either form is found by comparison.
///
/// # Errors
/// If the certificate:
/// - is not DER;
/// - is larger than 16 KiB;
/// - has more than 16 subject alternative names;
/// - has an empty name, a wildcard name, or a name that is not printable;
/// - has more than one commonName;
/// - has no identity at all.
pub fn identities_of_der(der: &[u8]) -> Result<Vec<CallerId>, BadCertificate> {
    certificate_facts(der).map(|facts| facts.identities)
}

pub(crate) fn certificate_facts(der: &[u8]) -> Result<CertificateFacts, BadCertificate> {
    if der.len() > LEAF_BYTES_MAX {
        return bad_certificate(format!("has {} bytes, at most {LEAF_BYTES_MAX} are accepted", der.len()));
    }
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return bad_certificate("is not one well-formed X.509 certificate");
    };
    let mut identities = alternative_names(&certificate)?;
    identities.extend(subject_identities(&certificate)?);
    if identities.is_empty() {
        return bad_certificate("has no URI, no DNS name and no commonName, so it identifies no caller");
    }
    Ok(CertificateFacts { identities, expires: expiry::asn1_timestamp(certificate.validity().not_after) })
}

/// URI SANs, then DNS SANs. E-mail addresses, IP addresses and other kinds identify no department.
fn alternative_names(certificate: &X509Certificate<'_>) -> Result<Vec<CallerId>, BadCertificate> {
    let Ok(extension) = certificate.subject_alternative_name() else {
        return bad_certificate("has a duplicate or malformed subjectAltName extension");
    };
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    if names.len() > SANS_MAX {
        return bad_certificate(format!(
            "has {} subject alternative names, at most {SANS_MAX} are accepted",
            names.len()
        ));
    }
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => push_unique(&mut uris, CallerId::Uri(require_printable("URI", uri)?.to_owned())),
            GeneralName::DNSName(name) => push_unique(&mut dns_names, CallerId::Dns(parse_host_name(name)?)),
            GeneralName::Invalid(..) => return bad_certificate("has a subject alternative name that cannot be read"),
            _ => {}
        }
    }
    uris.append(&mut dns_names);
    Ok(uris)
}

fn push_unique(identities: &mut Vec<CallerId>, identity: CallerId) {
    if !identities.contains(&identity) {
        identities.push(identity);
    }
}

/// Requires text that every parser reads alike: no NUL at which some parsers stop, no look-alike letters.
fn require_printable<'a>(kind: &str, text: &'a str) -> Result<&'a str, BadCertificate> {
    if text.is_empty() {
        return bad_certificate(format!("has an empty {kind} name"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return bad_certificate(format!("has a {kind} name with other than printable ASCII characters: {text:?}"));
    }
    Ok(text)
}

/// A host name in lower case (RFC 9525 section 6.3 compares them without case).
fn parse_host_name(name: &str) -> Result<String, BadCertificate> {
    let name = require_printable("DNS", name)?;
    if name.contains('*') {
        return bad_certificate(format!("has the wildcard DNS name {name:?}, which does not identify a single caller"));
    }
    Ok(name.to_ascii_lowercase())
}

/// The subject in the one or two forms that a configuration may claim.
fn subject_identities(certificate: &X509Certificate<'_>) -> Result<Vec<CallerId>, BadCertificate> {
    let subject = certificate.subject();
    let mut common_names = subject.iter_by_oid(&OID_X509_COMMON_NAME);
    let Some(first) = common_names.next() else { return Ok(Vec::new()) };
    if common_names.next().is_some() {
        return bad_certificate("has more than one commonName");
    }
    let common_name = attribute_text("commonName", first)?;
    let mut units = subject.iter_by_oid(&OID_X509_ORGANIZATIONAL_UNIT);
    let unit = match (units.next(), units.next()) {
        (Some(only), None) => Some(attribute_text("organizationalUnit", only)?),
        _ => None,
    };
    let with_unit =
        unit.map(|unit| CallerId::Subject { common_name: common_name.clone(), organizational_unit: Some(unit) });
    let alone = CallerId::Subject { common_name: common_name.clone(), organizational_unit: None };
    Ok(with_unit.into_iter().chain([alone]).collect())
}

/// The text of an attribute: any script, because names of offices use all scripts, but no invisible characters.
fn attribute_text(kind: &str, attribute: &AttributeTypeAndValue<'_>) -> Result<String, BadCertificate> {
    let Ok(text) = attribute.as_str() else {
        return bad_certificate(format!("has a {kind} in an encoding that cannot be read"));
    };
    if text.is_empty() || text.chars().any(char::is_control) {
        return bad_certificate(format!("has a {kind} that is empty or contains control characters: {text:?}"));
    }
    Ok(text.to_owned())
}

fn bad_certificate<T>(what: impl Into<String>) -> Result<T, BadCertificate> {
    Err(BadCertificate(what.into()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];

    fn certificate(sans: &[SanType], subject: &[(DnType, &str)]) -> Vec<u8> {
        signed(&params(sans, subject))
    }

    fn params(sans: &[SanType], subject: &[(DnType, &str)]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in subject {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params
    }

    fn signed(params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().expect("ASCII"))
    }

    #[test]
    fn identities_are_uris_then_dns_names_then_the_subject() {
        let (cn, ou) = (DnType::CommonName, DnType::OrganizationalUnitName);
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        for (sans, subject, expected) in [
            (vec![uri("spiffe://c/a")], vec![], vec!["uri:spiffe://c/a"]),
            (vec![dns("Cameras.City.Example")], vec![], vec!["dns:cameras.city.example"]),
            (vec![dns("b.example"), uri("spiffe://c/b"), address], vec![], vec!["uri:spiffe://c/b", "dns:b.example"]),
            (vec![dns("a.example"), dns("A.example")], vec![], vec!["dns:a.example"]),
            (vec![], vec![(cn.clone(), "警察")], vec!["subject:CN=警察"]),
            (vec![], vec![(cn.clone(), "a"), (ou.clone(), "b")], vec!["subject:CN=a,OU=b", "subject:CN=a"]),
            (
                vec![],
                vec![(cn.clone(), "a"), (ou.clone(), "b"), (DnType::CustomDnType(vec![2, 5, 4, 11]), "c")],
                vec!["subject:CN=a"],
            ),
            (vec![uri("spiffe://C/A")], vec![(cn, "a")], vec!["uri:spiffe://C/A", "subject:CN=a"]),
        ] {
            let identities = identities_of_der(&certificate(&sans, &subject)).expect("a good certificate");
            let texts: Vec<String> = identities.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected);
        }
    }

    #[test]
    fn malformed_certificates_are_refused() {
        let cn = (DnType::CommonName, "a");
        let named = [cn.clone()];
        let many = vec![dns("a.example"); SANS_MAX + 1];
        let two_names = [cn, (DnType::CustomDnType(COMMON_NAME.to_vec()), "b")];
        for (der, expected) in [
            (certificate(&[], &[]), "identifies no caller"),
            (certificate(&[SanType::IpAddress([127, 0, 0, 1].into())], &[]), "identifies no caller"),
            (certificate(&[dns("*.city.example")], &named), "wildcard"),
            (certificate(&[dns("")], &named), "empty DNS name"),
            (certificate(&[uri("")], &named), "empty URI name"),
            (certificate(&[uri("spiffe://c/police\0.evil")], &named), "printable ASCII"),
            (certificate(&[dns("police\n.example")], &named), "printable ASCII"),
            (certificate(&[dns("po lice")], &named), "printable ASCII"),
            (certificate(&many, &named), "17 subject alternative names"),
            (certificate(&[uri("spiffe://c/a")], &two_names), "more than one commonName"),
            (certificate(&[], &[(DnType::CommonName, "a\0b")]), "control characters"),
            (certificate(&[], &[(DnType::CommonName, "")]), "is empty"),
            (b"not a certificate".to_vec(), "well-formed"),
        ] {
            let refused = identities_of_der(&der).expect_err(expected);
            assert!(refused.0.contains(expected), "{refused} lacks {expected:?}");
        }
    }

    #[test]
    fn non_ascii_names_are_refused_in_any_encoding() {
        let der = certificate(&[dns("XX.example"), uri("spiffe://c/a")], &[]);
        let at = der.windows(10).position(|part| part == b"XX.example").expect("the name is in the certificate");
        for bytes in [[0xc3, 0xa9], [0xff, 0xfe]] {
            let mut patched = der.clone();
            patched[at..at + 2].copy_from_slice(&bytes);
            assert!(identities_of_der(&patched).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn leaf_has_a_maximum_size_and_no_trailing_bytes() {
        let mut large = params(&[uri("spiffe://c/a")], &[]);
        large
            .custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![4; LEAF_BYTES_MAX]));
        assert!(identities_of_der(&signed(&large)).expect_err("too large").0.contains("at most 16384"));
        let mut tailed = certificate(&[uri("spiffe://c/a")], &[]);
        tailed.push(0);
        assert!(identities_of_der(&tailed).is_err());
    }
}
