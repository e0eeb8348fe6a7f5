//! An interim response as a HEADERS frame (RFC 9113 section 6.2), independent of the connection's HPACK state.
//!
//! Guarantees:
//!
//! - Pure.
//! - The block holds only literals without indexing (RFC 7541 section 6.2.2): neither h2's encoder nor the caller's
//!   decoder changes its state.
//! - The frame is complete (END_HEADERS) and does not end its stream.
//! - The frame is no larger than every peer must accept (RFC 9113 section 4.2).

use http::HeaderName;

use crate::proxy::message::h2_frame::{END_HEADERS_FLAG, FRAME_HEAD_LENGTH, HEADERS_FRAME};

use super::InterimResponse;

/// The smallest allowed value of SETTINGS_MAX_FRAME_SIZE (RFC 9113 section 6.5.2).
const FRAME_MAX: usize = 16 * 1024;
/// `:status` in the static table (RFC 7541 appendix A).
const STATUS_INDEX: u8 = 8;
/// A literal without indexing, followed by its name.
const LITERAL_NAME: u8 = 0;
/// The bytes that each field adds to the size of a field list, beside its name and its value (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The frame on this stream. `None` if the frame would be too large, or its fields larger than `list_max`.
pub(crate) fn headers_frame(
    stream: u32,
    interim: &InterimResponse,
    is_removed: impl Fn(&HeaderName) -> bool,
    list_max: usize,
) -> Option<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD_LENGTH];
    frame.push(STATUS_INDEX);
    put_string(&mut frame, interim.status.as_str().as_bytes());
    let mut list = FIELD_OVERHEAD + ":status".len() + "103".len();
    for (name, value) in interim.forwarded_headers(is_removed) {
        let value = value.trim_ascii(); // RFC 9113 section 8.2.1
        list += FIELD_OVERHEAD + name.len() + value.len();
        frame.push(LITERAL_NAME);
        put_string(&mut frame, name.as_bytes());
        put_string(&mut frame, value);
    }
    let block = frame.len() - FRAME_HEAD_LENGTH;
    if block > FRAME_MAX || list > list_max {
        return None;
    }
    let length = u32::try_from(block).ok()?.to_be_bytes();
    frame[..3].copy_from_slice(&length[1..]);
    frame[3..5].copy_from_slice(&[HEADERS_FRAME, END_HEADERS_FLAG]);
    frame[5..FRAME_HEAD_LENGTH].copy_from_slice(&stream.to_be_bytes());
    Some(frame)
}

/// A string without Huffman coding (RFC 7541 section 5.2).
fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    put_length(block, text.len());
    block.extend_from_slice(text);
}

/// An integer with a prefix of 7 bits (RFC 7541 section 5.1).
fn put_length(block: &mut Vec<u8>, length: usize) {
    const FULL: usize = 0x7f;
    let Some(mut rest) = length.checked_sub(FULL) else { return block.push(low_bits(length)) };
    block.push(low_bits(FULL));
    while rest > FULL {
        block.push(low_bits(rest & FULL) | 0x80);
        rest >>= 7;
    }
    block.push(low_bits(rest));
}

fn low_bits(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::super::interim;
    use super::*;

    fn framed(interim: &InterimResponse, list_max: usize) -> Option<Vec<u8>> {
        headers_frame(7, interim, |name| name == "server", list_max)
    }

    #[test]
    fn frame_has_status_and_fields_as_literals() {
        let hints = [("link", "</a.css>"), ("x-request-id", "forged"), ("server", "old"), ("x-odd", " a ")];
        let expected = [
            &[0, 0, 29, HEADERS_FRAME, END_HEADERS_FLAG, 0, 0, 0, 7][..],
            b"\x08\x03103",
            b"\x00\x04link\x08</a.css>",
            b"\x00\x05x-odd\x01a",
        ];
        assert_eq!(framed(&interim(103, &hints), usize::MAX), Some(expected.concat()));
    }

    #[test]
    fn lengths_are_hpack_integers() {
        for (length, expected) in [
            (0, &[0][..]),
            (126, &[126]),
            (127, &[127, 0]),
            (128, &[127, 1]),
            (254, &[127, 127]),
            (255, &[127, 0x80, 1]),
            (127 + 0x4000, &[127, 0x80, 0x80, 1]),
        ] {
            let mut block = Vec::new();
            put_length(&mut block, length);
            assert_eq!(block, expected, "{length}");
        }
    }

    #[test]
    fn oversized_frame_is_omitted() {
        let with = |bytes: usize| InterimResponse {
            status: http::StatusCode::EARLY_HINTS,
            headers: [(http::header::LINK, "x".repeat(bytes).parse().expect("a value"))].into_iter().collect(),
        };
        let beside = b"\x08\x03103\x00\x04link\x7f\x80\x7f".len(); // lengths of that size take three bytes
        assert_eq!(
            framed(&with(FRAME_MAX - beside), usize::MAX).map(|frame| frame.len()),
            Some(FRAME_HEAD_LENGTH + FRAME_MAX)
        );
        assert_eq!(framed(&with(FRAME_MAX - beside + 1), usize::MAX), None);
        let list = 2 * FIELD_OVERHEAD + ":status103link".len() + 5;
        assert!(framed(&with(5), list).is_some() && framed(&with(5), list - 1).is_none());
    }
}
