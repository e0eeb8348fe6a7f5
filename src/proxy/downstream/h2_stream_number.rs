//! Passes the stream number of an HTTP/2 request through h2 and hyper, in a header field. hyper does not expose the
//! number, and interim responses ([`crate::proxy::message::interim_response`]), which bypass hyper, need it.
//!
//! The layer below h2 ([`super::h2_frame_budget`]) appends the field to the header block of each head that opens a
//! stream, as its last field. The name `proxy-authenticate` is hop-by-hop (RFC 9110 section 11.7.1): no request has a
//! use for it, and it never reaches a subsystem.
//!
//! Guarantees:
//! - Pure: no I/O and no shared state.
//! - The last value of that name is the number. It is removed before any other code reads the head.
//! - Values that the caller itself sent under that name stay as they are.

use http::HeaderMap;
use http::header::{Entry, PROXY_AUTHENTICATE};

/// A literal field, never indexed (RFC 7541 section 6.2.3), with name 48 of the static table: `proxy-authenticate`.
const NUMBER_FIELD: [u8; 2] = [0x1f, 48 - 15];
/// The maximum number of digits in a stream number.
const DIGITS_MAX: usize = 10;
/// The maximum length of the field.
pub(crate) const NUMBER_FIELD_MAX: usize = NUMBER_FIELD.len() + 1 + DIGITS_MAX;

/// Appends the field to a header block.
pub(crate) fn put_number(block: &mut Vec<u8>, stream: u32) {
    let (mut field, mut first, mut rest) = ([0; NUMBER_FIELD_MAX], NUMBER_FIELD_MAX, stream);
    while first == NUMBER_FIELD_MAX || rest > 0 {
        first -= 1;
        field[first] = b'0' + (rest % 10).to_le_bytes()[0];
        rest /= 10;
    }
    let [name, index] = NUMBER_FIELD;
    let length = (NUMBER_FIELD_MAX - first).to_le_bytes()[0];
    first -= 3;
    field[first..first + 3].copy_from_slice(&[name, index, length]);
    block.extend_from_slice(&field[first..]);
}

/// Removes the number from a head and returns it.
pub(crate) fn take_number(headers: &mut HeaderMap) -> Option<u32> {
    let Entry::Occupied(field) = headers.entry(PROXY_AUTHENTICATE) else { return None };
    let is_alone = field.iter().nth(1).is_none();
    if is_alone {
        return parse_digits(field.remove().as_bytes());
    }
    let (_, values) = field.remove_entry_mult();
    let mut values: Vec<_> = values.collect();
    let number = values.pop();
    for callers in values {
        headers.append(PROXY_AUTHENTICATE, callers);
    }
    parse_digits(number?.as_bytes())
}

fn parse_digits(digits: &[u8]) -> Option<u32> {
    let digit = |number: u32, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    (!digits.is_empty()).then_some(digits)?.iter().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(values: &[&str]) -> (Option<u32>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PROXY_AUTHENTICATE, value.parse().expect("a value"));
        }
        let number = take_number(&mut headers);
        let left = headers.get_all(PROXY_AUTHENTICATE).iter();
        (number, left.map(|value| value.to_str().expect("text").to_owned()).collect())
    }

    #[test]
    fn last_value_is_the_number_and_the_others_are_from_the_caller() {
        assert_eq!(taken(&["7"]), (Some(7), Vec::new()));
        assert_eq!(taken(&["3", "5", "7"]), (Some(7), vec!["3".to_owned(), "5".to_owned()]));
        assert_eq!(taken(&[]), (None, Vec::new()));
        assert_eq!(taken(&["7", "x"]), (None, vec!["7".to_owned()]));
    }

    #[test]
    fn number_is_a_literal_with_an_indexed_name() {
        for (stream, digits) in [(1, "1"), (0, "0"), (70_001, "70001"), (0x7fff_ffff, "2147483647")] {
            let mut block = b"\x82".to_vec();
            put_number(&mut block, stream);
            let length = u8::try_from(digits.len()).expect("a short number");
            assert_eq!(block, [b"\x82\x1f\x21", &[length][..], digits.as_bytes()].concat());
            assert!(block.len() <= NUMBER_FIELD_MAX + 1);
        }
    }
}
