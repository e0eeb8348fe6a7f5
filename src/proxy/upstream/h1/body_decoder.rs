//! The decoder of HTTP/1.1 response bodies: lengths, chunks and trailers (RFC 9112 sections 6 and 7). Pure.
//!
//! Guarantees:
//! - Decoded pieces share the read buffer; nothing is copied.
//! - Chunk-size lines and trailer sections have limits.
//! - Malformed framing is an error, never a guess.
//! - Bytes behind the end of the body stay in the buffer, so that the owner of the connection sees them.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::ConnectionError;
use super::response_head::parse_headers;

/// The maximum length of a chunk-size line, with extensions. Extensions are not forwarded.
const CHUNK_LINE_MAX: usize = 1024;
/// The maximum length of a trailer section.
const TRAILERS_MAX: usize = 16 * 1024;
/// The maximum number of trailer fields.
const TRAILER_FIELDS_MAX: usize = 64;

/// The state of a body: the part that is still to be read.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// This many bytes remain.
    Length(u64),
    /// The body is chunked.
    Chunked(ChunkDecoder),
    /// The body ends when the server closes the connection.
    UntilClose,
}

/// A decoded part of a body.
#[derive(Debug)]
pub(crate) enum DecodedPart {
    /// A piece of content.
    Data(Bytes),
    /// The trailers of a chunked body.
    Trailers(HeaderMap),
    /// The end of the body.
    End,
    /// More bytes must be read first.
    NeedMore,
}

impl BodyDecoder {
    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => matches!(chunks.state, ChunkState::Done),
            Self::UntilClose => false,
        }
    }

    /// The number of remaining bytes, if it is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The bytes of an incomplete line or trailer section.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Chunked(chunks) => chunks.partial.len(),
            Self::Length(_) | Self::UntilClose => 0,
        }
    }

    /// Decodes the next part of the bytes read.
    pub(crate) fn decode_next(&mut self, read: &mut Bytes) -> Result<DecodedPart, ConnectionError> {
        match self {
            Self::Length(0) => Ok(DecodedPart::End),
            Self::Chunked(chunks) => chunks.decode_chunk(read),
            _ if read.is_empty() => Ok(DecodedPart::NeedMore),
            Self::Length(left) => {
                let data = split_front(read, *left);
                *left -= data.len() as u64;
                Ok(DecodedPart::Data(data))
            }
            Self::UntilClose => Ok(DecodedPart::Data(std::mem::take(read))),
        }
    }
}

/// Splits off at most `most` bytes from the front.
fn split_front(read: &mut Bytes, most: u64) -> Bytes {
    match usize::try_from(most) {
        Ok(most) if most < read.len() => read.split_to(most),
        _ => std::mem::take(read),
    }
}

/// The decoder of a chunked body.
#[derive(Debug, Default)]
pub(crate) struct ChunkDecoder {
    state: ChunkState,
    /// A chunk-size line or trailer section that is incomplete.
    partial: BytesMut,
    /// An error found right behind the last piece; that piece is returned first.
    pending_error: Option<Box<ConnectionError>>,
}

#[derive(Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data(u64),
    /// The line end after the data of a chunk.
    DataEnd,
    Trailers,
    Done,
}

impl ChunkDecoder {
    fn decode_chunk(&mut self, read: &mut Bytes) -> Result<DecodedPart, ConnectionError> {
        if let Some(error) = self.pending_error.take() {
            return Err(*error);
        }
        loop {
            match &mut self.state {
                ChunkState::Done => return Ok(DecodedPart::End),
                ChunkState::Data(_) if read.is_empty() => return Ok(DecodedPart::NeedMore),
                ChunkState::Data(left) => {
                    let data = split_front(read, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = ChunkState::DataEnd;
                    }
                    self.pending_error = self.decode_lines(read).err().map(Box::new);
                    return Ok(DecodedPart::Data(data));
                }
                ChunkState::Trailers => return self.take_trailers(read),
                ChunkState::Size | ChunkState::DataEnd => {
                    if !self.take_line(read)? {
                        return Ok(DecodedPart::NeedMore);
                    }
                }
            }
        }
    }

    /// Decodes the lines behind a piece of content, so that the end of the body is known together with the last piece.
    fn decode_lines(&mut self, read: &mut Bytes) -> Result<(), ConnectionError> {
        while matches!(self.state, ChunkState::Size | ChunkState::DataEnd) {
            if !self.take_line(read)? {
                return Ok(());
            }
        }
        if matches!(self.state, ChunkState::Trailers) && self.partial.is_empty() && read.starts_with(b"\r\n") {
            read.advance(2);
            self.state = ChunkState::Done;
        }
        Ok(())
    }

