//! The parser of HTTP/1.1 response heads: status, headers, and the framing of the body (RFC 9112 section 6.3). Pure.
//!
//! Guarantees:
//! - Hop-by-hop headers are read here and are not forwarded.
//! - Framing that two readers could interpret in two ways is an error (response smuggling).

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, SERVER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{ParserConfig, Status};

use crate::proxy::message::header_list::{list_items, text_items};
use crate::proxy::message::header_rules::{is_hop_by_hop, keep_date_unindexed, remove_connection_options};

use super::ConnectionError;
use super::body_decoder::{BodyDecoder, ChunkDecoder};

/// The maximum size of a response head. nginx's default is smaller; HAProxy's is of the same order.
pub(crate) const HEAD_MAX: usize = 64 * 1024;
/// The maximum number of fields in a head.
const FIELDS_MAX: usize = 128;

/// A complete response head.
#[derive(Debug)]
pub(crate) struct Http1ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyDecoder,
    /// The protocol that a 101 response switches to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether the connection can be reused after this response.
    pub(crate) keep_alive: bool,
    /// The idle timeout of the connection until then, if the server announced one.
    pub(crate) idle_max: Option<Duration>,
}

/// Parses a head from the front of the bytes read; `None` if the head is incomplete. `to_head` means that the request
/// was a HEAD, whose response has no body.
pub(crate) fn parse_response_head(
    read: &mut Bytes,
    to_head: bool,
) -> Result<Option<Http1ResponseHead>, ConnectionError> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, read, &mut fields);
    let length = match parsed.map_err(|error| ConnectionError::InvalidResponse(parse_error_text(error)))? {
        // The limit holds for a head that arrives whole, too: the verdict must not depend on the sizes of the reads.
        Status::Complete(length) if length <= HEAD_MAX => length,
        Status::Partial if read.len() <= HEAD_MAX => return Ok(None),
        _ => return Err(ConnectionError::InvalidResponse("the head is too long")),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(ConnectionError::InvalidResponse("the status code is not valid"))?;
    let mut connection_headers =
        ConnectionHeaders { keep_alive: response.version == Some(1), ..ConnectionHeaders::default() };
    let is_http10 = response.version == Some(0);
    let headers = connection_headers.read_headers(read, response.headers)?;
    let body = connection_headers.body_decoder(status, to_head)?;
    // HTTP/1.0 has no chunks, so the framing of a chunked response is in doubt (RFC 9112 section 6.1).
    let is_doubtful = matches!(body, BodyDecoder::UntilClose) || is_http10 && connection_headers.is_chunked;
    let keeps = connection_headers.keep_alive && !connection_headers.is_last && !is_doubtful;
    let _ = read.split_to(length);
    Ok(Some(Http1ResponseHead {
        status,
        headers,
        body,
        upgrade: connection_headers.upgrade,
        keep_alive: keeps,
        idle_max: connection_headers.idle_max,
    }))
}

/// A parse error as text for the log.
fn parse_error_text(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field name contains an invalid character, or a field is folded",
        httparse::Error::HeaderValue => "a field value contains a control character",
        httparse::Error::NewLine => "a line does not end with CR LF",
        httparse::Error::Status => "the status code is not valid",
        httparse::Error::TooManyHeaders => "the head has more than 128 fields",
        httparse::Error::Version => "the version is not HTTP/1.1 or HTTP/1.0",
        httparse::Error::Token => "the status line is not valid",
    }
}

/// The values of the hop-by-hop and framing headers.
#[derive(Default)]
struct ConnectionHeaders {
    keep_alive: bool,
    is_chunked: bool,
    content_length: Option<u64>,
    upgrade: Option<HeaderValue>,
    idle_max: Option<Duration>,
    /// Whether the server accepts no further request on this connection.
    is_last: bool,
}

