//! The two formats of a line of the access log: JSON and logfmt, with the same keys in the same order.
//!
//! Guarantees:
//! - One record is one line, whatever a caller has sent: control characters and characters that are invisible or change
//!   the direction of writing are escaped, so nobody can forge a line or send codes to a terminal (log injection).
//! - A line is plain UTF-8. Bytes that are not are shown as `\xNN`.
//! - A key is absent if the command has no such fact. Keys never change their order or their type.
//! - A line has at most [`LINE_MAX`] bytes.
//!
//! Keys and reasons are in `docs/access-log.md`.

use std::io::Write as _;
use std::time::Duration;

use crate::config::AccessLogFormat;
use crate::identity::is_hidden;
use crate::model::Outcome;

use super::record::{AccessRecord, RecordText};

/// The longest line: every text at its limit, of characters that all need six bytes, and the other keys.
#[cfg(test)]
pub(crate) const LINE_MAX: usize = 6 * super::record::TEXTS_MAX + 1024;

/// Appends the line of a record, with its line end.
pub(crate) fn append_line(line: &mut Vec<u8>, record: &AccessRecord, format: AccessLogFormat, gateway: &str) {
    let mut writer = LineWriter { line, format, is_first: true };
    writer.open();
    write_fields(&mut writer, record, gateway);
    writer.close();
}

fn write_fields(writer: &mut LineWriter<'_>, record: &AccessRecord, gateway: &str) {
    let time_key = match writer.format {
        AccessLogFormat::Json => "@timestamp", // what a data stream of Elasticsearch requires
        AccessLogFormat::Logfmt => "time",
    };
    writer.value(time_key, format_args!("{:.3}", record.began), true);
    writer.value("request_id", format_args!("{:032x}", record.request_id), true);
    writer.value("outcome", format_args!("{}", record.outcome.name()), true);
    writer.number("status", record.status.map(u64::from));
    writer.text("department", record.text(RecordText::Department));
    writer.text("subsystem", record.text(RecordText::Subsystem));
    writer.text("command", record.text(RecordText::Command));
    writer.number("units", Some(record.units));
    writer.text("method", record.text(RecordText::Method));
    writer.text("host", record.text(RecordText::Host));
    writer.text("path", record.text(RecordText::Path));
    writer.text("query", record.text(RecordText::Query));
    writer.text("protocol", record.protocol.map(str::as_bytes));
    writer.text("tls", record.tls.map(str::as_bytes));
    writer.text("gateway", Some(gateway.as_bytes()));
    writer.text("listener", record.text(RecordText::Listener));
    writer.text("caller", record.text(RecordText::Caller));
    writer.value("client_address", format_args!("{}", record.client), true);
    writer.value("peer_address", format_args!("{}", record.peer.ip()), true);
    writer.number("peer_port", Some(record.peer.port().into()));
    writer.text("upstream", record.text(RecordText::Upstream));
    writer.number("attempts", matches!(record.outcome, Outcome::Finished(_)).then(|| record.attempts.into()));
    writer.number("request_bytes", Some(record.request_bytes));
    writer.number("response_bytes", Some(record.response_bytes));
    writer.number("duration_us", Some(microseconds(record.duration)));
    writer.number("gateway_us", record.gateway_time.map(microseconds));
    writer.number("subsystem_us", record.subsystem_time.map(microseconds));
    writer.number("rate_limit", record.rate_limit.map(|(limit, _)| limit.into()));
    writer.number("rate_remaining", record.rate_limit.map(|(_, remaining)| remaining.into()));
    writer.number("retry_after_s", record.retry_after_s);
    writer.text("reason", record.text(RecordText::Reason));
    writer.number("sample", Some(record.sample.into()));
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

struct LineWriter<'a> {
    line: &'a mut Vec<u8>,
    format: AccessLogFormat,
    is_first: bool,
}

impl LineWriter<'_> {
    fn open(&mut self) {
        if self.format == AccessLogFormat::Json {
            self.line.push(b'{');
        }
    }

    fn close(&mut self) {
        if self.format == AccessLogFormat::Json {
            self.line.push(b'}');
        }
        self.line.push(b'\n');
    }

    fn key(&mut self, key: &str) {
        let is_first = std::mem::take(&mut self.is_first);
        match self.format {
            AccessLogFormat::Json => {
                self.line.extend_from_slice(if is_first { b"\"" } else { b",\"" });
                self.line.extend_from_slice(key.as_bytes());
                self.line.extend_from_slice(b"\":");
            }
            AccessLogFormat::Logfmt => {
                if !is_first {
                    self.line.push(b' ');
                }
                self.line.extend_from_slice(key.as_bytes());
                self.line.push(b'=');
            }
        }
    }

    /// Writes a value whose characters need no escapes: a number, an address, a time.
    fn value(&mut self, key: &str, value: std::fmt::Arguments<'_>, is_text: bool) {
        self.key(key);
        let quote = is_text && self.format == AccessLogFormat::Json;
        self.line.extend_from_slice(if quote { b"\"" } else { b"" });
        let _ = self.line.write_fmt(value); // a Vec takes everything
        self.line.extend_from_slice(if quote { b"\"" } else { b"" });
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.value(key, format_args!("{value}"), false);
        }
    }

    /// Writes a text of any bytes.
    fn text(&mut self, key: &str, text: Option<&[u8]>) {
        let Some(text) = text else { return };
        self.key(key);
        if self.format == AccessLogFormat::Logfmt && is_plain(text) {
            self.line.extend_from_slice(text);
            return;
        }
        self.line.push(b'"');
        push_escaped(self.line, text);
        self.line.push(b'"');
    }
}

