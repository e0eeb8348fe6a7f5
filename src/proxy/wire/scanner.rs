//! What a connection's bytes mean: heads, bodies, chunks, trailers, one after the other. Pure: bytes in, a verdict out.
//!
//! Guarantees: however the bytes are cut into pieces, the verdict is the same; a head is let through when it is whole, a
//! body as it comes; every line is looked at once, but for the one whose end has not come. Nothing is allocated.

use crate::config::Capacity;
use crate::proxy::fault::Fault;

use super::field::{Body, Framing, trailer};
use super::request_line;
use super::text::line;

/// Hex digits of a chunk's size: more would be more than any body.
const SIZE_DIGITS_MAX: usize = 15;

pub(super) const LARGE_HEAD: Fault = Fault::large_head("the head is larger than this gateway takes");
pub(super) const LARGE_TRAILER: Fault = Fault::large_head("the trailer is larger than this gateway takes");
pub(super) const MANY_FIELDS: Fault = Fault::large_head("the head has more fields than this gateway takes");

/// How large a head, or a trailer, may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, from the first letter of the method to the empty line.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

impl HeadLimits {
    /// Those of a configuration.
    pub(in crate::proxy) fn of(capacity: &Capacity) -> Self {
        Self { bytes: capacity.head_bytes, fields: capacity.head_fields }
    }
}

/// What may be done with the bytes that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// So many of them, from the first, may go on.
    pub pass: usize,
    /// What is wrong with what follows them, if something is. Nothing is to be shown after that.
    pub fault: Option<(Fault, Where)>,
}

/// Where a fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In a message of which nothing was let through: it can be refused.
    Whole,
    /// In the body of a message whose head was let through: it can only be broken off.
    Body,
}

/// Follows one connection.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: HeadLimits,
    at: At,
    /// What the head that is being read says about its body.
    framing: Framing,
    /// Fields of the head or trailer so far, and bytes of the trailer.
    fields: usize,
    trailer_bytes: usize,
    /// How far into what is pending whole lines of a head have been looked at.
    looked: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a head; one empty line is forgiven (RFC 9112 section 2.2).
    Start {
        forgiven: bool,
    },
    /// In a head.
    Fields,
    /// In a body, or in the data of a chunk, with so many bytes to come.
    Length(u64),
    Data(u64),
    /// Before the line with a chunk's size.
    Size,
    /// After the data of a chunk.
    DataEnd,
    Trailer,
}