impl ConnectionHeaders {
    fn read_headers(&mut self, read: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, ConnectionError> {
        let mut headers = HeaderMap::with_capacity(fields.len() + ADDED_HEADERS_MAX);
        let mut connection = Vec::new();
        for field in fields {
            let (name, value) = parse_header(read, field)?;
            if name == CONNECTION {
                connection.push(value);
            } else if name == TRANSFER_ENCODING {
                self.read_transfer_encoding(&value)?;
            } else if name == UPGRADE {
                self.upgrade = Some(value);
            } else if name == KEEP_ALIVE {
                self.read_keep_alive(&value);
            } else if !is_hop_by_hop(&name) {
                if name == CONTENT_LENGTH && !self.read_content_length(&value)? {
                    continue;
                }
                headers.append(name, value);
            }
        }
        self.read_connection(&connection);
        for value in &connection {
            remove_connection_options(&mut headers, value);
        }
        Ok(headers)
    }

    /// Reads `close` and `keep-alive`; `close` wins in any order (RFC 9112 section 9.3).
    fn read_connection(&mut self, values: &[HeaderValue]) {
        let has = |option: &[u8]| values.iter().flat_map(list_items).any(|item| item.eq_ignore_ascii_case(option));
        self.keep_alive = (self.keep_alive || has(b"keep-alive")) && !has(b"close");
    }

    /// Reads `Keep-Alive: timeout=5, max=100` (RFC 2068 section 19.7.1.1): the seconds and the number of requests for
    /// which the server keeps the connection.
    fn read_keep_alive(&mut self, value: &HeaderValue) {
        for (name, number) in text_items(value).filter_map(|word| word.split_once('=')) {
            let Ok(number) = number.trim().trim_matches('"').parse::<u32>() else { continue };
            match name.trim_end() {
                name if name.eq_ignore_ascii_case("timeout") => {
                    let time = Duration::from_secs(number.into());
                    self.idle_max = Some(time.saturating_sub(IDLE_MARGIN.min(time / 2)));
                }
                name if name.eq_ignore_ascii_case("max") => self.is_last = number == 0,
                _ => {}
            }
        }
    }

    /// The gateway requests no other encoding, so the only valid value is one `chunked`.
    fn read_transfer_encoding(&mut self, value: &HeaderValue) -> Result<(), ConnectionError> {
        if self.is_chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(ConnectionError::InvalidResponse("Transfer-Encoding is not `chunked`"));
        }
        self.is_chunked = true;
        Ok(())
    }

    /// Returns `true` for the first `Content-Length`. A repeated one must be equal, and is dropped.
    fn read_content_length(&mut self, value: &HeaderValue) -> Result<bool, ConnectionError> {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|digits| digits.parse().ok());
        let length = length.ok_or(ConnectionError::InvalidResponse("Content-Length is not a number"))?;
        match self.content_length.replace(length) {
            None => Ok(true),
            Some(before) if before == length => Ok(false),
            Some(_) => Err(ConnectionError::InvalidResponse("two different values of Content-Length")),
        }
    }

    fn body_decoder(&self, status: StatusCode, to_head: bool) -> Result<BodyDecoder, ConnectionError> {
        let bodiless = to_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        match (self.is_chunked, self.content_length) {
            (true, Some(_)) => Err(ConnectionError::InvalidResponse("both Transfer-Encoding and Content-Length")),
            _ if bodiless => Ok(BodyDecoder::Length(0)),
            (true, None) => Ok(BodyDecoder::Chunked(ChunkDecoder::default())),
            (false, Some(length)) => Ok(BodyDecoder::Length(length)),
            (false, None) => Ok(BodyDecoder::UntilClose),
        }
    }
}

/// The margin between the gateway's use of a kept connection and the server's idle timeout: `min(1 s, timeout / 2)`.
/// The request has to arrive before that timeout, and idle times are measured to a tenth of a second.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Room for the headers that are added to every response: its id, two rate limit fields, the date. The fifth place
/// stays free: hyper looks `Content-Length` up with `HeaderMap::entry`, which grows a full map first (1,050
/// instructions).
const ADDED_HEADERS_MAX: usize = 5;

/// The name of a field that nearly every response has, as servers write it. The match takes a tenth of the 290
/// instructions of `HeaderName::from_bytes`.
fn common_name(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Content-Length" | b"content-length" => CONTENT_LENGTH,
        b"Content-Type" | b"content-type" => CONTENT_TYPE,
        b"Date" | b"date" => DATE,
        b"Server" | b"server" => SERVER,
        b"Connection" | b"connection" => CONNECTION,
        b"Transfer-Encoding" | b"transfer-encoding" => TRANSFER_ENCODING,
        _ => return None,
    })
}

/// One field. The value shares the buffer that was read.
fn parse_header(read: &Bytes, field: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), ConnectionError> {
    let name = common_name(field.name.as_bytes()).map_or_else(|| HeaderName::from_bytes(field.name.as_bytes()), Ok);
    let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value));
    match (name, value) {
        (Ok(name), Ok(mut value)) => {
            keep_date_unindexed(&name, &mut value);
            Ok((name, value))
        }
        _ => Err(ConnectionError::InvalidResponse("a field is not valid")),
    }
}

