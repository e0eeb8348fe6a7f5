//! The HTTP/1.1 scanner: follows heads, bodies, chunks and trailers on a connection. Pure: bytes in, a verdict out.
//!
//! Guarantees:
//!
//! - The verdict does not depend on the division of the bytes into pieces.
//! - A head is passed once it is complete; a body is passed as it arrives.
//! - Every line is scanned once, except for an incomplete line.
//! - Nothing is allocated.

use crate::config::CapacitySettings;

use super::head_framing::{BodyLength, HeadFraming, check_trailer_line};
use super::malformed::MalformedRequest;
use super::request_line;
use super::text::split_line;

/// The most hex digits of a chunk size. More digits would exceed any body.
const SIZE_DIGITS_MAX: usize = 15;

pub(crate) const HEAD_TOO_LARGE: MalformedRequest = MalformedRequest::headers_too_large("the head is too large");
pub(crate) const TRAILER_TOO_LARGE: MalformedRequest =
    MalformedRequest::headers_too_large("the trailer section is too large");
pub(crate) const TOO_MANY_FIELDS: MalformedRequest =
    MalformedRequest::headers_too_large("the head has too many fields");

/// The size limits of a head, and of a trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, from the first letter of the method to the empty line.
    pub bytes: usize,
    /// The number of fields.
    pub fields: usize,
}

impl HeadLimits {
    /// The limits of a configuration.
    pub(crate) fn from_capacity(capacity: &CapacitySettings) -> Self {
        Self { bytes: capacity.head_bytes, fields: capacity.head_fields }
    }
}

/// The verdict about the scanned bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanResult {
    /// The number of bytes, from the first, that may be passed on.
    pub pass: usize,
    /// The fault in the bytes after them, if there is one. The scanner must not be used after a fault.
    pub fault: Option<(MalformedRequest, FaultPosition)>,
}

/// The position of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPosition {
    /// In a message of which nothing was passed: it can be refused.
    Head,
    /// In the body of a message whose head was passed: the connection can only be cut off.
    Body,
}

