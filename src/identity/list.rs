//! One revocation list (RFC 5280 section 5): read, and asked.
//!
//! Guarantees: of a list that has something which is not understood and may not be ignored, nothing is used. Reading
//! needs 16 bytes an entry beside the encoding; what is kept are the serial numbers ([`SerialSet`]) and a few fields.
//!
//! Leaves to others: what is wrong with its dates and issuer, in words (`revocation`).

use std::sync::OnceLock;

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::der::{
    BOOLEAN, Element, Elements, GENERALIZED_TIME, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE,
    UTC_TIME, constructed, only, primitive,
};
use super::expiry;
use super::scope::{BadScope, ListScope};
use super::serials::{SerialSet, plain};
use super::signed::{BadSignature, SignedBytes};

/// The object identifiers of extensions, `2.5.29.n`, as encoded.
const fn id_ce(number: u8) -> [u8; 3] {
    [0x55, 0x1d, number]
}
const ISSUER_ALT_NAME: [u8; 3] = id_ce(18);
const LIST_NUMBER: [u8; 3] = id_ce(20);
const REASON: [u8; 3] = id_ce(21);
const HOLD_INSTRUCTION: [u8; 3] = id_ce(23);
const INVALIDITY_DATE: [u8; 3] = id_ce(24);
const DELTA_INDICATOR: [u8; 3] = id_ce(27);
const ISSUING_POINT: [u8; 3] = id_ce(28);
const CERTIFICATE_ISSUER: [u8; 3] = id_ce(29);
const AUTHORITY_KEY: [u8; 3] = id_ce(35);
const FRESHEST_LIST: [u8; 3] = id_ce(46);

/// A revocation list.
#[derive(Debug)]
pub(super) struct RevocationList {
    /// Its issuer's name, encoded.
    issuer: Box<[u8]>,
    /// Its issuer's name, for people.
    pub(super) issuer_name: String,
    pub(super) number: Option<String>,
    /// thisUpdate.
    pub(super) from: Timestamp,
    /// nextUpdate.
    pub(super) until: Timestamp,
    pub(super) scope: ListScope,
    /// Which of its issuer's keys it says has signed it.
    key_id: Option<Box<[u8]>>,
    serials: SerialSet,
    /// What a signer is found by; gone once one of the configured authorities is.
    signed: Option<SignedBytes>,
    /// The key that has signed it, as an encoded SubjectPublicKeyInfo: found once.
    signer: OnceLock<Box<[u8]>>,
    /// SHA-256 of its encoding.
    pub(super) digest: [u8; 32],
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadList {
    /// It is not encoded as RFC 5280 says.
    Malformed,
    /// It does not say until when it holds.
    Endless,
    /// It is right, but of a kind that is not supported: what, and what to do.
    Unsupported(String),
}

impl From<Malformed> for BadList {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<BadScope> for BadList {
    fn from(scope: BadScope) -> Self {
        match scope {
            BadScope::Malformed => Self::Malformed,
            BadScope::Unsupported(what) => Self::Unsupported(what.to_owned()),
        }
    }
}

/// An authority, as its lists look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListIssuer<'a> {
    /// Its name, encoded.
    pub(super) name: &'a [u8],
    /// Its key, an encoded SubjectPublicKeyInfo.
    pub(super) key: &'a [u8],
}

/// Why a list is not an authority's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotItsList {
    /// It names another issuer.
    OtherName,
    /// Another key has signed it.
    OtherKey,
    /// Nothing here can verify the signature.
    Unsupported,
}

