//! The body of an HTTP/1.1 response, streamed from its connection.
//!
//! Guarantees:
//! - The body ends where its framing said. Any other end is an error.
//! - The connection can be taken back only after that end, and only if no unrequested bytes follow.
//!
//! Leaves to others: framing and chunks (`body_decoder`), and the pool of connections (`pool`).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::task::AbortHandle;

use crate::proxy::message::header_rules::sanitize_response;
use crate::proxy::upstream::endpoint::delayed_error::DelayedError;
use crate::proxy::upstream::endpoint::stream::ServerStream;

use super::ConnectionError;
use super::body_decoder::{BodyDecoder, DecodedPart};
use super::connection::Http1Connection;
use super::request::Http1Request;

/// Pieces smaller than this are merged if they arrived together.
const MERGE_BELOW: usize = 1024;

/// The body of a response, with the connection that carries it.
pub(crate) struct Http1Body {
    /// The connection; `None` once the pool or a tunnel took it.
    connection: Option<Box<Http1Connection>>,
    decoder: BodyDecoder,
    keep_alive: bool,
    /// The part behind the last piece, if it was decoded ahead.
    lookahead: Option<Result<DecodedPart, ConnectionError>>,
    delayed_error: DelayedError,
    _upload: Option<RequestUpload>,
}

impl Http1Body {
    pub(crate) fn new(
        connection: Box<Http1Connection>,
        decoder: BodyDecoder,
        keeps: bool,
        upload: Option<RequestUpload>,
    ) -> Self {
        Self {
            connection: Some(connection),
            decoder,
            keep_alive: keeps,
            lookahead: None,
            delayed_error: DelayedError::default(),
            _upload: upload,
        }
    }

    /// Limits each further read to this many bytes.
    pub(crate) fn set_read_ahead_max(&mut self, bytes: usize) {
        if let Some(connection) = &mut self.connection {
            connection.read_size_max = bytes;
        }
    }

    /// Decodes the chunks that arrived with the head: a response that is malformed there counts as no response.
    pub(crate) fn check_buffered(mut self) -> Result<Self, ConnectionError> {
        let is_chunked = matches!(self.decoder, BodyDecoder::Chunked(_));
        if let Some(connection) =
            self.connection.as_mut().filter(|connection| is_chunked && !connection.unparsed.is_empty())
        {
            self.lookahead = Some(Ok(self.decoder.decode_next(&mut connection.unparsed)?));
        }
        Ok(self)
    }

    /// Bytes that were read and are not handed over yet.
    pub(crate) fn buffered_bytes(&self) -> usize {
        let next = match &self.lookahead {
            Some(Ok(DecodedPart::Data(data))) => data.len(),
            _ => 0,
        };
        next + self.connection.as_ref().map_or(0, |connection| connection.unparsed.len())
    }

    /// The connection, if it can be reused for another request.
    pub(crate) fn take_reusable(&mut self) -> Option<Box<Http1Connection>> {
        let clean = self.keep_alive && self.decoder.is_done();
        self.connection
            .take()
            .filter(|connection| clean && connection.unparsed.is_empty())
            .map(Http1Connection::reset_for_reuse)
    }

    /// The connection with the bytes that were read ahead, for another protocol after an upgrade.
    pub(crate) fn into_stream(self) -> Option<(ServerStream, Bytes)> {
        self.connection.and_then(|connection| connection.into_stream())
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        loop {
            match self.lookahead.take().unwrap_or_else(|| self.decoder.decode_next(&mut connection.unparsed))? {
                DecodedPart::Data(data) if data.len() < MERGE_BELOW && !connection.unparsed.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.merge_small(data)))));
                }
                DecodedPart::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                DecodedPart::Trailers(mut fields) => {
                    sanitize_response(&mut fields);
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                DecodedPart::End => return Poll::Ready(None),
                DecodedPart::NeedMore => {}
            }
            connection.expect_bytes(self.decoder.remaining());
            if !ready!(connection.poll_fill(context))? {
                match self.decoder {
                    BodyDecoder::UntilClose => self.decoder = BodyDecoder::Length(0),
                    _ => return Poll::Ready(Some(Err(ConnectionError::Closed))),
                }
            }
        }
    }
}