/// The scanner of one connection.
#[derive(Clone, Debug)]
pub struct H1Scanner {
    limits: HeadLimits,
    state: ScannerState,
    /// The framing fields of the current head.
    framing: HeadFraming,
    /// The number of fields in the current head or trailer section, and the bytes of the trailer section.
    fields: usize,
    trailer_bytes: usize,
    /// The bytes at the start of the pending input that hold complete, scanned lines of a head.
    checked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScannerState {
    /// Before a head. One empty line is tolerated (RFC 9112 section 2.2).
    Start {
        forgiven: bool,
    },
    /// In a head.
    Fields,
    /// In a body, or in the data of a chunk, with this number of bytes to come.
    Length(u64),
    Data(u64),
    /// Before the line with the size of a chunk.
    Size,
    /// After the data of a chunk.
    DataEnd,
    Trailer,
}

impl H1Scanner {
    /// A scanner at the first byte of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: ScannerState::Start { forgiven: false },
            framing: HeadFraming::default(),
            fields: 0,
            trailer_bytes: 0,
            checked: 0,
        }
    }

    /// Whether the last message is complete, and no byte of the next one has been scanned.
    pub fn is_message_boundary(&self) -> bool {
        matches!(self.state, ScannerState::Start { forgiven: false })
    }

    /// Whether a head is awaited, or is incomplete.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, ScannerState::Start { .. } | ScannerState::Fields)
    }

    /// Scans the bytes that have arrived and were not passed yet, from the first of them. Returns how many may be
    /// passed now.
    pub fn scan(&mut self, pending: &[u8]) -> ScanResult {
        // The start of the message whose head is in `pending`. Until the end of the scan that message can be withheld
        // as a whole.
        let mut begin = self.is_in_head().then_some(0);
        let mut position = self.checked;
        let fault = loop {
            if let ScannerState::Start { forgiven: false } = self.state {
                begin = Some(position);
            }
            match self.scan_step(&pending[position..], position - begin.unwrap_or(position)) {
                Ok(0) => break None,
                Ok(taken) => position += taken,
                Err(fault) => break Some(fault),
            }
        };
        let pass = match begin {
            Some(begin) if fault.is_some() || self.is_in_head() => begin,
            _ => position,
        };
        self.checked = position - pass;
        let place = if begin.is_some() { FaultPosition::Head } else { FaultPosition::Body };
        ScanResult { pass, fault: fault.map(|fault| (fault, place)) }
    }

    /// Takes one line, or a piece of a body. Returns its length in bytes, or 0 if more bytes are needed. `before` is
    /// the length of the head so far.
    fn scan_step(&mut self, text: &[u8], before: usize) -> Result<usize, MalformedRequest> {
        match self.state {
            ScannerState::Start { forgiven } => self.first_line(text, forgiven),
            ScannerState::Fields => self.field_line(text, before),
            ScannerState::Length(left) => {
                Ok(self.consume_body(text, left, ScannerState::Length, ScannerState::Start { forgiven: false }))
            }
            ScannerState::Data(left) => Ok(self.consume_body(text, left, ScannerState::Data, ScannerState::DataEnd)),
            ScannerState::Size => self.size_line(text),
            ScannerState::DataEnd => self.data_end(text),
            ScannerState::Trailer => self.trailer_line(text),
        }
    }

    fn first_line(&mut self, text: &[u8], forgiven: bool) -> Result<usize, MalformedRequest> {
        let Some((line, taken)) = split_line(text, false)? else {
            return request_line::check_partial_line(text).map(|()| 0);
        };
        if line.is_empty() && !forgiven {
            self.state = ScannerState::Start { forgiven: true };
            return Ok(taken);
        }
        self.fields = 0;
        self.framing = HeadFraming::new(request_line::parse_request_line(line)?);
        self.state = ScannerState::Fields;
        Ok(taken)
    }

    fn field_line(&mut self, text: &[u8], before: usize) -> Result<usize, MalformedRequest> {
        let found = split_line(text, true)?;
        if before + found.map_or(text.len(), |(_, taken)| taken) > self.limits.bytes {
            return Err(HEAD_TOO_LARGE);
        }
        let Some((line, taken)) = found else { return Ok(0) };
        if line.is_empty() {
            self.state = match self.framing.body_length()? {
                BodyLength::Exact(0) => ScannerState::Start { forgiven: false },
                BodyLength::Exact(length) => ScannerState::Length(length),
                BodyLength::Chunked => ScannerState::Size,
            };
            return Ok(taken);
        }
        self.count_field()?;
        self.framing.read_line(line)?;
        Ok(taken)
    }

    fn count_field(&mut self) -> Result<(), MalformedRequest> {
        self.fields += 1;
        match self.fields > self.limits.fields {
            true => Err(TOO_MANY_FIELDS),
            false => Ok(()),
        }
    }

    fn consume_body(&mut self, text: &[u8], left: u64, still: fn(u64) -> ScannerState, then: ScannerState) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(text.len());
        let left = left - taken as u64;
        self.state = if left == 0 { then } else { still(left) };
        taken
    }

    /// `chunk-size CRLF` without extensions: they are not in use, and some servers take them for data (CVE-2025-55315).
    fn size_line(&mut self, text: &[u8]) -> Result<usize, MalformedRequest> {
        const ODD: MalformedRequest = MalformedRequest::bad_request(
            "a chunk size is not hex digits followed by CR LF; chunk extensions are not supported",
        );
        let digits = text.iter().take(SIZE_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        let Some((size, end)) = text.split_at_checked(digits).filter(|_| digits <= SIZE_DIGITS_MAX) else {
            return Err(ODD);
        };
        match end {
            [] | [b'\r'] if digits > 0 || end.is_empty() => return Ok(0),
            [b'\r', b'\n', ..] if digits > 0 => {}
            _ => return Err(ODD),
        }
        let size = size.iter().fold(0, |size, digit| size << 4 | u64::from(hex_value(*digit)));
        (self.fields, self.trailer_bytes) = (0, 0);
        self.state = if size == 0 { ScannerState::Trailer } else { ScannerState::Data(size) };
        Ok(digits + 2)
    }

    fn data_end(&mut self, text: &[u8]) -> Result<usize, MalformedRequest> {
        match text {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.state = ScannerState::Size;
                Ok(2)
            }
            _ => Err(MalformedRequest::bad_request("a chunk's data does not match its size")),
        }
    }

    fn trailer_line(&mut self, text: &[u8]) -> Result<usize, MalformedRequest> {
        let found = split_line(text, true)?;
        if self.trailer_bytes + found.map_or(text.len(), |(_, taken)| taken) >= self.limits.bytes {
            return Err(TRAILER_TOO_LARGE);
        }
        let Some((line, taken)) = found else { return Ok(0) };
        if line.is_empty() {
            self.state = ScannerState::Start { forgiven: false };
            return Ok(taken);
        }
        self.count_field()?;
        check_trailer_line(line)?;
        self.trailer_bytes += taken;
        Ok(taken)
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
