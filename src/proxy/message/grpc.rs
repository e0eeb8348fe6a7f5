//! gRPC: detection of calls, their outcome (`grpc-status`), and their deadline (`grpc-timeout`).
//!
//! gRPC runs over HTTP/2 and has the HTTP status 200 for every outcome. The outcome of a call is in `grpc-status`,
//! mostly in the trailers (gRPC over HTTP2, "Responses").
//!
//! Guarantees: pure.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::Finished;

/// The content type of gRPC, before suffixes such as `+proto`.
const GRPC_CONTENT_TYPE: &str = "application/grpc";
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The gRPC status codes that the gateway sends itself.
pub(crate) const CANCELLED: u16 = 1;
pub(crate) const INVALID_ARGUMENT: u16 = 3;
pub(crate) const DEADLINE_EXCEEDED: u16 = 4;
pub(crate) const PERMISSION_DENIED: u16 = 7;
pub(crate) const RESOURCE_EXHAUSTED: u16 = 8;
pub(crate) const UNIMPLEMENTED: u16 = 12;
pub(crate) const UNAVAILABLE: u16 = 14;
pub(crate) const UNAUTHENTICATED: u16 = 16;

/// Whether a head belongs to a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.strip_prefix(GRPC_CONTENT_TYPE).is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The outcome in a head or in trailers, if they have a `grpc-status`.
pub(crate) fn grpc_outcome(fields: &HeaderMap) -> Option<Finished> {
    let status = fields.get(GRPC_STATUS)?;
    Some(match status.to_str().ok().and_then(|status| status.parse::<u16>().ok()) {
        Some(0) => Finished::Ok,
        // The equivalents of HTTP 4xx: cancelled, invalid argument, not found, already exists, permission denied,
        // resource exhausted, failed precondition, aborted, out of range, unauthenticated.
        Some(1 | 3 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 16) => Finished::ClientError,
        _ => Finished::ServerError,
    })
}

/// The caller's timeout for the call (`grpc-timeout`: at most eight digits and a unit), if there is one.
pub(crate) fn call_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = Some(digits).filter(|digits| digits.len() <= 8 && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let count: u64 = count?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A duration as `grpc-timeout`. Rounded up: a call with any time left has not timed out.
pub(crate) fn format_timeout(deadline: Duration) -> String {
    let milliseconds = deadline.as_nanos().div_ceil(1_000_000);
    match milliseconds {
        0..100_000_000 => format!("{milliseconds}m"),
        _ => format!("{}S", (milliseconds / 1000).min(99_999_999)),
    }
}

/// Writes the status of a call into trailers, or into a head without a body.
pub(crate) fn put_status(fields: &mut HeaderMap, status: u16, message: &str) {
    fields.insert(GRPC_STATUS, HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        fields.insert(GRPC_MESSAGE, message);
    }
}

/// Escapes `%` and all bytes other than printable ASCII, as `grpc-message` requires.
fn percent_encoded(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn calls_are_recognised_by_their_content_type() {
        for (kind, spoken) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&fields(CONTENT_TYPE, kind)), spoken, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn statuses_map_to_outcomes() {
        for (status, expected) in [
            ("0", Finished::Ok),
            ("5", Finished::ClientError),
            ("16", Finished::ClientError),
            ("2", Finished::ServerError),
            ("14", Finished::ServerError),
            ("99", Finished::ServerError),
            ("x", Finished::ServerError),
        ] {
            assert_eq!(grpc_outcome(&fields(GRPC_STATUS, status)), Some(expected), "{status}");
        }
        assert_eq!(grpc_outcome(&HeaderMap::new()), None);
    }

    #[test]
    fn deadlines_are_parsed_and_formatted() {
        for (text, expected) in [
            ("250m", Some(Duration::from_millis(250))),
            ("2S", Some(Duration::from_secs(2))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("5", None),
            ("S", None),
            ("+5S", None),
            ("5s", None),
            ("", None),
        ] {
            assert_eq!(call_timeout(&fields(GRPC_TIMEOUT, text)), expected, "{text:?}");
        }
        assert_eq!(format_timeout(Duration::from_micros(1)), "1m");
        assert_eq!(format_timeout(Duration::from_secs(3600)), "3600000m");
        assert_eq!(format_timeout(Duration::from_secs(1_000_000)), "1000000S");
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("100 % \u{e9}"), "100 %25 %C3%A9");
    }
}
