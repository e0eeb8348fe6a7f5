//! What a client certificate says about its holder: DER in, identities out. Pure.
//!
//! Guarantees: one spelling per identity (DNS names in lower case), printable ASCII only in URIs and DNS names, no
//! wildcards, bounded numbers. A certificate that is odd in any of these ways is refused whole: half of a strange
//! certificate is not evidence.
//!
//! Leaves to others: signatures, validity and revocation, which rustls has checked before anybody asks here.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATIONAL_UNIT};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::expiry;
use crate::model::CallerId;

/// The largest client certificate in bytes. Ordinary ones have one or two KiB.
const MAX_LEAF_BYTES: usize = 16 * 1024;
/// The most subject alternative names of any kind.
const MAX_SANS: usize = 16;

/// A certificate that rustls accepts but this house does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client certificate: {0}")]
pub struct BadCertificate(pub String);

/// What a certificate tells about its holder.
pub(super) struct Facts {
    /// URIs first, then DNS names, then the subject; in the certificate's order, without repeats, never empty.
    pub(super) identities: Vec<CallerId>,
    /// notAfter.
    pub(super) expires: Timestamp,
}

/// Every identity a DER certificate carries: URIs first, then DNS names, then the subject, without repeats, never empty.
///
/// A subject is given with its organizationalUnit, if it has exactly one, and without, so that a claim of either form
/// is found by comparison.
///
/// # Errors
/// If the certificate is not DER, larger than 16 KiB, has more than 16 subject alternative names, an empty, wildcard or
/// not plainly printable one, more than one commonName, or no identity at all.
pub fn identities_of_der(der: &[u8]) -> Result<Vec<CallerId>, BadCertificate> {
    facts_of_der(der).map(|facts| facts.identities)
}

pub(super) fn facts_of_der(der: &[u8]) -> Result<Facts, BadCertificate> {
    if der.len() > MAX_LEAF_BYTES {
        return bad(format!("has {} bytes, at most {MAX_LEAF_BYTES} are accepted", der.len()));
    }
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return bad("is not one well-formed X.509 certificate");
    };
    let mut identities = alternative_names(&certificate)?;
    identities.extend(subjects(&certificate)?);
    if identities.is_empty() {
        return bad("carries no URI, no DNS name and no commonName, so it names nobody");
    }
    Ok(Facts { identities, expires: expiry::timestamp(certificate.validity().not_after) })
}

/// URI SANs, then DNS SANs; e-mail addresses, IP addresses and the like identify no department.
fn alternative_names(certificate: &X509Certificate<'_>) -> Result<Vec<CallerId>, BadCertificate> {
    let Ok(extension) = certificate.subject_alternative_name() else {
        return bad("repeats or garbles its subjectAltName extension");
    };
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    if names.len() > MAX_SANS {
        return bad(format!("has {} subject alternative names, at most {MAX_SANS} are accepted", names.len()));
    }
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => keep(&mut uris, CallerId::Uri(printable("URI", uri)?.to_owned())),
            GeneralName::DNSName(name) => keep(&mut dns_names, CallerId::Dns(host(name)?)),
            GeneralName::Invalid(..) => return bad("has a subject alternative name that cannot be read"),
            _ => {}
        }
    }
    uris.append(&mut dns_names);
    Ok(uris)
}

fn keep(identities: &mut Vec<CallerId>, identity: CallerId) {
    if !identities.contains(&identity) {
        identities.push(identity);
    }
}

/// Text that means the same to every reader of it: no NUL for one reader to stop at, no look-alike letters.
fn printable<'a>(kind: &str, text: &'a str) -> Result<&'a str, BadCertificate> {
    if text.is_empty() {
        return bad(format!("has an empty {kind} name"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return bad(format!("has a {kind} name with other than printable ASCII characters: {text:?}"));
    }
    Ok(text)
}

/// A host name in lower case (RFC 9525 section 6.3 compares them without case).
fn host(name: &str) -> Result<String, BadCertificate> {
    let name = printable("DNS", name)?;
    if name.contains('*') {
        return bad(format!("has the wildcard DNS name {name:?}, which names no single caller"));
    }
    Ok(name.to_ascii_lowercase())
}

/// The subject in the one or two forms in which a configuration may claim it.
fn subjects(certificate: &X509Certificate<'_>) -> Result<Vec<CallerId>, BadCertificate> {
    let subject = certificate.subject();
    let mut common_names = subject.iter_by_oid(&OID_X509_COMMON_NAME);
    let Some(first) = common_names.next() else { return Ok(Vec::new()) };
    if common_names.next().is_some() {
        return bad("has more than one commonName");
    }
    let common_name = attribute("commonName", first)?;
    let mut units = subject.iter_by_oid(&OID_X509_ORGANIZATIONAL_UNIT);
    let unit = match (units.next(), units.next()) {
        (Some(only), None) => Some(attribute("organizationalUnit", only)?),
        _ => None,
    };
    let with_unit =
        unit.map(|unit| CallerId::Subject { common_name: common_name.clone(), organizational_unit: Some(unit) });
    let alone = CallerId::Subject { common_name: common_name.clone(), organizational_unit: None };
    Ok(with_unit.into_iter().chain([alone]).collect())
}

/// An attribute's text: any script, since people's offices have names, but nothing invisible.
fn attribute(kind: &str, attribute: &AttributeTypeAndValue<'_>) -> Result<String, BadCertificate> {
    let Ok(text) = attribute.as_str() else {
        return bad(format!("has a {kind} in an encoding that cannot be read"));
    };
    if text.is_empty() || text.chars().any(char::is_control) {
        return bad(format!("has a {kind} that is empty or holds control characters: {text:?}"));
    }
    Ok(text.to_owned())
}

fn bad<T>(what: impl Into<String>) -> Result<T, BadCertificate> {
    Err(BadCertificate(what.into()))
}
