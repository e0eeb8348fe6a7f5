//! Request ids: one name for a command, shared by the caller, the subsystem and the log.
//!
//! An id is unique, not secret: 128 random bits from a generator that the operating system seeds.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::{ParentSpan, TraceContext};

/// The field with the caller's trace, and with the gateway's towards a subsystem.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field with the request id, in upstream requests and in every response.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one command: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    high: u64,
    low: u64,
    span: u64,
}

/// Generates the ids of one worker.
#[derive(Debug, Default)]
pub(crate) struct RequestIdGenerator {
    random: RefCell<fastrand::Rng>,
}

impl RequestIdGenerator {
    pub(crate) fn next_id(&self) -> RequestId {
        let mut random = self.random.borrow_mut();
        RequestId { high: random.u64(1..), low: random.u64(..), span: random.u64(1..) }
    }

    /// A number from `least` to `most`.
    pub(crate) fn random_between(&self, least: u32, most: u32) -> u32 {
        self.random.borrow_mut().u32(least..=most)
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The hex digits of a number, the most significant first.
fn hex_digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&eight_hex_digits(number >> 32));
    digits[8..].copy_from_slice(&eight_hex_digits(number & 0xffff_ffff));
    digits
}

/// The digits of 32 bits, all eight at once, because a command has seven such numbers.
fn eight_hex_digits(number: u64) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let pairs = (number | (number << 16)) & 0x0000_ffff_0000_ffff;
    let bytes = (pairs | (pairs << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | (bytes << 4)) & (ONES * 0x0f);
    let is_letter = ((nibbles + ONES * 6) >> 4) & ONES; // 10 and more
    (nibbles + ONES * u64::from(b'0') + is_letter * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

impl RequestId {
    /// The `Sec-WebSocket-Key` for the upstream handshake of a WebSocket over HTTP/2, whose caller needs none (RFC 6455
    /// section 4.1, RFC 8441 section 5). 16 bytes in base64; hex digits are part of that alphabet.
    pub(crate) fn websocket_key(self) -> [u8; 24] {
        let mut key = *b".....................w==";
        key[..21].copy_from_slice(&self.to_hex()[11..]);
        key
    }

    /// The id as a number, of which the text is the 32 hex digits.
    pub(crate) fn to_number(self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low)
    }

    /// The id as text.
    pub(crate) fn to_text(self) -> String {
        format!("{:016x}{:016x}", self.high, self.low)
    }

    /// The value of `X-Request-Id`. Marked sensitive: HTTP/2 then keeps it out of the compression table, where it would
    /// evict values that recur.
    pub(crate) fn to_header(self) -> HeaderValue {
        let mut value = HeaderValue::from_bytes(&self.to_hex()).expect("hex digits are a valid header value");
        value.set_sensitive(true);
        value
    }

    /// The id as 32 hex digits.
    pub(crate) fn to_hex(self) -> [u8; 32] {
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex_digits(self.high));
        digits[16..].copy_from_slice(&hex_digits(self.low));
        digits
    }

    /// The value of `traceparent` (W3C Trace Context, version 00). A caller's trace continues with a new span. Without
    /// a well-formed `traceparent` of the caller a new trace begins, named by this id. `is_sampled` is the gateway's
    /// own decision; without one the caller's flag stays, and new traces have it.
    pub(crate) fn traceparent(self, from_caller: Option<&HeaderValue>, is_sampled: Option<bool>) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        match from_caller.map(HeaderValue::as_bytes).filter(|given| is_traceparent(given)) {
            Some(given) => {
                text[3..35].copy_from_slice(&given[3..35]);
                text[53..55].copy_from_slice(&given[53..55]);
            }
            None => {
                text[3..19].copy_from_slice(&hex_digits(self.high));
                text[19..35].copy_from_slice(&hex_digits(self.low));
            }
        }
        if let Some(is_sampled) = is_sampled {
            text[53..55].copy_from_slice(if is_sampled { b"01" } else { b"00" });
        }
        text[36..52].copy_from_slice(&hex_digits(self.span));
        text
    }

    /// The place of the command in its trace, as [`RequestId::traceparent`] writes it.
    pub(crate) fn trace_context(self, from_caller: Option<&HeaderValue>) -> TraceContext {
        let given = from_caller.map(HeaderValue::as_bytes).filter(|given| is_traceparent(given));
        let parent = given.map(|given| ParentSpan {
            span_id: hex_number(&given[36..52]) as u64, // 16 digits have 64 bits
            is_sampled: hex_number(&given[53..55]) & 1 == 1,
        });
        let trace_id = given.map_or_else(|| self.to_number(), |given| hex_number(&given[3..35]));
        TraceContext { trace_id, span_id: self.span, parent }
    }
}

/// Whether the caller's trace goes on: it sent a well-formed `traceparent`. Otherwise its `tracestate` belongs to no
/// trace.
pub(crate) fn continues_trace(headers: &HeaderMap) -> bool {
    headers.get(TRACEPARENT).is_some_and(|given| is_traceparent(given.as_bytes()))
}

/// The longest caller's request id that is forwarded, in bytes.
const CALLER_ID_MAX: usize = 128;

