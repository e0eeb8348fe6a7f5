//! One revocation list (RFC 5280 section 5): its parser, its signature and its lookup.
//!
//! Guarantees:
//! - A list with a part that is not understood and may not be ignored is not used at all.
//! - Parsing needs 16 bytes per entry beside the encoding. The parsed list keeps the serial numbers ([`SerialSet`]) and
//!   a few fields.
//!
//! Leaves to others: the messages about wrong dates and issuers (`crl_store`).

use std::sync::OnceLock;

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::identity::certificate::expiry;
use crate::identity::der::der_reader::{
    BOOLEAN, DerElement, DerReader, GENERALIZED_TIME, INTEGER, MalformedDer, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    UTC_TIME, constructed_tag, only_element, primitive_tag,
};
use crate::identity::der::signed_bytes::{BadSignature, SignedBytes};
use crate::identity::trust::trust_anchors::CrlIssuer;
use crate::model::hex_text;

use super::crl_scope::{BadCrlScope, CrlScopeExtension};
use super::serial_set::{SerialSet, without_leading_zeros};

/// The object identifiers of extensions, `2.5.29.n`, as encoded.
const fn extension_oid(number: u8) -> [u8; 3] {
    [0x55, 0x1d, number]
}
const ISSUER_ALT_NAME: [u8; 3] = extension_oid(18);
const CRL_NUMBER: [u8; 3] = extension_oid(20);
const REASON_CODE: [u8; 3] = extension_oid(21);
const HOLD_INSTRUCTION: [u8; 3] = extension_oid(23);
const INVALIDITY_DATE: [u8; 3] = extension_oid(24);
const DELTA_INDICATOR: [u8; 3] = extension_oid(27);
const ISSUING_DISTRIBUTION_POINT: [u8; 3] = extension_oid(28);
const CERTIFICATE_ISSUER: [u8; 3] = extension_oid(29);
const AUTHORITY_KEY_IDENTIFIER: [u8; 3] = extension_oid(35);
const FRESHEST_CRL: [u8; 3] = extension_oid(46);

/// A revocation list.
#[derive(Debug)]
pub(crate) struct RevocationList {
    /// The issuer's name, encoded.
    issuer: Box<[u8]>,
    /// The issuer's name, for display.
    pub(crate) issuer_name: String,
    pub(crate) number: Option<String>,
    /// thisUpdate.
    pub(crate) this_update: Timestamp,
    /// nextUpdate.
    pub(crate) next_update: Timestamp,
    pub(crate) scope: CrlScopeExtension,
    /// The authorityKeyIdentifier: the key that the list names as its signer.
    key_id: Option<Box<[u8]>>,
    serials: SerialSet,
    /// The signed data, by which the signer is found. Dropped once a configured authority is known to be the signer.
    signed: Option<SignedBytes>,
    /// The key that has signed the list, as an encoded SubjectPublicKeyInfo. Set once.
    signer: OnceLock<Box<[u8]>>,
    /// SHA-256 of the encoded list.
    pub(crate) digest: [u8; 32],
}

/// The reason why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadRevocationList {
    /// The encoding violates RFC 5280.
    Malformed,
    /// The list has no nextUpdate.
    NoNextUpdate,
    /// A correct list of an unsupported kind: the kind, and advice.
    Unsupported(String),
}

impl From<MalformedDer> for BadRevocationList {
    fn from(_: MalformedDer) -> Self {
        Self::Malformed
    }
}

impl From<BadCrlScope> for BadRevocationList {
    fn from(scope: BadCrlScope) -> Self {
        match scope {
            BadCrlScope::Malformed => Self::Malformed,
            BadCrlScope::Unsupported(what) => Self::Unsupported(what.to_owned()),
        }
    }
}

/// The reason why a list does not belong to an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrlMismatch {
    /// The list names another issuer.
    OtherName,
    /// Another key has signed the list.
    OtherKey,
    /// The signature algorithm is not supported.
    Unsupported,
}