    /// Takes one line; `false` if the line is incomplete.
    fn take_line(&mut self, read: &mut Bytes) -> Result<bool, ConnectionError> {
        let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
            self.partial.extend_from_slice(read);
            read.clear();
            return if self.partial.len() > CHUNK_LINE_MAX { Err(CHUNK_LINE_TOO_LONG) } else { Ok(false) };
        };
        // The limit holds for a line that arrives whole, too: the verdict must not depend on the sizes of the reads.
        if self.partial.len() + end >= CHUNK_LINE_MAX {
            return Err(CHUNK_LINE_TOO_LONG);
        }
        let line = read.split_to(end + 1);
        self.state = if self.partial.is_empty() {
            state_after_line(&self.state, &line)?
        } else {
            self.partial.extend_from_slice(&line);
            state_after_line(&self.state, &std::mem::take(&mut self.partial))?
        };
        Ok(true)
    }

    fn take_trailers(&mut self, read: &mut Bytes) -> Result<DecodedPart, ConnectionError> {
        self.partial.extend_from_slice(read);
        let Some(length) = trailers_end(&self.partial) else {
            read.clear();
            return if self.partial.len() > TRAILERS_MAX { Err(TRAILERS_TOO_LONG) } else { Ok(DecodedPart::NeedMore) };
        };
        if length > TRAILERS_MAX {
            return Err(TRAILERS_TOO_LONG);
        }
        read.advance(length - (self.partial.len() - read.len()));
        self.partial.truncate(length);
        let fields = parse_headers::<TRAILER_FIELDS_MAX>(&std::mem::take(&mut self.partial).freeze())?;
        // Set only after the trailers parsed: malformed trailers are an error, not an end.
        self.state = ChunkState::Done;
        Ok(if fields.is_empty() { DecodedPart::End } else { DecodedPart::Trailers(fields) })
    }
}

const CHUNK_LINE_TOO_LONG: ConnectionError = ConnectionError::InvalidResponse("a chunk's size line is too long");
const TRAILERS_TOO_LONG: ConnectionError = ConnectionError::InvalidResponse("the trailer section is too long");

/// The end of a trailer section: an empty line, at once or after fields.
fn trailers_end(section: &[u8]) -> Option<usize> {
    if section.starts_with(b"\r\n") {
        return Some(2);
    }
    section.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The state after a complete line.
fn state_after_line(state: &ChunkState, line: &[u8]) -> Result<ChunkState, ConnectionError> {
    let text =
        line.strip_suffix(b"\r\n").ok_or(ConnectionError::InvalidResponse("a chunk's size line ends without CR"))?;
    match state {
        ChunkState::DataEnd if text.is_empty() => Ok(ChunkState::Size),
        ChunkState::DataEnd => Err(ConnectionError::InvalidResponse("a chunk is longer than its size")),
        _ => Ok(match parse_chunk_size(text)? {
            0 => ChunkState::Trailers,
            size => ChunkState::Data(size),
        }),
    }
}

/// Parses `1*HEXDIG [chunk-ext]`; extensions are ignored (RFC 9112 section 7.1.1). White space at the end of the line
/// is allowed, because old servers pad their sizes.
fn parse_chunk_size(line: &[u8]) -> Result<u64, ConnectionError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extensions) = line.split_at(digits);
    if !is_chunk_extension(extensions) {
        return Err(ConnectionError::InvalidResponse("a chunk size is not a number"));
    }
    let hex = std::str::from_utf8(digits).ok();
    hex.and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or(ConnectionError::InvalidResponse("a chunk size is not a number"))
}