/// The caller's own request id (`X-Request-Id`), if it is a single word of at most [`CALLER_ID_MAX`] letters, digits
/// and `-._~+/=:@`. That covers UUIDs, base64 and paths.
pub(crate) fn caller_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let (Some(id), None) = (given.next(), given.next()) else { return None };
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
    ((1..=CALLER_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_part)).then_some(id)
}

/// Whether a text is a `traceparent`. One of a later version begins as one of version 00, and may be longer (W3C Trace
/// Context, section 4.3).
fn is_traceparent(text: &[u8]) -> bool {
    let lower_hex = |range: std::ops::Range<usize>| text[range].iter().all(|byte| HEX_DIGITS.contains(byte));
    let is_not_zero = |range: std::ops::Range<usize>| text[range].iter().any(|byte| *byte != b'0');
    let has_length = match text {
        [b'0', b'0', ..] => text.len() == 55,
        [b'f', b'f', ..] => false,
        _ => text.len() == 55 || (text.len() > 55 && text[55] == b'-'),
    };
    has_length
        && lower_hex(0..2)
        && [2, 35, 52].iter().all(|dash| text[*dash] == b'-')
        && lower_hex(3..35)
        && is_not_zero(3..35)
        && lower_hex(36..52)
        && is_not_zero(36..52)
        && lower_hex(53..55)
}

/// The number of at most 32 lower-case hex digits.
fn hex_number(digits: &[u8]) -> u128 {
    let value = |digit: &u8| u128::from(if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 });
    digits.iter().fold(0, |number, digit| (number << 4) | value(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId { high: 0, low: 0xabc, span: 0x1f };

    #[test]
    fn request_id_has_one_spelling_and_is_unique() {
        assert_eq!(ID.to_header().to_str().expect("text"), ID.to_text());
        assert_eq!(ID.to_text(), "00000000000000000000000000000abc");
        let ids = RequestIdGenerator::default();
        assert_ne!(ids.next_id(), ids.next_id());
    }

    #[test]
    fn hex_digits_equal_those_of_the_standard_library() {
        for number in [0, u64::MAX, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x9a0f_a090_0000_000a] {
            assert_eq!(hex_digits(number), *format!("{number:016x}").as_bytes(), "{number:x}");
        }
    }

    #[test]
    fn request_id_of_a_caller_is_one_token() {
        let of = |ids: &[&str]| {
            let ids = ids.iter().map(|id| (REQUEST_ID, HeaderValue::from_str(id).expect("a header value")));
            caller_request_id(&ids.collect::<Vec<_>>().into_iter().fold(HeaderMap::new(), |mut all, (name, id)| {
                all.append(name, id);
                all
            }))
            .map(|id| id.to_str().expect("text").to_owned())
        };
        for id in ["5f0c9a4e-1c9b-4d1e-9a59-0242ac120002", "Root=1-67891233/abc+d==", "a", &"x".repeat(128)] {
            assert_eq!(of(&[id]).as_deref(), Some(id));
        }
        for bad in [&[][..], &[""], &["a", "b"], &["a b"], &["a,b"], &["a\u{e9}"], &["\"a\""], &[&"x".repeat(129)]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn websocket_key_is_16_bytes_in_base64() {
        assert_eq!(&ID.websocket_key(), b"000000000000000000abcw==");
        let (four_bits_more, alphabet) = (0b1111, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        let last = alphabet.iter().position(|letter| *letter == b'w').expect("a letter");
        assert_eq!(last & four_bits_more, 0, "22 letters hold 4 bits more than 16 bytes: they are zero");
    }

    #[test]
    fn trace_of_a_caller_is_continued_and_an_invalid_one_is_not() {
        let new = "00-00000000000000000000000000000abc-000000000000001f-01";
        let going_on = "00-0af7651916cd43dd8448eb211c80319c-000000000000001f-00";
        for (given, expected) in [
            (None, new),
            (Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), going_on),
            (Some("00-00000000000000000000000000000000-b7ad6b7169203331-00"), new),
            (Some("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), going_on),
            (Some("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later"), going_on),
            (Some("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00later"), new),
            (Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later"), new),
            (Some("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), new),
            (Some("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00"), new),
            (Some("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-00"), new),
            (Some("garbage"), new),
        ] {
            let given = given.map(|text| HeaderValue::from_str(text).expect("a header value"));
            assert_eq!(ID.traceparent(given.as_ref(), None), *expected.as_bytes(), "{given:?}");
            let context = ID.trace_context(given.as_ref());
            let shown = format!("00-{:032x}-{:016x}", context.trace_id, context.span_id);
            assert!(expected.starts_with(&shown), "{given:?}: {shown}");
            let parent =
                (expected == going_on).then_some(ParentSpan { span_id: 0xb7ad_6b71_6920_3331, is_sampled: false });
            assert_eq!(context.parent, parent, "{given:?}");
        }
        assert!(ID.traceparent(None, Some(false)).ends_with(b"-00"), "the gateway decides");
        let sampled = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03");
        assert!(ID.trace_context(Some(&sampled)).parent.is_some_and(|parent| parent.is_sampled), "by the lowest bit");
    }
}
