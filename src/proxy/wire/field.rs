//! The fields of a head, as far as framing depends on them (RFC 9112 sections 5 and 6), and those of a trailer.

use crate::proxy::fault::Fault;

use super::request_line::RequestLine;
use super::text::{name_length, trimmed};

/// No length has more digits: that is a thousand petabytes.
const LENGTH_DIGITS_MAX: usize = 18;

/// Names that a trailer may not have.
pub(super) const NEVER_IN_TRAILERS: [&str; 9] = [
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

/// What a head has said about its body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    line: RequestLine,
    length: Option<u64>,
    coding: Option<Coding>,
    upgrade: bool,
    expects: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// A single word that is not `chunked`.
    Foreign,
}

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes; 0 where there is none.
    Length(u64),
    Chunked,
}

/// The name and the trimmed value of a field's line.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (name, rest) = line.split_at(name_length(line));
    match rest {
        [b':', value @ ..] if !name.is_empty() => Ok((name, trimmed(value))),
        [b' ' | b'\t', ..] if name.is_empty() => Err(Fault::bad("a line of the head begins with a blank")),
        [b' ' | b'\t', ..] => Err(Fault::bad("a blank stands before the colon of a field")),
        _ => Err(Fault::bad("a field's name is not letters, digits and hyphens with a colon after it")),
    }
}

impl Framing {
    pub(super) fn new(line: RequestLine) -> Self {
        Self { line, length: None, coding: None, upgrade: false, expects: false }
    }

    /// Reads the line of a field.
    pub(super) fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = split(line)?;
        self.named(name, value)
    }

    /// Reads a field whose name and value are known apart, as over HTTP/2.
    pub(super) fn named(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    /// RFC 9110 section 10.1.1: `100-continue` is the only expectation there is.
    fn expect(&mut self, value: &[u8]) -> Result<(), Fault> {
        let again = std::mem::replace(&mut self.expects, true);
        match value.eq_ignore_ascii_case(b"100-continue") && !again {
            true => Ok(()),
            false => Err(Fault::expectation("Expect is anything but one 100-continue")),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        const ODD: Fault = Fault::bad("Content-Length is not one plain decimal number");
        if self.length.is_some() {
            return Err(Fault::bad("more than one Content-Length"));
        }
        let leading_zero = value.len() > 1 && value.first() == Some(&b'0');
        if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || leading_zero {
            return Err(ODD);
        }
        let digit = |length: u64, byte: &u8| byte.is_ascii_digit().then(|| length * 10 + u64::from(byte - b'0'));
        self.length = Some(value.iter().try_fold(0, digit).ok_or(ODD)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.coding.is_some() {
            return Err(Fault::bad("more than one Transfer-Encoding"));
        }
        let is_word = !value.is_empty() && name_length(value) == value.len();
        self.coding = match () {
            () if value.eq_ignore_ascii_case(b"chunked") => Some(Coding::Chunked),
            () if is_word => Some(Coding::Foreign),
            () => return Err(Fault::bad("Transfer-Encoding is not exactly: chunked")),
        };
        Ok(())
    }

    /// The head is whole: what follows it (RFC 9112 section 6.3)?
    pub(super) fn body(&self) -> Result<Body, Fault> {
        let body = match (self.coding, self.length) {
            (Some(_), Some(_)) => return Err(Fault::bad("a Content-Length beside a Transfer-Encoding")),
            (Some(_), None) if !self.line.is_11 => return Err(Fault::bad("a Transfer-Encoding in HTTP/1.0")),
            (Some(Coding::Foreign), None) => {
                return Err(Fault::not_spoken("a transfer coding that is not spoken here; chunked is"));
            }
            (Some(Coding::Chunked), None) => Body::Chunked,
            (None, length) => Body::Length(length.unwrap_or(0)),
        };
        match body {
            Body::Length(0) if self.line.is_trace => Err(Fault::not_spoken("TRACE is not served here")),
            Body::Length(0) => Ok(body),
            _ if self.line.is_trace => Err(Fault::bad("a TRACE with a body")),
            _ if self.upgrade => Err(Fault::bad("an Upgrade with a body: its bytes could be read in two ways")),
            _ => Ok(body),
        }
    }
}

/// Reads the line of a trailer.
pub(super) fn trailer(line: &[u8]) -> Result<(), Fault> {
    let (name, _) = split(line)?;
    check_trailer_name(name)
}

/// What frames, routes or authenticates a message may not come after it (RFC 9110 section 6.5.1).
pub(super) fn check_trailer_name(name: &[u8]) -> Result<(), Fault> {
    match NEVER_IN_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) {
        true => Err(Fault::bad("a trailer that frames, routes or authenticates a message")),
        false => Ok(()),
    }
}