impl RevocationList {
    /// Reads an encoded list.
    pub(super) fn read(der: &[u8]) -> Result<Self, BadList> {
        let (list, signed) = SignedBytes::split(der)?;
        let mut fields = Elements::of(list);
        let version = fields.optional(INTEGER)?;
        if version.is_some_and(|version| version.value != [1]) || fields.expect(SEQUENCE)?.value != signed.algorithm() {
            return Err(BadList::Malformed);
        }
        let issuer = fields.expect(SEQUENCE)?.raw;
        let from = next_time(&mut fields)?.ok_or(BadList::Malformed)?;
        let until = next_time(&mut fields)?.ok_or(BadList::Endless)?;
        let entries = fields.optional(SEQUENCE)?.map_or(&[][..], |entries| entries.value);
        let extensions = fields.optional(constructed(0))?.map(|extensions| only(extensions.value, SEQUENCE));
        if !fields.is_empty() {
            return Err(BadList::Malformed);
        }
        let extensions = ListExtensions::read(extensions.transpose()?.unwrap_or_default())?;
        Ok(Self {
            issuer: issuer.into(),
            issuer_name: X509Name::from_der(issuer).map_err(|_| BadList::Malformed)?.1.to_string(),
            number: extensions.number.map(shown_number),
            from,
            until,
            scope: extensions.scope.map(ListScope::read).transpose()?.unwrap_or_default(),
            key_id: extensions.authority_key.map(key_id).transpose()?.flatten(),
            serials: serials(entries)?,
            signed: Some(signed),
            signer: OnceLock::new(),
            digest: Sha256::digest(der).into(),
        })
    }

    /// Whether it names this issuer.
    pub(super) fn is_named(&self, issuer: &[u8]) -> bool {
        *self.issuer == *issuer
    }

    /// Whether the authority has signed it. The signature is verified once; after that keys are compared.
    pub(super) fn is_of(
        &self,
        issuer: &ListIssuer<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), NotItsList> {
        if !self.is_named(issuer.name) {
            return Err(NotItsList::OtherName);
        }
        if let Some(signer) = self.signer.get() {
            return if **signer == *issuer.key { Ok(()) } else { Err(NotItsList::OtherKey) };
        }
        // Key identifiers are no evidence: authorities compute that of a list in another way than that of a certificate.
        let signed = self.signed.as_ref().ok_or(NotItsList::OtherKey)?;
        match signed.verify(issuer.key, algorithms) {
            Ok(()) => {
                let _ = self.signer.set(issuer.key.into()); // if another thread was quicker, it has found the same
                Ok(())
            }
            Err(BadSignature::Wrong) => Err(NotItsList::OtherKey),
            Err(BadSignature::Unsupported) => Err(NotItsList::Unsupported),
        }
    }

    /// Whether its signer is known, and has this key.
    pub(super) fn is_signed_by(&self, key: &[u8]) -> bool {
        self.signer.get().is_some_and(|signer| **signer == *key)
    }

    /// Whether both are lists of one signer for the same certificates, so that the newer one makes the older one void.
    pub(super) fn speaks_of_the_same_as(&self, other: &Self) -> bool {
        let (one, another) = (self.signer.get(), other.signer.get());
        let is_of_one_key = one == another && (one.is_some() || self.key_id == other.key_id);
        self.issuer == other.issuer && is_of_one_key && self.scope == other.scope
    }

    /// Lets go of what is needed no more once its signer is known.
    pub(super) fn settle(&mut self) {
        if self.signer.get().is_some() {
            self.signed = None;
        }
    }

    /// Whether it names that certificate of its issuer.
    pub(super) fn names(&self, serial: &[u8]) -> bool {
        self.serials.contains(plain(serial))
    }

    /// How many certificates it names.
    pub(super) fn len(&self) -> usize {
        self.serials.len()
    }
}

/// The extensions of a list that mean something here, as encoded.
#[derive(Default)]
struct ListExtensions<'a> {
    number: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    authority_key: Option<&'a [u8]>,
}

impl<'a> ListExtensions<'a> {
    fn read(extensions: &'a [u8]) -> Result<Self, BadList> {
        let (mut extensions, mut read) = (Elements::of(extensions), Self::default());
        while !extensions.is_empty() {
            let Extension { id, critical, value } = Extension::next(&mut extensions)?;
            let place = match <[u8; 3]>::try_from(id).unwrap_or_default() {
                LIST_NUMBER => &mut read.number,
                ISSUING_POINT => &mut read.scope,
                AUTHORITY_KEY => &mut read.authority_key,
                DELTA_INDICATOR => {
                    return Err(unsupported(
                        "is a delta list (it holds changes to another list only, RFC 5280 section 5.2.4); fetch the complete list instead",
                    ));
                }
                ISSUER_ALT_NAME | FRESHEST_LIST => continue,
                _ if critical => return Err(not_understood(id)),
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(BadList::Malformed);
            }
        }
        Ok(read)
    }
}

fn unsupported(what: &str) -> BadList {
    BadList::Unsupported(what.to_owned())
}