impl Http1Body {
    /// Merges a small piece with the pieces that arrived with it. Each piece costs the caller a frame, and many small
    /// frames look like an attack to callers (h2: `too_many_data_frames`).
    fn merge_small(&mut self, first: Bytes) -> Bytes {
        let Some(connection) = &mut self.connection else { return first };
        let mut gathered = BytesMut::with_capacity(2 * MERGE_BELOW);
        gathered.extend_from_slice(&first);
        while gathered.len() < MERGE_BELOW && !connection.unparsed.is_empty() && !self.decoder.is_done() {
            match self.decoder.decode_next(&mut connection.unparsed) {
                Ok(DecodedPart::Data(data)) => gathered.extend_from_slice(&data),
                Ok(DecodedPart::NeedMore) => break,
                other => {
                    self.lookahead = Some(other);
                    break;
                }
            }
        }
        gathered.freeze()
    }
}

impl HttpBody for Http1Body {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        let this = self.get_mut();
        if let Some(error) = this.delayed_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = this.poll_part(context);
        this.delayed_error.delay(polled, context)
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done() && self.lookahead.is_none() && !self.delayed_error.is_pending()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder {
            BodyDecoder::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

/// The rest of a request whose response arrived early. Aborted when the response is dropped.
pub(crate) struct RequestUpload(AbortHandle);

impl RequestUpload {
    /// Spawns a task: a caller may read the response only after it has sent its whole request.
    pub(crate) fn spawn(mut outgoing: Http1Request, mut half: WriteHalf<ServerStream>) -> Self {
        let sending = async move {
            // The response decides the outcome of the command. The shutdown shows the server that the rest of a broken
            // body will not come.
            if poll_fn(|context| outgoing.poll_send(context, &mut half)).await.is_err() {
                let _ = half.shutdown().await;
            }
        };
        Self(tokio::task::spawn_local(sending).abort_handle())
    }
}

impl Drop for RequestUpload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::net::UnixStream;

    use super::super::body_decoder::ChunkDecoder;
    use super::super::connection::tests::wire;
    use super::*;

    /// The body of a chunked response that begins with a chunk of `hello`; `rest` arrived together with that chunk.
    async fn after_hello(rest: &str) -> Http1Body {
        let (stream, mut server) = UnixStream::pair().expect("a pair");
        let mut body =
            Http1Body::new(Box::new(wire(stream)), BodyDecoder::Chunked(ChunkDecoder::default()), true, None);
        server.write_all(format!("5\r\nhello\r\n{rest}").as_bytes()).await.expect("the server writes");
        let first = body.frame().await.expect("a frame").expect("it is complete");
        assert_eq!(first.into_data().expect("it is data"), "hello");
        body
    }

    #[tokio::test]
    async fn malformed_bytes_after_data_are_no_end_and_the_connection_is_not_reused() {
        for rest in ["0\r\nbad trailer\r\n\r\n", "no size\r\n"] {
            let mut body = after_hello(rest).await;
            assert!(!body.is_end_stream(), "{rest:?}");
            // The error is delayed by one poll: a caller that disconnects before that poll got no complete response.
            while Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop())).is_ready() {}
            assert!(body.delayed_error.is_pending() && !body.is_end_stream(), "{rest:?}");
            assert!(body.take_reusable().is_none(), "{rest:?}");
        }
    }

    #[tokio::test]
    async fn connection_of_a_complete_body_is_reusable() {
        let mut body = after_hello("0\r\n\r\n").await;
        assert!(body.is_end_stream() && body.take_reusable().is_some());
    }
}
