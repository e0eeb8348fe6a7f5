//! HTTP/2 frames (RFC 9113), for callers that break rules which client libraries keep.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

use super::{FragmentingStream, GATEWAY, World};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
/// The flag of a HEADERS frame with priority fields.
pub const WITH_PRIORITY: u8 = 0x20;

// Error codes (RFC 9113 section 7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Returns a frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns the fields of a request (RFC 7541): the method from the static table, the rest as literals.
pub fn fields(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x87]; // `:scheme: https`
    for (name, value) in [(1, GATEWAY), (4, path)] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(GET, path))
}

pub fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(POST, "/cameras/v1/snapshots"))
}

/// Returns an extended CONNECT (RFC 8441) of a stream that stays open, with more fields.
pub fn connect(stream: u32, path: &str, protocol: &str, more: &[u8]) -> Vec<u8> {
    let block = [
        &[2, 7][..], // `:method`, with its name from the static table
        b"CONNECT",
        &fields(GET, path)[1..],
        &literal(":protocol", protocol),
        &literal("sec-websocket-version", "13"),
        more,
    ];
    frame(HEADERS, END_HEADERS, stream, &block.concat())
}

/// Returns the stream numbers of a caller.
pub fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// Returns a field with an unchanged name and value.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.as_bytes());
    }
    field
}

/// Opens an HTTP/2 connection with these settings.
pub async fn open_http2(world: &World, settings: &[u8]) -> TlsStream<FragmentingStream> {
    let mut stream = world.client("traffic-police").h2().connect().await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, settings));
    say(&mut stream, &opening).await.unwrap();
    stream
}

/// Returns the settings for [`open_http2`] with this initial stream window: INITIAL_WINDOW_SIZE.
pub fn window_of(bytes: u32) -> Vec<u8> {
    [&4_u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat()
}

/// Writes frames to the last byte. TLS holds back bytes that a busy socket does not accept at once, until a flush.
pub async fn say(mut stream: impl AsyncWrite + Unpin, frames: &[u8]) -> std::io::Result<()> {
    stream.write_all(frames).await?;
    stream.flush().await
}

/// Parses received bytes into frames: kind, flags, stream, payload.
pub fn frames_in(mut received: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = received.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        received = rest;
    }
    frames
}

/// Returns the error code at a position of a payload.
pub fn code_at(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}