/// Whether these bytes may follow the digits of a chunk size: nothing, or `;` and text. Other text could be the rest of
/// a number, and other readers take a bare CR for the end of the line.
fn is_chunk_extension(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    (text.is_empty() || text.starts_with(b";")) && !bytes.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, the names of the trailers, and the bytes left over.
    type Decoded = (Vec<u8>, Vec<String>, Vec<u8>);

    /// Decodes `wire`, fed in pieces of `size` bytes.
    fn decode(mut decoder: BodyDecoder, wire: &[u8], size: usize) -> Result<Decoded, ConnectionError> {
        let (mut content, mut names) = (Vec::new(), Vec::new());
        let mut pieces = wire.chunks(size);
        let mut read = Bytes::new();
        loop {
            let step = decoder.decode_next(&mut read);
            assert!(step.is_ok() || !decoder.is_done(), "an error is not an end");
            match step? {
                DecodedPart::Data(data) => content.extend_from_slice(&data),
                DecodedPart::Trailers(fields) => names.extend(fields.keys().map(ToString::to_string)),
                DecodedPart::End => break,
                DecodedPart::NeedMore => match pieces.next() {
                    Some(piece) => read = Bytes::copy_from_slice(piece),
                    None => return Err(ConnectionError::Closed),
                },
            }
        }
        assert!(decoder.is_done());
        let mut left = read.to_vec();
        left.extend(pieces.flatten());
        Ok((content, names, left))
    }

    #[test]
    fn data_before_a_malformed_chunk_line_is_delivered() {
        let mut decoder = BodyDecoder::Chunked(ChunkDecoder::default());
        let mut read = Bytes::from_static(b"5\r\nhello\r\nno size\r\n");
        assert!(matches!(decoder.decode_next(&mut read), Ok(DecodedPart::Data(data)) if data == "hello"));
        assert!(!decoder.is_done());
        assert!(decoder.decode_next(&mut read).is_err() && !decoder.is_done());
    }

    #[test]
    fn bodies_end_at_their_framing_for_every_split() {
        let chunked = || BodyDecoder::Chunked(ChunkDecoder::default());
        type Case = (fn() -> BodyDecoder, &'static [u8], &'static [u8], &'static [&'static str], &'static [u8]);
        let cases: [Case; 6] = [
            (|| BodyDecoder::Length(0), b"next", b"", &[], b"next"),
            (|| BodyDecoder::Length(5), b"hellonext", b"hello", &[], b"next"),
            (chunked, b"5\r\nhello\r\n0\r\n\r\nnext", b"hello", &[], b"next"),
            (chunked, b"5;a=b\r\nhello\r\n1 \r\n!\r\n000\r\n\r\n", b"hello!", &[], b""),
            (chunked, b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-End: 2\r\n\r\nnext", b"hi", &["x-sum", "x-end"], b"next"),
            (chunked, b"0\r\n\r\n", b"", &[], b""),
        ];
        for (decoder, wire, content, trailers, left) in cases {
            for size in 1..=wire.len() {
                let (got, names, rest) = decode(decoder(), wire, size).expect("a good body");
                assert_eq!((got.as_slice(), rest.as_slice()), (content, left), "{wire:?} in pieces of {size}");
                assert_eq!(names, trailers, "{wire:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn end_is_known_with_the_last_data() {
        let mut decoder = BodyDecoder::Chunked(ChunkDecoder::default());
        let mut read = Bytes::from_static(b"2\r\nhi\r\n0\r\n\r\n");
        assert!(matches!(decoder.decode_next(&mut read), Ok(DecodedPart::Data(data)) if data == "hi"));
        assert!(decoder.is_done() && read.is_empty());
    }

    #[test]
    fn malformed_bodies_are_errors() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\na",
            b"0x1\r\na",
            b"1\na\r\n",
            b"1 1\r\na\r\n",
            b"1;a\rb\r\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\n\nX: 1\r\n\r\n",
            b"0\r\nX: 1\n\nY: 2\r\n\r\n",
        ] {
            for size in 1..=wire.len() {
                let end = decode(BodyDecoder::Chunked(ChunkDecoder::default()), wire, size);
                assert!(
                    matches!(end, Err(ConnectionError::InvalidResponse(_))),
                    "{wire:?} in pieces of {size}: {end:?}"
                );
            }
        }
    }

    #[test]
    fn long_chunk_lines_and_trailers_are_errors_for_every_split() {
        let line = [b"1;".as_slice(), &vec![b'a'; CHUNK_LINE_MAX - 3], b"\r\n!\r\n0\r\n\r\n"].concat();
        let field = [b"0\r\nX:".as_slice(), &vec![b'a'; TRAILERS_MAX - 5], b"\r\n\r\n"].concat();
        for wire in [vec![b'1'; CHUNK_LINE_MAX + 2], line, field] {
            for size in [1, 64, wire.len()] {
                let end = decode(BodyDecoder::Chunked(ChunkDecoder::default()), &wire, size);
                assert!(matches!(end, Err(ConnectionError::InvalidResponse(_))), "pieces of {size}: {end:?}");
            }
        }
    }

    #[test]
    fn truncated_body_is_incomplete() {
        assert!(matches!(decode(BodyDecoder::Length(5), b"hell", 2), Err(ConnectionError::Closed)));
        assert!(matches!(
            decode(BodyDecoder::Chunked(ChunkDecoder::default()), b"5\r\nhell", 2),
            Err(ConnectionError::Closed)
        ));
    }
}
