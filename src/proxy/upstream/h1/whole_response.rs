//! A whole HTTP/1.1 response, read from pieces in memory. For `fuzz/` only: the gateway itself streams responses.
//!
//! Guarantees:
//! - The pieces meet the parser and the decoder as reads of a connection do (`exchange`, `response_body`).
//! - Pure: no connection, no clock.
//!
//! Leaves to others: what must hold of the result (`fuzz/src/response.rs`).

use bytes::Bytes;
use http::HeaderMap;

use crate::proxy::upstream::endpoint::received_interim::ReceivedInterim;

use super::ConnectionError;
use super::body_decoder::{BodyDecoder, DecodedPart};
use super::exchange::is_final_status;
use super::response_head::{Http1ResponseHead, parse_response_head};

/// How the reading of a response ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseEnd {
    /// The pieces ended before the response.
    #[default]
    Truncated,
    /// The response violates RFC 9112, or a limit.
    Malformed,
    /// The response ended where its framing said.
    Complete,
}

/// What was read of a response.
#[derive(Debug, Default)]
pub struct WholeResponse {
    /// How the reading ended.
    pub end: ResponseEnd,
    /// The statuses of all heads. The last one is the final head, if that was read.
    pub statuses: Vec<u16>,
    /// The final head as it arrived; empty if it was not read.
    pub head: Bytes,
    /// The number of bytes before the body: all heads.
    pub body_begin: usize,
    /// The headers of the final head.
    pub headers: HeaderMap,
    /// Whether the head lets the connection be used again.
    pub keep_alive: bool,
    /// The decoded content.
    pub content: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
    /// The bytes that were not consumed.
    pub rest: Vec<u8>,
    /// The maximum of bytes that were held while the next piece was waited for.
    pub held_max: usize,
}

/// Reads a response that arrives in these pieces. `is_head_request` means that the request was a HEAD.
pub fn read_whole_response<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, is_head_request: bool) -> WholeResponse {
    let mut reads = PieceReads { pieces: pieces.into_iter(), unparsed: Bytes::new() };
    let mut response = WholeResponse::default();
    response.end = match response.read(&mut reads, is_head_request) {
        Ok(()) => ResponseEnd::Complete,
        Err(ConnectionError::Closed) => ResponseEnd::Truncated,
        Err(_) => ResponseEnd::Malformed,
    };
    response.rest.extend_from_slice(&reads.unparsed);
    reads.pieces.for_each(|piece| response.rest.extend_from_slice(piece));
    response
}

impl WholeResponse {
    fn read<'a>(
        &mut self,
        reads: &mut PieceReads<impl Iterator<Item = &'a [u8]>>,
        is_head_request: bool,
    ) -> Result<(), ConnectionError> {
        let mut interim = ReceivedInterim::default();
        let decoder = loop {
            let before = reads.unparsed.clone();
            let Some(head) = parse_response_head(&mut reads.unparsed, is_head_request)? else {
                self.held_max = self.held_max.max(reads.unparsed.len());
                reads.fill()?;
                continue;
            };
            let length = before.len() - reads.unparsed.len();
            if let Some(decoder) = self.note_head(head, before.slice(..length)) {
                break decoder;
            }
            interim.count_one()?;
        };
        self.read_body(reads, decoder)
    }

    /// Notes a head; returns the decoder of the body if the head is final.
    fn note_head(&mut self, head: Http1ResponseHead, bytes: Bytes) -> Option<BodyDecoder> {
        self.statuses.push(head.status.as_u16());
        self.body_begin += bytes.len();
        is_final_status(head.status).then(|| {
            (self.head, self.headers, self.keep_alive) = (bytes, head.headers, head.keep_alive);
            head.body
        })
    }

    fn read_body<'a>(
        &mut self,
        reads: &mut PieceReads<impl Iterator<Item = &'a [u8]>>,
        mut decoder: BodyDecoder,
    ) -> Result<(), ConnectionError> {
        loop {
            match decoder.decode_next(&mut reads.unparsed)? {
                DecodedPart::Data(data) => self.content.extend_from_slice(&data),
                DecodedPart::Trailers(fields) => self.trailers = fields,
                DecodedPart::End => return Ok(()),
                DecodedPart::NeedMore => {
                    self.held_max = self.held_max.max(reads.unparsed.len() + decoder.held_bytes());
                    match reads.fill() {
                        Err(_) if matches!(decoder, BodyDecoder::UntilClose) => return Ok(()),
                        filled => filled?,
                    }
                }
            }
        }
    }
}

/// Pieces in the place of a connection.
struct PieceReads<I> {
    pieces: I,
    unparsed: Bytes,
}

impl<'a, I: Iterator<Item = &'a [u8]>> PieceReads<I> {
    /// Appends the next piece, as a read of a connection does.
    fn fill(&mut self) -> Result<(), ConnectionError> {
        let piece = self.pieces.next().ok_or(ConnectionError::Closed)?;
        self.unparsed = [&self.unparsed[..], piece].concat().into();
        Ok(())
    }
}
