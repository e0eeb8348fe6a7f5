//! The facts of one command, on their way from a worker to the writer of the access log.
//!
//! Guarantees:
//! - A record owns its facts: it keeps neither a request nor a configuration alive.
//! - Its texts share one buffer and are cut at the limit of their field, so a record has at most [`TEXTS_MAX`] bytes of
//!   text, whatever a caller sends.
//!
//! Leaves to others: the format of a line (`line`), and which facts a command has (`proxy`).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Outcome, TraceContext};

/// The facts of one command.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When the request arrived.
    pub began: Timestamp,
    /// The request id, which is 32 hex digits as text.
    pub request_id: u128,
    /// How the command ended.
    pub outcome: Outcome,
    /// The status of the response; `None` if no response was begun.
    pub status: Option<u16>,
    /// The protocol of the request; `None` if its head could not be read.
    pub protocol: Option<&'static str>,
    /// The version of TLS; `None` for plain HTTP and for connections that are passed through.
    pub tls: Option<&'static str>,
    /// The address of the client, as trusted proxies state it.
    pub client: IpAddr,
    /// The address of the connection's other end.
    pub peer: SocketAddr,
    /// The units that the command costs.
    pub units: u64,
    /// Bytes of the request body, as the ledger counts them.
    pub request_bytes: u64,
    /// Bytes of the response body, as the ledger counts them.
    pub response_bytes: u64,
    /// From the arrival of the request to the end of the command.
    pub duration: Duration,
    /// The time that the gateway itself added, if the command was forwarded and got a response.
    pub gateway_time: Option<Duration>,
    /// From the hand-over of the request to the head of the final response, if there was one.
    pub subsystem_time: Option<Duration>,
    /// How often the request was handed to a connection of a server.
    pub attempts: u32,
    /// The tightest rate limit: commands in its bucket, and commands left.
    pub rate_limit: Option<(u32, u32)>,
    /// The `Retry-After` of a refusal, in seconds.
    pub retry_after_s: Option<u64>,
    /// The number of commands that the line stands for.
    pub sample: u32,
    /// The place in a trace, if the command is sampled for traces.
    pub trace: Option<Box<TraceContext>>,
    texts: RecordTexts,
}

/// A record as workers and the writer pass it on: by its address, because it is large and moves four times.
pub(in crate::telemetry) type BoxedRecord = Box<AccessRecord>;

/// A text of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordText {
    /// The id of the department.
    Department,
    /// The id of the subsystem.
    Subsystem,
    /// The id of the command.
    Command,
    /// The method of the request.
    Method,
    /// The host that the request names; for a TLS connection the server name.
    Host,
    /// The path of the request.
    Path,
    /// The query of the request.
    Query,
    /// The name of the listener.
    Listener,
    /// The identity of the client certificate, as subsystems get it.
    Caller,
    /// The server that responded, or that was tried last.
    Upstream,
    /// Why the command did not succeed.
    Reason,
}

impl RecordText {
    const COUNT: usize = 11;

    /// The most bytes of the text. Names of the configuration and host names are never longer. The longest part of a
    /// path that a person reads has about 1,000 characters.
    const fn bytes_max(self) -> usize {
        match self {
            Self::Department | Self::Subsystem | Self::Command | Self::Listener => 63,
            Self::Method => 32,
            Self::Host | Self::Upstream => 260,
            Self::Path | Self::Query => 1024,
            Self::Caller | Self::Reason => 512,
        }
    }
}

/// The longest mark of a text that was cut: `...[+18446744073709551615 bytes]`.
const MARK_MAX: usize = 32;
/// The limit of the texts of one record.
#[cfg(test)]
pub(crate) const TEXTS_MAX: usize = 4 * 63 + 32 + 2 * 260 + 2 * 1024 + 2 * 512 + RecordText::COUNT * MARK_MAX;
/// The first capacity of the buffer: most records need no more.
const TEXTS_CAPACITY: usize = 320;

/// Texts in one buffer. A text that is empty is absent.
#[derive(Clone, Debug)]
struct RecordTexts {
    bytes: Vec<u8>,
    /// Where each text begins and ends.
    spans: [(u16, u16); RecordText::COUNT],
}

