//! Distinguished names as text, as OpenSSL writes them with `XN_FLAG_RFC2253`: `$ssl_client_s_dn` of nginx.
//!
//! Guarantees:
//! - The text is printable ASCII, and no value can pass for a second attribute.
//! - The last attribute comes first, as RFC 2253 says.
//!
//! Leaves to others: which certificates are shown.

use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::identity::der::der_reader::encode_element;

/// The short names of attributes in OpenSSL. Those of other attributes are their object identifiers.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("2.5.4.97", "organizationIdentifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
];

/// The tags of strings (X.680).
const UTF8_STRING: u32 = 12;
const UNIVERSAL_STRING: u32 = 28;
const BMP_STRING: u32 = 30;
/// Numeric, Printable, Teletex and IA5 strings, times, and visible strings: a byte for each character.
const BYTE_STRINGS: [u32; 7] = [18, 19, 20, 22, 23, 24, 26];

/// The text of a name.
pub(crate) fn rfc2253_text(name: &X509Name<'_>) -> String {
    let sets: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for set in sets.iter().rev() {
        let attributes: Vec<_> = set.iter().collect();
        for (position, attribute) in attributes.iter().rev().enumerate() {
            match (text.is_empty(), position) {
                (true, _) => {}
                (false, 0) => text.push(','),
                (false, _) => text.push('+'),
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let known = SHORT_NAMES.iter().find(|(known, _)| *known == id);
    text.push_str(known.map_or(id.as_str(), |(_, name)| name));
    text.push('=');
    match known.and_then(|_| utf8_bytes(value)) {
        Some(bytes) => push_escaped(text, &bytes),
        None => push_dump(text, value),
    }
}

/// The characters of a string in UTF-8; `None` for a value that is no string.
fn utf8_bytes(value: &Any<'_>) -> Option<Vec<u8>> {
    let from_numbers = |numbers: &mut dyn Iterator<Item = u32>| {
        let letters = numbers.map(|number| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
        letters.collect::<String>().into_bytes()
    };
    match value.tag().0 {
        UTF8_STRING => Some(value.data.to_vec()),
        UNIVERSAL_STRING => {
            let (numbers, _) = value.data.as_chunks::<4>();
            Some(from_numbers(&mut numbers.iter().map(|bytes| u32::from_be_bytes(*bytes))))
        }
        BMP_STRING => {
            let (numbers, _) = value.data.as_chunks::<2>();
            Some(from_numbers(&mut numbers.iter().map(|bytes| u16::from_be_bytes(*bytes).into())))
        }
        tag if BYTE_STRINGS.contains(&tag) => Some(from_numbers(&mut value.data.iter().map(|byte| (*byte).into()))),
        _ => None,
    }
}

fn push_escaped(text: &mut String, bytes: &[u8]) {
    for (position, byte) in bytes.iter().enumerate() {
        let is_last = position + 1 == bytes.len();
        let is_edge = (*byte == b' ' && (position == 0 || is_last)) || (*byte == b'#' && position == 0);
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(*byte)]),
            _ if is_edge => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                text.push('\\');
                push_hex(text, &[*byte]);
            }
        }
    }
}

/// The value with tag and length, in hexadecimal after `#`.
fn push_dump(text: &mut String, value: &Any<'_>) {
    let header = &value.header;
    let number = u8::try_from(header.tag().0).unwrap_or(0x1f) & 0x1f;
    let tag = (header.class() as u8) << 6 | u8::from(header.constructed()) << 5 | number;
    text.push('#');
    push_hex(text, &encode_element(tag, value.data));
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()));
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn text_of(attributes: &[(DnType, DnValue)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let (_, read) = X509Certificate::from_der(made.der()).expect("a certificate");
        rfc2253_text(read.subject())
    }

    #[test]
    fn names_are_written_as_openssl_writes_them() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let unknown = DnType::CustomDnType(vec![1, 2, 3, 4]);
        for (attributes, expected) in [
            (vec![], ""),
            (vec![(DnType::CommonName, utf8("police"))], "CN=police"),
            (
                vec![(DnType::CountryName, utf8("DE")), (DnType::OrganizationName, utf8("City, Ltd"))],
                "O=City\\, Ltd,C=DE",
            ),
            (vec![(DnType::CommonName, utf8(" a b "))], "CN=\\ a b\\ "),
            (vec![(DnType::CommonName, utf8("#1 a=b"))], "CN=\\#1 a=b"),
            (vec![(DnType::CommonName, utf8("ü\n\"+;<>\\"))], "CN=\\C3\\BC\\0A\\\"\\+\\;\\<\\>\\\\"),
            (vec![(DnType::CommonName, DnValue::BmpString("ü".try_into().expect("a string")))], "CN=\\C3\\BC"),
            (vec![(unknown, utf8("a"))], "1.2.3.4=#0C0161"),
        ] {
            assert_eq!(text_of(&attributes), expected);
        }
    }
}