/// The fields of a complete trailer section, including its empty line.
pub(crate) fn parse_headers<const MOST: usize>(section: &Bytes) -> Result<HeaderMap, ConnectionError> {
    let mut fields = [httparse::EMPTY_HEADER; MOST];
    let parsed = httparse::parse_headers(section, &mut fields);
    // httparse takes a bare LF for a line end, so its section may be shorter. Bytes behind it would vanish.
    let fields = match parsed {
        Ok(Status::Complete((length, fields))) if length == section.len() => fields,
        _ => return Err(ConnectionError::InvalidResponse("a trailer field is not valid")),
    };
    fields.iter().map(|field| parse_header(section, field)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, to_head: bool) -> Result<Option<(Http1ResponseHead, String)>, ConnectionError> {
        let mut bytes = Bytes::copy_from_slice(text.as_bytes());
        let head = parse_response_head(&mut bytes, to_head)?;
        Ok(head.map(|head| (head, String::from_utf8_lossy(&bytes).into_owned())))
    }

    #[test]
    fn date_is_sensitive_so_that_hpack_does_not_index_it() {
        let (head, _) = head("HTTP/1.1 200 OK\r\ndate: now\r\nserver: x\r\n\r\n", false).expect("good").expect("whole");
        assert!(head.headers[DATE].is_sensitive() && !head.headers[SERVER].is_sensitive());
    }

    #[test]
    fn heads_determine_the_framing_of_their_bodies() {
        for (text, to_head, body, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, "Length(5)", true),
            ("HTTP/1.1 200\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false, "Length(5)", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, "Length(0)", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, "Length(0)", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, "Length(0)", true),
            ("HTTP/1.1 100 Continue\r\n\r\n", false, "Length(0)", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, "Chunked", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nCONTENT-length: 5\r\n\r\nhello", false, "Length(5)", true),
            ("HTTP/1.1 200 OK\r\n\r\n", false, "UntilClose", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", false, "Length(5)", false),
            (
                "HTTP/1.1 200 OK\r\nConnection: close, keep-alive\r\nContent-Length: 5\r\n\r\n",
                false,
                "Length(5)",
                false,
            ),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, "Length(5)", false),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
                "Chunked",
                false,
            ),
            ("HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive\r\nContent-Length: 5\r\n\r\n", false, "Length(5)", true),
        ] {
            let (head, _) = head(text, to_head).expect("a good head").expect("a whole head");
            assert!(format!("{:?}", head.body).starts_with(body), "{text:?}: {:?}", head.body);
            assert_eq!(head.keep_alive, keeps, "{text:?}");
        }
    }

    #[test]
    fn keep_alive_field_limits_time_and_requests_of_a_connection() {
        for (field, millis, keeps) in [
            ("Keep-Alive: timeout=5", Some(4000), true),
            ("keep-alive: max=100 ,  Timeout = \"60\"", Some(59_000), true),
            ("Keep-Alive: timeout=1", Some(500), true),
            ("Keep-Alive: timeout=0", Some(0), true),
            ("Keep-Alive: timeout=5, max=0", Some(4000), false),
            ("Keep-Alive: timeout=-5, max=many, 5", None, true),
            ("X: a", None, true),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{field}\r\n\r\n");
            let (head, _) = head(&text, false).expect("a good head").expect("a whole head");
            assert_eq!((head.idle_max, head.keep_alive), (millis.map(Duration::from_millis), keeps), "{field}");
        }
    }

    #[test]
    fn connection_fields_are_removed_and_others_are_kept() {
        let text = "HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
                    Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi";
        let (head, left) = head(text, false).expect("a good head").expect("a whole head");
        let mut names: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        names.sort_unstable();
        assert_eq!(names, [("content-length", b"2".as_slice()), ("set-cookie", b"a"), ("set-cookie", b"b")]);
        assert_eq!(left, "hi");
    }

    #[test]
    fn malformed_heads_are_errors_and_incomplete_ones_wait() {
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 No\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        ] {
            assert!(matches!(head(text, false), Err(ConnectionError::InvalidResponse(_))), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(FIELDS_MAX + 1));
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(HEAD_MAX));
        let ended = format!("{long}\r\n\r\n");
        assert!(head(&many, false).is_err() && head(&long, false).is_err() && head(&ended, false).is_err());
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for length in 0..whole.len() {
            assert!(matches!(head(&whole[..length], false), Ok(None)), "{length}");
        }
    }
}