impl RevocationList {
    /// Parses an encoded list.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, BadRevocationList> {
        let (list, signed) = SignedBytes::parse(der)?;
        let mut fields = DerReader::new(list);
        let version = fields.optional_tag(INTEGER)?;
        if version.is_some_and(|version| version.value != [1])
            || fields.expect_tag(SEQUENCE)?.value != signed.algorithm()
        {
            return Err(BadRevocationList::Malformed);
        }
        let issuer = fields.expect_tag(SEQUENCE)?.raw;
        let from = next_timestamp(&mut fields)?.ok_or(BadRevocationList::Malformed)?;
        let until = next_timestamp(&mut fields)?.ok_or(BadRevocationList::NoNextUpdate)?;
        let entries = fields.optional_tag(SEQUENCE)?.map_or(&[][..], |entries| entries.value);
        let extensions =
            fields.optional_tag(constructed_tag(0))?.map(|extensions| only_element(extensions.value, SEQUENCE));
        if !fields.is_empty() {
            return Err(BadRevocationList::Malformed);
        }
        let extensions = CrlExtensions::parse(extensions.transpose()?.unwrap_or_default())?;
        Ok(Self {
            issuer: issuer.into(),
            issuer_name: X509Name::from_der(issuer).map_err(|_| BadRevocationList::Malformed)?.1.to_string(),
            number: extensions.number.map(number_text),
            this_update: from,
            next_update: until,
            scope: extensions.scope.map(CrlScopeExtension::parse).transpose()?.unwrap_or_default(),
            key_id: extensions.authority_key.map(read_key_identifier).transpose()?.flatten(),
            serials: read_serials(entries)?,
            signed: Some(signed),
            signer: OnceLock::new(),
            digest: Sha256::digest(der).into(),
        })
    }

    /// Whether the list names this issuer.
    pub(crate) fn has_issuer_name(&self, issuer: &[u8]) -> bool {
        *self.issuer == *issuer
    }

    /// Whether the authority has signed the list. The signature is verified once; later calls compare keys.
    pub(crate) fn is_issued_by(
        &self,
        issuer: &CrlIssuer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CrlMismatch> {
        if !self.has_issuer_name(issuer.name) {
            return Err(CrlMismatch::OtherName);
        }
        if let Some(signer) = self.signer.get() {
            return if **signer == *issuer.key { Ok(()) } else { Err(CrlMismatch::OtherKey) };
        }
        // Key identifiers are no evidence: authorities compute that of a list in another way than that of a
        // certificate.
        let signed = self.signed.as_ref().ok_or(CrlMismatch::OtherKey)?;
        match signed.verify(issuer.key, algorithms) {
            Ok(()) => {
                let _ = self.signer.set(issuer.key.into()); // a faster thread has set the same value
                Ok(())
            }
            Err(BadSignature::Wrong) => Err(CrlMismatch::OtherKey),
            Err(BadSignature::Unsupported) => Err(CrlMismatch::Unsupported),
        }
    }

    /// Whether the signer is known and has this key.
    pub(crate) fn is_signed_by(&self, key: &[u8]) -> bool {
        self.signer.get().is_some_and(|signer| **signer == *key)
    }

    /// Whether both lists have one signer and cover the same certificates. Then the newer list replaces the older one.
    pub(crate) fn has_same_scope_as(&self, other: &Self) -> bool {
        let (one, another) = (self.signer.get(), other.signer.get());
        let is_of_one_key = one == another && (one.is_some() || self.key_id == other.key_id);
        self.issuer == other.issuer && is_of_one_key && self.scope == other.scope
    }

    /// Frees the signed data once the signer is known.
    pub(crate) fn shrink(&mut self) {
        if self.signer.get().is_some() {
            self.signed = None;
        }
    }

    /// Whether the list names the certificate with this serial number.
    pub(crate) fn contains_serial(&self, serial: &[u8]) -> bool {
        self.serials.contains(without_leading_zeros(serial))
    }

    /// The number of certificates on the list.
    pub(crate) fn len(&self) -> usize {
        self.serials.len()
    }
}

/// The supported extensions of a list, as encoded.
#[derive(Default)]
struct CrlExtensions<'a> {
    number: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    authority_key: Option<&'a [u8]>,
}

impl<'a> CrlExtensions<'a> {
    fn parse(extensions: &'a [u8]) -> Result<Self, BadRevocationList> {
        let (mut extensions, mut read) = (DerReader::new(extensions), Self::default());
        while !extensions.is_empty() {
            let EncodedExtension { id, critical, value } = EncodedExtension::next_extension(&mut extensions)?;
            let place = match <[u8; 3]>::try_from(id).unwrap_or_default() {
                CRL_NUMBER => &mut read.number,
                ISSUING_DISTRIBUTION_POINT => &mut read.scope,
                AUTHORITY_KEY_IDENTIFIER => &mut read.authority_key,
                DELTA_INDICATOR => {
                    return Err(unsupported_list(
                        "is a delta list (it contains only changes to another list, RFC 5280 section 5.2.4); fetch the \
                         complete list instead",
                    ));
                }
                ISSUER_ALT_NAME | FRESHEST_CRL => continue,
                _ if critical => return Err(unknown_critical_extension(id)),
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(BadRevocationList::Malformed);
            }
        }
        Ok(read)
    }
}

fn unsupported_list(what: &str) -> BadRevocationList {
    BadRevocationList::Unsupported(what.to_owned())
}