impl Scanner {
    /// Follows a connection from its first byte.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            at: At::Start { forgiven: false },
            framing: Framing::default(),
            fields: 0,
            trailer_bytes: 0,
            looked: 0,
        }
    }

    /// Whether the last message is over, and no byte of another has been looked at.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Start { forgiven: false })
    }

    /// Whether a head has been begun that is not whole yet, or is waited for.
    pub fn is_in_head(&self) -> bool {
        matches!(self.at, At::Start { .. } | At::Fields)
    }

    /// Looks at what has come and was not let through yet, from its first byte, and says how much of it may go on now.
    pub fn scan(&mut self, pending: &[u8]) -> Scan {
        // Where the message begins whose head is in `pending`: until the end of the scan, it can be taken back whole.
        let mut begin = self.is_in_head().then_some(0);
        let mut position = self.looked;
        let fault = loop {
            if let At::Start { forgiven: false } = self.at {
                begin = Some(position);
            }
            match self.step(&pending[position..], position - begin.unwrap_or(position)) {
                Ok(0) => break None,
                Ok(taken) => position += taken,
                Err(fault) => break Some(fault),
            }
        };
        let pass = match begin {
            Some(begin) if fault.is_some() || self.is_in_head() => begin,
            _ => position,
        };
        self.looked = position - pass;
        let place = if begin.is_some() { Where::Whole } else { Where::Body };
        Scan { pass, fault: fault.map(|fault| (fault, place)) }
    }

    /// Takes one line, or a piece of a body: so many bytes, or 0 if more must come first. `before` is how long the head is
    /// so far.
    fn step(&mut self, text: &[u8], before: usize) -> Result<usize, Fault> {
        match self.at {
            At::Start { forgiven } => self.first_line(text, forgiven),
            At::Fields => self.field_line(text, before),
            At::Length(left) => Ok(self.take(text, left, At::Length, At::Start { forgiven: false })),
            At::Data(left) => Ok(self.take(text, left, At::Data, At::DataEnd)),
            At::Size => self.size_line(text),
            At::DataEnd => self.data_end(text),
            At::Trailer => self.trailer_line(text),
        }
    }

    fn first_line(&mut self, text: &[u8], forgiven: bool) -> Result<usize, Fault> {
        let Some((line, taken)) = line(text, false)? else {
            return request_line::may_go_on(text).map(|()| 0);
        };
        if line.is_empty() && !forgiven {
            self.at = At::Start { forgiven: true };
            return Ok(taken);
        }
        self.fields = 0;
        self.framing = Framing::new(request_line::read(line)?);
        self.at = At::Fields;
        Ok(taken)
    }

    fn field_line(&mut self, text: &[u8], before: usize) -> Result<usize, Fault> {
        let found = line(text, true)?;
        if before + found.map_or(text.len(), |(_, taken)| taken) > self.limits.bytes {
            return Err(LARGE_HEAD);
        }
        let Some((line, taken)) = found else { return Ok(0) };
        if line.is_empty() {
            self.at = match self.framing.body()? {
                Body::Length(0) => At::Start { forgiven: false },
                Body::Length(length) => At::Length(length),
                Body::Chunked => At::Size,
            };
            return Ok(taken);
        }
        self.count_field()?;
        self.framing.field(line)?;
        Ok(taken)
    }

    fn count_field(&mut self) -> Result<(), Fault> {
        self.fields += 1;
        match self.fields > self.limits.fields {
            true => Err(MANY_FIELDS),
            false => Ok(()),
        }
    }

    fn take(&mut self, text: &[u8], left: u64, still: fn(u64) -> At, then: At) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(text.len());
        let left = left - taken as u64;
        self.at = if left == 0 { then } else { still(left) };
        taken
    }

    /// `chunk-size CRLF`, and no extension: nobody uses them, and some take them for data (CVE-2025-55315).
    fn size_line(&mut self, text: &[u8]) -> Result<usize, Fault> {
        const ODD: Fault = Fault::bad("a chunk's size is not plain hex digits and CR LF; extensions are not taken");
        let digits = text.iter().take(SIZE_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        let Some((size, end)) = text.split_at_checked(digits).filter(|_| digits <= SIZE_DIGITS_MAX) else {
            return Err(ODD);
        };
        match end {
            [] | [b'\r'] if digits > 0 || end.is_empty() => return Ok(0),
            [b'\r', b'\n', ..] if digits > 0 => {}
            _ => return Err(ODD),
        }
        let size = size.iter().fold(0, |size, digit| size << 4 | u64::from(hex(*digit)));
        (self.fields, self.trailer_bytes) = (0, 0);
        self.at = if size == 0 { At::Trailer } else { At::Data(size) };
        Ok(digits + 2)
    }

    fn data_end(&mut self, text: &[u8]) -> Result<usize, Fault> {
        match text {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.at = At::Size;
                Ok(2)
            }
            _ => Err(Fault::bad("a chunk's data is not as long as its size said")),
        }
    }

    fn trailer_line(&mut self, text: &[u8]) -> Result<usize, Fault> {
        let found = line(text, true)?;
        if self.trailer_bytes + found.map_or(text.len(), |(_, taken)| taken) >= self.limits.bytes {
            return Err(LARGE_TRAILER);
        }
        let Some((line, taken)) = found else { return Ok(0) };
        if line.is_empty() {
            self.at = At::Start { forgiven: false };
            return Ok(taken);
        }
        self.count_field()?;
        trailer(line)?;
        self.trailer_bytes += taken;
        Ok(taken)
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
