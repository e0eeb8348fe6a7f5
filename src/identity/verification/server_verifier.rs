//! The verifier of servers by chosen subject alternative names, instead of by the name that the gateway connects to.
//!
//! Guarantees:
//! - The chain is verified against the trust anchors, as for any server.
//! - The certificate holds at least one of the chosen names. The name of the connection is only its SNI.
//!
//! Leaves to others: the trust anchors (`trust`), and servers without chosen names (rustls).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// A name that a server's certificate may hold (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A DNS name. A certificate with a wildcard for it holds it (RFC 9525 section 6.3).
    Dns(ServerName<'static>),
    /// A URI, such as a SPIFFE ID. It must be the same, byte by byte.
    Uri(String),
}

impl SubjectAltName {
    /// The most names of one backend (Gateway API, `BackendTLSPolicy`).
    pub const MAX: usize = 5;

    /// Reads a DNS name.
    ///
    /// # Errors
    /// If the text is not a DNS name without wildcard.
    pub fn parse_dns(text: &str) -> Result<Self, String> {
        match ServerName::try_from(text.to_owned()) {
            Ok(name @ ServerName::DnsName(_)) => Ok(Self::Dns(name)),
            _ => Err(format!("{text:?} is not a DNS name; write one such as cameras.city.example, without wildcards")),
        }
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// If the text has no scheme, or characters that a URI has not.
    pub fn parse_uri(text: &str) -> Result<Self, String> {
        let scheme = text.split_once(':').map(|(scheme, rest)| !rest.is_empty() && is_scheme(scheme));
        match scheme == Some(true) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self::Uri(text.to_owned())),
            false => Err(format!("{text:?} is not a URI; write one such as spiffe://city.example/cameras")),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    let follows = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic()) && text.bytes().all(follows)
}

/// Verifies servers by chosen names.
#[derive(Debug)]
pub(crate) struct ChosenNameVerifier {
    names: Vec<SubjectAltName>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    /// For the signatures of handshakes.
    handshakes: Arc<WebPkiServerVerifier>,
}

impl ChosenNameVerifier {
    /// A verifier for servers with one of these names.
    pub(crate) fn new(
        names: Vec<SubjectAltName>,
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        handshakes: Arc<WebPkiServerVerifier>,
    ) -> Self {
        Self { names, roots, algorithms, handshakes }
    }

    fn holds_name(&self, certificate: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> bool {
        self.names.iter().any(|name| match name {
            SubjectAltName::Dns(name) => verify_server_name(parsed, name).is_ok(),
            SubjectAltName::Uri(uri) => holds_uri(certificate, uri),
        })
    }
}

fn holds_uri(certificate: &CertificateDer<'_>, uri: &str) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(held) if *held == uri))
}

impl ServerCertVerifier for ChosenNameVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        match self.holds_name(end_entity, &parsed) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshakes.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.handshakes.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.handshakes.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_or_uris() {
        for (text, dns, uri) in [
            ("cameras.city.example", true, false),
            ("spiffe://city.example/cameras", false, true),
            ("urn:cameras", false, true),
            ("*.city.example", false, false),
            ("127.0.0.1", false, false),
            ("", false, false),
            ("a b:c", false, false),
            ("1a:b", false, false),
            ("spiffe:", false, false),
        ] {
            let read = (SubjectAltName::parse_dns(text).is_ok(), SubjectAltName::parse_uri(text).is_ok());
            assert_eq!(read, (dns, uri), "{text}");
        }
    }
}
