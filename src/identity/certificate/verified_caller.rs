//! The verified identity of the peer of a connection.
//!
//! Guarantees: outside this file a [`Caller`] can be made only from a handshake that rustls has finished, and so
//! verified.

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::model::{CallerId, hex_text};

use super::client_identities::{BadCertificate, certificate_facts};

/// Evidence of a verified handshake: the identity of the peer of this connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    identities: Arc<[CallerId]>,
    header: HeaderValue,
    expires: Timestamp,
    fingerprint: Arc<str>,
    chain: Arc<[CertificateDer<'static>]>,
}

/// The reason why the certificate of a handshake makes no caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerFault {
    #[error(transparent)]
    Unverified(#[from] rustls::Error),
    #[error(transparent)]
    Bad(#[from] BadCertificate),
}

impl Caller {
    /// The caller of a finished handshake; `None` if the peer presented no certificate. `verify` judges the chain again
    /// where a finished handshake is no evidence of that, otherwise it has nothing to do.
    ///
    /// # Errors
    /// If the handshake is not finished, `verify` fails, or [`crate::identity::identities_of_der`] refuses the
    /// certificate.
    pub(crate) fn from_handshake(
        connection: &rustls::ServerConnection,
        verify: impl FnOnce(&[CertificateDer<'_>]) -> Result<(), rustls::Error>,
    ) -> Result<Option<Self>, CallerFault> {
        if connection.is_handshaking() {
            return Err(BadCertificate("the handshake is not complete".to_owned()).into());
        }
        let Some(chain) = connection.peer_certificates() else { return Ok(None) };
        verify(chain)?;
        Ok(Some(Self::from_chain(chain)?))
    }

    fn from_chain(chain: &[CertificateDer<'static>]) -> Result<Self, BadCertificate> {
        let leaf = chain.first().ok_or_else(|| BadCertificate("the chain is empty".to_owned()))?;
        let facts = certificate_facts(leaf)?;
        let header = header_of(&facts.identities)?;
        let fingerprint = hex_text(&Sha256::digest(leaf)).into();
        let identities = facts.identities.into();
        Ok(Self { identities, header, expires: facts.expires, fingerprint, chain: chain.into() })
    }

    /// Every identity the certificate carries: URIs, then DNS names, then the subject; never empty.
    pub fn identities(&self) -> &[CallerId] {
        &self.identities
    }

    /// The value of `X-Tallygate-Caller`: the first URI, else the first DNS name, else the subject (RFC 4514).
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The end of the certificate's validity (notAfter).
    pub fn expires_at(&self) -> Timestamp {
        self.expires
    }

    /// SHA-256 of the certificate in lower-case hexadecimal, which names it in logs as `openssl x509 -fingerprint`
    /// does.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The certificates that the peer presented, its own first; never empty.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn header_of(identities: &[CallerId]) -> Result<HeaderValue, BadCertificate> {
    let text = identities.first().map(header_text).unwrap_or_default();
    HeaderValue::try_from(text).map_err(|_| BadCertificate("its identity does not fit into a header".to_owned()))
}

fn header_text(identity: &CallerId) -> String {
    match identity {
        CallerId::Uri(text) | CallerId::Dns(text) => text.clone(),
        CallerId::Subject { common_name, organizational_unit: None } => format!("CN={}", escape_rfc4514(common_name)),
        CallerId::Subject { common_name, organizational_unit: Some(unit) } => {
            format!("CN={},OU={}", escape_rfc4514(common_name), escape_rfc4514(unit))
        }
    }
}

/// An attribute value escaped as in RFC 4514 section 2.4. One value cannot pass for two attributes, and the text is
/// ASCII.
fn escape_rfc4514(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'/' | b'@' => text.push(byte.into()),
            other => {
                text.push('\\');
                text.push_str(&hex_text(&[other]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(common_name: &str, organizational_unit: Option<&str>) -> CallerId {
        CallerId::Subject {
            common_name: common_name.to_owned(),
            organizational_unit: organizational_unit.map(str::to_owned),
        }
    }

    #[test]
    fn header_has_the_first_identity_in_an_unambiguous_encoding() {
        let uri = CallerId::Uri("spiffe://city.example/department/police".to_owned());
        let host = CallerId::Dns("police.city.example".to_owned());
        for (identities, expected) in [
            (vec![uri.clone(), host.clone()], "spiffe://city.example/department/police"),
            (vec![host, subject("a", None)], "police.city.example"),
            (vec![subject("police", Some("traffic")), subject("police", None)], "CN=police,OU=traffic"),
            (vec![subject("police,OU=traffic", None)], "CN=police\\2cOU\\3dtraffic"),
            (vec![subject("警", None)], "CN=\\e8\\ad\\a6"),
        ] {
            assert_eq!(header_of(&identities).expect("a header value"), expected);
        }
    }

    #[test]
    fn fingerprint_is_lower_case_hexadecimal() {
        assert_eq!(hex_text(&[0x00, 0xAB, 0x7f]), "00ab7f");
    }
}
