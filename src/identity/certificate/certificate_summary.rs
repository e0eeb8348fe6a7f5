//! A summary of a refused certificate for the log: its claimed subject, in bounded and printable text.
//!
//! For a refused connection rustls returns only an error, and the kind of the error decides the alert. So the verifier
//! records the certificate it has refused, and the code that handles the error on the same thread takes the record.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::model::hex_text;

/// The most characters of a subject or issuer that are shown. An unknown peer controls their contents.
const NAME_CHARACTERS_MAX: usize = 128;
/// The most bytes of a serial number that are shown (RFC 5280 section 4.1.2.2 allows 20).
const SERIAL_BYTES_MAX: usize = 20;

/// The claims of a certificate, for the log. None of them is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// The subject, at most 128 characters.
    pub subject: String,
    /// The issuer, at most 128 characters.
    pub issuer: String,
    /// The serial number in hexadecimal, at most 20 bytes.
    pub serial: String,
}

impl CertificateSummary {
    /// The summary of a DER certificate; `None` if it cannot be parsed.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            subject: escape_hidden(&certificate.subject().to_string()),
            issuer: escape_hidden(&certificate.issuer().to_string()),
            serial: hex_text(&certificate.raw_serial()[..certificate.raw_serial().len().min(SERIAL_BYTES_MAX)]),
        })
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject {}, issuer {}, serial {}", self.subject, self.issuer, self.serial)
    }
}

/// The beginning of a text. Characters that are invisible, or that change the display of their neighbours, are escaped.
pub(crate) fn escape_hidden(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == NAME_CHARACTERS_MAX {
            shown.push('…');
            break;
        }
        match is_hidden(character) {
            true => shown.extend(character.escape_unicode()),
            false => shown.push(character),
        }
    }
    shown
}

/// Control characters, and the Unicode characters that are invisible or change the direction of writing.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The certificate that each thread has refused last, until it is taken: at most one certificate per thread.
#[derive(Debug, Default)]
pub(crate) struct RefusedCertificates(Mutex<Vec<(ThreadId, CertificateSummary)>>);

impl RefusedCertificates {
    pub(crate) fn record(&self, certificate: &CertificateDer<'_>) {
        let shown = CertificateSummary::from_der(certificate);
        let this = thread::current().id();
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner); // entries are never partial
        refused.retain(|(thread, _)| *thread != this);
        refused.extend(shown.map(|shown| (this, shown)));
    }

    pub(crate) fn take_for_thread(&self) -> Option<CertificateSummary> {
        let this = thread::current().id();
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = refused.iter().position(|(thread, _)| *thread == this)?;
        Some(refused.swap_remove(position).1)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    use super::*;

    fn certificate(common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(0x0102));
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    #[test]
    fn summary_is_bounded_and_printable() {
        let shown = CertificateSummary::from_der(&certificate("警察\n\u{202e}a")).expect("a certificate");
        assert_eq!(shown.to_string(), "subject CN=警察\\u{a}\\u{202e}a, issuer CN=警察\\u{a}\\u{202e}a, serial 0102");
        let long = CertificateSummary::from_der(&certificate(&"x".repeat(5_000))).expect("a certificate");
        assert_eq!(long.subject.chars().count(), NAME_CHARACTERS_MAX + 1);
        assert_eq!(CertificateSummary::from_der(b"junk"), None);
    }

    #[test]
    fn refused_certificate_is_taken_once_by_its_own_thread() {
        let refused = RefusedCertificates::default();
        refused.record(&certificate("a"));
        refused.record(&certificate("b"));
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(refused.take_for_thread(), None, "recorded by another thread"));
        });
        assert_eq!(refused.take_for_thread().map(|shown| shown.subject).as_deref(), Some("CN=b"));
        assert_eq!(refused.take_for_thread(), None);
        refused.record(&CertificateDer::from(b"junk".to_vec()));
        assert_eq!(refused.take_for_thread(), None);
    }
}
