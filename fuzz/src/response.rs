//! The HTTP/1.1 response of a subsystem: the parser of heads and the decoder of bodies.
//!
//! An input is a method byte (odd: the request was a HEAD), a cut byte (the size of the pieces), and the response.
//! A byte [`FILLER`] in the response stands for [`FILLER_LENGTH`] bytes, so that short inputs reach the limits.

use tallygate::proxy::{ResponseEnd, WholeResponse, read_whole_response};

/// Stands for many bytes of `a`. Other control characters remain for inputs with control characters.
const FILLER: u8 = 1;
const FILLER_LENGTH: usize = 4 * 1024;
/// The fillers that are replaced: enough for two heads of the maximum length.
const FILLERS_MAX: usize = 36;
/// The limit of a head in the gateway, and so of all that is held while more bytes are waited for.
const HELD_MAX: usize = 64 * 1024;
/// The number of pieces of a long input. A head is parsed again with every piece, so more pieces cost squared time.
const PIECES_MAX: usize = 64;

/// Any bytes of a subsystem:
///
/// - The result is the same whether the bytes arrive at once or in pieces.
/// - A complete response has the content that `expected_body` reads by simpler means, and its end is where that ends.
/// - A response without its last byte is not complete; bytes behind its end change nothing.
/// - At most `HELD_MAX` bytes are held while more are waited for.
pub fn response(bytes: &[u8]) {
    let [method, cut, wire @ ..] = bytes else { return };
    let is_head_request = method % 2 == 1;
    let wire = with_fillers(wire);
    let read = read_whole_response([wire.as_slice()], is_head_request);
    let cut = read_whole_response(wire.chunks(piece_size(wire.len(), *cut)), is_head_request);
    assert_same(&read, &cut);
    for read in [&read, &cut] {
        assert!(read.held_max <= HELD_MAX, "{} bytes are held", read.held_max);
        assert!(read.head.len() + read.content.len() + read.rest.len() <= wire.len(), "more bytes than came");
    }
    if read.end == ResponseEnd::Complete {
        assert!(wire.ends_with(&read.rest), "the rest is not what is left over");
        let consumed = &wire[..wire.len() - read.rest.len()];
        check_complete(&read, consumed, is_head_request);
    }
}

fn with_fillers(wire: &[u8]) -> Vec<u8> {
    let (mut filled, mut count) = (Vec::with_capacity(wire.len()), 0);
    for byte in wire {
        if *byte == FILLER && count < FILLERS_MAX {
            filled.resize(filled.len() + FILLER_LENGTH, b'a');
            count += 1;
        } else {
            filled.push(*byte);
        }
    }
    filled
}

fn piece_size(length: usize, cut: u8) -> usize {
    let least = if length <= FILLER_LENGTH { 0 } else { length / PIECES_MAX };
    1 + least + usize::from(cut)
}

fn assert_same(read: &WholeResponse, cut: &WholeResponse) {
    assert_eq!(read.end, cut.end, "cutting the bytes changes the end");
    assert_eq!((&read.statuses, &read.head), (&cut.statuses, &cut.head), "cutting the bytes changes the heads");
    assert_eq!((&read.headers, read.keep_alive), (&cut.headers, cut.keep_alive), "cutting changes the headers");
    assert_eq!(read.content, cut.content, "cutting the bytes changes the content");
    assert_eq!(read.trailers, cut.trailers, "cutting the bytes changes the trailers");
    if read.end == ResponseEnd::Complete {
        assert_eq!(read.rest, cut.rest, "cutting the bytes changes the rest");
    }
}

/// Checks a complete response, which is `consumed`.
fn check_complete(read: &WholeResponse, consumed: &[u8], is_head_request: bool) {
    let status = *read.statuses.last().expect("a complete response has a head");
    let framing = HeadFraming::read(&read.head);
    let body = &consumed[read.body_begin..];
    if is_head_request || matches!(status, 100..=199 | 204 | 304) {
        assert!(body.is_empty() && read.content.is_empty(), "a response without a body has one");
    } else {
        assert_eq!(read.content, expected_body(&framing, body), "the content is read in another way");
        assert!(!(read.keep_alive && framing.is_until_close()), "a connection without an end of the body is kept");
    }
    assert!(!(read.keep_alive && framing.is_closing), "a connection that closes is kept");
    if read.content.is_empty() || !framing.is_until_close() {
        assert_ends_there(read, consumed, is_head_request);
    }
}

