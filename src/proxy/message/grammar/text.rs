//! Character classes and lines: the bytes allowed in names, targets and values, and the end of a line.

use super::malformed::MalformedRequest;

/// One bit for each character class of a byte.
const NAME: u8 = 1;
const TARGET: u8 = 2;
const METHOD: u8 = 4;
const HOST: u8 = 8;

const BYTE_KINDS: [u8; 256] = byte_kinds();

const fn byte_kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte: u8 = b'!';
    while byte < 0x7f {
        let alphanumeric = byte.is_ascii_alphanumeric();
        // RFC 9110 section 5.1 allows more. But some servers treat `_` and `-` as equal, and the other bytes are not
        // in use.
        if alphanumeric || byte == b'-' {
            kinds[byte as usize] |= NAME;
        }
        // RFC 3986 sections 3.3 and 3.4; also `[`, `]` and `|`, because browsers send them unescaped in queries.
        if alphanumeric || contains_byte(byte, b"-._~!$&'()*+,;=:@/?%[]|") {
            kinds[byte as usize] |= TARGET;
        }
        if byte.is_ascii_uppercase() || byte == b'-' {
            kinds[byte as usize] |= METHOD;
        }
        if alphanumeric || byte == b'.' || byte == b'-' {
            kinds[byte as usize] |= HOST;
        }
        byte += 1;
    }
    kinds
}

const fn contains_byte(byte: u8, bytes: &[u8]) -> bool {
    let mut position = 0;
    while position < bytes.len() {
        if bytes[position] == byte {
            return true;
        }
        position += 1;
    }
    false
}

/// The length of the field name at the start of the text.
pub(crate) fn name_length(text: &[u8]) -> usize {
    text.iter().position(|byte| BYTE_KINDS[*byte as usize] & NAME == 0).unwrap_or(text.len())
}

/// Whether the text is exactly a field name.
pub(crate) fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && is_all(NAME, text)
}

/// Whether all bytes are of a kind. Without a branch for each byte, which takes half the time: texts are short, and
/// good.
fn is_all(kind: u8, text: &[u8]) -> bool {
    text.iter().fold(kind, |common, byte| common & BYTE_KINDS[*byte as usize]) != 0
}

/// Whether the text may be a request target.
pub(crate) fn is_target(text: &[u8]) -> bool {
    is_all(TARGET, text)
}

/// Whether the text is letters, digits, dots and hyphens only, as most names of hosts and IPv4 addresses.
pub(crate) fn is_plain_host(text: &[u8]) -> bool {
    is_all(HOST, text)
}

/// Whether the text may be a method: capitals and hyphens, as in all registered methods.
pub(crate) fn is_method(text: &[u8]) -> bool {
    is_all(METHOD, text)
}

/// The value of a field without the white space around it (RFC 9110 section 5.5).
pub(crate) fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A complete line without its end, and the number of bytes it took. `None` if the line is incomplete.
pub(crate) type LineRead<'a> = Option<(&'a [u8], usize)>;

/// Splits off the first line of the text. A line ends with CR LF only (RFC 9112 section 2.2). It holds no control
/// byte, except HTAB in a field line.
pub(crate) fn split_line(text: &[u8], tabs: bool) -> Result<LineRead<'_>, MalformedRequest> {
    let mut from = 0;
    while let Some(found) = find_control(&text[from..]) {
        let at = from + found;
        match (text[at], text.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some((&text[..at], at + 2))),
            (b'\r', None) => return Ok(None),
            (b'\r', _) => return Err(MalformedRequest::bad_request("a CR without LF")),
            (b'\n', _) => {
                return Err(MalformedRequest::bad_request("a line ends with LF instead of CR LF"));
            }
            (b'\t', _) if tabs => from = at + 1,
            _ => return Err(MalformedRequest::bad_request("the head contains a control character")),
        }
    }
    Ok(None)
}

/// The position of the first control byte (below 32, or 127). Checks eight bytes at a time.
fn find_control(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (position, word) in words.iter().enumerate() {
        if let Some(found) = find_control_in(*word) {
            return Some(8 * position + found);
        }
    }
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    find_control_in(last).map(|found| 8 * words.len() + found)
}

/// The first control byte of eight. The subtraction borrows into the highest bit of a byte that is too small. It may
/// misreport the bytes after the first control byte, but not the first.
fn find_control_in(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    let small = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & (ONES * 0x80);
    let found = small(word, 0x20) | small(word ^ (ONES * 0x7f), 1);
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_found_at_every_position() {
        for length in 0..50 {
            let clean = vec![b'a'; length];
            assert_eq!(find_control(&clean), None);
            for at in 0..length {
                for byte in [0, 9, 10, 13, 31, 127] {
                    let mut text = clean.clone();
                    text[at] = byte;
                    assert_eq!(find_control(&text), Some(at));
                }
            }
        }
        assert_eq!(find_control("größer".as_bytes()), None);
    }

    #[test]
    fn line_ends_with_cr_lf() {
        assert_eq!(split_line(b"a b\r\nc", false), Ok(Some((&b"a b"[..], 5))));
        assert_eq!(split_line(b"a\tb\r\n", true), Ok(Some((&b"a\tb"[..], 5))));
        for partial in [&b""[..], b"a", b"a\r", b"a\tb"] {
            assert_eq!(split_line(partial, true), Ok(None));
        }
        for bad in [&b"a\nb"[..], b"a\rb", b"a\r\r\n", b"a\0\r\n", b"a\x7f\r\n", b"a\tb\r\n"] {
            assert!(split_line(bad, false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_accepted_target_is_a_valid_uri() {
        for byte in 0..=u8::MAX {
            let text = [b'/', b'a', byte, b'?', byte];
            assert!(!is_target(&text) || http::Uri::try_from(&text[..]).is_ok(), "{byte}");
        }
        assert!(!is_target(b"/a#b") && !is_target(b"/a\\b") && !is_target("/é".as_bytes()));
    }

    #[test]
    fn whitespace_around_a_value_is_not_part_of_it() {
        assert_eq!(trim_blanks(b" \t a b\t "), b"a b");
        assert_eq!(trim_blanks(b" \t "), b"");
    }
}