/// RFC 5280 section 5.2: then the list must not be used.
fn not_understood(id: &[u8]) -> BadList {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    BadList::Unsupported(format!(
        "has a critical extension that is not known here (object identifier {id}, as encoded); let the authority issue \
         a list without it"
    ))
}

struct Extension<'a> {
    id: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

impl<'a> Extension<'a> {
    fn next(extensions: &mut Elements<'a>) -> Result<Self, Malformed> {
        let mut fields = Elements::of(extensions.expect(SEQUENCE)?.value);
        let id = fields.expect(OBJECT_IDENTIFIER)?.value;
        let critical = fields.optional(BOOLEAN)?.is_some_and(|critical| critical.value != [0]);
        let value = fields.expect(OCTET_STRING)?.value;
        if fields.is_empty() { Ok(Self { id, critical, value }) } else { Err(Malformed) }
    }
}

fn next_time(fields: &mut Elements<'_>) -> Result<Option<Timestamp>, Malformed> {
    let found = match fields.optional(UTC_TIME)? {
        Some(time) => Some(time),
        None => fields.optional(GENERALIZED_TIME)?,
    };
    found.map(time).transpose()
}

fn time(element: Element<'_>) -> Result<Timestamp, Malformed> {
    let (_, time) = ASN1Time::from_der(element.raw).map_err(|_| Malformed)?;
    Ok(expiry::timestamp(time))
}

/// The serial numbers of the entries. Their dates and reasons do not matter: revoked is revoked.
fn serials(entries: &[u8]) -> Result<SerialSet, BadList> {
    let (mut entries, mut serials) = (Elements::of(entries), Vec::new());
    while !entries.is_empty() {
        let mut fields = Elements::of(entries.expect(SEQUENCE)?.value);
        serials.push(plain(fields.expect(INTEGER)?.value));
        if !matches!(fields.next()?.tag, UTC_TIME | GENERALIZED_TIME) {
            return Err(BadList::Malformed);
        }
        let extensions = fields.optional(SEQUENCE)?;
        if !fields.is_empty() {
            return Err(BadList::Malformed);
        }
        extensions.map_or(Ok(()), |extensions| look_at_entry(extensions.value))?;
    }
    SerialSet::new(serials).ok_or(BadList::Malformed)
}

/// RFC 5280 section 5.3: a list of which an entry is not understood must not be used.
fn look_at_entry(extensions: &[u8]) -> Result<(), BadList> {
    let mut extensions = Elements::of(extensions);
    while !extensions.is_empty() {
        let Extension { id, critical, .. } = Extension::next(&mut extensions)?;
        match <[u8; 3]>::try_from(id).unwrap_or_default() {
            REASON | HOLD_INSTRUCTION | INVALIDITY_DATE => {}
            CERTIFICATE_ISSUER => {
                return Err(unsupported(
                    "is an indirect list (an entry names another issuer, RFC 5280 section 5.3.3); let each authority sign a list of its own",
                ));
            }
            _ if critical => return Err(not_understood(id)),
            _ => {}
        }
    }
    Ok(())
}

/// The key identifier of an authorityKeyIdentifier extension.
fn key_id(extension: &[u8]) -> Result<Option<Box<[u8]>>, Malformed> {
    let id = Elements::of(only(extension, SEQUENCE)?).optional(primitive(0))?;
    Ok(id.map(|id| id.value.into()))
}

