//! A reader of DER elements (X.690), one after another, without copies.
//!
//! Guarantees:
//! - Reads at most its input.
//! - Never panics.
//! - Accepts only lengths in definite and shortest form.
//!
//! The reader serves the parts that x509-parser keeps private or copies: the entries of a revocation list with a
//! million entries, the scope of a list, the bytes that a signature covers.

/// `INTEGER`.
pub(crate) const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub(crate) const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// `OBJECT IDENTIFIER`.
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
/// `BOOLEAN`.
pub(crate) const BOOLEAN: u8 = 0x01;
/// `SEQUENCE` and `SEQUENCE OF`.
pub(crate) const SEQUENCE: u8 = 0x30;
/// `UTCTime`.
pub(crate) const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`.
pub(crate) const GENERALIZED_TIME: u8 = 0x18;

/// A primitive element with a context-specific tag.
pub(crate) const fn primitive_tag(number: u8) -> u8 {
    0x80 | number
}

/// A constructed element with a context-specific tag.
pub(crate) const fn constructed_tag(number: u8) -> u8 {
    0xa0 | number
}

/// The bytes are not DER, or have another structure than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedDer;

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DerElement<'a> {
    pub(crate) tag: u8,
    /// Its contents.
    pub(crate) value: &'a [u8],
    /// Tag, length and contents.
    pub(crate) raw: &'a [u8],
}

/// A reader over the remaining elements of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DerReader<'a>(&'a [u8]);

/// The contents of the one element that the bytes hold, which must have this tag.
pub(crate) fn only_element(bytes: &[u8], tag: u8) -> Result<&[u8], MalformedDer> {
    let mut elements = DerReader::new(bytes);
    let element = elements.expect_tag(tag)?;
    if elements.is_empty() { Ok(element.value) } else { Err(MalformedDer) }
}

impl<'a> DerReader<'a> {
    /// A reader over the elements in these bytes.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether no element is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element, with any tag.
    pub(crate) fn next_element(&mut self) -> Result<DerElement<'a>, MalformedDer> {
        let (tag, length, start) = read_header(self.0)?;
        let end = start.checked_add(length).filter(|end| *end <= self.0.len()).ok_or(MalformedDer)?;
        let (raw, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(DerElement { tag, value: &raw[start..], raw })
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect_tag(&mut self, tag: u8) -> Result<DerElement<'a>, MalformedDer> {
        self.optional_tag(tag)?.ok_or(MalformedDer)
    }

    /// The next element, if it has this tag.
    pub(crate) fn optional_tag(&mut self, tag: u8) -> Result<Option<DerElement<'a>>, MalformedDer> {
        if self.0.first() == Some(&tag) { self.next_element().map(Some) } else { Ok(None) }
    }
}

/// The tag, the length, and the offset of the contents.
fn read_header(bytes: &[u8]) -> Result<(u8, usize, usize), MalformedDer> {
    let [tag, first, ..] = *bytes else { return Err(MalformedDer) };
    if tag & 0x1f == 0x1f {
        return Err(MalformedDer); // a multi-byte tag: no supported element has one
    }
    if first < 0x80 {
        return Ok((tag, usize::from(first), 2));
    }
    let count = usize::from(first & 0x7f);
    let digits = bytes.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len())).ok_or(MalformedDer)?;
    let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
    let is_shortest = digits[0] != 0 && length >= 0x80;
    if is_shortest { Ok((tag, length, 2 + count)) } else { Err(MalformedDer) }
}

/// One element with this tag and these contents.
pub(crate) fn encode_element(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![tag];
    let digits = value.len().to_be_bytes();
    let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
    match (value.len() < 0x80, u8::try_from(digits.len())) {
        (false, Ok(count)) => {
            encoded.push(0x80 | count);
            encoded.extend_from_slice(digits);
        }
        _ => encoded.push(digits.first().copied().unwrap_or(0)),
    }
    encoded.extend_from_slice(value);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_elements_are_decoded_unchanged() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let value = vec![7; length];
            let encoded = encode_element(SEQUENCE, &value);
            assert_eq!(only_element(&encoded, SEQUENCE), Ok(&value[..]), "{length}");
            assert_eq!(only_element(&encoded, INTEGER), Err(MalformedDer));
            assert_eq!(only_element(&encoded[..encoded.len() - 1], SEQUENCE), Err(MalformedDer), "truncated");
            assert_eq!(only_element(&[&encoded[..], &[0]].concat(), SEQUENCE), Err(MalformedDer), "trailing bytes");
        }
    }

    #[test]
    fn only_minimal_definite_lengths_are_accepted() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x3f, 0x21, 0],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(only_element(bytes, SEQUENCE), Err(MalformedDer), "{bytes:x?}");
        }
    }
}