/// RFC 5280 section 5.2: a list with an unknown critical extension must not be used.
fn unknown_critical_extension(id: &[u8]) -> BadRevocationList {
    let id = hex_text(id);
    BadRevocationList::Unsupported(format!(
        "has an unknown critical extension (object identifier {id}, as encoded); have the authority issue a list \
         without it"
    ))
}

struct EncodedExtension<'a> {
    id: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

impl<'a> EncodedExtension<'a> {
    fn next_extension(extensions: &mut DerReader<'a>) -> Result<Self, MalformedDer> {
        let mut fields = DerReader::new(extensions.expect_tag(SEQUENCE)?.value);
        let id = fields.expect_tag(OBJECT_IDENTIFIER)?.value;
        let critical = fields.optional_tag(BOOLEAN)?.is_some_and(|critical| critical.value != [0]);
        let value = fields.expect_tag(OCTET_STRING)?.value;
        if fields.is_empty() { Ok(Self { id, critical, value }) } else { Err(MalformedDer) }
    }
}

fn next_timestamp(fields: &mut DerReader<'_>) -> Result<Option<Timestamp>, MalformedDer> {
    let found = match fields.optional_tag(UTC_TIME)? {
        Some(time) => Some(time),
        None => fields.optional_tag(GENERALIZED_TIME)?,
    };
    found.map(parse_time).transpose()
}

fn parse_time(element: DerElement<'_>) -> Result<Timestamp, MalformedDer> {
    let (_, time) = ASN1Time::from_der(element.raw).map_err(|_| MalformedDer)?;
    Ok(expiry::asn1_timestamp(time))
}

/// The serial numbers of the entries. The date and reason of an entry have no influence on the revocation.
fn read_serials(entries: &[u8]) -> Result<SerialSet, BadRevocationList> {
    let (mut entries, mut serials) = (DerReader::new(entries), Vec::new());
    while !entries.is_empty() {
        let mut fields = DerReader::new(entries.expect_tag(SEQUENCE)?.value);
        serials.push(without_leading_zeros(fields.expect_tag(INTEGER)?.value));
        if !matches!(fields.next_element()?.tag, UTC_TIME | GENERALIZED_TIME) {
            return Err(BadRevocationList::Malformed);
        }
        let extensions = fields.optional_tag(SEQUENCE)?;
        if !fields.is_empty() {
            return Err(BadRevocationList::Malformed);
        }
        extensions.map_or(Ok(()), |extensions| check_entry(extensions.value))?;
    }
    SerialSet::new(serials).ok_or(BadRevocationList::Malformed)
}

/// RFC 5280 section 5.3: a list with an entry that is not understood must not be used.
fn check_entry(extensions: &[u8]) -> Result<(), BadRevocationList> {
    let mut extensions = DerReader::new(extensions);
    while !extensions.is_empty() {
        let EncodedExtension { id, critical, .. } = EncodedExtension::next_extension(&mut extensions)?;
        match <[u8; 3]>::try_from(id).unwrap_or_default() {
            REASON_CODE | HOLD_INSTRUCTION | INVALIDITY_DATE => {}
            CERTIFICATE_ISSUER => {
                return Err(unsupported_list(
                    "is an indirect list (an entry names another issuer, RFC 5280 section 5.3.3); have each authority \
                     sign a list of its own",
                ));
            }
            _ if critical => return Err(unknown_critical_extension(id)),
            _ => {}
        }
    }
    Ok(())
}

/// The key identifier of an authorityKeyIdentifier extension.
fn read_key_identifier(extension: &[u8]) -> Result<Option<Box<[u8]>>, MalformedDer> {
    let id = DerReader::new(only_element(extension, SEQUENCE)?).optional_tag(primitive_tag(0))?;
    Ok(id.map(|id| id.value.into()))
}