/// A number as people write it; in hexadecimal, if it is very long.
fn shown_number(extension: &[u8]) -> String {
    let Ok(digits) = only(extension, INTEGER).map(plain) else { return "?".to_owned() };
    if digits.len() <= size_of::<u64>() {
        return digits.iter().fold(0_u64, |number, digit| number << 8 | u64::from(*digit)).to_string();
    }
    let digits: String = digits.iter().take(20).map(|digit| format!("{digit:02x}")).collect();
    format!("0x{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::der::{BIT_STRING, encode};

    const OF_A: &[u8] = &[0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'A'];
    const ALGORITHM: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

    fn time() -> Vec<u8> {
        encode(UTC_TIME, b"260601000000Z")
    }

    fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
        let critical = if critical { encode(BOOLEAN, &[0xff]) } else { Vec::new() };
        encode(SEQUENCE, &[encode(OBJECT_IDENTIFIER, &id_ce(number)), critical, encode(OCTET_STRING, value)].concat())
    }

    fn entry(serial: &[u8], extensions: &[u8]) -> Vec<u8> {
        encode(SEQUENCE, &[encode(INTEGER, serial), time(), extensions.to_vec()].concat())
    }

    /// A list that nobody has signed, of these parts of its body.
    fn list(body: &[Vec<u8>]) -> Vec<u8> {
        let body = encode(SEQUENCE, &body.concat());
        encode(SEQUENCE, &[body, ALGORITHM.to_vec(), encode(BIT_STRING, &[0, 1])].concat())
    }

    fn with(entries: &[Vec<u8>], extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = encode(constructed(0), &encode(SEQUENCE, &extensions.concat()));
        let entries = if entries.is_empty() { Vec::new() } else { encode(SEQUENCE, &entries.concat()) };
        list(&[encode(INTEGER, &[1]), ALGORITHM.to_vec(), OF_A.to_vec(), time(), time(), entries, extensions])
    }

    #[test]
    fn a_list_is_read_with_its_number_and_entries() {
        let reason = encode(SEQUENCE, &extension(21, false, &[0x0a, 1, 1]));
        let entries = [entry(&[0, 0x80], &reason), entry(&[7; 20], &[]), entry(&[1], &encode(SEQUENCE, &[]))];
        let read = RevocationList::read(&with(&entries, &[extension(20, false, &encode(INTEGER, &[1, 0]))]));
        let read = read.expect("a list");
        assert_eq!((read.issuer_name.as_str(), read.number.as_deref(), read.len()), ("CN=A", Some("256"), 3));
        assert!(read.names(&[0x80]) && read.names(&[0, 0x80]) && read.names(&[7; 20]) && read.names(&[1]));
        assert!(!read.names(&[2]) && !read.names(&[]));
        assert_eq!(read.until, "2026-06-01T00:00:00Z".parse().expect("a time"));
    }

    #[test]
    fn a_list_of_the_first_version_has_no_extensions() {
        let first = list(&[ALGORITHM.to_vec(), OF_A.to_vec(), time(), time()]);
        assert_eq!(RevocationList::read(&first).expect("a list").scope, ListScope::default());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (bytes, expected) in [
            (with(&[], &[extension(27, true, &encode(INTEGER, &[1]))]), "is a delta list"),
            (
                with(&[], &[extension(28, true, &encode(SEQUENCE, &encode(primitive(4), &[0xff])))]),
                "is an indirect list",
            ),
            (with(&[entry(&[1], &encode(SEQUENCE, &extension(29, true, &[])))], &[]), "is an indirect list"),
            (
                with(&[], &[extension(99, true, &[])]),
                "critical extension that is not known here (object identifier 551d63",
            ),
            (with(&[entry(&[1], &encode(SEQUENCE, &extension(99, true, &[])))], &[]), "critical extension"),
        ] {
            match RevocationList::read(&bytes) {
                Err(BadList::Unsupported(told)) => assert!(told.contains(expected), "{told}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(RevocationList::read(&with(&[], &[extension(99, false, &[])])).is_ok(), "it may be ignored");
    }

    #[test]
    fn what_is_garbled_is_not_read() {
        let good = with(&[entry(&[1], &[])], &[extension(20, false, &encode(INTEGER, &[1]))]);
        assert!(RevocationList::read(&good).is_ok());
        let number = extension(20, false, &encode(INTEGER, &[1]));
        for bytes in [
            good[..good.len() - 1].to_vec(),
            [&good[..], &[0]].concat(),
            with(&[], &[number.clone(), number]),
            with(&[encode(SEQUENCE, &encode(INTEGER, &[1]))], &[]),
            list(&[encode(INTEGER, &[0]), ALGORITHM.to_vec(), OF_A.to_vec(), time(), time()]),
            list(&[encode(INTEGER, &[1]), encode(SEQUENCE, &[]), OF_A.to_vec(), time(), time()]),
            Vec::new(),
        ] {
            assert_eq!(RevocationList::read(&bytes).err(), Some(BadList::Malformed), "{bytes:x?}");
        }
        let endless = list(&[encode(INTEGER, &[1]), ALGORITHM.to_vec(), OF_A.to_vec(), time()]);
        assert_eq!(RevocationList::read(&endless).err(), Some(BadList::Endless));
    }
}
