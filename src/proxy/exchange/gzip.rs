//! gzip compression of responses (RFC 9110 section 8.4, RFC 1952), where the configuration enables it.
//!
//! Guarantees:
//!
//! - A response is compressed only if the caller accepts gzip, and the content is text, long enough and not encoded
//!   yet.
//! - The ledger counts the bytes that the subsystem sent: compression does not change the usage of a department.
//! - Available data is flushed before the encoder waits for more: streams stay streams.
//! - The command has ended once the last piece has arrived, though that piece may still be on its way to the caller.
//! - A bandwidth limit counts the compressed bytes.
//! - A worker compresses at most `GZIP_STREAMS_MAX` responses at once; further responses are sent uncompressed.

use std::io::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
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
use tokio::sync::OwnedSemaphorePermit;

use crate::policy::Command;
use crate::proxy::message::header_list::{list_items, text_items};
use crate::proxy::worker::TrafficWorker;

use super::bandwidth_limiter::BandwidthLimiter;
use super::response_body::MeteredBody;

/// The shortest response to compress, in bytes: shorter ones hardly shrink.
const LENGTH_MIN: u64 = 1024;
/// The size of a chunk that is worth a write of its own.
const CHUNK_SIZE: usize = 16 * 1024;
/// Bytes to compress before the task yields to others: about 2 ms.
const YIELD_AFTER: usize = 64 * 1024;
/// The level of nginx: most of the gain for the least work.
const GZIP_LEVEL: Compression = Compression::new(1);

/// Whether a response to this request may be compressed, as far as the request decides it. `None` if the configuration
/// does not enable compression for the command.
pub(crate) fn negotiate<B>(request: &Request<B>, command: &Command) -> Option<bool> {
    let is_wanted = command.shape.as_ref().is_some_and(|shape| shape.compress);
    is_wanted.then(|| *request.method() != Method::HEAD && accepts_gzip(request.headers()))
}

/// Whether `Accept-Encoding` lists gzip, or `*`, with a weight other than 0 (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, false);
    for item in headers.get_all(ACCEPT_ENCODING).iter().flat_map(text_items) {
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

/// Rewrites the head for a compressed response and returns the encoder, if the response is to be compressed.
/// `negotiated` is the result of [`negotiate`].
pub(crate) fn start_encoding(
    worker: &Rc<TrafficWorker>,
    negotiated: Option<bool>,
    (status, headers): (StatusCode, &mut HeaderMap),
    length: &SizeHint,
) -> Option<GzipEncoder> {
    let is_taken = negotiated?;
    if status == StatusCode::NOT_MODIFIED {
        add_vary(headers);
        weaken_etag(headers); // a cache may hold either form
    }
    if !is_compressible(status, headers) {
        return None;
    }
    add_vary(headers); // also on an uncompressed response: a cache must not serve one form for the other
    if !is_taken || length.upper().is_some_and(|bytes| bytes < LENGTH_MIN) {
        return None;
    }
    let permit = Arc::clone(&worker.gzip_permits).try_acquire_owned().ok()?;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES); // byte ranges of the original do not apply
    weaken_etag(headers);
    Some(GzipEncoder::new(permit))
}

/// Whether a response is text that may be sent in another form than the subsystem's.
fn is_compressible(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_whole = !matches!(status.as_u16(), 100..=199 | 204..=206 | 304);
    let has_word = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(word)))
    };
    let has_digest =
        ["content-digest", "repr-digest", "digest", "content-md5"].iter().any(|name| headers.contains_key(*name));
    is_whole
        && is_text_type(headers.get(CONTENT_TYPE))
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !has_digest
        && !has_word(CACHE_CONTROL, "no-transform")
}

/// Media types that shrink. Images, archives and videos are compressed already; gRPC compresses its messages.
fn is_text_type(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ["application/json", "application/xml", "application/javascript", "application/x-ndjson"];
    let shrinks = essence.starts_with("text/") || essence.ends_with("+json") || essence.ends_with("+xml");
    (shrinks || known.contains(&&*essence)) && !essence.starts_with("application/grpc")
}

fn add_vary(headers: &mut HeaderMap) {
    let varies = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes());
    let is_said = headers.get_all(VARY).iter().flat_map(list_items).any(varies);
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Two forms of one response may not have the same strong ETag (RFC 9110 section 8.8.1).
fn weaken_etag(headers: &mut HeaderMap) {
    let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = strong.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()));
    match weak {
        Some(Ok(weak)) => drop(headers.insert(ETAG, weak)),
        Some(Err(_)) => drop(headers.remove(ETAG)),
        None => {}
    }
}

/// Compresses one body.
pub(crate) struct GzipEncoder {
    gzip: GzEncoder<Writer<BytesMut>>,
    /// Whether the encoder holds input that is not in its output yet.
    has_pending: bool,
    _permit: OwnedSemaphorePermit,
}

