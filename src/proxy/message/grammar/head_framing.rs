//! Message framing: the fields of a head that framing depends on (RFC 9112 sections 5 and 6), and the rules for
//! trailers.

use super::malformed::MalformedRequest;
use super::request_line::RequestLine;
use super::text::{name_length, trim_blanks};

/// The most digits of a Content-Length. 18 digits are a thousand petabytes.
const LENGTH_DIGITS_MAX: usize = 18;

/// Names that a trailer may not have.
pub(crate) const NEVER_IN_TRAILERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
];

/// The framing fields of a head so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadFraming {
    request_line: RequestLine,
    content_length: Option<u64>,
    coding: Option<TransferCoding>,
    upgrade: bool,
    expects_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferCoding {
    Chunked,
    /// A single word that is not `chunked`.
    Unsupported,
}

/// The framing of the body after a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// A body of this number of bytes; 0 for no body.
    Exact(u64),
    Chunked,
}

/// The name and the trimmed value of a field line.
fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), MalformedRequest> {
    let (name, rest) = line.split_at(name_length(line));
    match rest {
        [b':', value @ ..] if !name.is_empty() => Ok((name, trim_blanks(value))),
        [b' ' | b'\t', ..] if name.is_empty() => {
            Err(MalformedRequest::bad_request("a line of the head begins with whitespace"))
        }
        [b' ' | b'\t', ..] => Err(MalformedRequest::bad_request("whitespace before the colon of a field")),
        _ => Err(MalformedRequest::bad_request("a field name is not letters, digits and hyphens followed by a colon")),
    }
}

impl HeadFraming {
    pub(crate) fn new(line: RequestLine) -> Self {
        Self { request_line: line, content_length: None, coding: None, upgrade: false, expects_continue: false }
    }

    /// Reads a field line.
    pub(crate) fn read_line(&mut self, line: &[u8]) -> Result<(), MalformedRequest> {
        let (name, value) = split_header(line)?;
        self.read_header(name, value)
    }

    /// Reads a field with separate name and value, as over HTTP/2.
    pub(crate) fn read_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), MalformedRequest> {
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => self.read_expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.read_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.read_transfer_encoding(value),
            _ => Ok(()),
        }
    }

    /// Accepts only `100-continue`, the one expectation that is defined (RFC 9110 section 10.1.1).
    fn read_expect(&mut self, value: &[u8]) -> Result<(), MalformedRequest> {
        let again = std::mem::replace(&mut self.expects_continue, true);
        match value.eq_ignore_ascii_case(b"100-continue") && !again {
            true => Ok(()),
            false => Err(MalformedRequest::expectation_failed("Expect is not a single 100-continue")),
        }
    }

    fn read_content_length(&mut self, value: &[u8]) -> Result<(), MalformedRequest> {
        const ODD: MalformedRequest = MalformedRequest::bad_request("Content-Length is not a single decimal number");
        if self.content_length.is_some() {
            return Err(MalformedRequest::bad_request("more than one Content-Length"));
        }
        let leading_zero = value.len() > 1 && value.first() == Some(&b'0');
        if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || leading_zero {
            return Err(ODD);
        }
        let digit = |length: u64, byte: &u8| byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0'));
        self.content_length = Some(value.iter().try_fold(0, digit).ok_or(ODD)?);
        Ok(())
    }

    fn read_transfer_encoding(&mut self, value: &[u8]) -> Result<(), MalformedRequest> {
        if self.coding.is_some() {
            return Err(MalformedRequest::bad_request("more than one Transfer-Encoding"));
        }
        let is_word = !value.is_empty() && name_length(value) == value.len();
        self.coding = match () {
            () if value.eq_ignore_ascii_case(b"chunked") => Some(TransferCoding::Chunked),
            () if is_word => Some(TransferCoding::Unsupported),
            () => return Err(MalformedRequest::bad_request("Transfer-Encoding is not exactly: chunked")),
        };
        Ok(())
    }

    /// The framing of the body, once the head is complete (RFC 9112 section 6.3).
    pub(crate) fn body_length(&self) -> Result<BodyLength, MalformedRequest> {
        let body = match (self.coding, self.content_length) {
            (Some(_), Some(_)) => {
                return Err(MalformedRequest::bad_request("both Content-Length and Transfer-Encoding"));
            }
            (Some(_), None) if !self.request_line.is_http_11 => {
                return Err(MalformedRequest::bad_request("Transfer-Encoding in HTTP/1.0"));
            }
            (Some(TransferCoding::Unsupported), None) => {
                return Err(MalformedRequest::not_implemented("the transfer coding is not supported; only chunked is"));
            }
            (Some(TransferCoding::Chunked), None) => BodyLength::Chunked,
            (None, length) => BodyLength::Exact(length.unwrap_or(0)),
        };
        match body {
            BodyLength::Exact(0) if self.request_line.is_trace => {
                Err(MalformedRequest::not_implemented("TRACE is not supported"))
            }
            BodyLength::Exact(0) => Ok(body),
            _ if self.request_line.is_trace => Err(MalformedRequest::bad_request("TRACE with a body")),
            _ if self.upgrade => Err(MalformedRequest::bad_request("Upgrade with a body: its end is ambiguous")),
            _ => Ok(body),
        }
    }
}

/// Checks the line of a trailer.
pub(crate) fn check_trailer_line(line: &[u8]) -> Result<(), MalformedRequest> {
    let (name, _) = split_header(line)?;
    check_trailer_name(name)
}

/// Checks that a trailer is not a field for framing, routing or authentication (RFC 9110 section 6.5.1).
pub(crate) fn check_trailer_name(name: &[u8]) -> Result<(), MalformedRequest> {
    match NEVER_IN_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) {
        true => Err(MalformedRequest::bad_request(
            "a trailer field that is not allowed: it would frame, route or authenticate the message",
        )),
        false => Ok(()),
    }
}
