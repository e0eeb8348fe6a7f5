//! The fields about the client certificate of a connection, those of nginx, for a subsystem: the verdict, subject,
//! issuer, and the certificate itself.
//!
//! Guarantees: the values are printable ASCII.
//!
//! Leaves to others: the names of the fields (`proxy`), and the verdict (`verification`).

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::distinguished_name::rfc2253_text;
use super::unaccepted_certificate::UnacceptedCertificate;

/// All but the unreserved characters (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The characters of base64 in a line of PEM.
const PEM_LINE: usize = 64;

/// The fields about the client certificate that a subsystem gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CertificateForwarding {
    /// Nothing.
    #[default]
    None,
    /// The verdict, the subject and the issuer.
    Names,
    /// The same, and the certificate.
    Certificate,
}

/// The client certificate of a connection, or its absence.
#[derive(Clone, Copy, Debug)]
pub enum ShownCertificate<'a> {
    /// There is none.
    None,
    /// It was verified.
    Verified(&'a CertificateDer<'a>),
    /// It was not accepted.
    Unaccepted(&'a UnacceptedCertificate),
}

/// The values of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedCertificate {
    /// `SUCCESS`, `FAILED:reason`, or `NONE` (`$ssl_client_verify`).
    pub verdict: HeaderValue,
    /// The subject in the form of RFC 2253 (`$ssl_client_s_dn`).
    pub subject: Option<HeaderValue>,
    /// The issuer in the form of RFC 2253 (`$ssl_client_i_dn`).
    pub issuer: Option<HeaderValue>,
    /// The certificate as PEM, percent-encoded (`$ssl_client_escaped_cert`).
    pub certificate: Option<HeaderValue>,
}

impl<'a> ShownCertificate<'a> {
    /// The subject of a verified certificate in the form of RFC 2253; empty without one. That of another certificate is
    /// a claim that nobody has checked.
    pub(crate) fn verified_subject(self) -> String {
        let Self::Verified(der) = self else { return String::new() };
        X509Certificate::from_der(der).map(|(_, read)| rfc2253_text(read.subject())).unwrap_or_default()
    }

    fn der(self) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::Verified(der) => Some(der),
            Self::Unaccepted(certificate) => certificate.der.as_deref(),
        }
    }

    fn verdict(self) -> HeaderValue {
        match self {
            Self::None => HeaderValue::from_static("NONE"),
            Self::Verified(_) => HeaderValue::from_static("SUCCESS"),
            Self::Unaccepted(certificate) => {
                let reason = certificate.openssl_reason.unwrap_or(&certificate.reason);
                let plain: String = reason.chars().filter(|letter| matches!(letter, ' '..='~')).collect();
                HeaderValue::try_from(format!("FAILED:{plain}")).unwrap_or(HeaderValue::from_static("FAILED"))
            }
        }
    }
}

impl ForwardedCertificate {
    /// The values for a certificate; `None` if nothing is forwarded.
    pub(crate) fn new(shown: ShownCertificate<'_>, forwarding: CertificateForwarding) -> Option<Self> {
        if forwarding == CertificateForwarding::None {
            return None;
        }
        let der = shown.der();
        let read = der.and_then(|der| X509Certificate::from_der(der).ok()).map(|(_, read)| read);
        let value = |text: String| HeaderValue::try_from(text).ok().filter(|value| !value.is_empty());
        let is_whole = forwarding == CertificateForwarding::Certificate;
        Some(Self {
            verdict: shown.verdict(),
            subject: read.as_ref().and_then(|read| value(rfc2253_text(read.subject()))),
            issuer: read.as_ref().and_then(|read| value(rfc2253_text(read.issuer()))),
            certificate: der.filter(|_| is_whole).and_then(|der| value(escaped_pem(der))),
        })
    }
}

fn escaped_pem(der: &[u8]) -> String {
    let base64 = base64_text(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in base64.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    utf8_percent_encode(&pem, ESCAPED).to_string()
}

/// RFC 4648 section 4.
pub(crate) fn base64_text(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let number = (0..3).fold(0_u32, |number, at| number << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = number >> (18 - 6 * at) & 0x3f;
            text.push(if at <= chunk.len() { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_equals_the_vectors_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64_text(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn pem_is_percent_encoded_as_a_component() {
        let text = escaped_pem(&[0xfb; 49]);
        assert!(text.starts_with("-----BEGIN%20CERTIFICATE-----%0A%2B"), "{text}");
        assert!(text.ends_with("%3D%3D%0A-----END%20CERTIFICATE-----%0A"), "{text}");
    }

    #[test]
    fn connection_without_a_certificate_has_a_verdict_alone() {
        let told = ForwardedCertificate::new(ShownCertificate::None, CertificateForwarding::Certificate);
        let told = told.expect("a verdict");
        assert_eq!((told.verdict.as_bytes(), told.subject, told.certificate), (b"NONE".as_slice(), None, None));
        assert_eq!(ForwardedCertificate::new(ShownCertificate::None, CertificateForwarding::None), None);
    }
}