/// The response is the same without the bytes behind its end, and incomplete without its last byte.
fn assert_ends_there(read: &WholeResponse, consumed: &[u8], is_head_request: bool) {
    let alone = read_whole_response([consumed], is_head_request);
    assert!(alone.rest.is_empty(), "the end depends on the bytes behind it");
    assert_eq!((alone.end, &alone.headers), (read.end, &read.headers), "bytes behind the end change the head");
    assert_eq!((&alone.content, &alone.trailers), (&read.content, &read.trailers), "bytes behind the end change it");
    let short = read_whole_response([&consumed[..consumed.len() - 1]], is_head_request);
    assert_eq!(short.end, ResponseEnd::Truncated, "it is complete without its last byte");
}

/// The framing that a head announces.
#[derive(Default)]
struct HeadFraming {
    length: Option<u64>,
    is_chunked: bool,
    is_closing: bool,
}

impl HeadFraming {
    /// Reads a head that the gateway accepted, line by line. Panics if two readers could read the head in two ways.
    fn read(head: &[u8]) -> Self {
        let mut framing = Self::default();
        let lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut lines = lines.skip_while(|line| line.is_empty());
        let first = lines.next().expect("a head has a first line");
        assert!(first.starts_with(b"HTTP/1.") && !first.contains(&b'\r'), "{:?}", first.escape_ascii());
        for line in lines.take_while(|line| !line.is_empty()) {
            framing.read_field(line);
        }
        assert!(!(framing.is_chunked && framing.length.is_some()), "it has two framings");
        framing.is_closing |= first.starts_with(b"HTTP/1.0") && framing.is_chunked;
        framing
    }

    fn read_field(&mut self, line: &[u8]) {
        assert!(!line.contains(&b'\r') && !line[0].is_ascii_whitespace(), "{:?}", line.escape_ascii());
        let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_ascii_lowercase());
        match name.as_slice() {
            b"content-length" => {
                assert!(value.iter().all(u8::is_ascii_digit), "{:?} is no length", value.escape_ascii());
                let text = std::str::from_utf8(&value).expect("digits are text");
                let length = text.parse().expect("a length is a number");
                assert!(self.length.is_none_or(|before| before == length), "two different values of Content-Length");
                self.length = Some(length);
            }
            b"transfer-encoding" => {
                assert!(!self.is_chunked && value == b"chunked", "{:?} is no framing", value.escape_ascii());
                self.is_chunked = true;
            }
            b"connection" => {
                self.is_closing |= value.split(|byte| *byte == b',').any(|item| item.trim_ascii() == b"close");
            }
            _ => {}
        }
    }

    fn is_until_close(&self) -> bool {
        !self.is_chunked && self.length.is_none()
    }
}

/// The content of a body that the gateway read to its end. Panics if the body is not exactly one.
fn expected_body(framing: &HeadFraming, body: &[u8]) -> Vec<u8> {
    if framing.is_chunked {
        return expected_chunks(body);
    }
    assert!(framing.length.is_none_or(|length| length == body.len() as u64), "it has another length");
    body.to_vec()
}

fn expected_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let size = chunk_size(take_line(&mut body));
        if size == 0 {
            break;
        }
        content.extend_from_slice(&body[..size]);
        body = &body[size..];
        assert!(take_line(&mut body).is_empty(), "a chunk is longer than its size");
    }
    while !take_line(&mut body).is_empty() {}
    assert!(body.is_empty(), "the trailers end in two places");
    content
}

/// The size of a chunk; the line is digits, white space, and extensions behind a `;`.
fn chunk_size(line: &[u8]) -> usize {
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{:?}", line.escape_ascii());
    let before = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(before).expect("a size is text").trim_end();
    assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{digits:?} is no size");
    usize::from_str_radix(digits, 16).expect("a size is a number")
}

/// Takes a line, which ends with CR LF.
fn take_line<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line ends");
    let line = &bytes[..end];
    *bytes = &bytes[end + 2..];
    line
}
