//! The body of a response of the admin server: complete, or a stream of chunks that is written while it is sent.
//!
//! Guarantees:
//! - At most [`CHUNKS_QUEUED_MAX`] chunks of [`CHUNK_BYTES`] wait for the client.
//! - A stream that was not finished ends the connection, so that a client cannot take a part for the whole.
//! - A writer waits for a slow client until its deadline at the longest.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection_limit::BusyGuard;

/// The size of a chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// The most chunks that wait for the client.
const CHUNKS_QUEUED_MAX: usize = 4;

/// The body of a response. Its connection is busy until the body has been passed on.
#[derive(Debug)]
pub(crate) struct AdminBody {
    content: BodyContent,
    busy: Option<BusyGuard>,
}

#[derive(Debug)]
enum BodyContent {
    Whole(Full<Bytes>),
    Chunks(mpsc::Receiver<BodyChunk>),
    Finished,
}

/// A part of a stream.
#[derive(Debug)]
enum BodyChunk {
    Data(Bytes),
    /// The stream is complete.
    End,
}

impl AdminBody {
    /// A complete body.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { content: BodyContent::Whole(Full::new(bytes)), busy: None }
    }

    /// A stream, and its writer, which fails after `deadline`. Must be called inside a tokio runtime.
    pub(crate) fn stream(deadline: Instant) -> (Self, ChunkWriter) {
        let (chunks, receiver) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let writer = ChunkWriter { chunks, runtime: Handle::current(), deadline, chunk: Vec::new() };
        (Self { content: BodyContent::Chunks(receiver), busy: None }, writer)
    }

    /// Keeps the connection busy until the body has been passed on.
    pub(crate) fn hold(&mut self, busy: BusyGuard) {
        self.busy = Some(busy);
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.content {
            BodyContent::Whole(whole) => Pin::new(whole).poll_frame(context).map_err(|never| match never {}),
            BodyContent::Finished => Poll::Ready(None),
            BodyContent::Chunks(chunks) => chunks.poll_recv(context).map(|chunk| match chunk {
                Some(BodyChunk::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(BodyChunk::End) => {
                    self.content = BodyContent::Finished;
                    None
                }
                None => Some(Err(io::Error::other("the page could not be completed"))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            BodyContent::Whole(whole) => whole.is_end_stream(),
            BodyContent::Chunks(_) => false,
            BodyContent::Finished => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Whole(whole) => whole.size_hint(),
            BodyContent::Chunks(_) => SizeHint::default(),
            BodyContent::Finished => SizeHint::with_exact(0),
        }
    }
}

/// Writes a stream, from a thread that may block. Dropped without [`ChunkWriter::finish`], it breaks the stream off.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    chunks: mpsc::Sender<BodyChunk>,
    runtime: Handle,
    deadline: Instant,
    chunk: Vec<u8>,
}

impl ChunkWriter {
    /// Sends the rest, and ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(BodyChunk::End)
    }

    fn send(&self, chunk: BodyChunk) -> io::Result<()> {
        let sent = tokio::time::timeout_at(self.deadline, self.chunks.send(chunk));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()), // the client has left
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() + bytes.len() > CHUNK_BYTES {
            self.flush()?;
        }
        if self.chunk.capacity() == 0 {
            self.chunk.reserve_exact(CHUNK_BYTES);
        }
        let taken = bytes.len().min(CHUNK_BYTES);
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        self.send(BodyChunk::Data(chunk))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn chunks_arrive_in_order_and_in_bounded_size() {
        let (mut body, mut writer) = AdminBody::stream(soon());
        let writing = tokio::task::spawn_blocking(move || {
            for _ in 0..10 {
                writer.write_all(&[b'a'; 30_000])?;
            }
            writer.finish()
        });
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.expect("a frame").into_data().expect("data").len());
        }
        assert_eq!(sizes, [60_000; 5]);
        assert!(body.is_end_stream());
        writing.await.expect("a thread").expect("it is written");
    }

    #[tokio::test]
    async fn stream_without_its_end_is_an_error() {
        let (mut body, mut writer) = AdminBody::stream(soon());
        let writing = tokio::task::spawn_blocking(move || writer.write_all(b"half").and_then(|()| writer.flush()));
        assert_eq!(body.frame().await.expect("a frame").expect("data").into_data().expect("data"), "half");
        writing.await.expect("a thread").expect("it is written");
        let error = body.frame().await.expect("an end").expect_err("no end of the stream");
        assert_eq!(error.to_string(), "the page could not be completed");
    }

    #[tokio::test]
    async fn writer_gives_up_when_its_client_leaves_or_is_slow() {
        let (body, mut writer) = AdminBody::stream(soon());
        drop(body);
        let left = tokio::task::spawn_blocking(move || writer.write_all(b"x").and_then(|()| writer.flush()));
        assert_eq!(left.await.expect("a thread").expect_err("no client").kind(), io::ErrorKind::BrokenPipe);
        let (body, mut writer) = AdminBody::stream(Instant::now());
        let slow = tokio::task::spawn_blocking(move || {
            let chunks = (0..=CHUNKS_QUEUED_MAX).map(|_| writer.write_all(b"x").and_then(|()| writer.flush()));
            chunks.collect::<Vec<_>>()
        });
        let sent = slow.await.expect("a thread");
        assert_eq!(sent.iter().filter(|sent| sent.is_ok()).count(), CHUNKS_QUEUED_MAX);
        assert_eq!(sent[CHUNKS_QUEUED_MAX].as_ref().expect_err("a full queue").kind(), io::ErrorKind::TimedOut);
        drop(body);
    }
}