/// Whether a value of logfmt needs no quotes.
fn is_plain(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"=\\".contains(byte))
}

/// Appends the content of a JSON string. logfmt quotes in the same way.
fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        push_escaped_text(line, chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(line, "\\\\x{byte:02x}"); // a Vec takes everything
        }
    }
}

fn push_escaped_text(line: &mut Vec<u8>, text: &str) {
    let is_special = |character: char| matches!(character, '"' | '\\') || is_hidden(character);
    let mut rest = text;
    while let Some(position) = rest.find(is_special) {
        let (before, from) = rest.split_at(position);
        line.extend_from_slice(before.as_bytes());
        let mut characters = from.chars();
        if let Some(special) = characters.next() {
            push_special(line, special);
        }
        rest = characters.as_str();
    }
    line.extend_from_slice(rest.as_bytes());
}

fn push_special(line: &mut Vec<u8>, special: char) {
    match special {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}"); // a Vec takes everything
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finished, Refused};
    use std::net::SocketAddr;

    fn record() -> AccessRecord {
        let began = "2026-12-01T08:00:00.1239Z".parse().expect("a time");
        let peer: SocketAddr = "192.0.2.7:51324".parse().expect("an address");
        let mut record = AccessRecord::new(began, 0xabc, peer);
        record.set_text(RecordText::Listener, b"departments");
        record
    }

    /// A command that a subsystem has answered.
    fn answered() -> AccessRecord {
        let mut record = record();
        record.outcome = Outcome::Finished(Finished::Ok);
        (record.status, record.protocol, record.tls) = (Some(200), Some("HTTP/2"), Some("TLSv1.3"));
        record.client = "198.51.100.9".parse().expect("an address");
        (record.units, record.request_bytes, record.response_bytes) = (3, 10, 128);
        record.duration = Duration::from_nanos(1_234_999);
        (record.gateway_time, record.subsystem_time) =
            (Some(Duration::from_micros(34)), Some(Duration::from_micros(1_200)));
        (record.attempts, record.rate_limit, record.sample) = (2, Some((90, 7)), 100);
        for (field, text) in [
            (RecordText::Department, "traffic-police"),
            (RecordText::Subsystem, "cameras"),
            (RecordText::Command, "snapshot.read"),
            (RecordText::Method, "GET"),
            (RecordText::Host, "gateway.city.example"),
            (RecordText::Path, "/cameras/v1/snapshots/1"),
            (RecordText::Query, "size=small&at=5"),
            (RecordText::Caller, "spiffe://city.example/traffic-police"),
            (RecordText::Upstream, "127.0.0.1:8080"),
        ] {
            record.set_text(field, text.as_bytes());
        }
        record
    }

    /// A command that was refused before anything was known about it.
    fn refused() -> AccessRecord {
        let mut record = record();
        record.outcome = Outcome::Refused(Refused::RateLimited);
        (record.status, record.retry_after_s) = (Some(429), Some(2));
        record.set_text(RecordText::Reason, b"the rate limit is exceeded");
        record
    }

    fn line(record: &AccessRecord, format: AccessLogFormat) -> String {
        let mut line = Vec::new();
        append_line(&mut line, record, format, "tallygate");
        String::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn json_lines_are_as_documented() {
        assert_eq!(
            line(&answered(), AccessLogFormat::Json),
            concat!(
                r#"{"@timestamp":"2026-12-01T08:00:00.123Z","request_id":"00000000000000000000000000000abc","#,
                r#""outcome":"ok","status":200,"department":"traffic-police","subsystem":"cameras","#,
                r#""command":"snapshot.read","units":3,"method":"GET","host":"gateway.city.example","#,
                r#""path":"/cameras/v1/snapshots/1","query":"size=small&at=5","protocol":"HTTP/2","tls":"TLSv1.3","#,
                r#""gateway":"tallygate","listener":"departments","caller":"spiffe://city.example/traffic-police","#,
                r#""client_address":"198.51.100.9","peer_address":"192.0.2.7","peer_port":51324,"#,
                r#""upstream":"127.0.0.1:8080","attempts":2,"request_bytes":10,"response_bytes":128,"#,
                r#""duration_us":1234,"gateway_us":34,"subsystem_us":1200,"rate_limit":90,"rate_remaining":7,"#,
                r#""sample":100}"#,
                "\n"
            )
        );
        assert_eq!(
            line(&refused(), AccessLogFormat::Json),
            concat!(
                r#"{"@timestamp":"2026-12-01T08:00:00.123Z","request_id":"00000000000000000000000000000abc","#,
                r#""outcome":"rate_limited","status":429,"units":0,"gateway":"tallygate","listener":"departments","#,
                r#""client_address":"192.0.2.7","peer_address":"192.0.2.7","peer_port":51324,"request_bytes":0,"#,
                r#""response_bytes":0,"duration_us":0,"retry_after_s":2,"reason":"the rate limit is exceeded","#,
                r#""sample":1}"#,
                "\n"
            )
        );
    }

    #[test]
    fn logfmt_lines_are_as_documented() {
        assert_eq!(
            line(&answered(), AccessLogFormat::Logfmt),
            concat!(
                "time=2026-12-01T08:00:00.123Z request_id=00000000000000000000000000000abc outcome=ok status=200 ",
                "department=traffic-police subsystem=cameras command=snapshot.read units=3 method=GET ",
                r#"host=gateway.city.example path=/cameras/v1/snapshots/1 query="size=small&at=5" protocol=HTTP/2 "#,
                "tls=TLSv1.3 gateway=tallygate listener=departments caller=spiffe://city.example/traffic-police ",
                "client_address=198.51.100.9 peer_address=192.0.2.7 peer_port=51324 upstream=127.0.0.1:8080 ",
                "attempts=2 request_bytes=10 response_bytes=128 duration_us=1234 gateway_us=34 subsystem_us=1200 ",
                "rate_limit=90 rate_remaining=7 sample=100\n"
            )
        );
        assert_eq!(
            line(&refused(), AccessLogFormat::Logfmt),
            concat!(
                "time=2026-12-01T08:00:00.123Z request_id=00000000000000000000000000000abc outcome=rate_limited ",
                "status=429 units=0 gateway=tallygate listener=departments client_address=192.0.2.7 ",
                "peer_address=192.0.2.7 peer_port=51324 request_bytes=0 response_bytes=0 duration_us=0 ",
                "retry_after_s=2 reason=\"the rate limit is exceeded\" sample=1\n"
            )
        );
    }

    #[test]
    fn hostile_texts_cannot_leave_their_value() {
        for (text, json, logfmt) in [
            (&b"/a b"[..], r#""/a b""#, r#""/a b""#),
            (b"/\"},{\"outcome\":\"ok", r#""/\"},{\"outcome\":\"ok""#, r#""/\"},{\"outcome\":\"ok""#),
            (b"/x outcome=ok", r#""/x outcome=ok""#, r#""/x outcome=ok""#),
            (b"/x=1", r#""/x=1""#, r#""/x=1""#),
            (b"/\r\n{}\t\0", r#""/\r\n{}\t\u0000""#, r#""/\r\n{}\t\u0000""#),
            (b"/\x1b[31mred\x7f", r#""/\u001b[31mred\u007f""#, r#""/\u001b[31mred\u007f""#),
            (b"/\\n", r#""/\\n""#, r#""/\\n""#),
            (b"/\xff\xfe", r#""/\\xff\\xfe""#, r#""/\\xff\\xfe""#),
            ("/ü".as_bytes(), "\"/ü\"", "\"/ü\""),
            ("/\u{202e}gpj\u{2028}\u{85}".as_bytes(), r#""/\u202egpj\u2028\u0085""#, r#""/\u202egpj\u2028\u0085""#),
            ("/\u{e0041}".as_bytes(), r#""/\udb40\udc41""#, r#""/\udb40\udc41""#),
            (b"/%0a", r#""/%0a""#, "/%0a"),
            (b"", "", ""),
        ] {
            let mut record = record();
            record.set_text(RecordText::Path, text);
            let (as_json, as_logfmt) = (line(&record, AccessLogFormat::Json), line(&record, AccessLogFormat::Logfmt));
            assert!(as_json.contains(&format!(r#","path":{json},"#)) || json.is_empty(), "{as_json}");
            assert!(as_logfmt.contains(&format!(" path={logfmt} ")) || logfmt.is_empty(), "{as_logfmt}");
            for line in [&as_json, &as_logfmt] {
                assert_eq!(line.matches(is_hidden).collect::<String>(), "\n", "{line}");
            }
            let parsed: serde_json::Value = serde_json::from_str(&as_json).expect("JSON");
            if let Ok(text) = std::str::from_utf8(text).map(str::to_owned)
                && !text.is_empty()
            {
                assert_eq!(parsed["path"], text, "{as_json}");
            }
        }
    }

    #[test]
    fn longest_line_is_bounded() {
        let mut record = answered();
        let worst = "\u{85}".repeat(50_000); // two bytes become six
        for field in [RecordText::Path, RecordText::Query, RecordText::Reason, RecordText::Host] {
            record.set_text(field, worst.as_bytes());
        }
        for (length, format) in
            [AccessLogFormat::Json, AccessLogFormat::Logfmt].map(|format| (line(&record, format).len(), format))
        {
            assert!(length <= LINE_MAX, "{length} {format:?}");
        }
        let one_byte_six = "\0".repeat(50_000);
        record.set_text(RecordText::Path, one_byte_six.as_bytes());
        assert!(line(&record, AccessLogFormat::Json).len() <= LINE_MAX);
        assert!(line(&record, AccessLogFormat::Json).contains("...[+48976 bytes]"));
    }
}