impl GzipEncoder {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { gzip: GzEncoder::new(BytesMut::new().writer(), GZIP_LEVEL), has_pending: false, _permit: permit }
    }

    fn encode(&mut self, data: &[u8]) -> io::Result<()> {
        self.has_pending = true;
        self.gzip.write_all(data)
    }

    fn has_full_chunk(&self) -> bool {
        self.gzip.get_ref().get_ref().len() >= CHUNK_SIZE
    }

    fn take_chunk(&mut self) -> Frame<Bytes> {
        Frame::data(self.gzip.get_mut().get_mut().split().freeze())
    }

    /// Flushes the encoder, because no more input is available.
    fn poll_flush_encoder(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !std::mem::take(&mut self.has_pending) {
            return Poll::Pending;
        }
        self.gzip.flush()?;
        Poll::Ready(Some(Ok(self.take_chunk())))
    }
}

/// A subsystem's response body, compressed.
pub(crate) struct GzipBody {
    pub(crate) body: MeteredBody,
    /// Taken at the end of the body.
    encoder: Option<GzipEncoder>,
    limiter: Option<Box<BandwidthLimiter>>,
    /// Sent after the end of the body.
    trailers: Option<HeaderMap>,
    /// Returned once the data before it is on its way.
    pending_error: Option<io::Error>,
    has_yielded: bool,
}

impl GzipBody {
    pub(crate) fn new(body: MeteredBody, encoder: GzipEncoder, limiter: Option<BandwidthLimiter>) -> Self {
        let limiter = limiter.map(Box::new);
        Self { body, encoder: Some(encoder), limiter, trailers: None, pending_error: None, has_yielded: false }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none() && self.held_bytes() == 0
    }

    /// The bytes that the bandwidth limit holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.limiter.as_ref().map_or(0, |limiter| limiter.held_bytes())
    }

    /// Polls the next frame that the bandwidth limit allows.
    pub(crate) fn poll_compressed(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(limiter) = &mut self.limiter {
            if limiter.poll_ready(context).is_pending() {
                return self.body.poll_deadline(context);
            }
            if let Some(piece) = limiter.take_held() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        let polled = self.poll_encoded(context);
        polled.map_ok(|frame| match &mut self.limiter {
            Some(limiter) => limiter.limit_frame(frame),
            None => frame,
        })
    }

    /// Polls the next frame. An error is held back for one more poll: hyper first flushes the data before it to the
    /// caller.
    fn poll_encoded(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.pending_error.take_if(|_| self.has_yielded) {
            return Poll::Ready(Some(Err(error)));
        }
        if self.pending_error.is_none() {
            match self.poll_next(context) {
                Poll::Ready(Some(Err(error))) => self.pending_error = Some(error),
                other => return other,
            }
            if let Some(Poll::Ready(rest)) = self.encoder.as_mut().map(GzipEncoder::poll_flush_encoder) {
                return Poll::Ready(rest);
            }
        }
        self.has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut turn = YIELD_AFTER;
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if encoder.has_full_chunk() {
                return Poll::Ready(Some(Ok(encoder.take_chunk())));
            }
            if turn == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Poll::Ready(next) = self.body.poll_metered(context) else { return encoder.poll_flush_encoder() };
            let Some(frame) = next.transpose()? else { return Poll::Ready(self.finish_encoding()) };
            match frame.into_data() {
                Ok(data) => {
                    turn = turn.saturating_sub(data.len());
                    encoder.encode(&data)?;
                }
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    return Poll::Ready(self.finish_encoding());
                }
            }
        }
    }

    /// The last piece. There is always one: the gzip trailer.
    fn finish_encoding(&mut self) -> Option<io::Result<Frame<Bytes>>> {
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
    fn gzip_is_used_only_if_accept_encoding_allows_it() {
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
            assert_eq!(accepts_gzip(&headers(&[("accept-encoding", accept)])), expected, "{accept:?}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
        assert!(accepts_gzip(&headers(&[("accept-encoding", "br"), ("accept-encoding", "gzip")])));
    }

    #[test]
    fn only_text_that_may_be_transformed_is_compressed() {
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
            assert_eq!(is_compressible(status, &headers(fields)), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn vary_and_etag_are_adjusted() {
        let mut head = headers(&[("vary", "Origin"), ("etag", "\"7\"")]);
        add_vary(&mut head);
        add_vary(&mut head);
        weaken_etag(&mut head);
        weaken_etag(&mut head);
        assert_eq!(head, headers(&[("vary", "Origin"), ("vary", "accept-encoding"), ("etag", "W/\"7\"")]));
        let mut any = headers(&[("vary", "*")]);
        add_vary(&mut any);
        assert_eq!(any.get_all(VARY).iter().count(), 1);
    }
}
