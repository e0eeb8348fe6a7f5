//! Answers made smaller on their way to callers that take gzip (RFC 9110 section 8.4, RFC 1952), where the configuration says so.
//!
//! Guarantees: only what its caller takes, what is text, long enough and not encoded yet is compressed; the ledger counts
//! the bytes that the subsystem sent, so nobody's usage depends on it. What has come goes on before more is waited for, so
//! streams stay streams. Its command has ended once the last piece has come, though that may still be on its way out. At most [`COMPRESSING_MAX`] answers of a worker are compressed at once; the others go as they came.

use std::io::{self, Write as _};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::buf::Writer;
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::{Frame, SizeHint};

use crate::policy::Command;

use super::body::Metered;
use super::seats::Seat;
use super::worker::Worker;

/// Answers that one worker compresses at once: each has some 300 KiB of state.
pub(super) const COMPRESSING_MAX: usize = 64;
/// Shorter answers are hardly smaller afterwards, in bytes.
const LENGTH_MIN: u64 = 1024;
/// A piece that is worth a write of its own.
const PIECE: usize = 16 * 1024;
/// What is compressed before others have their turn: some 2 ms.
const TURN: usize = 64 * 1024;
/// nginx takes the same: most of the gain for the least work.
const LEVEL: Compression = Compression::new(1);

/// Whether an answer to this request may be compressed, as far as the request says: `None` where the configuration wants
/// none of it.
pub(super) fn may_be_asked_for<B>(request: &Request<B>, command: &Command) -> Option<bool> {
    let is_wanted = command.shape.as_ref().is_some_and(|shape| shape.compress);
    is_wanted.then(|| *request.method() != Method::HEAD && takes_gzip(request.headers()))
}

/// Whether `Accept-Encoding` has gzip, or anything, with a weight that is not 0 (RFC 9110 section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut named, mut any) = (None, false);
    for item in lists.flat_map(|list| list.split(',')) {
        let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
        let is_taken = weight.is_none_or(|weight| weight.bytes().any(|byte| (b'1'..=b'9').contains(&byte)));
        match coding.trim() {
            coding if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") => {
                named = Some(is_taken);
            }
            "*" => any = is_taken,
            _ => {}
        }
    }
    named.unwrap_or(any)
}

/// Makes a head that of a compressed answer, if it is to be one, and returns what compresses the body. `asked` is what
/// [`may_be_asked_for`] said.
pub(super) fn begin(
    worker: &Rc<Worker>,
    asked: Option<bool>,
    (status, headers): (StatusCode, &mut HeaderMap),
    length: &SizeHint,
) -> Option<Encoder> {
    let is_taken = asked?;
    if status == StatusCode::NOT_MODIFIED {
        vary(headers);
        weaken_tag(headers); // what a cache has may be either form
    }
    if !is_worth_it(status, headers) {
        return None;
    }
    vary(headers); // also where it is not compressed: a cache must not hand this one to others, or theirs to this one
    if !is_taken || length.upper().is_some_and(|bytes| bytes < LENGTH_MIN) {
        return None;
    }
    let seat = worker.compressing.take()?;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES); // ranges of what the subsystem has are none of this
    weaken_tag(headers);
    Some(Encoder::new(seat))
}

/// Whether such an answer is text that may be sent in another form than it came.
fn is_worth_it(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_whole = !matches!(status.as_u16(), 100..=199 | 204..=206 | 304);
    let says = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(word)))
    };
    let has_digest =
        ["content-digest", "repr-digest", "digest", "content-md5"].iter().any(|name| headers.contains_key(*name));
    is_whole
        && is_text(headers.get(CONTENT_TYPE))
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !has_digest
        && !says(CACHE_CONTROL, "no-transform")
}

/// Types that shrink. Pictures, archives and films are compressed already; of gRPC the messages are.
fn is_text(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ["application/json", "application/xml", "application/javascript", "application/x-ndjson"];
    let shrinks = essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml");
    (shrinks || known.contains(&&*essence)) && !essence.starts_with("application/grpc")
}

fn vary(headers: &mut HeaderMap) {
    let is_said = headers.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes()))
    });
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Two forms of one answer may not have the same strong tag (RFC 9110 section 8.8.1).
fn weaken_tag(headers: &mut HeaderMap) {
    let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = strong.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()));
    match weak {
        Some(Ok(weak)) => drop(headers.insert(ETAG, weak)),
        Some(Err(_)) => drop(headers.remove(ETAG)),
        None => {}
    }
}

/// Compresses one body.
pub(super) struct Encoder {
    gzip: GzEncoder<Writer<BytesMut>>,
    /// Whether there is something in it that has not come out.
    holds: bool,
    _seat: Seat,
}

