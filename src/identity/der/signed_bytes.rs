//! Signed data (RFC 5280 section 4.1.1): bytes, an algorithm, a signature.
//!
//! The signature is verified with the algorithms that rustls uses for certificates. So a key that may sign a
//! certificate may sign a revocation list as well.

use rustls::crypto::WebPkiSupportedAlgorithms;

use super::der_reader::{BIT_STRING, DerReader, MalformedDer, SEQUENCE, only_element};

/// Signed bytes with their algorithm and signature.
#[derive(Debug)]
pub(crate) struct SignedBytes {
    message: Box<[u8]>,
    /// The contents of the AlgorithmIdentifier.
    algorithm: Box<[u8]>,
    signature: Box<[u8]>,
}

/// The reason why a signature does not verify with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSignature {
    /// The algorithm is not supported.
    Unsupported,
    /// The signature belongs to another key or the bytes were changed, or the key is too short (RSA below 2048 bits).
    Wrong,
}

/// The text that names the supported algorithms.
pub(crate) const SUPPORTED_ALGORITHMS_TEXT: &str = "supported are ECDSA (P-256, P-384, P-521), RSA PKCS#1 v1.5 and RSA-PSS (with MGF1 of \
    the same hash, and a salt as long as the hash), each with SHA-256, SHA-384 or SHA-512, Ed25519 and ML-DSA";

impl SignedBytes {
    /// Splits an encoded certificate or list into the signed bytes and the signature.
    pub(crate) fn parse(der: &[u8]) -> Result<(&[u8], Self), MalformedDer> {
        let mut parts = DerReader::new(only_element(der, SEQUENCE)?);
        let (message, algorithm) = (parts.expect_tag(SEQUENCE)?, parts.expect_tag(SEQUENCE)?.value);
        let signature = whole_bytes(parts.expect_tag(BIT_STRING)?.value)?;
        if !parts.is_empty() {
            return Err(MalformedDer);
        }
        Ok((
            message.value,
            Self { message: message.raw.into(), algorithm: algorithm.into(), signature: signature.into() },
        ))
    }

    /// The contents of the AlgorithmIdentifier.
    pub(crate) fn algorithm(&self) -> &[u8] {
        &self.algorithm
    }

    /// Verifies the signature with this key, an encoded SubjectPublicKeyInfo.
    pub(crate) fn verify(&self, key: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> Result<(), BadSignature> {
        let (kind, key) = algorithm_and_key(key).map_err(|MalformedDer| BadSignature::Wrong)?;
        let mut fault = BadSignature::Unsupported;
        for algorithm in algorithms.all {
            let is_ours = *algorithm.signature_alg_id() == *self.algorithm && *algorithm.public_key_alg_id() == *kind;
            if is_ours && algorithm.verify_signature(key, &self.message, &self.signature).is_ok() {
                return Ok(());
            }
            if is_ours {
                fault = BadSignature::Wrong;
            }
        }
        Err(fault)
    }
}

/// The algorithm and the key of an encoded SubjectPublicKeyInfo.
fn algorithm_and_key(info: &[u8]) -> Result<(&[u8], &[u8]), MalformedDer> {
    let mut parts = DerReader::new(only_element(info, SEQUENCE)?);
    let algorithm = parts.expect_tag(SEQUENCE)?.value;
    Ok((algorithm, whole_bytes(parts.expect_tag(BIT_STRING)?.value)?))
}

/// The contents of a BIT STRING without unused bits.
fn whole_bytes(bits: &[u8]) -> Result<&[u8], MalformedDer> {
    match bits.split_first() {
        Some((0, bytes)) => Ok(bytes),
        _ => Err(MalformedDer),
    }
}