impl AccessRecord {
    /// A record of a request that has just arrived, without texts.
    pub fn new(began: Timestamp, request_id: u128, peer: SocketAddr) -> Self {
        Self {
            began,
            request_id,
            outcome: Outcome::Finished(crate::model::Finished::Aborted),
            status: None,
            protocol: None,
            tls: None,
            client: peer.ip(),
            peer,
            units: 0,
            request_bytes: 0,
            response_bytes: 0,
            duration: Duration::ZERO,
            gateway_time: None,
            subsystem_time: None,
            attempts: 0,
            rate_limit: None,
            retry_after_s: None,
            sample: 1,
            trace: None,
            texts: RecordTexts { bytes: Vec::with_capacity(TEXTS_CAPACITY), spans: [(0, 0); RecordText::COUNT] },
        }
    }

    /// Sets a text, once. A text above the limit of its field is cut, with a mark that says how much is missing.
    pub fn set_text(&mut self, field: RecordText, text: &[u8]) {
        let RecordTexts { bytes, spans } = &mut self.texts;
        let begin = bytes.len();
        let kept = kept_length(text, field.bytes_max());
        bytes.extend_from_slice(&text[..kept]);
        if kept < text.len() {
            bytes.extend_from_slice(cut_mark(text.len() - kept).as_bytes());
        }
        let position = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        spans[field as usize] = (position(begin), position(bytes.len()));
    }

    /// A text, if the record has it.
    pub fn text(&self, field: RecordText) -> Option<&[u8]> {
        let (begin, end) = self.texts.spans[field as usize];
        self.texts.bytes.get(usize::from(begin)..usize::from(end)).filter(|text| !text.is_empty())
    }

    /// The memory of the record, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.texts.bytes.capacity()
    }
}

/// The length of the text after the cut: at most `max`, and no character is cut apart.
fn kept_length(text: &[u8], max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    let is_continuation = |at: &usize| text[*at] & 0b1100_0000 == 0b1000_0000;
    // A character has at most three bytes after its first. What has more of them is no UTF-8, and may be cut anywhere.
    (max - 3..=max).rev().find(|at| !is_continuation(at)).unwrap_or(max)
}

fn cut_mark(missing: usize) -> String {
    let mut mark = String::with_capacity(MARK_MAX);
    let _ = write!(mark, "...[+{missing} bytes]"); // a String takes everything
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord::new(Timestamp::UNIX_EPOCH, 1, SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    #[test]
    fn texts_are_kept_apart_in_any_order() {
        let mut record = record();
        record.set_text(RecordText::Path, b"/a");
        record.set_text(RecordText::Department, b"police");
        record.set_text(RecordText::Query, b"");
        assert_eq!(record.text(RecordText::Department), Some(&b"police"[..]));
        assert_eq!(record.text(RecordText::Path), Some(&b"/a"[..]));
        assert_eq!(record.text(RecordText::Query), None, "empty is absent");
        assert_eq!(record.text(RecordText::Host), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_marked() {
        for (text, beginning, mark) in [
            ("x".repeat(33), "x".repeat(32), "...[+1 bytes]"),
            ("x".repeat(32), "x".repeat(32), ""),
            (format!("{}ü", "x".repeat(31)), "x".repeat(31), "...[+2 bytes]"),
            (format!("{}\u{1f600}", "x".repeat(29)), "x".repeat(29), "...[+4 bytes]"),
        ] {
            let mut record = record();
            record.set_text(RecordText::Method, text.as_bytes());
            let shown = record.text(RecordText::Method).expect("a text");
            assert_eq!(std::str::from_utf8(shown), Ok(&*format!("{beginning}{mark}")));
        }
        let mut record = record();
        record.set_text(RecordText::Method, &[0x80; 40]);
        assert_eq!(record.text(RecordText::Method).map(<[u8]>::len), Some(32 + "...[+8 bytes]".len()));
    }

    #[test]
    fn record_is_small_whatever_a_caller_sends() {
        let mut record = record();
        let huge = vec![b'/'; 100_000];
        for field in ALL_TEXTS {
            record.set_text(field, &huge);
        }
        let texts: usize = ALL_TEXTS.iter().map(|field| record.text(*field).map_or(0, <[u8]>::len)).sum();
        assert!(texts <= TEXTS_MAX, "{texts}");
        assert!(size_of::<AccessRecord>() <= 320, "{}", size_of::<AccessRecord>());
    }

    const ALL_TEXTS: [RecordText; RecordText::COUNT] = [
        RecordText::Department,
        RecordText::Subsystem,
        RecordText::Command,
        RecordText::Method,
        RecordText::Host,
        RecordText::Path,
        RecordText::Query,
        RecordText::Listener,
        RecordText::Caller,
        RecordText::Upstream,
        RecordText::Reason,
    ];
}