/// A number in decimal notation, or in hexadecimal if it is very long.
fn number_text(extension: &[u8]) -> String {
    let Ok(digits) = only_element(extension, INTEGER).map(without_leading_zeros) else { return "?".to_owned() };
    if digits.len() <= size_of::<u64>() {
        return digits.iter().fold(0_u64, |number, digit| number << 8 | u64::from(*digit)).to_string();
    }
    let digits = hex_text(&digits[..digits.len().min(20)]);
    format!("0x{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::der::der_reader::{BIT_STRING, encode_element};

    const OF_A: &[u8] = &[0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'A'];
    const ALGORITHM: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

    fn time() -> Vec<u8> {
        encode_element(UTC_TIME, b"260601000000Z")
    }

    fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
        let critical = if critical { encode_element(BOOLEAN, &[0xff]) } else { Vec::new() };
        encode_element(
            SEQUENCE,
            &[encode_element(OBJECT_IDENTIFIER, &extension_oid(number)), critical, encode_element(OCTET_STRING, value)]
                .concat(),
        )
    }

    fn entry(serial: &[u8], extensions: &[u8]) -> Vec<u8> {
        encode_element(SEQUENCE, &[encode_element(INTEGER, serial), time(), extensions.to_vec()].concat())
    }

    /// A list with these body fields and without a valid signature.
    fn list(body: &[Vec<u8>]) -> Vec<u8> {
        let body = encode_element(SEQUENCE, &body.concat());
        encode_element(SEQUENCE, &[body, ALGORITHM.to_vec(), encode_element(BIT_STRING, &[0, 1])].concat())
    }

    fn with(entries: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = encode_element(constructed_tag(0), &encode_element(SEQUENCE, &extensions.concat()));
        let entries = if entries.is_empty() { Vec::new() } else { encode_element(SEQUENCE, &entries.concat()) };
        list(&[encode_element(INTEGER, &[1]), ALGORITHM.to_vec(), OF_A.to_vec(), time(), time(), entries, extensions])
    }

    #[test]
    fn crl_is_parsed_with_its_number_and_entries() {
        let reason = encode_element(SEQUENCE, &extension(21, false, &[0x0a, 1, 1]));
        let entries = [entry(&[0, 0x80], &reason), entry(&[7; 20], &[]), entry(&[1], &encode_element(SEQUENCE, &[]))];
        let read = RevocationList::parse(&with(&entries, &[extension(20, false, &encode_element(INTEGER, &[1, 0]))]));
        let read = read.expect("a list");
        assert_eq!((read.issuer_name.as_str(), read.number.as_deref(), read.len()), ("CN=A", Some("256"), 3));
        assert!(
            read.contains_serial(&[0x80])
                && read.contains_serial(&[0, 0x80])
                && read.contains_serial(&[7; 20])
                && read.contains_serial(&[1])
        );
        assert!(!read.contains_serial(&[2]) && !read.contains_serial(&[]));
        assert_eq!(read.next_update, "2026-06-01T00:00:00Z".parse().expect("a time"));
    }

    #[test]
    fn version_1_crl_has_no_extensions() {
        let first = list(&[ALGORITHM.to_vec(), OF_A.to_vec(), time(), time()]);
        assert_eq!(RevocationList::parse(&first).expect("a list").scope, CrlScopeExtension::default());
    }

    #[test]
    fn unsupported_crl_extension_is_named() {
        for (bytes, expected) in [
            (with(&[], &[extension(27, true, &encode_element(INTEGER, &[1]))]), "is a delta list"),
            (
                with(
                    &[],
                    &[extension(28, true, &encode_element(SEQUENCE, &encode_element(primitive_tag(4), &[0xff])))],
                ),
                "is an indirect list",
            ),
            (with(&[entry(&[1], &encode_element(SEQUENCE, &extension(29, true, &[])))], &[]), "is an indirect list"),
            (with(&[], &[extension(99, true, &[])]), "unknown critical extension (object identifier 551d63"),
            (with(&[entry(&[1], &encode_element(SEQUENCE, &extension(99, true, &[])))], &[]), "critical extension"),
        ] {
            match RevocationList::parse(&bytes) {
                Err(BadRevocationList::Unsupported(message)) => assert!(message.contains(expected), "{message}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(
            RevocationList::parse(&with(&[], &[extension(99, false, &[])])).is_ok(),
            "an unknown non-critical extension is ignored"
        );
    }

    #[test]
    fn malformed_crl_is_refused() {
        let good = with(&[entry(&[1], &[])], &[extension(20, false, &encode_element(INTEGER, &[1]))]);
        assert!(RevocationList::parse(&good).is_ok());
        let number = extension(20, false, &encode_element(INTEGER, &[1]));
        for bytes in [
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            with(&[], &[number.clone(), number]),
            with(&[encode_element(SEQUENCE, &encode_element(INTEGER, &[1]))], &[]),
            list(&[encode_element(INTEGER, &[0]), ALGORITHM.to_vec(), OF_A.to_vec(), time(), time()]),
            list(&[encode_element(INTEGER, &[1]), encode_element(SEQUENCE, &[]), OF_A.to_vec(), time(), time()]),
            Vec::new(),
        ] {
            assert_eq!(RevocationList::parse(&bytes).err(), Some(BadRevocationList::Malformed), "{bytes:x?}");
        }
        let endless = list(&[encode_element(INTEGER, &[1]), ALGORITHM.to_vec(), OF_A.to_vec(), time()]);
        assert_eq!(RevocationList::parse(&endless).err(), Some(BadRevocationList::NoNextUpdate));
    }
}
