//! The elements of a DER encoding (X.690), one after another, without copies.
//!
//! Guarantees: reads at most what it was given, never panics, accepts definite and shortest lengths only.
//!
//! For what x509-parser keeps to itself or copies: the parts of a revocation list with a million entries, the scope of a
//! list, the bytes that a signature covers.

/// `INTEGER`.
pub(super) const INTEGER: u8 = 0x02;
/// `BIT STRING`.
pub(super) const BIT_STRING: u8 = 0x03;
/// `OCTET STRING`.
pub(super) const OCTET_STRING: u8 = 0x04;
/// `OBJECT IDENTIFIER`.
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// `BOOLEAN`.
pub(super) const BOOLEAN: u8 = 0x01;
/// `SEQUENCE` and `SEQUENCE OF`.
pub(super) const SEQUENCE: u8 = 0x30;
/// `UTCTime`.
pub(super) const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`.
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// A primitive element with a context-specific tag.
pub(super) const fn primitive(number: u8) -> u8 {
    0x80 | number
}

/// A constructed element with a context-specific tag.
pub(super) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// The bytes are not DER, or not what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// Its contents.
    pub(super) value: &'a [u8],
    /// Tag, length and contents.
    pub(super) raw: &'a [u8],
}

/// What is left of a series of elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements<'a>(&'a [u8]);

/// Splits off the one element with this tag that the bytes hold, as its contents.
pub(super) fn only(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    let mut elements = Elements::of(bytes);
    let element = elements.expect(tag)?;
    if elements.is_empty() { Ok(element.value) } else { Err(Malformed) }
}

impl<'a> Elements<'a> {
    /// The elements that these bytes are made of.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is no more.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element, whatever it is.
    pub(super) fn next(&mut self) -> Result<Element<'a>, Malformed> {
        let (tag, length, start) = header(self.0)?;
        let end = start.checked_add(length).filter(|end| *end <= self.0.len()).ok_or(Malformed)?;
        let (raw, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(Element { tag, value: &raw[start..], raw })
    }

    /// The next element, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Element<'a>, Malformed> {
        self.optional(tag)?.ok_or(Malformed)
    }

    /// The next element, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Malformed> {
        if self.0.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }
}

/// Tag, length, and where the contents begin.
fn header(bytes: &[u8]) -> Result<(u8, usize, usize), Malformed> {
    let [tag, first, ..] = *bytes else { return Err(Malformed) };
    if tag & 0x1f == 0x1f {
        return Err(Malformed); // a tag of several bytes: none that is read here has one
    }
    if first < 0x80 {
        return Ok((tag, usize::from(first), 2));
    }
    let count = usize::from(first & 0x7f);
    let digits = bytes.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len())).ok_or(Malformed)?;
    let length = digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
    let is_shortest = digits[0] != 0 && length >= 0x80;
    if is_shortest { Ok((tag, length, 2 + count)) } else { Err(Malformed) }
}

/// One element with this tag and these contents.
pub(super) fn encode(tag: u8, value: &[u8]) -> Vec<u8> {
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
    fn what_is_encoded_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let value = vec![7; length];
            let encoded = encode(SEQUENCE, &value);
            assert_eq!(only(&encoded, SEQUENCE), Ok(&value[..]), "{length}");
            assert_eq!(only(&encoded, INTEGER), Err(Malformed));
            assert_eq!(only(&encoded[..encoded.len() - 1], SEQUENCE), Err(Malformed), "cut off");
            assert_eq!(only(&[&encoded[..], &[0]].concat(), SEQUENCE), Err(Malformed), "a tail");
        }
    }

    #[test]
    fn only_shortest_definite_lengths_are_read() {
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
            assert_eq!(only(bytes, SEQUENCE), Err(Malformed), "{bytes:x?}");
        }
    }
}