impl Encoder {
    fn new(seat: Seat) -> Self {
        Self { gzip: GzEncoder::new(BytesMut::new().writer(), LEVEL), holds: false, _seat: seat }
    }

    fn add(&mut self, data: &[u8]) -> io::Result<()> {
        self.holds = true;
        self.gzip.write_all(data)
    }

    fn has_a_piece(&self) -> bool {
        self.gzip.get_ref().get_ref().len() >= PIECE
    }

    fn take(&mut self) -> Frame<Bytes> {
        Frame::data(self.gzip.get_mut().get_mut().split().freeze())
    }

    /// Nothing more has come: what there is goes on.
    fn flush(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !std::mem::take(&mut self.holds) {
            return Poll::Pending;
        }
        self.gzip.flush()?;
        Poll::Ready(Some(Ok(self.take())))
    }
}

/// A subsystem's answer, compressed on its way.
pub(super) struct Compressed {
    body: Metered,
    /// Taken at the end of the body.
    encoder: Option<Encoder>,
    /// Sent behind the end.
    trailers: Option<HeaderMap>,
    /// Told once what came before it is on its way.
    broken: Option<io::Error>,
    has_paused: bool,
}

impl Compressed {
    pub(super) fn new(body: Metered, encoder: Encoder) -> Self {
        Self { body, encoder: Some(encoder), trailers: None, broken: None, has_paused: false }
    }

    /// See [`super::body::Body::read_at_most`].
    pub(super) fn read_at_most(&mut self, bytes: usize) {
        self.body.read_at_most(bytes);
    }

    /// See [`super::body::Body::read_ahead`].
    pub(super) fn read_ahead(&self) -> usize {
        self.body.read_ahead()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// An error waits for one more poll, so that hyper first flushes what came before it: the caller gets what there is.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(broken) = self.broken.take_if(|_| self.has_paused) {
            return Poll::Ready(Some(Err(broken)));
        }
        if self.broken.is_none() {
            match self.poll_next(context) {
                Poll::Ready(Some(Err(broken))) => self.broken = Some(broken),
                other => return other,
            }
            if let Some(Poll::Ready(rest)) = self.encoder.as_mut().map(Encoder::flush) {
                return Poll::Ready(rest);
            }
        }
        self.has_paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut turn = TURN;
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if encoder.has_a_piece() {
                return Poll::Ready(Some(Ok(encoder.take())));
            }
            if turn == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(next) = self.body.poll(context) else { return encoder.flush() };
            let Some(frame) = next.transpose()? else { return Poll::Ready(self.finish()) };
            match frame.into_data() {
                Ok(data) => {
                    turn = turn.saturating_sub(data.len());
                    encoder.add(&data)?;
                }
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    return Poll::Ready(self.finish());
                }
            }
        }
    }

    /// The last piece: there is always one, the end of gzip itself.
    fn finish(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let encoder = self.encoder.take()?;
        Some(encoder.gzip.finish().map(|rest| Frame::data(rest.into_inner().freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    #[test]
    fn a_caller_takes_gzip_if_it_says_so() {
        for (accept, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("br, gzip;q=0.5", true),
            ("gzip; q=0.001", true),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip", true),
            ("gzip;q=0.000", false),
            ("identity", false),
            ("gzippy", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&headers(&[("accept-encoding", accept)])), expected, "{accept:?}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
        assert!(takes_gzip(&headers(&[("accept-encoding", "br"), ("accept-encoding", "gzip")])));
    }

    #[test]
    fn only_text_that_may_be_changed_is_compressed() {
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        for (status, fields, expected) in [
            (200, &[JSON][..], true),
            (404, &[JSON], true),
            (200, &[("content-type", "TEXT/HTML")], true),
            (200, &[("content-type", "application/problem+json")], true),
            (200, &[("content-type", "image/svg+xml")], true),
            (200, &[("content-type", "image/jpeg")], false),
            (200, &[("content-type", "application/grpc+json")], false),
            (200, &[], false),
            (204, &[JSON], false),
            (206, &[JSON], false),
            (304, &[JSON], false),
            (200, &[JSON, ("content-encoding", "br")], false),
            (200, &[JSON, ("cache-control", "public, No-Transform")], false),
            (200, &[JSON, ("content-digest", "sha-256=:AA==:")], false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_worth_it(status, &headers(fields)), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn caches_and_tags_are_told() {
        let mut head = headers(&[("vary", "Origin"), ("etag", "\"7\"")]);
        vary(&mut head);
        vary(&mut head);
        weaken_tag(&mut head);
        weaken_tag(&mut head);
        assert_eq!(head, headers(&[("vary", "Origin"), ("vary", "accept-encoding"), ("etag", "W/\"7\"")]));
        let mut any = headers(&[("vary", "*")]);
        vary(&mut any);
        assert_eq!(any.get_all(VARY).iter().count(), 1);
    }
}
